/** Selects the headers that are passed on, in both directions. */
import type { IncomingHttpHeaders } from "node:http"
import { type Credentials, ProviderHeaders, Trace } from "floodgate/internal"
import { type Exchange, isReplaced, readerOf as exchangedReader } from "./credentials.ts"

/** Headers as Node gives those of a response. */
export type ResponseHeaders = Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

/** Headers that concern one connection only (RFC 9110, section 7.6.1). */
const hopByHop = [
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade"
]
/** The HTTP client writes these itself. */
const rewritten = new Set([...hopByHop, "host", "expect", "content-length"])
/** `alt-svc` would show clients a way around the gateway. */
const withheld = new Set([...hopByHop, "alt-svc"])

const none: ReadonlyArray<string> = []

/** The headers that a `connection` header names, which concern one connection only. */
export const namedBy = (connection: string | null | undefined): ReadonlyArray<string> =>
  // Nearly all connections have one of these, and none of them names a header that is passed on.
  connection === undefined || connection === "keep-alive" || connection === "close"
    ? none
    : (connection ?? "").toLowerCase().split(/[\s,]+/)

/** Reads the headers that are passed on, and our own. They identify the caller. */
export const readerOf = (headers: IncomingHttpHeaders, exchange?: Exchange): ProviderHeaders.HeaderReader => {
  const read = ProviderHeaders.headerReader(headers)
  const dropped = namedBy(headers.connection)
  if (dropped.length === 0 && exchange === undefined) return read
  const passed: ProviderHeaders.HeaderReader = (name) => (dropped.includes(name) ? undefined : read(name))
  return exchange === undefined ? passed : exchangedReader(passed, exchange)
}

/**
 * The headers of a request as they are passed on, names and values in turn. Our own, `x-floodgate-...`, are removed, and so is a
 * second `authorization`, which Node does not show. An answer that will be `read` is requested without compression. With an
 * `exchange`, the provider's credential replaces all of the caller's.
 */
export const outgoing = (
  raw: ReadonlyArray<string>,
  connection: string | undefined,
  read: boolean,
  exchange?: Exchange
): Array<string> => {
  const dropped = namedBy(connection)
  let isAuthorized = false
  const sent: Array<string> = []
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index]!.toLowerCase()
    if (rewritten.has(name) || dropped.includes(name) || name.startsWith("x-floodgate-")) continue
    if (read && name === "accept-encoding") continue
    if (exchange !== undefined && isReplaced(name)) continue
    if (name === "authorization") {
      if (isAuthorized) continue
      isAuthorized = true
    }
    sent.push(raw[index]!, raw[index + 1]!)
  }
  if (read) sent.push("accept-encoding", "identity")
  if (exchange?.header !== undefined) sent.push(...exchange.header)
  return sent
}

/** Headers, names and values in turn, with another credential than the caller's, or with none. */
export const replaced = (
  headers: ReadonlyArray<string>,
  credential: Credentials.CredentialHeader | undefined
): Array<string> => {
  const sent: Array<string> = []
  for (let index = 0; index + 1 < headers.length; index += 2) {
    if (!isReplaced(headers[index]!.toLowerCase())) sent.push(headers[index]!, headers[index + 1]!)
  }
  return credential === undefined ? sent : [...sent, ...credential]
}

/** Adds a `traceparent`, if there is one, to headers that list names and values in turn. The upstream then continues the trace. */
export const traced = (headers: ReadonlyArray<string>, traceparent: string | undefined): ReadonlyArray<string> => {
  if (traceparent === undefined) return headers
  const lost = Trace.replaced(
    (name) => headers[headers.findIndex((each, at) => at % 2 === 0 && each.toLowerCase() === name) + 1]
  )
  if (lost === undefined) return headers
  const sent = headers.filter((_, at) => !lost.includes(headers[at - (at % 2)]!.toLowerCase()))
  return [...sent, "traceparent", traceparent]
}

/** The headers of a response as they are passed on, without those in `drop`. */
export const incoming = (
  headers: ResponseHeaders,
  drop: ReadonlyArray<string> = []
): Record<string, string | Array<string>> => {
  const connection = headers["connection"]
  const named = typeof connection === "string" ? namedBy(connection) : []
  const kept: Record<string, string | Array<string>> = {}
  for (const name in headers) {
    const value = headers[name]
    if (value === undefined || withheld.has(name) || named.includes(name) || drop.includes(name)) continue
    kept[name] = typeof value === "string" ? value : [...value]
  }
  const length = kept["content-length"]
  if (length !== undefined && kept["content-disposition"] !== undefined) {
    // Node encodes the name of a file once more if it knows the length by then, and may refuse the result.
    delete kept["content-length"]
    kept["content-length"] = length
  }
  return kept
}
