import * as Tracer from "effect/Tracer"

/** A tracer that records its spans, or those that `isKept` selects. */
export const recordingTracer = (isKept = (_: Tracer.Span): boolean => true) => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      if (isKept(span)) spans.push(span)
      return span
    }
  })
  return { spans, tracer }
}
