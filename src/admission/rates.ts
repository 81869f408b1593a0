/**
 * What the state of a pool says: how fast calls go, how long verdicts take, and how much of the bucket is ours.
 */
import { dimensions, get } from "../limits/amounts.ts"
import * as Cap from "./cap.ts"
import * as Meter from "./meter.ts"
import type { Pool, Ticket } from "./state.ts"
import * as Verdicts from "./verdicts.ts"

/** After this time a call that was not rejected counts as accepted. */
export const verdictMillis = (pool: Pool): number => 2 * pool.rejectMillis + 20

/** A failure shows within this time, or its call is taken for accepted. */
export const longestSilence = 60_000

/** The same for an overload. */
export const silenceMillis = (pool: Pool): number => Math.min(longestSilence, 2 * pool.overloadMillis + 20)

/** Verdicts over which the times to them are averaged. */
const verdictWeight = 1 / 8
/** No call takes longer than this: its time is that of another clock. */
const longestCallMillis = 3_600_000

/**
 * A mean of what calls took, with one more. Where a store has lost a pool, another machine gives it another time, by which
 * calls that were under way took days, or less than nothing.
 */
export const meanWith = (mean: number, { at }: Ticket, now: number): number =>
  now < at || now - at > longestCallMillis ? mean : mean + (now - at - mean) * verdictWeight

/** While headers are this fresh, in time or in calls, they measure the share, and it is not tried. */
const freshMillis = 10_000
const freshCalls = 8

/** While headers measure the share, it does not grow by itself beyond what was measured. */
export const bound = (pool: Pool, meter: Meter.Meter, now: number): number => {
  const { header } = meter
  const isFresh =
    header !== undefined &&
    now >= pool.distrustUntil &&
    now - header.at < Math.max(freshMillis, freshCalls * Meter.gap(meter))
  return isFresh ? 0 : Infinity
}

/** Brings meters and caps up to a time. */
export const advance = (pool: Pool, now: number): void => {
  for (const meter of pool.meters) Meter.advance(meter, now, bound(pool, meter, now))
  for (const dimension of dimensions) {
    const cap = get(pool.caps, dimension)
    if (cap !== undefined) Cap.advance(cap, now)
  }
}

/** The calls a millisecond that the rates in use allow. */
export const callRate = (pool: Pool): number => {
  let rate = pool.opening === undefined ? Infinity : pool.opening.allowed / verdictMillis(pool)
  for (const meter of pool.meters) rate = Math.min(rate, Meter.rate(meter) / meter.mean)
  return rate
}

/** At or below the measured share one false alarm is accepted in this time: it costs a tenth of the rate for a period. */
const alarmMillis = 30_000

/** The score at which a test raises an alarm that is false once in this time. */
export const alarmScore = (pool: Pool, millis = alarmMillis): number => Verdicts.thresholdFor(callRate(pool) * millis)

/** Calls that are sent before the verdict on the first of them is in. */
export const pendingCalls = (pool: Pool): number => callRate(pool) * verdictMillis(pool)

/** Of the meters that hold us back the one that is furthest in its growth. */
export const furthest = (pool: Pool): Meter.Meter | undefined => {
  let found: Meter.Meter | undefined
  for (const meter of pool.meters) {
    const holdsBack = Meter.rate(meter) < meter.limit && Meter.isUsed(meter)
    if (holdsBack && meter.phase > (found?.phase ?? -Infinity)) found = meter
  }
  return found
}

/** Right after a cut, from this phase to 0, the bucket cannot be empty: there the random rate is learned. */
const safePhase = -0.75

/** We use less than what was measured: the bucket cannot be empty. */
export const isBelowShare = (pool: Pool): boolean => {
  const phase = furthest(pool)?.phase ?? 1
  return phase > safePhase && phase <= 0
}

/** What had been given when a call was sent, as far as verdicts are in: `undefined` where the meter is younger. */
export const givenAt = (pool: Pool, meter: Meter.Meter, ticket: Ticket): number | undefined => {
  const i = 2 * pool.meters.indexOf(meter)
  const sum = ticket.sums[i]
  return sum === undefined ? undefined : sum - (meter.rejected - ticket.sums[i + 1]!)
}
