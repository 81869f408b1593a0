/**
 * What a governor counts, resolved once for each pool. The names are part of the public interface: dashboards depend on
 * them.
 *
 * - `floodgate_calls`: calls that ended, by `pool` and `outcome`: success, failure, refused (by the budget), interrupted
 * - `floodgate_attempts`: attempts that were sent, by `pool`; more than calls by the number of retries
 * - `floodgate_attempt_failures`: attempts that failed, by `pool` and `reason`, such as RateLimited
 * - `floodgate_tokens`: tokens that calls used, by `pool` and `type`: input, output, cache_read, cache_write
 * - `floodgate_dollars`: what calls cost, by `pool`; those of models without a price are not in it
 * - `floodgate_queue_seconds`: time in the budget's queue, by `pool` (a histogram)
 * - `floodgate_call_seconds`: time of whole calls, queue, retries and stream included, by `pool` (a histogram)
 */
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type * as Accounting from "../Accounting.ts"
import { waitBoundaries } from "../budget/metrics.ts"
import { mostPools } from "../budget/options.ts"
import * as Recency from "../input/recency.ts"

export type Outcome = "success" | "failure" | "refused" | "interrupted"

/** The numbers of one pool. */
export class Counts {
  readonly attempt: () => void
  readonly failed: (reason: string) => void
  readonly queued: (seconds: number) => void
  readonly ended: (outcome: Outcome, seconds: number) => void
  readonly used: (actual: Accounting.Actual) => void
  readonly spent: (dollars: number) => void
  /** Takes the numbers out of their registry. */
  readonly remove: () => void

  constructor(pool: string, context: Context.Context<never>) {
    const series: Array<Metric.Metric<number, unknown>> = []
    const counter = (id: string, description: string) => {
      const known = new Map<string, Metric.Metric<number, unknown>>()
      return (amount: number, attribute?: string, value = ""): void => {
        let metric = known.get(value)
        if (metric === undefined) {
          const attributes = attribute === undefined ? { pool } : { pool, [attribute]: value }
          metric = Metric.counter(id, { description, attributes, incremental: true })
          known.set(value, metric)
          series.push(metric)
        }
        metric.updateUnsafe(amount, context)
      }
    }
    const histogram = (id: string, description: string) => {
      const metric = Metric.histogram(id, { description, attributes: { pool }, boundaries: waitBoundaries })
      series.push(metric)
      return (seconds: number): void => metric.updateUnsafe(seconds, context)
    }
    const calls = counter("floodgate_calls", "Calls that ended, by pool and outcome")
    const attempts = counter("floodgate_attempts", "Attempts that were sent, by pool")
    const failures = counter("floodgate_attempt_failures", "Attempts that failed, by pool and reason")
    const tokens = counter("floodgate_tokens", "Tokens that calls used, by pool and type")
    const dollars = counter("floodgate_dollars", "What calls cost in dollars, by pool")
    const callSeconds = histogram("floodgate_call_seconds", "Time of whole calls, queue and retries included, by pool")
    this.queued = histogram("floodgate_queue_seconds", "Time in the budget's queue, by pool")
    this.remove = () => {
      for (const metric of series) Metric.removeUnsafe(metric, context)
    }
    this.spent = (amount) => dollars(amount)
    this.attempt = () => attempts(1)
    this.failed = (reason) => failures(1, "reason", reason)
    this.ended = (outcome, seconds) => {
      calls(1, "outcome", outcome)
      callSeconds(seconds)
    }
    this.used = ({ cacheCreationTokens = 0, cacheReadTokens = 0, inputTokens, outputTokens }) => {
      if (inputTokens > 0) tokens(inputTokens, "type", "input")
      if (outputTokens > 0) tokens(outputTokens, "type", "output")
      if (cacheReadTokens > 0) tokens(cacheReadTokens, "type", "cache_read")
      if (cacheCreationTokens > 0) tokens(cacheCreationTokens, "type", "cache_write")
    }
  }
}

const known = new WeakMap<Metric.MetricRegistry, Map<string, Counts>>()

/** The numbers of a pool in the registry of the context: of those that were used last. */
export const countsOf = (pool: string, context: Context.Context<never>): Counts => {
  const registry = Context.get(context, Metric.MetricRegistry)
  const named = known.get(registry) ?? new Map<string, Counts>()
  const counts = named.get(pool) ?? new Counts(pool, context)
  Recency.put(named, pool, counts, mostPools, (oldest) => oldest.remove())
  known.set(registry, named)
  return counts
}
