/**
 * The provider rejected a call, a 429: why, and what follows.
 *
 * `reject` judges by the provider's code (a ramp error), then by the headers, then by sequential tests over the calls that were
 * accepted and rejected. An isolated rejection delays only its own call. If a limit of calls in flight explains the last rejections,
 * the window holds that many. After an exhaustion the rate becomes what was delivered since the last one, and grows back.
 */
import { dimensions } from "../domain/amounts.ts"
import { end, type FailedCall } from "./ends.ts"
import * as Full from "./full.ts"
import * as Gate from "./gate.ts"
import { entitled, haveRoom, isExceeded, observe, type Readings, showsRoom } from "./headers.ts"
import * as Large from "./large.ts"
import * as Meter from "./meter.ts"
import { alarmScore, furthest, givenAt, meanWith, pendingCalls, verdictMillis } from "./rates.ts"
import { isStated, isUnknown, meterOf, type Pacer, type Admission } from "./state.ts"
import * as Verdicts from "./verdicts.ts"
import type { Verdict } from "./verdicts.ts"
import * as Window from "./window.ts"

/** The provider rejected a call. */
export const reject = (
  pacer: Pacer,
  admission: Admission,
  { certain, readings, reason, retryAfter, used }: FailedCall,
  now: number
): Verdict => {
  pacer.rejectMillis = meanWith(pacer.rejectMillis, admission, now)
  // A provider that rejects calls is not down.
  if (pacer.gate.reason === "overload") pacer.gate = Gate.open(pacer.gate, admission.at)
  end(pacer, admission, used, false, now)
  if (readings !== undefined) observe(pacer, admission, readings, now, certain)
  if (reason === "ramp") return slowDown(pacer, admission, retryAfter, now)
  const trusted = now >= pacer.distrustUntil ? readings : undefined
  for (const meter of pacer.meters) Large.rejected(pacer, meter, admission, trusted, now)
  const shown = trusted && judgeByHeaders(pacer, admission, { certain, retryAfter }, trusted, now)
  return shown ?? judgeByTests(pacer, admission, retryAfter, trusted, now)
}

/** The verdict of headers: the call is larger than a limit, or than what was left. Undefined if they show neither. */
const judgeByHeaders = (
  pacer: Pacer,
  admission: Admission,
  { certain, retryAfter }: Pick<FailedCall, "certain" | "retryAfter">,
  readings: Readings,
  now: number
): Verdict | undefined => {
  for (const each of dimensions) {
    const reading = readings[each]
    if (reading !== undefined && isExceeded(admission, each, reading, certain)) return "impossible"
  }
  for (const meter of pacer.meters) {
    const { remaining = Infinity, roundedTo = 1 } = readings[meter.dimension] ?? {}
    if (remaining < admission.charge[meter.dimension] + roundedTo / 2) {
      exhaust(pacer, meter, admission, retryAfter, remaining, now)
      return "exhausted"
    }
  }
  return undefined
}

/** Headers are ignored for this time after they showed room that did not exist. */
const distrustMillis = 60_000

/** The verdict of the sequential tests. `readings` are those of headers that are trusted. */
const judgeByTests = (
  pacer: Pacer,
  admission: Admission,
  retryAfter: number | undefined,
  readings: Readings | undefined,
  now: number
): Verdict => {
  if (Large.isHopeless(pacer, admission, now)) return "isolated"
  const hasRoom = readings !== undefined && haveRoom(pacer, admission, readings)
  const full = Full.judge(pacer, admission, { hasRoom, mayBeOutage: false, random: pacer.random }, now)
  if (pacer.opening !== undefined) hold(pacer, now)
  if (full === "explained" || admission.at <= pacer.gate.fence) return "exhausted"
  const lacking = Large.lackedAgain(pacer, admission)
  if (lacking !== undefined) {
    exhaust(pacer, lacking, admission, retryAfter, undefined, now)
    return "exhausted"
  }
  const score = scoreOf(pacer, admission, hasRoom)
  if (Full.explains(pacer, score)) {
    Full.claim(pacer, now)
    return "exhausted"
  }
  // The pool risked the rejection of an attempt to grow, so it does not count against the call.
  if (score < threshold(pacer) + (hasRoom ? roomScore : 0)) return full === "attempt" ? "exhausted" : "isolated"
  blame(pacer, admission, retryAfter, readings, now)
  return "exhausted"
}

/** An empty bucket explains the last rejections: blames the one that is most likely. */
const blame = (
  pacer: Pacer,
  admission: Admission,
  retryAfter: number | undefined,
  readings: Readings | undefined,
  now: number
): void => {
  pacer.bucketTest = { ...pacer.bucketTest, score: 0 }
  // The limit of calls in flight that was claimed before was an empty bucket, too.
  if (pacer.window.refutedAt !== undefined) pacer.window = Window.lift(pacer.window)
  const meter = culprit(pacer, admission, readings, now)
  if (readings !== undefined) {
    pacer.distrustUntil = now + distrustMillis
    if (meter.dimension === "requests" && haveRoom(pacer, admission, readings)) smooth(meter)
  }
  exhaust(pacer, meter, admission, retryAfter, undefined, now)
}

/**
 * Holds the calls of the opening until more verdicts are known. Those under way went out too fast, or are too many, and each
 * further one would be rejected, too.
 */
const hold = (pacer: Pacer, now: number): void => {
  if (pacer.window.size < Infinity || pacer.inFlight === 0) return
  pacer.gate = Gate.pause(pacer.gate, "rateLimit", now + pacer.rejectMillis)
}

/** The rate of rejections that is worth a reaction: an empty bucket rejects 30 to 100 % of all calls. */
const worthActing = 0.3
/** The lowest rate of random rejections while nothing is known. */
const openingRandom = 0.02

/** The weight of headers that show room against an empty bucket: odds of 20 to 1. */
const roomScore = 3

/** The score of the sequential test for an empty bucket. */
const scoreOf = (pacer: Pacer, admission: Admission, hasRoom: boolean): number => {
  const { bucketTest } = pacer
  const calls = Math.max(0, admission.number - bucketTest.seen - 1)
  let accepted = calls
  for (const meter of pacer.meters) {
    const charge = admission.charge[meter.dimension]
    const given = givenAt(pacer, meter, admission)
    if (given === undefined) continue
    // Counted in calls of this size, because a hundred small accepted calls say little about a large one.
    if (charge > 0 && !Meter.isLate(meter)) accepted = Math.min(accepted, Math.max(0, given - meter.tested) / charge)
    meter.tested = Math.max(meter.tested, given)
  }
  const certain = hasRoom ? calls : admission.safe - pacer.learnedFrom
  if (certain > 0) {
    const isRandom = accepted >= 1 && (hasRoom || admission.isSafe)
    pacer.random = Verdicts.learn(pacer.random, certain, isRandom, Verdicts.minRandom)
    pacer.learnedFrom = Math.max(pacer.learnedFrom, admission.safe)
  }
  const p = isUnknown(pacer) ? Math.max(pacer.random, openingRandom) : pacer.random
  const pending = pendingCalls(pacer)
  const { score, seen, surplus } = Verdicts.failed(bucketTest, admission.number, accepted, {
    p,
    q: worthActing,
    pending
  })
  pacer.bucketTest = { score, surplus, seen }
  return score
}

/** Above the measured share, exhaustions are expected, so one false alarm is accepted in this many periods. */
const probingPeriods = 3
/** While nothing is known, three rejections in a row are an alarm. */
const openingScore = 6

const threshold = (pacer: Pacer): number => {
  if (isUnknown(pacer)) return openingScore
  const meter = furthest(pacer)
  return meter !== undefined && meter.phase > 0
    ? alarmScore(pacer, probingPeriods * Meter.periodOf(meter))
    : alarmScore(pacer)
}

/** A dimension without a known limit is suspected if no other is used to a larger part than this. */
const suspectedPart = 0.7

/**
 * The meter whose bucket was probably empty: the one that is used most relative to its rate. A dimension whose headers show room
 * is not suspected. If all of them show room, requests came too fast.
 */
const culprit = (pacer: Pacer, admission: Admission, readings: Readings | undefined, now: number): Meter.Meter => {
  let found = meterOf(pacer, "requests") ?? pacer.meters[0]!
  let max = -1
  for (const meter of pacer.meters) {
    const { dimension } = meter
    if (admission.charge[dimension] === 0 || showsRoom(meter, admission, readings)) continue
    // A call that is larger than others in a dimension was rejected for that sooner than for another.
    const size = Math.max(1, admission.charge[dimension] / meter.mean)
    const part = size * (meter.peak === Infinity ? suspectedPart : Meter.recentRate(meter, now) / Meter.rate(meter))
    if (part > max) {
      max = part
      found = meter
    }
  }
  return found
}

/** Providers may enforce 60 requests a minute as one a second, whatever headers say. Bursts are then the refill of this time. */
const smoothedMillis = 5_000

/** Spaces requests evenly from now on, because requests were rejected for which headers showed room. */
const smooth = (meter: Meter.Meter): void => {
  meter.mostBurst = smoothedMillis * meter.limit
  meter.burst = Math.min(Meter.burst(meter), meter.mostBurst)
}

/** The reserve is at most what the rate in use refills in this time, or one mean call. */
const reserveMillis = 2_000
/** The waits before probes of an empty bucket double up to the longest, which exceeds most blackouts. */
const firstProbeMillis = 1_000
const maxProbeMillis = 8_000

/**
 * Learns from a rejection what the bucket holds at least: the charge, or less if the provider says that the call fits sooner, as it does
 * if the call is larger than the full bucket. Nothing is learned if the user states the burst, if nothing was left, because a bucket in
 * debt shows the same, or of what counts when it is produced, because a full bucket is not needed for that.
 */
const widen = (
  pacer: Pacer,
  meter: Meter.Meter,
  charge: number,
  remaining: number | undefined,
  retryAfter = Infinity
): void => {
  if (remaining === 0 || Meter.isLate(meter) || isStated(pacer, meter.dimension)) return
  Meter.widen(meter, remaining === undefined ? charge : Math.min(charge, remaining + retryAfter * meter.limit))
}

/** A bucket was empty when the call was sent; `remaining` was left in it, if that is known. */
const exhaust = (
  pacer: Pacer,
  meter: Meter.Meter,
  admission: Admission,
  retryAfter: number | undefined,
  remaining: number | undefined,
  now: number
): void => {
  const charge = admission.charge[meter.dimension]
  const given = givenAt(pacer, meter, admission)
  if (admission.at <= meter.fence || given === undefined) return
  // Less than the charge was left: half of it on average, which keeps the measure unbiased for large calls.
  const left = remaining ?? charge / 2
  const misses = given - meter.emptied < charge / 2 ? pacer.gate.misses + 1 : 1
  pacer.gate = { ...pacer.gate, misses, reason: "rateLimit", fence: now }
  meter.fence = now
  meter.emptied = given
  endOpening(pacer, remaining === undefined ? undefined : meter, now)
  Meter.pin(meter, now)
  if (!Large.empty(meter, now)) {
    measure(pacer, meter, { at: admission.at, given: given + left })
    if (Large.isSlow(meter, charge)) {
      Meter.restart(meter, Math.min(meter.peak, Meter.recentRate(meter, now, left)), -1)
    }
    meter.level = Math.min(meter.level, left)
  }
  if (misses === 1) {
    const max = Math.max(meter.mean, reserveMillis * Meter.rate(meter))
    meter.reserve = Math.min(Meter.burst(meter) / 3, max, Math.max(2 * meter.reserve, meter.mean / 2))
  }
  widen(pacer, meter, charge, remaining, retryAfter)
  if (misses === 1) return
  const pause = Math.min(maxProbeMillis, firstProbeMillis * 2 ** (misses - 2))
  const first = Math.min(retryAfter ?? pause, pause)
  pacer.gate = Gate.close(pacer.gate, "rateLimit", now + (misses === 2 ? first : pause))
}

/**
 * Ends the opening. Its last round was too fast by a factor of up to two if it was filled, or by more if the bucket began full, so
 * what was delivered bounds the rate. Limits that headers have named need no bound, and if headers named the `empty` bucket, the
 * others have not been hit. No call is sent until the verdicts on the calls in flight are known.
 */
const endOpening = (pacer: Pacer, empty: Meter.Meter | undefined, now: number): void => {
  const { opening } = pacer
  if (opening === undefined) return
  // In a full window, a round says how many calls have ended, and nothing of a rate.
  const rate = pacer.window.size < Infinity ? Infinity : opening.last / verdictMillis(pacer) / 2
  for (const meter of pacer.meters) {
    // Skip dimensions without samples.
    if (meter.mean === 0 || meter.limit < Infinity || (empty !== undefined && meter !== empty)) continue
    const delivered = Math.min(rate * meter.mean, Meter.recentRate(meter, now))
    Meter.restart(meter, Math.max(delivered, Meter.minRate(meter)), 0)
  }
  pacer.opening = undefined
  pacer.gate = Gate.pause(pacer.gate, "rateLimit", now + verdictMillis(pacer))
}

/** An exhaustion keeps at least this part of a measured rate. */
const minPart = 0.5
/** If the user states a share, the others cut theirs, too, so more is kept: CUBIC's factor (RFC 9438). */
const minPartOfShare = 0.7
/** A share is measured over at least this many calls. */
const spanCalls = 6

/** Sets the share to what was delivered since the last exhaustion, unless nothing was accepted since then. */
const measure = (pacer: Pacer, meter: Meter.Meter, here: Meter.Mark): void => {
  const rate = Meter.rate(meter)
  const from = pacer.gate.misses > 1 ? undefined : meter.mark
  let peak = Math.min(meter.peak, rate)
  if (from !== undefined) {
    const span = here.at - from.at
    if (span >= (spanCalls * meter.mean) / rate) {
      const isGuess = meter.limit === Infinity && meter.best === 0
      const part = entitled(pacer, meter) > 0 ? minPartOfShare : minPart
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

/** Bounds growth from what was delivered in the last minute on, because usage grew too fast. */
const slowDown = (pacer: Pacer, admission: Admission, retryAfter: number | undefined, now: number): Verdict => {
  if (admission.at <= pacer.rampAt) return "ramp"
  for (const meter of pacer.meters) {
    meter.level = Math.min(meter.level, 0)
    meter.fence = now
    if (meter.dimension === "requests" || meter.mean === 0) continue
    const known = meter.ramp === Infinity ? 0 : 0.8 * Meter.rateAt(meter, now)
    meter.ramp = Math.max(Meter.recentRate(meter, now), known, meter.mean / Meter.periodOf(meter))
    meter.rampAt = now
    Meter.pin(meter, now)
  }
  pacer.rampAt = now
  pacer.gate = Gate.close({ ...pacer.gate, misses: 2, fence: now }, "ramp", now + (retryAfter ?? rampPause))
  return "ramp"
}
