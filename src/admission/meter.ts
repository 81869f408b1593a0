/**
 * The provider's bucket of one dimension as far as we know it: what it holds, and how much of its refill is ours.
 *
 * Others spend the same limit, so the rate in use follows a curve. After the bucket was found empty it starts a tenth
 * below what was delivered, is back there after one period, stays there for a while, and then tries more and more.
 * {@link refill} integrates that curve exactly, so that it does not matter how often a meter is brought up to date.
 *
 * Times are milliseconds, rates are per millisecond. A meter is mutable and has one owner.
 */
import type { Dimension } from "../Limits.ts"

/** Part of what was delivered that is used right after a cut: the bucket stores the rest, which makes room to grow. */
const floorPart = 0.9
/** Growth one period after the measured share is reached, in parts of the best share known; with the cube of the time, as CUBIC (RFC 9438). */
const growth = 0.03
/**
 * A period is the geometric mean of the gap between calls and this time. Probing costs rejections for each call, not
 * probing costs share for each minute: the sum of the two is least at the mean of their scales.
 */
const periodTau = 60_000
/** A period is not shorter than a few verdicts, and short enough that a change is found within 15 s. */
const leastPeriod = 1_000
const longestPeriod = 4_000
/** What a bucket of unknown size surely takes at once: this much of its refill. */
const burstMillis = 3_000
/** Time over which the recent rate is averaged: the minute that limits are stated in. */
const recentMillis = 60_000
/** Calls over which the mean charge is averaged. */
const meanCalls = 64
/** Growth per minute after the provider's ramp error. OpenAI asks for at most 50 % in 15 minutes above a size, Anthropic names none. */
const rampGrowth = 1.4
/** While growth is bounded, what may go at once. */
const rampBurstMillis = 500
/** Rounding of sums: a billionth of a charge is no token. */
const rounding = 1e-9

/** What was sent and not rejected up to a moment. */
export interface Mark {
  readonly at: number
  readonly given: number
}

/** The last header that counted, and what had been sent by then. */
export interface Reference {
  readonly at: number
  readonly remaining: number
  readonly sum: number
}

export interface Meter {
  readonly dimension: Dimension
  /** The provider's limit; `Infinity` while it is unknown. */
  limit: number
  /** What the bucket holds, where that is known. */
  burst: number | undefined
  /** What headers may teach of that. */
  mostBurst: number
  level: number
  at: number
  /** The curve of the rate in use: `floor` at phase -1, `peak`, the share that was measured, at phase 0, then beyond. */
  floor: number
  peak: number
  phase: number
  /** The length of one phase, fixed at the cut. */
  period: number
  /** The largest share that was measured. */
  best: number
  /** What was sent and not rejected in about a minute, as a sum that decays. */
  recent: number
  readonly since: number
  /** The bound on the rate at the last ramp error, and when that was. */
  ramp: number
  rampAt: number
  /** Charges sent, in all, and those that were rejected or never counted. */
  sum: number
  rejected: number
  /** Charges in flight that the provider counts only when they are spent. */
  held: number
  /** Mean and largest charge. */
  mean: number
  largest: number
  /** Kept back from each admission, because two clocks and a network never agree to the token. */
  reserve: number
  /** Where the share is measured from: the last exhaustion. */
  mark: Mark | undefined
  /** What had been given at the last exhaustion, and when the level was set to what that left. */
  emptied: number
  fence: number
  /** Used by the verdicts: what had been given at the last rejection. */
  tested: number
  /** The last header that counted. */
  header: Reference | undefined
  /** By how much headers were too high lately, because they are late. */
  error: number
  /** Calls sent up to this time are in the level as they were used, because a header said what was left after them. */
  loweredAt: number
}

/** A bucket of which the limit is known, and perhaps what it holds; it is held to be full. */
export const make = (
  dimension: Dimension,
  now: number,
  limit = Infinity,
  burst: number | undefined = undefined
): Meter => ({
  dimension,
  limit,
  burst,
  mostBurst: Infinity,
  level: burst ?? limit * burstMillis,
  at: now,
  floor: limit,
  peak: limit,
  phase: 0,
  period: longestPeriod,
  best: 0,
  recent: 0,
  since: now,
  ramp: Infinity,
  rampAt: now,
  sum: 0,
  rejected: 0,
  held: 0,
  mean: 0,
  largest: 0,
  reserve: 0,
  mark: undefined,
  emptied: -Infinity,
  fence: -Infinity,
  tested: 0,
  header: undefined,
  error: 0,
  loweredAt: -Infinity
})

/** A copy. Naming the properties is twice as fast as spreading the meter, and this is done for each event. */
export const copy = (m: Meter): Meter => ({
  dimension: m.dimension,
  limit: m.limit,
  burst: m.burst,
  mostBurst: m.mostBurst,
  level: m.level,
  at: m.at,
  floor: m.floor,
  peak: m.peak,
  phase: m.phase,
  period: m.period,
  best: m.best,
  recent: m.recent,
  since: m.since,
  ramp: m.ramp,
  rampAt: m.rampAt,
  sum: m.sum,
  rejected: m.rejected,
  held: m.held,
  mean: m.mean,
  largest: m.largest,
  reserve: m.reserve,
  mark: m.mark,
  emptied: m.emptied,
  fence: m.fence,
  tested: m.tested,
  header: m.header,
  error: m.error,
  loweredAt: m.loweredAt
})

/** Output is counted by providers when it is produced, everything else when the call is admitted. */
export const isLate = (meter: Meter): boolean => meter.dimension === "outputTokens"

/** The unit of growth: the limit, or the best share known where there is no limit. */
const unit = (m: Meter): number => (m.limit < Infinity ? m.limit : Math.max(m.best, m.peak))

/** The rate in use at a phase, without the limit. */
const curve = (m: Meter, phase: number): number =>
  m.peak + (phase < 0 ? m.peak - m.floor : growth * unit(m)) * phase ** 3

/** The rate in use. */
export const rate = (m: Meter): number => (m.peak === Infinity ? m.limit : Math.min(m.limit, curve(m, m.phase)))

/** The rate in use within what the provider lets us grow to by now, if it had to say so. */
export const rateAt = (m: Meter, now: number): number =>
  Math.min(rate(m), m.ramp * rampGrowth ** ((now - m.rampAt) / 60_000))

/** The antiderivative of the curve. */
const area = (m: Meter, phase: number): number =>
  m.peak * phase + ((phase < 0 ? m.peak - m.floor : growth * unit(m)) * phase ** 4) / 4

/** The phase at which the curve reaches the limit. */
const phaseOfLimit = (m: Meter): number => Math.cbrt((m.limit - m.peak) / (growth * unit(m)))

/** What is refilled in a time from now on, with a phase that stops growing at `most`. */
const refill = (m: Meter, millis: number, most: number): number => {
  const to = m.phase + millis / m.period
  const flatFrom = Math.min(Math.max(m.phase, Math.min(most, phaseOfLimit(m))), to)
  const flat = Math.min(m.limit, curve(m, flatFrom))
  const sum = m.period * (area(m, flatFrom) - area(m, m.phase) + flat * (to - flatFrom))
  return m.ramp === Infinity ? sum : Math.min(sum, millis * rateAt(m, m.at))
}

/**
 * What the bucket holds. A bucket that has taken a call of some size holds as much. Where the provider limits growth, what
 * is saved up is no room.
 */
export const burst = (m: Meter, now = m.at): number => {
  const whole = m.burst ?? Math.max(burstMillis * Math.min(m.limit, m.peak), m.largest)
  return m.ramp === Infinity ? whole : Math.min(whole, Math.max(m.mean, rampBurstMillis * rateAt(m, now)))
}

/**
 * The level at which a charge is let in. One that is larger than the bucket goes when it is full, and leaves a debt. Calls
 * that are admitted now may go out `lag` later, and others at once: what is refilled meanwhile is kept back.
 */
const needed = (m: Meter, charge: number, lag: number): number =>
  Math.min(charge + Math.max(m.reserve, rate(m) * lag), burst(m))

/** Whether calls take as much as is refilled. A rate that is not used does not grow. */
export const isUsed = (m: Meter): boolean => m.level <= burst(m) / 2

/** The gap between calls at the rate in use. */
export const gap = (m: Meter): number => m.mean / rate(m)

/** How often growth is tried: see `periodTau`. */
export const periodOf = (m: Meter): number =>
  Math.min(longestPeriod, Math.max(leastPeriod, Math.sqrt(gap(m) * periodTau)))

/** Brings a meter up to a time. `most` bounds the phase, where headers measure the share. */
export const advance = (m: Meter, now: number, most: number): void => {
  const elapsed = now - m.at
  if (elapsed <= 0) return
  m.recent *= Math.exp(-elapsed / recentMillis)
  if (m.peak < Infinity) {
    const reached = isUsed(m) ? most : m.phase
    m.level = Math.min(burst(m, now), m.level + refill(m, elapsed, reached))
    m.phase = Math.max(m.phase, Math.min(m.phase + elapsed / m.period, reached))
  }
  m.at = now
}

/** What the bucket lacks at a time. */
export const missing = (m: Meter, now: number): number => {
  if (m.peak === Infinity) return 0
  const current = { ...m }
  advance(current, now, m.phase)
  return burst(current, now) - current.level
}

/** Milliseconds until a charge fits; 0 when it does. The meter must be up to date. */
export const wait = (m: Meter, charge: number, most: number, lag = 0): number => {
  if (m.peak === Infinity || charge === 0) return 0
  const missing = needed(m, charge, lag) - m.level
  if (missing <= rounding * charge) return 0
  // At the rate of now it takes too long, for the curve only grows.
  let long = missing / rateAt(m, m.at)
  if (!isUsed(m)) return long
  let short = 0
  while (long - short > Math.max(0.5, long * rounding)) {
    const middle = (short + long) / 2
    if (refill(m, middle, most) < missing) short = middle
    else long = middle
  }
  return long
}

/** What was sent and not rejected in the last minute, as a rate. */
export const recentRate = (m: Meter, now: number): number =>
  m.recent / recentMillis / -Math.expm1(-Math.max(1, now - m.since) / recentMillis)

/** Takes a charge, into debt where it is more than the level. */
export const take = (m: Meter, charge: number, calls: number): void => {
  m.level -= charge
  m.recent += charge
  if (isLate(m)) m.held += charge
  else m.sum += charge
  m.mean += (charge - m.mean) / Math.min(meanCalls, calls)
  m.largest = Math.max(m.largest * 0.999, charge)
}

/**
 * Replaces a charge by what was used. `isGiven`: whether the level had it, which is not so once it was set to what an
 * exhaustion left. `isAccepted`: whether the call was, so that what it used counts as delivered.
 */
export const settle = (m: Meter, charge: number, used: number, isGiven: boolean, isAccepted: boolean): void => {
  if (isGiven || used > charge) m.level = Math.min(Math.max(m.level, burst(m)), m.level + charge - used)
  m.recent = Math.max(0, m.recent + used - charge)
  if (isLate(m)) {
    m.held -= charge
    m.sum += used
  } else {
    m.sum += used - charge
    if (!isAccepted) m.rejected += charge - used
  }
}

/** A charge that was counted as in flight was spent. */
export const spend = (m: Meter, charge: number): void => {
  m.held -= charge
  m.sum += charge
}

/** The rate may now grow from `floor` over `peak`. */
export const restart = (m: Meter, peak: number, phase: number): void => {
  m.peak = Math.min(m.limit, peak)
  m.floor = floorPart * m.peak
  m.phase = phase
  m.period = periodOf(m)
  m.level = Math.min(m.level, burst(m))
}

/** Another limit. A share that was the whole stays the whole. */
export const setLimit = (m: Meter, limit: number): void => {
  const isWhole = m.peak >= m.limit
  m.limit = limit
  if (isWhole) m.floor = m.peak = limit
  m.level = Math.min(m.level, burst(m))
}

/** The limit is not known any more. A share that was measured stays. */
export const forget = (m: Meter): void => {
  m.burst = undefined
  setLimit(m, Infinity)
}

/** One call a period: at a rate of nothing no call would go out to find a better one. */
export const leastRate = (m: Meter): number => m.mean / longestPeriod

/** A rate in use where none was known: what was delivered in the last minute, or one call a period. */
export const pin = (m: Meter, now: number): void => {
  if (m.peak === Infinity && m.mean > 0) restart(m, Math.max(recentRate(m, now), leastRate(m)), 0)
}
