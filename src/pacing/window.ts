/**
 * The in-flight window: how many calls may be in flight, learned if the provider limits that without saying so.
 *
 * The sequential test of `verdicts.ts` runs over the calls that find about as many in flight as were ever accepted. It is
 * independent of the test for an empty bucket: a rejection counts in both.
 *
 * A window is a value: each of these functions returns a new one.
 */
import * as Verdicts from "./verdicts.ts"

export interface Window extends Verdicts.Test {
  readonly size: number
  /** The highest number in flight that was accepted; it decays slowly. */
  readonly high: number
  /** The lowest number in flight of the rejections in the score. */
  readonly low: number
  /** The number of calls sent while about as many were in flight as ever. */
  readonly crowded: number
  /** The number of calls that found the window full, less what rejections cost. */
  readonly full: number
  /** When the verdicts on all of those are known. */
  readonly dueAt: number | undefined
  /** By how much it grows next, and how many calls have to find it full before. */
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

/** A limit of one call in flight looks the same as a bucket. */
const minSize = 2

/** About as many as ever: within a third of the standard deviation of random arrivals. */
const crowd = ({ high, size }: Window): number => Math.min(size, Math.max(minSize, high - Math.sqrt(high) / 3))

/** A call is sent, and there are now `inFlight`. */
export const sent = (w: Window, inFlight: number): Window => {
  if (inFlight < crowd(w)) return w
  return { ...w, crowded: w.crowded + 1, full: inFlight >= w.size ? w.full + 1 : w.full }
}

/** A call was accepted that was sent when there were `inFlight`. */
export const accepted = (w: Window, inFlight: number): Window => ({ ...w, high: Math.max(w.high * 0.999, inFlight) })

/** The lowest rate of random rejections here: a window is suspected after about four rejections in a row. */
const minRandom = 0.02
/** The rate of rejections that is worth a reaction: even if the window is too large only by one, most calls that find it full are rejected. */
const worthActing = 0.5
/** The score at which a known window shrinks, at odds of 50 to 1. */
const shrinkScore = 4
/** What the first suspicion needs beyond the usual score: odds of 20 to 1. */
const firstScore = 3
/** A rejection in a full window subtracts this many calls from the count. */
const rejectionCost = 4

/** A call was rejected. Of those in flight now, `confirmed` are known to be accepted. */
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

/** The calls that have to find a full window before it grows: twice as many after each failed attempt, up to eight times. */
const growthCalls = 10
const maxGrowthCalls = 80

const shrunk = (w: Window, confirmed: number): Window => {
  const found = Math.min(w.size, Math.max(w.low - 1, Math.floor(confirmed)))
  const size = found < minSize ? Infinity : found
  const need = w.need === 0 ? growthCalls : Math.min(maxGrowthCalls, 2 * w.need)
  return { ...w, size, high: Math.min(w.high, size), score: 0, full: 0, need, step: 1 }
}

/** A window that has grown by a larger step than this is no longer limited. */
const maxStep = 256

/** Grows by 1, 2, 4, ... calls once enough calls have found the window full and their verdicts are known. */
export const grow = (w: Window, now: number, verdictMillis: number): Window => {
  if (w.full < w.need) return w
  const { dueAt = now + verdictMillis } = w
  if (now < dueAt) return dueAt === w.dueAt ? w : { ...w, dueAt }
  const step = 2 * w.step
  return {
    ...w,
    size: step > maxStep ? Infinity : w.size + w.step,
    step,
    // The third step in a row: the window was too small.
    need: step > 4 ? growthCalls : w.need,
    full: 0,
    dueAt: undefined
  }
}

/** When a full window may grow; `Infinity` while too few calls have found it full. */
export const growsAt = ({ dueAt = Infinity, full, need }: Window): number => (full < need ? Infinity : dueAt)
