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
import type { ScenarioAgent, ScenarioCall, ScenarioPlace, Scenario } from "./scenario.ts"

/**
 * The levels and rates of a strategy's own budget.
 *
 * @stability experimental
 * @category models
 * @since 0.2.0
 */
export interface Believed {
  readonly left: Limits.Usage
  /** The rates that it uses, per second. */
  readonly perSecond: Limits.Usage
}

/**
 * Makes calls with the retries and waits of the strategy.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface StrategyClient {
  (params: Params, call: ScenarioCall): Effect.Effect<Message, LlmError | BudgetError>
  /** The levels of the strategy's own budget, if it has one. */
  readonly believes?: Effect.Effect<Believed>
  /** Runs the agents. @default all at once */
  readonly run?: (
    agents: ReadonlyArray<{ readonly agent: ScenarioAgent; readonly effect: Effect.Effect<void> }>
  ) => Effect.Effect<unknown>
}

/**
 * A place while a race runs.
 *
 * @stability experimental
 * @category models
 * @since 0.4.0
 */
export interface RunningPlace extends Omit<ScenarioPlace, "provider"> {
  readonly provider: LlmProvider["Service"]
  readonly sim: ProviderSim.ProviderSim["Service"]
}

/**
 * A strategy with its name. `client` is run once per race, and all agents share the result. Its context has the first of the places.
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
    places: ReadonlyArray<RunningPlace>
  ) => Effect.Effect<StrategyClient, never, LlmProvider | ProviderSim.ProviderSim | Scope.Scope>
}
