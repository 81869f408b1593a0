/** The limit that a strategy with a single token bucket is configured with. */
import { rateOf } from "../rate.ts"
import type { Scenario } from "../scenario.ts"

/** The provider's limit on tokens. */
export const tokensOf = ({ limits }: Scenario) => {
  const limit = limits.tokens ?? limits.inputTokens
  if (limit === undefined) return { perSecond: 1e9, burst: 1e9 }
  const { amount, seconds } = rateOf(limit)
  return { perSecond: amount / seconds, burst: limit.burst ?? amount }
}

/** Whether that limit includes output. */
export const countsOutput = ({ limits }: Scenario): boolean => limits.tokens !== undefined
