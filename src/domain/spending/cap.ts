/** Caps in the form of their options. */
import type * as Duration from "effect/Duration"
import * as Input from "../input/checks.ts"
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

/** What a cap allows. */
export const dollars: Input.Check = Input.number(
  `a number > 0, at most ${mostDollars}`,
  (value) => value > 0 && value <= mostDollars
)

const period = Input.that(
  '"day", or a finite duration > 0 such as "5 hours"',
  (value) => value === "day" || Input.finiteSpan(value) === undefined
)

/** Checks a cap. */
export const check: Input.Check = Input.options<Cap>(
  { dollars, per: period, reserve: Input.oneOf("most", "expected") },
  "dollars"
)

const periodOf = (per: Cap["per"]): Period => {
  if (per === undefined) return { _tag: "Ever" }
  if (per === "day") return { _tag: "Day" }
  return { _tag: "Window", millis: Input.millisOf(per) }
}

/** The internal form of a checked cap. */
export const keepingOf = (cap: Cap | undefined): Keeping | undefined =>
  cap && { limit: Math.round(cap.dollars * perDollar), period: periodOf(cap.per), reserve: cap.reserve ?? "most" }
