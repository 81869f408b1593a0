/**
 * Runs the incident over real HTTP twice at the same time: with the official SDK by itself, and with Floodgate's middleware. Each side
 * has its own provider.
 */
import Anthropic, { APIError } from "@anthropic-ai/sdk"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Floodgate from "floodgate/promise"
import type * as Budget from "floodgate/Budget"
import type { ProviderSim } from "floodgate/testing"
import type * as Exit from "@floodgate/gateway/internal/exit"
import { Scenario } from "@floodgate/lab/internal"
import * as Provider from "../provider.ts"

/** The progress of an agent. */
export interface DuelAgent {
  readonly calls: number
  done: number
  /** The second of the duel at which it ended, successfully or not. */
  endedAt: number | undefined
  /** The error of its failed call, if one failed. */
  failure: string | undefined
}

/** One side of the duel. */
export interface Side {
  readonly name: string
  readonly agents: ReadonlyMap<string, DuelAgent>
  readonly stats: Effect.Effect<ProviderSim.Stats>
  /** How many seconds waiting agents have waited for the budget; empty on the side without one. */
  readonly waits: Effect.Effect<ReadonlyMap<string, number>>
  /** Runs its agents to their end. */
  readonly run: Effect.Effect<void>
}

/** Both sides, and the seconds since their start. */
export interface Duel {
  readonly sides: readonly [Side, Side]
  readonly seconds: Effect.Effect<number>
}

/** The incident with half of its tokens, its burst and its time per token: it takes half as long. */
export const scenario: Scenario.Scenario = Scenario.make({
  firstTokens: 75_000,
  tokens: 7_000,
  burst: 100_000,
  latencyPerToken: 5
})

const wordOf = (error: unknown): string => {
  if (error instanceof APIError && error.status !== undefined) return `${error.status}`
  return error instanceof Error ? error.name : String(error)
}

/** A client of the SDK, with a middleware or unchanged. */
const clientOf = (baseURL: string, middleware: ReadonlyArray<Floodgate.Floodgate["middleware"]>) =>
  new Anthropic({ apiKey: "none", baseURL, middleware: [...middleware] })

/** A side, whose provider starts now. */
const sideOf = Effect.fnUntraced(function* (
  name: string,
  guard: Floodgate.Floodgate | undefined,
  seconds: Effect.Effect<number>
) {
  const server = yield* Provider.listen(Scenario.providerOf(scenario))
  const client = clientOf(server.url, guard === undefined ? [] : [guard.middleware])
  const agents = new Map(
    scenario.agents.map(({ calls, name }): [string, DuelAgent] => [
      name,
      { calls: calls.length, done: 0, endedAt: undefined, failure: undefined }
    ])
  )
  const ask = (call: Scenario.ScenarioCall) =>
    Effect.tryPromise({
      try: (signal) => client.messages.create(Scenario.paramsOf(call), { signal }),
      catch: wordOf
    })
  const run = Effect.forEach(
    scenario.agents,
    Effect.fnUntraced(function* ({ calls, name }) {
      const agent = agents.get(name)!
      yield* Effect.forEach(calls, (call) => Effect.map(ask(call), () => void agent.done++), { discard: true }).pipe(
        Effect.catch((failure) => Effect.sync(() => void (agent.failure = failure)))
      )
      agent.endedAt = yield* seconds
    }),
    { concurrency: "unbounded", discard: true }
  )
  const status: Effect.Effect<Budget.BudgetStatus> =
    guard === undefined ? Effect.succeed({ pools: {} }) : Effect.promise(() => guard.status())
  const waits = Effect.map(
    status,
    ({ pools }): ReadonlyMap<string, number> =>
      new Map(
        Object.values(pools).flatMap(({ waiting }) =>
          waiting.map(({ agent, waitedMillis }) => [agent, waitedMillis / 1_000] as const)
        )
      )
  )
  const side: Side = { name, agents, stats: server.stats, waits, run }
  return side
})

/** Both sides, ready to run. Their providers and the budget stop with the scope. */
export const make: Effect.Effect<Duel, Exit.CommandError, Scope.Scope> = Effect.gen(function* () {
  const guard = yield* Effect.acquireRelease(
    Effect.sync(() => Floodgate.create({ limits: scenario.limits })),
    (guard) => Effect.promise(() => guard.dispose())
  )
  const startedAt = yield* Clock.currentTimeMillis
  const seconds = Effect.map(Clock.currentTimeMillis, (now) => (now - startedAt) / 1_000)
  const sides = [
    yield* sideOf("the SDK by itself", undefined, seconds),
    yield* sideOf("with Floodgate", guard, seconds)
  ] as const
  return { sides, seconds }
})
