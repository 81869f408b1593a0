/**
 * How long an attempt may wait until it is sent: for another call to warm the cache, and then in the queue.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Budget from "../Budget.ts"
import { waitOf } from "../internal/invalid.ts"
import * as Retry from "../Retry.ts"

/** When an attempt began and until when it may wait, in milliseconds of the clock, and who says so. */
export interface Bound {
  readonly from: number
  /** Infinity where nothing bounds it. */
  readonly until: number
  readonly by: "maxWait" | "deadline"
}

/** Begins an attempt, unless its deadline has passed. */
export const begin = Effect.fnUntraced(function* (
  maxWait: Duration.Input | undefined
): Effect.fn.Return<Bound, Budget.BudgetError> {
  const from = yield* Clock.currentTimeMillis
  const deadline = (yield* Retry.Deadline) ?? Infinity
  if (deadline < from) {
    const reason = new Budget.DeadlineMissed({ wait: Duration.zero, left: Duration.zero })
    return yield* new Budget.BudgetError({ reason })
  }
  const patient = maxWait === undefined ? Infinity : from + Duration.toMillis(waitOf("CallOptions.maxWait", maxWait))
  return deadline < patient ? { from, until: deadline, by: "deadline" } : { from, until: patient, by: "maxWait" }
})

/** What is left for the queue. */
export const left = ({ until }: Bound, now: number): Duration.Duration | undefined =>
  until === Infinity ? undefined : Duration.millis(Math.max(0, until - now))

/**
 * The queue's refusal in the caller's terms: the queue knows neither the deadline nor how long the call had waited
 * before.
 */
export const refusal = (
  { by, from, until }: Bound,
  queuedAt: number,
  error: Budget.BudgetError
): Budget.BudgetError => {
  const { reason } = error
  if (reason._tag !== "WaitTooLong") return error
  const { dimension, pool } = reason
  const wait = Duration.sum(reason.wait, Duration.millis(queuedAt - from))
  const most = Duration.millis(until - from)
  return new Budget.BudgetError({
    reason:
      by === "deadline"
        ? new Budget.DeadlineMissed({ pool, dimension, wait, left: most })
        : new Budget.WaitTooLong({ pool, dimension, wait, maxWait: most })
  })
}
