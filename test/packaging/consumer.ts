/**
 * A user's project, which `npm run pack:check` compiles and runs against the packed package, once for each supported version
 * of the SDK. It prints what worked.
 */
import Anthropic from "@anthropic-ai/sdk"
import type { Message, MessageCreateParamsNonStreaming } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { Budget, LlmClient, LlmProvider } from "floodgate"
import * as Floodgate from "floodgate/promise"
import { ProviderServer } from "floodgate/testing/server"
import * as Provider from "floodgate/providers/Anthropic"
import { ProviderSim } from "floodgate/testing"

const params: MessageCreateParamsNonStreaming = {
  model: "claude-sonnet-5",
  max_tokens: 100,
  messages: [{ role: "user", content: "Hello" }]
}
const latency = { baseMillis: 1 }
const budget = { limits: { inputTokens: { perMinute: 2_000_000 } } }

// @ts-expect-error The types of the SDK must not have become `any`.
export const misspelt = () => LlmClient.create({ modle: "m", max_tokens: "200", messages: 3 })

const simulated = LlmClient.create(params).pipe(
  Effect.provide(LlmClient.layerProvider().pipe(Layer.provide(Budget.layer(budget)))),
  Effect.provide(ProviderSim.layer({ latency }))
)

const overHttp = Effect.gen(function* () {
  const { url } = yield* ProviderServer.make({ latency })
  const options = { apiKey: "any", baseURL: url }

  const floodgate = Floodgate.create(budget)
  const client = new Anthropic({ ...options, middleware: [floodgate.middleware] })
  const whole: Message = yield* Effect.promise(() => client.messages.create(params))
  const streamed: Message = yield* Effect.promise(() => client.messages.stream(params).finalMessage())
  const { pools } = yield* Effect.promise(floodgate.status)
  const inFlight = Object.values(pools).reduce((sum, { inFlight }) => sum + inFlight, 0)
  yield* Effect.promise(floodgate.dispose)

  const provider = Layer.succeed(LlmProvider.LlmProvider, Provider.fromClient(new Anthropic(options)))
  const live = LlmClient.layerProvider().pipe(Layer.provide(Budget.layer(budget)), Layer.provide(provider))
  return yield* Effect.gen(function* () {
    const answer: Message = yield* LlmClient.create(params)
    const events = yield* Stream.runCollect(LlmClient.stream(params))
    const counted = yield* LlmClient.LlmClient.use((client) => client.countTokens(params))
    return { messages: [whole, streamed, answer], last: events.at(-1)?.type, counted: counted > 0, inFlight }
  }).pipe(Effect.provide(live))
}).pipe(Effect.scoped)

const { counted, inFlight, last, messages } = await Effect.runPromise(overHttp)
const answered = [...messages, await Effect.runPromise(simulated)].filter(({ usage }) => usage.output_tokens > 0)
console.log(answered.length, last, counted, inFlight)
