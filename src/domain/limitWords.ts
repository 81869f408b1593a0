/** Limits in words. */
import type { Dimension } from "./amounts.ts"
import type { Limit, Limits } from "./rules.ts"
import { counted, plural, thousands, units } from "./words.ts"

/** The dimensions as their units are called. */
export const dimensionNames: Readonly<Record<Dimension, string>> = {
  requests: plural(2, units.requests),
  inputTokens: plural(2, units.inputTokens),
  outputTokens: plural(2, units.outputTokens),
  tokens: plural(2, units.tokens)
}

/** The amount of a limit, and its period in seconds. A quota is granted once. */
export const rateOf = ({
  perMinute = 0,
  perSecond,
  total
}: Limit): { readonly amount: number; readonly seconds: number } => {
  if (total !== undefined) return { amount: total, seconds: Infinity }
  return perSecond === undefined ? { amount: perMinute, seconds: 60 } : { amount: perSecond, seconds: 1 }
}

/** Limits in words, as a provider enforces them. */
export const limitsText = (limits: Limits): string =>
  (Object.entries(limits) as ReadonlyArray<[Dimension, Limit | undefined]>)
    .flatMap(([dimension, limit]) => {
      if (limit === undefined) return []
      const { amount, seconds } = rateOf(limit)
      const rate = seconds === 1 ? "/s" : "/min"
      const per = limit.total === undefined ? rate : " in all"
      const bucket = `bucket of ${thousands(limit.burst ?? amount)}`
      const window = { bucket, sliding: "any 60 s", fixed: "fixed minutes" }[limit.window ?? "bucket"]
      return [`${counted(amount, units[dimension])}${per} (${window})`]
    })
    .join("; ")
