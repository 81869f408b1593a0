/**
 * Runs 40 agents over real HTTP twice at the same time: with the official SDK by itself, and with Floodgate's middleware as it is
 * installed. Each side has its own provider.
 */
import Anthropic, { APIError } from "@anthropic-ai/sdk"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Floodgate from "floodgate/promise"
import type * as Budget from "floodgate/Budget"
import type { ProviderSim } from "floodgate/testing"
import type * as Exit from "@floodgate/gateway/internal/exit"
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

/** The input tokens that the provider grants: so many a minute, and so many at once. */
export const limit = { perMinute: 1_800_000, burst: 100_000 }

const agents = 40
/** Each agent reads a document first, and then works on it. */
const promptTokens: ReadonlyArray<number> = [10_000, 1_000, 1_000, 1_000, 1_000]

/** The fewest seconds in which the provider grants a number of input tokens. */
export const atLeastSeconds = (inputTokens: number): number =>
  Math.max(0, (60 * (inputTokens - limit.burst)) / limit.perMinute)

const outputTokens = 100

const paramsOf = (agent: string, tokens: number) => ({
  model: "claude-sonnet-5",
  max_tokens: 2 * outputTokens,
  metadata: { user_id: agent },
  messages: [{ role: "user" as const, content: "Read this: ".padEnd(4 * tokens, "all the words of a document ") }]
})

/** An error as its status, or its name. Its message may quote what was sent. */
export const wordOf = (error: unknown): string => {
  if (error instanceof APIError && error.status !== undefined) return `${error.status}`
  return error instanceof Error ? error.name : String(error)
}

/** A client of the SDK, with a middleware or unchanged. */
const clientOf = (baseURL: string, middleware: ReadonlyArray<Floodgate.Floodgate["middleware"]>) =>
  new Anthropic({ apiKey: Provider.usualKey, baseURL, middleware: [...middleware] })

/** A side, whose provider starts now. */
const sideOf = Effect.fnUntraced(function* (
  name: string,
  guard: Floodgate.Floodgate | undefined,
  seconds: Effect.Effect<number>
) {
  const server = yield* Provider.listen({
    limits: { inputTokens: { ...limit, window: "bucket" } },
    keys: [Provider.usualKey],
    outputTokens
  })
  const client = clientOf(server.url, guard === undefined ? [] : [guard.middleware])
  const names = Array.from({ length: agents }, (_, index) => `agent-${String(index + 1).padStart(2, "0")}`)
  const all = new Map(
    names.map((name): [string, DuelAgent] => [
      name,
      { calls: promptTokens.length, done: 0, endedAt: undefined, failure: undefined }
    ])
  )
  const run = Effect.forEach(
    all,
    Effect.fnUntraced(function* ([name, agent]) {
      const ask = (tokens: number) =>
        Effect.tryPromise({
          try: (signal) => client.messages.create(paramsOf(name, tokens), { signal }),
          catch: wordOf
        })
      yield* Effect.forEach(promptTokens, (tokens) => Effect.map(ask(tokens), () => void agent.done++), {
        discard: true
      }).pipe(Effect.catch((failure) => Effect.sync(() => void (agent.failure = failure))))
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
  const side: Side = { name, agents: all, stats: server.stats, waits, run }
  return side
})

/** Both sides, ready to run. Their providers and the budget stop with the scope. */
export const make: Effect.Effect<Duel, Exit.CommandError, Scope.Scope> = Effect.gen(function* () {
  const guard = yield* Effect.acquireRelease(
    Effect.sync(() => Floodgate.create({ log: false })),
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
