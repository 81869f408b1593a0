/**
 * A failed attempt of an adapter whose callers expect another error than the governor does.
 */
import type * as Duration from "effect/Duration"
import type { Failure } from "./models.ts"

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
