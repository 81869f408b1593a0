/**
 * What a governor counts. The names are part of the public interface: dashboards depend on them.
 */
import * as Metric from "effect/Metric"
import { waitBoundaries } from "../internal/waitBoundaries.ts"

/**
 * Calls by `pool` and `outcome`: success, failure, refused (by the budget) or interrupted.
 *
 * @category metrics
 * @since 0.1.0
 */
export const calls = Metric.counter("floodgate_calls", {
  description: "Calls that ended, by pool and outcome",
  incremental: true
})

/**
 * Attempts that were sent, by `pool`. More than calls by the number of retries.
 *
 * @category metrics
 * @since 0.1.0
 */
export const attempts = Metric.counter("floodgate_attempts", {
  description: "Attempts that were sent, by pool",
  incremental: true
})

/**
 * Attempts that failed, by `pool` and `reason`: the tag of the error's reason, such as RateLimited.
 *
 * @category metrics
 * @since 0.1.0
 */
export const failures = Metric.counter("floodgate_attempt_failures", {
  description: "Attempts that failed, by pool and reason",
  incremental: true
})

/**
 * Tokens that calls used, by `pool` and `type`: input, output, cache_read or cache_write.
 *
 * @category metrics
 * @since 0.1.0
 */
export const tokens = Metric.counter("floodgate_tokens", {
  description: "Tokens that calls used, by pool and type",
  incremental: true
})

/**
 * The time that attempts stood in the budget's queue, in seconds, by `pool`.
 *
 * @category metrics
 * @since 0.1.0
 */
export const queueSeconds = Metric.histogram("floodgate_queue_seconds", {
  description: "Time in the budget's queue, by pool",
  boundaries: waitBoundaries
})

/**
 * The time from a call's start to its end, queue, retries and stream included, in seconds, by `pool`.
 *
 * @category metrics
 * @since 0.1.0
 */
export const callSeconds = Metric.histogram("floodgate_call_seconds", {
  description: "Time of whole calls, queue and retries included, by pool",
  boundaries: waitBoundaries
})
