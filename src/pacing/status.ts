/**
 * The dimensions of a pool as they stand, in plain numbers.
 */
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Cap from "../admission/cap.ts"
import type * as Law from "./law.ts"
import * as Meter from "./meter.ts"

/**
 * One dimension of a pool as it stands. Amounts are in the dimension's unit.
 *
 * @category models
 * @since 0.1.0
 */
export interface DimensionStatus {
  /** What may be taken now; negative is debt. */
  readonly level: number
  readonly capacity: number
  /** The rate in use, per second; 0 for a quota. It is less than the limit while others spend the same limit. */
  readonly perSecond: number
  /** The limit per second: what the user states, else what the provider's headers do; `Infinity` while it is unknown. */
  readonly limitPerSecond: number
}

/** Of each dimension the tighter of what the user states and what the provider has. */
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
