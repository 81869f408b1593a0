/**
 * What an error says of retries, and what is noted beside it.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"

/**
 * What an error must say to be retried: whether another attempt can succeed, and when at the earliest.
 *
 * **Details**
 *
 * The type is structural, so that floodgate's `LlmError` and the `AiError` of `effect/ai` both fit, and yours may.
 *
 * @category models
 * @since 0.1.0
 */
export interface Retryable {
  readonly isRetryable: boolean
  /** How long the provider asked to wait. */
  readonly retryAfter?: Duration.Duration | undefined
}

/**
 * Whether an error says of itself that it may be retried. Errors that say nothing are not retried.
 *
 * **Example** (Errors that may be retried, and others)
 *
 * ```ts doctest
 * import * as Retry from "floodgate/Retry"
 *
 * Retry.isRetryable({ isRetryable: true }) // => true
 * Retry.isRetryable({ isRetryable: false }) // => false
 * Retry.isRetryable(new Error("broken")) // => false
 * ```
 *
 * @category guards
 * @since 0.1.0
 */
export const isRetryable = (error: unknown): boolean =>
  Predicate.hasProperty(error, "isRetryable") && error.isRetryable === true

/** How long the provider asked to wait, in milliseconds. */
export const retryAfterMillis = (error: unknown): number | undefined =>
  Predicate.hasProperty(error, "retryAfter") && Duration.isDuration(error.retryAfter)
    ? Duration.toMillis(error.retryAfter)
    : undefined

/**
 * Why there was no further retry.
 *
 * - `"terminal"`: the error may not be retried
 * - `"attempts"`: there were as many attempts as allowed
 * - `"deadline"`: the next attempt would have begun after `maxElapsed` or the {@link Deadline}
 * - `"retryBudget"`: the {@link RetryBudget} was exhausted
 *
 * @category models
 * @since 0.1.0
 */
export type StopReason = "terminal" | "attempts" | "deadline" | "retryBudget"

/**
 * What an effect under a policy succeeds with when it came to no attempt: it fails with this error at once, which is neither
 * retried nor counts as a call.
 */
export class NoAttempt<E> {
  readonly error: E

  constructor(error: E) {
    this.error = error
  }
}

const stops = new WeakMap<object, StopReason>()

/** Notes beside an error why there was no further retry. Gives `false`: do not go on. */
export const stop = (error: unknown, reason: StopReason): false => {
  if (typeof error === "object" && error !== null) stops.set(error, reason)
  return false
}

/**
 * Why the retries of a call that failed with this error ended, or `undefined` if they did not end here.
 *
 * **Details**
 *
 * The reason is kept beside the error, which stays the object that the provider's client made.
 *
 * **Gotchas**
 *
 * Errors that are not objects cannot be marked. An error object that is used for several failures carries the reason of
 * the last.
 *
 * **Example** (Telling a refusal from exhaustion)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const call = Effect.fail({ isRetryable: true })
 * const policy = Retry.make({ base: "1 millis", cap: "1 millis", attempts: 3 })
 *
 * const error = await Effect.runPromise(Effect.flip(Retry.withPolicy(call, policy)))
 *
 * Retry.stoppedBy(error) // => "attempts"
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export const stoppedBy = (error: unknown): StopReason | undefined =>
  typeof error === "object" && error !== null ? stops.get(error) : undefined
