/** What happens after the provider said no, and before it said anything. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"

const limits = { tokens: { perSecond: 1_000, burst: 1_000 } }
const make = (options: Budget.Options) => Budget.layer({ headroom: 0, ...options })
const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.tap(Effect.forkChild(effect), () => Effect.yieldNow)
const isDone = <A, E>(fiber: Fiber.Fiber<A, E>) => fiber.pollUnsafe() !== undefined
const pool = Effect.flatMap(Budget.TokenBudget, (budget) => Effect.map(budget.status, ({ pools }) => pools.default!))

/** Starts calls that last a second each, and notes when each began. */
const calls = Effect.fnUntraced(function* (count: number) {
  const begun: Array<number> = []
  const call = Budget.withReservation({ tokens: 1 }, () =>
    Effect.andThen(
      Effect.map(Clock.currentTimeMillis, (now) => begun.push(now)),
      Effect.sleep(1_000)
    )
  )
  for (let i = 0; i < count; i++) yield* start(call)
  return begun
})

const beginning = (begun: ReadonlyArray<number>, at: number) => begun.filter((time) => time === at).length

describe("Budget cooldown", () => {
  it.effect("lets one call out at its end, then two, then four, whatever was in flight before", () =>
    Effect.gen(function* () {
      // Regression: calls that were sent before the rejection and succeeded during the pause counted as probes, so that
      // at its end as many went out together.
      const budget = yield* Budget.TokenBudget
      const gate = yield* Deferred.make<void>()
      const old = Budget.withReservation({ tokens: 1 }, () => Deferred.await(gate))
      const before = yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7, 8], () => start(old))
      yield* budget.cooldown({ reason: "rateLimit", retryAfter: "10 seconds" })
      const begun = yield* calls(12)
      yield* TestClock.adjust(5_000)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.joinAll(before)
      yield* TestClock.adjust(4_999)
      assert.deepStrictEqual(begun, [])
      yield* TestClock.adjust(60_000)
      assert.deepStrictEqual(
        [10_000, 11_000, 12_000, 13_000].map((at) => beginning(begun, at)),
        [1, 2, 4, 5]
      )
    }).pipe(Effect.provide(make({ limits })))
  )

  it.effect("does not wait with the probe for calls that are still in flight", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* start(Budget.withReservation({ tokens: 1 }, () => Effect.never))
      yield* budget.cooldown({ reason: "rateLimit", retryAfter: "1 second" })
      const begun = yield* calls(2)
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(begun, [1_000])
      assert.strictEqual((yield* pool).allowed, 2)
    }).pipe(Effect.provide(make({ limits })))
  )

  it.effect("starts again with one when a probe is rejected", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* Budget.consume(1)
      yield* budget.cooldown({ reason: "rateLimit", retryAfter: "1 second" })
      const begun = yield* calls(8)
      yield* TestClock.adjust(2_500)
      yield* budget.cooldown({ reason: "rateLimit", retryAfter: "10 seconds" })
      yield* TestClock.adjust(60_000)
      assert.deepStrictEqual(
        [1_000, 2_000, 12_500, 13_500, 14_500].map((at) => beginning(begun, at)),
        [1, 2, 1, 2, 2]
      )
    }).pipe(Effect.provide(make({ limits })))
  )

  it.effect("lets the next call out when a probe fails or is interrupted", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* Budget.consume(1)
      yield* budget.cooldown({ reason: "rateLimit", retryAfter: "1 second" })
      const probe = yield* start(Budget.withReservation({ tokens: 1 }, () => Effect.never))
      const next = yield* start(Budget.consume(1))
      yield* TestClock.adjust(2_000)
      assert.isFalse(isDone(next))
      yield* Fiber.interrupt(probe)
      yield* Effect.yieldNow
      assert.isTrue(isDone(next))
    }).pipe(Effect.provide(make({ limits })))
  )

  it.effect("halves the calls in flight once when many of one round are told of overload", () =>
    Effect.gen(function* () {
      // Regression: twelve calls that failed together halved the places twelve times.
      const budget = yield* Budget.TokenBudget
      yield* Effect.scoped(
        Effect.gen(function* () {
          const held = yield* Effect.forEach(Array.from({ length: 12 }), () => budget.reserve({ tokens: 1 }))
          for (const reservation of held) {
            yield* reservation.settle({ tokens: 0 }, "failure")
            yield* budget.cooldown({ reason: "overload", reservation })
          }
        })
      )
      assert.strictEqual((yield* pool).allowed, 6)
      const begun = yield* calls(30)
      assert.strictEqual(begun.length, 6)
      yield* TestClock.adjust(1_000)
      assert.strictEqual(begun.length, 18)
    }).pipe(Effect.provide(make({ limits })))
  )

  it.effect("reads a rejection's own headers with the rejected call given back", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const reservation = yield* budget.reserve({ tokens: 400 })
      yield* budget.observe({ dimensions: { tokens: { remaining: 200 } }, reservation })
      yield* reservation.refund
      yield* budget.cooldown({ reason: "rateLimit", retryAfter: "1 second", reservation })
      const { dimensions, pace } = yield* pool
      assert.strictEqual(dimensions.tokens!.level, 200)
      assert.isAtLeast(pace, 0.8)
    }).pipe(Effect.scoped, Effect.provide(make({ limits })))
  )

  it.effect("sends the first call alone when no limits are known, and charges those that waited what it learned", () =>
    Effect.gen(function* () {
      // Regression: calls that were queued before the limits were known were let out together, uncharged.
      const budget = yield* Budget.TokenBudget
      const first = yield* start(
        Budget.withReservation({ inputTokens: 100 }, (reservation) =>
          Effect.andThen(
            Effect.sleep(1_000),
            budget.observe({
              dimensions: { inputTokens: { limit: 6_000, remaining: 6_000 } },
              reservation
            })
          )
        )
      )
      const rest = yield* Effect.forEach(Array.from({ length: 10 }), () =>
        start(Budget.withReservation({ inputTokens: 150 }, () => Effect.never))
      )
      const huge = yield* start(Effect.flip(Budget.consume(10_000)))
      yield* TestClock.adjust(999)
      assert.strictEqual((yield* pool).inFlight, 1)
      yield* TestClock.adjust(1)
      assert.isTrue(isDone(first))
      assert.strictEqual((yield* pool).inFlight, 2)
      assert.closeTo((yield* pool).dimensions.inputTokens!.level, 0, 1e-6)
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual((yield* pool).inFlight, 10)
      assert.strictEqual((yield* Fiber.join(huge)).reason._tag, "EstimateTooLarge")
      yield* Fiber.interruptAll(rest)
    }).pipe(Effect.provide(make({})))
  )

  it.effect("ramps up by option", () =>
    Effect.gen(function* () {
      yield* Budget.consume(1_000)
      const waiter = yield* start(Budget.consume(1_000))
      // 10 s at a tenth of the rate refill it.
      yield* TestClock.adjust(9_999)
      assert.isFalse(isDone(waiter))
      yield* TestClock.adjust(1)
      assert.isTrue(isDone(waiter))
      yield* TestClock.adjust("100 seconds")
      assert.strictEqual((yield* pool).pace, 1)
    }).pipe(Effect.provide(make({ limits, ramp: { from: 0.1, over: "100 seconds" } })))
  )

  it.effect("slows down on the provider's ramp error", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* Budget.consume(1_000)
      yield* budget.cooldown({ reason: "ramp", retryAfter: "1 second" })
      assert.strictEqual((yield* pool).pace, 0.5)
      yield* TestClock.adjust("5 minutes")
      assert.closeTo((yield* pool).pace, 1, 1e-9)
    }).pipe(Effect.provide(make({ limits })))
  )
})
