/**
 * The in-flight window: how many calls may be in flight, learned if the provider limits that without saying so.
 *
 * A limit of calls in flight rejects every call that finds it full, and no other. So all of its rejections find the same number
 * in flight, which is the most that was ever accepted, and that is what a limit is claimed from. An empty bucket rejects at any
 * number. What cannot be told apart at first, because the calls in flight only increase, is settled by an attempt: the window
 * grows, and an empty bucket accepts the next call as soon as it has refilled.
 *
 * A known window shrinks by the sequential test of `verdicts.ts`, over the calls that find it nearly full.
 *
 * Numbers in flight are those at the provider: without calls that were rejected, though that was not known yet. A window is a
 * value: each of these functions returns a new one.
 */
import * as Verdicts from "./verdicts.ts"

/** Rejections of calls that were sent before the first of them was known. */
export interface Burst {
  readonly knownAt: number
  /** How many calls had been refused before. */
  readonly refused: number
  /** How many they are, and those before them that found as many in flight. */
  readonly times: number
  /** The number of the first call that was rejected, and the calls in flight that it found. Those had all been accepted. */
  readonly first: number
  readonly found: number
}

export const make = () => ({
  ...Verdicts.makeTest(),
  size: Infinity,
  /** While it grows, the size before: calls beyond it are attempts. */
  sure: undefined as number | undefined,
  /** The highest number in flight that was accepted; it decays slowly. */
  high: 0,
  /** The last rejections that became known together, if there were any. */
  burst: undefined as Burst | undefined,
  /** The size that was claimed, and when the provider accepted clearly more. */
  claimed: undefined as number | undefined,
  refutedAt: undefined as number | undefined,
  /** The lowest number in flight of the rejections in the score. */
  low: 0,
  /** The number of calls sent while about as many were in flight as ever. */
  crowded: 0,
  /** The number of calls that found the window full, less what rejections cost. */
  full: 0,
  /** When the verdicts on all of those are known. */
  dueAt: undefined as number | undefined,
  /** The size of its next growth, and how many calls have to find it full before. */
  step: 1,
  need: 0,
  /** When it grows in any case, and how long after the last failed attempt that is. */
  retryAt: undefined as number | undefined,
  pause: undefined as number | undefined,
  /** Rejections of the attempt under way. */
  missed: undefined as number | undefined
})

export type Window = Readonly<ReturnType<typeof make>>

/** A limit of one call in flight looks the same as a bucket. */
const minSize = 2

/** About as many as ever: within a third of the standard deviation of random arrivals. */
const crowd = ({ high, size }: Window): number => Math.min(size, Math.max(minSize, high - Math.sqrt(high) / 3))

/** A call is sent, and there are now `inFlight`. */
export const sent = (w: Window, inFlight: number): Window => {
  if (inFlight < crowd(w)) return w
  return { ...w, crowded: w.crowded + 1, full: inFlight >= w.size ? w.full + 1 : w.full }
}

/** A call was accepted that was sent when there were `inFlight`, if that is known. */
export const accepted = (w: Window, inFlight: number | undefined, sentAt: number): Window => {
  const high = Math.max(w.high * 0.999, inFlight ?? 0)
  const refutedAt = w.refutedAt !== undefined && sentAt > w.refutedAt ? undefined : w.refutedAt
  return high === w.high && refutedAt === w.refutedAt ? w : { ...w, high, refutedAt }
}

// -----------------------------------------------------------------------------
// Rejections
// -----------------------------------------------------------------------------

/**
 * A call was rejected, and `refused` had been before. Rejections come out of order, so only the first call of a burst is known to have
 * found nothing but accepted calls.
 */
export const noted = (w: Window, call: Sent, refused: number, now: number): Window => {
  const { burst } = w
  if (burst === undefined || call.at >= burst.knownAt) {
    const high = Math.max(w.high, burst?.found ?? 0)
    const found = othersAt(call, refused)
    const times = burst?.found === found ? burst.times + 1 : 1
    return { ...w, high, burst: { knownAt: now, refused, times, first: call.number, found } }
  }
  const times = burst.times + 1
  if (call.number > burst.first) return { ...w, burst: { ...burst, times } }
  const found = othersAt(call, burst.refused)
  const next = { ...w, burst: { ...burst, times, first: call.number, found } }
  // This burst had suggested too large a size.
  return w.sure === undefined && w.size === burst.found
    ? { ...next, size: Math.max(minSize, Math.min(w.size, found)) }
    : next
}

/** A call: its number, when it was sent, the calls in flight with it, and how many had been refused by then. */
interface Sent {
  readonly at: number
  readonly number: number
  readonly inFlight: number
  readonly refused: number
}

/** The calls that the provider had in flight when a call was sent, if it had refused so many of those sent before. */
export const othersAt = ({ inFlight, refused }: Sent, known: number): number =>
  Math.max(0, inFlight - 1 - Math.max(0, known - refused))

/** A limit is claimed from this many rejections that found as many in flight. */
const minTimes = 3

/**
 * Whether a limit of calls in flight explains the last rejections: at least `times` of them found as many in flight as ever, or up to
 * `slack` fewer.
 */
export const explains = (
  { burst, high, refutedAt, size }: Window,
  { slack = 0, times = minTimes }: { readonly slack?: number; readonly times?: number } = {}
): boolean =>
  size === Infinity &&
  refutedAt === undefined &&
  burst !== undefined &&
  burst.found >= Math.max(high - slack, minSize) &&
  burst.times >= times

/** The lowest rate of random rejections here: a window is suspected after about four rejections in a row. */
const minRandom = 0.02
/** The rate of rejections that is worth a reaction: even if the window is too large only by one, most calls that find it full are rejected. */
const worthActing = 0.5

/**
 * Whether nearly all calls were rejected from the first one of the last rejections up to the call with this number, at odds of `score`
 * against random rejections.
 */
export const isDense = ({ burst }: Window, number: number, random: number, score: number): boolean => {
  if (burst === undefined) return false
  const p = Math.max(minRandom, random)
  const accepted = Math.max(0, number - burst.first + 1 - burst.times)
  return burst.times * Math.log(worthActing / p) - accepted * Math.log((1 - p) / (1 - worthActing)) >= score
}

/** Holds as many calls in flight as the last rejections found. The first attempt to grow follows soon. */
export const claim = (w: Window, now: number, verdictMillis: number): Window => {
  const size = Math.max(minSize, w.burst!.found)
  return {
    ...w,
    ...settled(size),
    claimed: size,
    refutedAt: undefined,
    score: 0,
    need: growthCalls,
    retryAt: now + verdictMillis,
    pause: verdictMillis
  }
}

/** A window without an attempt to grow. */
const settled = (size: number) => ({ size, sure: undefined, full: 0, dueAt: undefined, step: 1, missed: undefined })

/** Forgets the limit, because it was something else. */
export const lift = (w: Window): Window => ({
  ...w,
  ...settled(Infinity),
  need: 0,
  retryAt: undefined,
  pause: undefined
})

/**
 * Whether an accepted call refutes a window that has not grown since it was claimed: it was sent after a call that had found the
 * claimed number in flight and was rejected, and it found half as many again.
 */
export const refutes = ({ burst, claimed = Infinity, size }: Window, call: Sent, refused: number): boolean =>
  size <= claimed && burst !== undefined && call.number > burst.first && othersAt(call, refused) > 1.5 * claimed + 2

/** Whether a call that made so many in flight was an attempt to grow. */
export const isAttempt = ({ dueAt = Infinity, sure }: Window, inFlight: number, now: number): boolean =>
  sure !== undefined && inFlight > sure && now < dueAt

/** After a failed attempt the next one comes after this many times the pause, up to the longest. */
const pauseFactor = 4
const maxPause = 600_000

/** An attempt was rejected. Of several together, one may be rejected at random. */
export const attempted = (w: Window, now: number, verdictMillis: number): Window => {
  const { missed = 0, need, pause = verdictMillis, sure = w.size } = w
  const isSingle = w.size - sure <= 1
  if (!isSingle && missed === 0) return { ...w, missed: 1, dueAt: undefined }
  const size = Math.max(sure, w.burst?.found ?? 0)
  const hasGrown = size > sure
  const next = hasGrown ? verdictMillis : Math.min(maxPause, pauseFactor * pause)
  return {
    ...w,
    ...settled(size),
    need: hasGrown ? growthCalls : Math.min(maxGrowthCalls, 2 * Math.max(growthCalls, need)),
    retryAt: now + next,
    pause: next
  }
}

/** The score at which a known window shrinks, at odds of 50 to 1. */
const shrinkScore = 4
/** The evidence that the first suspicion needs beyond the usual score: odds of 20 to 1. */
const firstScore = 3
/** A rejection in a full window subtracts this many calls from the count. */
const rejectionCost = 4

/** A call was rejected that was no attempt to grow. */
export const rejected = (
  w: Window,
  call: { readonly inFlight: number; readonly crowded: number },
  rates: { readonly random: number; readonly score: number; readonly pending: number }
): Window => {
  if (call.inFlight < crowd(w)) return w.sure === undefined ? w : { ...w, dueAt: undefined }
  const accepted = Math.max(0, call.crowded - w.seen - 1)
  const scale = { p: Math.max(minRandom, rates.random), q: worthActing, pending: rates.pending }
  const { isFirst, ...test } = Verdicts.failed(w, call.crowded, accepted, scale)
  const judged = { ...w, ...test, low: isFirst ? call.inFlight : Math.min(w.low, call.inFlight) }
  const isAlarm = test.score >= (call.inFlight >= w.size ? shrinkScore : firstScore + rates.score)
  const next = isAlarm ? shrunk(judged) : judged
  return call.inFlight >= next.size ? { ...next, full: next.full - rejectionCost, dueAt: undefined } : next
}

/** The calls that have to find a full window before it grows: twice as many after each failed attempt, up to eight times. */
const growthCalls = 10
export const maxGrowthCalls = 80

const shrunk = (w: Window): Window => {
  const size = Math.max(minSize, Math.min(w.size, w.low - 1))
  const need = w.need === 0 ? growthCalls : Math.min(maxGrowthCalls, 2 * w.need)
  return { ...w, ...settled(size), high: Math.min(w.high, size), score: 0, need }
}

// -----------------------------------------------------------------------------
// Growth
// -----------------------------------------------------------------------------

/** A window that has grown by a larger step than this is no longer limited. */
const maxStep = 256

/** Grows by 1, 2, 4, ... calls, once enough calls have found the window full or the pause is over. */
export const grow = (w: Window, now: number, verdictMillis: number): Window => {
  if (w.sure === undefined && now >= (w.retryAt ?? Infinity)) return grown(w, now)
  if (w.sure === undefined && w.full < w.need) return w
  const { dueAt = now + verdictMillis } = w
  if (now < dueAt) return dueAt === w.dueAt ? w : { ...w, dueAt }
  return grown(w, now)
}

const grown = (w: Window, now: number): Window => {
  const step = 2 * w.step
  const next = { ...w, sure: w.size, step, full: 0, dueAt: undefined, missed: undefined }
  if (step > maxStep) return lift(next)
  return { ...next, size: w.size + w.step, refutedAt: isRefuted(w) ? (w.refutedAt ?? now) : w.refutedAt }
}

/** Whether clearly more calls in flight were accepted than the limit that was claimed. */
const isRefuted = ({ claimed = Infinity, size }: Window): boolean => size > claimed + Math.max(2, claimed / 8)

/** The time when a full window may grow; `Infinity` if that depends on other events. */
export const growsAt = ({ dueAt = Infinity, full, need, retryAt = Infinity, sure }: Window): number => {
  if (sure !== undefined) return dueAt
  return Math.min(retryAt, full < need ? Infinity : dueAt)
}

/** A window that does not grow. */
export const held = (w: Window): Window => ({ ...w, ...settled(w.sure ?? w.size), need: Infinity, retryAt: undefined })
