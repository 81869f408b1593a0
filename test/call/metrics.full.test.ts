/** The metrics of governors that share a registry. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"

/** A governor keeps no more pools than these. */
const most = 1_000

const counter = (id: string, attributes: Record<string, string>) =>
  Effect.map(Metric.snapshot, (all) =>
    all.flatMap((metric) =>
      metric.type === "Counter" &&
      metric.id === id &&
      Object.entries(attributes).every(([name, value]) => metric.attributes?.[name] === value)
        ? [Number(metric.state.count)]
        : []
    )
  )

const attempts = (model: string) => counter("floodgate_attempts", { pool: model })

const governor = Effect.provide(Governor.make(), Layer.fresh(Estimator.layer()))

const call = (governor: Governor.Governor["Service"], model: string) =>
  governor.run({ model, bytes: 1 }, () => Effect.succeed({ value: 1, actual: { inputTokens: 3, outputTokens: 2 } }))

const others = (governor: Governor.Governor["Service"]) =>
  Effect.forEach(Array.from({ length: most }), (_, n) => call(governor, `other-${n}`), { discard: true })

const live = Layer.provideMerge(
  Budget.layer(),
  Layer.sync(Metric.MetricRegistry, () => new Map())
)

describe("the metrics of governors in one registry", () => {
  it.effect("count together, and stay for as long as one of them knows the pool", () =>
    Effect.gen(function* () {
      const [one, two] = [yield* governor, yield* governor]
      yield* Effect.replicateEffect(call(one, "m"), 5)
      yield* call(two, "m")
      yield* others(two)
      assert.deepStrictEqual(yield* attempts("m"), [6])
      yield* call(one, "m")
      assert.deepStrictEqual(yield* attempts("m"), [7])
      assert.deepStrictEqual(yield* counter("floodgate_tokens", { pool: "m", type: "input" }), [21])
    }).pipe(Effect.provide(Layer.fresh(live)))
  )

  it.effect("end with the last governor that knows the pool, and begin anew", () =>
    Effect.gen(function* () {
      const [one, two] = [yield* governor, yield* governor]
      for (const each of [one, two]) yield* call(each, "m")
      for (const each of [one, two]) yield* others(each)
      assert.deepStrictEqual(yield* attempts("m"), [])
      assert.deepStrictEqual(yield* attempts("other-7"), [2])
      yield* call(two, "m")
      assert.deepStrictEqual(yield* attempts("m"), [1])
    }).pipe(Effect.provide(Layer.fresh(live)))
  )

  it.effect("count together beyond two thousand, and stay while calls run", () =>
    Effect.gen(function* () {
      const one = yield* governor
      const gate = yield* Deferred.make<void>()
      const slow = (model: string) =>
        one.run({ model, bytes: 1 }, () =>
          Effect.as(Deferred.await(gate), { value: 1, actual: { inputTokens: 3, outputTokens: 2 } })
        )
      const calls = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 2 * most + 100 }), (_, n) => slow(`other-${n}`), {
          concurrency: "unbounded"
        })
      )
      yield* Effect.yieldNow
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(calls)
      const pools = Effect.map(
        Metric.snapshot,
        (all) =>
          new Set(
            all.flatMap(({ attributes, id }) =>
              !id.startsWith("floodgate_") || id.startsWith("floodgate_budget") ? [] : [attributes?.["pool"]]
            )
          )
      )
      assert.strictEqual((yield* pools).size, 2 * most + 1)
      assert.deepStrictEqual(yield* counter("floodgate_tokens", { pool: "other pools", type: "input" }), [300])
      assert.deepStrictEqual(yield* attempts("other-0"), [1])
      // Now they make room again.
      yield* Effect.forEach(Array.from({ length: most }), (_, n) => call(one, `later-${n}`), { discard: true })
      assert.isAtMost((yield* pools).size, 2 * most)
      // Pools that count together keep their sums, as in a budget.
      assert.deepStrictEqual(yield* counter("floodgate_tokens", { pool: "other pools", type: "input" }), [300])
    }).pipe(Effect.provide(Layer.fresh(live)))
  )

  it.effect("end also if the last admission of a pool was refused", () =>
    Effect.gen(function* () {
      const one = yield* governor
      for (let n = 0; n < most + 50; n++) {
        const account = `account-${n}`
        yield* one.run({ model: "m", account, bytes: 1, maxTokens: 1 }, () =>
          Effect.succeed({ value: 1, actual: undefined })
        )
        const tooLarge = Effect.scoped(one.admit({ model: "m", account, bytes: 10_000_000, caches: false }))
        assert.strictEqual((yield* Effect.flip(tooLarge))._tag, "BudgetError")
      }
      const all = yield* Metric.snapshot
      const pools = new Set(
        all.flatMap(({ attributes, id }) => (id === "floodgate_attempts" ? [attributes?.["pool"]] : []))
      )
      assert.isAtLeast(pools.size, most / 2)
      assert.isAtMost(pools.size, most)
    }).pipe(
      Effect.provide(Layer.fresh(Layer.provideMerge(Budget.layer({ limits: { tokens: { perSecond: 10_000 } } }), live)))
    )
  )

  it.effect("have the attributes of their governor", () =>
    Effect.gen(function* () {
      const [red, blue] = yield* Effect.forEach(["red", "blue"], (team) =>
        Effect.provideService(governor, Metric.CurrentMetricAttributes, { team })
      )
      for (const each of [red!, red!, blue!]) yield* call(each, "m")
      const ofTeams = Effect.all(["red", "blue"].map((team) => counter("floodgate_attempts", { pool: "m", team })))
      assert.deepStrictEqual(yield* ofTeams, [[2], [1]])
      yield* others(red!)
      assert.deepStrictEqual(yield* ofTeams, [[], [1]])
    }).pipe(Effect.provide(Layer.fresh(live)))
  )

  it.effect("are separate in another registry", () =>
    Effect.gen(function* () {
      const one = yield* governor
      const two = yield* Effect.provideService(governor, Metric.MetricRegistry, new Map())
      yield* call(one, "m")
      yield* call(two, "m")
      yield* others(two)
      assert.deepStrictEqual(yield* attempts("m"), [1])
    }).pipe(Effect.provide(Layer.fresh(live)))
  )
})
