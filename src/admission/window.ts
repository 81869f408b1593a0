/**
 * The in-flight window: how many calls may be out at once, learned where the provider limits that without saying so.
 *
 * The sequential test of `verdicts.ts` runs over those calls alone that find about as many in flight as were ever
 * accepted. It judges independently of the rate: each explains its own rejections, neither explains the other's away.
 *
 * A window is a value: each of these functions returns another one.
 */
import * as Verdicts from "./verdicts.ts"

/** A limit of fewer calls in flight cannot be told from a bucket. */
const leastSize = 2
/** Random rejections are at least this likely: a window is suspected after about four in a row. */
const leastRandom = 0.02
/** Rejections for each call at a window that is too large by one: most of those that find it full. */
const worthActing = 0.5
/** The score at which a window that is known shrinks: odds of 50 to 1. */
const shrinkScore = 4
/** What a first suspicion needs beyond the usual score: odds of 20 to 1. */
const firstScore = 3
/** Calls accepted in a full window before it grows; after each failed attempt twice as many, up to eight times. */
const growthCalls = 10
const mostGrowthCalls = 80
/** A rejection in a full window counts as this many calls fewer. */
const rejectionCost = 4
/** A window that has grown in steps up to this was no limit. */
const largestStep = 256

export interface Window extends Verdicts.Test {
  readonly size: number
  /** The most calls in flight that were accepted, slowly forgotten. */
  readonly high: number
  /** The fewest in flight among the rejections of this score. */
  readonly low: number
  /** Calls sent that found about as many in flight as ever. */
  readonly crowded: number
  /** Calls sent that found the window full and were not rejected. */
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

/** As many as ever, within a third of the standard deviation of random arrivals. */
const crowd = ({ high, size }: Window): number => Math.min(size, Math.max(leastSize, high - Math.sqrt(high) / 3))

/** A call goes out and makes so many in flight. */
export const sent = (w: Window, inFlight: number): Window => {
  if (inFlight < crowd(w)) return w
  return { ...w, crowded: w.crowded + 1, full: inFlight >= w.size ? w.full + 1 : w.full }
}

/** A call that made so many in flight was accepted. */
export const accepted = (w: Window, inFlight: number): Window => ({ ...w, high: Math.max(w.high * 0.999, inFlight) })

/** A call that made so many in flight was rejected. `confirmed` are calls in flight that are known to be accepted. */
export const rejected = (
  w: Window,
  call: { readonly inFlight: number; readonly crowded: number },
  rates: { readonly random: number; readonly score: number; readonly pending: number },
  confirmed: number
): Window => {
  if (call.inFlight < crowd(w)) return w
  const accepted = Math.max(0, call.crowded - w.seen - 1)
  const scale = { p: Math.max(leastRandom, rates.random), q: worthActing, pending: rates.pending }
  const { isFirst, ...test } = Verdicts.failed(w, call.crowded, accepted, scale)
  const judged = { ...w, ...test, low: isFirst ? call.inFlight : Math.min(w.low, call.inFlight) }
  const isAlarm = test.score >= (call.inFlight >= w.size ? shrinkScore : firstScore + rates.score)
  const next = isAlarm ? shrunk(judged, confirmed) : judged
  return call.inFlight >= next.size ? { ...next, full: next.full - rejectionCost, dueAt: undefined } : next
}

const shrunk = (w: Window, confirmed: number): Window => {
  const found = Math.min(w.size, Math.max(w.low - 1, Math.floor(confirmed)))
  const size = found < leastSize ? Infinity : found
  const need = w.need === 0 ? growthCalls : Math.min(mostGrowthCalls, 2 * w.need)
  return { ...w, size, high: Math.min(w.high, size), score: 0, full: 0, need, step: 1 }
}

/**
 * A full window grows by 1, 2, 4, ... calls when enough found it full and were accepted, as soon as the verdicts on those
 * are in.
 */
export const grow = (w: Window, now: number, verdictMillis: number): Window => {
  if (w.full < w.need) return w
  const { dueAt = now + verdictMillis } = w
  if (now < dueAt) return dueAt === w.dueAt ? w : { ...w, dueAt }
  const step = 2 * w.step
  return {
    ...w,
    size: step > largestStep ? Infinity : w.size + w.step,
    step,
    // Three steps in a row: it was wrong.
    need: step > 4 ? growthCalls : w.need,
    full: 0,
    dueAt: undefined
  }
}

/** When a full window may grow; `Infinity` while too few calls found it full. */
export const growsAt = ({ dueAt = Infinity, full, need }: Window): number => (full < need ? Infinity : dueAt)
