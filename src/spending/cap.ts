/** Caps as users state them. */
import * as Duration from "effect/Duration"
import { finiteOf, invalid } from "../input/arguments.ts"
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
   * `"day"` from midnight to midnight, UTC; or any window of so long, such as `"5 hours"`, of which a sixtieth is added so that
   * the past need not be kept call by call.
   *
   * @default in all
   */
  readonly per?: "day" | Duration.Input | undefined
  /**
   * What is held for a call that runs: the `"most"` that it can cost, which the cap then never passes; or what is `"expected"`
   * of it, with which a cap can be passed by what the calls that run use beyond that. Choose `"expected"` where clients state
   * a `max_tokens` that they never use: Claude Code's 128,000 come to dollars a call.
   *
   * @default "most"
   */
  readonly reserve?: "most" | "expected" | undefined
}

const mostDollars = 1e6

const periodOf = (per: Cap["per"]): Period => {
  if (per === undefined) return { _tag: "Ever" }
  if (per === "day") return { _tag: "Day" }
  return { _tag: "Window", millis: Duration.toMillis(finiteOf("Spending.per", per)) }
}

/** How a cap is kept; complains of one that makes no sense. */
export const keepingOf = (cap: Cap | undefined): Keeping | undefined => {
  if (cap === undefined) return undefined
  const { per, reserve = "most" } = cap
  if (!(cap.dollars > 0 && cap.dollars <= mostDollars)) {
    invalid("Spending.dollars", `a number > 0, at most ${mostDollars}`, cap.dollars)
  }
  if (reserve !== "most" && reserve !== "expected") invalid("Spending.reserve", '"most" or "expected"', reserve)
  return { limit: Math.round(cap.dollars * perDollar), period: periodOf(per), reserve }
}
