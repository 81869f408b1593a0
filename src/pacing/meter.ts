/**
 * The provider's bucket of one dimension: its probable level, and our part of its refill.
 *
 * Other programs spend the same limit, so the rate in use follows a curve. After the bucket was found empty, the rate starts a
 * tenth below what was delivered, returns to it after one period, stays there for a while, and then grows faster and faster.
 * {@link refill} integrates that curve exactly, so it does not matter how often a meter is brought up to date.
 *
 * Times are milliseconds, rates are per millisecond. A meter is changed in place.
 */
import type { Dimension } from "../Limits.ts"

/** The amount delivered by a time: all that was sent and not rejected. */
export interface Mark {
  readonly at: number
  readonly given: number
}

/** The value of a header, and the sum of all charges sent by then. */
export interface Reference {
  readonly at: number
  readonly remaining: number
  readonly sum: number
}

/** A large call that the provider rejected for this dimension. */
export interface Lacked {
  readonly charge: number
  /** How many calls of about this size were rejected in a row. */
  readonly times: number
  /** Room is kept for it until then, or until a call of about its size is sent. */
  readonly until: number
}

/** A call that was rejected although room had been kept for it for a minute. */
export interface TooLarge {
  readonly charge: number
  /** No room is kept for calls of about its size until then. */
  readonly until: number
}

/** A bucket of unknown size holds at least the refill of this time. */
export const burstMillis = 3_000

/** A full bucket, with its limit and size if they are known. */
export const make = (dimension: Dimension, now: number, limit = Infinity, burst?: number) => ({
  dimension,
  /** The provider's limit; `Infinity` while it is unknown. */
  limit,
  /** The size of the full bucket, if that is known. */
  burst,
  /** The burst that headers had shown when a rejection taught that it is larger; undefined if none did. */
  shown: undefined as number | undefined,
  /** The largest burst that headers may teach. Stored states of earlier versions have it by this name. */
  mostBurst: Infinity,
  level: burst ?? limit * burstMillis,
  at: now,
  /** The curve of the rate in use: `floor` at phase -1, `peak` (the measured share) at phase 0, then beyond. */
  floor: limit,
  peak: limit,
  phase: 0,
  /** The length of one phase, set when the rate was cut. */
  period: maxPeriod,
  /** The largest share that was ever measured. */
  best: 0,
  /** The share that headers measured on average over about the last minute; undefined until they measured one. */
  lasting: undefined as number | undefined,
  /** The amount delivered in about the last minute, as a sum that decays. */
  recent: 0,
  since: now,
  /** The bound on the rate that the last ramp error set, and when that was. */
  ramp: Infinity,
  rampAt: now,
  /** The sum of all charges sent, and of those that were rejected or not accepted. */
  sum: 0,
  rejected: 0,
  /** Charges in flight that the provider only counts when they are spent. */
  held: 0,
  /** The mean charge, and the largest one, which decays slowly. */
  mean: 0,
  largest: 0,
  /** The amount that each admission leaves in the bucket, because our count never agrees exactly with the provider's. */
  reserve: 0,
  /** The exhaustion from which the share is measured. */
  mark: undefined as Mark | undefined,
  /** The amount delivered by the last exhaustion, and when that set the level to what was left. */
  emptied: -Infinity,
  fence: -Infinity,
  /** The amount delivered by the last rejection that was judged. */
  tested: 0,
  /** The last header that was used for measuring. */
  header: undefined as Reference | undefined,
  /** The most that headers under this limit showed; undefined until one did. */
  most: undefined as number | undefined,
  /** The level includes what calls sent up to this time used, because a header said what was left after them. */
  loweredAt: -Infinity,
  /** The last large call that was rejected, until one of about its size is accepted. */
  lacked: undefined as Lacked | undefined,
  /** The last call that no full bucket seems to hold, until one of about its size is accepted. */
  tooLarge: undefined as TooLarge | undefined
})

export type Meter = ReturnType<typeof make>

/**
 * A copy for events to change: onto a meter that nobody needs any longer, if there is one. Naming the properties is several times as fast as
 * a loop over them.
 */
export const copy = (m: Meter, onto = make(m.dimension, 0)): Meter => {
  onto.dimension = m.dimension
  onto.limit = m.limit
  onto.burst = m.burst
  onto.shown = m.shown
  onto.mostBurst = m.mostBurst
  onto.level = m.level
  onto.at = m.at
  onto.floor = m.floor
  onto.peak = m.peak
  onto.phase = m.phase
  onto.period = m.period
  onto.best = m.best
  onto.lasting = m.lasting
  onto.recent = m.recent
  onto.since = m.since
  onto.ramp = m.ramp
  onto.rampAt = m.rampAt
  onto.sum = m.sum
  onto.rejected = m.rejected
  onto.held = m.held
  onto.mean = m.mean
  onto.largest = m.largest
  onto.reserve = m.reserve
  onto.mark = m.mark
  onto.emptied = m.emptied
  onto.fence = m.fence
  onto.tested = m.tested
  onto.header = m.header
  onto.most = m.most
  onto.loweredAt = m.loweredAt
  onto.lacked = m.lacked
  onto.tooLarge = m.tooLarge
  return onto
}

/** Whether the provider counts the dimension when it is produced, and not when it admits the call. */
export const isLate = (meter: Meter): boolean => meter.dimension === "outputTokens"

/** The unit of growth: the limit, or the largest share if no limit is known. */
const unit = (m: Meter): number => (m.limit < Infinity ? m.limit : Math.max(m.best, m.peak))

/** Growth in the first period beyond the measured share, as a part of its unit. It grows with the cube of the time, as CUBIC (RFC 9438). */
const growth = 0.03

/** The rate in use at a phase, without the limit. */
const curve = (m: Meter, phase: number): number =>
  m.peak + (phase < 0 ? m.peak - m.floor : growth * unit(m)) * phase ** 3

/** Whether the rate in use is the limit, as it is for a pool whose share is all of it. Then no curve must be computed. */
const isFlat = (m: Meter): boolean => m.peak === Infinity || (m.peak >= m.limit && m.phase >= 0)

/** The rate in use. */
export const rate = (m: Meter): number => (isFlat(m) ? m.limit : Math.min(m.limit, curve(m, m.phase)))

/** Growth per minute after a ramp error. OpenAI asks for at most 50 % in 15 minutes above some size; Anthropic states no figure. */
const rampGrowth = 1.4

/** The rate in use, within the growth that the provider allows after a ramp error. */
export const rateAt = (m: Meter, now: number): number =>
  Math.min(rate(m), m.ramp * rampGrowth ** ((now - m.rampAt) / 60_000))

/** The antiderivative of the curve. */
const area = (m: Meter, phase: number): number =>
  m.peak * phase + ((phase < 0 ? m.peak - m.floor : growth * unit(m)) * phase ** 4) / 4

/** The phase at which the curve reaches the limit. */
const phaseOfLimit = (m: Meter): number => Math.cbrt((m.limit - m.peak) / (growth * unit(m)))

/** The amount refilled in the next `millis`, if the phase does not pass `maxPhase`. */
const refill = (m: Meter, millis: number, maxPhase: number): number => {
  const to = m.phase + millis / m.period
  if (isFlat(m) && m.ramp === Infinity) return m.period * (m.limit * (to - m.phase))
  const flatFrom = Math.min(Math.max(m.phase, Math.min(maxPhase, phaseOfLimit(m))), to)
  const flat = Math.min(m.limit, curve(m, flatFrom))
  const sum = m.period * (area(m, flatFrom) - area(m, m.phase) + flat * (to - flatFrom))
  return m.ramp === Infinity ? sum : Math.min(sum, millis * rateAt(m, m.at))
}

/** While growth is bounded, the bucket holds the refill of this time. */
const rampBurstMillis = 100

/**
 * The size of the full bucket. If that is not known, it is at least the largest charge taken. While the provider bounds growth,
 * refill is hardly saved up.
 */
export const burst = (m: Meter, now = m.at): number => {
  const whole = m.burst ?? Math.max(burstMillis * Math.min(m.limit, m.peak), m.largest, m.lacked?.charge ?? 0)
  return m.ramp === Infinity ? whole : Math.min(whole, Math.max(m.mean, rampBurstMillis * rateAt(m, now)))
}

/** Whether a charge is about as large as that of the large call that was rejected. */
export const isAsLarge = ({ lacked }: Meter, charge: number): boolean =>
  lacked !== undefined && charge >= lacked.charge / 2

/** Whether room is kept for a large call that was rejected. */
export const isKept = ({ lacked }: Meter, now: number): boolean => lacked !== undefined && now < lacked.until

/**
 * The level at which a charge is admitted. A charge that is larger than the bucket is admitted when the bucket is full, and leaves
 * a debt. A call may be sent up to `lag` later than calls that are admitted after it, so the refill of that time is kept back.
 */
const needed = (m: Meter, charge: number, lag: number): number => {
  const { lacked } = m
  // A smaller call leaves room for a large one that was rejected.
  const kept = lacked !== undefined && isKept(m, m.at) && !isAsLarge(m, charge) ? lacked.charge : 0
  return Math.min(charge + Math.max(m.reserve, rate(m) * lag) + kept, burst(m))
}

/** The size of the full bucket as headers have shown it. It is larger if a rejection taught that. */
export const shownBurst = (m: Meter): number | undefined =>
  m.burst === undefined || m.shown === undefined ? m.burst : Math.min(m.burst, Math.max(m.shown, m.most ?? 0))

/**
 * A rejection teaches at most this multiple of what headers have shown. All calls wait while the bucket fills for a large one, and some
 * providers reject a call that is larger than the full bucket however long it waits.
 */
const widest = 3

/**
 * A charge was rejected that needs a bucket which holds `min`. If the bucket was taken to be smaller, it was not full, because a full
 * bucket admits any charge. While small calls keep it from filling, headers never show all that it holds.
 */
export const widen = (m: Meter, min: number): void => {
  const { burst } = m
  const shown = shownBurst(m)
  if (burst === undefined || shown === undefined || (m.shown === undefined && min <= burst)) return
  m.shown ??= burst
  m.burst = Math.max(burst, Math.min(min + m.reserve, widest * shown, m.mostBurst))
}

/** The bucket is smaller by this amount than a rejection taught, but holds at least what headers have shown. */
export const narrow = (m: Meter, amount: number): void => {
  const shown = shownBurst(m)
  if (m.burst !== undefined && shown !== undefined) m.burst = Math.max(shown, m.burst - amount)
}

/** Whether calls use what is refilled; an unused rate does not grow. */
export const isUsed = (m: Meter): boolean => m.level <= burst(m) / 2

/** The mean time between calls at the rate in use. */
export const gap = (m: Meter): number => m.mean / rate(m)

/**
 * A period is the geometric mean of the gap between calls and this time. Frequent growth costs rejected calls, and rare growth
 * costs unused share; the sum of both costs is smallest between the two scales.
 */
const periodTau = 60_000
/** A period takes at least a few verdicts. */
const minPeriod = 1_000
/** The longest period, short enough that a change is found within 15 s. */
export const maxPeriod = 4_000
/** If no limit is known, a period takes at least the gap between two calls, up to this time. */
const maxGap = 60_000

/**
 * The length of a phase, see `periodTau`. If no limit is known, nothing else bounds the growth: with several periods between two calls, the
 * rate became a million times what was delivered.
 */
export const periodOf = (m: Meter): number => {
  const period = Math.min(maxPeriod, Math.max(minPeriod, Math.sqrt(gap(m) * periodTau)))
  return m.limit < Infinity ? period : Math.max(period, Math.min(maxGap, gap(m)))
}

/** Brings a meter up to a time. The phase does not pass `maxPhase`. */
export const advance = (m: Meter, now: number, maxPhase: number): void => {
  const elapsed = now - m.at
  if (elapsed <= 0) return
  m.recent *= Math.exp(-elapsed / recentMillis)
  if (m.peak < Infinity) {
    const reached = isUsed(m) ? maxPhase : m.phase
    m.level = Math.min(burst(m, now), m.level + refill(m, elapsed, reached))
    m.phase = Math.max(m.phase, Math.min(m.phase + elapsed / m.period, reached))
  }
  m.at = now
}

/** A copy at a later time, if the share does not grow until then. */
export const at = (m: Meter, now: number): Meter => {
  const later = copy(m)
  advance(later, now, m.phase)
  return later
}

/** The amount that the bucket lacks to be full at a time. */
export const missing = (m: Meter, now: number): number => (m.peak === Infinity ? 0 : burst(m, now) - at(m, now).level)

/** Sums of fractions are not exact, so differences below a billionth of a charge are ignored. */
const rounding = 1e-9

/** Milliseconds until a charge fits; 0 if it fits now. The meter must be up to date. */
export const wait = (m: Meter, charge: number, maxPhase: number, lag = 0): number => {
  if (m.peak === Infinity || charge === 0) return 0
  const missing = needed(m, charge, lag) - m.level
  if (missing <= rounding * charge) return 0
  // An upper bound, because the curve only rises.
  let long = missing / rateAt(m, m.at)
  if (!isUsed(m)) return long
  let short = 0
  while (long - short > Math.max(0.5, long * rounding)) {
    const middle = (short + long) / 2
    if (refill(m, middle, maxPhase) < missing) short = middle
    else long = middle
  }
  return long
}

/** The recent rate is an average over a minute, because limits are stated per minute. */
const recentMillis = 60_000

/** The rate at which charges were delivered in about the last minute, and another charge if one is given. */
export const recentRate = (m: Meter, now: number, charge = 0): number =>
  (m.recent + charge) / recentMillis / -Math.expm1(-Math.max(1, now - m.since) / recentMillis)

/** A measurement over a longer time weighs no more than one over this time, because a bucket that fills up meanwhile gains nothing more. */
const maxMeasured = 10_000

/**
 * Averages the share over about the last minute. Each measurement errs by the size of a call, in either direction, so an average of
 * shares that were bounded by the limit would be too low.
 */
export const measure = (m: Meter, share: number, elapsed: number): void => {
  const { lasting = m.limit } = m
  m.lasting = Math.max(0, lasting - (share - lasting) * Math.expm1(-Math.min(elapsed, maxMeasured) / recentMillis))
}

/** The number of calls in the mean charge. */
const meanCalls = 64

/** Takes a charge. What exceeds the level becomes debt. */
export const take = (m: Meter, charge: number, calls: number): void => {
  m.level -= charge
  m.recent += charge
  if (isLate(m)) m.held += charge
  else m.sum += charge
  m.mean += (charge - m.mean) / Math.min(meanCalls, calls)
  m.largest = Math.max(m.largest * 0.999, charge)
  if (m.lacked !== undefined && isAsLarge(m, charge)) m.lacked = { ...m.lacked, until: -Infinity }
}

/**
 * Replaces a charge by the actual usage. `isGiven` is false if a header or an exhaustion has set the level since, so that it no
 * longer depends on the charge. If `isAccepted`, what the call used counts as delivered.
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

/** Counts a charge in flight as spent. */
export const spend = (m: Meter, charge: number): void => {
  m.held -= charge
  m.sum += charge
}

/** Right after a cut, the rate is this part of what was delivered. The rest refills the bucket, as room to grow. */
const floorPart = 0.9

/** Sets the measured share, and the phase from which the rate goes on. */
export const restart = (m: Meter, peak: number, phase: number): void => {
  m.peak = Math.min(m.limit, peak)
  m.floor = floorPart * m.peak
  m.phase = phase
  m.period = periodOf(m)
  m.level = Math.min(m.level, burst(m))
}

/** Sets another limit. A share that was the whole limit stays the whole limit. */
export const setLimit = (m: Meter, limit: number): void => {
  const isWhole = m.peak >= m.limit
  if (limit !== m.limit) m.lasting = undefined
  m.limit = limit
  if (isWhole) m.floor = m.peak = limit
  m.level = Math.min(m.level, burst(m))
}

/** Forgets the limit. A measured share stays; without one, the bucket is full, as that of a new pool, because nothing refills it. */
export const forget = (m: Meter): void => {
  m.burst = m.shown = undefined
  setLimit(m, Infinity)
  if (m.peak === Infinity) m.level = Infinity
}

/** One call per longest period: at a rate of 0, no call would find a better one. */
export const minRate = (m: Meter): number => m.mean / maxPeriod

/** Sets a rate if none is known: that of the last minute, and at least {@link minRate}. */
export const pin = (m: Meter, now: number): void => {
  if (m.peak === Infinity && m.mean > 0) restart(m, Math.max(recentRate(m, now), minRate(m)), 0)
}
