/**
 * What a pool has learned of the provider's limits, to be kept and given to another one later.
 *
 * Limits that headers named, and the share of them that was measured. What calls in flight did is not part of it.
 */
import type { Dimension, PerDimension } from "../limits/amounts.ts"
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
export const recall = (pool: Law.Pool, now: number): Memory | undefined => {
  const dimensions: { [D in Dimension]?: Remembered } = {}
  const window = finite(pool.window.size)
  let isEmpty = window === undefined
  for (const meter of pool.meters) {
    const limit = finite(meter.limit)
    const { dimension } = meter
    const isGiven = pool.caps[dimension] !== undefined && pool.shares[dimension] === undefined
    const rate = meter.peak < meter.limit ? Meter.rateAt(meter, now) : undefined
    if ((limit === undefined || isGiven) && rate === undefined) continue
    isEmpty = false
    const { burst, level, mean } = meter
    dimensions[dimension] = { limit: isGiven ? undefined : limit, burst, rate, level, mean }
  }
  return isEmpty ? undefined : { dimensions, window }
}

/**
 * Gives a pool that has sent nothing what another had learned so long ago. The user's own limits stay; headers and rejections
 * correct the rest as they do in any pool.
 */
export const restore = (pool: Law.Pool, { dimensions, window }: Memory, elapsed: number, now: number): void => {
  const readings: { [D in Dimension]?: Law.Reading } = {}
  for (const [name, { burst, limit }] of Object.entries(dimensions)) {
    const dimension = name as Dimension
    const isGiven = pool.caps[dimension] !== undefined
    if (limit !== undefined && !isGiven) readings[dimension] = { limit, remaining: burst, roundedTo: 1 }
    else if (!pool.meters.some((meter) => meter.dimension === dimension)) pool.meters.push(Meter.make(dimension, now))
  }
  // As if headers had said it.
  Law.observe(pool, undefined, readings, now)
  for (const meter of pool.meters) {
    const remembered = dimensions[meter.dimension]
    if (remembered === undefined) continue
    const { level, mean, rate } = remembered
    meter.mean = mean
    if (rate !== undefined) {
      Meter.restart(meter, rate, 0)
      if (meter.dimension !== "requests") pool.opening = undefined
    }
    // What was used then has been refilled since.
    if (meter.peak < Infinity) meter.level = Math.min(Meter.burst(meter), level + Meter.rate(meter) * elapsed)
  }
  if (window !== undefined) {
    pool.window.size = window
    pool.window.high = window
  }
}
