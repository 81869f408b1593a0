/** Caps in the form of their options. */
import * as Duration from "effect/Duration"
import { checkOptions, durationOf, invalid, type Known } from "../input/arguments.ts"
import { perDollar, type Period } from "./ledger.ts"
import type { Keeping } from "./purse.ts"

/**
 * The most that may be spent.
 *
 * @category models
 * @since 0.2.0
 */
export interface Cap {
  /** US dollars, at most a million. */
  readonly dollars: number
  /**
   * `"day"` from midnight to midnight, UTC, or a window of any length, such as `"5 hours"`. A sixtieth is added to the window, so
   * that calls need not be stored one by one.
   *
   * @default in all
   */
  readonly per?: "day" | Duration.Input | undefined
  /**
   * What is reserved for a running call: the `"most"` that it can cost, so that the cap is never exceeded, or what it is
   * `"expected"` to cost, so that the cap can be exceeded by what running calls use beyond that. Choose `"expected"` for clients
   * with a `max_tokens` that they never use: Claude Code's 128,000 cost dollars a call.
   *
   * @default "most"
   */
  readonly reserve?: "most" | "expected" | undefined
}

const mostDollars = 1e6

const known: Known<Cap> = { dollars: true, per: true, reserve: true }

const expected = '"day", or a finite duration > 0 such as "5 hours"'

const periodOf = (per: Cap["per"]): Period => {
  if (per === undefined) return { _tag: "Ever" }
  if (per === "day") return { _tag: "Day" }
  return {
    _tag: "Window",
    millis: Duration.toMillis(durationOf("Spending.per", per, expected, (millis) => millis > 0 && millis < Infinity))
  }
}

/** The internal form of a cap. Throws a `RangeError` for an invalid one. */
export const keepingOf = (cap: Cap | undefined): Keeping | undefined => {
  if (cap === undefined) return undefined
  checkOptions("Spending", cap, known)
  const { per, reserve = "most" } = cap
  if (!(typeof cap.dollars === "number" && cap.dollars > 0 && cap.dollars <= mostDollars)) {
    invalid("Spending.dollars", `a number > 0, at most ${mostDollars}`, cap.dollars)
  }
  if (reserve !== "most" && reserve !== "expected") invalid("Spending.reserve", '"most" or "expected"', reserve)
  return { limit: Math.round(cap.dollars * perDollar), period: periodOf(per), reserve }
}
