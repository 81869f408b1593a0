/**
 * What is recorded of one call: a span by OpenTelemetry's names for generative AI, and metrics.
 *
 * A call has one span, whatever the number of its attempts; a stream's ends with the stream. There is a span only where
 * somebody traces. Nothing of a request's or a response's content goes into it, and no key.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Tracer from "effect/Tracer"
import type * as Accounting from "../Accounting.ts"
import { Denied, type Reservation } from "../Budget.ts"
import type * as Limits from "../Limits.ts"
import { isLlmError } from "../LlmError.ts"
import { causeOf, isRefusal } from "./failure.ts"
import { type Counts, countsOf, type Outcome } from "./metrics.ts"
import type { Call, ResponseInfo } from "./models.ts"

/** One call as it goes on, over all of its attempts. */
export interface Trace {
  readonly pool: string
  readonly model: string
  readonly clock: Clock.Clock
  readonly counts: Counts
  readonly startedAt: number
  span: Tracer.Span | undefined
  /** How many were sent. */
  attempts: number
  /** Milliseconds in the queue, of all attempts. */
  queued: number
  /** Milliseconds between the attempts. */
  waited: number
  /** When the last attempt failed. */
  failedAt: number | undefined
  /** The limit that the last rejection hit. */
  limit: Limits.Dimension | undefined
}

export const begin = (pool: string, model: string, clock: Clock.Clock, context: Context.Context<never>): Trace => ({
  pool,
  model,
  clock,
  counts: countsOf(pool, context),
  startedAt: clock.currentTimeMillisUnsafe(),
  span: undefined,
  attempts: 0,
  queued: 0,
  waited: 0,
  failedAt: undefined,
  limit: undefined
})

/** Whether a context has a tracer, or is within a span. */
export const isTraced = (context: Context.Context<never>): boolean =>
  Context.getOrUndefined(context, Tracer.ParentSpan) !== undefined ||
  Context.getOrUndefined(context, Tracer.Tracer) !== undefined

/** Runs a call within its span. */
export const within = <A, E, R>(trace: Trace, call: Call, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
  const operation = call.operation ?? "chat"
  const attributes = {
    "gen_ai.operation.name": operation,
    "gen_ai.request.model": call.model,
    "floodgate.pool": trace.pool,
    ...(call.provider !== undefined && { "gen_ai.provider.name": call.provider }),
    ...(call.maxTokens !== undefined && { "gen_ai.request.max_tokens": call.maxTokens }),
    ...(call.stream === true && { "gen_ai.request.stream": true })
  }
  return Effect.flatMap(Effect.makeSpanScoped(`${operation} ${call.model}`, { kind: "client", attributes }), (span) => {
    trace.span = span
    return Effect.provideService(self, Tracer.ParentSpan, span)
  }) as Effect.Effect<A, E, R>
}

/** Notes in the span what is known. */
const note = (span: Tracer.Span | undefined, attributes: Readonly<Record<string, unknown>>): void => {
  if (span === undefined) return
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) span.attribute(key, value)
}

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): Outcome => {
  if (Exit.isSuccess(exit)) return "success"
  if (Exit.hasInterrupts(exit)) return "interrupted"
  const error = Exit.findErrorOption(exit)
  return error._tag === "Some" && isRefusal(error.value) ? "refused" : "failure"
}

const tagOf = (value: unknown): string | undefined =>
  Predicate.hasProperty(value, "_tag") && typeof value._tag === "string" ? value._tag : undefined

/** The name of a failure: the tag of its reason where it has one, or of what denied it. */
export const errorType = (error: unknown): string => {
  const cause = causeOf(error)
  const reason = Predicate.hasProperty(cause, "reason") ? cause.reason : undefined
  return tagOf(reason instanceof Denied ? reason.cause : reason) ?? tagOf(cause) ?? "_OTHER"
}

/** A call is over. */
export const end = (trace: Trace, exit: Exit.Exit<unknown, unknown>): void => {
  const { clock, counts, span, startedAt } = trace
  counts.ended(outcomeOf(exit), (clock.currentTimeMillisUnsafe() - startedAt) / 1_000)
  note(span, {
    "floodgate.attempts": trace.attempts,
    "floodgate.queue.seconds": trace.queued / 1_000,
    "floodgate.retry.wait.seconds": trace.waited / 1_000
  })
  const error = Exit.findErrorOption(exit)
  if (error._tag === "None") return
  note(span, { "error.type": errorType(error.value) })
  if (!isLlmError(error.value)) return
  note(span, {
    "http.response.status_code": error.value.status,
    "floodgate.request.id": error.value.requestId,
    "floodgate.stopped_by": error.value.stoppedBy
  })
}

/** An attempt begins: the time since the last one was waited. */
export const resume = (trace: Trace): void => {
  if (trace.failedAt !== undefined) trace.waited += trace.clock.currentTimeMillisUnsafe() - trace.failedAt
  trace.failedAt = undefined
}

/** An attempt was admitted. */
export const admitted = (trace: Trace, estimate: Limits.Estimate, reservation: Reservation): void => {
  const millis = Duration.toMillis(reservation.waited)
  trace.limit = undefined
  trace.queued += millis
  trace.counts.queued(millis / 1_000)
  note(trace.span, {
    "floodgate.agent": reservation.agent,
    "floodgate.queue.bound_by": reservation.binding,
    "floodgate.estimate.input_tokens": estimate.inputTokens,
    "floodgate.estimate.output_tokens": estimate.outputTokens,
    "floodgate.estimate.tokens": estimate.tokens
  })
}

/** An attempt is sent. */
export const sent = (trace: Trace): void => {
  trace.attempts++
  trace.counts.attempt()
}

/** An attempt failed. */
export const failed = (trace: Trace, error: unknown, limit: Limits.Dimension | undefined): void => {
  const { clock, counts, span } = trace
  const reason = errorType(error)
  trace.failedAt = clock.currentTimeMillisUnsafe()
  trace.limit = limit
  counts.failed(reason)
  note(span, { "floodgate.limit": limit })
  span?.event("floodgate.attempt.failed", clock.currentTimeNanosUnsafe(), {
    "error.type": reason,
    "floodgate.attempt": trace.attempts
  })
}

/** An attempt succeeded: what it used, and what the response says of itself. */
export const succeeded = (
  { counts, span }: Trace,
  actual: Accounting.Actual | undefined,
  { finishReason, id, model }: ResponseInfo
): void => {
  note(span, {
    "gen_ai.response.id": id,
    "gen_ai.response.model": model,
    "gen_ai.response.finish_reasons": finishReason && [finishReason]
  })
  if (actual === undefined) return
  counts.used(actual)
  const { cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens, outputTokens } = actual
  note(span, {
    "gen_ai.usage.input_tokens": inputTokens + cacheCreationTokens + cacheReadTokens,
    "gen_ai.usage.output_tokens": outputTokens,
    "gen_ai.usage.cache_read.input_tokens": cacheReadTokens > 0 ? cacheReadTokens : undefined,
    "gen_ai.usage.cache_write.input_tokens": cacheCreationTokens > 0 ? cacheCreationTokens : undefined
  })
}
