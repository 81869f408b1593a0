/** Checks what HTTP/1.1 demands of a request before a server looks at what it wants. */
import type { IncomingMessage } from "node:http"
import { Bounds, type Refusing } from "floodgate/internal"

/** A target in absolute form, which clients send to proxies and every server must accept (RFC 9112, 3.2.2). */
const absolute = /^https?:\/\/(?:[^/?#@]*@)?([^/?#]+)/i

/** Brings a request with a target in absolute form into the usual one. The name in the target takes the place of `host`. */
export const normalize = (request: IncomingMessage): void => {
  const { url = "" } = request
  if (url.startsWith("/")) return
  const [prefix, host] = absolute.exec(url) ?? []
  if (prefix === undefined || host === undefined) return
  const rest = url.slice(prefix.length)
  request.url = rest.startsWith("/") ? rest : `/${rest}`
  request.headers.host = host
}

const twoHosts: Refusing.Refusal = {
  kind: "invalid",
  message: "The request has more than one host header: send it once (RFC 9112, 3.2)"
}
const traced: Refusing.Refusal = {
  kind: "notImplemented",
  message: "The gateway does not pass on TRACE, because the answer would show the credential: send the request itself"
}
const encoded: Refusing.Refusal = {
  kind: "notImplemented",
  message: "The gateway knows no transfer coding but chunked: send the body as it is (RFC 9112, 6.1)"
}

const hidden: Refusing.Refusal = {
  kind: "invalid",
  message: `The request has headers that the gateway cannot read: send at most ${Bounds.bounds.headerLines.max} lines`
}

/**
 * Whether a request has headers that Node does not show. Version 22.19 has the lines after the first 1,000 only in `rawHeaders`, which are
 * passed on, so a key behind them would reach the provider unseen and pay from no cap. Later versions answer 431 themselves.
 */
const hidesHeaders = ({ headers, rawHeaders }: Pick<IncomingMessage, "headers" | "rawHeaders">): boolean => {
  if (rawHeaders.length > 2 * Bounds.bounds.headerLines.max) return true
  for (let index = 0; index < rawHeaders.length; index += 2) {
    if (headers[rawHeaders[index]!.toLowerCase()] === undefined) return true
  }
  return false
}

const countOf = (raw: ReadonlyArray<string>, name: string): number => {
  let count = 0
  for (let index = 0; index < raw.length; index += 2) {
    const { length } = raw[index]!
    if (length === name.length && raw[index]!.toLowerCase() === name) count++
  }
  return count
}

/** The refusal of a request, wherever it goes; undefined if there is none. Node has refused what cannot be read at all. */
export const refusalOf = ({ headers, method, rawHeaders }: IncomingMessage): Refusing.Refusal | undefined => {
  if (method === "TRACE") return traced
  if (hidesHeaders({ headers, rawHeaders })) return hidden
  const coding = headers["transfer-encoding"]
  if (coding !== undefined && coding.trim().toLowerCase() !== "chunked") return encoded
  // Of several, Node shows one, and a proxy in front of the gateway may have read another.
  return countOf(rawHeaders, "host") > 1 ? twoHosts : undefined
}
