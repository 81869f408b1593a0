/** Amounts in words: the units of the dimensions, numbers, times and dollars. */
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

const glance = /* @__PURE__ */ new Intl.NumberFormat("en-US", {
  notation: "compact",
  maximumSignificantDigits: 3
})

/** 1234567 as 1.23M: three digits, for a glance. */
export const compact = (value: number): string => glance.format(value)

/** A part of 1 in percent, with one decimal place at the most. */
export const percent = (part: number, digits = 1): string => `${round(100 * part, digits)} %`

/** Seconds, for tables that compare them. */
export const seconds = (value: number): string => `${value.toFixed(1)} s`

const inUnit = (seconds: number, shown: (value: number) => string): string => {
  if (seconds < 119.95) return `${shown(seconds)} s`
  return seconds < 7_200 ? `${shown(seconds / 60)} min` : `${shown(seconds / 3_600)} h`
}

/** Measured seconds in the unit that a reader needs: 62.3 s, 2.5 min. */
export const span = (seconds: number): string => inUnit(seconds, (value) => value.toFixed(1))

/** Expected seconds in the unit that a reader needs: 2.5 s, 62 s, 2.5 min. */
export const about = (seconds: number): string =>
  inUnit(seconds, (value) => `${value < 9.95 ? round(value, 1) : Math.round(value)}`)

/** A figure without more decimal places than it needs, by default three. */
export const round = (value: number, digits = 3): number => {
  const scale = 10 ** digits
  return Math.round(value * scale) / scale
}

/** A number with its unit. */
export const counted = (count: number, one: string, more?: string): string =>
  `${thousands(count)} ${plural(count, one, more)}`

/** Names what a call waits for: units of a dimension, or a place among the calls in flight. */
export const awaited = (dimension: Dimension | undefined): string =>
  dimension === undefined ? "a free place" : `${units[dimension]}s`

const cents = /* @__PURE__ */ new Intl.NumberFormat("en-US", { style: "currency", currency: "USD" })
const finer = /* @__PURE__ */ new Intl.NumberFormat("en-US", {
  style: "currency",
  currency: "USD",
  maximumSignificantDigits: 2
})

/** Dollars to the cent; amounts below 10 cents have two significant digits. */
export const dollars = (value: number): string => (value > 0 && value < 0.1 ? finer : cents).format(value)
