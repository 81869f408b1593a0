import { assert, describe, it } from "@effect/vitest"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Deferred from "effect/Deferred"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import { retryOf, isDone, makeStated, pool, start } from "./support/budget.ts"

const perSecond = (rate: number, burst: number) => ({ tokens: { perSecond: rate, burst } })

const level = Effect.map(pool, ({ dimensions }) => dimensions.tokens!.level)

describe("The reason why no place takes a call", () => {
  const later = (seconds: number) =>
    new Budget.WaitTooLong({
      pool: "p",
      dimension: undefined,
      wait: Duration.seconds(seconds),
      maxWait: Duration.seconds(1)
    })
  const full = new Budget.QueueFull({ pool: "p", maxQueued: 1 })
  const spent = new Budget.QuotaExhausted({ pool: "p", dimension: "tokens", asked: 2, left: 1 })
  type Reason = Budget.NoPlace["places"][number]["reason"]
  const closest = (...reasons: ReadonlyArray<Reason>) =>
    new Budget.NoPlace({ model: "m", places: reasons.map((reason, n) => ({ place: `${n}`, reason })) }).closest

  it("is that of the place with the shortest wait", () => {
    const [long, short] = [later(9), later(5)]
    assert.strictEqual(closest(long, short), short)
    assert.strictEqual(closest(short, long), short)
    assert.strictEqual(closest(full, long, short), short)
  })

  it("is one that may end, before one that never does", () => {
    assert.strictEqual(closest(spent, full), full)
    assert.strictEqual(closest(full, spent), full)
    assert.strictEqual(closest(spent, later(5), full)._tag, "WaitTooLong")
    assert.strictEqual(closest(spent), spent)
  })
})

describe("Budget", () => {
  it.effect("names the cause, the pool, and whether to retry, in one line for each refusal", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const refused = (estimate: Limits.Estimate, options?: Budget.ReserveOptions) =>
        Effect.map(Effect.flip(Effect.scoped(budget.reserve({ tokens: 1, ...estimate }, options))), (error) => {
          assert.match(error.message, /^[^\n]*pool "default"[^\n]*$/)
          return [error.reason._tag, error.isRetryable] as const
        })
      assert.deepStrictEqual(yield* refused({ tokens: 100_000 }), ["EstimateTooLarge", false])
      yield* Budget.consume(1)
      assert.deepStrictEqual(yield* refused({ requests: 3 }), ["QuotaExhausted", false])
      yield* budget.reserve({ tokens: 999 })
      assert.deepStrictEqual(yield* refused({ tokens: 10 }, { maxWait: 5 }), ["WaitTooLong", true])
      yield* start(Effect.scoped(budget.reserve({ tokens: 10 })))
      assert.deepStrictEqual(yield* refused({}), ["QueueFull", true])
    }).pipe(
      Effect.scoped,
      Effect.provide(
        makeStated({ limits: { tokens: { perSecond: 1_000, burst: 1_000 }, requests: { total: 3 } }, maxQueued: 1 })
      )
    )
  )

  it.live("admits a call with a maxWait of 0 if there is room, with a running clock", () =>
    Budget.consume(1, { maxWait: 0 }).pipe(
      Effect.provide(Budget.layer({ limits: perSecond(1_000, 1_000), concurrency: 1 }))
    )
  )

  it.effect("names the end of another call if a call would wait for the concurrency", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* budget.reserve({ tokens: 1 })
      const error = yield* Effect.flip(Effect.scoped(budget.reserve({ tokens: 1 }, { maxWait: 0 })))
      assert.match(error.message, /for a free place in pool "default"/)
    }).pipe(Effect.scoped, Effect.provide(makeStated({ limits: perSecond(1_000, 1_000), concurrency: 1 })))
  )

  it.effect("names no limit that is gone as what calls wait for", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const first = yield* budget.reserve({ tokens: 100 })
      const waiting = yield* Effect.forkChild(budget.reserve({ tokens: 100 }), { startImmediately: true })
      const binding = Effect.map(budget.status, ({ pools }) => pools["default"]!.binding)
      assert.strictEqual(yield* binding, "tokens")
      yield* budget.resize({ limits: { requests: { perSecond: 1_000 } }, concurrency: 1 })
      assert.deepStrictEqual([(yield* budget.status).pools["default"]!.queued, yield* binding], [1, undefined])
      yield* first.refund
      yield* Fiber.join(waiting)
    }).pipe(Effect.scoped, Effect.provide(makeStated({ limits: perSecond(1, 100), concurrency: 2 })))
  )

  it.effect("admits everything with layerUnlimited, and still names the pool and the agent", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const named = yield* budget.reserve({ tokens: 1e9 }, { agent: "a", pool: "opus" })
      assert.deepStrictEqual([named.agent, named.pool], ["a", "opus"])
      const ambient = yield* Effect.provideService(budget.reserve({ tokens: 1e9 }), Budget.Agent, "b")
      assert.deepStrictEqual([ambient.agent, ambient.pool], ["b", "default"])
      yield* budget.observe({ dimensions: { tokens: { limit: 1, remaining: 0 } } })
      yield* budget.pause({ duration: "1 hour", reason: "rateLimit" })
      yield* budget.resize({ limits: perSecond(1, 1) })
      yield* budget.reserve({ tokens: 1e9 })
      assert.deepStrictEqual((yield* budget.status).pools, {})
    }).pipe(Effect.scoped, Effect.provide(Budget.layerUnlimited))
  )

  describe("reserve", () => {
    it.effect("does not delay calls that are made one at a time before limits are known", () =>
      Effect.gen(function* () {
        const call = Budget.withReservation({ tokens: 1_000 }, ({ settle, waited }) =>
          Effect.sleep(1).pipe(Effect.andThen(settle({ tokens: 1_000 })), Effect.as(Duration.toMillis(waited)))
        )
        const waits = yield* start(Effect.replicateEffect(call, 20))
        yield* TestClock.adjust(20)
        assert.deepStrictEqual(
          yield* Fiber.join(waits),
          Array.from({ length: 20 }, () => 0)
        )
      }).pipe(Effect.provide(Budget.layer({})))
    )

    it.effect("admits a waiter exactly when enough has refilled", () =>
      Effect.gen(function* () {
        yield* Budget.consume(1_000)
        const waiter = yield* start(Budget.consume(500))
        yield* TestClock.adjust(499)
        assert.isFalse(isDone(waiter))
        yield* TestClock.adjust(1)
        assert.isTrue(isDone(waiter))
      }).pipe(Effect.provide(makeStated({ limits: perSecond(1_000, 1_000) })))
    )

    it.effect("charges every dimension at one instant or none", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.TokenBudget
        yield* Effect.scoped(budget.reserve({ inputTokens: 10, outputTokens: 100 }))
        const waiter = yield* start(Effect.scoped(budget.reserve({ inputTokens: 50, outputTokens: 10 })))
        const { dimensions } = (yield* budget.status).pools.default!
        assert.strictEqual(dimensions.inputTokens!.level, 90)
        assert.strictEqual(dimensions.outputTokens!.level, 0)
        yield* TestClock.adjust(1_000)
        assert.isTrue(isDone(waiter))
      }).pipe(
        Effect.provide(
          makeStated({
            limits: { inputTokens: { perSecond: 1, burst: 100 }, outputTokens: { perSecond: 10, burst: 100 } }
          })
        )
      )
    )

    it.effect("serves agents in turn however many calls one of them queues", () =>
      Effect.gen(function* () {
        const served: Array<string> = []
        const call = (agent: string) =>
          Budget.withReservation({ tokens: 100 }, () => Effect.sync(() => served.push(agent)), { agent })
        yield* Budget.consume(100)
        for (let i = 0; i < 5; i++) yield* start(call("greedy"))
        yield* start(call("modest"))
        yield* TestClock.adjust(10_000)
        assert.deepStrictEqual(served, ["greedy", "modest", "greedy", "greedy", "greedy", "greedy"])
      }).pipe(Effect.provide(makeStated({ limits: perSecond(100, 100) })))
    )

    it.effect("never has more calls in flight than the concurrency", () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        let peak = 0
        let running = 0
        const call = Budget.withReservation({ tokens: 1 }, () =>
          Effect.gen(function* () {
            peak = Math.max(peak, ++running)
            yield* Deferred.await(gate)
            running--
          })
        )
        const fibers = yield* Effect.forEach([1, 2, 3, 4, 5], () => start(call))
        assert.strictEqual(running, 2)
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.joinAll(fibers)
        assert.strictEqual(peak, 2)
      }).pipe(Effect.provide(makeStated({ limits: perSecond(1_000, 1_000), concurrency: 2 })))
    )

    it.effect("fails at once when the estimate can never fit", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Budget.consume(60_001))
        assert.strictEqual(error.reason._tag, "EstimateTooLarge")
        if (error.reason._tag !== "EstimateTooLarge") return
        assert.strictEqual(error.reason.dimension, "tokens")
        assert.strictEqual(error.reason.asked, 60_001)
        assert.strictEqual(error.reason.limit, 60_000)
      }).pipe(Effect.provide(makeStated({ limits: perSecond(1_000, 1_000) })))
    )

    it.effect("admits an estimate above the burst when the bucket is full", () =>
      Effect.gen(function* () {
        yield* Budget.consume(1)
        const large = yield* start(Budget.consume(3_000))
        assert.isFalse(isDone(large))
        yield* TestClock.adjust(1)
        assert.isTrue(isDone(large))
        assert.strictEqual(yield* level, -2_000)
      }).pipe(Effect.provide(makeStated({ limits: perSecond(1_000, 1_000) })))
    )

    it.effect("fails at once when the wait would be longer than maxWait", () =>
      Effect.gen(function* () {
        yield* Budget.consume(1_000)
        const error = yield* Effect.flip(Budget.consume(600, { maxWait: 500 }))
        assert.strictEqual(error.reason._tag, "WaitTooLong")
        if (error.reason._tag !== "WaitTooLong") return
        assert.strictEqual(Duration.toMillis(error.reason.wait), 600)
        assert.strictEqual(error.reason.dimension, "tokens")
        const ok = yield* start(Budget.consume(500, { maxWait: 500 }))
        yield* TestClock.adjust(500)
        assert.isTrue(isDone(ok))
      }).pipe(Effect.provide(makeStated({ limits: perSecond(1_000, 1_000) })))
    )

    it.effect("predicts that an estimate above the burst is admitted when the bucket is full", () =>
      Effect.gen(function* () {
        // Regression: the predicted wait was that for the whole estimate to refill: 30 s instead of half a second.
        yield* Budget.consume(30_000, { maxWait: 0 })
        yield* TestClock.adjust(29_500)
        const { message } = yield* Effect.flip(Budget.consume(30_000, { maxWait: 499 }))
        assert.include(message, "The call would wait 500ms for tokens")
        const ok = yield* start(Budget.consume(30_000, { maxWait: 500 }))
        yield* TestClock.adjust(500)
        assert.isTrue(isDone(ok))
      }).pipe(Effect.provide(makeStated({ limits: perSecond(1_000, 1_000), concurrency: 10 })))
    )

    for (const [what, tokens, options] of [
      [
        "that a window holds calls back which are larger than the burst",
        150_000,
        { limits: { tokens: { perMinute: 400_000 } } }
      ],
      [
        "that calls of more than half a window go one by one",
        250_000,
        { limits: { tokens: { perMinute: 400_000, window: "sliding" } } }
      ]
    ] satisfies ReadonlyArray<readonly [string, number, Budget.Options]>) {
      it.effect(`foresees ${what}`, () =>
        Effect.gen(function* () {
          // Regression: waits were predicted 23 s too early or too late, so calls timed out or were refused wrongly.
          yield* Budget.consume(tokens)
          const waits: Array<number> = []
          const served: Array<number> = []
          for (let i = 0; i < 12; i++) {
            const { reason } = yield* Effect.flip(Budget.consume(tokens, { maxWait: 0 }))
            if (reason._tag === "WaitTooLong") waits.push(Duration.toMillis(reason.wait))
            yield* start(
              Effect.andThen(
                Budget.consume(tokens),
                Effect.map(Clock.currentTimeMillis, (at) => served.push(at))
              )
            )
          }
          yield* TestClock.adjust("15 minutes")
          assert.strictEqual(served.length, 12)
          for (const [i, at] of served.entries()) assert.closeTo(waits[i]!, at, 20)
        }).pipe(Effect.provide(makeStated(options)))
      )
    }

    it.effect("predicts the wait of a retry, which goes before its agent's other calls", () =>
      Effect.gen(function* () {
        // Regression: all of them counted as before it, so a retry with a deadline was refused.
        yield* Budget.consume(1_000)
        for (let i = 0; i < 50; i++) yield* start(Budget.consume(1_000, { agent: "a" }))
        const retry = yield* start(Budget.consume(1_000, retryOf({ agent: "a", maxWait: 1_000 })))
        yield* TestClock.adjust(999)
        assert.isFalse(isDone(retry))
        yield* TestClock.adjust(1)
        assert.isTrue(isDone(retry))
      }).pipe(Effect.provide(makeStated({ limits: perSecond(1_000, 1_000) })))
    )

    it.effect("predicts a wait for a limit that refills, and a refusal for a quota", () =>
      Effect.gen(function* () {
        // Regression: "would wait Infinity for requests", although the call before it refunds its requests.
        const held = yield* start(
          Budget.withReservation({ tokens: 10 }, (reservation) =>
            Effect.andThen(Effect.sleep(1_000), reservation.refund)
          )
        )
        const refunds = Budget.withReservation({ requests: 8, tokens: 10 }, (reservation) => reservation.refund)
        yield* start(refunds)
        const waiter = yield* start(
          Budget.withReservation({ requests: 8, tokens: 10 }, () => Effect.void, { maxWait: "1 minute" })
        )
        yield* TestClock.adjust(1_000)
        yield* Fiber.join(held)
        yield* Fiber.join(waiter)
      }).pipe(
        Effect.provide(
          makeStated({ limits: { requests: { total: 10 }, tokens: { perSecond: 1_000 } }, concurrency: 1 })
        )
      )
    )

    it.effect("does not charge a quota for a call that uses none of it", () =>
      Effect.gen(function* () {
        for (const concurrency of [1, Infinity]) {
          yield* Effect.gen(function* () {
            yield* Budget.withReservation({ tokens: 100 }, (reservation) => reservation.settle({ tokens: 105 }))
            yield* Budget.consume(0)
          }).pipe(Effect.provide(makeStated({ limits: { tokens: { total: 100 } }, concurrency })))
        }
      })
    )

    it.effect("refuses the next call when the queue is full", () =>
      Effect.gen(function* () {
        yield* Budget.consume(1_000)
        yield* start(Budget.consume(100))
        const error = yield* Effect.flip(Budget.consume(100))
        assert.strictEqual(error.reason._tag, "QueueFull")
      }).pipe(Effect.provide(makeStated({ limits: perSecond(1_000, 1_000), maxQueued: 1 })))
    )

    it.effect("names what a quota has left", () =>
      Effect.gen(function* () {
        yield* Budget.consume(60)
        const error = yield* Effect.flip(Budget.consume(60))
        assert.strictEqual(error.reason._tag, "QuotaExhausted")
        if (error.reason._tag === "QuotaExhausted") assert.strictEqual(error.reason.left, 40)
        yield* Budget.consume(40)
      }).pipe(Effect.provide(makeStated({ limits: { tokens: { total: 100 } } })))
    )
  })

  it.effect("uses a reserve that wraps the budget's own, in every operation", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const asked: Array<number | undefined> = []
      const around: typeof budget = {
        ...budget,
        reserve: (estimate, options) => {
          asked.push(estimate.tokens)
          return budget.reserve(estimate, options)
        }
      }
      yield* Effect.provideService(Budget.consume(1), Budget.TokenBudget, around)
      yield* Effect.scoped(around.reserve({ tokens: 2 }))
      assert.deepStrictEqual(asked, [1, 2])
    }).pipe(Effect.provide(makeStated({ limits: perSecond(1_000, 1_000) })))
  )

  describe("settle", () => {
    it.effect("refunds what was not used, and admits the next call at once", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.TokenBudget
        const reservation = yield* budget.reserve({ tokens: 1_000 })
        const waiter = yield* start(Budget.consume(400))
        yield* reservation.settle({ tokens: 600 })
        yield* Effect.yieldNow
        assert.isTrue(isDone(waiter))
        yield* reservation.settle({ tokens: 0 })
        yield* reservation.refund
        assert.strictEqual(yield* level, 0)
      }).pipe(Effect.scoped, Effect.provide(makeStated({ limits: perSecond(1_000, 1_000) })))
    )

    it.effect("keeps more than the estimate as debt that later refill pays first", () =>
      Effect.gen(function* () {
        yield* Budget.withReservation({ tokens: 1_000 }, (reservation) => reservation.settle({ tokens: 1_500 }))
        assert.strictEqual(yield* level, -500)
        const waiter = yield* start(Budget.consume(100))
        yield* TestClock.adjust(599)
        assert.isFalse(isDone(waiter))
        yield* TestClock.adjust(1)
        assert.isTrue(isDone(waiter))
      }).pipe(Effect.provide(makeStated({ limits: perSecond(1_000, 1_000) })))
    )
  })

  describe("changes", () => {
    it.effect("gives the status now and after changes", () =>
      Effect.gen(function* () {
        const budget = yield* Budget.TokenBudget
        yield* Budget.consume(100)
        const fiber = yield* start(Stream.runCollect(Stream.take(budget.changes, 2)))
        yield* Budget.consume(300)
        const seen = yield* Fiber.join(fiber)
        assert.deepStrictEqual(
          seen.map((status) => status.pools.default!.dimensions.tokens!.level),
          [900, 600]
        )
      }).pipe(Effect.provide(makeStated({ limits: perSecond(1_000, 1_000) })))
    )

    it.effect("end when the budget is closed", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const { changes } = yield* Scope.provide(Budget.make({ limits: {} }), scope)
        const fiber = yield* start(Stream.runCount(changes))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* Fiber.join(fiber), 1)
      })
    )

    it.effect("shows that a waiter has left, at any place in the queue", () =>
      Effect.gen(function* () {
        // Regression: only the first call was shown to leave.
        const budget = yield* Budget.TokenBudget
        yield* Budget.consume(1_000)
        yield* start(Budget.consume(10))
        const second = yield* start(Budget.consume(10))
        const queued: Array<number> = []
        yield* start(
          Stream.runForEach(budget.changes, ({ pools }) => Effect.sync(() => queued.push(pools.default!.queued)))
        )
        yield* Fiber.interrupt(second)
        yield* Effect.yieldNow
        assert.deepStrictEqual(queued, [2, 1])
      }).pipe(Effect.provide(makeStated({ limits: perSecond(1, 1_000) })))
    )
  })

  it.effect("from configuration fails with the name and the value of an invalid option", () =>
    Effect.gen(function* () {
      const error = (env: Record<string, string>) =>
        Budget.consume(1).pipe(
          Effect.provide(
            Budget.layerConfig({
              limits: { requests: { perMinute: Config.Int("RPM") } },
              concurrency: Config.withDefault(Config.Int("AT_ONCE"), 10)
            })
          ),
          Effect.flip,
          Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(env))),
          Effect.map(({ _tag, message }) => `${_tag}: ${message}`)
        )
      const noRequests = "Budget.layerConfig: limits.requests.perMinute: expected a number above 0, up to 2^53, got 0"
      assert.include(yield* error({ RPM: "0" }), `ConfigError: SchemaError(${noRequests}`)
      const none = "Budget.layerConfig: concurrency: expected an integer >= 1, got -3"
      assert.include(yield* error({ RPM: "60", AT_ONCE: "-3" }), `ConfigError: SchemaError(${none}`)
    })
  )

  it.effect("reports invalid values as configuration errors, and no other defect", () =>
    Effect.gen(function* () {
      // Regression: every error became a ConfigError.
      const bug = (): never => {
        throw new TypeError("a bug")
      }
      const limits = Config.map(Config.succeed(1), (perMinute) => ({
        tokens: Object.defineProperty({ perMinute }, "burst", { get: bug })
      }))
      const live = Budget.layerConfig({ limits: limits as never })
      const exit = yield* Effect.exit(Effect.provide(Budget.consume(1), live))
      assert.isTrue(Exit.hasDies(exit))
      assert.include(String(exit), "TypeError")
      const wrong = Budget.layerConfig({ limits: Config.succeed(null as never) })
      assert.isFalse(Exit.hasDies(yield* Effect.exit(Effect.provide(Budget.consume(1), wrong))))
    })
  )
})
