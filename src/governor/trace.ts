/**
 * What is told of one call: a span by OpenTelemetry's names for generative AI, and metrics.
 *
 * A call has one span, whatever the number of its attempts; a stream's ends with the stream. Nothing of a request's or a
 * response's content goes into it, and no key.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import type * as Accounting from "../Accounting.ts"
import { BudgetError, type Reservation } from "../Budget.ts"
import type * as Limits from "../Limits.ts"
import { isLlmError } from "../LlmError.ts"
import * as Metrics from "./metrics.ts"
import type { Call, ResponseInfo } from "./models.ts"

/** One call as it goes on, over all of its attempts. */
export interface Trace {
  readonly span: Tracer.Span | undefined
  readonly pool: string
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

/** A call of which nobody asked for a span. */
export const silent = (pool: string): Trace => ({
  span: undefined,
  pool,
  attempts: 0,
  queued: 0,
  waited: 0,
  failedAt: undefined,
  limit: undefined
})

const record = (
  metric: Metric.Metric<number, unknown>,
  attributes: Record<string, string>,
  amount = 1
): Effect.Effect<void> => Metric.update(Metric.withAttributes(metric, attributes), amount)

/** Notes in the span what is known. */
const note = (span: Tracer.Span | undefined, attributes: Readonly<Record<string, unknown>>): void => {
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) span?.attribute(key, value)
}

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "success"
  if (Exit.hasInterrupts(exit)) return "interrupted"
  const error = Exit.findErrorOption(exit)
  return error._tag === "Some" && error.value instanceof BudgetError ? "refused" : "failure"
}

const tagOf = (value: unknown): string | undefined =>
  Predicate.hasProperty(value, "_tag") && typeof value._tag === "string" ? value._tag : undefined

/** The name of a failure: the tag of its reason where it has one. */
const errorType = (error: unknown): string =>
  (Predicate.hasProperty(error, "reason") ? tagOf(error.reason) : undefined) ?? tagOf(error) ?? "_OTHER"

/** Begins a call. Its span and its metrics end with the scope. */
export const begin = Effect.fnUntraced(function* (
  pool: string,
  call: Call
): Effect.fn.Return<Trace, never, Scope.Scope> {
  const operation = call.operation ?? "chat"
  const started = yield* Clock.currentTimeMillis
  const span = yield* Effect.makeSpanScoped(`${operation} ${call.model}`, {
    kind: "client",
    attributes: {
      "gen_ai.operation.name": operation,
      "gen_ai.request.model": call.model,
      "floodgate.pool": pool,
      ...(call.provider !== undefined && { "gen_ai.provider.name": call.provider }),
      ...(call.maxTokens !== undefined && { "gen_ai.request.max_tokens": call.maxTokens }),
      ...(call.stream === true && { "gen_ai.request.stream": true })
    }
  })
  const trace: Trace = { ...silent(pool), span }
  yield* Effect.addFinalizer((exit) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      note(span, {
        "floodgate.attempts": trace.attempts,
        "floodgate.queue.seconds": trace.queued / 1_000,
        "floodgate.retry.wait.seconds": trace.waited / 1_000
      })
      const error = Exit.findErrorOption(exit)
      if (error._tag === "Some") failedFinally(span, error.value)
      const attributes = { pool, outcome: outcomeOf(exit) }
      return Effect.andThen(
        record(Metrics.calls, attributes),
        record(Metrics.callSeconds, { pool }, (now - started) / 1_000)
      )
    })
  )
  return trace
})

const failedFinally = (span: Tracer.Span, error: unknown): void => {
  note(span, { "error.type": errorType(error) })
  if (!isLlmError(error)) return
  note(span, {
    "http.response.status_code": error.status,
    "floodgate.request.id": error.requestId,
    "floodgate.stopped_by": error.stoppedBy
  })
}

/** An attempt begins: the time since the last one was waited. */
export const resumed = (trace: Trace): Effect.Effect<void> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    if (trace.failedAt !== undefined) trace.waited += now - trace.failedAt
    trace.failedAt = undefined
  })

/** What runs within belongs to the call's span. */
export const within =
  ({ span }: Trace) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    span === undefined ? self : Effect.provideService(self, Tracer.ParentSpan, span)

/** An attempt is sent, in the last step of this. */
export const sent = (trace: Trace): Effect.Effect<void> =>
  Effect.map(record(Metrics.attempts, { pool: trace.pool }), () => {
    trace.attempts++
  })

/** An attempt was admitted. */
export const admitted = (trace: Trace, estimate: Limits.Estimate, reservation: Reservation): Effect.Effect<void> =>
  Effect.suspend(() => {
    const millis = Duration.toMillis(reservation.waited)
    trace.limit = undefined
    trace.queued += millis
    note(trace.span, {
      "floodgate.agent": reservation.agent,
      "floodgate.queue.bound_by": reservation.binding,
      "floodgate.estimate.input_tokens": estimate.inputTokens,
      "floodgate.estimate.output_tokens": estimate.outputTokens,
      "floodgate.estimate.tokens": estimate.tokens
    })
    return record(Metrics.queueSeconds, { pool: trace.pool }, millis / 1_000)
  })

/** An attempt failed. */
export const failed = (trace: Trace, error: unknown, limit: Limits.Dimension | undefined): Effect.Effect<void> =>
  Effect.clockWith((clock) => {
    const reason = errorType(error)
    trace.failedAt = clock.currentTimeMillisUnsafe()
    trace.limit = limit
    note(trace.span, { "floodgate.limit": limit })
    trace.span?.event("floodgate.attempt.failed", clock.currentTimeNanosUnsafe(), {
      "error.type": reason,
      "floodgate.attempt": trace.attempts
    })
    return record(Metrics.failures, { pool: trace.pool, reason })
  })

/** An attempt succeeded: what it used, and what the response says of itself. */
export const succeeded = (
  { pool, span }: Trace,
  actual: Accounting.Actual | undefined,
  { finishReason, id, model }: ResponseInfo
): Effect.Effect<void> =>
  Effect.suspend(() => {
    note(span, {
      "gen_ai.response.id": id,
      "gen_ai.response.model": model,
      "gen_ai.response.finish_reasons": finishReason && [finishReason]
    })
    if (actual === undefined) return Effect.void
    const { cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens, outputTokens } = actual
    note(span, {
      "gen_ai.usage.input_tokens": inputTokens + cacheCreationTokens + cacheReadTokens,
      "gen_ai.usage.output_tokens": outputTokens,
      "gen_ai.usage.cache_read.input_tokens": cacheReadTokens > 0 ? cacheReadTokens : undefined,
      "gen_ai.usage.cache_write.input_tokens": cacheCreationTokens > 0 ? cacheCreationTokens : undefined
    })
    const used = [
      ["input", inputTokens],
      ["output", outputTokens],
      ["cache_read", cacheReadTokens],
      ["cache_write", cacheCreationTokens]
    ] as const
    return Effect.forEach(
      used,
      ([type, amount]) => (amount > 0 ? record(Metrics.tokens, { pool, type }, amount) : Effect.void),
      { discard: true }
    )
  })
