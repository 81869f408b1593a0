/**
 * The header `traceparent`, which carries the trace of a request to its receiver.
 *
 * The format is that of W3C Trace Context: https://www.w3.org/TR/trace-context/#traceparent-header
 */
/** A span, as the header names it. */
export interface TraceParent {
  readonly traceId: string
  readonly spanId: string
  /** Whether its spans are recorded. */
  readonly sampled: boolean
}

export const traceparentName = "traceparent"

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
