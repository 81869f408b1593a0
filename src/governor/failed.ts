/**
 * A failed attempt of an adapter whose callers expect another error than the governor does.
 */
import type * as Duration from "effect/Duration"
import type * as Limits from "../Limits.ts"
import type { Pushback } from "../LlmError.ts"
import type { Failure } from "./models.ts"

/** What the governor needs to know of a failed attempt. An adapter adds what its caller gets if it stays so. */
export class FailedAttempt implements Failure {
  readonly isRetryable: boolean | undefined
  readonly retryAfter: Duration.Duration | undefined
  readonly usage: Limits.Usage | undefined
  readonly pushback: Pushback | undefined
  readonly signal: Limits.Signal | undefined

  constructor(failure: Failure) {
    this.isRetryable = failure.isRetryable
    this.retryAfter = failure.retryAfter
    this.usage = failure.usage
    this.pushback = failure.pushback
    this.signal = failure.signal
  }
}
