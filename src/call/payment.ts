/**
 * Who pays for a call: what it may cost is held before it is queued, and what it cost is spent when it is over.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Accounting from "../Accounting.ts"
import * as Budget from "../Budget.ts"
import type { Wake } from "../budget/waker.ts"
import * as Rates from "../domain/rates.ts"
import * as Prices from "../Prices.ts"
import * as Spending from "../Spending.ts"
import { type Period, perDollar } from "../domain/spending/ledger.ts"
import * as Ledger from "../domain/spending/purse.ts"
import * as Usage from "./usage.ts"

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

// -----------------------------------------------------------------------------
// What a call costs
// -----------------------------------------------------------------------------

export type Payment = Ledger.Payment

/** No call costs more; sums of more would not be exact. */
const mostDollars = 1e5

/** What a usage costs, in whole billionths of a dollar. What no provider bills is no number that counts. */
const costOf = (price: Prices.Price, actual: Accounting.Actual): number => {
  const dollars = Prices.cost(price, actual)
  return dollars >= 0 ? Math.round(Math.min(dollars, mostDollars) * perDollar) : 0
}

/**
 * Replaces what was held for a call by what it is billed for, undefined for nothing, and returns its dollars. If the bill is not
 * known, the purses spend all that was held.
 */
export const settle = (
  payment: Payment | undefined,
  price: Prices.Price | undefined,
  billed: Accounting.Actual | undefined,
  isKnown: boolean,
  now: number
): number => {
  const cost = price === undefined || billed === undefined ? 0 : costOf(price, billed)
  payment?.settle(isKnown ? cost : undefined, now)
  return cost / perDollar
}

const mostOf = (price: Prices.Price, known: Usage.Known): number => {
  const { bytes, continued, inputTokens, textBytes = bytes } = known
  if (continued === undefined || inputTokens !== undefined) return Rates.bound(price, known)
  return Rates.bound(price, { ...known, bytes: bytes + continued, textBytes: textBytes + continued })
}

// -----------------------------------------------------------------------------
// Paying
// -----------------------------------------------------------------------------

const perOf = (period: Period): string | undefined => {
  if (period._tag === "Ever") return undefined
  return period._tag === "Day" ? "a day" : `in ${Duration.format(Duration.millis(period.millis))}`
}

const denied = (cause: Spending.SpendCapReached | Spending.NoPrice | Spending.NoMaxTokens): Budget.BudgetError =>
  new Budget.BudgetError({ reason: new Budget.Denied({ cause }) })

const refusalOf = ({ asked, left, purse, until }: Ledger.Refused): Budget.BudgetError => {
  if (asked === Infinity) return denied(new Spending.NoMaxTokens({ purse: purse.name }))
  return denied(
    new Spending.SpendCapReached({
      purse: purse.name,
      asked: asked / perDollar,
      left: left / perDollar,
      limit: purse.ledger.limit / perDollar,
      per: perOf(purse.ledger.period),
      until
    })
  )
}

/** What a call waits for, and how long it may, in milliseconds. */
export interface Asking {
  /** Its purses: each pays once. */
  readonly purses: ReadonlyArray<Spending.Purse>
  readonly price: Prices.Price | undefined
  readonly call: Omit<Usage.Held, "observed">
  readonly pool: string
  readonly longest: number
}

/**
 * Holds what a call may cost, and waits for it where calls that run hold too much; undefined if no purse counts it. To be run
 * where nothing interrupts.
 */
export const pay = (
  { call, longest, pool, price, purses: given }: Asking,
  restore: Restore,
  wake: Wake
): Effect.Effect<Ledger.Payment | undefined, Budget.BudgetError> =>
  Effect.clockWith((clock) => {
    const purses = Array.from(new Set(given.map(Ledger.internalsOf)))
    if (price === undefined) {
      const capped = purses.find(({ keeping }) => keeping !== undefined)
      if (capped !== undefined) {
        return Effect.fail(denied(new Spending.NoPrice({ model: call.known.model, purse: capped.name })))
      }
      for (const purse of purses) purse.unpriced++
      return Effect.undefined
    }
    const bill: Ledger.Bill = {
      purses,
      expected: costOf(price, Usage.expected(call)),
      most: Math.ceil(mostOf(price, call.known) * perDollar)
    }
    const taken = Ledger.take(bill, clock.currentTimeMillisUnsafe())
    if (taken instanceof Ledger.Payment) return Effect.succeed(taken)
    return taken instanceof Ledger.Purse
      ? waitFor(bill, taken, clock, longest, pool, restore, wake)
      : Effect.fail(refusalOf(taken))
  })

/** Waits in the line of a purse, in which the call stands from this very step on: what is freed later wakes it. */
const waitFor = (
  bill: Ledger.Bill,
  at: Ledger.Purse,
  clock: Clock.Clock,
  longest: number,
  pool: string,
  restore: Restore,
  wake: Wake
): Effect.Effect<Ledger.Payment, Budget.BudgetError> => {
  let resume: (() => void) | undefined
  const waiter = Ledger.wait(bill, at, () => {
    if (resume !== undefined) wake(resume)
  })
  const woken = Effect.callback<void>((done) => {
    resume = () => done(Effect.void)
    if (waiter.outcome !== undefined) resume()
  })
  const tooLong = Effect.suspend(() => {
    // It may have been paid for in this very millisecond.
    if (waiter.outcome !== undefined) return Effect.void
    const wait = Duration.millis(longest)
    const reason = new Budget.WaitTooLong({ pool, dimension: undefined, wait, maxWait: wait })
    return Effect.fail(new Budget.BudgetError({ reason }))
  })
  const waited = longest < Infinity ? Effect.timeoutOrElse(woken, { duration: longest, orElse: () => tooLong }) : woken
  return Effect.flatMap(
    Effect.onExit(restore(waited), (exit) =>
      Effect.sync(() => {
        if (Exit.isFailure(exit)) Ledger.leave(waiter, clock.currentTimeMillisUnsafe())
      })
    ),
    () => {
      const outcome = waiter.outcome!
      return outcome instanceof Ledger.Payment ? Effect.succeed(outcome) : Effect.fail(refusalOf(outcome))
    }
  )
}
