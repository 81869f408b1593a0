/**
 * The library itself: `LlmClient` over a shared `TokenBudget`, as its users put it together.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "../../Budget.ts"
import * as LlmClient from "../../LlmClient.ts"
import { LlmProvider } from "../../LlmProvider.ts"
import type { Scenario } from "../scenario.ts"
import type { Strategy } from "../strategy.ts"

/**
 * How the library is used in a race.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly name: string
  readonly summary: string
  /** What the budget is told. @default the provider's true limits and its limit on calls at once */
  readonly budget?: ((scenario: Scenario) => Budget.Options) | undefined
  /** Whether input tokens are counted before each call, as the incident report did. @default true */
  readonly counted?: boolean | undefined
}

/**
 * What an account's owner tells the budget: the limits that the provider's console shows.
 *
 * @category options
 * @since 0.1.0
 */
export const trueLimits = ({ limits, provider }: Scenario): Budget.Options => ({
  limits,
  concurrency: provider.concurrency
})

/**
 * A strategy that is the library with the given options.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = ({ budget = trueLimits, counted = true, name, summary }: Options): Strategy => ({
  name,
  summary,
  client: (scenario) =>
    Effect.gen(function* () {
      const provider = yield* LlmProvider
      const live = LlmClient.layerProvider().pipe(
        Layer.provide(Budget.layer(budget(scenario))),
        Layer.provide(Layer.succeed(LlmProvider, provider))
      )
      const context = yield* Layer.build(live)
      const client = yield* Effect.provide(LlmClient.LlmClient, context)
      return (params, call) =>
        client.create(params, { agent: call.agent, kind: "lab", inputTokens: counted ? call.inputTokens : undefined })
    })
})

/**
 * The library with the provider's true limits.
 *
 * @category strategies
 * @since 0.1.0
 */
export const floodgate: Strategy = make({
  name: "floodgate",
  summary: "this library: LlmClient under one TokenBudget with the provider's limits"
})
