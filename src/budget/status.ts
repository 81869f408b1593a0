/**
 * A pool as it stands, in plain numbers.
 */
import * as Cap from "../admission/cap.ts"
import type * as Law from "../admission/law.ts"
import * as Meter from "../admission/meter.ts"
import * as Limits from "../Limits.ts"
import type { DimensionStatus, PoolStatus } from "./models.ts"
import type { Pool } from "./pool.ts"

/** Waiters that a status lists. */
const listed = 32

export const of = (pool: Pool): PoolStatus => {
  const { gate } = pool.law
  const left = gate.until - pool.now()
  const waiting = pool.waiting(listed)
  return {
    dimensions: dimensionsOf(pool.law, pool.now()),
    inFlight: pool.inFlight,
    allowed: pool.allowed,
    queued: pool.queued,
    waiting: waiting.map(({ dimension, expectedMillis, waiter }) => ({
      agent: waiter.agent,
      priority: waiter.priority,
      charge: pool.limited(waiter.charge),
      waitedMillis: pool.waitedBy(waiter),
      expectedMillis,
      dimension
    })),
    pause: left > 0 ? { reason: gate.reason, leftMillis: left } : undefined,
    binding: waiting[0]?.dimension
  }
}

/** Of each dimension the tighter of what the user states and what the provider has. */
export const dimensionsOf = (law: Law.Pool, now: number): Limits.PerDimension<DimensionStatus> => {
  const result: { [D in Limits.Dimension]?: DimensionStatus } = {}
  for (const dimension of Limits.dimensions) {
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
  const copy = { ...cap, cells: [] }
  Cap.advance(copy, now)
  const { capacity, rate } = cap.rule
  return { level: copy.level, capacity, perSecond: rate * 1_000, limitPerSecond: rate * 1_000 }
}

const statusOfMeter = (meter: Meter.Meter, now: number): DimensionStatus => {
  const copy = { ...meter }
  Meter.advance(copy, now, meter.phase)
  return {
    level: copy.level,
    capacity: Meter.burst(copy),
    perSecond: Meter.rateAt(copy, now) * 1_000,
    limitPerSecond: meter.limit * 1_000
  }
}
