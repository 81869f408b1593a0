// A test of your own fan-out against a simulated provider: minutes pass in milliseconds, and nothing needs a key.
//     npm test -- examples/fan-out.test.ts
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim, Simulation } from "floodgate/testing"

// -----------------------------------------------------------------------------
// The code under test, as it is in production
// -----------------------------------------------------------------------------

/** Reviews all files at once, and leaves out those that fail. */
const review = (files: ReadonlyArray<string>) =>
  Effect.forEach(
    files,
    (file, n) =>
      LlmClient.create(
        { model: "claude-sonnet-5", max_tokens: 500, messages: [{ role: "user", content: `Review this:\n${file}` }] },
        { agent: `file ${n}` }
      ).pipe(Effect.map(LlmClient.text), Effect.option),
    { concurrency: "unbounded" }
  ).pipe(Effect.map((reviews) => reviews.flatMap((review) => (review._tag === "Some" ? [review.value] : []))))

// -----------------------------------------------------------------------------
// The test: 60 files of 10,000 tokens, on a tier of 200,000 input tokens a minute
// -----------------------------------------------------------------------------

const files = Array.from({ length: 60 }, (_, n) => `${n} `.repeat(20_000))
const limits = { inputTokens: { perMinute: 200_000 } }

const world = (provider: ProviderSim.Options = {}) =>
  LlmClient.layerProvider().pipe(
    Layer.provide(Budget.layer({ limits })),
    Layer.provideMerge(ProviderSim.layer({ limits, outputTokens: 200, ...provider }))
  )

const stats = Effect.flatMap(ProviderSim.ProviderSim, (sim) => sim.stats)

describe("review", () => {
  it.effect(
    "reviews everything, and the provider never says no",
    () =>
      Effect.gen(function* () {
        const { duration, value } = yield* Simulation.run(review(files))
        assert.strictEqual(value.length, files.length)
        assert.strictEqual((yield* stats).rejected, 0)
        assert.isBelow(Duration.toMinutes(duration), 5)
      }).pipe(Effect.provide(world())),
    { tags: "full" }
  )

  it.effect("loses nothing when one call in twenty fails", () =>
    Effect.gen(function* () {
      const { value } = yield* Simulation.run(review(files))
      assert.strictEqual(value.length, files.length)
      assert.isAbove((yield* stats).failed, 0)
    }).pipe(Effect.provide(world({ faults: [{ kind: "500", rate: 0.05 }] })))
  )

  it.effect("gives what it has when the provider goes down for good after a minute", () =>
    Effect.gen(function* () {
      const { value } = yield* Simulation.run(review(files))
      assert.isAbove(value.length, 10)
      assert.isBelow(value.length, files.length)
    }).pipe(Effect.provide(world({ faults: [ProviderSim.outage(60_000, Infinity)] })))
  )
})
