/**
 * What a pool has learned of the provider's limits, to be kept and given to another one later.
 *
 * Limits that headers named, and the share of them that was measured. What calls in flight did is not part of it.
 */
import { type Dimension, dimensions, type PerDimension } from "../domain/amounts.ts"
import * as Cap from "../admission/cap.ts"
import * as Law from "./law.ts"
import * as Meter from "./meter.ts"

/** What was learned of one dimension. Rates are per millisecond. */
export interface Remembered {
  /** The provider's limit; undefined where no header named it. */
  readonly limit: number | undefined
  /** What the bucket holds, where that is known. */
  readonly burst: number | undefined
  /** The rate in use; undefined where nothing was measured. */
  readonly rate: number | undefined
  readonly level: number
  /** The mean charge, which says how soon more is tried. */
  readonly mean: number
}

export interface Memory {
  readonly dimensions: PerDimension<Remembered>
  /** The calls that may be in flight, where the provider was found to limit them. */
  readonly window: number | undefined
}

const finite = (value: number): number | undefined => (value < Infinity ? value : undefined)

/** What a pool has learned up to now; undefined where that is nothing. */
export const recall = (pacer: Law.Pacer, now: number): Memory | undefined => {
  const dimensions: { [D in Dimension]?: Remembered } = {}
  const window = finite(pacer.window.size)
  let isEmpty = window === undefined
  for (const meter of pacer.meters) {
    const limit = finite(meter.limit)
    const { dimension } = meter
    const isGiven = pacer.caps[dimension] !== undefined && pacer.shares[dimension] === undefined
    const rate = meter.peak < meter.limit ? Meter.rateAt(meter, now) : undefined
    if ((limit === undefined || isGiven) && rate === undefined) continue
    isEmpty = false
    const { burst, level, mean } = meter
    dimensions[dimension] = { limit: isGiven ? undefined : limit, burst, rate, level, mean }
  }
  return isEmpty ? undefined : { dimensions, window }
}

/** What the provider's bucket lacks is not remembered for longer: its rate may be next to nothing. */
const maxRest = 600_000

/**
 * Gives a pool that has sent nothing what another had learned so long ago. The user's own limits stay; headers and rejections
 * correct the rest as they do in any pool.
 */
export const restore = (pacer: Law.Pacer, { dimensions, window }: Memory, elapsed: number, now: number): void => {
  const readings: { [D in Dimension]?: Law.Reading } = {}
  for (const [name, { burst, limit }] of Object.entries(dimensions)) {
    const dimension = name as Dimension
    const isGiven = pacer.caps[dimension] !== undefined
    if (limit !== undefined && !isGiven) readings[dimension] = { limit, remaining: burst, roundedTo: 1 }
    else if (!pacer.meters.some((meter) => meter.dimension === dimension)) pacer.meters.push(Meter.make(dimension, now))
  }
  // As if headers had said it.
  Law.observe(pacer, undefined, readings, now)
  for (const meter of pacer.meters) {
    const remembered = dimensions[meter.dimension]
    if (remembered === undefined) continue
    const { level, mean, rate } = remembered
    meter.mean = mean
    if (rate !== undefined) {
      Meter.restart(meter, rate, 0)
      if (meter.dimension !== "requests") pacer.opening = undefined
    }
    // What was used then has been refilled since.
    if (meter.peak < Infinity) meter.level = Math.min(Meter.burst(meter), level + Meter.rate(meter) * elapsed)
  }
  if (window !== undefined) {
    pacer.window = { ...pacer.window, size: window, high: window }
  }
}

// -----------------------------------------------------------------------------
// Pools that rest
// -----------------------------------------------------------------------------

/** What was used of the user's limit of one dimension. */
interface Used {
  /** What is left in the bucket; of a quota what was used, because that is what stays when the quota changes. */
  readonly amount: number
  /** What was admitted within the window, and when all of it has left; 0 without a window. */
  readonly recent: number
  readonly leaves: number
}

/** All that must be known of a pool that nobody uses, so that the next one of its name admits no more than it would have. */
export interface Rest {
  /** When it was written down. */
  readonly at: number
  /** From when on a new pool admits no more; `Infinity` where a quota was used. */
  readonly until: number
  /** What was learned; undefined where that is nothing. */
  readonly memory: Memory | undefined
  /** What the provider's buckets lack of limits that were not learned. */
  readonly levels: PerDimension<Remembered>
  readonly used: PerDimension<Used>
}

/** Writes down what a pool without calls has learned and used. */
export const rest = (pacer: Law.Pacer, now: number): Rest => {
  const used: { [D in Dimension]?: Used } = {}
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
    until = Math.max(until, now + Math.min(maxRest, missing / Meter.rateAt(meter, now)))
    levels[meter.dimension] = {
      limit: undefined,
      burst: undefined,
      rate: undefined,
      level: Meter.burst(meter, now) - missing,
      mean: meter.mean
    }
  }
  return { at: now, until, memory: recall(pacer, now), levels, used }
}

/** Lets a new pool go on where another of its name has come to rest. */
export const resume = (pacer: Law.Pacer, { at, levels, memory, used }: Rest, now: number): void => {
  const elapsed = Math.max(0, now - at)
  for (const dimension of dimensions) {
    const cap = pacer.caps[dimension]
    const spent = used[dimension]
    if (cap === undefined || spent === undefined) continue
    const level = cap.rule.quota ? cap.rule.capacity - spent.amount : spent.amount + cap.rule.rate * elapsed
    Cap.setLeft(cap, level, spent.recent, spent.leaves)
  }
  restore(pacer, { dimensions: { ...levels, ...memory?.dimensions }, window: memory?.window }, elapsed, now)
  // One that has sent nothing is full by whatever limits it is given next.
  pacer.sent = 1
  pacer.block = { at: now, sent: 1, before: 1 }
  if (pacer.opening !== undefined) pacer.opening = { ...pacer.opening, since: 1 }
}
