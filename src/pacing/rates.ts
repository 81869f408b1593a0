/**
 * Figures that several events need: the rate of calls, the time to their verdicts, and the amounts delivered.
 */
import * as Caps from "../admission/caps.ts"
import * as Meter from "./meter.ts"
import { isUnknown, type Pacer, type Admission } from "./state.ts"
import * as Verdicts from "./verdicts.ts"

/** A call that was not rejected counts as accepted after this time. */
export const verdictMillis = (pacer: Pacer): number => 2 * pacer.rejectMillis + 20

/** A call that was not failed by an overload counts as accepted after this time at the latest. */
export const maxSilence = 60_000

/** A call that was not failed by an overload counts as accepted after this time. */
export const silenceMillis = (pacer: Pacer): number => Math.min(maxSilence, 2 * pacer.overloadMillis + 20)

/** The weight of one call in the mean time to a verdict. */
const verdictWeight = 1 / 8
/** No call takes longer than this. If one seems to, it was sent by another machine's clock. */
const maxCallMillis = 3_600_000

/**
 * Adds a call to the mean time of calls. After a store has lost a pool, the clock of another machine may have replaced the
 * pool's. Calls that were under way then seem to have taken days, or a negative time, and are left out.
 */
export const meanWith = (mean: number, { at }: Admission, now: number): number =>
  now < at || now - at > maxCallMillis ? mean : mean + (now - at - mean) * verdictWeight

/**
 * Headers measure the share for this long, or for the time of this many calls if that is longer. Until then it need not be
 * found by growth.
 */
const freshMillis = 10_000
const freshCalls = 8

/**
 * The phase up to which a meter grows: only up to the measured share while headers measure it, and while room is kept for a large
 * call, because nothing then shows that more fits.
 */
export const bound = (pacer: Pacer, meter: Meter.Meter, now: number): number => {
  const { header, limit } = meter
  if (limit === Infinity && meter.lacked !== undefined && Meter.isKept(meter, now)) return 0
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

/** The calls per millisecond that the rates in use allow. */
export const callRate = (pacer: Pacer): number => {
  let rate = pacer.opening === undefined ? Infinity : pacer.opening.allowed / verdictMillis(pacer)
  for (const meter of pacer.meters) rate = Math.min(rate, Meter.rate(meter) / meter.mean)
  return rate
}

/** One false alarm is accepted in this time at or below the measured share. It costs a tenth of the rate for one period. */
const alarmMillis = 30_000

/** The score at which one false alarm is expected in `millis`. */
export const alarmScore = (pacer: Pacer, millis = alarmMillis): number =>
  Verdicts.thresholdFor(callRate(pacer) * millis)

/** The number of calls that are sent before the verdict on the first of them is known. */
export const pendingCalls = (pacer: Pacer): number => callRate(pacer) * verdictMillis(pacer)

/** The meter that has grown furthest, of those that hold calls back. */
export const furthest = (pacer: Pacer): Meter.Meter | undefined => {
  let found: Meter.Meter | undefined
  for (const meter of pacer.meters) {
    const holdsBack = Meter.rate(meter) < meter.limit && Meter.isUsed(meter)
    if (holdsBack && meter.phase > (found?.phase ?? -Infinity)) found = meter
  }
  return found
}

/** Between this phase and 0, soon after a cut, the bucket cannot be empty, so rejections teach the random rate. */
const safePhase = -0.75

/** Whether calls use less than the measured share, or are held back by their number in flight: then the bucket cannot be empty. */
export const isBelowShare = (pacer: Pacer): boolean => {
  const meter = furthest(pacer)
  if (meter === undefined) return isUnknown(pacer) && pacer.window.size < Infinity
  return meter.phase > safePhase && meter.phase <= 0
}

/** The amount delivered when a call was sent: all charges but the rejected ones. Undefined if the meter was added later. */
export const givenAt = (pacer: Pacer, meter: Meter.Meter, admission: Admission): number | undefined => {
  const i = 2 * pacer.meters.indexOf(meter)
  const sum = admission.sums[i]
  return sum === undefined ? undefined : sum - (meter.rejected - admission.sums[i + 1]!)
}
