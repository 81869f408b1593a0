/**
 * How an attempt gets its reservation: it is described, estimated, paid for, and queued.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import type * as Limits from "../Limits.ts"
import { DeadlineMissed, LlmError } from "../LlmError.ts"
import * as Prices from "../Prices.ts"
import * as Rates from "../domain/rates.ts"
import type { GovernedCall } from "./governedCall.ts"
import * as Payment from "./payment.ts"
import * as Usage from "./usage.ts"

export type CallError = LlmError | Budget.BudgetError

type Service = Budget.TokenBudget["Service"]
type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Admits an attempt. What it holds when it is interrupted or refused, the end of its call gives back. */
export const admitted = (budget: Service, call: GovernedCall): Effect.Effect<GovernedCall, CallError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) => {
    const { agent, call: described, how, parts, pool, purses } = call
    const listed = Prices.find(described.model, parts.prices)
    call.price = listed === undefined ? undefined : Rates.charged(listed, described)
    call.known = Usage.known(described, agent, pool, parts.conversations)
    const isPaid = purses.length > 0 || how.purses !== undefined
    return Effect.flatMap(restore(parts.estimator.estimate(call.known)), (estimate) => {
      if (call.last < call.now) return tooLate
      if (!isPaid) return reserve(budget, call, estimate, call.now, restore)
      return Effect.flatMap(pay(call, estimate, restore), () => reserve(budget, call, estimate, call.now, restore))
    })
  })

const pay = (call: GovernedCall, estimate: Limits.Estimate, restore: Restore): Effect.Effect<void, CallError> => {
  const { accounting, known, now, parts, pool, price, purses, until } = call
  const longest = Math.max(0, until - now)
  const asking = { purses, price, call: { accounting, estimate, known }, pool: pool.name, longest }
  return Effect.mapBoth(Payment.pay(asking, restore, parts.wake), {
    onSuccess: (payment) => {
      call.payment = payment
    },
    onFailure: (error) => inTermsOf(call, error, now)
  })
}

/** Reserves an estimate, for which the call waits since a time. */
const reserve = (
  budget: Service,
  call: GovernedCall,
  estimate: Limits.Estimate,
  since: number,
  restore: Restore
): Effect.Effect<GovernedCall, CallError, Scope.Scope> => {
  const { accounting, agent, how, isFirst, known, pool, until } = call
  const queueing = {
    agent,
    priority: how.priority,
    weight: how.weight,
    maxWait: until === Infinity ? undefined : Math.max(0, until - since),
    pool: pool.kind,
    account: call.call.account,
    first: isFirst,
    counting: accounting.counting
  }
  return Effect.matchEffect(restore(Effect.suspend(() => budget.reserve(estimate, queueing))), {
    onSuccess: (reservation) => {
      call.admit(reservation, estimate)
      return Effect.succeed(call)
    },
    onFailure: (error) => {
      const { reason } = error
      const less = reason._tag === "EstimateTooLarge" ? Usage.within(reason, accounting, known, estimate) : undefined
      return less === undefined
        ? Effect.fail(inTermsOf(call, error, since))
        : reserve(budget, call, less, since, restore)
    }
  })
}

/** The refusal of an attempt that could only begin after the deadline. */
const tooLate = Effect.fail(new LlmError({ reason: new DeadlineMissed({ wait: Duration.zero, left: Duration.zero }) }))

/** A refusal of the budget, which knows neither the call's deadline nor what it waited for before this time. */
const inTermsOf = (call: GovernedCall, error: Budget.BudgetError, since: number): CallError => {
  const { from, isBoundByDeadline, last } = call
  const { reason } = error
  if (reason._tag !== "WaitTooLong") return error
  const { dimension, maxWait, pool } = reason
  const before = Duration.millis(since - from)
  const wait = Duration.sum(reason.wait, before)
  if (isBoundByDeadline) {
    return new LlmError({ reason: new DeadlineMissed({ pool, dimension, wait, left: Duration.millis(last - from) }) })
  }
  return new Budget.BudgetError({
    reason: new Budget.WaitTooLong({ pool, dimension, wait, maxWait: Duration.sum(maxWait, before) })
  })
}
