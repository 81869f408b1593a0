/** When a process reads the state of a pool, and when it commits: plain functions, in milliseconds. */
import type * as Law from "../pacing/law.ts"
import * as Rules from "../domain/rules.ts"
import * as Fleet from "./fleet.ts"
import type { State } from "./state.ts"

/** What has happened is committed after this time: in general, if another process waits, and if it waits for a place. */
const flushMillis = 500
const flushContended = 250
const flushPlaces = 10
/** A process that waits for the call of another to end reads the state this often during an answer, within bounds. */
const looksPerAnswer = 4
const shortestLook = 5
const longestLook = 250
/** Other processes that wait read it at this interval, because a refund may admit them earlier. */
const refundLook = 500
/** A process with waiting callers commits at this interval, so that the others know that it is alive. */
export const waitingBeat = 1_000
/**
 * With `"degrade"` a process continues alone, and counts as silent, after this time or the time of eight commits, and where it
 * is idle after its lease. It commits four times as often.
 */
const silentMillis = 1_000
const silentCommits = 8
/** A process that continues alone waits this much longer, because clocks and the network are not exact. */
export const silentMargin = 100
/** A process is idle after this time: what it has spent was refilled. It stops committing, or commits less often. */
export const restMillis = 60_000
/** An unused state is stored for this long: until every debt and window is over, and for a month if there is a quota. */
const keepMillis = 3_600_000
const keepQuotaMillis = 30 * 86_400_000
/** The longest time of a recent commit: its first value, the margin on it, and how fast it decays. */
export const firstLag = 10
const lagMargin = 1.5
const lagDecay = 0.02

/** When to read the state again for a caller that waits. */
export const lookIn = ({ answerMillis, inFlight }: Law.Pacer, { millis }: Law.Blocked): number => {
  const look = Math.max(shortestLook, answerMillis / (looksPerAnswer * Math.max(1, inFlight)))
  return millis === Infinity ? Math.min(look, longestLook) : Math.min(Math.ceil(millis), refundLook)
}

/** When to commit what has happened. */
export const flushIn = (state: State, id: string): number => {
  if (!Fleet.isContended(state, id)) return flushMillis
  return Math.min(state.config.concurrency, state.law.window.size) < Infinity ? flushPlaces : flushContended
}

/** The longest time of a recent commit, after one that took `took`. */
export const lagAfter = (lag: number, took: number): number => Math.max(lagMargin * took, lag * (1 - lagDecay))

/** How long after its last commit a process counts as silent. */
export const silentAfter = (lag: number): number => Math.max(silentMillis, silentCommits * lag)

/** How long the store keeps an unused state. */
export const keepFor = ({ config }: State): number => (Rules.hasQuota(config.rules) ? keepQuotaMillis : keepMillis)
