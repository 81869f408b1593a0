/** The costs of a run: predicted before it, bounded during it, and counted after it. */
import * as Effect from "effect/Effect"
import { Ledger, Words } from "floodgate/internal"
import type * as Forecast from "floodgate/Forecast"
import * as Prices from "floodgate/Prices"
import * as Spending from "floodgate/Spending"
import * as Exit from "../exit.ts"
import type * as Results from "./results.ts"

/** The price, the cap and the purse of a run. */
export interface Cost {
  readonly model: string
  /** Undefined if the model has no price. */
  readonly price: Prices.Price | undefined
  readonly maxDollars: number | undefined
  readonly maxDollarsPerDay: number | undefined
  /** Counts the costs, and refuses calls beyond the cap. */
  readonly purse: Spending.Purse
}

/** The caps of a run in dollars. */
export type DollarCaps = Pick<Cost, "maxDollars" | "maxDollarsPerDay">

/** The costs of a run with a model and caps in dollars. */
export const of = (
  model: string,
  { maxDollars, maxDollarsPerDay }: DollarCaps
): Effect.Effect<Cost, Exit.CommandError> => {
  const price = Prices.find(model)
  if (price === undefined && (maxDollars ?? maxDollarsPerDay) !== undefined) {
    const flag = maxDollars === undefined ? "--max-usd-per-day" : "--max-usd"
    const what = `${flag}: "${model}" has no known price`
    return Effect.fail(Exit.failure("usage", `${what}; give another --model, or --cap-tokens`))
  }
  const cap = maxDollars === undefined ? undefined : { dollars: maxDollars }
  const purse = Spending.make("this run (--max-usd)", cap)
  return Effect.succeed({ model, price, maxDollars, maxDollarsPerDay, purse })
}

/**
 * The purse of `--max-usd-per-day`. Answers that the folder already has count on the day on which they came, so a run that was
 * stopped and resumed has one cap for the day.
 */
export const daily = ({ maxDollarsPerDay, model }: Cost, earlier: Iterable<Results.Result>): Spending.Purse => {
  const name = "this day (--max-usd-per-day)"
  if (maxDollarsPerDay === undefined) return Spending.make(name)
  const paid = Array.from(earlier).flatMap(({ model: answering, usage, when }) => {
    const price = Prices.find(answering) ?? Prices.find(model)
    if (when === undefined || price === undefined) return []
    return [{ at: when.answered, amount: Math.round(Prices.cost(price, usage) * Ledger.perDollar) }]
  })
  const kept = paid
    .sort((a, b) => a.at - b.at)
    .reduce((account, { amount, at }) => Ledger.spend(account, amount, { _tag: "Day" }, at), Ledger.nothing)
  return Spending.make(name, { dollars: maxDollarsPerDay, per: "day" }, { kept })
}

/** Prices are millionths of a dollar, so sums need no more digits. */
const rounded = (dollars: number): number => Math.round(dollars * 1e6) / 1e6

/** The costs of calls that read nothing from a cache; undefined without a price. */
export const sumOf = (price: Prices.Price | undefined, calls: ReadonlyArray<Forecast.Call>): number | undefined =>
  price === undefined
    ? undefined
    : rounded(
        calls.reduce((sum, { inputTokens, outputTokens }) => sum + Prices.cost(price, { inputTokens, outputTokens }), 0)
      )

/** The most that a plan costs, in words. */
export const planned = ({ maxDollars, model, price }: Cost, dollars: number | undefined): string => {
  if (price === undefined || dollars === undefined) return `The cost is unknown: "${model}" has no price`
  const cap = maxDollars !== undefined && dollars > maxDollars ? `, and no more than --max-usd ${maxDollars}` : ""
  return `At most about ${Words.dollars(dollars)}, by the prices of ${price.asOf}${cap}`
}

/** The costs of a run so far, for its report. */
export const tile = ({ price, purse }: Cost, costs: boolean) =>
  Effect.map(purse.status, ({ total }): { readonly value: string; readonly label: string } | undefined =>
    price === undefined
      ? undefined
      : { value: Words.dollars(total), label: `${costs ? "cost" : "would have cost"}, by the prices of ${price.asOf}` }
  )
