import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import type { Params } from "floodgate/LlmProvider"
import { ProviderSim, Simulation } from "floodgate/testing"

// The model of the provider: a token bucket of 60,000 output tokens a minute, output counted as it is produced, headers
// rounded as Anthropic's are, rejections free. 40 tokens a second, as a large model writes.

const learning = 60
const measured = 600
const maxTokens = 8_192
const limits: Limits.Limits = { outputTokens: { perMinute: 60_000, window: "bucket" } }

const paramsOf = (n: number): Params => ({
  model: "m",
  max_tokens: maxTokens,
  metadata: { user_id: `agent-${n}` },
  messages: [{ role: "user", content: `Question ${n}` }]
})

const draw = ProviderSim.lognormal(400, 1)
/** The golden ratio's multiples fill the unit interval evenly, so that a few hundred draws have the mean of all. */
const outputOf = ({ metadata }: Params): number =>
  draw(paramsOf(0), (Number(metadata!.user_id!.slice(6)) * 0.6180339887) % 1)

/** What is reserved for output: what was learned, what the call is going to use, or `max_tokens`. */
type Way = "learned" | "oracle" | "max_tokens"

const estimator = (way: Way): Layer.Layer<Estimator.Estimator> => {
  if (way === "learned") return Estimator.layer()
  return Layer.succeed(
    Estimator.Estimator,
    Estimator.Estimator.of({
      accounting: Accounting.anthropic,
      // The oracle gets the output from the length of the request, which the test sets.
      estimate: (call) =>
        Effect.succeed({ inputTokens: 1, outputTokens: way === "oracle" ? call.inputTokens! : call.maxTokens! }),
      learn: () => Effect.void,
      learned: Effect.succeed({ profiles: [] })
    })
  )
}

const run = (way: Way) =>
  Effect.gen(function* () {
    const ask = (n: number) => {
      const params = paramsOf(n)
      return LlmClient.create(params, { agent: `agent-${n}`, inputTokens: outputOf(params) })
    }
    const batch = (from: number, count: number) => {
      const numbers = Array.from({ length: count }, (_, index) => from + index)
      return Effect.forEach(numbers, ask, { concurrency: "unbounded", discard: true })
    }
    yield* Simulation.run(batch(1, learning))
    // The bucket is full again when the race begins.
    yield* TestClock.adjust("2 minutes")
    const { duration } = yield* Simulation.run(batch(learning + 1, measured))
    const sim = yield* ProviderSim.ProviderSim
    const { completed, rejected } = yield* sim.stats
    assert.strictEqual(completed, learning + measured)
    return { seconds: Duration.toSeconds(duration), rejected }
  }).pipe(
    Effect.provide(
      LlmClient.layerNoDeps.pipe(
        Layer.provide(Layer.effect(Governor.Governor, Governor.make())),
        Layer.provide(estimator(way)),
        Layer.provide(Budget.layer({ limits })),
        Layer.provideMerge(
          ProviderSim.layer({
            limits,
            outputTokens: outputOf,
            latency: { baseMillis: 1_000, perOutputTokenMillis: 25 }
          })
        )
      )
    )
  )

describe("output of unknown length", () => {
  it.effect(
    "costs at most 5 % more time than a known one after learning, while max_tokens cost more than twice as much",
    () =>
      Effect.gen(function* () {
        const oracle = yield* run("oracle")
        const learned = yield* run("learned")
        const reserved = yield* run("max_tokens")
        const line = [oracle, learned, reserved].map(({ seconds }) => seconds.toFixed(1)).join(" s, ")
        console.info(`${measured} calls of unknown length: oracle, learned, max_tokens reserved: ${line} s`)
        assert.deepStrictEqual([oracle.rejected, learned.rejected, reserved.rejected], [0, 0, 0])
        assert.isAtMost(learned.seconds / oracle.seconds, 1.05)
        assert.isAtLeast(reserved.seconds / oracle.seconds, 2)
      })
  )
})
