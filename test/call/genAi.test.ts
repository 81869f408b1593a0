/** The metrics of OpenTelemetry's GenAI conventions. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { LlmError, RateLimited } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"

const once = Retry.make({ attempts: 1 })
const live = Governor.layer({ retry: once }).pipe(
  Layer.provideMerge(Budget.layer({ limits: { requests: { total: 9_999 } } }))
)

const call = { model: "gpt-6", provider: "openai", bytes: 100 }
const usage = { inputTokens: 100, cacheReadTokens: 20, outputTokens: 30 }

const answer = Effect.delay(
  Effect.succeed({ value: "ok", actual: usage, response: { model: "gpt-6-2026-09-01" } }),
  "3 seconds"
)

/** The histograms whose names begin with `gen_ai`, after an effect in a registry of its own. */
const counted = <A, E>(made: Effect.Effect<A, E, Governor.Governor | Budget.TokenBudget>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(Effect.exit(made), { startImmediately: true })
    yield* TestClock.adjust("1 minute")
    yield* Fiber.await(fiber)
    const all = yield* Metric.snapshot
    return all.flatMap((metric) => (metric.id.startsWith("gen_ai") && metric.type === "Histogram" ? [metric] : []))
  }).pipe(Effect.provide(live), Effect.provideService(Metric.MetricRegistry, new Map()))

const run = (described: Governor.Call, attempt: Effect.Effect<Governor.Outcome<string>, LlmError> = answer) =>
  Governor.Governor.use((governor) => governor.run(described, () => attempt))

const by = { "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-6" }
const answered = { ...by, "gen_ai.response.model": "gpt-6-2026-09-01" }

describe("floodgate_tokens", () => {
  it.effect("counts what calls used by its kind, and nothing of a kind that they did not use", () =>
    Effect.gen(function* () {
      const all = { inputTokens: 100, cacheReadTokens: 20, cacheCreationTokens: 7, outputTokens: 30 }
      for (const actual of [all, { inputTokens: 1, outputTokens: 0 }]) {
        yield* run(call, Effect.succeed({ value: "ok", actual }))
      }
      const counts = (yield* Metric.snapshot).flatMap(({ attributes, id, state }) =>
        id === "floodgate_tokens" ? [[attributes!["type"], (state as Metric.CounterState<number>).count]] : []
      )
      assert.deepStrictEqual(Object.fromEntries(counts), { input: 101, output: 30, cache_read: 20, cache_write: 7 })
    }).pipe(Effect.provide(Layer.fresh(live)), Effect.provideService(Metric.MetricRegistry, new Map()))
  )
})

describe("gen_ai metrics", () => {
  it.effect("have the names, units, attributes and buckets of the conventions", () =>
    Effect.gen(function* () {
      const metrics = yield* counted(run(call))
      const seen = metrics.map(({ attributes, id, state: { count, sum } }) => ({ id, attributes, count, sum }))
      const tokens = { id: "gen_ai.client.token.usage", count: 1 }
      assert.sameDeepMembers(seen, [
        { ...tokens, sum: 120, attributes: { ...answered, unit: "{token}", "gen_ai.token.type": "input" } },
        { ...tokens, sum: 30, attributes: { ...answered, unit: "{token}", "gen_ai.token.type": "output" } },
        { id: "gen_ai.client.operation.duration", count: 1, sum: 3, attributes: { ...answered, unit: "s" } }
      ])
      const boundsOf = (id: string) => metrics.find((metric) => metric.id === id)!.state.buckets.map(([bound]) => bound)
      assert.deepStrictEqual(
        boundsOf("gen_ai.client.token.usage"),
        [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
      )
      assert.deepStrictEqual(
        boundsOf("gen_ai.client.operation.duration"),
        [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
      )
    })
  )

  it.effect("count a value in its bucket and all above, and one at a bound in the bucket that it ends", () =>
    Effect.gen(function* () {
      const metrics = yield* counted(run(call))
      const input = metrics.find(({ attributes }) => attributes?.["gen_ai.token.type"] === "input")!
      assert.deepStrictEqual(input.state.buckets.slice(2, 5), [
        [16, 0],
        [64, 0],
        [256, 1]
      ])
      const at = { actual: { inputTokens: 64, outputTokens: 1 }, value: "ok" }
      const [exact] = yield* counted(run(call, Effect.succeed(at)))
      assert.deepStrictEqual(exact!.state.buckets[3], [64, 1])
    })
  )

  it.effect("name the failure of a call, and count no tokens that nobody knows", () =>
    Effect.gen(function* () {
      const rejected = Effect.fail(new LlmError({ reason: new RateLimited({ status: 429 }) }))
      const [failed, ...more] = yield* counted(run(call, rejected))
      assert.isEmpty(more)
      assert.deepStrictEqual(failed!.attributes, { ...by, unit: "s", "error.type": "RateLimited" })
      const [left] = yield* counted(Effect.timeoutOption(run(call, Effect.never), "5 seconds"))
      assert.deepStrictEqual([left!.attributes!["error.type"], left!.state.sum], ["interrupted", 5])
    })
  )

  it.effect("of more models than memory should keep, of all pools together, count without their names", () =>
    Effect.gen(function* () {
      const quick = Effect.succeed({ value: "ok", actual: usage })
      const many = Array.from({ length: 200 }, (_, index) =>
        run({ ...call, model: `model-${index}`, account: `${index % 4}` }, quick)
      )
      const metrics = yield* counted(Effect.all(many))
      assert.isAtMost(metrics.length, 520)
      const sum = metrics.reduce((sum, { state }) => sum + state.count, 0)
      assert.strictEqual(sum, 3 * 200)
      assert.isTrue(
        metrics.some(({ attributes, state }) => attributes?.["gen_ai.request.model"] === undefined && state.count > 20)
      )
    })
  )
})
