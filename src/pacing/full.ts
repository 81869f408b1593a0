/**
 * Whether a call was rejected or failed because too many are in flight. Servers with a number of slots answer 429 or 503 when all are
 * taken, and a proxy in front of them may break the connection.
 */
import { isUnknown, type Admission, type Pacer } from "./pacer.ts"
import { alarmScore, pendingCalls, verdictMillis } from "./rates.ts"
import * as Window from "./window.ts"

/** What else may explain a rejection or a failure. */
interface Otherwise {
  /** Whether no bucket was empty. */
  readonly hasRoom: boolean
  /** The rate of random rejections or failures. */
  readonly random: number
  /** Whether an outage may be beginning, in which calls fail however few are in flight. Then only a known limit is suspected. */
  readonly mayBeOutage: boolean
}

/** Learns from a rejection or a failure. True if a limit of calls in flight explains it, because the call was an attempt to grow. */
export const judge = (
  pacer: Pacer,
  admission: Admission,
  { hasRoom, mayBeOutage, random }: Otherwise,
  now: number
): boolean => {
  const { gate, window } = pacer
  const inFlight = Window.othersAt(admission, pacer.refused - 1) + 1
  pacer.window = Window.noted(window, admission, pacer.refused - 1, now)
  if (admission.at <= gate.fence) return false
  if (Window.isAttempt(window, inFlight, now)) {
    pacer.window = Window.attempted(pacer.window, now, verdictMillis(pacer))
    if (pacer.window.sure === undefined && (isUnknown(pacer) || hasRoom)) acquit(pacer, now)
    // It says nothing else, unless an empty bucket is as likely, or more was accepted than had been claimed.
    return window.refutedAt === undefined && (isUnknown(pacer) || hasRoom)
  }
  const isSuspect = window.size < Infinity || !(isUnknown(pacer) || mayBeOutage)
  if (gate.misses < 2 && isSuspect) {
    const rates = { random, score: alarmScore(pacer), pending: pendingCalls(pacer) }
    pacer.window = Window.rejected(pacer.window, { inFlight, crowded: admission.crowded }, rates)
  }
  return false
}

/** While no limit is known, two calls that found as many in flight are enough, at odds of 150 to 1. */
const openingTimes = 2
const openingScore = 5

/** Whether a limit of calls in flight explains the last rejections or failures better than what the `score` is evidence for. */
export const explains = (pacer: Pacer, score: number): boolean =>
  isUnknown(pacer)
    ? score >= openingScore && Window.explains(pacer.window, openingTimes)
    : score >= alarmScore(pacer) && Window.explains(pacer.window)

/** What a limit of calls in flight needs beyond the usual score to explain failures: odds of 20 to 1. */
const failureScore = 3

/**
 * Whether a limit of calls in flight explains the last failures. Because calls also fail at random, nearly all calls since the first
 * failed one must have failed, too.
 */
export const explainsFailures = (pacer: Pacer, { number }: Admission, score: number): boolean => {
  const dense = isUnknown(pacer) ? openingScore : alarmScore(pacer) + failureScore
  return explains(pacer, score) && Window.isDense(pacer.window, number, pacer.randomOverload, dense)
}

/** Holds as many calls in flight as the last rejections or failures found. */
export const claim = (pacer: Pacer, now: number): void => {
  pacer.window = Window.claim(pacer.window, now, verdictMillis(pacer))
  acquit(pacer, now)
}

/** The calls in flight explain the last rejections, and any later ones of calls that were sent before. So no bucket was empty. */
const acquit = (pacer: Pacer, now: number): void => {
  pacer.gate = { ...pacer.gate, fence: now, misses: 0 }
  pacer.bucketTest = { ...pacer.bucketTest, score: 0 }
}
