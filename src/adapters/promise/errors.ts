/** The errors of a floodgate in programs without Effect. */
import * as Duration from "effect/Duration"
import { BudgetError } from "../../Budget.ts"
import { LlmError } from "../../LlmError.ts"

/**
 * The floodgate refused a call. `pool` is the pool whose limits were reached, and `waitSeconds` how long the call would have
 * waited, if that is known.
 *
 * @stability stable
 * @category errors
 * @since 0.2.0
 */
export class RefusedError extends Error {
  override readonly name = "RefusedError"
  /**
   * The reason for the refusal.
   *
   * - `"tooLarge"`: it is larger than a limit allows
   * - `"waitTooLong"`: it would wait longer than `maxWaitSeconds`
   * - `"queueFull"`: `maxQueued` calls are waiting already
   * - `"used"`: a quota or a cap has too little left
   * - `"timedOut"`: the last attempt took longer than `timeoutSeconds`
   * - `"unavailable"`: Redis cannot be reached, the provider is known to be down, or no place may take the call
   */
  readonly reason: "tooLarge" | "waitTooLong" | "queueFull" | "used" | "timedOut" | "unavailable"
  readonly pool: string | undefined
  readonly waitSeconds: number | undefined

  constructor(reason: RefusedError["reason"], message: string, pool?: string, waitSeconds?: number, cause?: unknown) {
    super(message, { cause })
    this.reason = reason
    this.pool = pool
    this.waitSeconds = waitSeconds
  }
}

/**
 * The option `redis` needs the package `@floodgate/redis`, which could not be loaded. Every call of the floodgate rejects with
 * this error, and `cause` says why.
 *
 * @stability stable
 * @category errors
 * @since 0.4.0
 */
export class RedisMissingError extends Error {
  override readonly name = "RedisMissingError"

  constructor(cause: unknown) {
    super(
      "Floodgate.create: the option redis needs the package @floodgate/redis, which could not be loaded: npm install @floodgate/redis redis",
      { cause }
    )
  }
}

const reasons = {
  EstimateTooLarge: "tooLarge",
  RejectedAsTooLarge: "tooLarge",
  WaitTooLong: "waitTooLong",
  QueueFull: "queueFull",
  QuotaExhausted: "used",
  Denied: "used",
  StoreUnavailable: "unavailable",
  TooManyPools: "unavailable",
  PlaceClosed: "unavailable"
} as const

/** Converts an error of the governor for programs without Effect. */
export const plain = (error: unknown): unknown => {
  if (error instanceof BudgetError) {
    const { failure, message, reason: given } = error
    const reason = given._tag === "NoPlace" ? given.closest : given
    const pool = "pool" in reason ? reason.pool : undefined
    const wait = "wait" in reason ? Duration.toSeconds(reason.wait) : undefined
    return new RefusedError(reasons[reason._tag], message, pool, wait, failure)
  }
  if (!(error instanceof LlmError)) return error
  const { message, reason, retryAfter } = error
  if (reason._tag === "DeadlineMissed") {
    return new RefusedError("waitTooLong", message, reason.pool, Duration.toSeconds(reason.wait))
  }
  const wait = retryAfter === undefined ? undefined : Duration.toSeconds(retryAfter)
  return new RefusedError(reason._tag === "TimedOut" ? "timedOut" : "unavailable", message, undefined, wait, reason)
}
