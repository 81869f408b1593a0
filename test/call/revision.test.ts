/** Waiting calls are estimated again once others have taught what they use. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as TestClock from "effect/testing/TestClock"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import { isDone, pool, start } from "../support/budget.ts"
import { MapStore } from "../support/store.ts"

/** 12,000 tokens at once, and 10 a second. */
const limits = { inputTokens: { perSecond: 10, burst: 12_000 } }

/** 10,000 tokens at 2.7 bytes a token, and 1,000 as the provider counts. */
const call: Governor.Call = { model: "m", bytes: 27_000, maxTokens: 10, kind: "report" }

const answered = (inputTokens: number, millis: number) =>
  Effect.as(Effect.sleep(millis), { value: "ok", actual: { inputTokens, outputTokens: 5 } })

const ask = (inputTokens: number, millis: number, of: Governor.Call = call, options?: Governor.CallOptions) =>
  Effect.flatMap(Governor.Governor, (governor) => governor.run(of, () => answered(inputTokens, millis), options))

/** What was taken of the bucket. */
const taken = Effect.map(pool, ({ dimensions }) => 12_000 - dimensions.inputTokens!.level)

const layers: Readonly<Record<string, Layer.Layer<never>>> = {
  "in one process": Layer.empty,
  "over a store": BudgetStore.layer(new MapStore())
}

const governed = (estimator: Layer.Layer<Estimator.Estimator> = Estimator.layer()) =>
  Layer.effect(Governor.Governor, Governor.make()).pipe(
    Layer.provideMerge(Budget.layer({ limits })),
    Layer.provideMerge(estimator)
  )

describe("A waiting call", () => {
  for (const [where, shared] of Object.entries(layers)) {
    it.effect(`is admitted by what the answer before it has taught, ${where}`, () =>
      Effect.gen(function* () {
        const first = yield* start(ask(1_000, 1_000))
        const others = yield* Effect.replicateEffect(start(ask(1_000, 1_000)), 4)
        yield* TestClock.adjust(900)
        assert.deepStrictEqual(others.map(isDone), [false, false, false, false])
        yield* TestClock.adjust(200)
        assert.isTrue(isDone(first))
        // Each is now expected to take 1,250 tokens, and was expected to take 10,000.
        yield* TestClock.adjust(1_100)
        assert.deepStrictEqual(others.map(isDone), [true, true, true, true])
        assert.closeTo(yield* taken, 5_000, 50)
      }).pipe(
        Effect.provide(governed()),
        Effect.provide(shared),
        Effect.scoped,
        Effect.provideService(References.MinimumLogLevel, "None")
      )
    )
  }

  it.effect("with one place is admitted as one without places is", () =>
    Effect.gen(function* () {
      const placed = { ...call, places: { places: [{ name: "here", model: "m" }] } }
      yield* start(ask(1_000, 1_000, placed))
      const others = yield* Effect.replicateEffect(start(ask(1_000, 1_000, placed)), 4)
      yield* TestClock.adjust(900)
      assert.deepStrictEqual(others.map(isDone), [false, false, false, false])
      yield* TestClock.adjust(1_300)
      assert.deepStrictEqual(others.map(isDone), [true, true, true, true])
      const { pools } = yield* Effect.flatMap(Budget.TokenBudget, ({ status }) => status)
      assert.closeTo(12_000 - pools["here"]!.dimensions.inputTokens!.level, 5_000, 50)
    }).pipe(Effect.provide(governed()), Effect.provideService(References.MinimumLogLevel, "None"))
  )

  it.effect("is admitted by what was taught at any of its places", () =>
    Effect.gen(function* () {
      const places = ["a", "b"].map((name) => ({ name, model: "m", limits }))
      const of = { ...call, places: { places } }
      const fibers = yield* Effect.replicateEffect(start(ask(1_000, 1_000, of)), 6)
      yield* TestClock.adjust(900)
      const { pools } = yield* (yield* Budget.TokenBudget).status
      for (const name of ["a", "b"]) assert.include(pools[name], { inFlight: 1, queued: 4 })
      yield* TestClock.adjust(1_300)
      assert.deepStrictEqual(fibers.map(isDone), [true, true, true, true, true, true])
    }).pipe(Effect.provide(governed()))
  )

  it.effect("holds the estimate with which it was admitted", () =>
    Effect.gen(function* () {
      const { reserve } = yield* Budget.TokenBudget
      yield* start(ask(1_000, 1_000))
      const waiting = yield* start(ask(1_000, 60_000))
      yield* TestClock.adjust(1_000)
      assert.isFalse(isDone(waiting))
      assert.closeTo(yield* taken, 1_000 + 1_250, 20)
      const { charge, estimate } = yield* reserve({ inputTokens: 100 })
      assert.deepStrictEqual([charge, estimate], [{ inputTokens: 100 }, { inputTokens: 100 }])
    }).pipe(Effect.provide(governed()), Effect.scoped)
  )

  it.effect("keeps its estimate if it would no longer fit", () =>
    Effect.gen(function* () {
      // It teaches so many tokens per byte that the larger calls would exceed the burst.
      yield* start(ask(11_000, 1_000, { ...call, bytes: 2_700 }))
      yield* start(ask(2_000, 2_000))
      const waiting = yield* start(ask(2_000, 1_000))
      yield* TestClock.adjust("1 hour")
      assert.isTrue(isDone(waiting))
      assert.strictEqual(yield* Fiber.join(waiting), "ok")
    }).pipe(Effect.provide(governed()))
  )

  it.effect("is not estimated again by an estimator of the user, which may ask a provider", () =>
    Effect.gen(function* () {
      let asked = 0
      const estimator = Layer.effect(
        Estimator.Estimator,
        Effect.map(Estimator.make(), (own) => ({
          ...own,
          estimate: (of: Estimator.Call) => Effect.tap(own.estimate(of), () => Effect.sync(() => asked++))
        }))
      )
      yield* Effect.gen(function* () {
        const calls = yield* Effect.replicateEffect(start(ask(1_000, 1_000)), 3)
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(calls.map(isDone), [true, true, true])
        assert.strictEqual(asked, 3)
      }).pipe(Effect.provide(governed(estimator)))
    })
  )

  it.effect("is unharmed by the accounting of another call that throws", () =>
    Effect.gen(function* () {
      let isBroken = false
      const accounting = {
        ...Accounting.anthropic,
        estimate: (expected: Parameters<Accounting.Accounting["estimate"]>[0]) => {
          if (isBroken) throw new Error("broken")
          return Accounting.anthropic.estimate(expected)
        }
      }
      yield* start(ask(1_000, 1_000))
      const odd = yield* start(ask(1_000, 1_000, { ...call, accounting }))
      const waiting = yield* start(ask(1_000, 1_000))
      isBroken = true
      yield* TestClock.adjust("20 minutes")
      assert.deepStrictEqual([odd, waiting].map(isDone), [true, true])
      assert.strictEqual(yield* Fiber.join(waiting), "ok")
    }).pipe(Effect.provide(governed()))
  )

  it.effect("is served although the estimator of an answered call never returns from learning", () =>
    Effect.gen(function* () {
      const learned = yield* Deferred.make<void>()
      const estimator = Layer.effect(
        Estimator.Estimator,
        Effect.map(Estimator.make(), (own) => ({ ...own, learn: () => Deferred.await(learned) }))
      )
      yield* Effect.gen(function* () {
        yield* start(ask(1_000, 1_000))
        const waiting = yield* start(ask(1_000, 1_000))
        yield* TestClock.adjust("10 minutes")
        // Both have their answers, and only their callers wait for the estimator.
        assert.closeTo(yield* taken, 0, 1)
        assert.isFalse(isDone(waiting))
        yield* Deferred.succeed(learned, undefined)
        yield* Fiber.join(waiting)
      }).pipe(Effect.provide(governed(estimator)))
    })
  )
})
