/** The costs of a run: predicted before it, bounded during it, and counted after it. */
import * as Effect from "effect/Effect"
import { Ledger, maxCost } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import type { Params } from "floodgate/LlmProvider"
import type * as Accounting from "floodgate/Accounting"
import * as Prices from "floodgate/Prices"
import * as Spending from "floodgate/Spending"
import * as Exit from "@floodgate/gateway/internal/exit"
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
 * The purse of `--max-usd-per-day`. Answers that the folder already has count on the day on which they came, and attempts without an
 * answer at the most that they can have cost, so a run that was stopped and resumed has one cap for the day. Runs that share a budget in
 * Redis share the cap, which is then kept there.
 */
export const daily = Effect.fnUntraced(function* (
  { maxDollarsPerDay, model }: Cost,
  { attempts, results }: Pick<Results.Loaded, "attempts" | "results">
) {
  const name = "this day (--max-usd-per-day)"
  if (maxDollarsPerDay === undefined) return Spending.make(name)
  const cap = { dollars: maxDollarsPerDay, per: "day" } as const
  const shared = yield* Spending.open(name, cap, { key: "run --max-usd-per-day" })
  if (shared.isShared) return shared
  const paid = Array.from(results.values()).flatMap(({ model: answering, usage, when }) => {
    const price = Prices.find(answering) ?? Prices.find(model)
    return when === undefined || price === undefined ? [] : [{ at: when.answered, dollars: Prices.cost(price, usage) }]
  })
  const kept = [...paid, ...attempts.values()]
    .sort((a, b) => a.at - b.at)
    .map(({ at, dollars }) => ({ at, amount: Math.round(dollars * Ledger.perDollar) }))
    .reduce((account, { amount, at }) => Ledger.spend(account, amount, { _tag: "Day" }, at), Ledger.nothing)
  return Spending.make(name, cap, { kept })
})

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
  const { maxDollars, maxDollarsPerDay, model, price } = cost
  if (price === undefined || dollars === undefined) return `The cost is unknown: "${model}" has no price`
  const cap = maxDollars !== undefined && dollars > maxDollars ? `, and no more than --max-usd ${maxDollars}` : ""
  const pauses = pausesOf(cost, dollars)
  const days =
    pauses === 0
      ? ""
      : `; with --max-usd-per-day ${maxDollarsPerDay} it reaches the cap of a day up to ${Words.counted(pauses, "time")}`
  return `At most about ${Words.dollars(dollars)}, by the prices of ${price.asOf}${cap}${days}`
}

/** The number of times that a plan reaches the cap of a day, if nothing was spent on the first day before it starts. */
export const pausesOf = ({ maxDollars = Infinity, maxDollarsPerDay }: Cost, dollars: number | undefined): number =>
  maxDollarsPerDay === undefined || dollars === undefined
    ? 0
    : Math.max(0, Math.ceil(Math.min(dollars, maxDollars) / maxDollarsPerDay) - 1)

/** The costs of a run so far, for its report. */
export const tile = ({ price, purse }: Cost, costs: boolean) =>
  Effect.map(purse.status, ({ total }): { readonly value: string; readonly label: string } | undefined =>
    price === undefined
      ? undefined
      : { value: Words.dollars(total), label: `${costs ? "cost" : "would have cost"}, by the prices of ${price.asOf}` }
  )
