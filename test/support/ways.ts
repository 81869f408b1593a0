/** The ways into the governor that the client suite is run on. */
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as FloodgateAi from "floodgate/ai"
import * as Budget from "floodgate/Budget"
import { ProviderServer } from "floodgate/testing/server"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim } from "floodgate/testing"
import type { Setup, Way, World } from "./clientSuite.ts"
import * as Models from "./models.ts"

/** A pool is there from its first call on. */
export const unused: Budget.PoolStatus = {
  dimensions: {},
  inFlight: 0,
  allowed: 1,
  queued: 0,
  waiting: [],
  pause: undefined,
  binding: undefined
}

/** What is seen of a provider that answers, and of the budget in front of it. */
const seen = ({ log, stats }: Pick<World, "log" | "stats">, context: Context.Context<Budget.TokenBudget>) => ({
  log,
  stats,
  pool: Effect.map(Context.get(context, Budget.TokenBudget).status, ({ pools }) => pools["default"] ?? unused)
})

const budgetOf = (setup: Setup) => Budget.layer(setup.budget)

const params = (characters: number, agent: string) => ({
  model: Models.modelName,
  max_tokens: 100,
  metadata: { user_id: agent },
  messages: [{ role: "user" as const, content: "x".repeat(characters) }]
})

const clientWorld = (client: LlmClient.LlmClient["Service"]): Pick<World, "ask" | "stream"> => ({
  ask: (characters, agent) =>
    Effect.map(
      client.create(params(characters, agent), { agent }),
      ({ usage }) => [usage.input_tokens, usage.output_tokens] as const
    ),
  stream: (characters, agent) => Stream.map(client.stream(params(characters, agent), { agent }), LlmClient.text)
})

const aiWorld = (model: LanguageModel.LanguageModel): Pick<World, "ask" | "stream"> => ({
  ask: (characters, agent) =>
    model.generateText({ prompt: "x".repeat(characters) }).pipe(
      Effect.map(({ usage }) => [usage.inputTokens.total ?? 0, usage.outputTokens.total ?? 0] as const),
      Effect.provideService(Budget.Agent, agent)
    ),
  stream: (characters, agent) =>
    model.streamText({ prompt: "x".repeat(characters) }).pipe(
      Stream.map((part) => (part.type === "text-delta" ? part.delta : "")),
      Stream.provideService(Budget.Agent, agent)
    )
})

const simulated = (setup: Setup) => Layer.build(Layer.merge(ProviderSim.layer(setup.provider), budgetOf(setup)))

const served = Effect.fnUntraced(function* (setup: Setup) {
  const server = yield* ProviderServer.make(setup.provider)
  return { server, context: yield* Layer.build(budgetOf(setup)) }
})

export const clientSimulated: Way = {
  name: "LlmClient, simulated",
  clock: "test",
  start: Effect.fnUntraced(function* (setup) {
    const context = yield* simulated(setup)
    const built = yield* Layer.build(
      Layer.provide(LlmClient.layerProvider({ retry: setup.retry }), Layer.succeedContext(context))
    )
    return {
      ...clientWorld(Context.get(built, LlmClient.LlmClient)),
      ...seen(Context.get(context, ProviderSim.ProviderSim), context)
    }
  })
}

export const clientServed: Way = {
  name: "LlmClient, over HTTP",
  clock: "live",
  start: Effect.fnUntraced(function* (setup) {
    const { context, server } = yield* served(setup)
    const layer = LlmClient.layer({ retry: setup.retry, apiKey: Redacted.make("any"), baseUrl: server.url })
    const built = yield* Layer.build(Layer.provide(layer, Layer.succeedContext(context)))
    return {
      ...clientWorld(Context.get(built, LlmClient.LlmClient)),
      ...seen(server, context)
    }
  })
}

const ai = <E, R>(setup: Setup, model: Effect.Effect<LanguageModel.LanguageModel, E, R>) =>
  FloodgateAi.layer({ model: Models.modelName, maxTokens: 100 }).pipe(
    Layer.provide(Layer.effect(LanguageModel.LanguageModel, model)),
    Layer.provide(Governor.layer({ retry: setup.retry }))
  )

export const aiSimulated: Way = {
  name: "floodgate/ai, simulated",
  clock: "test",
  start: Effect.fnUntraced(function* (setup) {
    const context = yield* simulated(setup)
    const layer = Layer.provide(ai(setup, Models.overProvider), Layer.succeedContext(context))
    const built = yield* Layer.build(layer)
    return {
      ...aiWorld(Context.get(built, LanguageModel.LanguageModel)),
      ...seen(Context.get(context, ProviderSim.ProviderSim), context)
    }
  })
}

export const aiServed: Way = {
  name: "floodgate/ai, over HTTP",
  clock: "live",
  start: Effect.fnUntraced(function* (setup) {
    const { context, server } = yield* served(setup)
    const layer = ai(setup, Models.overHttp(server.url)).pipe(
      Layer.provide(Layer.succeedContext(context)),
      Layer.provide(FetchHttpClient.layer)
    )
    const built = yield* Layer.build(layer)
    return {
      ...aiWorld(Context.get(built, LanguageModel.LanguageModel)),
      ...seen(server, context)
    }
  })
}
