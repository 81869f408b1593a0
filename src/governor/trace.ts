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

const count = (metric: Metric.Counter<number>, attributes: Record<string, string>, amount = 1): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(metric, attributes), amount)

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return "success"
  if (Exit.hasInterrupts(exit)) return "interrupted"
  const error = Exit.findErrorOption(exit)
  return error._tag === "Some" && error.value instanceof BudgetError ? "refused" : "failure"
}

/** The name of a failure: the tag of its reason where it has one. */
const errorType = (error: unknown): string => {
  if (typeof error !== "object" || error === null) return "_OTHER"
  const reason = "reason" in error ? error.reason : undefined
  const tagged = typeof reason === "object" && reason !== null && "_tag" in reason ? reason : error
  return "_tag" in tagged && typeof tagged._tag === "string" ? tagged._tag : "_OTHER"
}

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
      span.attribute("floodgate.attempts", trace.attempts)
      span.attribute("floodgate.queue.seconds", trace.queued / 1_000)
      span.attribute("floodgate.retry.wait.seconds", trace.waited / 1_000)
      const error = Exit.findErrorOption(exit)
      if (error._tag === "Some") failedFinally(span, error.value)
      const attributes = { pool, outcome: outcomeOf(exit) }
      return Effect.andThen(
        count(Metrics.calls, attributes),
        Metric.update(Metric.withAttributes(Metrics.callSeconds, { pool }), (now - started) / 1_000)
      )
    })
  )
  return trace
})

const failedFinally = (span: Tracer.Span, error: unknown): void => {
  span.attribute("error.type", errorType(error))
  if (!isLlmError(error)) return
  if (error.status !== undefined) span.attribute("http.response.status_code", error.status)
  if (error.requestId !== undefined) span.attribute("floodgate.request.id", error.requestId)
  if (error.stoppedBy !== undefined) span.attribute("floodgate.stopped_by", error.stoppedBy)
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

/** An attempt is sent. */
export const sent = (trace: Trace): Effect.Effect<void> =>
  Effect.suspend(() => {
    trace.attempts++
    return count(Metrics.attempts, { pool: trace.pool })
  })

/** An attempt was admitted. */
export const admitted = (trace: Trace, estimate: Limits.Estimate, reservation: Reservation): Effect.Effect<void> =>
  Effect.suspend(() => {
    const millis = Duration.toMillis(reservation.waited)
    trace.limit = undefined
    trace.queued += millis
    const { span } = trace
    if (span !== undefined) {
      span.attribute("floodgate.agent", reservation.agent)
      if (reservation.binding !== undefined) span.attribute("floodgate.queue.bound_by", reservation.binding)
      for (const [dimension, name] of estimates) {
        const value = estimate[dimension]
        if (value !== undefined) span.attribute(`floodgate.estimate.${name}`, value)
      }
    }
    return Metric.update(Metric.withAttributes(Metrics.queueSeconds, { pool: trace.pool }), millis / 1_000)
  })

const estimates = [
  ["inputTokens", "input_tokens"],
  ["outputTokens", "output_tokens"],
  ["tokens", "tokens"]
] as const

/** An attempt failed. */
export const failed = (trace: Trace, error: unknown, limit: Limits.Dimension | undefined): Effect.Effect<void> =>
  Effect.clockWith((clock) => {
    const reason = errorType(error)
    trace.failedAt = clock.currentTimeMillisUnsafe()
    trace.limit = limit
    if (limit !== undefined) trace.span?.attribute("floodgate.limit", limit)
    trace.span?.event("floodgate.attempt.failed", clock.currentTimeNanosUnsafe(), {
      "error.type": reason,
      "floodgate.attempt": trace.attempts
    })
    return count(Metrics.failures, { pool: trace.pool, reason })
  })

/** An attempt succeeded: what it used, and what the response says of itself. */
export const succeeded = (
  { pool, span }: Trace,
  actual: Accounting.Actual | undefined,
  response: ResponseInfo | undefined
): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (span !== undefined && response !== undefined) {
      if (response.id !== undefined) span.attribute("gen_ai.response.id", response.id)
      if (response.model !== undefined) span.attribute("gen_ai.response.model", response.model)
      if (response.finishReason !== undefined) span.attribute("gen_ai.response.finish_reasons", [response.finishReason])
    }
    if (actual === undefined) return Effect.void
    const { cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens, outputTokens } = actual
    if (span !== undefined) {
      span.attribute("gen_ai.usage.input_tokens", inputTokens + cacheCreationTokens + cacheReadTokens)
      span.attribute("gen_ai.usage.output_tokens", outputTokens)
      if (cacheReadTokens > 0) span.attribute("gen_ai.usage.cache_read.input_tokens", cacheReadTokens)
      if (cacheCreationTokens > 0) span.attribute("gen_ai.usage.cache_write.input_tokens", cacheCreationTokens)
    }
    const used = [
      ["input", inputTokens],
      ["output", outputTokens],
      ["cache_read", cacheReadTokens],
      ["cache_write", cacheCreationTokens]
    ] as const
    return Effect.forEach(
      used,
      ([type, amount]) => (amount > 0 ? count(Metrics.tokens, { pool, type }, amount) : Effect.void),
      { discard: true }
    )
  })
