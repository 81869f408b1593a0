/**
 * The admission law: what may go out now, and what an answer teaches. One function for each event.
 *
 * What the budget does to all callers is proportional to what it knows. A rejection is judged first: an isolated one
 * delays its own call and nothing else. An exhausted bucket sets the rate in use to what was delivered, which grows back.
 * Failures with nothing accepted between them pause the pool, and one call at a time finds out when that is over.
 *
 * A pool is mutable and has one owner. Nothing here reads a clock or draws a random number: time is an argument.
 */
import { type Charge, type Dimension, dimensions, type PerDimension, type Whole } from "../limits/amounts.ts"
import type { Rule, Rules } from "../limits/rules.ts"
import * as Cap from "./cap.ts"
import * as Meter from "./meter.ts"
import * as Verdicts from "./verdicts.ts"
import * as Window from "./window.ts"

// -----------------------------------------------------------------------------
// Constants
// -----------------------------------------------------------------------------

/** Rejections for each call that are worth a reaction: an empty bucket gives 0.3 to 1. */
const worthActing = 0.3
/** Random rejections for each call, at least and at first. */
const leastRandom = 0.001
/** At or below the measured share one false alarm is accepted in this time: it costs a tenth of the rate for a period. */
const alarmMillis = 30_000
/** Above the measured share an exhaustion is what we look for: one false alarm in this many periods. */
const probingPeriods = 3
/** Right after a cut, from this phase to 0, the bucket cannot be empty: there the random rate is learned. */
const safePhase = -0.75
/** One exhaustion takes at most half of a rate that is more than a guess: two of them make a quarter. */
const leastPart = 0.5
/** And of a share that the user states, as others cut theirs: CUBIC's factor (RFC 9438). */
const leastOfShare = 0.7
/** A share is measured over at least so many calls. */
const spanCalls = 6
/** The reserve is at most what the best share refills in this time, or one call; it decays over this many answers. */
const reserveMillis = 1_000
const reserveCalls = 100
/** Headers are ignored for this long after the room that they showed did not exist. */
const distrustMillis = 30_000
/** Part of the way to a level that headers say is higher; lower ones hold at once. What they promise may be gone. */
const levelGain = 0.2
/** The share is measured by headers over at least this time, and corrected by this part of the difference. */
const slopeMillis = 1_000
const slopeGain = 0.4
/** Headers lower the rate at most to this part of the limit: to nothing, and no call would go out to see more. */
const leastSlope = 1 / 50
/** How fast an error of headers is forgotten, for each measure of the share. */
const errorDecay = 0.97
/** While headers are this fresh, in time or in calls, they measure the share, and it is not tried. */
const freshMillis = 10_000
const freshCalls = 8
/** While nothing is known random rejections are at least this likely, and three in a row (a score of 6) end the opening. */
const openingRandom = 0.02
const openingScore = 6
/** Waits between probes of an empty bucket: doubled from this, at most longer than most blackouts. */
const firstProbeMillis = 1_000
const longestProbeMillis = 8_000
/** An overload is as likely as this at least and at first, and in an outage nearly every call fails. */
const leastOverload = 0.01
const outageRate = 0.9
/** An outage is suspected after two failures in a row at the least. */
const outageScore = 6
/** Waits between the probes of an outage: its end is noticed within 10 s, and 10 minutes of it take 62 probes. */
const outageMillis = [1_000, 2_000, 5_000, 10_000]
/** A failure shows within this time, or its call is taken for accepted. */
const longestSilence = 60_000
/** After an outage calls go out 1, 2, 4 at a time; when those did not fail it is over. */
const mostProbes = 8
/** Providers may enforce 60 requests a minute as one a second, whatever headers say: then a burst is this much of the refill. */
const smoothedMillis = 5_000
/** Of a limit that is used less than this an exhaustion is not expected. */
const suspectedPart = 0.7
/** A call that is estimated to be larger than the limit by this factor is larger: estimates err by less. */
const certainly = 1.6
/** The pause after a ramp error that names none. */
const rampPause = 5_000
/** Time to a rejection and to an overload, before one was seen. */
const firstRejectMillis = 200
const firstOverloadMillis = 1_000
/** Time to the end of an answer, before one was seen. */
const firstAnswerMillis = 2_000
/** Verdicts over which those times are averaged. */
const verdictWeight = 1 / 8
/** No call takes longer than this: its time is that of another clock. */
const longestCallMillis = 3_600_000

// -----------------------------------------------------------------------------
// State
// -----------------------------------------------------------------------------

/** While no limit is known: the round of verdicts that is under way, and how many calls it may have. */
interface Opening {
  at: number
  /** Calls sent when it began. */
  since: number
  /** Calls of the last round, and how many this one may have. */
  last: number
  allowed: number
}

/** What nothing passes: a pause, and the probes after it. */
interface Gate {
  reason: "rateLimit" | "ramp" | "overload"
  /** Exhaustions, or failed probes of an outage, in a row with nothing accepted between them. */
  misses: number
  /** Nothing goes out before this time. */
  until: number
  /** The probes: how many may go out together, how many have, and when the last one did. */
  allowed: number
  probes: number
  probedAt: number
  /** What was sent up to this time says nothing new. */
  fence: number
}

export interface Pool {
  /** The provider's buckets. */
  readonly meters: Array<Meter.Meter>
  /** The user's limits. */
  readonly caps: { [D in Dimension]?: Cap.Cap }
  /** The part that is ours of limits that only headers name. */
  shares: PerDimension<number>
  readonly gate: Gate
  readonly window: Window.Window
  opening: Opening | undefined
  /** The test for an empty bucket, the random rate of rejections, and the safe calls that it was learned from. */
  readonly bucketTest: Verdicts.Test
  random: number
  learnedFrom: number
  /** The test for an outage, and the random rate of overloads. */
  readonly outageTest: Verdicts.Test
  randomOverload: number
  /** Calls sent, in all and while the bucket could not be empty. */
  sent: number
  safe: number
  inFlight: number
  /** Calls that failed by an overload, and how many had been accepted by the last one that an outage did not explain. */
  failed: number
  failedUpTo: number
  /** Calls sent up to some time ago, and up to the time before it. */
  block: { readonly at: number; readonly sent: number; readonly before: number }
  rejectMillis: number
  overloadMillis: number
  answerMillis: number
  distrustUntil: number
  rampAt: number
  /** How much later than it is admitted a call may go out, where processes share the pool. */
  lag: number
}

/** What a call carries from its admission to its end. */
export interface Ticket {
  readonly at: number
  readonly charge: Whole
  readonly number: number
  readonly inFlight: number
  /** Whether it was sent while the bucket could not be empty, and how many were by then. */
  readonly isSafe: boolean
  readonly safe: number
  /** Calls sent so far that found about as many in flight as ever. */
  readonly crowded: number
  /** Calls sent long enough before that they would have failed earlier. */
  readonly earlier: number
  /** For each meter in order what had been sent by then, and what of it had been rejected. */
  readonly sums: ReadonlyArray<number>
}

/** What a response says of one dimension: the limit per millisecond, what is left of it, and the step that this is rounded to. */
export interface Reading {
  readonly limit: number | undefined
  readonly remaining: number | undefined
  readonly roundedTo: number
}
export type Readings = PerDimension<Reading>

/**
 * What a failure says. `"isolated"`: it is the call's own. `"exhausted"`: the bucket was empty. `"ramp"`: usage grows too
 * fast. `"outage"`: the provider does not work. These three concern every caller, and are no call's own failure. `"impossible"`: the
 * call is larger than the provider's limit.
 */
export type Verdict = "isolated" | "exhausted" | "ramp" | "outage" | "impossible"

/** Why a charge does not go now. `millis` is `Infinity` where only another event lets it go. */
export interface Blocked {
  readonly millis: number
  readonly dimension: Dimension | undefined
}

export const make = (rules: Rules, shares: PerDimension<number>, now: number): Pool => {
  const pool: Pool = {
    meters: [],
    caps: {},
    shares: {},
    gate: {
      reason: "rateLimit",
      misses: 0,
      until: -Infinity,
      allowed: 1,
      probes: 0,
      probedAt: -Infinity,
      fence: -Infinity
    },
    window: Window.make(),
    opening: { at: now, since: 0, last: 1, allowed: 1 },
    bucketTest: Verdicts.makeTest(),
    random: leastRandom,
    learnedFrom: 0,
    outageTest: Verdicts.makeTest(),
    randomOverload: leastOverload,
    sent: 0,
    safe: 0,
    inFlight: 0,
    failed: 0,
    failedUpTo: 0,
    block: { at: now, sent: 0, before: 0 },
    rejectMillis: firstRejectMillis,
    overloadMillis: firstOverloadMillis,
    answerMillis: firstAnswerMillis,
    distrustUntil: -Infinity,
    rampAt: -Infinity,
    lag: 0
  }
  resize(pool, rules, shares, now)
  return pool
}

/** A copy: what happens to one changes nothing in the other. */
export const copy = (pool: Pool): Pool => {
  const caps: Pool["caps"] = { ...pool.caps }
  for (const dimension of dimensions) {
    const cap = caps[dimension]
    if (cap !== undefined) caps[dimension] = Cap.copy(cap)
  }
  return {
    ...pool,
    meters: pool.meters.map((meter) => ({ ...meter })),
    caps,
    gate: { ...pool.gate },
    window: { ...pool.window },
    opening: pool.opening === undefined ? undefined : { ...pool.opening },
    bucketTest: { ...pool.bucketTest },
    outageTest: { ...pool.outageTest }
  }
}

/**
 * Replaces the user's limits. What headers have said of dimensions that the user does not limit stays. A pool that has
 * sent nothing is full by the new limits.
 */
export const resize = (pool: Pool, rules: Rules, shares: PerDimension<number>, now: number): void => {
  const before = pool.shares
  pool.shares = shares
  for (const dimension of dimensions) {
    const rule = rules[dimension]
    const share = shares[dimension]
    if (rule === undefined && share !== undefined && share === before[dimension]) continue
    const wasLimited = pool.caps[dimension] !== undefined
    limitTo(pool, dimension, rule, now)
    const meter = pool.meters.find((each) => each.dimension === dimension)
    if (rule === undefined || rule.quota) {
      if (wasLimited && meter !== undefined && meter.header === undefined) Meter.forget(meter)
      continue
    }
    const { burst, rate } = rule.provider
    if (meter === undefined) pool.meters.push(Meter.make(dimension, now, rate, burst))
    else {
      Meter.advance(meter, now, bound(pool, meter, now))
      Meter.setLimit(meter, rate)
      meter.burst = burst
      if (pool.sent === 0) meter.level = burst
    }
  }
  // Providers limit requests and tokens: where nobody says how, the law finds out.
  if (pool.meters.length === 0) pool.meters.push(Meter.make("requests", now))
  if (!pool.meters.some(isOfTokens)) pool.meters.push(Meter.make("tokens", now))
  if (pool.meters.some((each) => isOfTokens(each) && each.limit < Infinity)) pool.opening = undefined
}

const isOfTokens = ({ dimension }: Meter.Meter): boolean => dimension !== "requests"

/** Sets or removes the user's limit of a dimension. */
const limitTo = ({ caps, sent }: Pool, dimension: Dimension, rule: Rule | undefined, now: number): void => {
  const cap = caps[dimension]
  if (rule === undefined) delete caps[dimension]
  else if (cap === undefined || cap.rule.quota !== rule.quota || (sent === 0 && !rule.quota)) {
    caps[dimension] = Cap.make(rule, now)
  } else {
    // Some of a quota may be kept for a process that cannot be reached, though nothing was sent.
    Cap.advance(cap, now)
    Cap.setRule(cap, rule)
  }
}

// -----------------------------------------------------------------------------
// Deciding and taking
// -----------------------------------------------------------------------------

/** After this time a call that was not rejected counts as accepted. */
const verdictMillis = (pool: Pool): number => 2 * pool.rejectMillis + 20

/** The same for an overload. */
const silenceMillis = (pool: Pool): number => Math.min(longestSilence, 2 * pool.overloadMillis + 20)

/** While headers measure the share, it does not grow by itself beyond what was measured. */
const bound = (pool: Pool, meter: Meter.Meter, now: number): number => {
  const { header } = meter
  const isFresh =
    header !== undefined &&
    now >= pool.distrustUntil &&
    now - header.at < Math.max(freshMillis, freshCalls * Meter.gap(meter))
  return isFresh ? 0 : Infinity
}

const advance = (pool: Pool, now: number): void => {
  for (const meter of pool.meters) Meter.advance(meter, now, bound(pool, meter, now))
}

/** Why a charge does not go now; undefined where it does. */
export const decide = (pool: Pool, charge: Charge, now: number): Blocked | undefined => {
  const closed = passGate(pool, now) || passWindow(pool, now) || passOpening(pool, now)
  if (closed > 0) return { millis: closed, dimension: undefined }
  let millis = 0
  let dimension: Dimension | undefined
  for (const meter of pool.meters) {
    const amount = charge[meter.dimension] ?? 0
    const most = bound(pool, meter, now)
    Meter.advance(meter, now, most)
    const wait = Meter.wait(meter, amount, most, pool.lag)
    if (wait > millis) {
      millis = wait
      dimension = meter.dimension
    }
  }
  for (const each of dimensions) {
    const cap = pool.caps[each]
    if (cap === undefined) continue
    Cap.advance(cap, now)
    const wait = Cap.wait(cap, charge[each] ?? 0, pool.lag)
    if (wait > millis) {
      millis = wait
      dimension = each
    }
  }
  return millis === 0 ? undefined : { millis, dimension }
}

/** Milliseconds until the gate opens, for a probe or for all. */
const passGate = (pool: Pool, now: number): number => {
  const { gate } = pool
  if (now < gate.until) return gate.until - now
  if (gate.misses < 2 || gate.probes < gate.allowed) return 0
  const left = gate.probedAt + (gate.reason === "overload" ? silenceMillis(pool) : verdictMillis(pool)) - now
  if (left > 0) return left
  gate.allowed *= 2
  gate.probes = 0
  // A rejection comes soon, so one probe tells; failures of an outage are not as punctual.
  if (gate.reason !== "overload" || gate.allowed >= mostProbes) open(gate)
  return 0
}

/** A probe was accepted. */
const open = (gate: Gate): void => {
  gate.misses = 0
}

/** Nothing goes out before a time. Probes that are under way keep their reason. */
export const pause = ({ gate }: Pool, reason: Gate["reason"], until: number): void => {
  if (gate.misses === 0) gate.reason = reason
  gate.until = Math.max(gate.until, until)
}

/** Nothing goes out before a time, nor before the end of a pause that lasts longer, and then one probe. */
const close = (gate: Gate, reason: Gate["reason"], until: number): void => {
  gate.reason = reason
  gate.until = Math.max(gate.until, until)
  gate.allowed = 1
  gate.probes = 0
}

const passWindow = (pool: Pool, now: number): number => {
  const { window } = pool
  if (pool.inFlight < window.size) return 0
  const at = Window.grow(window, now, verdictMillis(pool))
  return pool.inFlight < window.size ? 0 : at - now || Infinity
}

/** While nothing is known, calls for each round of verdicts double, evenly spaced. */
const passOpening = (pool: Pool, now: number): number => {
  const { opening } = pool
  // Whoever calls one at a time goes on as fast as the provider answers.
  if (opening === undefined || pool.inFlight === 0) return 0
  const round = verdictMillis(pool)
  if (now >= opening.at + round) {
    opening.last = Math.max(1, pool.sent - opening.since)
    if (opening.last >= opening.allowed) opening.allowed *= 2
    opening.at = now
    opening.since = pool.sent
  }
  // A call beyond the last of a round goes with the next round.
  const place = Math.min(1, (pool.sent - opening.since) / opening.allowed)
  return Math.max(0, opening.at + place * round - now)
}

/** Takes a charge from every dimension at one instant. */
export const take = (pool: Pool, charge: Whole, now: number): Ticket => {
  const { block, gate, meters } = pool
  const sums: Array<number> = []
  if (now - block.at > pool.overloadMillis) pool.block = { at: now, sent: pool.sent, before: block.sent }
  pool.sent++
  pool.inFlight++
  for (const meter of meters) {
    Meter.advance(meter, now, bound(pool, meter, now))
    sums.push(meter.sum, meter.rejected)
    Meter.take(meter, charge[meter.dimension], pool.sent)
  }
  for (const dimension of dimensions) {
    const cap = pool.caps[dimension]
    if (cap === undefined) continue
    Cap.advance(cap, now)
    Cap.take(cap, charge[dimension])
  }
  Window.sent(pool.window, pool.inFlight)
  const isSafe = isBelowShare(pool)
  if (isSafe) pool.safe++
  const ticket: Ticket = {
    at: now,
    charge,
    number: pool.sent,
    inFlight: pool.inFlight,
    isSafe,
    safe: pool.safe,
    crowded: pool.window.crowded,
    earlier: pool.block.before,
    sums
  }
  gate.probes++
  gate.probedAt = now
  return ticket
}

/** The calls a millisecond that the rates in use allow. */
const callRate = (pool: Pool): number => {
  let rate = pool.opening === undefined ? Infinity : pool.opening.allowed / verdictMillis(pool)
  for (const meter of pool.meters) rate = Math.min(rate, Meter.rate(meter) / meter.mean)
  return rate
}

/** Of the meters that hold us back the one that is furthest in its growth. */
const furthest = (pool: Pool): Meter.Meter | undefined => {
  let found: Meter.Meter | undefined
  for (const meter of pool.meters) {
    const holdsBack = Meter.rate(meter) < meter.limit && Meter.isUsed(meter)
    if (holdsBack && meter.phase > (found?.phase ?? -Infinity)) found = meter
  }
  return found
}

/** We use less than what was measured: the bucket cannot be empty. */
const isBelowShare = (pool: Pool): boolean => {
  const phase = furthest(pool)?.phase ?? 1
  return phase > safePhase && phase <= 0
}

// -----------------------------------------------------------------------------
// Ends
// -----------------------------------------------------------------------------

/** The provider accepted a call: its answer has begun. */
export const accept = (pool: Pool, ticket: Ticket): void => {
  if (ticket.at > pool.gate.fence) open(pool.gate)
  Window.accepted(pool.window, ticket.inFlight)
  for (const meter of pool.meters) {
    const least = Math.min(Meter.burst(meter) / 50, meter.mean / 4)
    meter.reserve += (least - meter.reserve) / reserveCalls
  }
}

/**
 * A mean of what calls took, with one more. Where a store has lost a pool, another machine gives it another time, by which
 * calls that were under way took days, or less than nothing.
 */
const meanWith = (mean: number, { at }: Ticket, now: number): number =>
  now < at || now - at > longestCallMillis ? mean : mean + (now - at - mean) * verdictWeight

/** An accepted call is over: what it reserved is replaced by what it used. */
export const settle = (pool: Pool, ticket: Ticket, used: Charge, now: number): void => {
  advance(pool, now)
  pool.answerMillis = meanWith(pool.answerMillis, ticket, now)
  end(pool, ticket, used, true, now)
}

/** A call is over, and what it reserved stays taken. */
export const keep = (pool: Pool, ticket: Ticket): void => {
  pool.inFlight--
  pool.meters.forEach((meter, i) => {
    if (Meter.isLate(meter) && isCharged(ticket, i)) Meter.spend(meter, ticket.charge[meter.dimension])
  })
}

/** A call never went out, or nobody knows what became of it: it says nothing. */
export const release = (pool: Pool, ticket: Ticket, used: Charge, now: number): void => {
  advance(pool, now)
  end(pool, ticket, used, false, now)
  // A probe that told nothing makes room for another.
  if (pool.gate.probes > 0 && ticket.at > pool.gate.fence) pool.gate.probes--
}

/** A call that went out by a smaller pool is ours from now on: as if it went out now, by what that pool has paid. */
export const adopt = (pool: Pool, ticket: Ticket): void => {
  pool.inFlight++
  pool.sent++
  const sums: Array<number> = []
  for (const meter of pool.meters) {
    if (Meter.isLate(meter)) meter.held += ticket.charge[meter.dimension]
    sums.push(meter.sum, meter.rejected)
  }
  const { crowded } = pool.window
  const { block, safe } = pool
  Object.assign(ticket, { sums, crowded, safe, number: pool.sent, earlier: block.before })
}

/** Whether the meter with this index has taken the charge of a call. It has not if it is younger. */
const isCharged = (ticket: Ticket, index: number): boolean => ticket.sums[2 * index] !== undefined

const end = (pool: Pool, ticket: Ticket, used: Charge, isAccepted: boolean, now: number): void => {
  pool.inFlight--
  pool.meters.forEach((meter, i) => {
    if (!isCharged(ticket, i)) return
    const charge = ticket.charge[meter.dimension]
    const isGiven = ticket.at > (isAccepted ? meter.loweredAt : Math.max(meter.loweredAt, meter.fence))
    Meter.settle(meter, charge, used[meter.dimension] ?? charge, isGiven, isAccepted)
  })
  for (const dimension of dimensions) {
    const cap = pool.caps[dimension]
    const charge = ticket.charge[dimension]
    if (cap === undefined) continue
    Cap.advance(cap, now)
    Cap.settle(cap, charge, used[dimension] ?? charge, ticket.at)
  }
}

// -----------------------------------------------------------------------------
// Headers
// -----------------------------------------------------------------------------

/** What had been given when a call was sent, as far as verdicts are in: `undefined` where the meter is younger. */
const givenAt = (pool: Pool, meter: Meter.Meter, ticket: Ticket): number | undefined => {
  const i = 2 * pool.meters.indexOf(meter)
  const sum = ticket.sums[i]
  return sum === undefined ? undefined : sum - (meter.rejected - ticket.sums[i + 1]!)
}

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

/** Whether a call is certainly larger than the limit: then it never fits, or the limit is none. It teaches nothing of others. */
const isExceeded = ({ charge }: Ticket, dimension: Dimension, { limit = Infinity }: Reading): boolean =>
  charge[dimension] > certainly * limit * 60_000

/** Whether readings are of everything that providers limit: requests, and tokens of one kind or the other. */
const covers = (pool: Pool, readings: Readings): boolean =>
  pool.meters.every(({ dimension, limit }) => limit < Infinity || readings[dimension] !== undefined) ||
  (readings.requests !== undefined && (readings.tokens ?? readings.inputTokens) !== undefined)

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

/** What headers promise beyond our own count may be gone, so that is believed by and by; a debt they replace at once. */
const raise = (meter: Meter.Meter, level: number): void => {
  if (level <= meter.level) return
  meter.level = Math.max(meter.level, Math.min(0, level))
  meter.level = Math.min(Meter.burst(meter), meter.level + levelGain * (level - meter.level))
}

/** The rate that a stated share reserves for this budget; 0 without a share. */
const entitled = ({ caps }: Pool, { dimension, limit }: Meter.Meter): number => {
  const { share = 1 } = caps[dimension]?.rule ?? {}
  return share < 1 ? share * limit : 0
}

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

// -----------------------------------------------------------------------------
// Rejections
// -----------------------------------------------------------------------------

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
  const { gate } = pool
  const { readings, retryAfter } = rejection
  advance(pool, now)
  pool.rejectMillis = meanWith(pool.rejectMillis, ticket, now)
  if (gate.reason === "overload" && ticket.at > gate.fence) open(gate)
  end(pool, ticket, rejection.used, false, now)
  if (readings !== undefined) observe(pool, ticket, readings, now)
  if (rejection.isRamp) return slowDown(pool, ticket, retryAfter, now)
  const isTrusted = readings !== undefined && now >= pool.distrustUntil
  if (isTrusted) {
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
  }
  const hasRoom =
    isTrusted &&
    covers(pool, readings) &&
    pool.meters.every((meter) => readings[meter.dimension] === undefined || showsRoom(meter, ticket, readings))
  if (pool.opening === undefined && gate.misses < 2 && ticket.at > gate.fence) {
    const pending = callRate(pool) * verdictMillis(pool)
    const rates = { random: pool.random, score: Verdicts.thresholdFor(callRate(pool) * alarmMillis), pending }
    Window.rejected(pool.window, ticket, rates, Math.max(0, pool.inFlight - pending))
  }
  if (ticket.at <= gate.fence) return "exhausted"
  if (!isAlarm(pool, ticket, hasRoom)) return "isolated"
  const meter = culprit(pool, ticket, isTrusted ? readings : undefined, now)
  if (isTrusted) {
    pool.distrustUntil = now + distrustMillis
    if (hasRoom && meter.dimension === "requests") smooth(meter)
  }
  exhaust(pool, meter, ticket, retryAfter, undefined, now)
  return "exhausted"
}

/** Whether headers say that a bucket had room for a call, by more than their error. */
const showsRoom = (meter: Meter.Meter, ticket: Ticket, readings: Readings | undefined): boolean => {
  const { remaining } = readings?.[meter.dimension] ?? {}
  return remaining !== undefined && remaining - meter.error >= ticket.charge[meter.dimension]
}

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
    pool.random = Verdicts.learn(pool.random, certain, isRandom, leastRandom)
    pool.learnedFrom = Math.max(pool.learnedFrom, ticket.safe)
  }
  const p = opening === undefined ? pool.random : Math.max(pool.random, openingRandom)
  const pending = callRate(pool) * verdictMillis(pool)
  Verdicts.failed(bucketTest, ticket.number, accepted, { p, q: worthActing, pending })
  if (bucketTest.score < threshold(pool)) return false
  bucketTest.score = 0
  return true
}

const threshold = (pool: Pool): number => {
  if (pool.opening !== undefined) return openingScore
  const meter = furthest(pool)
  const millis = meter !== undefined && meter.phase > 0 ? probingPeriods * Meter.periodOf(meter) : alarmMillis
  return Verdicts.thresholdFor(callRate(pool) * millis)
}

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

/** Headers showed room for requests that were rejected: from now on they go out evenly. */
const smooth = (meter: Meter.Meter): void => {
  meter.mostBurst = smoothedMillis * meter.limit
  meter.burst = Math.min(Meter.burst(meter), meter.mostBurst)
}

/** The bucket of a meter was empty when this call was sent: `remaining` of it were left, if that is known. */
const exhaust = (
  pool: Pool,
  meter: Meter.Meter,
  ticket: Ticket,
  retryAfter: number | undefined,
  remaining: number | undefined,
  now: number
): void => {
  const { gate } = pool
  const charge = ticket.charge[meter.dimension]
  const given = givenAt(pool, meter, ticket)
  if (ticket.at <= meter.fence || given === undefined) return
  // Less than the charge was left: half of it on average, which keeps the measure unbiased for large calls.
  const left = remaining ?? charge / 2
  gate.misses = given - meter.emptied < charge / 2 ? gate.misses + 1 : 1
  gate.reason = "rateLimit"
  gate.fence = meter.fence = now
  meter.emptied = given
  endOpening(pool, now)
  Meter.pin(meter, now)
  measure(pool, meter, { at: ticket.at, given: given + left })
  meter.level = Math.min(meter.level, left)
  if (gate.misses === 1) {
    const most = Math.max(meter.mean, reserveMillis * Math.max(meter.best, meter.limit < Infinity ? meter.limit : 0))
    meter.reserve = Math.min(Meter.burst(meter) / 3, most, Math.max(2 * meter.reserve, meter.mean / 2))
    return
  }
  const pause = Math.min(longestProbeMillis, firstProbeMillis * 2 ** (gate.misses - 2))
  close(gate, "rateLimit", now + (gate.misses === 2 ? Math.min(retryAfter ?? pause, pause) : pause))
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
  pause(pool, "rateLimit", now + verdictMillis(pool))
}

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

/** Usage grows too fast: from what was delivered in the last minute on, growth is bounded. */
const slowDown = (pool: Pool, ticket: Ticket, retryAfter: number | undefined, now: number): Verdict => {
  if (ticket.at <= pool.rampAt) return "ramp"
  const { gate } = pool
  gate.fence = now
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
  gate.misses = 2
  close(gate, "ramp", now + (retryAfter ?? rampPause))
  return "ramp"
}

// -----------------------------------------------------------------------------
// Overloads
// -----------------------------------------------------------------------------

/** The provider failed, or could not be reached: a 529, a 5xx, a refused or broken connection, a timeout. */
export const overload = (
  pool: Pool,
  ticket: Ticket,
  failure: { readonly retryAfter: number | undefined; readonly used: Charge },
  now: number
): Verdict => {
  const { gate, outageTest } = pool
  const isOutage = gate.reason === "overload" && gate.misses > 0
  advance(pool, now)
  end(pool, ticket, failure.used, false, now)
  const upTo = ticket.earlier - pool.failed++
  if (isOutage && ticket.at <= gate.fence) return "outage"
  pool.overloadMillis = meanWith(pool.overloadMillis, ticket, now)
  if (!isOutage) {
    const accepted = Math.max(0, upTo - pool.failedUpTo)
    pool.failedUpTo = Math.max(pool.failedUpTo, upTo)
    const pending = callRate(pool) * silenceMillis(pool)
    Verdicts.failed(outageTest, ticket.earlier, accepted, { p: pool.randomOverload, q: outageRate, pending })
    if (accepted > 0) pool.randomOverload = Verdicts.learn(pool.randomOverload, accepted + 1, true, leastOverload)
    const score = Math.max(outageScore, Verdicts.thresholdFor(callRate(pool) * alarmMillis))
    if (outageTest.score < score) return "isolated"
    outageTest.score = 0
    gate.misses = 1
  }
  const pause = outageMillis[Math.min(gate.misses, outageMillis.length) - 1]!
  gate.misses++
  gate.fence = now
  close(gate, "overload", now + Math.max(pause, Math.min(failure.retryAfter ?? 0, longestSilence)))
  return "outage"
}

// -----------------------------------------------------------------------------
// Foreseeing
// -----------------------------------------------------------------------------

/** A copy to play ahead with: as if nothing failed from now on, and no call were in flight. */
export const preview = (pool: Pool): Pool => ({
  ...copy(pool),
  gate: { ...pool.gate, misses: 0 },
  window: Window.make(),
  opening: undefined,
  inFlight: 0
})
