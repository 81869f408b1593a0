/** The ways into the governor for which the client suite runs. */
import Anthropic from "@anthropic-ai/sdk"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Accounting from "floodgate/Accounting"
import * as FloodgateAi from "floodgate/ai"
import * as FloodgateAiSdk from "floodgate/ai-sdk"
import * as FloodgateAnthropic from "floodgate/anthropic"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import { protocols } from "floodgate/protocol"
import { ProviderServer } from "floodgate/testing/server"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import * as Floodgate from "floodgate/promise"
import * as Retry from "floodgate/Retry"
import { ProviderSim } from "floodgate/testing"
import type { Setup, Way, World } from "./clientSuite.ts"
import * as AiSdkModel from "./aiSdkModel.ts"
import * as Models from "./models.ts"
import { answerOf, send, type Spoken, textsOf } from "./spoken.ts"

const { anthropic } = protocols

/** The status of a pool that no call has used yet. */
export const unused: Budget.PoolStatus = {
  dimensions: {},
  known: [],
  inFlight: 0,
  allowed: 1,
  queued: 0,
  waiting: [],
  pause: undefined,
  binding: undefined
}

/** What a world shows of its provider and of the budget in front of it. */
const seen = ({ log, stats }: Pick<World, "log" | "stats">, context: Context.Context<Budget.TokenBudget>) => ({
  log,
  stats,
  pool: Effect.map(Context.get(context, Budget.TokenBudget).status, ({ pools }) => {
    // A governed fetch names pools after the host, and there is only one host here.
    const name = Object.keys(pools).find((name) => name.includes("/")) ?? "default"
    return pools[name] ?? unused
  })
})

const policyOf = ({ retry: { attempts, maxElapsedMillis } }: Setup) =>
  Retry.make({
    base: "5 millis",
    jitter: "none",
    attempts,
    maxElapsed: maxElapsedMillis === undefined ? undefined : `${maxElapsedMillis} millis`
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
  saysInput: true,
  start: Effect.fnUntraced(function* (setup) {
    const context = yield* simulated(setup)
    const built = yield* Layer.build(
      Layer.provide(LlmClient.layerProvider({ retry: policyOf(setup) }), Layer.succeedContext(context))
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
  saysInput: true,
  start: Effect.fnUntraced(function* (setup) {
    const { context, server } = yield* served(setup)
    const layer = LlmClient.layer({ retry: policyOf(setup), apiKey: Redacted.make("any"), baseUrl: server.url })
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
    Layer.provide(Governor.layer({ retry: policyOf(setup) }))
  )

export const aiSimulated: Way = {
  name: "floodgate/ai, simulated",
  clock: "test",
  // Its models know their toolkits.
  tools: false,
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
  // Its models know their toolkits.
  tools: false,
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

// -----------------------------------------------------------------------------
// Ways without Effect
// -----------------------------------------------------------------------------

/** A stream that a promise opens, and an abort ends when its reader stops. */
const streamFrom = (ask: (signal: AbortSignal) => AsyncIterable<string>): Stream.Stream<string, unknown> =>
  Stream.unwrap(
    Effect.map(
      Effect.acquireRelease(
        Effect.sync(() => new AbortController()),
        (controller) => Effect.sync(() => controller.abort())
      ),
      ({ signal }) => Stream.fromAsyncIterable(ask(signal), (error) => error)
    )
  )

const askFrom = <A>(ask: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, unknown> =>
  Effect.tryPromise({ try: ask, catch: (error) => error })

/** A client over a governor that calls the provider over HTTP. */
const overServer = <A>(
  name: string,
  make: Effect.Effect<A, never, Governor.Governor | Scope.Scope>,
  worldOf: (made: A, url: string) => Pick<World, "ask" | "stream" | "follow">,
  { follows = false, saysInput = false }: Pick<Way, "follows" | "saysInput"> = {}
): Way => ({
  name,
  clock: "live",
  follows,
  saysInput,
  start: Effect.fnUntraced(function* (setup) {
    const { context, server } = yield* served(setup)
    const governor = yield* Layer.build(
      Layer.provide(Governor.layer({ retry: policyOf(setup) }), Layer.succeedContext(context))
    )
    const made = yield* Effect.provideContext(make, governor)
    return { ...worldOf(made, server.url), ...seen(server, context) }
  })
})

/** The official SDK with the middleware. */
export const middlewareServed: Way = overServer(
  "floodgate/anthropic, over HTTP",
  FloodgateAnthropic.make(),
  (middleware, baseURL) => {
    const client = new Anthropic({ baseURL, apiKey: "any", maxRetries: 0, middleware: [middleware] })
    return {
      ask: (characters, agent) =>
        askFrom(async (signal) => {
          const { usage } = await client.messages.create(params(characters, agent), { signal })
          return [usage.input_tokens, usage.output_tokens]
        }),
      follow: (characters, agent, previous) =>
        askFrom(async (signal) => {
          const thread =
            previous === undefined
              ? { type: "create" as const }
              : { type: "continue" as const, previous_message_id: previous }
          const { id, usage } = await client.beta.messages.create({ ...params(characters, agent), thread }, { signal })
          return [id, usage.input_tokens]
        }),
      stream: (characters, agent) =>
        streamFrom(async function* (signal) {
          const stream = await client.messages.create({ ...params(characters, agent), stream: true }, { signal })
          for await (const event of stream) yield LlmClient.text(event)
        })
    }
  },
  { follows: true, saysInput: true }
)

/** A governed fetch for any protocol. All count as Anthropic does, so that levels can be compared. */
export const fetchServed = (one: Spoken): Way =>
  overServer(
    `floodgate/fetch, ${one.protocol.name}`,
    Fetch.make({ accounting: Accounting.anthropic }),
    (fetch, url) => {
      const accepted = async (response: Response) => {
        if (!response.ok) throw new Error(`${response.status} ${await response.text()}`)
        return response
      }
      const asks = (characters: number, agent: string) => ({ text: "x".repeat(characters), agent, maxTokens: 100 })
      return {
        follow: (characters, agent, previous) =>
          askFrom(async (signal) => {
            const given = { ...asks(characters, agent), thread: previous ?? "new" }
            const answer = await answerOf(one, await accepted(await send(url, one, given, { fetch, signal })))
            return [answer.continuation ?? "", answer.counts.inputTokens ?? 0]
          }),
        ask: (characters, agent) =>
          askFrom(async (signal) => {
            const response = await accepted(await send(url, one, asks(characters, agent), { fetch, signal }))
            const { inputTokens = 0, outputTokens = 0 } = (await answerOf(one, response)).counts
            return [inputTokens, outputTokens]
          }),
        stream: (characters, agent) =>
          streamFrom(async function* (signal) {
            const given = { ...asks(characters, agent), maxTokens: 1_000, stream: true }
            yield* textsOf(one, await accepted(await send(url, one, given, { fetch, signal })))
          })
      }
    },
    { follows: one.stores, saysInput: one.protocol === anthropic }
  )

/** The AI SDK's middleware around a model that speaks HTTP. */
export const aiSdkServed: Way = overServer(
  "floodgate/ai-sdk, over HTTP",
  FloodgateAiSdk.make(),
  ({ wrapGenerate, wrapStream }, url) => {
    const model = AiSdkModel.make(url)
    const paramsOf = (characters: number, agent: string, signal: AbortSignal): AiSdkModel.CallOptions => ({
      prompt: [{ role: "user", content: [{ type: "text", text: "x".repeat(characters) }] }],
      maxOutputTokens: 1_000,
      abortSignal: signal,
      providerOptions: { floodgate: { agent } }
    })
    return {
      ask: (characters, agent) =>
        askFrom(async (signal) => {
          const { usage } = await wrapGenerate({ model, params: paramsOf(characters, agent, signal) })
          return [usage.inputTokens.total ?? 0, usage.outputTokens.total ?? 0]
        }),
      stream: (characters, agent) =>
        streamFrom(async function* (signal) {
          const { stream } = await wrapStream({ model, params: paramsOf(characters, agent, signal) })
          for await (const part of stream) {
            // As the AI SDK's own readers do.
            if (part.type === "error") throw part.error
            yield part.type === "text-delta" ? part.delta : ""
          }
        })
    }
  }
)

/** Own code without Effect. Its answers are whole, because nothing knows of its streams. */
export const runServed: Way = {
  name: "run of floodgate/promise, over HTTP",
  clock: "live",
  streams: false,
  start: Effect.fnUntraced(function* (setup) {
    const { attempts, maxElapsedMillis } = setup.retry
    const { budget, provider } = setup
    const server = yield* ProviderServer.make(provider)
    const maxElapsedSeconds = maxElapsedMillis === undefined ? undefined : maxElapsedMillis / 1_000
    const floodgate = yield* Effect.acquireRelease(
      Effect.sync(() =>
        Floodgate.create({
          limits: budget?.limits,
          concurrency: typeof budget?.concurrency === "number" ? budget.concurrency : undefined,
          retry: { baseSeconds: 0.005, attempts, maxElapsedSeconds }
        })
      ),
      (floodgate) => Effect.promise(floodgate.dispose)
    )
    const model = AiSdkModel.make(server.url)
    const answer = (characters: number, agent: string) =>
      askFrom((signal) =>
        floodgate.run(
          { model: Models.modelName, bytes: characters, maxTokens: 100, agent, signal },
          async ({ signal, used }) => {
            const prompt = [{ role: "user", content: [{ type: "text", text: "x".repeat(characters) }] }]
            const providerOptions = { floodgate: { agent } }
            const given = { prompt, maxOutputTokens: 100, abortSignal: signal, providerOptions }
            const answer = await model.doGenerate(given)
            const [inputTokens, outputTokens] = [answer.usage.inputTokens.total, answer.usage.outputTokens.total ?? 0]
            used({ inputTokens, outputTokens })
            return { text: answer.text, used: [inputTokens, outputTokens] as const }
          }
        )
      )
    return {
      ask: (characters, agent) => Effect.map(answer(characters, agent), ({ used }) => used),
      stream: (characters, agent) => Stream.fromEffect(Effect.map(answer(characters, agent), ({ text }) => text)),
      log: server.log,
      stats: server.stats,
      pool: Effect.map(Effect.promise(floodgate.status), ({ pools }) => pools["default"] ?? unused)
    }
  })
}
