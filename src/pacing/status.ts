/**
 * The state of the dimensions of a pool, in plain numbers.
 */
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import type { Rule } from "../domain/rules.ts"
import * as Cap from "../admission/cap.ts"
import type * as Pacer from "./pacer.ts"
import * as Meter from "./meter.ts"
import { meterOf } from "./state.ts"

/**
 * The state of one dimension of a pool. Amounts are in the dimension's unit.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface DimensionStatus {
  /** The amount that can be taken now; a negative level is debt. */
  readonly level: number
  readonly capacity: number
  /** The rate in use, per second; 0 for a quota. It is below the limit while other programs spend the same limit. */
  readonly perSecond: number
  /** The limit per second: the user's, or the one that headers name; `Infinity` while it is unknown. */
  readonly limitPerSecond: number
}

/**
 * A figure that is known of a provider's limits, where it comes from, and how old it is.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface KnownFigure {
  /** A limit, or the part of one that is left to this budget, per second (a quota: in all); or how many calls may be in flight. */
  readonly what: "limit" | "share" | "inFlight"
  /** The dimension of a limit or a share. */
  readonly dimension: Limits.Dimension | undefined
  readonly value: number
  /** Its source: the options, headers, or the rejections of calls. */
  readonly from: "stated" | "headers" | "rejections"
  /** The time since it was last measured; undefined if that is not known, as for what is stated or was learned by another budget. */
  readonly ageMillis: number | undefined
}

/** Lists what is known of the limits of a pool. */
export const knownOf = (law: Pacer.Pacer, now: number): ReadonlyArray<KnownFigure> => {
  const { burst, size } = law.window
  const known = Amounts.dimensions.flatMap((dimension): ReadonlyArray<KnownFigure> => {
    const rule = law.shares[dimension] === undefined ? law.caps[dimension]?.rule : undefined
    const meter = meterOf(law, dimension)
    return [
      ...(rule === undefined ? [] : [statedBy(dimension, rule)]),
      ...(meter === undefined ? [] : learnedBy(meter, rule !== undefined, now))
    ]
  })
  if (size === Infinity) return known
  const inFlight = { what: "inFlight", dimension: undefined, value: size, from: "rejections" } as const
  return [...known, { ...inFlight, ageMillis: ageOf(burst?.knownAt, now) }]
}

/** The time since a measurement; undefined if there was none here. */
const ageOf = (at: number | undefined, now: number): number | undefined =>
  at === undefined || at === -Infinity ? undefined : Math.max(0, now - at)

const statedBy = (dimension: Limits.Dimension, { capacity, quota, rate }: Rule): KnownFigure => ({
  what: "limit",
  dimension,
  value: quota ? capacity : rate * 1_000,
  from: "stated",
  ageMillis: undefined
})

const learnedBy = (meter: Meter.Meter, isStated: boolean, now: number): ReadonlyArray<KnownFigure> => {
  const { dimension, fence, header, limit, peak } = meter
  const known: Array<KnownFigure> = []
  if (limit < Infinity && (!isStated || header !== undefined)) {
    known.push({ what: "limit", dimension, value: limit * 1_000, from: "headers", ageMillis: ageOf(header?.at, now) })
  }
  if (peak < limit) {
    const from = header === undefined || fence > header.at ? "rejections" : "headers"
    const ageMillis = ageOf(Math.max(fence, header?.at ?? -Infinity), now)
    known.push({ what: "share", dimension, value: Meter.rateAt(meter, now) * 1_000, from, ageMillis })
  }
  return known
}

/** For each dimension, the tighter of the user's limit and the provider's. */
export const dimensionsOf = (law: Pacer.Pacer, now: number): Amounts.PerDimension<DimensionStatus> => {
  const result: { [D in Limits.Dimension]?: DimensionStatus } = {}
  for (const dimension of Amounts.dimensions) {
    const cap = law.caps[dimension]
    const meter = law.meters.find((each) => each.dimension === dimension && each.limit < Infinity)
    const stated = cap && statusOfCap(cap, now)
    const learned = meter && statusOfMeter(meter, now)
    const found = stated !== undefined && learned !== undefined ? tighter(stated, learned) : (stated ?? learned)
    if (found !== undefined) result[dimension] = found
  }
  return result
}

const tighter = (one: DimensionStatus, other: DimensionStatus): DimensionStatus => ({
  level: Math.min(one.level, other.level),
  capacity: Math.min(one.capacity, other.capacity),
  perSecond: Math.min(one.perSecond, other.perSecond),
  limitPerSecond: Math.min(one.limitPerSecond, other.limitPerSecond)
})

const statusOfCap = (cap: Cap.Cap, now: number): DimensionStatus => {
  const { capacity, rate } = cap.rule
  return { level: Cap.left(cap, now).level, capacity, perSecond: rate * 1_000, limitPerSecond: rate * 1_000 }
}

const statusOfMeter = (meter: Meter.Meter, now: number): DimensionStatus => {
  const current = Meter.at(meter, now)
  return {
    level: current.level,
    capacity: Meter.burst(meter),
    perSecond: Meter.rateAt(current, now) * 1_000,
    limitPerSecond: meter.limit * 1_000
  }
}
