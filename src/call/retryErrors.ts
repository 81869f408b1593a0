/**
 * What an error says about retries.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"

/**
 * The properties of an error that decide about retries: whether another attempt can succeed, and when at the earliest.
 *
 * **Details**
 *
 * The type is structural: `LlmError`, the `AiError` of `effect/ai`, and your own errors can fit.
 *
 * @category models
 * @since 0.1.0
 */
export interface Retryable {
  readonly isRetryable: boolean
  /** How long the provider asked to wait. */
  readonly retryAfter?: Duration.Duration | undefined
}

/** Whether an error has `isRetryable: true`. Errors without the property are not retried. */
export const isRetryable = (error: unknown): boolean =>
  Predicate.hasProperty(error, "isRetryable") && error.isRetryable === true

/** How long the provider asked to wait. */
export const retryAfterOf = (error: unknown): Duration.Duration | undefined =>
  Predicate.hasProperty(error, "retryAfter") && Duration.isDuration(error.retryAfter) ? error.retryAfter : undefined

/**
 * Why there was no further retry, although the failure may be retried.
 *
 * - `"attempts"`: there were as many attempts as allowed
 * - `"deadline"`: the next attempt would have begun after `maxElapsed` or the deadline
 * - `"schedule"`: the policy's `backoff` ended
 */
export type StopReason = "attempts" | "deadline" | "schedule"
