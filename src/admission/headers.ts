/**
 * A response says what is left: limit, level and share of each dimension.
 */
import { type Dimension, dimensions, type PerDimension } from "../limits/amounts.ts"
import type { Rule } from "../limits/rules.ts"
import { limitTo } from "./limits.ts"
import * as Meter from "./meter.ts"
import { bound, givenAt } from "./rates.ts"
import type { Pool, Ticket } from "./state.ts"

/** What a response says of one dimension: the limit per millisecond, what is left of it, and the step that this is rounded to. */
export interface Reading {
  readonly limit: number | undefined
  readonly remaining: number | undefined
  readonly roundedTo: number
}

export type Readings = PerDimension<Reading>

/** Limit, level and share from the headers of a response to a call. */
export const observe = (pool: Pool, ticket: Ticket | undefined, readings: Readings, now: number): void => {
  for (const dimension of dimensions) {
    const reading = readings[dimension]
    if (reading === undefined) continue
    if (ticket !== undefined && isExceeded(ticket, dimension, reading)) continue
    const meter = learnLimit(pool, dimension, reading, now)
    if (meter === undefined || ticket === undefined || reading.remaining === undefined) continue
    Meter.advance(meter, now, bound(pool, meter, now))
    learnLevel(pool, meter, ticket, reading.remaining, reading.roundedTo, now)
  }
  if (covers(pool, readings)) pool.opening = undefined
}

/** A call that is estimated to be larger than the limit by this factor is larger: estimates err by less. */
const certainly = 1.6

/** Whether a call is certainly larger than the limit: then it never fits, or the limit is none. It teaches nothing of others. */
export const isExceeded = ({ charge }: Ticket, dimension: Dimension, { limit = Infinity }: Reading): boolean =>
  charge[dimension] > certainly * limit * 60_000

/** Whether readings are of everything that providers limit: requests, and tokens of one kind or the other. */
const covers = (pool: Pool, readings: Readings): boolean =>
  pool.meters.every(({ dimension, limit }) => limit < Infinity || readings[dimension] !== undefined) ||
  (readings.requests !== undefined && (readings.tokens ?? readings.inputTokens) !== undefined)

/** Whether headers say that a bucket had room for a call, by more than their error. */
export const showsRoom = (meter: Meter.Meter, ticket: Ticket, readings: Readings | undefined): boolean => {
  const { remaining } = readings?.[meter.dimension] ?? {}
  return remaining !== undefined && remaining - meter.error >= ticket.charge[meter.dimension]
}

/** Whether headers say of everything that providers limit that there was room for a call. */
export const haveRoom = (pool: Pool, ticket: Ticket, readings: Readings): boolean =>
  covers(pool, readings) &&
  pool.meters.every((meter) => readings[meter.dimension] === undefined || showsRoom(meter, ticket, readings))

const learnLimit = (
  pool: Pool,
  dimension: Dimension,
  { limit, remaining = 0 }: Reading,
  now: number
): Meter.Meter | undefined => {
  let meter = pool.meters.find((each) => each.dimension === dimension)
  if (limit === undefined) return meter
  if (meter === undefined) pool.meters.push((meter = Meter.make(dimension, now)))
  const isNew = meter.limit === Infinity
  // The burst that headers of a larger limit taught is not this one's.
  if (limit < meter.limit && pool.caps[dimension] === undefined) meter.burst = undefined
  Meter.setLimit(meter, limit)
  // What is left of a bucket can be had at once, unless that was tried and rejected.
  meter.burst = Math.max(meter.burst ?? 0, Math.min(remaining, meter.mostBurst)) || undefined
  if (isNew) meter.level = Math.min(remaining, Meter.burst(meter))
  const share = pool.shares[dimension]
  if (share !== undefined) limitTo(pool, dimension, shareOf(meter, share), now)
  return meter
}

/** The user's part of a limit that headers name. */
const shareOf = (meter: Meter.Meter, share: number): Rule => {
  const rate = meter.limit * share
  const capacity = Meter.burst(meter) * share
  const provider = { rate: meter.limit, burst: Meter.burst(meter) }
  return { capacity, rate, most: Math.max(capacity, rate * 60_000), window: undefined, quota: false, share, provider }
}

const learnLevel = (
  pool: Pool,
  meter: Meter.Meter,
  ticket: Ticket,
  remaining: number,
  roundedTo: number,
  now: number
): void => {
  const given = givenAt(pool, meter, ticket)
  const { header, mark } = meter
  if (given === undefined || meter.peak === Infinity || now < pool.distrustUntil) return
  if ((header !== undefined && ticket.at < header.at) || (mark !== undefined && ticket.at < mark.at)) return
  const sum = given + (Meter.isLate(meter) ? 0 : ticket.charge[meter.dimension])
  const least = Math.max(0, remaining - (roundedTo > 1 ? roundedTo / 2 : 0))
  if (Meter.isLate(meter)) {
    // What is in flight is spent while the bucket refills: it is ours only for as far as the bucket would hold it now.
    if (least < meter.level) meter.level = least
    else raise(meter, least - meter.held)
  } else {
    const level = least - (meter.sum - sum) + Meter.rate(meter) * (now - ticket.at)
    if (level < meter.level) {
      meter.level = level
      meter.loweredAt = ticket.at
    } else raise(meter, level)
  }
  if (header === undefined) meter.header = { at: ticket.at, remaining, sum }
  else learnSlope(pool, meter, header, { at: ticket.at, remaining, sum }, roundedTo)
}

/** Part of the way to a level that headers say is higher; lower ones hold at once. What they promise may be gone. */
const levelGain = 0.2

/** What headers promise beyond our own count may be gone, so that is believed by and by; a debt they replace at once. */
const raise = (meter: Meter.Meter, level: number): void => {
  if (level <= meter.level) return
  meter.level = Math.max(meter.level, Math.min(0, level))
  meter.level = Math.min(Meter.burst(meter), meter.level + levelGain * (level - meter.level))
}

/** The rate that a stated share reserves for this budget; 0 without a share. */
export const entitled = ({ caps }: Pool, { dimension, limit }: Meter.Meter): number => {
  const { share = 1 } = caps[dimension]?.rule ?? {}
  return share < 1 ? share * limit : 0
}

/** The share is measured by headers over at least this time, and corrected by this part of the difference. */
const slopeMillis = 1_000
const slopeGain = 0.4
/** Headers lower the rate at most to this part of the limit: to nothing, and no call would go out to see more. */
const leastSlope = 1 / 50
/** How fast an error of headers is forgotten, for each measure of the share. */
const errorDecay = 0.97

/** What the bucket got between two headers, and what we took of it: the rest of the refill is ours. */
const learnSlope = (
  pool: Pool,
  meter: Meter.Meter,
  from: Meter.Reference,
  to: Meter.Reference,
  roundedTo: number
): void => {
  const rate = Meter.rate(meter)
  const elapsed = to.at - from.at
  if (elapsed < Math.max(slopeMillis, (4 * meter.mean) / rate, (10 * roundedTo) / meter.limit)) return
  const gained = to.remaining - from.remaining + to.sum - from.sum
  // More than the limit refills is the error of old headers, and may be missing in the next ones; or a window began anew.
  const isFull = to.remaining > 0.9 * Meter.burst(meter)
  meter.error = Math.max(errorDecay * meter.error, isFull ? 0 : gained - meter.limit * elapsed - roundedTo)
  const slope = isFull ? meter.limit : Math.min(meter.limit, Math.max(0, gained + meter.error) / elapsed)
  Meter.restart(meter, Math.max(meter.limit * leastSlope, entitled(pool, meter), rate + slopeGain * (slope - rate)), 0)
  meter.header = to
}
