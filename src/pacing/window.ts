/**
 * The in-flight window: how many calls may be out at once, learned where the provider limits that without saying so.
 *
 * The sequential test of `verdicts.ts` runs over those calls alone that find about as many in flight as were ever
 * accepted. It is independent of the test for an empty bucket: a rejection counts in both.
 *
 * A window is a value: each of these functions returns another one.
 */
import * as Verdicts from "./verdicts.ts"

export interface Window extends Verdicts.Test {
  readonly size: number
  /** The most calls in flight that were accepted; it decays slowly. */
  readonly high: number
  /** The fewest calls in flight among the rejections that make up the score. */
  readonly low: number
  /** Calls sent while about as many were in flight as ever. */
  readonly crowded: number
  /** Calls that found the window full and were not rejected. */
  readonly full: number
  /** When the verdicts on those are all in. */
  readonly dueAt: number | undefined
  readonly step: number
  readonly need: number
}

export const make = (): Window => ({
  ...Verdicts.makeTest(),
  size: Infinity,
  high: 0,
  low: 0,
  crowded: 0,
  full: 0,
  dueAt: undefined,
  step: 1,
  need: 0
})

/** A limit of fewer calls in flight looks the same as a bucket. */
const minSize = 2

/** As many as ever, within a third of the standard deviation of random arrivals. */
const crowd = ({ high, size }: Window): number => Math.min(size, Math.max(minSize, high - Math.sqrt(high) / 3))

/** A call goes out and makes so many in flight. */
export const sent = (w: Window, inFlight: number): Window => {
  if (inFlight < crowd(w)) return w
  return { ...w, crowded: w.crowded + 1, full: inFlight >= w.size ? w.full + 1 : w.full }
}

/** A call was accepted that made so many in flight. */
export const accepted = (w: Window, inFlight: number): Window => ({ ...w, high: Math.max(w.high * 0.999, inFlight) })

/** Random rejections are at least this likely: a window is suspected after about four in a row. */
const minRandom = 0.02
/** The rate of rejections where the window is too large by one: most calls that find it full. */
const worthActing = 0.5
/** The score at which a known window shrinks: odds of 50 to 1. */
const shrinkScore = 4
/** Added to the usual score for the first suspicion: odds of 20 to 1. */
const firstScore = 3
/** A rejection in a full window takes this many calls off the count. */
const rejectionCost = 4

/** A call was rejected that made so many in flight, of which `confirmed` are known to be accepted. */
export const rejected = (
  w: Window,
  call: { readonly inFlight: number; readonly crowded: number },
  rates: { readonly random: number; readonly score: number; readonly pending: number },
  confirmed: number
): Window => {
  if (call.inFlight < crowd(w)) return w
  const accepted = Math.max(0, call.crowded - w.seen - 1)
  const scale = { p: Math.max(minRandom, rates.random), q: worthActing, pending: rates.pending }
  const { isFirst, ...test } = Verdicts.failed(w, call.crowded, accepted, scale)
  const judged = { ...w, ...test, low: isFirst ? call.inFlight : Math.min(w.low, call.inFlight) }
  const isAlarm = test.score >= (call.inFlight >= w.size ? shrinkScore : firstScore + rates.score)
  const next = isAlarm ? shrunk(judged, confirmed) : judged
  return call.inFlight >= next.size ? { ...next, full: next.full - rejectionCost, dueAt: undefined } : next
}

/** Calls accepted in a full window before it grows; after each failed attempt twice as many, up to eight times. */
const growthCalls = 10
const maxGrowthCalls = 80

const shrunk = (w: Window, confirmed: number): Window => {
  const found = Math.min(w.size, Math.max(w.low - 1, Math.floor(confirmed)))
  const size = found < minSize ? Infinity : found
  const need = w.need === 0 ? growthCalls : Math.min(maxGrowthCalls, 2 * w.need)
  return { ...w, size, high: Math.min(w.high, size), score: 0, full: 0, need, step: 1 }
}

/** Once a window has grown by a step of this size, there is no limit. */
const maxStep = 256

/** Grows by 1, 2, 4, ... calls once enough calls found the window full and the verdicts on them are in. */
export const grow = (w: Window, now: number, verdictMillis: number): Window => {
  if (w.full < w.need) return w
  const { dueAt = now + verdictMillis } = w
  if (now < dueAt) return dueAt === w.dueAt ? w : { ...w, dueAt }
  const step = 2 * w.step
  return {
    ...w,
    size: step > maxStep ? Infinity : w.size + w.step,
    step,
    // Three steps in a row: the window was too small.
    need: step > 4 ? growthCalls : w.need,
    full: 0,
    dueAt: undefined
  }
}

/** When a full window may grow; `Infinity` while too few calls found it full. */
export const growsAt = ({ dueAt = Infinity, full, need }: Window): number => (full < need ? Infinity : dueAt)
