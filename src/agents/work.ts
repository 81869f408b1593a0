/**
 * How the agents of a job share by what each has left to do, so that all end together. Changed in place; every step is
 * O(1), however many agents there are.
 */
import { minWeight } from "../admission/fairQueue.ts"

/** The remaining work of all agents of a job that have not ended. */
export interface Job {
  left: number
  agents: number
}

/** One agent's part of the work. */
export interface Work {
  readonly job: Job
  readonly whole: number
  left: number
  ended: boolean
}

/** An agent that needs more than it stated keeps this part of its weight, so that a wrong guess stops no agent. */
const leastLeft = 0.1

export const job = (): Job => ({ left: 0, agents: 0 })

/** An agent that has `whole` tokens to use. */
export const start = (job: Job, whole: number): Work => {
  job.left += whole
  job.agents++
  return { job, whole, left: whole, ended: false }
}

/** The weight of its next call when it has used `used`: 1 for an agent that has as much left as the mean of the job. */
export const weight = (work: Work, used: number): number => {
  if (work.ended) return 1
  const left = Math.max(work.whole - used, work.whole * leastLeft)
  work.job.left += left - work.left
  work.left = left
  return Math.min(1 / minWeight, Math.max(minWeight, (left * work.job.agents) / work.job.left))
}

/** The agent has ended. The others share what remains. */
export const end = (work: Work): void => {
  if (work.ended) return
  work.ended = true
  work.job.left -= work.left
  work.job.agents--
}
