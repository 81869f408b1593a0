// A chat that streams its answers and can be stopped. The budget gets back the tokens that a stopped answer did not use.
//     npm run -s example examples/streaming-chat.ts
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import type { Params } from "floodgate/LlmProvider"
import { ProviderSim } from "floodgate/testing"

const write = (text: string) => Effect.sync(() => process.stdout.write(text))

/** Streams one answer to the terminal. Interrupting it aborts the request; no other cleanup is needed. */
const answer = (messages: Params["messages"]) =>
  LlmClient.stream({ model: "claude-sonnet-5", max_tokens: 1_000, messages }).pipe(
    Stream.map(LlmClient.text),
    Stream.tap(write),
    Stream.mkString
  )

/** Output tokens that the budget has left, of 60,000. */
const left = Effect.gen(function* () {
  const { status } = yield* Budget.TokenBudget
  const { inFlight, dimensions } = (yield* status).pools.default!
  yield* Console.log(`\n  [${inFlight} calls run, ${Math.round(dimensions.outputTokens!.level)} output tokens left]\n`)
})

const chat = Effect.gen(function* () {
  const messages: Array<Params["messages"][number]> = []

  yield* Console.log("> What is a token bucket?")
  messages.push({ role: "user", content: "What is a token bucket?" })
  messages.push({ role: "assistant", content: yield* answer(messages) })
  yield* left

  yield* Console.log("> Now recite the longest poem that you know.")
  messages.push({ role: "user", content: "Now recite the longest poem that you know." })
  // A user presses "stop" after a second. In a server, the client would close its tab.
  const stopped = yield* Effect.timeoutOption(answer(messages), "1 second")
  yield* Console.log(stopped._tag === "None" ? " ... (stopped)" : "")
  yield* left

  const { stats } = yield* ProviderSim.ProviderSim
  const { aborted, completed, outputTokens } = yield* stats
  yield* Console.log(`The provider completed ${completed} answer, and was told to abort ${aborted}.`)
  yield* Console.log(`It wrote ${outputTokens} tokens; the poem would have been 1000.`)
})

const reply = ({ messages }: Params) =>
  messages.length === 1 ? "A bucket that holds so many tokens, and is refilled all the time." : "la ".repeat(2_000)

const live = LlmClient.layerProvider().pipe(
  // The bucket refills so slowly that you can see how much was taken.
  Layer.provideMerge(Budget.layer({ limits: { outputTokens: { perMinute: 60, burst: 60_000, window: "bucket" } } })),
  Layer.provideMerge(ProviderSim.layer({ reply, latency: { baseMillis: 200, perOutputTokenMillis: 20 } }))
)

await Effect.runPromise(Effect.provide(chat, live))
