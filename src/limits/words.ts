/** How amounts are said: the units of the dimensions, and one way to count. */
import type { Dimension } from "./amounts.ts"

/** One of each dimension. */
export const units: Readonly<Record<Dimension, string>> = {
  requests: "request",
  inputTokens: "input token",
  outputTokens: "output token",
  tokens: "token"
}

/** The word for so many of something. */
const plural = (count: number, one: string, more = `${one}s`): string => (count === 1 ? one : more)

/** 1234567 as 1,234,567. */
export const thousands = (value: number): string => value.toLocaleString("en-US")

/** So many of something. */
export const counted = (count: number, one: string, more?: string): string =>
  `${thousands(count)} ${plural(count, one, more)}`

/** What a caller waits for: units of a dimension, or a place among the calls in flight. */
export const awaited = (dimension: Dimension | undefined): string =>
  dimension === undefined ? "a free place" : `${units[dimension]}s`

const cents = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" })
const finer = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", maximumSignificantDigits: 2 })

/** Dollars: to the cent, and less than a dime to two figures. */
export const dollars = (value: number): string => (value > 0 && value < 0.1 ? finer : cents).format(value)
