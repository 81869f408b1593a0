/**
 * The tokens and calls that an agent or a job uses, and whether another call fits under its cap.
 */
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"

/** The usage of one call, or of all calls so far. An open call counts as estimated, a closed one as used. */
export interface Counter {
  readonly tokens: number
  readonly calls: number
}

/** The highest allowed {@link Counter}. */
export interface CounterCap {
  readonly tokens?: number | undefined
  readonly calls?: number | undefined
}

/** A call that does not fit under a cap. */
export interface Excess {
  readonly unit: "tokens" | "calls"
  readonly asked: number
  readonly left: number
  readonly limit: number
}

export const zero: Counter = { tokens: 0, calls: 0 }

/** The amount that an open call counts. */
export const estimated = (estimate: Limits.Estimate): Counter => {
  const { requests, tokens } = Amounts.whole(estimate)
  return { tokens, calls: requests }
}

/**
 * The amount that a call counts after it has ended. Amounts that the usage lacks keep their estimate, as they do in the budget.
 */
export const actual = ({ calls, tokens }: Counter, usage: Limits.Usage, estimate: Limits.Estimate): Counter => {
  const used = Amounts.used({ requests: calls, tokens }, usage, estimate)
  return { tokens: used.tokens!, calls: used.requests! }
}

/** Replaces a part of what was counted. */
export const replace = (used: Counter, before: Counter, after: Counter): Counter => ({
  tokens: used.tokens + after.tokens - before.tokens,
  calls: used.calls + after.calls - before.calls
})

/** The part of a call that exceeds a cap, or `undefined` if the call fits. */
export const excess = (used: Counter, cap: CounterCap, asked: Counter): Excess | undefined => {
  for (const unit of ["tokens", "calls"] as const) {
    const limit = cap[unit] ?? Infinity
    if (used[unit] + asked[unit] > limit) {
      return { unit, asked: asked[unit], left: Math.max(0, limit - used[unit]), limit }
    }
  }
  return undefined
}
