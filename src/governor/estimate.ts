/**
 * What is reserved for a call if the estimator's guess is larger than the limit.
 */
import * as Cause from "effect/Cause"
import type * as Accounting from "../Accounting.ts"
import type * as Budget from "../Budget.ts"
import type * as Estimator from "../Estimator.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import { bytesPerToken } from "../protocol/requestSize.ts"
import type { Call } from "./models.ts"

/** A call as the estimator takes it, and how much of it is text. */
export type Known = Estimator.Call & Pick<Call, "textBytes">

/** By how much a guess of the input may be too high: 2.7 bytes a token are assumed at first, and more than 4 occur. */
const guessedTooHigh = 1.6

/**
 * The least that a call can take of a limit, however wrong the guesses in its estimate are. What was learned of prompts is
 * such a guess, too: of another call with a short body and a long document, for example. So are pictures, of any size, and
 * documents, whose data may be text or pictures of pages.
 */
const leastOf = (
  accounting: Accounting.Accounting,
  call: Known,
  { inputTokens = Infinity, outputTokens = 0 }: Limits.Estimate,
  dimension: Limits.Dimension
): number => {
  const least = accounting.estimate({
    inputTokens:
      call.inputTokens ?? Math.min(inputTokens, (call.textBytes ?? call.bytes) / bytesPerToken) / guessedTooHigh,
    cachedTokens: 0,
    outputTokens: outputTokens === call.maxTokens ? outputTokens : 0,
    maxTokens: call.maxTokens
  })
  return Amounts.whole(least)[dimension]
}

/**
 * What to reserve instead of an estimate that the budget refused as too large: all that the limit holds. A guess may be
 * larger than the limit although the call is not. Undefined if the call is too large for certain.
 */
export const within = (
  cause: Cause.Cause<Budget.BudgetError>,
  accounting: Accounting.Accounting,
  call: Known,
  estimate: Limits.Estimate
): Limits.Estimate | undefined => {
  const error = Cause.findErrorOption(cause)
  if (error._tag === "None" || error.value.reason._tag !== "EstimateTooLarge") return undefined
  const { dimension, limit } = error.value.reason
  return leastOf(accounting, call, estimate, dimension) <= limit ? { ...estimate, [dimension]: limit } : undefined
}
