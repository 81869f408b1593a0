/** The costs of a run: predicted before it, bounded during it, and counted after it. */
import * as Effect from "effect/Effect"
import type * as Forecast from "floodgate/Forecast"
import * as Prices from "floodgate/Prices"
import * as Spending from "floodgate/Spending"
import * as Exit from "../exit.ts"
import { dollarsText } from "../../words.ts"

/** The price, the cap and the purse of a run. */
export interface Cost {
  readonly model: string
  /** Undefined if the model has no price. */
  readonly price: Prices.Price | undefined
  readonly most: number | undefined
  /** Counts the costs, and refuses calls beyond the cap. */
  readonly purse: Spending.Purse
}

/** The costs of a run with a model and a cap in dollars. */
export const of = (model: string, most: number | undefined): Effect.Effect<Cost, Exit.CommandError> => {
  const price = Prices.find(model)
  if (price === undefined && most !== undefined) {
    const what = `--max-usd: nobody knows what "${model}" costs`
    return Effect.fail(Exit.failure("usage", `${what}; give another --model, or --cap-tokens`))
  }
  const cap = most === undefined ? undefined : { dollars: most }
  return Effect.succeed({ model, price, most, purse: Spending.make("this run (--max-usd)", cap) })
}

/** Sums of millionths need no more digits. */
const rounded = (dollars: number): number => Math.round(dollars * 1e6) / 1e6

/** The costs of calls without a cache; undefined without a price. */
export const sumOf = (price: Prices.Price | undefined, calls: ReadonlyArray<Forecast.Call>): number | undefined =>
  price === undefined
    ? undefined
    : rounded(
        calls.reduce((sum, { inputTokens, outputTokens }) => sum + Prices.cost(price, { inputTokens, outputTokens }), 0)
      )

/** The most that a plan costs, in words. */
export const planned = ({ model, most, price }: Cost, dollars: number | undefined): string => {
  if (price === undefined || dollars === undefined) return `What it costs is not known: "${model}" has no price`
  const cap = most !== undefined && dollars > most ? `, and no more than --max-usd ${most}` : ""
  return `At most about ${dollarsText(dollars)}, by the prices of ${price.asOf}${cap}`
}

/** The costs of a run so far, for its report. */
export const tile = ({ price, purse }: Cost, costs: boolean) =>
  Effect.map(purse.status, ({ total }): { readonly value: string; readonly label: string } | undefined =>
    price === undefined
      ? undefined
      : { value: dollarsText(total), label: `${costs ? "cost" : "would have cost"}, by the prices of ${price.asOf}` }
  )
