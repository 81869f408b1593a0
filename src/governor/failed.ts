/**
 * A failed attempt of an adapter whose callers expect another error than the governor does.
 */
import type * as Duration from "effect/Duration"
import type * as Limits from "../Limits.ts"
import type { Pushback } from "../LlmError.ts"
import type { Failure } from "./models.ts"

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
