/**
 * What a run comes to.
 *
 * - U, used: what we used of what was there for us. What was there is limit x time, without the outages, less what the
 *   neighbours took; nothing is added for a bucket that is full at the start, so U may pass 1. Of several dimensions, and of
 *   the places of a limit of calls in flight, the one of which most was used counts. Beside a polite neighbour we should
 *   use half: U is 1 from 0.8 to 1.25 of it, and falls in proportion outside.
 * - X, excess: 429s that were not random, per call sent.
 * - M, missed: calls that were lost, per call that ended. A call that fails whenever it is sent is not counted.
 * - The score is min(1, U) - 2 X - 10 M, and at least -3.
 */
import type { Account } from "./account.ts"
import type { Outcome } from "./provider.ts"
import type { Scenario } from "./scenario.ts"
import type { Call } from "./workload.ts"

export interface Result {
  readonly used: number
  readonly excess: number
  readonly score: number
  readonly sent: number
  readonly answered: number
  readonly lost: number
  /** 429s of limits, and random ones. */
  readonly rejected: number
  readonly random: number
  /** Seconds from creation to answer, of the slowest hundredth. */
  readonly p99: number
  /** Seconds until the share was used again and every agent served again, where a scenario asks; Infinity: never. */
  readonly backAfter: number | undefined
  /** Of agents with a number of calls: those that had all answers, and the seconds until the last answer. */
  readonly finished: number | undefined
  readonly makespan: number | undefined
}

export interface Tally {
  readonly sent: (call: Call, outcome: Outcome, now: number) => void
  readonly ended: (call: Call, now: number, isLost: boolean) => void
  readonly result: (account: Account, expired: ReadonlyArray<Call>) => Result
}

const fairFrom = 0.8
const fairTo = 1.25

export const tally = (scenario: Scenario): Tally => {
  const { agents } = scenario.work
  const durations: Array<number> = []
  const endedOf = Array.from({ length: agents }, () => 0)
  const servedAt = Array.from({ length: agents }, () => Infinity)
  let sent = 0
  let rejected = 0
  let random = 0
  let lost = 0
  let lastEnd = 0

  const usedOf = (account: Account): number => {
    if (!scenario.neighbours.some(({ kind }) => kind === "polite")) return account.used()
    const part = account.part() / 0.5
    if (part >= fairFrom && part <= fairTo) return 1
    return part < fairFrom ? part / fairFrom : fairTo / part
  }

  const backAfter = (account: Account): number | undefined => {
    const { backFrom } = scenario
    if (backFrom === undefined) return undefined
    const served = Math.max(...servedAt) - backFrom
    return Math.max(account.backAfter(backFrom) ?? Infinity, served / 1000)
  }

  return {
    sent: (call, outcome, now) => {
      sent++
      if (outcome.kind === "rejection") {
        if (outcome.isRandom) random++
        else rejected++
      }
      const isServed = outcome.kind === "answer" && now >= (scenario.backFrom ?? Infinity)
      if (isServed) servedAt[call.agent] = Math.min(servedAt[call.agent]!, now)
    },
    ended: (call, now, isLost) => {
      lastEnd = now
      if (isLost && !call.isPoison) lost++
      if (isLost) return
      durations.push(now - call.createdAt)
      endedOf[call.agent]!++
    },
    result: (account, expired) => {
      const answered = durations.length
      const allLost = lost + expired.length
      const used = usedOf(account)
      const excess = rejected / Math.max(1, sent)
      const missed = allLost / Math.max(1, answered + allLost)
      durations.sort((a, b) => a - b)
      const { work } = scenario
      const isDone = (calls: number) => work.kind === "jobs" && calls === work.calls.length
      return {
        used,
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
        makespan: work.kind === "jobs" ? lastEnd / 1000 : undefined
      }
    }
  }
}
