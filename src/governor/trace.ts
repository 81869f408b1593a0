/**
 * What is recorded of one call: a span by OpenTelemetry's names for generative AI, and metrics.
 *
 * A call has one span, whatever the number of its attempts; a stream's ends with the stream. There is a span only if the
 * program traces. Nothing of a request's or a response's content goes into it, and no key.
 *
 * The names of the metrics are part of the public interface, because dashboards depend on them:
 *
 * - `floodgate_calls`: calls that ended, by `pool` and `outcome`: success, failure, refused (by the budget), interrupted
 * - `floodgate_attempts`: attempts that were sent, by `pool`; more than calls by the number of retries
 * - `floodgate_attempt_failures`: attempts that failed, by `pool` and `reason`, such as RateLimited
 * - `floodgate_tokens`: tokens that calls used, by `pool` and `type`: input, output, cache_read, cache_write
 * - `floodgate_dollars`: what calls cost, by `pool`; those of models without a price are not in it
 * - `floodgate_queue_seconds`: time in the budget's queue, by `pool` (a histogram)
 * - `floodgate_call_seconds`: time of whole calls, queue, retries and stream included, by `pool` (a histogram)
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Metric from "effect/Metric"
import * as Tracer from "effect/Tracer"
import type * as Accounting from "../Accounting.ts"
import { promptTokens } from "../limits/actual.ts"
import { Denied, type Reservation } from "../Budget.ts"
import { waitBoundaries } from "../budget/metrics.ts"
import { mostPools } from "../budget/options.ts"
import * as Recency from "../input/recency.ts"
import type * as Limits from "../Limits.ts"
import { isLlmError } from "../LlmError.ts"
import { causeOf, isRefusal } from "./failure.ts"
import type { Call, ResponseInfo } from "./models.ts"

// -----------------------------------------------------------------------------
// Metrics
// -----------------------------------------------------------------------------

/** A counter of a pool, by the values of an attribute where it has one. Each of its metrics is resolved once. */
class Counter {
  private readonly metrics = new Map<string, Metric.Metric<number, unknown>>()
  private readonly counts: Counts
  private readonly id: string
  private readonly description: string
  private readonly attribute: string | undefined

  constructor(counts: Counts, id: string, description: string, attribute?: string) {
    this.counts = counts
    this.id = id
    this.description = description
    this.attribute = attribute
  }

  add(amount: number, value = ""): void {
    const { context, pool } = this.counts
    let metric = this.metrics.get(value)
    if (metric === undefined) {
      const attributes = this.attribute === undefined ? { pool } : { pool, [this.attribute]: value }
      metric = Metric.counter(this.id, { description: this.description, attributes, incremental: true })
      this.metrics.set(value, metric)
    }
    metric.updateUnsafe(amount, context)
  }

  remove(): void {
    for (const metric of this.metrics.values()) Metric.removeUnsafe(metric, this.counts.context)
  }
}

/** The numbers of a pool in one registry. */
class Counts {
  readonly pool: string
  readonly context: Context.Context<never>
  readonly calls = new Counter(this, "floodgate_calls", "Calls that ended, by pool and outcome", "outcome")
  readonly attempts = new Counter(this, "floodgate_attempts", "Attempts that were sent, by pool")
  readonly failures = new Counter(
    this,
    "floodgate_attempt_failures",
    "Attempts that failed, by pool and reason",
    "reason"
  )
  readonly tokens = new Counter(this, "floodgate_tokens", "Tokens that calls used, by pool and type", "type")
  readonly dollars = new Counter(this, "floodgate_dollars", "What calls cost in dollars, by pool")
  readonly queueSeconds: Metric.Metric<number, unknown>
  readonly callSeconds: Metric.Metric<number, unknown>

  constructor(pool: string, context: Context.Context<never>) {
    const histogram = (id: string, description: string) =>
      Metric.histogram(id, { description, attributes: { pool }, boundaries: waitBoundaries })
    this.pool = pool
    this.context = context
    this.queueSeconds = histogram("floodgate_queue_seconds", "Time in the budget's queue, by pool")
    this.callSeconds = histogram("floodgate_call_seconds", "Time of whole calls, queue and retries included, by pool")
  }

  /** Takes the numbers out of their registry. */
  remove(): void {
    const { attempts, calls, dollars, failures, tokens } = this
    for (const counter of [attempts, calls, dollars, failures, tokens]) counter.remove()
    for (const histogram of [this.queueSeconds, this.callSeconds]) Metric.removeUnsafe(histogram, this.context)
  }
}

const known = new WeakMap<Metric.MetricRegistry, Map<string, Counts>>()

/** The numbers of a pool in the registry of the context: of those that were used last. */
const countsOf = (pool: string, context: Context.Context<never>): Counts => {
  const registry = Context.get(context, Metric.MetricRegistry)
  let named = known.get(registry)
  if (named === undefined) known.set(registry, (named = new Map()))
  const counts = named.get(pool) ?? new Counts(pool, context)
  Recency.put(named, pool, counts, mostPools, (oldest) => oldest.remove())
  return counts
}

// -----------------------------------------------------------------------------
// A call
// -----------------------------------------------------------------------------

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
const note = (span: Tracer.Span, attributes: Readonly<Record<string, unknown>>): void => {
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) span.attribute(key, value)
}

const outcomeOf = (exit: Exit.Failure<unknown, unknown>): "failure" | "refused" | "interrupted" => {
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
  counts.calls.add(1, exit._tag === "Success" ? "success" : outcomeOf(exit))
  counts.callSeconds.updateUnsafe((clock.currentTimeMillisUnsafe() - startedAt) / 1_000, counts.context)
  if (span === undefined) return
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

/** An attempt begins after one that failed: the time since then was waited. */
export const resume = (trace: Trace): void => {
  if (trace.failedAt !== undefined) trace.waited += trace.clock.currentTimeMillisUnsafe() - trace.failedAt
  trace.failedAt = undefined
}

/** An attempt was admitted. */
export const admitted = (trace: Trace, estimate: Limits.Estimate, reservation: Reservation): void => {
  const { counts, span } = trace
  const millis = Duration.toMillis(reservation.waited)
  trace.limit = undefined
  trace.queued += millis
  counts.queueSeconds.updateUnsafe(millis / 1_000, counts.context)
  if (span === undefined) return
  note(span, {
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
  trace.counts.attempts.add(1)
}

/** An attempt failed. */
export const failed = (trace: Trace, error: unknown, limit: Limits.Dimension | undefined): void => {
  const { clock, counts, span } = trace
  const reason = errorType(error)
  trace.failedAt = clock.currentTimeMillisUnsafe()
  trace.limit = limit
  counts.failures.add(1, reason)
  if (span === undefined) return
  note(span, { "floodgate.limit": limit })
  span.event("floodgate.attempt.failed", clock.currentTimeNanosUnsafe(), {
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
  if (span !== undefined) {
    note(span, {
      "gen_ai.response.id": id,
      "gen_ai.response.model": model,
      "gen_ai.response.finish_reasons": finishReason && [finishReason]
    })
  }
  if (actual === undefined) return
  const { cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens, outputTokens } = actual
  if (inputTokens > 0) counts.tokens.add(inputTokens, "input")
  if (outputTokens > 0) counts.tokens.add(outputTokens, "output")
  if (cacheReadTokens > 0) counts.tokens.add(cacheReadTokens, "cache_read")
  if (cacheCreationTokens > 0) counts.tokens.add(cacheCreationTokens, "cache_write")
  if (span === undefined) return
  note(span, {
    "gen_ai.usage.input_tokens": promptTokens(actual),
    "gen_ai.usage.output_tokens": outputTokens,
    "gen_ai.usage.cache_read.input_tokens": cacheReadTokens > 0 ? cacheReadTokens : undefined,
    "gen_ai.usage.cache_write.input_tokens": cacheCreationTokens > 0 ? cacheCreationTokens : undefined
  })
}
