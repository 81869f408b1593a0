/**
 * Why a budget refuses: typed reasons that name the cause and the way out, in one wrapper.
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { StoreUnavailable } from "../BudgetStore.ts"
import * as Limits from "../Limits.ts"

/**
 * The estimate can never be admitted: it is more than the limit holds. Split the call, or raise the limit.
 *
 * @category errors
 * @since 0.1.0
 */
export class EstimateTooLarge extends Schema.TaggedError<EstimateTooLarge>("floodgate/Budget/EstimateTooLarge")(
  "EstimateTooLarge",
  { pool: Schema.String, dimension: Limits.Dimension, asked: Schema.Finite, limit: Schema.Finite }
) {
  /** The same estimate is refused again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `The call asks for ${this.asked} ${this.dimension} but pool "${this.pool}" admits at most ${this.limit}: split the call, or raise the limit`
  }
}

/**
 * The wait would be, or was, longer than `maxWait`. `wait` is what was foreseen.
 *
 * @category errors
 * @since 0.1.0
 */
export class WaitTooLong extends Schema.TaggedError<WaitTooLong>("floodgate/Budget/WaitTooLong")("WaitTooLong", {
  pool: Schema.String,
  dimension: Schema.UndefinedOr(Limits.Dimension),
  wait: Schema.DurationFromMillis,
  maxWait: Schema.DurationFromMillis
}) {
  /** Later there may be room. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return `The call would wait ${Duration.format(this.wait)} for ${this.dimension ?? "a free place"} in pool "${this.pool}", longer than its maxWait of ${Duration.format(this.maxWait)}`
  }
}

/**
 * As many callers wait as `maxQueued` allows.
 *
 * @category errors
 * @since 0.1.0
 */
export class QueueFull extends Schema.TaggedError<QueueFull>("floodgate/Budget/QueueFull")("QueueFull", {
  pool: Schema.String,
  maxQueued: Schema.Finite
}) {
  /** Later there may be room. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return `${this.maxQueued} callers already wait in pool "${this.pool}": start fewer calls, or raise maxQueued`
  }
}

/**
 * A quota that never refills has too little left for the call.
 *
 * @category errors
 * @since 0.1.0
 */
export class QuotaExhausted extends Schema.TaggedError<QuotaExhausted>("floodgate/Budget/QuotaExhausted")(
  "QuotaExhausted",
  { pool: Schema.String, dimension: Limits.Dimension, asked: Schema.Finite, left: Schema.Finite }
) {
  /** A quota does not come back. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `The call asks for ${this.asked} ${this.dimension} but the quota of pool "${this.pool}" has ${this.left} left`
  }
}

/**
 * Why a reservation was refused.
 *
 * @category errors
 * @since 0.1.0
 */
export const BudgetErrorReason = Schema.Union([
  EstimateTooLarge,
  WaitTooLong,
  QueueFull,
  QuotaExhausted,
  StoreUnavailable
])

/**
 * Why a reservation was refused.
 *
 * @category errors
 * @since 0.1.0
 */
export type BudgetErrorReason = (typeof BudgetErrorReason)["Type"]

/**
 * A reservation was refused; nothing was taken. `reason` says why.
 *
 * @category errors
 * @since 0.1.0
 */
export class BudgetError extends Schema.TaggedError<BudgetError>("floodgate/Budget/BudgetError")("BudgetError", {
  reason: BudgetErrorReason
}) {
  override readonly cause = this.reason
  override get message(): string {
    return this.reason.message
  }
  /** Whether asking again later may succeed. */
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
}
