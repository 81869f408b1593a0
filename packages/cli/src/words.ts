/** Amounts in words, for the output of every command. */
import type * as Limits from "floodgate/Limits"

const english = new Intl.NumberFormat("en-US")

/** 1234567 as 1,234,567. */
export const thousands = (value: number): string => english.format(value)

/** The singular or the plural of a word. */
export const plural = (count: number, one: string, more = `${one}s`): string => (count === 1 ? one : more)

/** A number and what it counts: "1 file", "1,200 files". */
export const counted = (count: number, one: string, more?: string): string =>
  `${thousands(count)} ${plural(count, one, more)}`

/** The unit of each dimension, in the singular. */
export const units: Readonly<Record<Limits.Dimension, string>> = {
  requests: "request",
  inputTokens: "input token",
  outputTokens: "output token",
  tokens: "token"
}

const cents = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" })
const finer = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", maximumSignificantDigits: 2 })

/** Dollars to the cent; amounts below 10 cents have two significant digits. */
export const dollarsText = (value: number): string => (value > 0 && value < 0.1 ? finer : cents).format(value)
