/**
 * A failed attempt of an adapter whose callers expect another error than the governor does.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Limits from "../Limits.ts"
import type { LlmError, Pushback } from "../LlmError.ts"
import type { Breaker, Failure } from "./models.ts"

/** What the governor needs to know of a failed attempt. An adapter adds what its caller gets if it stays so. */
export class FailedAttempt implements Failure {
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
  get usage(): Limits.Usage | undefined {
    return this.failure.usage
  }
  get pushback(): Pushback | undefined {
    return this.failure.pushback
  }
  get signal(): Limits.Signal | undefined {
    return this.failure.signal
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
