/**
 * The score of a run.
 *
 * - U, used: the fraction that we used of the amount available to us. That amount is limit x time, without the outages, less
 *   what the neighbours took; nothing is added for a bucket that is full at the start, so U may pass 1. Among several
 *   dimensions, and the slots of a limit on calls in flight, the most used one counts. Beside a polite neighbour we should use
 *   half: U is 1 from 0.8 to 1.25 of it, and falls in proportion outside.
 * - X, excess: 429s that were not random, per call sent.
 * - M, missed: calls that were lost, per call that ended. A call that fails whenever it is sent is not counted.
 * - The score is min(1, U) - 2 X - 10 M, and at least -3.
 */
import { createHash } from "node:crypto"
import type { Account } from "./account.ts"
import type { Outcome } from "./provider.ts"
import { binding, fairPart, type Scenario } from "./scenario.ts"
import type { Call } from "./workload.ts"

export interface Result {
  readonly used: number
  /** Beside a polite neighbour: our use as a fraction of the fair half. */
  readonly ofFair: number | undefined
  readonly excess: number
  readonly score: number
  readonly sent: number
  readonly answered: number
  readonly lost: number
  /** 429s at limits, and random ones. */
  readonly rejected: number
  readonly random: number
  /** Seconds from creation to answer, at the 99th percentile. */
  readonly p99: number
  /**
   * If the scenario asks for it, seconds until the share was used again and every agent was served again, or Infinity. Time in
   * which an agent waited for earlier calls does not count.
   */
  readonly backAfter: number | undefined
  /** For agents with a number of calls: how many got all answers, and the seconds until the last answer. */
  readonly finished: number | undefined
  readonly makespan: number | undefined
  /** A hash of all events: what was sent when and what came of it, and what ended when. */
  readonly events: string
}

/** The makespans of the same jobs under the oracle, and with only retries. */
export interface Yardsticks {
  readonly oracle: number
  readonly noLimits: number
}

export interface Tally {
  readonly sent: (call: Call, outcome: Outcome, now: number) => void
  readonly ended: (call: Call, now: number, isLost: boolean) => void
  readonly result: (account: Account, expired: ReadonlyArray<Call>) => Result
}

const fairFrom = 0.8
const fairTo = 1.25
const fairness = (ofFair: number): number => {
  if (ofFair < fairFrom) return ofFair / fairFrom
  return ofFair > fairTo ? fairTo / ofFair : 1
}

export const tally = (scenario: Scenario): Tally => {
  const { agents } = scenario.work
  const durations: Array<number> = []
  const events = createHash("sha256")
  const endedOf = Array.from({ length: agents }, () => 0)
  /** The end of the calls in flight at `backFrom`, and the first call accepted afterwards. */
  const busyUntil = Array.from({ length: agents }, () => scenario.backFrom ?? 0)
  const servedAt = Array.from({ length: agents }, () => Infinity)
  let sent = 0
  let rejected = 0
  let random = 0
  let lost = 0
  let lastEnd = 0

  const backAfter = (account: Account): number | undefined => {
    const { backFrom } = scenario
    if (backFrom === undefined) return undefined
    const served = Math.max(...servedAt.map((at, agent) => at - busyUntil[agent]!))
    const turn = agents / (binding(scenario).perMinute / 60_000)
    return Math.max(account.backAfter(backFrom) ?? Infinity, (served - turn) / 1000)
  }

  return {
    sent: (call, outcome, now) => {
      sent++
      events.update(`${now} ${call.agent} ${outcome.kind} ${outcome.after}\n`)
      if (outcome.kind === "rejection") {
        if (outcome.isRandom) random++
        else rejected++
      }
      const { agent } = call
      if (now < (scenario.backFrom ?? 0)) busyUntil[agent] = Math.max(busyUntil[agent]!, now + outcome.after)
      else if (outcome.kind === "answer") servedAt[agent] = Math.min(servedAt[agent]!, now)
    },
    ended: (call, now, isLost) => {
      lastEnd = now
      events.update(`${now} ${call.agent} ${isLost ? "lost" : "answered"}\n`)
      if (isLost && !call.isPoison) lost++
      if (isLost) return
      durations.push(now - call.createdAt)
      endedOf[call.agent]!++
    },
    result: (account, expired) => {
      const answered = durations.length
      const allLost = lost + expired.length
      const fair = fairPart(scenario)
      const ofFair = fair === 1 ? undefined : account.part() / fair
      const used = ofFair === undefined ? account.used() : fairness(ofFair)
      const excess = rejected / Math.max(1, sent)
      const missed = allLost / Math.max(1, answered + allLost)
      durations.sort((a, b) => a - b)
      const { work } = scenario
      const isDone = (calls: number) => work.kind === "jobs" && calls === work.calls.length
      return {
        used,
        ofFair,
        excess,
        score: Math.max(-3, Math.min(1, used) - 2 * excess - 10 * missed),
        sent,
        answered,
        lost: allLost,
        rejected,
        random,
        p99: (durations[Math.floor(answered * 0.99)] ?? Infinity) / 1000,
        backAfter: backAfter(account),
        finished: work.kind === "jobs" ? endedOf.filter(isDone).length : undefined,
        makespan: work.kind === "jobs" ? lastEnd / 1000 : undefined,
        events: events.digest("hex")
      }
    }
  }
}
