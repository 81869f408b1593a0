/** Large prompts are counted at the provider while their calls wait. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { LlmError, ServerFailed } from "floodgate/LlmError"
import type { Params } from "floodgate/LlmProvider"
import { Texts } from "floodgate/internal/testing"
import { ProviderSim } from "floodgate/testing"
import { isDone, pool, start } from "../support/budget.ts"
import { until } from "../support/gateway.ts"
import { interruptAt } from "../support/yieldAt.ts"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const collect = Effect.sync(runInNewContext("gc") as () => void)

/** The bucket holds 100,000 tokens, and gains 100 a second. */
const limits = { inputTokens: { perSecond: 100, burst: 100_000 } }

/** 100,000 tokens at 2.7 bytes a token, and 40,000 as the provider counts. */
const call: Governor.Call = { model: "m", bytes: 270_000, maxTokens: 10 }

const governed = (options: Governor.Options = {}) =>
  Governor.layer(options).pipe(Layer.provideMerge(Budget.layer({ limits })))

/** A call whose answer takes ten minutes, so that nothing is learned from it meanwhile. */
const ask = (countTokens: Governor.Call["countTokens"], of: Governor.Call = call) =>
  Effect.flatMap(Governor.Governor, (governor) => {
    const answer = { value: "ok", actual: { inputTokens: 40_000, outputTokens: 5 } }
    return governor.run({ ...of, countTokens }, () => Effect.as(Effect.sleep("10 minutes"), answer))
  })

/** Takes 50,000 tokens of the bucket. */
const half = Effect.flatMap(Budget.TokenBudget, ({ reserve }) => reserve({ inputTokens: 50_000 }))

const inFlight = Effect.map(pool, ({ inFlight }) => inFlight)

describe("Counting a prompt", () => {
  it.effect("lets a waiting call go as soon as its tokens are known to fit", () =>
    Effect.gen(function* () {
      yield* half
      yield* start(ask(Effect.delay(Effect.succeed(40_000), 300)))
      yield* TestClock.adjust(299)
      assert.strictEqual(yield* inFlight, 1)
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* inFlight, 2)
    }).pipe(Effect.provide(governed()), Effect.scoped)
  )

  it.effect("lets a call with several places go where it fits, and asks only the first of them", () => {
    const places = ["a", "b"].map((name) => ({ name, model: "m", limits }))
    const placed = { ...call, places: { places } }
    const running = Effect.gen(function* () {
      const { pools } = yield* (yield* Budget.TokenBudget).status
      return Object.values(pools).reduce((sum, { inFlight }) => sum + inFlight, 0)
    })
    return Effect.gen(function* () {
      for (const inputTokens of [50_000, 70_000]) yield* start(ask(undefined, { ...placed, inputTokens }))
      yield* TestClock.adjust(1)
      // The count must not be sent to a place where the call may not go.
      const elsewhere = Governor.Governor.use((governor) =>
        governor.run({ ...placed, countTokens: Effect.die("counted") }, () => Effect.never, { places: ["b"] })
      )
      yield* start(elsewhere)
      yield* start(ask(Effect.delay(Effect.succeed(40_000), 300), placed))
      yield* TestClock.adjust(299)
      assert.strictEqual(yield* running, 2)
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* running, 3)
    }).pipe(Effect.provide(governed()))
  })

  it.effect("teaches how many tokens a byte makes, for the calls that were not counted", () =>
    Effect.gen(function* () {
      yield* half
      yield* start(ask(Effect.delay(Effect.succeed(20_000), 300)))
      const other = yield* start(ask(undefined))
      yield* TestClock.adjust(300)
      assert.isFalse(isDone(other))
      assert.strictEqual(yield* inFlight, 3)
    }).pipe(Effect.provide(governed()), Effect.scoped)
  )

  it.effect("is not done for calls that need not wait, are small, or whose tokens are known", () =>
    Effect.gen(function* () {
      let counts = 0
      const count = Effect.sync(() => ++counts)
      yield* start(ask(count))
      const small = { ...call, bytes: 26_000 }
      for (const other of [small, { ...call, inputTokens: 90_000 }, { ...call, stored: true }]) {
        yield* start(ask(count, other))
      }
      yield* TestClock.adjust("1 second")
      assert.strictEqual(counts, 0)
    }).pipe(Effect.provide(governed()))
  )

  it.effect("can be switched off", () =>
    Effect.gen(function* () {
      yield* half
      const fiber = yield* start(ask(Effect.die("counted")))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* inFlight, 1)
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.provide(governed({ countPrompts: false })), Effect.scoped)
  )

  it.effect("ends with its call, when that is cancelled or sent", () =>
    Effect.gen(function* () {
      yield* half
      let [begun, interrupted] = [0, 0]
      const count = Effect.onInterrupt(
        Effect.andThen(
          Effect.sync(() => begun++),
          Effect.never
        ),
        () => Effect.sync(() => interrupted++)
      )
      const cancelled = yield* start(ask(count))
      yield* TestClock.adjust(100)
      assert.deepStrictEqual([begun, interrupted], [1, 0])
      yield* Fiber.interrupt(cancelled)
      assert.deepStrictEqual([begun, interrupted], [1, 1])
      // 48,100 tokens fit 10 s before the count is given up.
      const sent = yield* start(ask(count, { ...call, bytes: 2.7 * 50_200 }))
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual([begun, interrupted], [2, 2])
      yield* Fiber.interrupt(sent)
    }).pipe(Effect.provide(governed()), Effect.scoped)
  )

  it.effect("ends with its call, at whichever step that is interrupted", () =>
    Effect.gen(function* () {
      yield* half
      let [begun, interrupted] = [0, 0]
      const counting = Effect.andThen(
        Effect.sync(() => begun++),
        Effect.never
      )
      const count = Effect.onInterrupt(counting, () => Effect.sync(() => interrupted++))
      for (let step = 1; step < 40; step++) {
        yield* interruptAt(ask(count), step, "its first fiber")
        yield* TestClock.adjust(1)
        assert.strictEqual(interrupted, begun, `step ${step}`)
      }
      assert.isAbove(begun, 0)
    }).pipe(Effect.provide(governed()), Effect.scoped)
  )

  it.live(
    "keeps no prompt in memory once its call is admitted",
    () =>
      Effect.gen(function* () {
        const governor = yield* Governor.Governor
        const admitted = Effect.suspend(() => {
          const prompt = { tokens: 10_000 }
          const ticket = governor.admit({ ...call, bytes: 30_000, countTokens: Effect.sync(() => prompt.tokens) })
          const reference = new WeakRef(prompt)
          return Effect.map(ticket, (ticket) => ({ ticket, reference }))
        })
        const { reference, ticket } = yield* admitted
        yield* until(collect, () => reference.deref() === undefined)
        yield* ticket.succeed({ inputTokens: 10_000, outputTokens: 5 })
      }).pipe(Effect.provide(governed()), Effect.scoped),
    { tags: "full" }
  )

  it.effect("is done for sixteen calls at once, and for the next ones once these have ended", () =>
    Effect.gen(function* () {
      yield* half
      let counts = 0
      const count = Effect.andThen(
        Effect.sync(() => counts++),
        Effect.never
      )
      const fibers = yield* Effect.replicateEffect(start(ask(count)), 20)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(counts, 16)
      yield* Effect.forEach(fibers, Fiber.interrupt, { concurrency: "unbounded" })
      yield* start(ask(count))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(counts, 17)
    }).pipe(Effect.provide(governed()), Effect.scoped)
  )

  it.effect("changes nothing if it fails, never ends or makes no sense, and is not tried again at once", () =>
    Effect.gen(function* () {
      for (const count of [Effect.fail("no"), Effect.die("broken"), Effect.never, Effect.succeed(Number.NaN)]) {
        yield* Effect.gen(function* () {
          yield* half
          let counts = 0
          const counting = Effect.andThen(
            Effect.sync(() => counts++),
            count
          )
          const fibers = [yield* start(ask(counting))]
          yield* TestClock.adjust("11 seconds")
          fibers.push(yield* start(ask(counting)))
          yield* TestClock.adjust("11 seconds")
          assert.strictEqual(counts, 1)
          assert.strictEqual(yield* inFlight, 1)
          yield* TestClock.adjust("10 minutes")
          assert.strictEqual(yield* inFlight, 2)
          yield* Effect.forEach(fibers, Fiber.interrupt)
        }).pipe(Effect.provide(governed()), Effect.scoped)
      }
    })
  )

  it.effect("is done once for a call, however often it is tried, and is counted in the metrics", () =>
    Effect.gen(function* () {
      let counts = 0
      let attempts = 0
      const count = Effect.sync(() => (counts++, 40_000))
      yield* half
      const governor = yield* Governor.Governor
      const fiber = yield* start(
        governor.run({ ...call, countTokens: count }, () =>
          ++attempts < 3
            ? Effect.fail(new LlmError({ reason: new ServerFailed({ status: 500 }) }))
            : Effect.succeed({ value: "ok", actual: { inputTokens: 40_000, outputTokens: 5 } })
        )
      )
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* Fiber.join(fiber), "ok")
      assert.deepStrictEqual([attempts, counts], [3, 1])
      const metrics = (yield* Metric.snapshot).filter(({ id }) => id === "floodgate_counted_prompts")
      assert.deepStrictEqual(
        metrics.map(({ attributes, state }) => [attributes?.["outcome"], Reflect.get(state, "count")]),
        [["counted", 1]]
      )
    }).pipe(Effect.provide(governed()), Effect.provideService(Metric.MetricRegistry, new Map()), Effect.scoped)
  )

  it.effect("is done by LlmClient for large prompts that wait", () =>
    Effect.gen(function* () {
      const sim = yield* ProviderSim.ProviderSim
      const params: Params = {
        model: "claude-sonnet-5",
        max_tokens: 100,
        messages: [{ role: "user", content: Texts.write("prose", 180_000) }]
      }
      const [first, second] = yield* Effect.replicateEffect(start(LlmClient.create(params)), 2)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual([isDone(first!), isDone(second!)], [true, true])
      const { countTokens, rejected } = yield* sim.stats
      assert.deepStrictEqual([countTokens, rejected], [1, 0])
    }).pipe(
      Effect.provide(LlmClient.layerProvider()),
      Effect.provide([Budget.layer({ limits }), ProviderSim.layer({ limits, latency: { countTokensMillis: 200 } })])
    )
  )
})
