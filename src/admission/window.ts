/**
 * The in-flight window: how many calls may be out at once, learned where the provider limits that without saying so.
 *
 * The sequential test of `verdicts.ts` runs over those calls alone that find about as many in flight as were ever
 * accepted. It judges independently of the rate: each explains its own rejections, neither explains the other's away.
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
  size: number
  /** The most calls in flight that were accepted, slowly forgotten. */
  high: number
  /** The fewest in flight among the rejections of this score. */
  low: number
  /** Calls sent that found about as many in flight as ever. */
  crowded: number
  /** Calls sent that found the window full and were not rejected. */
  full: number
  /** When the verdicts on those are all in. */
  dueAt: number | undefined
  step: number
  need: number
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
export const sent = (w: Window, inFlight: number): void => {
  if (inFlight >= crowd(w)) w.crowded++
  if (inFlight >= w.size) w.full++
}

/** A call that made so many in flight was accepted. */
export const accepted = (w: Window, inFlight: number): void => {
  w.high = Math.max(w.high * 0.999, inFlight)
}

/** A call that made so many in flight was rejected. `confirmed` are calls in flight that are known to be accepted. */
export const rejected = (
  w: Window,
  call: { readonly inFlight: number; readonly crowded: number },
  rates: { readonly random: number; readonly score: number; readonly pending: number },
  confirmed: number
): void => {
  if (call.inFlight < crowd(w)) return
  const accepted = Math.max(0, call.crowded - w.seen - 1)
  const scale = { p: Math.max(leastRandom, rates.random), q: worthActing, pending: rates.pending }
  const isFirst = Verdicts.failed(w, call.crowded, accepted, scale)
  w.low = isFirst ? call.inFlight : Math.min(w.low, call.inFlight)
  if (w.score >= (call.inFlight >= w.size ? shrinkScore : firstScore + rates.score)) {
    w.size = Math.min(w.size, Math.max(w.low - 1, Math.floor(confirmed)))
    if (w.size < leastSize) w.size = Infinity
    w.high = Math.min(w.high, w.size)
    w.score = w.full = 0
    w.need = w.need === 0 ? growthCalls : Math.min(mostGrowthCalls, 2 * w.need)
    w.step = 1
  }
  if (call.inFlight >= w.size) {
    w.full -= rejectionCost
    w.dueAt = undefined
  }
}

/**
 * A full window grows by 1, 2, 4, ... calls when enough found it full and were accepted. Returns when to ask again: when
 * the verdicts on those are in, or `Infinity` while there are too few of them.
 */
export const grow = (w: Window, now: number, verdictMillis: number): number => {
  if (w.full < w.need) return Infinity
  w.dueAt ??= now + verdictMillis
  if (now < w.dueAt) return w.dueAt
  w.size += w.step
  w.step *= 2
  // Three steps in a row: it was wrong.
  if (w.step > 4) w.need = growthCalls
  w.full = 0
  w.dueAt = undefined
  if (w.step > largestStep) w.size = Infinity
  return now
}
