// Twelve agents under one budget, each step building on the last, against a simulated provider that is the bottleneck.
//     npm run -s example examples/parallel-agents.ts
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import { ProviderServer } from "floodgate/testing/server"
import * as LlmClient from "floodgate/LlmClient"

/** One agent, in which each question builds on the answer before. It needs no code for limits or other agents. */
const agent = Effect.fnUntraced(function* (document: string) {
  let text = document
  for (const question of ["Read this.", "List the facts.", "Write a draft.", "Check the draft.", "Finish it."]) {
    const message = yield* LlmClient.create({
      model: "claude-sonnet-5",
      max_tokens: 200,
      messages: [{ role: "user", content: `${text}\n\n${question}` }]
    })
    text = LlmClient.text(message)
  }
  return text
})

const agents = Array.from({ length: 12 }, (_, n) => ({
  key: `agent-${n + 1}`,
  effect: agent(`Part ${n + 1} of the manual says how the gate is opened and when it is closed. `.repeat(500))
}))

const program = Effect.gen(function* () {
  // No agent may use more than 50,000 tokens, and the whole job may take a minute.
  const job = yield* Agents.fork(agents, { capPerAgent: { tokens: 50_000 }, cap: { time: "1 minute" } })
  yield* job.progress.pipe(
    Stream.map(({ done }) => done),
    Stream.changes,
    Stream.runForEach((done) => Console.log(`${done} of ${agents.length} agents done`))
  )
  for (const { elapsed, exit, key, used } of yield* job.await) {
    const how = Exit.isSuccess(exit) ? "done" : "failed"
    yield* Console.log(
      `${key} ${how} after ${Duration.toSeconds(elapsed)} s, ${used.calls} calls, ${used.tokens} tokens`
    )
  }
  const { rejected, requests } = yield* Effect.flatMap(ProviderServer.ProviderServer, (server) => server.stats)
  yield* Console.log(`The provider rejected ${rejected} of ${requests} requests`)
}).pipe(Effect.scoped)

// To call Anthropic instead, use `LlmClient.layerConfig()` as the client and remove this.
const provider = ProviderServer.layer({
  limits: { inputTokens: { perMinute: 60_000 } },
  timeScale: 20
})

const client = Layer.unwrap(
  Effect.map(ProviderServer.ProviderServer, ({ url }) =>
    LlmClient.layer({ apiKey: Redacted.make("any"), baseUrl: url })
  )
)

// Limits that are not given are learned from the responses.
const live = client.pipe(Layer.provideMerge(Agents.layer), Layer.provide(Budget.layer()), Layer.provideMerge(provider))

NodeRuntime.runMain(Effect.provide(program, live))
