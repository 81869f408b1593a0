/** The client whose calls are measured, over a provider that answers at once. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { LlmProvider, type Params, type Reply } from "floodgate/LlmProvider"

export const params: Params = {
  model: "claude-sonnet-5",
  max_tokens: 500,
  messages: [{ role: "user", content: "What is a token bucket? ".repeat(20) }]
}

const reply: Reply<unknown> = {
  value: {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "claude-sonnet-5",
    stop_reason: "end_turn",
    content: [{ type: "text", text: "A bucket that refills." }],
    usage: { input_tokens: 160, output_tokens: 8 }
  },
  signal: { dimensions: { inputTokens: { limit: 2_000_000, remaining: 1_990_000, roundedTo: 1_000 } } },
  requestId: undefined
}

/** Answers at once, always the same. */
export const provider = Layer.succeed(LlmProvider)(
  LlmProvider.of({
    name: "bare",
    create: () => Effect.succeed(reply as never),
    stream: () => Effect.succeed({ value: Stream.empty, signal: undefined, requestId: undefined }),
    countTokens: () => Effect.succeed({ value: 1, signal: undefined, requestId: undefined })
  })
)

export type Services = LlmClient.LlmClient | LlmProvider | Budget.TokenBudget

/** Runs an effect with a client of its own. */
export const withClient = (
  limits: Budget.Options["limits"],
  run: (context: Context.Context<Services>) => Promise<void>,
  client: Layer.Layer<LlmClient.LlmClient, never, LlmProvider | Budget.TokenBudget> = LlmClient.layerProvider(),
  clock: Layer.Layer<never> = Layer.empty
): Promise<void> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.flatMap(
        Layer.build(
          client.pipe(
            Layer.provideMerge(Budget.layer({ limits })),
            Layer.provideMerge(provider),
            Layer.provideMerge(clock)
          )
        ),
        (context) => Effect.promise(() => run(context))
      )
    )
  )

export const plenty = {
  requests: { perMinute: 1e12 },
  inputTokens: { perMinute: 1e12 },
  outputTokens: { perMinute: 1e12 }
}
