/**
 * What a call costs, and who pays: held before the call is queued, spent when it is over.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Accounting from "../Accounting.ts"
import { promptTokens } from "../limits/actual.ts"
import * as Budget from "../Budget.ts"
import type * as Limits from "../Limits.ts"
import type { Pushback } from "../LlmError.ts"
import * as Rates from "../prices/rates.ts"
import { bytesPerToken } from "../protocol/requestSize.ts"
import * as Spending from "../Spending.ts"
import { type Period, perDollar } from "../spending/ledger.ts"
import * as Ledger from "../spending/purse.ts"
import type { Call } from "./models.ts"
import * as Settlement from "./settlement.ts"
import { Purses } from "../spending/models.ts"

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

// -----------------------------------------------------------------------------
// What a call may cost
// -----------------------------------------------------------------------------

/** A call as far as its cost depends on it. */
export type Priced = Pick<Call, "bytes" | "textBytes" | "inputTokens" | "maxTokens" | "model"> & {
  /** The tokens of a conversation that the provider adds to it, and of the call. */
  readonly continued: number | undefined
}

export const nothing: Accounting.Actual = { inputTokens: 0, outputTokens: 0 }

/** What is expected of a call: as the estimate has it, and the rest of its prompt is read from a cache. */
export const expectedOf = (
  { bytes, continued, inputTokens }: Priced,
  held: Omit<Settlement.Held, "observed">
): Accounting.Actual => {
  const prompt = inputTokens ?? continued ?? bytes / bytesPerToken
  const reserved = Settlement.promptOf(held)
  const uncached = Math.min(Number.isNaN(reserved) ? prompt : reserved, Math.max(prompt, 0))
  return {
    inputTokens: uncached,
    cacheReadTokens: prompt - uncached,
    outputTokens: held.estimate.outputTokens ?? 0
  }
}

const mostOf = (price: Rates.Price, { bytes, continued, inputTokens, maxTokens, textBytes }: Priced) =>
  continued === undefined || inputTokens !== undefined
    ? Rates.bound(price, { bytes, textBytes, inputTokens, maxTokens })
    : Rates.bound(price, { bytes: bytes + continued, textBytes: (textBytes ?? bytes) + continued, maxTokens })

/** The price of an admitted call, and what is held for it. */
export interface Paid {
  readonly price: Rates.Price | undefined
  readonly expected: Accounting.Actual
  readonly payment: Payment | undefined
}

export type Payment = Ledger.Payment

// -----------------------------------------------------------------------------
// Paying
// -----------------------------------------------------------------------------

const perOf = (period: Period): string | undefined => {
  if (period._tag === "Ever") return undefined
  return period._tag === "Day" ? "a day" : `in ${Duration.format(Duration.millis(period.millis))}`
}

const denied = (cause: Spending.SpendCapReached | Spending.NoPrice): Budget.BudgetError =>
  new Budget.BudgetError({ reason: new Budget.Denied({ cause }) })

const refusalOf = ({ asked, left, purse, until }: Ledger.Refused): Budget.BudgetError =>
  denied(
    new Spending.SpendCapReached({
      purse: purse.name,
      asked: asked / perDollar,
      left: left / perDollar,
      limit: purse.ledger.limit / perDollar,
      per: perOf(purse.ledger.period),
      until
    })
  )

const none: ReadonlyArray<Ledger.Purse> = []

/** The purses of a call: those around the code that makes it, and those that its options name; each once. */
export const pursesOf = (
  context: Context.Context<never>,
  own: ReadonlyArray<Spending.Purse> | undefined
): ReadonlyArray<Ledger.Purse> => {
  const around = Context.get(context, Purses)
  if (around.length === 0 && own === undefined) return none
  const all = new Set([...around, ...(own ?? [])])
  return Array.from(all, (purse) => Ledger.behind.get(purse)).filter((purse) => purse !== undefined)
}

/** What a call waits for, and how long it may, in milliseconds. */
export interface Asking {
  readonly purses: ReadonlyArray<Ledger.Purse>
  readonly price: Rates.Price | undefined
  readonly call: Priced
  readonly expected: Accounting.Actual
  readonly pool: string
  readonly longest: number
}

/**
 * Holds what a call may cost, and waits for it where calls that run hold too much; undefined if no purse counts it. To be run
 * where nothing interrupts.
 */
export const pay = (
  { call, expected, longest, pool, price, purses }: Asking,
  restore: Restore
): Effect.Effect<Ledger.Payment | undefined, Budget.BudgetError> =>
  Effect.flatMap(Effect.clockWith(Effect.succeed), (clock) => {
    if (price === undefined) {
      const capped = purses.find(({ keeping }) => keeping !== undefined)
      if (capped !== undefined) {
        return Effect.fail(denied(new Spending.NoPrice({ model: call.model, purse: capped.name })))
      }
      for (const purse of purses) purse.unpriced++
      return Effect.undefined
    }
    const most = mostOf(price, call)
    const bill: Ledger.Bill = {
      purses,
      expected: billed(Rates.cost(price, expected)),
      most: most === undefined ? undefined : Math.ceil(most * perDollar)
    }
    const taken = Ledger.take(bill, clock.currentTimeMillisUnsafe())
    if (taken instanceof Ledger.Payment) return Effect.succeed(taken)
    return taken instanceof Ledger.Purse
      ? waitFor(bill, taken, clock, longest, pool, restore)
      : Effect.fail(refusalOf(taken))
  })

/** No call costs more; sums of more would not be exact. */
const mostDollars = 1e5

/** In whole billionths of a dollar. What no provider bills is no number that counts. */
const billed = (dollars: number): number => (dollars >= 0 ? Math.round(Math.min(dollars, mostDollars) * perDollar) : 0)

/** Waits in the line of a purse, in which the call stands from this very step on: what is freed later wakes it. */
const waitFor = (
  bill: Ledger.Bill,
  at: Ledger.Purse,
  clock: Clock.Clock,
  longest: number,
  pool: string,
  restore: Restore
): Effect.Effect<Ledger.Payment, Budget.BudgetError> => {
  let resume: (() => void) | undefined
  const waiter = Ledger.wait(bill, at, () => resume?.())
  const woken = Effect.callback<void>((done) => {
    // What wakes it is another call's end, on whose stack it must not go on.
    resume = () => done(Effect.yieldNow)
    if (waiter.outcome !== undefined) resume()
  })
  const tooLong = Effect.suspend(() => {
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

/** A call is over, and what it was billed for is spent. Returns that in dollars. */
export const settle = ({ payment, price }: Paid, actual: Accounting.Actual | undefined, now: number): number => {
  const amount = price === undefined || actual === undefined ? 0 : billed(Rates.cost(price, actual))
  payment?.settle(amount, now)
  return amount / perDollar
}

// -----------------------------------------------------------------------------
// What a call cost
// -----------------------------------------------------------------------------

/** The usage with the prompt as it was expected, where nothing of it was counted: no prompt is empty. */
const withPrompt = (actual: Accounting.Actual, expected: Accounting.Actual): Accounting.Actual => {
  return promptTokens(actual) > 0 ? actual : { ...expected, outputTokens: actual.outputTokens }
}

/** What an answered call is billed for. Without a usage it is what was expected. */
export const answered = (actual: Accounting.Actual | undefined, expected: Accounting.Actual): Accounting.Actual =>
  actual === undefined ? expected : withPrompt(actual, expected)

/** What a call of unknown outcome is billed for. */
export const abandoned = (observed: Accounting.Actual | undefined, expected: Accounting.Actual): Accounting.Actual =>
  withPrompt(observed ?? nothing, expected)

/**
 * What a failed call is billed for; undefined where that is nothing: providers do not bill what they reject, or what fails
 * before it is answered. An error without a usage counts as expected.
 */
export const failed = (
  observed: Accounting.Actual | undefined,
  expected: Accounting.Actual,
  pushback: Pushback | undefined,
  usage: Limits.Usage | undefined
): Accounting.Actual | undefined => {
  if (observed !== undefined) return withPrompt(observed, expected)
  if (usage === undefined || usage === null || typeof usage !== "object") return expected
  if (pushback === "rateLimit" || pushback === "ramp" || usage.requests === 0) return undefined
  const { inputTokens, outputTokens } = usage
  if (inputTokens === 0 && outputTokens === 0) return undefined
  return withPrompt({ inputTokens: inputTokens ?? 0, outputTokens: outputTokens ?? expected.outputTokens }, expected)
}
