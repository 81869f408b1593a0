/**
 * Pays for a call from its purses: reserves a cost before the call is queued, which `GovernedCall` later replaces by the actual
 * cost.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Budget from "../Budget.ts"
import type { Wake } from "../budget/waker.ts"
import type * as PriceTable from "../domain/prices.ts"
import { type CapInUnits, perDollar } from "../domain/spending/ledger.ts"
import {
  type Bill,
  type CapRefusal,
  internalsOf,
  leave,
  Payment,
  PurseState,
  take,
  wait
} from "../domain/spending/purse.ts"
import * as Spending from "../Spending.ts"
import type { Restore } from "./models.ts"
import * as Usage from "./usage.ts"

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

const perOf = (cap: CapInUnits | undefined): string | undefined => {
  if (cap === undefined || cap.period._tag === "Ever") return undefined
  return cap.period._tag === "Day" ? "a day" : `in ${Duration.format(Duration.millis(cap.period.millis))}`
}

const denied = (cause: Spending.SpendCapReached | Spending.NoPrice | Spending.NoMaxTokens): Budget.BudgetError =>
  new Budget.BudgetError({ reason: new Budget.Denied({ cause }) })

const refusalOf = ({ asked, left, purse, until }: CapRefusal): Budget.BudgetError => {
  if (asked === Infinity) return denied(new Spending.NoMaxTokens({ purse: purse.name }))
  return denied(
    new Spending.SpendCapReached({
      purse: purse.name,
      asked: asked / perDollar,
      left: left / perDollar,
      limit: purse.ledger.limit / perDollar,
      per: perOf(purse.cap),
      until
    })
  )
}

// -----------------------------------------------------------------------------
// Paying
// -----------------------------------------------------------------------------

/** A call that reserves its cost. */
export interface PaymentRequest {
  /** The purses that pay. One that is named twice pays once. */
  readonly purses: ReadonlyArray<Spending.Purse>
  readonly price: PriceTable.Price | undefined
  readonly call: Omit<Usage.HeldCall, "observed">
  readonly pool: string
  /** How long the call may wait, in milliseconds. */
  readonly maxWait: number
}

/**
 * Reserves what a call may cost. It waits if only the reservations of running calls are in the way. Returns undefined if the
 * call has no price and its purses no cap. Must run uninterruptible; `restore` is around the wait.
 */
export const pay = (
  request: PaymentRequest,
  restore: Restore,
  wake: Wake
): Effect.Effect<Payment | undefined, Budget.BudgetError> =>
  Effect.clockWith((clock) => {
    const { call, price } = request
    const purses = Array.from(new Set(request.purses.map(internalsOf)))
    if (price === undefined) {
      const capped = purses.find(({ cap }) => cap !== undefined)
      if (capped !== undefined) {
        return Effect.fail(denied(new Spending.NoPrice({ model: call.known.model, purse: capped.name })))
      }
      for (const purse of purses) purse.unpriced++
      return Effect.undefined
    }
    const bill: Bill = {
      purses,
      expected: Usage.costOf(price, Usage.expected(call)),
      max: Usage.maxCostOf(price, call.known)
    }
    const taken = take(bill, clock.currentTimeMillisUnsafe())
    if (taken instanceof Payment) return Effect.succeed(taken)
    return taken instanceof PurseState
      ? waitFor(bill, taken, clock, request, restore, wake)
      : Effect.fail(refusalOf(taken))
  })

/** Waits for a purse. The call is in the purse's queue from this step on, so that it misses no release of dollars. */
const waitFor = (
  bill: Bill,
  at: PurseState,
  clock: Clock.Clock,
  { maxWait, pool }: PaymentRequest,
  restore: Restore,
  wake: Wake
): Effect.Effect<Payment, Budget.BudgetError> => {
  let resume: (() => void) | undefined
  const waiter = wait(bill, at, () => {
    if (resume !== undefined) wake(resume)
  })
  const woken = Effect.callback<void>((done) => {
    resume = () => done(Effect.void)
    if (waiter.outcome !== undefined) resume()
  })
  const tooLong = Effect.suspend(() => {
    // It may have been paid for in the millisecond in which its time ended.
    if (waiter.outcome !== undefined) return Effect.void
    const wait = Duration.millis(maxWait)
    const reason = new Budget.WaitTooLong({ pool, dimension: undefined, wait, maxWait: wait })
    return Effect.fail(new Budget.BudgetError({ reason }))
  })
  const waited = maxWait < Infinity ? Effect.timeoutOrElse(woken, { duration: maxWait, orElse: () => tooLong }) : woken
  return Effect.flatMap(
    Effect.onExit(restore(waited), (exit) =>
      Effect.sync(() => {
        if (Exit.isFailure(exit)) leave(waiter, clock.currentTimeMillisUnsafe())
      })
    ),
    () => {
      const outcome = waiter.outcome!
      return outcome instanceof Payment ? Effect.succeed(outcome) : Effect.fail(refusalOf(outcome))
    }
  )
}
