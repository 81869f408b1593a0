/**
 * The measured limit of calls in flight, for servers that queue any number of calls and never reject one.
 *
 * A server that is full, in its batch or its memory, lets a call wait before its first token; one with room begins at once. So calls are
 * sent while few of the own calls wait for their first token: the limit is the number of those that have begun, plus a window. Nothing has
 * to converge, a server that changes moves the limit within seconds, and processes that share a server hold equal parts of its queue, so
 * each measures for itself. The time of a token is no measure: it rises long before a server is full, and a queue leaves it as it is.
 *
 * Where no first token is heard, a straight line through the tokens and the times of whole answers tells the waiting: its height at no
 * tokens. Beyond both, `ceiling.ts` learns from lost calls.
 *
 * A measured limit is a value: each of these functions returns a new one. Times are in milliseconds.
 */

import * as Ceiling from "./ceiling.ts"

export const make = (now: number) => ({
  /** The calls whose first token has arrived and that still run. */
  begun: 0,
  /** Calls begun in a millisecond, and when that was computed; undefined before the first. */
  rate: 0,
  beganAt: undefined as number | undefined,
  /** The time to the first token: lately, and the least, which is slowly forgotten. */
  firstMillis: Infinity,
  leastFirstMillis: Infinity,
  /** The part of the answers that arrive as they are computed; undefined before the first. */
  streamed: undefined as number | undefined,
  /** The time of a token: lately, and the least, which is slowly forgotten. */
  tokenMillis: 0,
  leastTokenMillis: Infinity,
  /** Means over the last answers: of their tokens x, their times y, the products of these, and the times to their first tokens. */
  line: { n: 0, x: 0, y: 0, xx: 0, xy: 0, first: 0 },
  /** The limit by that line, which follows the one by first tokens while that is in use. */
  byTimes: Ceiling.first,
  ceiling: Ceiling.make(now)
})

export type Measurement = Readonly<ReturnType<typeof make>>

/** The times of a call, and its output so far. */
export interface CallTimes {
  readonly sentAt: number
  readonly beganAt: number | undefined
  readonly output: number
}

/** How a call ended: lost if its caller has stopped waiting or the server failed; left if that says nothing of the server. */
export type Ending = "answered" | "lost" | "left"

// -----------------------------------------------------------------------------
// The limit
// -----------------------------------------------------------------------------

/** The window: as many calls as have begun, within these bounds, a part of those, and at least the starts of a second at the present rate. */
const minWindow = 1
const maxWindow = 3
const partOfBegun = 0.05
const windowMillis = 1_000
/** The rate of starts is a mean over this time. */
const rateMillis = 5_000

/**
 * A first token may take seconds although nothing waits, and then the window has the starts of that time.
 *
 * If the server is far away, all first tokens take about as long as the least; those of a queue differ. The whole of the time counts up to
 * `steady` times the least, and nothing from `unsteady` on. A longer time than `farthest` is a queue.
 */
const farthest = 6_000
const beyondLeast = 1.2
const steady = 1.1
const unsteady = 1.4

const farMillis = ({ firstMillis, leastFirstMillis }: Measurement): number => {
  const part = (unsteady - firstMillis / leastFirstMillis) / (unsteady - steady)
  return part > 0 && leastFirstMillis < farthest ? beyondLeast * leastFirstMillis * Math.min(1, part) : 0
}

/** If something is computed that is not heard, such as hidden reasoning, the line explains it by its tokens, and only the rest is waiting. */
const hiddenMillis = (m: Measurement): number =>
  m.line.n >= minLine && isSpread(m.line) ? m.line.first - heightOf(m) : 0

/** The time whose starts the window has, where first tokens are heard. */
const startMillis = (m: Measurement): number => Math.max(windowMillis, farMillis(m), hiddenMillis(m))

/** How many of the own calls may wait for their first token while so many have begun. */
const windowOf = ({ rate }: Measurement, begun: number, millis = windowMillis): number =>
  Math.max(minWindow, Math.min(maxWindow, begun)) + begun * partOfBegun + rate * millis

/** The limit by first tokens. Answers that do not stream have begun in the same part. */
const byFirstTokens = (m: Measurement): number => {
  const begun = m.begun / (m.streamed ?? 1)
  return begun + windowOf(m, begun, startMillis(m))
}

/** Whether most answers arrive as they are computed. A proxy may gather them. */
const isStreaming = ({ streamed = 1 }: Measurement): boolean => streamed >= 0.5

/** The limit by what calls wait. */
const byWaiting = (m: Measurement): number => {
  if (m.beganAt === undefined) return Infinity
  return isStreaming(m) ? byFirstTokens(m) : m.byTimes
}

/** How many calls may be in flight. */
export const limit = (m: Measurement): number => Math.max(1, Math.floor(Math.min(m.ceiling.calls, byWaiting(m))))

/**
 * The measured limit of a pool, and what it is made of.
 *
 * @stability stable
 * @category models
 * @since 0.5.0
 */
export interface MeasuredStatus {
  /** How many calls of this process may be in flight. */
  readonly limit: number
  /**
   * The reason for it: `"start"` while the server is only getting known, the calls that wait for their first token, the waiting that whole
   * answers show, or calls that were lost.
   */
  readonly by: "start" | "first tokens" | "whole answers" | "lost calls"
  /** How many calls of this process have begun to get their answer, and how many wait for that. */
  readonly begun: number
  readonly waiting: number
  /** How long first tokens lately took, and at least; undefined before the first. */
  readonly firstTokenMillis: number | undefined
  readonly leastFirstTokenMillis: number | undefined
  /** The limit that calls lost set, whatever waits. */
  readonly ceiling: number
  /** The maximum that was stated; undefined if none was. */
  readonly max: number | undefined
}

const reasonOf = (m: Measurement): MeasuredStatus["by"] => {
  if (m.beganAt === undefined) return "start"
  if (m.ceiling.calls < byWaiting(m)) return m.ceiling.isOpening ? "start" : "lost calls"
  return isStreaming(m) ? "first tokens" : "whole answers"
}

/** The status, while so many calls are in flight, with the stated maximum. */
export const statusOf = (m: Measurement, inFlight: number, max = Infinity): MeasuredStatus => {
  const isHeard = m.leastFirstMillis < Infinity
  return {
    limit: limit(m),
    by: reasonOf(m),
    begun: m.begun,
    waiting: Math.max(0, inFlight - m.begun),
    firstTokenMillis: isHeard ? m.firstMillis : undefined,
    leastFirstTokenMillis: isHeard ? m.leastFirstMillis : undefined,
    ceiling: Math.floor(m.ceiling.calls),
    max: max < Infinity ? max : undefined
  }
}

// -----------------------------------------------------------------------------
// Events
// -----------------------------------------------------------------------------

/** The least times grow by e in so long: that of a token, and that to the first token, which a moved server changes. */
const forgetTokenMillis = 86_400_000
const forgetFirstMillis = 600_000
const firstOver = 16

/** Counts a call that has begun to get its answer. */
const counted = (m: Measurement, now: number): Measurement => {
  const passed = now - (m.beganAt ?? now)
  return {
    ...m,
    beganAt: now,
    rate: m.rate * Math.exp(-passed / rateMillis) + 1 / rateMillis,
    leastFirstMillis: m.leastFirstMillis * Math.exp(passed / forgetFirstMillis),
    leastTokenMillis: m.leastTokenMillis * Math.exp(passed / forgetTokenMillis)
  }
}

/** The first token of a call has arrived that was sent at `sentAt`. */
export const began = (m: Measurement, sentAt: number, now: number): Measurement => {
  const millis = now - sentAt
  const { firstMillis, leastFirstMillis } = m
  return {
    ...counted(m, now),
    begun: m.begun + 1,
    firstMillis: leastFirstMillis === Infinity ? millis : firstMillis + (millis - firstMillis) / firstOver,
    leastFirstMillis: Math.max(1, Math.min(leastFirstMillis, millis))
  }
}

/** A call has ended, which was one of `inFlight`. */
export const ended = (m: Measurement, call: CallTimes, ending: Ending, inFlight: number, now: number): Measurement => {
  const judged = ending === "left" ? m : { ...m, ceiling: judge(m, call, ending, inFlight, now) }
  const left = call.beganAt === undefined ? judged : { ...judged, begun: judged.begun - 1 }
  if (ending !== "answered") return left
  // A whole answer has its first token with its last.
  const answered = call.beganAt === undefined ? counted(left, now) : left
  return call.output > 0 ? timed(answered, call, inFlight, now) : answered
}

const judge = (
  m: Measurement,
  { sentAt }: CallTimes,
  ending: Ending,
  inFlight: number,
  now: number
): Ceiling.Ceiling => {
  const slowness = m.tokenMillis / m.leastTokenMillis
  const isWaiting = isStreaming(m) && m.begun < inFlight / 2
  const change = ending === "lost" ? Ceiling.lost : Ceiling.answered
  return change(m.ceiling, { sentAt, inFlight, slowness, isWaiting }, now)
}

// -----------------------------------------------------------------------------
// Whole answers
// -----------------------------------------------------------------------------

/** Shorter answers say nothing of streaming, or of the time of a token. */
const minStreamed = 4
const minTimed = 16
/** The tokens of a stream are further apart than this. A proxy that gathers the answer passes on all at once. */
const gatheredMillis = 0.1
const streamedOver = 8
const tokenOver = 32

/** Learns from the times of an answer. */
const timed = (m: Measurement, call: CallTimes, inFlight: number, now: number): Measurement => {
  const line = lineWith(m, call, inFlight, now)
  const next = { ...withStream(m, call, now), line }
  return { ...next, byTimes: isStreaming(next) ? byFirstTokens(next) : byTimes(next, inFlight) }
}

/** Learns whether answers stream, and how long a token takes. */
const withStream = (m: Measurement, { beganAt, output, sentAt }: CallTimes, now: number): Measurement => {
  if (output < minStreamed) return m
  const answered = now - (beganAt ?? now)
  const streams = answered > output * gatheredMillis ? 1 : 0
  const { streamed = streams, tokenMillis } = m
  const next = { ...m, streamed: streamed + (streams - streamed) / streamedOver }
  if (output < minTimed) return next
  const token = (streams === 1 ? answered : now - sentAt) / output
  const isFirst = m.leastTokenMillis === Infinity
  return {
    ...next,
    tokenMillis: isFirst ? token : tokenMillis + (token - tokenMillis) / tokenOver,
    leastTokenMillis: Math.min(m.leastTokenMillis, token)
  }
}

/** The line is a mean over this many answers, or over twice those in flight. */
const lineOver = 50

const lineWith = ({ line }: Measurement, call: CallTimes, inFlight: number, now: number): Measurement["line"] => {
  const { beganAt = now, output, sentAt } = call
  const millis = now - sentAt
  const n = line.n + 1
  const part = 1 / Math.min(n, Math.max(lineOver, 2 * inFlight))
  const mean = (before: number, value: number): number => before + (value - before) * part
  return {
    n,
    x: mean(line.x, output),
    y: mean(line.y, millis),
    xx: mean(line.xx, output * output),
    xy: mean(line.xy, output * millis),
    first: mean(line.first, beganAt - sentAt)
  }
}

/** Whether answers differ in length, as a line needs. */
const isSpread = ({ x, xx }: Measurement["line"]): boolean => xx - x * x > 0.01 * x * x

/** Where answers are of one length, a token that takes longer than so many times the least seems to wait. */
const oneLength = 2

/** The height of the line at no tokens: the time that an answer takes besides its tokens. */
const heightOf = ({ leastTokenMillis, line }: Measurement): number => {
  const { x, xx, xy, y } = line
  const slope = isSpread(line) ? (xy - x * y) / (xx - x * x) : oneLength * leastTokenMillis
  return Math.max(0, Math.min(y, y - slope * x))
}

/** The line holds from so many answers on. */
const minLine = 16
/** While less than this part of the time is waiting, the limit grows by half of what runs. */
const hardlyWaiting = 0.05

/** The limit by the line, moved towards what runs, which the line tells, and the window. */
const byTimes = (m: Measurement, inFlight: number): number => {
  // Calls too few to fill the limit say nothing of it.
  if (inFlight < 0.8 * m.byTimes) return m.byTimes
  const waiting = m.line.n < minLine ? 0 : heightOf(m) / m.line.y
  const running = inFlight * (1 - waiting)
  const window = windowOf(m, running)
  const aim = running + (waiting < hardlyWaiting ? Math.max(running / 2, window) : window)
  return Math.max(1, m.byTimes + (aim - m.byTimes) / Math.max(4, m.byTimes))
}
