/** Requests that ask to be taken for others, so that they would evade caps and limits. */
import { Engine, type Matching, type Refusing } from "floodgate/internal"
import type { ProxiedRequest } from "./call.ts"
import * as Headers from "./headers.ts"
import { hasBody } from "./passing.ts"

/** Methods by which providers read or delete what they store. */
const others: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "DELETE"])

/** A reason not to pass on a request. */
export interface Evasion {
  readonly refusal: Refusing.Refusal
  /** The call that it may be taken for. */
  readonly match: Matching.Match | undefined
}

const invalid = (message: string): Refusing.Refusal => ({ kind: "invalid", message })

/**
 * Finds what is wrong with a request that some servers take for another one: it overrides its method or its path, or sends a call by
 * another method than POST. Undefined for an honest one.
 */
export const evasionIn = ({ exchange, parts, request, routed }: ProxiedRequest): Evasion | undefined => {
  const override = Engine.overrideIn(routed.path, Headers.readerOf(request.headers, exchange))
  if (override !== undefined) {
    const refusal = invalid(`The gateway passes on no "${override}": send the request by its own method and path`)
    return { refusal, match: routed.call }
  }
  const { method = "GET" } = request
  if (method === "POST") return undefined
  const match = parts.engine.route("POST", routed.path)
  // Stored objects are read and deleted by the same paths.
  if (match === undefined || (others.has(method) && routed.protocol !== undefined && !hasBody(request)))
    return undefined
  return { refusal: invalid(`A call must be a POST, not a ${method}: the gateway passes on no other`), match }
}
