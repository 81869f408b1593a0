/** A job's tree of agents, as its users see it. */
import type * as Effect from "effect/Effect"
import * as Input from "../domain/input/checks.ts"
import { dollars } from "../domain/spending/models.ts"
import type * as Domain from "../domain/tree.ts"

/**
 * The caps of a tree. They refuse only a new agent; those that have begun go on.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export interface AgentCaps extends Domain.TreeCaps {
  /**
   * Agents in all, with the one that the job began with; at most 10,000.
   *
   * @default 1,000, because each agent is remembered, and no job on record that was meant had as many
   */
  readonly agents?: number | undefined
}

/**
 * The caps of a job. Those on tokens, dollars and calls refuse every call, whoever makes it.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export interface JobCaps extends AgentCaps {
  /** Tokens of prompts, also from a cache, and of answers. @default no cap */
  readonly tokens?: number | undefined
  /** US dollars, at most a million. Calls of models without a price are refused. @default no cap */
  readonly dollars?: number | undefined
  /** Calls that the provider has answered or may have. A call that is sent again counts again. @default no cap */
  readonly calls?: number | undefined
  /**
   * The amount that a running call reserves of tokens and dollars. With `"most"`, the most that it can use, no cap is exceeded. With
   * `"expected"`, running calls can exceed it by what they use beyond that.
   *
   * @default "most"
   */
  readonly reserve?: "most" | "expected" | undefined
}

/**
 * Amounts by the unit of a cap, without those that have never had one.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export interface JobSpent {
  readonly tokens?: number | undefined
  readonly dollars?: number | undefined
  readonly calls?: number | undefined
}

export const defaultAgents = 1_000
const maxAgents = 10_000

const upTo = Input.number(
  `a whole number from 1 to ${maxAgents}`,
  (value) => Number.isInteger(value) && value >= 1 && value <= maxAgents
)
const depth = Input.number("a whole number >= 0", (value) => Number.isInteger(value) && value >= 0)

export const checkCaps: Input.Check = Input.options<JobCaps>({
  agents: upTo,
  atOnce: Input.whole,
  perHour: Input.whole,
  depth,
  tokens: Input.whole,
  dollars,
  calls: Input.whole,
  reserve: Input.oneOf("most", "expected")
})

/**
 * One agent of a tree, in its status.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export interface AgentInTree {
  readonly name: string
  /** Undefined for the agent that the job began with. */
  readonly parent: string | undefined
  /** 0 for the agent that the job began with. */
  readonly depth: number
  /** When it began, in milliseconds since the epoch. */
  readonly since: number
  /** Whether a call of it runs, or ended less than five minutes ago. */
  readonly isRunning: boolean
}

/**
 * The status of a tree.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export interface TreeStatus extends Domain.TreeCounts {
  readonly caps: JobCaps
  /** Whether an operator has stopped new agents, or all calls. */
  readonly stop: "none" | "agents" | "calls"
  /** How many new agents this process has refused. */
  readonly refused: number
  /** The amounts that its calls have spent of the caps on tokens, dollars and calls, and that running calls have reserved. */
  readonly spent: JobSpent
  readonly reserved: JobSpent
  /** In the order in which they began, the first 1,000. */
  readonly list: ReadonlyArray<AgentInTree>
}

/**
 * The agents of one job, and their caps.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export interface Tree {
  readonly name: string
  /** Whether it is in a store, where the agents of other processes count, too. */
  readonly isShared: boolean
  readonly status: Effect.Effect<TreeStatus>
  /** Changes the caps. Agents that have begun go on, and what was spent still counts. */
  readonly resize: (caps: JobCaps) => Effect.Effect<void>
  /** Stops the job: `"agents"` refuses new agents, `"calls"` refuses every new call. Calls that run end as usual. */
  readonly stop: (what: "agents" | "calls") => Effect.Effect<void>
  /** Undoes `stop`. */
  readonly resume: Effect.Effect<void>
  /** The state that a governor asks; opaque to everybody else. */
  readonly internals: unknown
}
