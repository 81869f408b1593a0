/**
 * Whether a call was rejected or failed because too many are in flight. Servers with a number of slots answer 429 or 503 when all are
 * taken, and a proxy in front of them may break the connection.
 */
import { isUnknown, type Admission, type Pacer } from "./state.ts"
import { alarmScore, pendingCalls, verdictMillis } from "./rates.ts"
import * as Window from "./window.ts"

/** Other explanations of a rejection or a failure. */
interface Otherwise {
  /** Whether no bucket was empty. */
  readonly hasRoom: boolean
  /** The rate of random rejections or failures. */
  readonly random: number
  /** Whether an outage may be beginning, in which calls fail however few are in flight. Then only a known limit is suspected. */
  readonly mayBeOutage: boolean
}

/**
 * Learns from a rejection or a failure. Returns whether the call was an attempt to grow, and then whether a limit of calls in flight
 * explains it, so that it is evidence of nothing else.
 */
export const judge = (
  pacer: Pacer,
  admission: Admission,
  { hasRoom, mayBeOutage, random }: Otherwise,
  now: number
): "no attempt" | "attempt" | "explained" => {
  const { gate, window } = pacer
  const inFlight = Window.othersAt(admission, pacer.refused - 1) + 1
  pacer.window = Window.noted(window, admission, pacer.refused - 1, now)
  if (admission.at <= gate.fence) return "no attempt"
  if (Window.isAttempt(window, inFlight, now)) return judgeAttempt(pacer, isUnknown(pacer) || hasRoom, now)
  const isSuspect = window.size < Infinity || !(isUnknown(pacer) || mayBeOutage)
  if (gate.misses < 2 && isSuspect) {
    const rates = { random, score: alarmScore(pacer), pending: pendingCalls(pacer) }
    pacer.window = Window.rejected(pacer.window, { inFlight, crowded: admission.crowded }, rates)
  }
  return "no attempt"
}

/** An attempt to grow was rejected or failed. `isClear` says that an empty bucket is less likely than a full server. */
const judgeAttempt = (pacer: Pacer, isClear: boolean, now: number): "attempt" | "explained" => {
  pacer.window = Window.attempted(pacer.window, now, verdictMillis(pacer))
  if (pacer.window.sure === undefined && isClear) dropEvidence(pacer, now)
  // If more was accepted than had been claimed, that was an empty bucket.
  return isClear && pacer.window.refutedAt === undefined ? "explained" : "attempt"
}

/** While no limit is known, two calls that found as many in flight are enough, at odds of 150 to 1. */
const openingTimes = 2
const openingScore = 5

/** Whether a limit of calls in flight explains the last rejections or failures better than what the `score` is evidence for. */
export const explains = (pacer: Pacer, score: number, slack = 0): boolean =>
  isUnknown(pacer)
    ? score >= openingScore && Window.explains(pacer.window, { times: openingTimes, slack })
    : score >= alarmScore(pacer) && Window.explains(pacer.window, { slack })

/** The evidence that a limit of calls in flight needs beyond the usual score to explain failures: odds of 20 to 1. */
const failureScore = 3

/**
 * Whether a limit of calls in flight explains the last failures. Because calls also fail at random, nearly all calls since the first
 * failed one must have failed, too.
 */
export const explainsFailures = (pacer: Pacer, { number }: Admission, score: number): boolean => {
  const dense = isUnknown(pacer) ? openingScore : alarmScore(pacer) + failureScore
  return explains(pacer, score, 1) && Window.isDense(pacer.window, number, pacer.randomOverload, dense)
}

/** Holds as many calls in flight as the last rejections or failures found. */
export const claim = (pacer: Pacer, now: number): void => {
  pacer.window = Window.claim(pacer.window, now, verdictMillis(pacer))
  dropEvidence(pacer, now)
}

/**
 * Drops the evidence for an empty bucket, because the calls in flight explain the last rejections, and any later ones of calls that
 * were sent before.
 */
const dropEvidence = (pacer: Pacer, now: number): void => {
  pacer.gate = { ...pacer.gate, fence: now, misses: 0 }
  pacer.bucketTest = { ...pacer.bucketTest, score: 0 }
}
