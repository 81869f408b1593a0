/** How the estimate of a call is fitted into the limits. Pure. */
import * as Amounts from "../domain/amounts.ts"
import type * as Rules from "../domain/rules.ts"
import type * as Limits from "../Limits.ts"

/** An estimate within the limits, and its charge. */
export interface Fitted {
  readonly estimate: Limits.Estimate
  readonly charge: Amounts.Whole
  /** The limit that the call certainly exceeds, so that it can never be admitted. */
  readonly misfit: Amounts.Misfit | undefined
}

/**
 * Fits an estimate into the limits. `certain` is what the call is charged at least; by default all of the estimate. What may be too high
 * counts as a whole limit. Throws a `RangeError` if an amount is negative or above 2^53.
 */
export const fitted = (
  rules: Rules.Rules,
  estimate: Limits.Estimate,
  certain: (() => Limits.Estimate) | undefined,
  operation?: string
): Fitted => {
  const charge = Amounts.wholeOf(estimate, operation)
  const misfit = Amounts.neverFits(charge, rules)
  if (misfit === undefined || certain === undefined) return { estimate, charge, misfit }
  const least = Amounts.neverFits(Amounts.whole(certain()), rules)
  const reduced = Amounts.within(estimate, charge, rules)
  return { estimate: reduced, charge: Amounts.whole(reduced), misfit: least }
}
