import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"

const use = (requests: number, account?: string, model?: string) =>
  Effect.forEach(Array.from({ length: requests }), () => Budget.consume(0, { account, model }), { discard: true })

const levels = Effect.map(
  Effect.flatMap(Budget.TokenBudget, ({ status }) => status),
  ({ pools }) =>
    Object.fromEntries(Object.entries(pools).map(([name, { dimensions }]) => [name, dimensions.requests?.level]))
)

describe("accounts", () => {
  it.effect("have pools of their own, with the limits that were given for all", () =>
    Effect.gen(function* () {
      yield* use(1)
      yield* use(2, "api.example.com/1")
      yield* use(3, "api.example.com/2", "any-model")
      assert.deepStrictEqual(yield* levels, { default: 9, "api.example.com/1": 8, "api.example.com/2": 7 })
    }).pipe(Effect.provide(Budget.layer({ limits: { requests: { total: 10 } } })))
  )

  it.effect("have the limits of each class of models", () =>
    Effect.gen(function* () {
      yield* use(1, "one", "claude-opus-4-8")
      yield* use(2, "two", "claude-opus-4-5")
      // Where nothing is known of a pool, its calls are spaced.
      const unknown = yield* Effect.forkChild(use(3, "one", "gpt-6"))
      yield* TestClock.adjust("1 hour")
      yield* Fiber.join(unknown)
      assert.deepStrictEqual(yield* levels, { "opus-4": 10, "one/opus-4": 9, "two/opus-4": 8, "one/gpt-6": undefined })
    }).pipe(Effect.provide(Budget.layer({ limits: { pools: { "opus-4": { requests: { total: 10 } } } } })))
  )

  it.effect("may not name a pool that has no limits, as nobody may", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(Budget.consume(0, { account: "one", pool: "opus" }))
      assert.match(String(exit), /pool: expected one of "opus-4"/)
    }).pipe(Effect.provide(Budget.layer({ limits: { pools: { "opus-4": { requests: { total: 10 } } } } })))
  )

  describe("beyond a thousand", () => {
    const names = Effect.map(levels, (pools) => new Set(Object.keys(pools)))
    const many = (from: number, count: number) =>
      Effect.forEach(
        Array.from({ length: count }, (_, n) => `key-${from + n}`),
        (account) => use(1, account),
        {
          discard: true
        }
      )
    const bucket = (perMinute: number) => ({ perMinute, window: "bucket" as const })
    const perMinute = (requests: number) => ({ requests: bucket(requests) })

    it.effect("are forgotten when they rest, the longest first, and come back as new ones", () =>
      Effect.gen(function* () {
        yield* use(5, "old")
        yield* TestClock.adjust("9 minutes")
        yield* many(0, 998)
        yield* TestClock.adjust("1 second")
        yield* use(1, "old")
        yield* TestClock.adjust("10 minutes")
        // With the pool of those without an account, that is a thousand.
        assert.strictEqual((yield* names).size, 1_000)
        yield* use(1, "new")
        const left = yield* names
        assert.strictEqual(left.size, 751)
        assert.isTrue(left.has("new") && left.has("default"))
        assert.isTrue(left.has("old"), "it was used last")
        assert.isFalse(left.has("key-0"))
        yield* use(3, "key-0")
        yield* use(3, "never seen")
        const { "key-0": back, "never seen": fresh } = yield* levels
        assert.strictEqual(back, fresh)
      }).pipe(Effect.provide(Budget.layer({ limits: perMinute(100) })))
    )

    it.effect("are resized together, and those that open later as well", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.TokenBudget
        yield* use(1, "one")
        yield* budget.resize({ limits: perMinute(7), concurrency: 3 })
        yield* use(1, "two")
        const { pools } = yield* budget.status
        for (const account of ["one", "two", "default"]) {
          assert.isAtMost(pools[account]!.dimensions.requests!.limitPerSecond, 7 / 60, account)
          assert.strictEqual(pools[account]!.allowed, 3, account)
        }
      }).pipe(Effect.provide(Budget.layer({ limits: perMinute(100) })))
    )

    it.effect("are kept as long as they are used, paused, the user's, or their limits are not full", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.TokenBudget
        const held = yield* Effect.forkChild(
          Budget.withReservation({ requests: 1 }, () => Effect.never, { account: "held" })
        )
        yield* Effect.yieldNow
        yield* budget.resize({ pool: "resized", limits: perMinute(7) })
        yield* Budget.withReservation({ tokens: 1 }, ({ settle }) => settle({ tokens: 1_500 }), { account: "in debt" })
        yield* budget.cooldown({ pool: "paused", reason: "rateLimit", retryAfter: "10 minutes" })
        yield* many(0, 600)
        yield* TestClock.adjust("9 minutes")
        yield* budget.cooldown({ pool: "paused", reason: "rateLimit", retryAfter: "9 minutes" })
        yield* many(600, 395)
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual((yield* names).size, 1_000)
        yield* many(1_000, 1)
        const left = yield* names
        assert.strictEqual(left.size, 751)
        for (const name of ["held", "resized", "in debt", "paused", "key-600", "key-994", "key-1000"]) {
          assert.isTrue(left.has(name), name)
        }
        yield* Fiber.interrupt(held)
      }).pipe(Effect.provide(Budget.layer({ limits: { ...perMinute(100), tokens: bucket(100) } })))
    )

    it.effect("are kept where a quota was used", () =>
      Effect.gen(function* () {
        yield* many(0, 1_100)
        yield* TestClock.adjust("1 day")
        yield* many(2_000, 200)
        assert.strictEqual((yield* names).size, 1_301)
        assert.strictEqual((yield* levels)["key-0"], 9)
      }).pipe(Effect.provide(Budget.layer({ limits: { requests: { total: 10 } } })))
    )

    it.effect("come back with what they had learned", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.TokenBudget
        yield* use(1, "key-a", "m")
        yield* budget.observe({ pool: "key-a/m", dimensions: { inputTokens: { limit: 60_000, remaining: 60_000 } } })
        yield* many(0, 999)
        yield* TestClock.adjust("10 minutes")
        yield* many(1_000, 1)
        const { pools } = yield* budget.status
        assert.isUndefined(pools["key-a/m"])
        yield* use(1, "key-a", "m")
        const back = (yield* budget.status).pools["key-a/m"]
        assert.strictEqual(back?.dimensions.inputTokens?.limitPerSecond, 1_000)
      }).pipe(Effect.provide(Budget.layer()))
    )

    it.effect("leave no numbers behind", () => {
      const registry: Metric.MetricRegistry = new Map()
      return Effect.gen(function* () {
        yield* many(0, 999)
        yield* TestClock.adjust("10 minutes")
        const before = registry.size
        yield* many(1_000, 1)
        assert.approximately(registry.size, before * 0.751, 20)
      }).pipe(
        Effect.provide(Budget.layer({ limits: perMinute(100) })),
        Effect.provideService(Metric.MetricRegistry, registry)
      )
    })
  })
})
