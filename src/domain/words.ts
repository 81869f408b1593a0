/** Amounts in words: the units of the dimensions, numbers and dollars. */
import type { Dimension } from "./amounts.ts"

/** The unit of each dimension, in the singular. */
export const units: Readonly<Record<Dimension, string>> = {
  requests: "request",
  inputTokens: "input token",
  outputTokens: "output token",
  tokens: "token"
}

/** The singular or the plural of a word. */
export const plural = (count: number, one: string, more = `${one}s`): string => (count === 1 ? one : more)

/** 1234567 as 1,234,567. */
export const thousands = (value: number): string => value.toLocaleString("en-US")

const large = /* @__PURE__ */ new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 })

/** 1234567 as 1.2M, for a glance. */
export const compact = (value: number): string =>
  Math.abs(value) < 999.5 ? `${Math.round(value)}` : large.format(value)

/** Seconds in the unit that a reader needs. */
export const span = (seconds: number): string => {
  if (seconds < 9.95) return `${round(seconds, 1)} s`
  if (seconds < 119.5) return `${Math.round(seconds)} s`
  return seconds < 7_200 ? `${Number((seconds / 60).toPrecision(2))} min` : `${round(seconds / 3_600, 1)} h`
}

/** A figure without more decimal places than it needs, by default three. */
export const round = (value: number, digits = 3): number => {
  const scale = 10 ** digits
  return Math.round(value * scale) / scale
}

/** A number with its unit. */
export const counted = (count: number, one: string, more?: string): string =>
  `${thousands(count)} ${plural(count, one, more)}`

/** What a call waits for: units of a dimension, or a place among the calls in flight. */
export const awaited = (dimension: Dimension | undefined): string =>
  dimension === undefined ? "a free place" : `${units[dimension]}s`

const cents = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" })
const finer = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", maximumSignificantDigits: 2 })

/** Dollars to the cent; amounts below 10 cents have two significant digits. */
export const dollars = (value: number): string => (value > 0 && value < 0.1 ? finer : cents).format(value)
