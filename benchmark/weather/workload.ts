/** The calls that the agents of a scenario make. */
import type { Amounts } from "./amounts.ts"
import * as Prng from "./prng.ts"
import { outputPart, type Scenario } from "./scenario.ts"

export interface Call {
  readonly agent: number
  readonly createdAt: number
  readonly input: number
  readonly output: number
  readonly isPoison: boolean
  /** How often it was sent, and how many of its failures were isolated. */
  attempts: number
  failures: number
  /** Its charge, which the engine computes once. */
  charge: Amounts | undefined
}

export interface Workload {
  readonly start: () => ReadonlyArray<Call>
  /** The call that follows an ended one; an agent with a job ends with a lost call. */
  readonly next: (call: Call, now: number, isLost: boolean) => Call | undefined
}

const poisonFrom = 30_000
/** The largest call as a multiple of the mean, because a burst must hold one. */
export const largest = 3

export const make = (scenario: Scenario, seed: number): Workload => {
  const prng = Prng.make(seed, 3)
  const { mean, sigma } = scenario.inputTokens
  const { work } = scenario
  let poison = scenario.poison

  const call = (agent: number, createdAt: number, meanInput: number): Call => {
    const isPoison = poison && createdAt >= poisonFrom
    if (isPoison) poison = false
    const size = () => Math.min(largest, prng.lognormal(1, sigma))
    return {
      agent,
      createdAt,
      input: Math.max(1, Math.round(meanInput * size())),
      output: Math.max(1, Math.round(meanInput * outputPart * size())),
      isPoison,
      attempts: 0,
      failures: 0,
      charge: undefined
    }
  }

  if (work.kind === "loop") {
    return {
      start: () => Array.from({ length: work.workers }, (_, i) => call(i % work.agents, 0, mean)),
      next: ({ agent }, now) => call(agent, now, mean)
    }
  }
  const made = Array.from({ length: work.agents }, () => 1)
  return {
    start: () => Array.from({ length: work.agents }, (_, agent) => call(agent, 0, work.calls[0]!)),
    next: ({ agent }, now, isLost) => {
      const size = work.calls[made[agent]!++]
      return isLost || size === undefined ? undefined : call(agent, now, size)
    }
  }
}
