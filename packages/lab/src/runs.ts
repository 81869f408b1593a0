/** The records of a race, and its result. */
import type * as Effect from "effect/Effect"
import type { ProviderSim } from "floodgate/testing"
import type { ScenarioCall } from "./scenario.ts"
import type { StrategyClient } from "./strategy.ts"

/**
 * The run of a strategy: its result, and everything that was recorded, for charts, with times in simulated milliseconds.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface RaceRun {
  /** The result of the strategy. Times are in simulated seconds. */
  readonly result: {
    readonly strategy: string
    /** The time until the last agent ended, successfully or not, or the bound of the race. */
    readonly makespanSeconds: number
    /** The lower bound, see `floor`. */
    readonly floorSeconds: number
    readonly ratio: number
    /** 429s, including injected ones. */
    readonly rejections: number
    /** Requests beyond the first of each call. */
    readonly retries: number
    /** Calls that did not succeed: failed, never made because an earlier one failed, or not finished. */
    readonly failedCalls: number
    readonly failedAgents: number
    /** Latency of the calls that succeeded, including waits; null if none did. */
    readonly p50Seconds: number | null
    readonly p99Seconds: number | null
    /** The time of the last agent to end divided by that of the first; null if some agent did not do all of its work. */
    readonly fairness: number | null
    /** The mean of the agents' ends, at which they were done or had failed. In scenarios of sessions these are the ends of the sessions. Null if it is not known. */
    readonly meanEndSeconds: number | null
    /** Tokens of admitted calls, input and output. */
    readonly tokensUsed: number
    /** Whether all agents ended within the bound of the race. */
    readonly finished: boolean
  }
  /** Each call that an agent has begun, from before its waits to its end. */
  readonly calls: ReadonlyArray<{
    readonly call: ScenarioCall
    readonly askedAt: number
    readonly endedAt: number | undefined
    readonly outcome: "open" | "ok" | "failed"
    /** Its requests to the provider. */
    readonly attempts: ReadonlyArray<{
      readonly startedAt: number
      readonly endedAt: number | undefined
      readonly outcome: "open" | "ok" | "rejected" | "failed" | "interrupted"
    }>
  }>
  /** When each agent ended, and whether one of its calls failed. */
  readonly agents: ReadonlyArray<{
    readonly name: string
    readonly startsAtMillis: number
    readonly endedAt: number | undefined
    readonly failed: boolean
  }>
  /** The levels of the strategy's own budget at each request; empty without a budget. */
  readonly levels: ReadonlyArray<Effect.Success<NonNullable<StrategyClient["believes"]>> & { readonly at: number }>
  /** Every request as the provider saw it, or those of all places. */
  readonly log: ReadonlyArray<ProviderSim.Entry>
}

/** The result of a strategy. */
export type RaceResult = RaceRun["result"]

/** One call of an agent. */
export type CallRecord = RaceRun["calls"][number]

/** One request to the provider. */
export type SimulatedAttempt = CallRecord["attempts"][number]

/** One agent. */
export type AgentRecord = RaceRun["agents"][number]
