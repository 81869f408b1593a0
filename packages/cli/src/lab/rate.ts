import type * as Limits from "floodgate/Limits"

/** The amount of a limit, and its period in seconds. A quota is granted once. */
export const rateOf = ({
  perMinute = 0,
  perSecond,
  total
}: Limits.Limit): { readonly amount: number; readonly seconds: number } => {
  if (total !== undefined) return { amount: total, seconds: Infinity }
  return perSecond === undefined ? { amount: perMinute, seconds: 60 } : { amount: perSecond, seconds: 1 }
}
