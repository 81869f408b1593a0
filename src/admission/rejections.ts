/**
 * The provider rejected a call, a 429: why, and what follows.
 *
 * A rejection is judged first: an isolated one delays its own call and nothing else. An exhausted bucket sets the rate in
 * use to what was delivered, which grows back.
 */
import { type Charge, dimensions } from "../limits/amounts.ts"
import * as Gate from "./gate.ts"
import { end } from "./ends.ts"
import { entitled, haveRoom, isExceeded, observe, type Readings, showsRoom } from "./headers.ts"
import * as Meter from "./meter.ts"
import { alarmScore, furthest, givenAt, meanWith, pendingCalls, verdictMillis } from "./rates.ts"
import type { Pool, Ticket } from "./state.ts"
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
  // Whoever rejects a call works.
  if (pool.gate.reason === "overload") pool.gate = Gate.open(pool.gate, ticket.at)
  end(pool, ticket, rejection.used, false, now)
  if (readings !== undefined) observe(pool, ticket, readings, now)
  if (rejection.isRamp) return slowDown(pool, ticket, retryAfter, now)
  const trusted = now >= pool.distrustUntil ? readings : undefined
  const shown = trusted && judgeByHeaders(pool, ticket, retryAfter, trusted, now)
  return shown ?? judgeByTests(pool, ticket, retryAfter, trusted, now)
}

/** What headers say of a rejection: the call is too large, or less was left than its charge. Else nothing. */
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

/** Headers are ignored for this long after the room that they showed did not exist. */
const distrustMillis = 30_000

/** What a rejection says by what else was accepted and rejected. `readings` are headers that are believed. */
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

/** Rejections for each call that are worth a reaction: an empty bucket gives 0.3 to 1. */
const worthActing = 0.3
/** While nothing is known random rejections are at least this likely. */
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
    // Of its size: that a hundred small calls were accepted says little of a large one.
    if (charge > 0 && !Meter.isLate(meter)) accepted = Math.min(accepted, Math.max(0, given - meter.tested) / charge)
    meter.tested = Math.max(meter.tested, given)
  }
  const certain = hasRoom ? calls : ticket.safe - pool.learnedFrom
  if (certain > 0) {
    const isRandom = accepted >= 1 && (hasRoom || ticket.isSafe)
    pool.random = Verdicts.learn(pool.random, certain, isRandom, Verdicts.leastRandom)
    pool.learnedFrom = Math.max(pool.learnedFrom, ticket.safe)
  }
  const p = opening === undefined ? pool.random : Math.max(pool.random, openingRandom)
  const pending = pendingCalls(pool)
  const { score, seen, surplus } = Verdicts.failed(bucketTest, ticket.number, accepted, { p, q: worthActing, pending })
  const isAlarm = score >= threshold(pool)
  pool.bucketTest = { score: isAlarm ? 0 : score, surplus, seen }
  return isAlarm
}

/** Above the measured share an exhaustion is what we look for: one false alarm in this many periods. */
const probingPeriods = 3
/** While nothing is known three rejections in a row are an alarm. */
const openingScore = 6

const threshold = (pool: Pool): number => {
  if (pool.opening !== undefined) return openingScore
  const meter = furthest(pool)
  return meter !== undefined && meter.phase > 0
    ? alarmScore(pool, probingPeriods * Meter.periodOf(meter))
    : alarmScore(pool)
}

/** Of a limit that is used less than this an exhaustion is not expected. */
const suspectedPart = 0.7

/**
 * The dimension whose bucket was probably empty: the one of which most is used, measured by its limit. Headers that show
 * room acquit theirs, and one without a known limit is suspected when no other is used up. Where all show room, requests
 * came too fast.
 */
const culprit = (pool: Pool, ticket: Ticket, readings: Readings | undefined, now: number): Meter.Meter => {
  let found = pool.meters.find(({ dimension }) => dimension === "requests") ?? pool.meters[0]!
  let most = -1
  for (const meter of pool.meters) {
    const { dimension } = meter
    if (ticket.charge[dimension] === 0 || showsRoom(meter, ticket, readings)) continue
    const part = meter.peak === Infinity ? suspectedPart : Meter.recentRate(meter, now) / Meter.rate(meter)
    if (part > most) {
      most = part
      found = meter
    }
  }
  return found
}

/** Providers may enforce 60 requests a minute as one a second, whatever headers say: then a burst is this much of the refill. */
const smoothedMillis = 5_000

/** Headers showed room for requests that were rejected: from now on they go out evenly. */
const smooth = (meter: Meter.Meter): void => {
  meter.mostBurst = smoothedMillis * meter.limit
  meter.burst = Math.min(Meter.burst(meter), meter.mostBurst)
}

/** The reserve is at most what the best share refills in this time, or one call. */
const reserveMillis = 1_000
/** Waits between probes of an empty bucket: doubled from this, at most longer than most blackouts. */
const firstProbeMillis = 1_000
const longestProbeMillis = 8_000

/** The bucket of a meter was empty when this call was sent: `remaining` of it were left, if that is known. */
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
  // Less than the charge was left: half of it on average, which keeps the measure unbiased for large calls.
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
    const most = Math.max(meter.mean, reserveMillis * Math.max(meter.best, meter.limit < Infinity ? meter.limit : 0))
    meter.reserve = Math.min(Meter.burst(meter) / 3, most, Math.max(2 * meter.reserve, meter.mean / 2))
    return
  }
  const pause = Math.min(longestProbeMillis, firstProbeMillis * 2 ** (misses - 2))
  const first = Math.min(retryAfter ?? pause, pause)
  pool.gate = Gate.close(pool.gate, "rateLimit", now + (misses === 2 ? first : pause))
}

/**
 * The last doubling went too far by up to two, and a bucket that was full by more: what was delivered bounds both. What is
 * in flight went out too fast, so nothing follows until its verdicts are in; the bucket stores what is refilled meanwhile.
 */
const endOpening = (pool: Pool, now: number): void => {
  if (pool.opening === undefined) return
  const rate = pool.opening.last / verdictMillis(pool) / 2
  for (const meter of pool.meters) {
    // What nobody has used yet is as unknown as before.
    if (meter.mean === 0) continue
    const delivered = Math.min(rate * meter.mean, Meter.recentRate(meter, now))
    Meter.restart(meter, Math.max(delivered, Meter.leastRate(meter)), 0)
    meter.floor = meter.peak
  }
  pool.opening = undefined
  pool.gate = Gate.pause(pool.gate, "rateLimit", now + verdictMillis(pool))
}

/** One exhaustion takes at most half of a rate that is more than a guess: two of them make a quarter. */
const leastPart = 0.5
/** And of a share that the user states, as others cut theirs: CUBIC's factor (RFC 9438). */
const leastOfShare = 0.7
/** A share is measured over at least so many calls. */
const spanCalls = 6

/** The share is what was delivered since the last exhaustion. Nothing accepted at all is a blackout, which measures none. */
const measure = (pool: Pool, meter: Meter.Meter, here: Meter.Mark): void => {
  const rate = Meter.rate(meter)
  const from = pool.gate.misses > 1 ? undefined : meter.mark
  let peak = Math.min(meter.peak, rate)
  if (from !== undefined) {
    const span = here.at - from.at
    if (span >= (spanCalls * meter.mean) / rate) {
      const isGuess = meter.limit === Infinity && meter.best === 0
      const part = entitled(pool, meter) > 0 ? leastOfShare : leastPart
      const least = isGuess ? Meter.leastRate(meter) : rate * part
      peak = Math.min(rate, Math.max((here.given - from.given) / span, least))
      meter.best = Math.max(meter.best, peak)
    }
  }
  if (from === undefined || peak < rate) meter.mark = here
  Meter.restart(meter, peak, -1)
}

/** The pause after a ramp error that names none. */
const rampPause = 5_000

/** Usage grows too fast: from what was delivered in the last minute on, growth is bounded. */
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
