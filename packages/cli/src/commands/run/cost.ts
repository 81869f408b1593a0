/** The costs of a run: predicted before it, bounded during it, and counted after it. */
import * as Effect from "effect/Effect"
import { checkCap, inUnits, Ledger, maxCost } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import type { Params } from "floodgate/LlmProvider"
import type * as Accounting from "floodgate/Accounting"
import * as Prices from "floodgate/Prices"
import * as Spending from "floodgate/Spending"
import * as Exit from "@floodgate/gateway/internal/exit"
import type * as Results from "./results.ts"

/** A cap on what runs cost in a day or a month. */
interface PeriodCap {
  readonly flag: "--max-usd-per-day" | "--max-usd-per-month"
  readonly noun: "day" | "month"
  readonly dollars: number
  readonly per: Spending.Cap["per"]
}

/** The price, the caps and the purse of a run. */
export interface Cost {
  readonly model: string
  /** Undefined if the model has no price. */
  readonly price: Prices.Price | undefined
  readonly maxDollars: number | undefined
  readonly periods: ReadonlyArray<PeriodCap>
  /** Counts the costs, and refuses calls beyond the cap. */
  readonly purse: Spending.Purse
}

/** The caps of a run in dollars. */
export interface DollarCaps {
  readonly maxDollars: number | undefined
  readonly maxDollarsPerDay: number | undefined
  readonly maxDollarsPerMonth?: number | undefined
  /** The day on which a month begins, and its time zone. @default "1", in UTC */
  readonly monthFrom?: string | undefined
}

const periodsOf = ({
  maxDollarsPerDay,
  maxDollarsPerMonth,
  monthFrom = "1"
}: DollarCaps): Effect.Effect<ReadonlyArray<PeriodCap>, Exit.CommandError> => {
  const month = `month from ${monthFrom}` as const
  if (checkCap({ dollars: 1, per: month }) !== undefined) {
    const what = `--month-from: expected a day from 1 to 31 such as "15" or "15 in Europe/Berlin", got "${monthFrom}"`
    return Effect.fail(Exit.failure("usage", what))
  }
  const days = { flag: "--max-usd-per-day", noun: "day", dollars: maxDollarsPerDay, per: "day" } as const
  const months = { flag: "--max-usd-per-month", noun: "month", dollars: maxDollarsPerMonth, per: month } as const
  return Effect.succeed(
    [days, months].flatMap(({ dollars, ...period }) => (dollars === undefined ? [] : [{ ...period, dollars }]))
  )
}

/** The costs of a run with a model and caps in dollars. */
export const of = Effect.fnUntraced(function* (
  model: string,
  caps: DollarCaps
): Effect.fn.Return<Cost, Exit.CommandError> {
  const price = Prices.find(model)
  const { maxDollars } = caps
  const periods = yield* periodsOf(caps)
  const flag = maxDollars === undefined ? periods[0]?.flag : "--max-usd"
  if (price === undefined && flag !== undefined) {
    const what = `${flag}: "${model}" has no known price`
    return yield* Effect.fail(Exit.failure("usage", `${what}; give another --model, or --cap-tokens`))
  }
  const cap = maxDollars === undefined ? undefined : { dollars: maxDollars }
  const purse = Spending.make("this run (--max-usd)", cap)
  return { model, price, maxDollars, periods, purse }
})

/**
 * The purses of `--max-usd-per-day` and `--max-usd-per-month`. Answers that the folder already has count on the day on which they came, and
 * attempts without an answer at the most that they can have cost, so a run that was stopped and resumed has one cap for the day. Runs that
 * share a budget in Redis share the cap, which is then kept there.
 */
export const periodic = (
  { model, periods }: Cost,
  { attempts, results }: Pick<Results.Loaded, "attempts" | "results">
) =>
  Effect.forEach(
    periods,
    Effect.fnUntraced(function* ({ dollars, flag, noun, per }) {
      const name = `this ${noun} (${flag})`
      const cap = { dollars, per }
      const shared = yield* Spending.open(name, cap, { key: `run ${flag}` })
      if (shared.isShared) return shared
      const paid = Array.from(results.values()).flatMap(({ model: answering, usage, when }) => {
        const price = Prices.find(answering) ?? Prices.find(model)
        const isPriced = when !== undefined && price !== undefined
        return isPriced ? [{ at: when.answered, dollars: Prices.cost(price, usage) }] : []
      })
      const { period } = inUnits(cap)
      const kept = [...paid, ...attempts.values()]
        .sort((a, b) => a.at - b.at)
        .map(({ at, dollars }) => ({ at, amount: Math.round(dollars * Ledger.perDollar) }))
        .reduce((account, { amount, at }) => Ledger.spend(account, amount, period, at), Ledger.nothing)
      return Spending.make(name, cap, { kept })
    })
  )

/** The most that an attempt can cost; nothing without a price. */
export const maxOf = ({ price }: Cost, params: Params): number =>
  price === undefined
    ? 0
    : maxCost(price, { bytes: Buffer.byteLength(JSON.stringify(params)), maxTokens: params.max_tokens })

/** Prices are millionths of a dollar, so sums need no more digits. */
const rounded = (dollars: number): number => Math.round(dollars * 1e6) / 1e6

/** The costs of calls; undefined without a price. */
export const sumOf = (price: Prices.Price | undefined, uses: ReadonlyArray<Accounting.Actual>): number | undefined =>
  price === undefined ? undefined : rounded(uses.reduce((sum, actual) => sum + Prices.cost(price, actual), 0))

/** The most that a plan costs, in words. */
export const planned = (cost: Cost, dollars: number | undefined): string => {
  const { maxDollars, model, periods, price } = cost
  if (price === undefined || dollars === undefined) return `The cost is unknown: "${model}" has no price`
  const cap = maxDollars !== undefined && dollars > maxDollars ? `, and no more than --max-usd ${maxDollars}` : ""
  const reached = periods.map((period) => {
    const pauses = pausesIn(period, cost, dollars)
    const times = Words.counted(pauses, "time")
    return pauses === 0
      ? ""
      : `; with ${period.flag} ${period.dollars} it reaches the cap of a ${period.noun} up to ${times}`
  })
  return `At most about ${Words.dollars(dollars)}, by the prices of ${price.asOf}${cap}${reached.join("")}`
}

const pausesIn = (period: PeriodCap, { maxDollars = Infinity }: Cost, dollars: number): number =>
  Math.max(0, Math.ceil(Math.min(dollars, maxDollars) / period.dollars) - 1)

/** The number of times that a plan reaches a cap of a day or a month, if nothing was spent in the first one before it starts. */
export const pausesOf = (cost: Cost, dollars: number | undefined): number =>
  dollars === undefined ? 0 : Math.max(0, ...cost.periods.map((period) => pausesIn(period, cost, dollars)))

/** The costs of a run so far, for its report. */
export const tile = ({ price, purse }: Cost, costs: boolean) =>
  Effect.map(purse.status, ({ total }): { readonly value: string; readonly label: string } | undefined =>
    price === undefined
      ? undefined
      : { value: Words.dollars(total), label: `${costs ? "cost" : "would have cost"}, by the prices of ${price.asOf}` }
  )
