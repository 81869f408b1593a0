/**
 * The state of the dimensions of a pool, in plain numbers.
 */
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Cap from "../admission/cap.ts"
import type * as Law from "./law.ts"
import * as Meter from "./meter.ts"

/**
 * The state of one dimension of a pool. Amounts are in the dimension's unit.
 *
 * @category models
 * @since 0.1.0
 */
export interface DimensionStatus {
  /** What can be taken now; a negative level is debt. */
  readonly level: number
  readonly capacity: number
  /** The rate in use, per second; 0 for a quota. It is below the limit while other programs spend the same limit. */
  readonly perSecond: number
  /** The limit per second: the user's, or the one that headers name; `Infinity` while it is unknown. */
  readonly limitPerSecond: number
}

/** For each dimension, the tighter of the user's limit and the provider's. */
export const dimensionsOf = (law: Law.Pacer, now: number): Amounts.PerDimension<DimensionStatus> => {
  const result: { [D in Limits.Dimension]?: DimensionStatus } = {}
  for (const dimension of Amounts.dimensions) {
    const cap = law.caps[dimension]
    const meter = law.meters.find((each) => each.dimension === dimension && each.limit < Infinity)
    const stated = cap === undefined ? undefined : statusOfCap(cap, now)
    const learned = meter === undefined ? undefined : statusOfMeter(meter, now)
    if (stated === undefined && learned === undefined) continue
    const one = stated ?? learned!
    const other = learned ?? stated!
    result[dimension] = {
      level: Math.min(one.level, other.level),
      capacity: Math.min(one.capacity, other.capacity),
      perSecond: Math.min(one.perSecond, other.perSecond),
      limitPerSecond: Math.min(one.limitPerSecond, other.limitPerSecond)
    }
  }
  return result
}

const statusOfCap = (cap: Cap.Cap, now: number): DimensionStatus => {
  const copy = Cap.copy(cap)
  Cap.advance(copy, now)
  const { capacity, rate } = cap.rule
  return { level: copy.level, capacity, perSecond: rate * 1_000, limitPerSecond: rate * 1_000 }
}

const statusOfMeter = (meter: Meter.Meter, now: number): DimensionStatus => {
  const copy = { ...meter }
  Meter.advance(copy, now, meter.phase)
  return {
    level: copy.level,
    capacity: Meter.burst(meter),
    perSecond: Meter.rateAt(copy, now) * 1_000,
    limitPerSecond: meter.limit * 1_000
  }
}
