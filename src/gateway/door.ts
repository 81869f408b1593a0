/** Checks the token of requests, and where they come from. */
import { createHash, timingSafeEqual } from "node:crypto"
import type { IncomingMessage } from "node:http"

const digest = (text: string): Buffer => createHash("sha256").update(text).digest()

/** The part of a path with the token. */
const prefix = /^\/token\/([^/?]+)(?=[/?]|$)/

/**
 * Returns the target of a request without its token; undefined if the request is not allowed. The token is in the header
 * `x-floodgate-token`, or in front of the path, for clients of which only the base URL can be set.
 */
export const makeDoor = (token: string | undefined): ((request: IncomingMessage) => string | undefined) => {
  const expected = token === undefined ? undefined : digest(token)
  return ({ headers, url = "/" }) => {
    const inPath = prefix.exec(url)
    const target = inPath === null ? url : url.slice(inPath[0].length) || "/"
    if (expected === undefined) return inPath === null ? url : target
    const given = headers["x-floodgate-token"] ?? inPath?.[1]
    return typeof given === "string" && timingSafeEqual(digest(given), expected) ? target : undefined
  }
}

/** Whether only this machine reaches an address. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host)

/** Whether the `host` of a request is a loopback name. A page on another site that resolves its own name to this address fails this. */
export const isAtHome = ({ headers }: IncomingMessage): boolean =>
  isLoopback((headers.host ?? "").replace(/:\d+$/, "").replaceAll(/[[\]]/g, ""))
