/**
 * The limits that a pool has learned, in a form that can be kept and given to another pool later: the limits that
 * headers named, and the shares that were measured. Nothing about calls in flight is part of it.
 */
import { type Dimension, dimensions, type PerDimension } from "../domain/amounts.ts"
import * as Cap from "../admission/cap.ts"
import * as Pacer from "./pacer.ts"
import * as Meter from "./meter.ts"
import { isStated } from "./state.ts"

/** The learned figures of one dimension. Rates are per millisecond. */
export interface Remembered {
  /** The provider's limit; undefined if no header named it. */
  readonly limit?: number | undefined
  /** The size of the full bucket as headers have shown it, if they have. */
  readonly burst?: number | undefined
  /** The rate in use; undefined if nothing was measured. */
  readonly rate?: number | undefined
  readonly level: number
  /** The mean charge, which decides how soon growth is tried. */
  readonly mean: number
}

export interface LearnedLimits {
  readonly dimensions: PerDimension<Remembered>
  /** The number of calls that may be in flight, if the provider was found to limit it. */
  readonly window: number | undefined
}

const finite = (value: number): number | undefined => (value < Infinity ? value : undefined)

/** Returns what a pool has learned; undefined if it has learned nothing. */
export const recall = (pacer: Pacer.Pacer, now: number): LearnedLimits | undefined => {
  const dimensions: { [D in Dimension]?: Remembered } = {}
  const window = finite(pacer.window.size)
  let isEmpty = window === undefined
  for (const meter of pacer.meters) {
    const limit = finite(meter.limit)
    const { dimension } = meter
    const isGiven = isStated(pacer, dimension) && pacer.shares[dimension] === undefined
    const rate = meter.peak < meter.limit ? Meter.rateAt(meter, now) : undefined
    if ((limit === undefined || isGiven) && rate === undefined) continue
    isEmpty = false
    const { level, mean } = meter
    const burst = Meter.shownBurst(meter)
    dimensions[dimension] = { limit: isGiven ? undefined : limit, burst, rate, level, mean }
  }
  return isEmpty ? undefined : { dimensions, window }
}

/** The deficit of a bucket is remembered for at most this long, because its rate may be close to 0. */
const maxDebtMillis = 600_000

/**
 * Gives a pool that has sent nothing what another one had learned `elapsed` ago. The user's own limits stay. Headers and
 * rejections correct the rest, as in any pool.
 */
export const restore = (
  pacer: Pacer.Pacer,
  { dimensions, window }: LearnedLimits,
  elapsed: number,
  now: number
): void => {
  const readings: { [D in Dimension]?: Pacer.Reading } = {}
  for (const [name, { burst, limit }] of Object.entries(dimensions)) {
    const dimension = name as Dimension
    const isGiven = isStated(pacer, dimension)
    if (limit !== undefined && !isGiven) readings[dimension] = { limit, remaining: burst, roundedTo: 1 }
    else if (!pacer.meters.some((meter) => meter.dimension === dimension)) pacer.meters.push(Meter.make(dimension, now))
  }
  // As if headers had named these limits.
  Pacer.observe(pacer, undefined, readings, now)
  for (const meter of pacer.meters) {
    const remembered = dimensions[meter.dimension]
    if (remembered === undefined) continue
    const { level, mean, rate } = remembered
    meter.mean = mean
    if (rate !== undefined) {
      Meter.restart(meter, rate, 0)
      if (meter.dimension !== "requests") pacer.opening = undefined
    }
    // The bucket has refilled since then.
    if (meter.peak < Infinity) meter.level = Math.min(Meter.burst(meter), level + Meter.rate(meter) * elapsed)
  }
  if (window !== undefined) {
    pacer.window = { ...pacer.window, size: window, high: window }
  }
}

// -----------------------------------------------------------------------------
// Closed pools
// -----------------------------------------------------------------------------

/** The used part of the user's limit of one dimension. */
interface Spent {
  /** The level of the bucket. For a quota: what was used of it, because that stays if the quota changes. */
  readonly amount: number
  /** The amount that counts in the window, and when all of that has left it; 0 without a window. */
  readonly recent: number
  readonly leaves: number
}

/** The state of an unused pool that keeps the next pool of its name from admitting more than this one would have. */
export interface PoolSnapshot {
  /** When it was written down. */
  readonly at: number
  /** When a new pool would admit no more than this one; `Infinity` if a quota was used. */
  readonly until: number
  /** The learned limits; undefined if there are none. */
  readonly memory: LearnedLimits | undefined
  /** The levels of the provider's buckets that are not full, also of limits that were not learned. */
  readonly levels: PerDimension<Remembered>
  readonly used: PerDimension<Spent>
}

/** Takes a snapshot of what a pool without calls has learned and used. */
export const snapshot = (pacer: Pacer.Pacer, now: number): PoolSnapshot => {
  const used: { [D in Dimension]?: Spent } = {}
  const levels: { [D in Dimension]?: Remembered } = {}
  let until = now
  for (const dimension of dimensions) {
    const cap = pacer.caps[dimension]
    if (cap === undefined) continue
    const left = Cap.left(cap, now)
    if (left.fullAt <= now && left.recent === 0) continue
    until = Math.max(until, left.fullAt, left.leaves)
    const { recent, leaves } = left
    used[dimension] = { amount: cap.rule.quota ? cap.rule.capacity - left.level : left.level, recent, leaves }
  }
  for (const meter of pacer.meters) {
    const missing = Meter.missing(meter, now)
    if (!(missing > 0)) continue
    until = Math.max(until, now + Math.min(maxDebtMillis, missing / Meter.rateAt(meter, now)))
    levels[meter.dimension] = { level: Meter.burst(meter, now) - missing, mean: meter.mean }
  }
  return { at: now, until, memory: recall(pacer, now), levels, used }
}

/** Lets a new pool continue from where another one of its name was left. */
export const resume = (pacer: Pacer.Pacer, { at, levels, memory, used }: PoolSnapshot, now: number): void => {
  const elapsed = Math.max(0, now - at)
  for (const dimension of dimensions) {
    const cap = pacer.caps[dimension]
    const spent = used[dimension]
    if (cap === undefined || spent === undefined) continue
    const level = cap.rule.quota ? cap.rule.capacity - spent.amount : spent.amount + cap.rule.rate * elapsed
    Cap.setLeft(cap, level, spent.recent, spent.leaves)
  }
  restore(pacer, { dimensions: { ...levels, ...memory?.dimensions }, window: memory?.window }, elapsed, now)
  // A pool that has sent nothing would start full again if its limits changed.
  pacer.sent = 1
  pacer.block = { at: now, sent: 1, before: 1 }
  if (pacer.opening !== undefined) pacer.opening = { ...pacer.opening, since: 1 }
}
