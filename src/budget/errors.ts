/** The reasons why a budget refuses a call: one error, with a typed reason that names the cause and what to do. */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Struct from "effect/Struct"
import { awaited, counted, thousands, units } from "../domain/words.ts"
import * as Limits from "../Limits.ts"
import { lasting } from "../domain/lasting.ts"

/** The most characters of an error of the store that a message quotes. */
const maxCause = 300

/**
 * The store of the budget cannot be reached, or its state cannot be read. `cause` says why, and `failingFor` how long it has been so
 * when the process could wait no longer.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>("floodgate/Budget/StoreUnavailable")(
  "StoreUnavailable",
  { pool: Schema.String, cause: Schema.Defect(), failingFor: Schema.optional(Schema.DurationFromMillis) }
) {
  /** The store may answer the next attempt. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    const { cause, failingFor, pool } = this
    const why = (cause instanceof Error ? cause.message : String(cause)).slice(0, maxCause)
    if (cause instanceof Error && cause.name === "Damaged") {
      const named =
        "key" in cause && typeof cause.key === "string" ? ` "${cause.key}", which stands behind the store's prefix` : ""
      return `The state of pool "${pool}" in the budget's store is damaged, ${why}: delete its key${named}, and the pool starts anew with full limits`
    }
    const seconds = failingFor === undefined ? 0 : Math.round(Duration.toSeconds(failingFor))
    const time = seconds === 0 ? "" : ` for ${counted(seconds, "second")}`
    return `The budget's store has failed${time} for pool "${pool}" (${why}): check that it can be reached, or set whenAway to choose what happens while it cannot`
  }
}

/**
 * The estimate is larger than the limit, so it can never be admitted. Split the call, or raise the limit.
 *
 * @stability stable
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
    return `The call asks for ${counted(this.asked, units[this.dimension])} but pool "${this.pool}" admits at most ${thousands(this.limit)}: split the call, or raise the limit`
  }
}

/**
 * The provider rejected two calls of at least this size although their bucket was full. Calls that are estimated larger than a bucket are
 * tried, because a part of the prompt may be cached; such a call is tried again after ten minutes, or when the limit grows.
 *
 * @stability stable
 * @category errors
 * @since 0.5.0
 */
export class RejectedAsTooLarge extends Schema.TaggedError<RejectedAsTooLarge>("floodgate/Budget/RejectedAsTooLarge")(
  "RejectedAsTooLarge",
  {
    pool: Schema.String,
    dimension: Limits.Dimension,
    /** The expected usage of the call. */
    asked: Schema.Finite,
    /** The size of the provider's full bucket. */
    burst: Schema.Finite
  }
) {
  /** The same call is refused again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `The call is expected to use ${counted(this.asked, units[this.dimension])}, and the provider has twice rejected no more than that when all ${thousands(this.burst)} of pool "${this.pool}" were left: split the call, or ask the provider to cache its prompt`
  }
}

/**
 * The call would wait, or has waited, longer than its `maxWait`. `wait` is the expected wait.
 *
 * @stability stable
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
    return `The call would wait ${lasting(this.wait)} for ${awaited(this.dimension)} in pool "${this.pool}", longer than its maxWait of ${lasting(this.maxWait)}: try later, or raise maxWait`
  }
}

/**
 * As many calls wait already as `maxQueued` allows.
 *
 * @stability stable
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
    return `${counted(this.maxQueued, "caller already waits", "callers already wait")} in pool "${this.pool}": start fewer calls, or raise maxQueued`
  }
}

/**
 * The call needs a new pool, but the maximum is reached and no pool can be evicted: each is in use, paused, resized, or still
 * refilling.
 *
 * @stability stable
 * @category errors
 * @since 0.4.0
 */
export class TooManyPools extends Schema.TaggedError<TooManyPools>("floodgate/Budget/TooManyPools")("TooManyPools", {
  pool: Schema.String,
  maxPools: Schema.Finite
}) {
  /** One of them may be idle later. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return `The call needs a new pool "${this.pool}", but all ${counted(this.maxPools, "pool", "pools")} of the budget are in use: use fewer accounts or pools at the same time, or raise maxPools`
  }
}

/**
 * A quota, which never refills, has too little left for the call.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class QuotaExhausted extends Schema.TaggedError<QuotaExhausted>("floodgate/Budget/QuotaExhausted")(
  "QuotaExhausted",
  { pool: Schema.String, dimension: Limits.Dimension, asked: Schema.Finite, left: Schema.Finite }
) {
  /** A quota does not refill. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `The call asks for ${counted(this.asked, units[this.dimension])} but the quota of pool "${this.pool}" has ${thousands(this.left)} left: ask for less, or raise its total`
  }
}

/**
 * A layer around the budget refused the call, such as `Agents.layer` when a cap is reached. `cause` is its error.
 *
 * @stability stable
 * @category errors
 * @since 0.2.0
 */
export class Denied extends Schema.TaggedError<Denied>("floodgate/Budget/Denied")("Denied", {
  cause: Schema.Defect()
}) {
  /** The `isRetryable` of the cause; false if it has none. */
  get isRetryable(): boolean {
    return Predicate.hasProperty(this.cause, "isRetryable") && this.cause.isRetryable === true
  }
  override get message(): string {
    return Predicate.hasProperty(this.cause, "message")
      ? String(this.cause.message)
      : "A layer around the budget refused the call"
  }
}

const closedTexts = {
  drained: "is being drained: it takes no new calls",
  noCredential: "has no credential of its own, and the caller's belongs to another place: give it one",
  twin: "has the same limit as a place before it, because both have one account: remove one",
  fixedBody: "needs another body, and that of the call is too large to be rewritten",
  notAllowed: "is not among the places that the call may go to",
  elsewhere: "does not store what the call continues",
  denied: "refused the credential, the model or the bill",
  tooLarge: "rejected the call as larger than its limit"
}

/**
 * A place that takes no calls, or not this one. `why` says why not.
 *
 * @stability stable
 * @category errors
 * @since 0.4.0
 */
export class PlaceClosed extends Schema.TaggedError<PlaceClosed>("floodgate/Budget/PlaceClosed")("PlaceClosed", {
  place: Schema.String,
  why: Schema.Literals(Struct.keys(closedTexts))
}) {
  /** The same call is refused again. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `The place "${this.place}" ${closedTexts[this.why]}`
  }
}

const refusals = [
  EstimateTooLarge,
  RejectedAsTooLarge,
  WaitTooLong,
  QueueFull,
  QuotaExhausted,
  TooManyPools,
  Denied,
  StoreUnavailable
] as const

/**
 * None of the places of a model can take the call. `places` has the reason of each.
 *
 * @stability stable
 * @category errors
 * @since 0.4.0
 */
export class NoPlace extends Schema.TaggedError<NoPlace>("floodgate/Budget/NoPlace")("NoPlace", {
  model: Schema.String,
  /** At least one. */
  places: Schema.Array(Schema.Struct({ place: Schema.String, reason: Schema.Union([...refusals, PlaceClosed]) }))
}) {
  /** Whether one of the places may take it later. */
  get isRetryable(): boolean {
    return this.places.some(({ reason }) => reason.isRetryable)
  }
  /** The reason of the place that may take the call first: the shortest wait, or a refusal that may end, or any. */
  get closest(): NoPlace["places"][number]["reason"] {
    let closest: NoPlace["places"][number]["reason"] = this.places[0]!.reason
    for (const { reason } of this.places) {
      const isSooner =
        reason._tag === "WaitTooLong" &&
        (closest._tag !== "WaitTooLong" || Duration.isLessThan(reason.wait, closest.wait))
      if (isSooner || (reason.isRetryable && !closest.isRetryable)) closest = reason
    }
    return closest
  }
  override get message(): string {
    const each = this.places.map(({ place, reason }) => `${place}: ${reason.message}`)
    return `No place of "${this.model}" can take the call (${each.join("; ")})`
  }
}

/**
 * The reason why a reservation was refused.
 *
 * @category errors
 * @since 0.1.0
 */
export const BudgetErrorReason = Schema.Union([...refusals, NoPlace])

/**
 * The reason why a reservation was refused.
 *
 * @category errors
 * @since 0.1.0
 */
export type BudgetErrorReason = (typeof BudgetErrorReason)["Type"]

/**
 * A reservation was refused, and nothing was charged. `reason` says why. If it was a retry, `failure` is the failure of the
 * attempt before.
 *
 * @stability stable
 * @category errors
 * @since 0.1.0
 */
export class BudgetError extends Schema.TaggedError<BudgetError>("floodgate/Budget/BudgetError")("BudgetError", {
  reason: BudgetErrorReason,
  failure: Schema.optional(Schema.Unknown)
}) {
  override readonly cause = this.reason
  override get message(): string {
    const { failure, reason } = this
    const before = Predicate.hasProperty(failure, "message") ? ` (a retry, after: ${String(failure.message)})` : ""
    return `${reason.message}${before}`
  }
  /** Whether asking again later may succeed. */
  get isRetryable(): boolean {
    return this.reason.isRetryable
  }
}
