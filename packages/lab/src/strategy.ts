/**
 * Strategies: ways to make the calls of a race.
 *
 * @stability experimental
 * @since 0.1.0
 */
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BudgetError } from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import type { LlmError } from "floodgate/LlmError"
import type { LlmProvider, Params } from "floodgate/LlmProvider"
import type { ProviderSim } from "floodgate/testing"
import type { ScenarioCall, Scenario } from "./scenario.ts"

/** Makes calls with the retries and waits of the strategy. */
export type StrategyClient = Effect.Success<ReturnType<Strategy["client"]>>

/** The levels and rates of a strategy's own budget. */
export type Believed = Effect.Success<NonNullable<StrategyClient["believes"]>>

/**
 * A strategy with its name. `client` is run once per race; what it returns makes the calls of all agents. Its context has the first of the places.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface Strategy {
  readonly name: string
  /** One line for people. */
  readonly summary: string
  /** How it is configured, as its users would write it. */
  readonly settings?: string | undefined
  /** Why its users would choose these settings. */
  readonly why?: string | undefined
  readonly client: (
    scenario: Scenario,
    places: ReadonlyArray<{
      readonly name: string
      readonly limits: Limits.Limits
      readonly provider: LlmProvider["Service"]
      readonly sim: ProviderSim.ProviderSim["Service"]
    }>
  ) => Effect.Effect<
    {
      (params: Params, call: ScenarioCall): Effect.Effect<Message, LlmError | BudgetError>
      /** The levels of the strategy's own budget, if it has one. */
      readonly believes?: Effect.Effect<{
        readonly left: Limits.Usage
        /** The rates that it uses, per second. */
        readonly perSecond: Limits.Usage
      }>
      /** Runs the agents. @default all at once */
      readonly run?: (
        agents: ReadonlyArray<{ readonly agent: Scenario["agents"][number]; readonly effect: Effect.Effect<void> }>
      ) => Effect.Effect<unknown>
    },
    never,
    LlmProvider | ProviderSim.ProviderSim | Scope.Scope
  >
}

/** A place while a race runs. */
export type RunningPlace = Parameters<Strategy["client"]>[1][number]
