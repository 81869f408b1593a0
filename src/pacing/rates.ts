/**
 * What several events need to know of a pool: how fast calls go, how long verdicts take, and what was given to whom.
 */
import * as Caps from "../admission/caps.ts"
import * as Meter from "./meter.ts"
import type { Pacer, Ticket } from "./pacer.ts"
import * as Verdicts from "./verdicts.ts"

/** After this time a call that was not rejected counts as accepted. */
export const verdictMillis = (pacer: Pacer): number => 2 * pacer.rejectMillis + 20

/** A call that has not failed after this time counts as accepted. */
export const maxSilence = 60_000

/** After this time a call that no overload failed counts as accepted. */
export const silenceMillis = (pacer: Pacer): number => Math.min(maxSilence, 2 * pacer.overloadMillis + 20)

/** The weight of one call in the mean time to a verdict. */
const verdictWeight = 1 / 8
/** No call takes longer than this. If it seems to, it was sent by another clock. */
const maxCallMillis = 3_600_000

/**
 * The mean time of calls, with one more. After a store has lost a pool, another machine's clock may have replaced the pool's,
 * and calls that were under way seem to have taken days, or less than nothing.
 */
export const meanWith = (mean: number, { at }: Ticket, now: number): number =>
  now < at || now - at > maxCallMillis ? mean : mean + (now - at - mean) * verdictWeight

/** Headers that are at most this old, in time or in calls, measure the share, so that growth need not try it. */
const freshMillis = 10_000
const freshCalls = 8

/** The phase up to which a meter grows: not beyond the measured share while headers measure it. */
export const bound = (pacer: Pacer, meter: Meter.Meter, now: number): number => {
  const { header } = meter
  const isFresh =
    header !== undefined &&
    now >= pacer.distrustUntil &&
    now - header.at < Math.max(freshMillis, freshCalls * Meter.gap(meter))
  return isFresh ? 0 : Infinity
}

/** Brings meters and caps up to a time. */
export const advance = (pacer: Pacer, now: number): void => {
  for (const meter of pacer.meters) Meter.advance(meter, now, bound(pacer, meter, now))
  Caps.advance(pacer.caps, now)
}

/** Calls per millisecond that the rates in use allow. */
export const callRate = (pacer: Pacer): number => {
  let rate = pacer.opening === undefined ? Infinity : pacer.opening.allowed / verdictMillis(pacer)
  for (const meter of pacer.meters) rate = Math.min(rate, Meter.rate(meter) / meter.mean)
  return rate
}

/** At or below the measured share, one false alarm in this time is accepted: it costs a tenth of the rate for a period. */
const alarmMillis = 30_000

/** The score of an alarm, with one false alarm expected in `millis`. */
export const alarmScore = (pacer: Pacer, millis = alarmMillis): number =>
  Verdicts.thresholdFor(callRate(pacer) * millis)

/** Calls that are sent before the verdict on the first of them is in. */
export const pendingCalls = (pacer: Pacer): number => callRate(pacer) * verdictMillis(pacer)

/** Of the meters that hold calls back, the one that has grown furthest. */
export const furthest = (pacer: Pacer): Meter.Meter | undefined => {
  let found: Meter.Meter | undefined
  for (const meter of pacer.meters) {
    const holdsBack = Meter.rate(meter) < meter.limit && Meter.isUsed(meter)
    if (holdsBack && meter.phase > (found?.phase ?? -Infinity)) found = meter
  }
  return found
}

/** From this phase to 0, right after a cut, the bucket cannot be empty: rejections there teach the random rate. */
const safePhase = -0.75

/** Whether less is used than was measured, so that the bucket cannot be empty. */
export const isBelowShare = (pacer: Pacer): boolean => {
  const phase = furthest(pacer)?.phase ?? 1
  return phase > safePhase && phase <= 0
}

/** What had been given when a call was sent, less what is known to be rejected; undefined if the meter is younger. */
export const givenAt = (pacer: Pacer, meter: Meter.Meter, ticket: Ticket): number | undefined => {
  const i = 2 * pacer.meters.indexOf(meter)
  const sum = ticket.sums[i]
  return sum === undefined ? undefined : sum - (meter.rejected - ticket.sums[i + 1]!)
}
