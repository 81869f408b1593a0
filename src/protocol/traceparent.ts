/**
 * The header `traceparent`, which carries the trace of a request to its receiver.
 *
 * The format is that of W3C Trace Context: https://www.w3.org/TR/trace-context/#traceparent-header
 */
import type { HeaderReader } from "./headers.ts"

/** A span, as the header names it. */
export interface TraceParent {
  readonly traceId: string
  readonly spanId: string
  /** Whether its spans are recorded. */
  readonly sampled: boolean
}

export const traceparentName = "traceparent"
const tracestateName = "tracestate"

/** Later versions may add fields, version ff does not exist, and ids of zeros are invalid. */
const format = /^(?!ff)([\da-f]{2})-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(-.*)?$/

/** The span that a header names; undefined if there is no valid one. */
export const readTraceparent = (header: string | null | undefined): TraceParent | undefined => {
  const [, version, traceId = "", spanId = "", flags = "", more] = format.exec(header?.trim() ?? "") ?? []
  if (version === undefined || (version === "00" && more !== undefined)) return undefined
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 }
}

/** The header for a span; undefined if a tracer has given it ids of another form. */
export const writeTraceparent = ({ sampled, spanId, traceId }: TraceParent): string | undefined => {
  const header = `00-${traceId.padStart(32, "0")}-${spanId}-${sampled ? "01" : "00"}`
  return format.test(header) ? header : undefined
}

/** Whether AWS's signature covers the header. Whoever changes it breaks the signature. */
const isSigned = (authorization: string | null | undefined): boolean => {
  const [, signed = ""] = /^AWS4-\S+ .*\bSignedHeaders=([^,\s]+)/.exec(authorization ?? "") ?? []
  return signed.toLowerCase().split(";").includes(traceparentName)
}

/**
 * The headers that a request loses when it gets another `traceparent`: the caller's own, and its `tracestate` unless the trace goes on.
 * Undefined if the request must keep its own.
 *
 * Source for signatures: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
 */
export const replacedTrace = (header: HeaderReader): ReadonlyArray<string> | undefined => {
  if (isSigned(header("authorization"))) return undefined
  return readTraceparent(header(traceparentName)) === undefined ? [traceparentName, tracestateName] : [traceparentName]
}

/** Passes the trace of a call on in its headers. */
export const setTraceparent = (headers: Headers, traceparent: string): void => {
  const lost = replacedTrace((name) => headers.get(name))
  if (lost === undefined) return
  for (const name of lost) headers.delete(name)
  headers.set(traceparentName, traceparent)
}
