/** The costs of a run: predicted before it, bounded during it, and counted after it. */
import * as Effect from "effect/Effect"
import { Words } from "floodgate/internal"
import type * as Forecast from "floodgate/Forecast"
import * as Prices from "floodgate/Prices"
import * as Spending from "floodgate/Spending"
import * as Exit from "../exit.ts"

/** The price, the cap and the purse of a run. */
export interface Cost {
  readonly model: string
  /** Undefined if the model has no price. */
  readonly price: Prices.Price | undefined
  readonly maxDollars: number | undefined
  /** Counts the costs, and refuses calls beyond the cap. */
  readonly purse: Spending.Purse
}

/** The costs of a run with a model and a cap in dollars. */
export const of = (model: string, maxDollars: number | undefined): Effect.Effect<Cost, Exit.CommandError> => {
  const price = Prices.find(model)
  if (price === undefined && maxDollars !== undefined) {
    const what = `--max-usd: "${model}" has no known price`
    return Effect.fail(Exit.failure("usage", `${what}; give another --model, or --cap-tokens`))
  }
  const cap = maxDollars === undefined ? undefined : { dollars: maxDollars }
  return Effect.succeed({ model, price, maxDollars, purse: Spending.make("this run (--max-usd)", cap) })
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
