/**
 * A failed attempt of an adapter whose callers expect another error than the governor does.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { LlmError } from "../LlmError.ts"
import type { Breaker, Failure } from "./models.ts"

/** A failed attempt as the retry policy reads it; the governor looks behind it. An adapter adds what its caller gets. */
export class FailedAttempt implements Pick<Failure, "isRetryable" | "retryAfter"> {
  /** What failed, as far as the adapter can tell: an `LlmError` where it can. */
  readonly failure: Failure

  constructor(failure: Failure) {
    this.failure = failure
  }
  get isRetryable(): boolean | undefined {
    return this.failure.isRetryable
  }
  get retryAfter(): Duration.Duration | undefined {
    return this.failure.retryAfter
  }
}

/** What failed, whatever the adapter's callers get of it. */
export const causeOf = (error: unknown): unknown => (error instanceof FailedAttempt ? error.failure : error)

/** Runs an attempt within a breaker, which hears what failed. The adapter's callers still get theirs. */
export const protect = <A, E, R>(
  breaker: Breaker,
  pool: string,
  attempt: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LlmError, R> =>
  Effect.suspend(() => {
    let failed: E | undefined
    const told = Effect.mapError(attempt, (error) => causeOf((failed = error)))
    return Effect.mapError(
      breaker.protect(pool, told),
      (error) => (error === causeOf(failed) ? failed : error) as E | LlmError
    )
  })
