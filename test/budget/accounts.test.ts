import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import { countedBy } from "../support/budget.ts"

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
      // A pool without known limits spaces its calls.
      const unknown = yield* Effect.forkChild(use(3, "one", "gpt-6"))
      yield* TestClock.adjust("1 hour")
      yield* Fiber.join(unknown)
      assert.deepStrictEqual(yield* levels, { "opus-4": 10, "one/opus-4": 9, "two/opus-4": 8, "one/gpt-6": undefined })
    }).pipe(Effect.provide(Budget.layer({ limits: { pools: { "opus-4": { requests: { total: 10 } } } } })))
  )

  it.effect("cannot name a pool that has no limits", () =>
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
        { discard: true }
      )
    const bucket = (perMinute: number) => ({ perMinute, window: "bucket" as const })
    const perMinute = (requests: number) => ({ requests: bucket(requests) })

    it.effect(
      "are closed as soon as they are idle, the least recently used first",
      () =>
        Effect.gen(function* () {
          yield* many(0, 1_000)
          yield* use(1, "key-0")
          // The pool without an account is one more.
          assert.strictEqual((yield* names).size, 1_001)
          yield* many(1_000, 2)
          const left = yield* names
          assert.strictEqual(left.size, 1_001)
          assert.deepStrictEqual(
            ["key-0", "key-1", "key-2", "key-3", "key-1001", "default"].map((name) => left.has(name)),
            [true, false, false, true, true, true]
          )
        }).pipe(Effect.provide(Budget.layer({ limits: perMinute(100) }))),
      { tags: "full" }
    )

    it.effect("come back with what they had used, less what has refilled", () =>
      Effect.gen(function* () {
        yield* Budget.consume(60, { account: "spender" })
        yield* many(0, 1_000)
        assert.isFalse((yield* names).has("spender"))
        yield* TestClock.adjust("15 seconds")
        yield* Budget.consume(1, { account: "spender" })
        const { spender } = (yield* (yield* Budget.TokenBudget).status).pools
        // 100 - 60 + 25 - 1.
        assert.closeTo(spender?.dimensions.tokens?.level ?? NaN, 64, 1e-6)
      }).pipe(Effect.provide(Budget.layer({ limits: { tokens: bucket(100) } })))
    )

    it.effect("come back with what their quota had left, after any time", () =>
      Effect.gen(function* () {
        yield* use(7, "spender")
        yield* many(0, 1_000)
        assert.isFalse((yield* names).has("spender"))
        yield* TestClock.adjust("1 day")
        yield* use(1, "spender")
        assert.strictEqual((yield* levels)["spender"], 2)
      }).pipe(Effect.provide(Budget.layer({ limits: { requests: { total: 10 } } })))
    )

    it.effect("come back with how their provider counts, and with no fuller bucket", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.make({ limits: { tokens: { perMinute: 60_000 } } })
        const how = countedBy({ counting: { tokens: "bucket" } }, { account: "spender", maxWait: 0 })
        const reserve = (tokens: number) => Effect.exit(Effect.scoped(budget.reserve({ tokens }, how)))
        assert.strictEqual((yield* reserve(50_000))._tag, "Success")
        yield* Effect.provideService(many(0, 1_000), Budget.TokenBudget, budget)
        assert.strictEqual((yield* reserve(10_001))._tag, "Failure")
        assert.strictEqual((yield* reserve(9_000))._tag, "Success")
        yield* budget.resize({ limits: { tokens: { perMinute: 70_000 } } })
        assert.strictEqual((yield* reserve(10_001))._tag, "Failure", "other limits are no full bucket either")
      }).pipe(Effect.scoped)
    )

    it.effect("come back with the limits that they had learned, and their levels", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.TokenBudget
        yield* use(1, "key-a", "m")
        yield* budget.observe({ pool: "key-a/m", dimensions: { inputTokens: { limit: 60_000, remaining: 20_000 } } })
        yield* many(0, 1_000)
        assert.isFalse((yield* names).has("key-a/m"))
        yield* TestClock.adjust("10 seconds")
        yield* use(1, "key-a", "m")
        const back = (yield* budget.status).pools["key-a/m"]?.dimensions.inputTokens
        assert.strictEqual(back?.limitPerSecond, 1_000)
        assert.isAtMost(back?.level ?? Infinity, 30_000)
      }).pipe(Effect.provide(Budget.layer()))
    )

    it.effect("get another concurrency together with those of all models, also those that open later", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.make({ concurrency: 9 })
        const allowed = Effect.map(budget.status, ({ pools }) => Object.values(pools).map(({ allowed }) => allowed))
        const use = (model: string, account?: string) =>
          Effect.scoped(budget.reserve({ requests: 1 }, { model, account }))
        yield* use("claude-sonnet-5")
        yield* use("claude-opus-5", "b")
        yield* use("gpt-6")
        yield* budget.resize({ pool: Object.keys((yield* budget.status).pools)[2]!, concurrency: 4 })
        yield* budget.resize({ concurrency: 2 })
        yield* use("gemini-3-pro")
        assert.deepStrictEqual((yield* allowed).toSorted(), [2, 2, 2, 4])
        yield* budget.resize({ limits: { tokens: { perMinute: 7 } }, concurrency: 3 })
        yield* budget.resize({ concurrency: 5 })
        assert.deepStrictEqual((yield* allowed).toSorted(), [4, 5, 5, 5, 5])
      }).pipe(Effect.scoped)
    )

    it.effect("are resized together, also those that open later", () =>
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

    it.effect(
      "stay while a call runs or waits, while they pause, and if the user has resized them",
      () =>
        Effect.gen(function* () {
          const budget = yield* Budget.TokenBudget
          const hold = (account: string, tokens: number) =>
            Effect.forkChild(
              Budget.withReservation({ tokens }, () => Effect.never, { account }),
              {
                startImmediately: true
              }
            )
          const held = yield* hold("held", 1)
          yield* use(1, "waits")
          yield* Budget.withReservation({ tokens: 1 }, ({ settle }) => settle({ tokens: 150 }), { account: "waits" })
          const waits = yield* hold("waits", 50)
          yield* use(1, "resized")
          yield* budget.resize({ pool: "resized", limits: perMinute(7) })
          yield* use(1, "paused")
          yield* budget.pause({ duration: "10 minutes", pool: "paused", reason: "rateLimit" })
          yield* many(0, 2_000)
          const left = yield* names
          assert.strictEqual(left.size, 1_001)
          for (const name of ["held", "waits", "resized", "paused"]) assert.isTrue(left.has(name), name)
          yield* Fiber.interrupt(held)
          yield* Fiber.interrupt(waits)
          yield* TestClock.adjust("10 minutes")
          yield* many(0, 1_000)
          const now = yield* names
          assert.deepStrictEqual(
            ["held", "waits", "resized", "paused"].map((name) => now.has(name)),
            [false, false, true, false]
          )
        }).pipe(Effect.provide(Budget.layer({ limits: { ...perMinute(100), tokens: bucket(100) } }))),
      { tags: "full" }
    )

    it.effect(
      "count together if there are more than two thousand",
      () => {
        const registry: Metric.MetricRegistry = new Map()
        const counted = (pool: string) =>
          Effect.map(Metric.snapshot, (all) => {
            const of = all.find(
              ({ attributes, id }) => id === "floodgate_budget_reservations" && attributes?.pool === pool
            )
            return (of?.state as Metric.CounterState<number> | undefined)?.count ?? 0
          })
        return Effect.gen(function* () {
          const budget = yield* Budget.TokenBudget
          const before = registry.size
          // All of them are in use.
          yield* Effect.forEach(Array.from({ length: 2_500 }), (_, n) => budget.reserve({}, { account: `held-${n}` }))
          assert.isAtMost(registry.size, 2_001 * before)
          // The pool without an account counts by itself.
          assert.strictEqual(yield* counted("other pools"), 501)
          assert.strictEqual(yield* counted("held-1"), 1)
        }).pipe(
          Effect.scoped,
          Effect.provide(Budget.layer({ limits: perMinute(100) })),
          Effect.provideService(Metric.MetricRegistry, registry)
        )
      },
      { tags: "full" }
    )
  })

  describe("as many as there may be", () => {
    const limits = { tokens: { perSecond: 60 } }
    const reserve = (budget: Budget.TokenBudget["Service"], account: string) =>
      Effect.result(budget.reserve({ tokens: 1 }, { account }))

    it.effect("refuse one more only while all are in use", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.make({ limits, maxPools: 3 })
        const scopes = yield* Effect.forEach(["a", "b", "c"], (account) =>
          Effect.tap(Scope.make(), (scope) => Scope.provide(budget.reserve({ tokens: 1 }, { account }), scope))
        )
        const refused = yield* Effect.flip(Effect.scoped(budget.reserve({ tokens: 1 }, { account: "d" })))
        assert.deepInclude(refused.reason, { _tag: "TooManyPools", pool: "d", maxPools: 3 })
        assert.isTrue(refused.isRetryable)
        assert.match(refused.message, /"d".*all 3 pools.*maxPools/)
        // Existing pools, and the one that the limits name, keep working.
        assert.strictEqual((yield* reserve(budget, "b"))._tag, "Success")
        assert.strictEqual((yield* Effect.result(budget.reserve({ tokens: 1 })))._tag, "Success")
        yield* Scope.close(scopes[0]!, Exit.void)
        assert.strictEqual((yield* reserve(budget, "d"))._tag, "Success")
        assert.deepStrictEqual(Object.keys((yield* budget.status).pools), ["default", "b", "c", "d"])
      }).pipe(Effect.scoped)
    )

    it.effect(
      "refuse at a cost that does not grow with their number, and not any longer than one of them is paused",
      () =>
        Effect.gen(function* () {
          const clock = yield* Clock.Clock
          let looks = 0
          const counted: Clock.Clock = Object.create(clock, {
            monotonicTimeNanosUnsafe: { value: () => (looks++, clock.monotonicTimeNanosUnsafe()) }
          })
          const options = { limits, maxPools: 500 }
          const budget = yield* Effect.provideService(Budget.make(options), Clock.Clock, counted)
          const running = yield* budget.reserve({ tokens: 1 }, { account: "0" })
          for (let n = 0; n < 500; n++) {
            const account = `${n}`
            yield* Effect.scoped(budget.reserve({ tokens: 1 }, { account }))
            yield* budget.pause({ pool: account, duration: "10 seconds" })
          }
          yield* Effect.scoped(Effect.flip(budget.reserve({ tokens: 1 }, { account: "first" })))
          looks = 0
          for (let n = 0; n < 100; n++) {
            yield* Effect.scoped(Effect.flip(budget.reserve({ tokens: 1 }, { account: `x${n}` })))
            // Something happens, but no call ends.
            yield* running.observe({ dimensions: {} })
          }
          assert.isBelow(looks, 1_000)
          yield* TestClock.adjust("10 seconds")
          assert.strictEqual((yield* reserve(budget, "later"))._tag, "Success")
        }).pipe(Effect.scoped)
    )

    it.effect("come back with how their provider counts, also if their limits change before it says so again", () =>
      Effect.gen(function* () {
        const perMinute = (tokens: number) => ({ tokens: { perMinute: tokens } })
        const budget = yield* Budget.make({ limits: perMinute(60_000), maxPools: 1 })
        const spend = (how: Budget.ReserveOptions) => Effect.scoped(budget.reserve({ tokens: 5_000 }, how))
        yield* spend(countedBy({ counting: { tokens: "bucket" } }, { account: "one" }))
        yield* spend({ account: "two" })
        yield* spend({ account: "one" })
        yield* budget.resize({ limits: perMinute(90_000) })
        assert.strictEqual((yield* budget.status).pools["one"]!.dimensions.tokens!.capacity, 90_000)
      }).pipe(Effect.scoped)
    )

    it.effect("are named where there is no room for a forecast or a change either", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.make({ limits, maxPools: 1 })
        yield* budget.reserve({ tokens: 1 }, { account: "a" })
        const { reason } = yield* Effect.flip(budget.forecast([], { account: "b" }))
        assert.deepInclude(reason, { _tag: "TooManyPools", pool: "b", maxPools: 1 })
        const exit = yield* Effect.exit(budget.resize({ pool: "opus-4", concurrency: 1 }))
        assert.include(String(exit), 'needs a new pool "opus-4", but all 1 pool of the budget are in use')
      }).pipe(Effect.scoped)
    )

    it.effect("ignore updates of other pools", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.make({ maxPools: 1 })
        yield* budget.reserve({}, { model: "one" })
        yield* budget.observe({ pool: "two", dimensions: { requests: { remaining: 1 } } })
        yield* budget.pause({ duration: "1 second", pool: "two", reason: "rateLimit" })
        assert.deepStrictEqual(Object.keys((yield* budget.status).pools), ["one"])
      }).pipe(Effect.scoped)
    )

    it("are at least one", () => {
      for (const maxPools of [0, 1.5, Infinity, NaN]) {
        assert.throws(() => Budget.make({ maxPools }), RangeError, "Budget.make: maxPools: expected an integer >= 1")
      }
    })
  })

  it.effect("whose calls were all denied are closed", () => {
    const registry: Metric.MetricRegistry = new Map()
    return Effect.gen(function* () {
      const budget = yield* Budget.make()
      const before = registry.size
      for (let n = 0; n < 50; n++) {
        const account = `invented-${n}`
        const denied = Effect.scoped(
          Effect.flatMap(budget.reserve({ tokens: 10 }, { account, model: "m" }), ({ settle }) => settle({}, "denied"))
        )
        yield* Effect.andThen(denied, denied)
      }
      assert.deepStrictEqual((yield* budget.status).pools, {})
      assert.strictEqual(registry.size, before)
      assert.deepStrictEqual((yield* budget.learned).pools, [])
    }).pipe(Effect.scoped, Effect.provideService(Metric.MetricRegistry, registry))
  })

  it.effect("stay if a call was served, failed otherwise, or still runs", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits: { tokens: { perSecond: 60 } } })
      const reserve = budget.reserve({ tokens: 1 }, { account: "real" })
      const denied = Effect.scoped(Effect.flatMap(reserve, ({ settle }) => settle({}, "denied")))
      const names = Effect.map(budget.status, ({ pools }) => Object.keys(pools))
      for (const outcome of ["success", "failure"] as const) {
        const { settle } = yield* reserve
        yield* denied
        assert.deepStrictEqual(yield* names, ["real", "default"])
        yield* settle({}, outcome)
        yield* denied
        assert.deepStrictEqual(yield* names, ["real", "default"])
      }
    }).pipe(Effect.scoped)
  )

  it.effect("whose calls were all denied do not spend a limit twice", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits: { tokens: { perSecond: 60 } } })
      const denied = Effect.scoped(
        Effect.flatMap(budget.reserve({ tokens: 40 }, { account: "a", maxWait: 0 }), ({ settle }) =>
          settle({}, "denied")
        )
      )
      yield* denied
      assert.strictEqual((yield* Effect.flip(denied)).reason._tag, "WaitTooLong")
    }).pipe(Effect.scoped)
  )
})
