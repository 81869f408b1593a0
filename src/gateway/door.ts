/** Who may come in, and what is asked of the gateway itself. */
import { createHash, timingSafeEqual } from "node:crypto"
import type { IncomingMessage } from "node:http"

const digest = (text: string): Buffer => createHash("sha256").update(text).digest()

/** The part of a path that has the token in it. */
const prefix = /^\/token\/([^/?]+)(?=[/?]|$)/

/**
 * The target of a request that may come in, without its token; undefined where it may not. The token is in the header
 * `x-floodgate-token`, or in front of the path, for clients that can be given a base URL only.
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

/** Whether an address is one that only this machine reaches. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(?:\.\d{1,3}){3}$/.test(host)

/** Whether a request names the gateway as this machine does: a page elsewhere that points its name here does not. */
export const isAtHome = ({ headers }: IncomingMessage): boolean =>
  isLoopback((headers.host ?? "").replace(/:\d+$/, "").replaceAll(/[[\]]/g, ""))
