/**
 * The headers of a response teach the limit, the level and the share of each dimension.
 */
import { type Charge, type Dimension, dimensions, get, type PerDimension } from "../domain/amounts.ts"
import type { Rule } from "../domain/rules.ts"
import { limitTo } from "./limits.ts"
import * as Meter from "./meter.ts"
import { bound, givenAt } from "./rates.ts"
import { isStated, meterOf, type Pacer, type Admission } from "./state.ts"

/**
 * A response's figures for one dimension: the limit per millisecond, the amount left, and the step to which that is rounded.
 */
export interface Reading {
  readonly limit: number | undefined
  readonly remaining: number | undefined
  readonly roundedTo: number
}

export type Readings = PerDimension<Reading>

/** Learns from the headers of a response. Without an admission, only limits are learned. `certain` is what the call certainly used. */
export const observe = (
  pacer: Pacer,
  admission: Admission | undefined,
  readings: Readings,
  now: number,
  certain?: Charge
): void => {
  for (const dimension of dimensions) {
    const reading = readings[dimension]
    if (reading === undefined) continue
    if (admission !== undefined && isExceeded(admission, dimension, reading, certain)) continue
    const meter = learnLimit(pacer, dimension, reading, now)
    if (meter === undefined || admission === undefined || reading.remaining === undefined) continue
    Meter.advance(meter, now, bound(pacer, meter, now))
    learnLevel(pacer, meter, admission, reading.remaining, reading.roundedTo, now)
  }
  if (!covers(pacer, readings)) return
  // Headers name no limit of calls in flight, so while the rounds are filled they go on.
  pacer.opening = admission === undefined ? undefined : pacer.opening && { ...pacer.opening, isNamed: true }
}

/** A call is larger than the limit if its estimate exceeds it by this factor; estimates err by less. */
const certainly = 1.6

/** The certain usage of a call. Only the estimate of its prompt may be many times too high, because the prompt may be cached. */
const minUse = ({ charge }: Admission, dimension: Dimension, certain: Charge | undefined): number =>
  certain === undefined || dimension === "outputTokens" || dimension === "requests"
    ? charge[dimension] / certainly
    : (get(certain, dimension) ?? 0)

/** Whether a call is certainly larger than a limit. Then it never fits, or the limit is wrong, so nothing is learned. */
export const isExceeded = (
  admission: Admission,
  dimension: Dimension,
  { limit = Infinity }: Reading,
  certain: Charge | undefined
): boolean => minUse(admission, dimension, certain) > limit * 60_000

/** Whether readings cover what providers limit: requests, and all tokens or input tokens. */
const covers = ({ meters }: Pacer, readings: Readings): boolean => {
  if (readings.requests !== undefined && (readings.tokens ?? readings.inputTokens) !== undefined) return true
  for (const { dimension, limit } of meters) if (limit === Infinity && readings[dimension] === undefined) return false
  return true
}

/** Whether headers say that a bucket had room for a call. */
export const showsRoom = (meter: Meter.Meter, admission: Admission, readings: Readings | undefined): boolean => {
  const { remaining } = readings?.[meter.dimension] ?? {}
  return remaining !== undefined && remaining >= admission.charge[meter.dimension]
}

/** Whether headers cover what providers limit, and say that all of these buckets had room for a call. */
export const haveRoom = (pacer: Pacer, admission: Admission, readings: Readings): boolean =>
  covers(pacer, readings) &&
  pacer.meters.every((meter) => readings[meter.dimension] === undefined || showsRoom(meter, admission, readings))

/** Forgets what headers have shown of the bucket under a larger limit. */
const forgetBurst = (pacer: Pacer, meter: Meter.Meter): void => {
  meter.most = undefined
  if (!isStated(pacer, meter.dimension)) meter.burst = meter.shown = undefined
}

/** Learns a limit. Returns the meter of its dimension, if there is one. */
const learnLimit = (
  pacer: Pacer,
  dimension: Dimension,
  { limit, remaining = 0 }: Reading,
  now: number
): Meter.Meter | undefined => {
  let meter = meterOf(pacer, dimension)
  if (limit === undefined) return meter
  if (meter === undefined) pacer.meters.push((meter = Meter.make(dimension, now)))
  const isNew = meter.limit === Infinity
  if (limit < meter.limit) forgetBurst(pacer, meter)
  Meter.setLimit(meter, limit)
  // The amount left can be taken at once, unless such bursts were rejected. A bucket that nobody has described holds more than
  // was left of it when somebody looked, which is next to nothing after a rejection.
  const share = pacer.shares[dimension]
  const minBurst = limit * Meter.burstMillis
  const held = remaining >= minBurst || share !== undefined || isStated(pacer, dimension) ? remaining : minBurst
  meter.burst = Math.max(meter.burst ?? 0, Math.min(held, meter.mostBurst)) || undefined
  if (isNew) meter.level = Math.min(remaining, Meter.burst(meter))
  if (share !== undefined) limitTo(pacer, dimension, shareOf(meter, share), now)
  return meter
}

/** The user's share of a limit that headers name. */
const shareOf = (meter: Meter.Meter, share: number): Rule => {
  const rate = meter.limit * share
  const capacity = Meter.burst(meter) * share
  const provider = { rate: meter.limit, burst: Meter.burst(meter) }
  return { capacity, rate, most: Math.max(capacity, rate * 60_000), window: undefined, quota: false, share, provider }
}

/** Whether a call was sent before the one of the last headers, or before the last exhaustion. */
const isOld = ({ header, mark }: Meter.Meter, { at }: Admission): boolean =>
  at < Math.max(header?.at ?? -Infinity, mark?.at ?? -Infinity)

/** Learns the level after a call, and measures the share. Headers that are older than the last ones are ignored. */
const learnLevel = (
  pacer: Pacer,
  meter: Meter.Meter,
  admission: Admission,
  remaining: number,
  roundedTo: number,
  now: number
): void => {
  const given = givenAt(pacer, meter, admission)
  if (given === undefined || meter.peak === Infinity || now < pacer.distrustUntil || isOld(meter, admission)) return
  meter.most = Math.max(meter.most ?? 0, remaining)
  const sum = given + (Meter.isLate(meter) ? 0 : admission.charge[meter.dimension])
  const shown = Math.max(0, remaining - (roundedTo > 1 ? roundedTo / 2 : 0))
  const level = shown - (meter.sum - sum) + Meter.rate(meter) * (now - admission.at)
  if (Meter.isLate(meter)) learnLateLevel(meter, shown)
  else if (shown > 0 || !hidesDebt(meter, level))
    learnLevelAt(meter, admission.at, level, shown, remaining > nearlyFull * meter.most)
  learnSlope(pacer, meter, { at: admission.at, remaining, sum }, roundedTo)
}

/** Whether a bucket that shows nothing left, which suggests this level, may be in debt after a call that was larger than the bucket. */
const hidesDebt = (meter: Meter.Meter, level: number): boolean =>
  meter.level < 0 && level > meter.level && meter.largest > Meter.burst(meter)

/** Learns the level of a bucket that counts what is produced: calls in flight will still spend what they hold. */
const learnLateLevel = (meter: Meter.Meter, shown: number): void => {
  if (shown < meter.level) meter.level = shown
  else raise(meter, shown - meter.held)
}

/**
 * Learns the level that follows from what was left when the call was sent. Some providers say what is left when the answer ends, and
 * nothing tells them apart. What has refilled until then would count twice, so a higher level is at most what was `shown`.
 */
const learnLevelAt = (meter: Meter.Meter, sentAt: number, level: number, shown: number, mayBeFull: boolean): void => {
  if (level >= meter.level) return raise(meter, Math.min(level, shown))
  if (mayBeFull) Meter.narrow(meter, meter.level - level)
  meter.level = level
  meter.loweredAt = sentAt
}

/** Higher levels are smoothed, because what headers report may be spent by now. Lower levels apply at once. */
const levelGain = 0.2

/** Moves the level towards a higher one. A debt is removed at once. */
const raise = (meter: Meter.Meter, level: number): void => {
  if (level <= meter.level) return
  meter.level = Math.max(meter.level, Math.min(0, level))
  meter.level = Math.min(Meter.burst(meter), meter.level + levelGain * (level - meter.level))
}

/** The rate that a stated share reserves for this budget; 0 without a stated share. */
export const entitled = ({ caps }: Pacer, { dimension, limit }: Meter.Meter): number => {
  const { share = 1 } = caps[dimension]?.rule ?? {}
  return share < 1 ? share * limit : 0
}

/** A share is measured over at least this time, and moves by this part of the difference. */
const slopeMillis = 1_000
const slopeGain = 0.4
/** Headers never lower the rate below this part of the limit: at a rate of 0, no call would bring new headers. */
const minSlope = 1 / 50
/** A bucket with more than this part of the most that headers showed may be full, and a full bucket gains nothing. */
const nearlyFull = 0.9
/** A bucket that never showed room for more calls than this was never seen full. */
const minShown = 3

/** Measures the share: our part of the refill is what the bucket gained between two headers, plus what we took meanwhile. */
const learnSlope = (pacer: Pacer, meter: Meter.Meter, to: Meter.Reference, roundedTo: number): void => {
  // Without a limit, nothing says how much of the refill a full bucket loses.
  if (meter.limit === Infinity) return
  const from = meter.header
  if (from === undefined) return void (meter.header = to)
  const rate = Meter.rate(meter)
  const elapsed = to.at - from.at
  if (elapsed < Math.max(slopeMillis, (4 * meter.mean) / rate, (10 * roundedTo) / meter.limit)) return
  const gained = to.remaining - from.remaining + to.sum - from.sum
  const { mean, most = 0 } = meter
  const isFull = to.remaining > nearlyFull * most && most > minShown * mean
  const slope = isFull ? meter.limit : Math.min(meter.limit, Math.max(0, gained) / elapsed)
  Meter.measure(meter, isFull ? meter.limit : gained / elapsed, elapsed)
  Meter.restart(meter, Math.max(meter.limit * minSlope, entitled(pacer, meter), rate + slopeGain * (slope - rate)), 0)
  meter.header = to
}
