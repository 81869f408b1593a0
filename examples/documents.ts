// A documents pipeline: one agent per file of docs/ takes notes, the last merges them; a forecast says how long it takes.
//     npm run -s example examples/documents.ts
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as Forecast from "floodgate/Forecast"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim } from "floodgate/testing"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

const folder = join(import.meta.dirname, "../docs")
const documents = readdirSync(folder)
  .filter((name) => name.endsWith(".md"))
  .map((name) => ({ name, text: readFileSync(join(folder, name), "utf8") }))

const ask = (...turns: ReadonlyArray<string>) =>
  Effect.map(
    LlmClient.create({
      model: "claude-sonnet-5",
      max_tokens: 300,
      messages: turns.map((content, index) => ({ role: index % 2 === 0 ? "user" : "assistant", content }))
    }),
    LlmClient.text
  )

/** An agent reads its document, and continues from its own notes. */
const read = Effect.fnUntraced(function* (text: string) {
  const task = `${text}\n\nTake notes of this.`
  const notes = yield* ask(task)
  return yield* ask(task, notes, "What did you leave out?")
})

// The limits of the simulated provider, which the budget also gets.
const limits = { inputTokens: { perSecond: 10_000, burst: 20_000 } }
const latency = { baseMillis: 50, perOutputTokenMillis: 1 }

const program = Effect.gen(function* () {
  const workload = documents.map(({ name, text }) => ({
    name,
    calls: [text, text].map(({ length }) => ({ inputTokens: Math.ceil(length / 4), outputTokens: 150 }))
  }))
  const { binding, duration } = Forecast.make(workload, { limits, latency })
  yield* Console.log(
    `${documents.length} documents: about ${Math.round(Duration.toSeconds(duration))} s, bound by ${binding}\n`
  )

  const outcomes = yield* Agents.run(
    documents.map(({ name, text }) => ({ key: name, effect: read(text) })),
    { cap: { tokens: 400_000, time: "1 minute" } }
  )
  for (const { elapsed, exit, key, used } of outcomes) {
    const how = Exit.isSuccess(exit) ? "read" : "failed"
    yield* Console.log(
      `${key.padEnd(16)} ${how} after ${Duration.toSeconds(elapsed).toFixed(1)} s, ${used.tokens} tokens`
    )
  }
  // A failed agent does not stop the others: the merge uses the notes that exist.
  const notes = outcomes.flatMap(({ exit }) => (Exit.isSuccess(exit) ? [exit.value] : []))
  yield* Console.log(`\nAll in one:\n${yield* ask(`${notes.join("\n\n")}\n\nMerge these into one page.`)}`)
})

const live = LlmClient.layerProvider().pipe(
  Layer.provideMerge(Agents.layer),
  Layer.provide(Budget.layer({ limits })),
  Layer.provide(ProviderSim.layer({ limits, latency }))
)

await Effect.runPromise(Effect.provide(program, live))
