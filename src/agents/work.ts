/**
 * The weights by which agents with stated work share a budget, so that all of them end together. Every step is O(1) in the
 * number of agents.
 */
import { minWeight } from "../domain/amounts.ts"

/** The remaining work, in tokens, of all agents of a job that have not ended. */
export interface Remaining {
  readonly tokens: number
  readonly agents: number
}

/** An agent that uses more than it stated keeps this part of its weight, because a wrong guess must not stop it. */
const minLeft = 0.1

export const none: Remaining = { tokens: 0, agents: 0 }

/** The rest of the work that one agent has stated. */
export const left = (work: number, used: number): number => Math.max(work - used, work * minLeft)

/** Adds an agent. */
export const add = ({ agents, tokens }: Remaining, left: number): Remaining => ({
  tokens: tokens + left,
  agents: agents + 1
})

/** Updates the remaining work of one agent. */
export const update = ({ agents, tokens }: Remaining, before: number, after: number): Remaining => ({
  tokens: tokens + after - before,
  agents
})

/** Removes an agent that has ended. The others share what remains. */
export const remove = ({ agents, tokens }: Remaining, left: number): Remaining => ({
  tokens: tokens - left,
  agents: agents - 1
})

/** The weight of an agent: 1 if it has as much left as the mean of the job. */
export const weight = ({ agents, tokens }: Remaining, left: number): number =>
  Math.min(1 / minWeight, Math.max(minWeight, (left * agents) / tokens))
