/**
 * The provider rejected a call, a 429: why, and what follows.
 *
 * `reject` judges by the provider's code (a ramp error), then by headers, then by sequential tests over what else was accepted
 * and rejected. An isolated rejection delays its own call and nothing else. `exhaust` is what an empty bucket costs: the rate
 * becomes what was delivered since the last exhaustion, and grows back.
 */
import { type Charge, dimensions } from "../limits/amounts.ts"
import * as Gate from "./gate.ts"
import { end } from "./ends.ts"
import { entitled, haveRoom, isExceeded, observe, type Readings, showsRoom } from "./headers.ts"
import * as Meter from "./meter.ts"
import { alarmScore, furthest, givenAt, meanWith, pendingCalls, verdictMillis } from "./rates.ts"
import type { Pool, Ticket } from "./pacer.ts"
import * as Verdicts from "./verdicts.ts"
import type { Verdict } from "./verdicts.ts"
import * as Window from "./window.ts"

/** What a rejection says besides its reason. */
export interface Rejection {
  /** Whether the provider says that usage grows too fast. */
  readonly isRamp: boolean
  readonly retryAfter: number | undefined
  readonly readings: Readings | undefined
  /** What the provider charges for it. */
  readonly used: Charge
}

/** The provider rejected a call. */
export const reject = (pool: Pool, ticket: Ticket, rejection: Rejection, now: number): Verdict => {
  const { readings, retryAfter } = rejection
  pool.rejectMillis = meanWith(pool.rejectMillis, ticket, now)
  // A provider that rejects calls works.
  if (pool.gate.reason === "overload") pool.gate = Gate.open(pool.gate, ticket.at)
  end(pool, ticket, rejection.used, false, now)
  if (readings !== undefined) observe(pool, ticket, readings, now)
  if (rejection.isRamp) return slowDown(pool, ticket, retryAfter, now)
  const trusted = now >= pool.distrustUntil ? readings : undefined
  const shown = trusted && judgeByHeaders(pool, ticket, retryAfter, trusted, now)
  return shown ?? judgeByTests(pool, ticket, retryAfter, trusted, now)
}

/** The verdict of headers: the call is larger than the limit, or than what was left. Undefined if they show neither. */
const judgeByHeaders = (
  pool: Pool,
  ticket: Ticket,
  retryAfter: number | undefined,
  readings: Readings,
  now: number
): Verdict | undefined => {
  for (const each of dimensions) {
    const reading = readings[each]
    if (reading !== undefined && isExceeded(ticket, each, reading)) return "impossible"
  }
  for (const meter of pool.meters) {
    const { remaining = Infinity, roundedTo = 1 } = readings[meter.dimension] ?? {}
    if (remaining < ticket.charge[meter.dimension] + roundedTo / 2) {
      exhaust(pool, meter, ticket, retryAfter, remaining, now)
      return "exhausted"
    }
  }
  return undefined
}

/** Headers that showed room which did not exist are ignored for this time. */
const distrustMillis = 30_000

/** The verdict of the sequential tests. `readings` are headers that are trusted. */
const judgeByTests = (
  pool: Pool,
  ticket: Ticket,
  retryAfter: number | undefined,
  readings: Readings | undefined,
  now: number
): Verdict => {
  const { gate } = pool
  const hasRoom = readings !== undefined && haveRoom(pool, ticket, readings)
  if (pool.opening === undefined && gate.misses < 2 && ticket.at > gate.fence) {
    const pending = pendingCalls(pool)
    const rates = { random: pool.random, score: alarmScore(pool), pending }
    pool.window = Window.rejected(pool.window, ticket, rates, Math.max(0, pool.inFlight - pending))
  }
  if (ticket.at <= gate.fence) return "exhausted"
  if (!isAlarm(pool, ticket, hasRoom)) return "isolated"
  const meter = culprit(pool, ticket, readings, now)
  if (readings !== undefined) {
    pool.distrustUntil = now + distrustMillis
    if (hasRoom && meter.dimension === "requests") smooth(meter)
  }
  exhaust(pool, meter, ticket, retryAfter, undefined, now)
  return "exhausted"
}

/** The rate of rejections that is worth a reaction: an empty bucket rejects 0.3 to 1 of all calls. */
const worthActing = 0.3
/** The random rate of rejections while nothing is known, at least. */
const openingRandom = 0.02

/** Whether the bucket was empty, by the sequential test. */
const isAlarm = (pool: Pool, ticket: Ticket, hasRoom: boolean): boolean => {
  const { bucketTest, opening } = pool
  const calls = Math.max(0, ticket.number - bucketTest.seen - 1)
  let accepted = calls
  for (const meter of pool.meters) {
    const charge = ticket.charge[meter.dimension]
    const given = givenAt(pool, meter, ticket)
    if (given === undefined) continue
    // In calls of this size: a hundred small calls that were accepted say little about a large one.
    if (charge > 0 && !Meter.isLate(meter)) accepted = Math.min(accepted, Math.max(0, given - meter.tested) / charge)
    meter.tested = Math.max(meter.tested, given)
  }
  const certain = hasRoom ? calls : ticket.safe - pool.learnedFrom
  if (certain > 0) {
    const isRandom = accepted >= 1 && (hasRoom || ticket.isSafe)
    pool.random = Verdicts.learn(pool.random, certain, isRandom, Verdicts.minRandom)
    pool.learnedFrom = Math.max(pool.learnedFrom, ticket.safe)
  }
  const p = opening === undefined ? pool.random : Math.max(pool.random, openingRandom)
  const pending = pendingCalls(pool)
  const { score, seen, surplus } = Verdicts.failed(bucketTest, ticket.number, accepted, { p, q: worthActing, pending })
  const isAlarm = score >= threshold(pool)
  pool.bucketTest = { score: isAlarm ? 0 : score, surplus, seen }
  return isAlarm
}

/** Above the measured share, exhaustions are expected: one false alarm in this many periods is accepted. */
const probingPeriods = 3
/** While nothing is known, three rejections in a row are an alarm. */
const openingScore = 6

const threshold = (pool: Pool): number => {
  if (pool.opening !== undefined) return openingScore
  const meter = furthest(pool)
  return meter !== undefined && meter.phase > 0
    ? alarmScore(pool, probingPeriods * Meter.periodOf(meter))
    : alarmScore(pool)
}

/** A dimension without a known limit is suspected if no other is used by more than this part. */
const suspectedPart = 0.7

/**
 * The dimension whose bucket was probably empty: the one that is used most, relative to its rate. A dimension whose headers
 * show room is not suspected. If all show room, requests came too fast.
 */
const culprit = (pool: Pool, ticket: Ticket, readings: Readings | undefined, now: number): Meter.Meter => {
  let found = pool.meters.find(({ dimension }) => dimension === "requests") ?? pool.meters[0]!
  let max = -1
  for (const meter of pool.meters) {
    const { dimension } = meter
    if (ticket.charge[dimension] === 0 || showsRoom(meter, ticket, readings)) continue
    const part = meter.peak === Infinity ? suspectedPart : Meter.recentRate(meter, now) / Meter.rate(meter)
    if (part > max) {
      max = part
      found = meter
    }
  }
  return found
}

/** Providers may enforce 60 requests a minute as one a second, whatever headers say. Then a burst is this much of the refill. */
const smoothedMillis = 5_000

/** Headers showed room for requests that were rejected: from now on requests are spaced evenly. */
const smooth = (meter: Meter.Meter): void => {
  meter.mostBurst = smoothedMillis * meter.limit
  meter.burst = Math.min(Meter.burst(meter), meter.mostBurst)
}

/** The reserve is at most what the best share refills in this time, or one mean call. */
const reserveMillis = 1_000
/** Waits between probes of an empty bucket: doubled from the first up to the longest, which exceeds most blackouts. */
const firstProbeMillis = 1_000
const maxProbeMillis = 8_000

/** The bucket of a meter was empty when this call was sent. `remaining` was left in it, if that is known. */
const exhaust = (
  pool: Pool,
  meter: Meter.Meter,
  ticket: Ticket,
  retryAfter: number | undefined,
  remaining: number | undefined,
  now: number
): void => {
  const charge = ticket.charge[meter.dimension]
  const given = givenAt(pool, meter, ticket)
  if (ticket.at <= meter.fence || given === undefined) return
  // Less than the charge was left, on average half of it: so the measure is unbiased for large calls.
  const left = remaining ?? charge / 2
  const misses = given - meter.emptied < charge / 2 ? pool.gate.misses + 1 : 1
  pool.gate = { ...pool.gate, misses, reason: "rateLimit", fence: now }
  meter.fence = now
  meter.emptied = given
  endOpening(pool, now)
  Meter.pin(meter, now)
  measure(pool, meter, { at: ticket.at, given: given + left })
  meter.level = Math.min(meter.level, left)
  if (misses === 1) {
    const max = Math.max(meter.mean, reserveMillis * Math.max(meter.best, meter.limit < Infinity ? meter.limit : 0))
    meter.reserve = Math.min(Meter.burst(meter) / 3, max, Math.max(2 * meter.reserve, meter.mean / 2))
    return
  }
  const pause = Math.min(maxProbeMillis, firstProbeMillis * 2 ** (misses - 2))
  const first = Math.min(retryAfter ?? pause, pause)
  pool.gate = Gate.close(pool.gate, "rateLimit", now + (misses === 2 ? first : pause))
}

/**
 * Ends the opening. The last doubling was too fast by a factor of up to two, or by more if the bucket began full; what was
 * delivered bounds the rate. Nothing more goes out until the verdicts on the calls in flight are in.
 */
const endOpening = (pool: Pool, now: number): void => {
  if (pool.opening === undefined) return
  const rate = pool.opening.last / verdictMillis(pool) / 2
  for (const meter of pool.meters) {
    // Skip dimensions without samples.
    if (meter.mean === 0) continue
    const delivered = Math.min(rate * meter.mean, Meter.recentRate(meter, now))
    Meter.restart(meter, Math.max(delivered, Meter.minRate(meter)), 0)
    meter.floor = meter.peak
  }
  pool.opening = undefined
  pool.gate = Gate.pause(pool.gate, "rateLimit", now + verdictMillis(pool))
}

/** One exhaustion keeps at least this part of a measured rate; two of them keep a quarter. */
const minPart = 0.5
/** The same for a share that the user states, because others cut theirs, too: CUBIC's factor (RFC 9438). */
const minPartOfShare = 0.7
/** A share is measured over at least this many calls. */
const spanCalls = 6

/** Sets the share to what was delivered since the last exhaustion. If nothing was accepted since, that measures nothing. */
const measure = (pool: Pool, meter: Meter.Meter, here: Meter.Mark): void => {
  const rate = Meter.rate(meter)
  const from = pool.gate.misses > 1 ? undefined : meter.mark
  let peak = Math.min(meter.peak, rate)
  if (from !== undefined) {
    const span = here.at - from.at
    if (span >= (spanCalls * meter.mean) / rate) {
      const isGuess = meter.limit === Infinity && meter.best === 0
      const part = entitled(pool, meter) > 0 ? minPartOfShare : minPart
      const min = isGuess ? Meter.minRate(meter) : rate * part
      peak = Math.min(rate, Math.max((here.given - from.given) / span, min))
      meter.best = Math.max(meter.best, peak)
    }
  }
  if (from === undefined || peak < rate) meter.mark = here
  Meter.restart(meter, peak, -1)
}

/** The pause after a ramp error without a retry-after. */
const rampPause = 5_000

/** Usage grew too fast: bounds growth, starting from what was delivered in the last minute. */
const slowDown = (pool: Pool, ticket: Ticket, retryAfter: number | undefined, now: number): Verdict => {
  if (ticket.at <= pool.rampAt) return "ramp"
  for (const meter of pool.meters) {
    meter.level = Math.min(meter.level, 0)
    meter.fence = now
    if (meter.dimension === "requests" || meter.mean === 0) continue
    const known = meter.ramp === Infinity ? 0 : 0.8 * Meter.rateAt(meter, now)
    meter.ramp = Math.max(Meter.recentRate(meter, now), known, meter.mean / Meter.periodOf(meter))
    meter.rampAt = now
    Meter.pin(meter, now)
  }
  pool.rampAt = now
  pool.gate = Gate.close({ ...pool.gate, misses: 2, fence: now }, "ramp", now + (retryAfter ?? rampPause))
  return "ramp"
}
