/** Limits of calls in flight, as users state them. */
import * as Input from "./input/checks.ts"

/**
 * A limit of calls in flight: a number, `"measured"`, or measured and at most a number.
 *
 * @stability stable
 * @category options
 * @since 0.5.0
 */
export type Concurrency = number | "measured" | { readonly measuredUpTo: number }

/** How many calls may be in flight: a number, or what is measured and at most that. */
export interface InFlightLimit {
  readonly max: number
  readonly isMeasured: boolean
}

export const number: Input.Check = Input.wholeOrInfinite(1)

const upTo = Input.options<{ readonly measuredUpTo: number }>({ measuredUpTo: number }, "measuredUpTo")
const numberOrMeasured = Input.that('"measured", an integer >= 1, or { measuredUpTo }', (value) => value === "measured")

/** Checks a number of calls in flight, or one that is measured. */
export const check: Input.Check = (value) => {
  if (typeof value === "number") return number(value)
  return typeof value === "object" ? upTo(value) : numberOrMeasured(value)
}

/** How a stated concurrency limits the calls in flight. */
export const parse = (stated: Concurrency): InFlightLimit => {
  if (typeof stated === "number") return { max: stated, isMeasured: false }
  return { max: stated === "measured" ? Infinity : stated.measuredUpTo, isMeasured: true }
}
