// A `LanguageModel` of effect/ai with a budget: one layer between the provider's layer and the program.
//     npm run -s example examples/effect-ai.ts
import * as AiError from "effect/ai/AiError"
import * as LanguageModel from "effect/ai/LanguageModel"
import type * as Prompt from "effect/ai/Prompt"
import type * as Response from "effect/ai/Response"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as FloodgateAi from "floodgate/ai"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import type { LlmError } from "floodgate/LlmError"
import { LlmProvider } from "floodgate/LlmProvider"
import { ProviderSim } from "floodgate/testing"

// -----------------------------------------------------------------------------
// The program: it uses effect/ai, and knows of no budget
// -----------------------------------------------------------------------------

const agent = Effect.fnUntraced(function* (name: string) {
  const question = `${"x".repeat(60_000)} What does it say?`
  const { usage } = yield* LanguageModel.generateText({ prompt: question })
  const deltas = yield* LanguageModel.streamText({ prompt: `In one word, ${name}?` }).pipe(
    Stream.filter((part) => part.type === "text-delta"),
    Stream.runCollect
  )
  return { name, tokens: usage.inputTokens.total ?? 0, deltas: deltas.length }
})

const program = Effect.gen(function* () {
  const names = Array.from({ length: 12 }, (_, n) => `agent ${n}`)
  const done = yield* Effect.forEach(names, (name) => Effect.provideService(agent(name), Budget.Agent, name), {
    concurrency: "unbounded"
  })
  const tokens = done.reduce((sum, one) => sum + one.tokens, 0)
  const { completed, rejected } = yield* (yield* ProviderSim.ProviderSim).stats
  console.log(`${done.length} agents, ${tokens} tokens: ${completed} calls answered, ${rejected} rejected`)
})

// -----------------------------------------------------------------------------
// The provider's layer: yours comes from a package
// -----------------------------------------------------------------------------

const textOf = ({ content }: Prompt.Message): string =>
  typeof content === "string" ? content : content.map((part) => (part.type === "text" ? part.text : "")).join("")

const paramsOf = (model: string, { prompt }: LanguageModel.ProviderOptions) => ({
  model,
  max_tokens: 200,
  messages: [{ role: "user" as const, content: prompt.content.map(textOf).join("\n") }]
})

/** An adapter should keep the response of a failure, from which the governor reads status, code and headers. */
const failed = ({ message, reason: { code, status = 500 } }: LlmError) => {
  const http = { response: { status, headers: {} }, body: JSON.stringify({ error: { type: code, message } }) }
  return AiError.make({ module: "Simulated", method: "any", reason: AiError.reasonFromHttpStatus({ status, http }) })
}

const finish = (input: number | null | undefined, output: number) => ({
  type: "finish" as const,
  reason: "stop" as const,
  usage: { inputTokens: { total: input ?? undefined }, outputTokens: { total: output } }
})

export const layerOf = (model: string) =>
  Layer.effect(
    LanguageModel.LanguageModel,
    Effect.gen(function* () {
      const provider = yield* LlmProvider
      return yield* LanguageModel.make({
        generateText: (options) =>
          provider.create(paramsOf(model, options)).pipe(
            Effect.map(({ value: { content, model: modelId, usage } }) => [
              { type: "response-metadata" as const, modelId },
              ...content.flatMap((block) =>
                block.type === "text" ? [{ type: "text" as const, text: block.text }] : []
              ),
              finish(usage.input_tokens, usage.output_tokens)
            ]),
            Effect.mapError(failed)
          ),
        streamText: (options) =>
          Stream.unwrap(Effect.map(provider.stream(paramsOf(model, options)), ({ value }) => value)).pipe(
            Stream.mapError(failed),
            Stream.flatMap((event): Stream.Stream<Response.StreamPartEncoded> => {
              if (event.type === "content_block_delta" && event.delta.type === "text_delta") {
                return Stream.succeed({ type: "text-delta" as const, id: "0", delta: event.delta.text })
              }
              return event.type === "message_delta"
                ? Stream.succeed(finish(event.usage.input_tokens, event.usage.output_tokens))
                : Stream.empty
            })
          )
      })
    })
  )

// -----------------------------------------------------------------------------
// The one layer
// -----------------------------------------------------------------------------

// 120,000 tokens a second, and 60,000 at once: the limits of the provider, which the budget also gets.
const limits = { inputTokens: { perSecond: 120_000, burst: 60_000 } }

const model = "claude-sonnet-5"

const live = FloodgateAi.layer({ model, maxTokens: 200 }).pipe(
  Layer.provide(layerOf(model)),
  Layer.provide(Governor.layer().pipe(Layer.provide(Budget.layer({ limits })))),
  Layer.provideMerge(
    ProviderSim.layer({ limits, latency: { baseMillis: 25, perOutputTokenMillis: 1 }, outputTokens: 40 })
  )
)

if (import.meta.main) await Effect.runPromise(Effect.provide(program, live))
