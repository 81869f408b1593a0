import type * as Limits from "floodgate/Limits"

/** What a provider's limit gives in how many seconds; a quota gives it once. */
export const rateOf = ({
  perMinute = 0,
  perSecond,
  total
}: Limits.Limit): { readonly amount: number; readonly seconds: number } => {
  if (total !== undefined) return { amount: total, seconds: Infinity }
  return perSecond === undefined ? { amount: perMinute, seconds: 60 } : { amount: perSecond, seconds: 1 }
}
