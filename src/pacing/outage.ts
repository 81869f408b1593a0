/**
 * The provider failed, or could not be reached: a 529, a 5xx, a refused or broken connection, a timeout.
 *
 * Random failures are isolated. If too many calls in flight explain them, the window holds fewer. If nothing is accepted between
 * failures otherwise, there is an outage: the pool pauses, and one call at a time probes whether it is over.
 */
import { end, type FailedCall } from "./ends.ts"
import * as Full from "./full.ts"
import * as Gate from "./gate.ts"
import { alarmScore, callRate, maxSilence, meanWith, silenceMillis } from "./rates.ts"
import type { Pacer, Admission } from "./state.ts"
import * as Verdicts from "./verdicts.ts"
import type { Verdict } from "./verdicts.ts"

/** In an outage nearly every call fails. */
const outageRate = 0.9
/** The lowest score of an alarm: at least two failures in a row. */
const outageScore = 6
/** The waits before probes. The end of an outage is noticed within 10 s, and an outage of 10 minutes takes 64 probes. */
const outageMillis = [1_000, 2_000, 3_000, 5_000, 7_000, 10_000]
/** The longest wait if a probe can move to another place: then a failed probe delays its call only by the time of the failure. */
const movingMillis = 3_000

/** A call failed because the provider failed, or could not be reached. */
export const overload = (
  pacer: Pacer,
  admission: Admission,
  { canMove = false, retryAfter = 0, used }: Omit<FailedCall, "reason" | "readings">,
  now: number
): Verdict => {
  const { gate } = pacer
  const isOutage = gate.reason === "overload" && gate.misses > 0
  end(pacer, admission, used, false, now)
  const upTo = admission.earlier - pacer.failed++
  if (isOutage && admission.at <= gate.fence) return "outage"
  pacer.overloadMillis = meanWith(pacer.overloadMillis, admission, now)
  if (!isOutage) {
    judge(pacer, admission, upTo)
    if (isFull(pacer, admission, now)) return "exhausted"
    if (pacer.outageTest.score < Math.max(outageScore, alarmScore(pacer))) return "isolated"
    pacer.outageTest = { ...pacer.outageTest, score: 0 }
  }
  const failures = isOutage ? gate.misses : 1
  const longest = outageMillis[Math.min(failures, outageMillis.length) - 1]!
  const pause = canMove ? Math.min(longest, movingMillis) : longest
  const until = now + Math.max(pause, Math.min(retryAfter, maxSilence))
  pacer.gate = Gate.close({ ...gate, misses: failures + 1, fence: now }, "overload", until)
  return "outage"
}

/** Adds a failure to the sequential test for an outage. `upTo` calls were accepted before this one. */
const judge = (pacer: Pacer, admission: Admission, upTo: number): void => {
  const accepted = Math.max(0, upTo - pacer.failedUpTo)
  pacer.failedUpTo = Math.max(pacer.failedUpTo, upTo)
  const scale = { p: pacer.randomOverload, q: outageRate, pending: callRate(pacer) * silenceMillis(pacer) }
  const { score, seen, surplus } = Verdicts.failed(pacer.outageTest, admission.earlier, accepted, scale)
  if (accepted > 0)
    pacer.randomOverload = Verdicts.learn(pacer.randomOverload, accepted + 1, true, Verdicts.minOverload)
  pacer.outageTest = { score, surplus, seen }
}

/** A provider whose slots are all taken says so at once. A call that fails later failed for another reason. */
const quickMillis = 2_000

/** Judges whether the call failed because too many are in flight. Then there is no outage, and the window holds fewer. */
const isFull = (pacer: Pacer, admission: Admission, now: number): boolean => {
  if (now - admission.at > quickMillis) return false
  const otherwise = { hasRoom: true, mayBeOutage: true, random: pacer.randomOverload }
  const full = Full.judge(pacer, admission, otherwise, now)
  const isKnown = full === "explained" || (pacer.window.size < Infinity && admission.at <= pacer.gate.fence)
  if (!isKnown && !Full.explainsFailures(pacer, admission, pacer.outageTest.score)) return false
  pacer.rejectMillis = meanWith(pacer.rejectMillis, admission, now)
  pacer.outageTest = { ...pacer.outageTest, score: 0 }
  if (!isKnown) Full.claim(pacer, now)
  return true
}
