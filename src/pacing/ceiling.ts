/**
 * The ceiling of a measured limit, for servers that take every call into their batch and only get slower: no call waits for its first
 * token, but beyond some number callers stop waiting for their answers. It is learned from the calls that are lost.
 *
 * A ceiling is a value: each of these functions returns a new one.
 */

/** The first ceiling. */
export const first = 16

export const make = (now: number) => ({
  calls: first,
  /** Whether lost calls have never lowered it. */
  isOpening: true,
  /** Since when it is judged, and the calls answered and lost since then. */
  since: now,
  answered: 0,
  lost: 0,
  /** When a call was last answered, and how long the last lost one had waited. */
  answeredAt: -Infinity,
  patience: 0
})

export type Ceiling = Readonly<ReturnType<typeof make>>

/** A call that has ended. */
interface EndedCall {
  readonly sentAt: number
  /** The calls that were in flight, itself among them. */
  readonly inFlight: number
  /** How much longer than at best a token lately takes, as a factor. */
  readonly slowness: number
  /** Whether most calls in flight have not begun. */
  readonly isWaiting: boolean
}

/** While a token takes at most so many times the least, each answer opens the ceiling by one. */
const opensTo = 1.6
/** If more than this part of the calls was lost, the ceiling is cut by a part of that; if less than the other was, it grows. */
const cutAbove = 0.2
const cutBy = 0.7
const maxCut = 0.5
const growBelow = 0.07
/** Fewer calls help only if a token takes so many times the least, or calls wait. */
const slower = 1.3
/** At least so many calls are judged together, and as many as are in flight. */
const minJudged = 8

/** A call was answered. */
export const answered = (c: Ceiling, call: EndedCall, now: number): Ceiling => {
  const opens = c.isOpening && call.inFlight > c.calls / 2 && call.slowness <= opensTo
  return judged({ ...c, answeredAt: now, calls: opens ? c.calls + 1 : c.calls }, 1, 0, call, now)
}

/** A call was lost: its caller has stopped waiting, or the server has failed. */
export const lost = (c: Ceiling, call: EndedCall, now: number): Ceiling => {
  // While nothing is answered the server is down or loads its model, and fewer calls would not help.
  if (c.answeredAt < (call.sentAt + now) / 2) return restarted(c, c.calls, now)
  return judged({ ...c, patience: now - call.sentAt }, 0, 1, call, now)
}

const restarted = (c: Ceiling, calls: number, now: number): Ceiling => ({
  ...c,
  calls,
  since: now,
  answered: 0,
  lost: 0
})

/** Counts a call, and changes the ceiling once enough were counted. */
const judged = (before: Ceiling, answered: number, lost: number, call: EndedCall, now: number): Ceiling => {
  // Short calls end first, so a change is judged when the long ones have ended, too.
  if (now < before.since + before.patience) return before
  const c = { ...before, answered: before.answered + answered, lost: before.lost + lost }
  const count = c.answered + c.lost
  if (count < Math.max(minJudged, call.inFlight)) return c
  const part = c.lost / count
  if (part > cutAbove && (call.slowness > slower || call.isWaiting)) return cut(c, part, call.inFlight, now)
  const isUsed = call.inFlight >= c.calls / 2
  return restarted(c, part <= growBelow && isUsed ? c.calls * (c.lost === 0 ? 1.25 : 1.1) : c.calls, now)
}

const cut = (c: Ceiling, part: number, inFlight: number, now: number): Ceiling => {
  const calls = Math.min(c.calls, inFlight) * (1 - Math.min(maxCut, part * cutBy))
  return { ...restarted(c, Math.max(1, calls), now), isOpening: false }
}
