/** What happens after the provider said no, and before it said anything. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import { isDone, make, pool, start } from "../support/budget.ts"

const limits = { tokens: { perSecond: 1_000, burst: 1_000 } }

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

  it.effect("slows down once when many calls that were out together are rejected, one pause after the other", () =>
    Effect.gen(function* () {
      // Regression: each of twelve slowed the pool down, to a twentieth.
      const budget = yield* Budget.TokenBudget
      const held = yield* Effect.replicateEffect(budget.reserve({ tokens: 10 }), 12)
      for (const reservation of held) {
        yield* budget.cooldown({ reason: "rateLimit", retryAfter: 100, reservation, usage: { tokens: 0 } })
        yield* TestClock.adjust(150)
        assert.strictEqual((yield* pool).pace, 0.7)
      }
      const later = yield* budget.reserve({ tokens: 10 })
      yield* budget.cooldown({ reason: "rateLimit", retryAfter: 100, reservation: later, usage: { tokens: 0 } })
      assert.isBelow((yield* pool).pace, 0.7)
    }).pipe(Effect.scoped, Effect.provide(make({ limits })))
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
      assert.strictEqual((yield* pool).pace, 0.9)
      yield* TestClock.adjust("59 seconds")
      assert.isBelow((yield* pool).pace, 1)
      yield* TestClock.adjust("1 second")
      assert.closeTo((yield* pool).pace, 1, 1e-9)
    }).pipe(Effect.provide(make({ limits })))
  )
})

/** Spreads nothing: a rest is 5, 10 and then 20 s. */
const evenly = Effect.provideService(Random.Random, { nextDoubleUnsafe: () => 0.5, nextIntUnsafe: () => 0 })

/** A provider that is down until a time: an attempt takes 100 ms and is retried after a second, as often as it takes. */
const down = (until: number, ofRetryAfter = 0) => {
  const sent: Array<{ readonly agent: string; readonly at: number }> = []
  const attempt = (agent: string, first: boolean): Effect.Effect<void, Budget.BudgetError, Budget.TokenBudget> =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const succeeded = yield* Budget.withReservation(
        { tokens: 1 },
        (reservation) =>
          Effect.gen(function* () {
            const now = yield* Clock.currentTimeMillis
            sent.push({ agent, at: now })
            yield* Effect.sleep(100)
            if (now >= until) return true
            const retryAfter = ofRetryAfter === 0 ? undefined : ofRetryAfter
            yield* budget.cooldown({ reason: "overload", reservation, retryAfter, usage: { tokens: 0 } })
            return false
          }),
        { agent, first }
      )
      if (succeeded) return
      yield* Effect.sleep(1_000)
      return yield* attempt(agent, true)
    })
  return { sent, times: () => sent.map(({ at }) => at), call: (agent: string) => attempt(agent, false) }
}

describe("Budget in an outage", () => {
  it.effect("rests after each probe that failed alone, 5, 10 and 20 s, and lets out 1, 2, 4 when one succeeds", () =>
    Effect.gen(function* () {
      // Regression: probes that failed let the next one out at once, and so an outage of 30 s cost every agent its five
      // attempts.
      const { call, sent, times } = down(60_000)
      const fibers = yield* Effect.forEach(["a", "b", "c", "d", "e", "f"], (agent) => start(call(agent)))
      // Six fail together, and then three and one of those that wait; from then on each goes alone.
      yield* TestClock.adjust(1_300)
      const before = sent.length
      assert.deepStrictEqual(times(), [0, 0, 0, 0, 0, 0, 1_100, 1_100, 1_100, 1_200])
      const rests = [5_000, 10_000, 20_000, 20_000]
      let at = 1_300
      for (const rest of rests) {
        const { allowed, cooldown } = yield* pool
        assert.strictEqual(allowed, 1)
        assert.deepStrictEqual([cooldown!.reason, Duration.toMillis(cooldown!.left)], ["overload", rest])
        at += rest
        yield* TestClock.adjust(rest - 1)
        assert.strictEqual(sent.at(-1)!.at < at - 1_000, true)
        yield* TestClock.adjust(1)
        assert.strictEqual(sent.at(-1)!.at, at)
        at += 100
        yield* TestClock.adjust(100)
      }
      assert.strictEqual(sent.length, before + rests.length)
      yield* TestClock.adjust(20_000 + 1_000)
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(
        times()
          .slice(-6)
          .map((time) => time - at - 20_000),
        [0, 100, 100, 200, 200, 200]
      )
      // The probes that failed were of different agents: nobody spends his attempts for all.
      assert.strictEqual(new Set(sent.slice(before, -6).map(({ agent }) => agent)).size, rests.length)
    }).pipe(Effect.provide(make({ limits })), evenly)
  )

  it.effect("spreads the rests by a fifth", () =>
    Effect.gen(function* () {
      for (const [random, rest] of [
        [0, 4_000],
        [1 - 2 ** -53, 6_000]
      ] as const) {
        yield* Effect.gen(function* () {
          const budget = yield* Budget.make({ limits })
          for (let i = 0; i < 2; i++) {
            yield* Effect.scoped(
              Effect.flatMap(budget.reserve({ tokens: 1 }), (reservation) =>
                budget.cooldown({ reason: "overload", reservation, usage: {} })
              )
            )
          }
          const { cooldown } = (yield* budget.status).pools.default!
          assert.strictEqual(Duration.toMillis(cooldown!.left), rest)
        }).pipe(
          Effect.scoped,
          Effect.provideService(Random.Random, { nextDoubleUnsafe: () => random, nextIntUnsafe: () => 0 })
        )
      }
    })
  )

  it.effect("does not rest for one overload in sound traffic, nor for many reports of one", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* Budget.consume(1)
      yield* budget.cooldown({ reason: "overload" })
      const begun = yield* calls(2)
      assert.deepStrictEqual(begun, [0])
      yield* TestClock.adjust(2_000)
      assert.deepStrictEqual([begun, (yield* pool).allowed], [[0, 1_000], 3])
      yield* budget.cooldown({ reason: "overload" })
      assert.deepStrictEqual([(yield* pool).allowed, (yield* pool).cooldown], [1, undefined])
      for (let i = 0; i < 12; i++) yield* budget.cooldown({ reason: "overload" })
      assert.deepStrictEqual(Duration.toMillis((yield* pool).cooldown!.left), 5_000)
    }).pipe(Effect.provide(make({ limits })), evenly)
  )

  it.effect("waits as long as the provider asks when that is longer", () =>
    Effect.gen(function* () {
      const { call, times } = down(2_000, 7_000)
      const fiber = yield* start(call("a"))
      yield* TestClock.adjust(7_100)
      assert.deepStrictEqual(times(), [0, 7_100])
      yield* TestClock.adjust(200)
      yield* Fiber.join(fiber)
      const longer = down(9_000, 7_000)
      yield* start(longer.call("a"))
      yield* TestClock.adjust(20_000)
      assert.deepStrictEqual(longer.times(), [7_300, 14_400])
    }).pipe(Effect.provide(make({ limits })), evenly)
  )

  it.effect("never rests for rejections, and forgets a rest at the first: who rejects is there", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      for (let i = 0; i < 5; i++) {
        yield* budget.cooldown({ reason: "rateLimit", retryAfter: 1 })
        assert.deepStrictEqual(Duration.toMillis((yield* pool).cooldown!.left), 1)
        yield* TestClock.adjust(1)
        assert.isUndefined((yield* pool).cooldown)
      }
      for (let i = 0; i < 2; i++) {
        const reservation = yield* budget.reserve({ tokens: 1 })
        yield* budget.cooldown({ reason: "overload", reservation, usage: {} })
      }
      assert.strictEqual((yield* pool).cooldown!.reason, "overload")
      yield* budget.cooldown({ reason: "rateLimit", retryAfter: 1 })
      assert.strictEqual((yield* pool).cooldown!.reason, "rateLimit")
    }).pipe(Effect.scoped, Effect.provide(make({ limits })), evenly)
  )

  it.effect("tells who waits for how long, and refuses at once who cannot wait so long", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const { call } = down(10_000)
      yield* start(call("a"))
      yield* TestClock.adjust(1_200)
      const waiter = yield* start(Budget.consume(1, { agent: "b", maxWait: "5 seconds" }))
      const { cooldown, waiting } = yield* pool
      assert.deepStrictEqual(
        [cooldown?.reason, waiting.map(({ agent, expected }) => [agent, Duration.toMillis(expected)])],
        ["overload", [["b", 5_000]]]
      )
      const told = yield* Stream.runHead(budget.changes)
      assert.strictEqual(told._tag === "Some" ? told.value.pools.default!.cooldown?.reason : "nothing", "overload")
      const refused = yield* Effect.flip(Budget.consume(1, { agent: "c", maxWait: 4_999 }))
      if (refused.reason._tag !== "WaitTooLong") return assert.fail(refused.reason._tag)
      assert.strictEqual(Duration.toMillis(refused.reason.wait), 5_000)
      yield* TestClock.adjust(4_999)
      assert.isFalse(isDone(waiter))
      yield* TestClock.adjust(1)
      assert.isTrue(isDone(waiter))
    }).pipe(Effect.provide(make({ limits })), evenly)
  )

  it.effect("rests with a store that takes time, too", () =>
    Effect.gen(function* () {
      const { call, times } = down(40_000)
      const fibers = yield* Effect.forEach(["a", "b", "c"], (agent) => start(call(agent)))
      yield* TestClock.adjust("2 minutes")
      yield* Fiber.joinAll(fibers)
      const probes = times().filter((at) => at > 3_000 && at < 40_000)
      assert.isAtMost(probes.length, 3)
      assert.isAtMost(Math.max(...times()), 61_000)
    }).pipe(
      Effect.provide(make({ limits })),
      Effect.provide(
        Layer.succeed(BudgetStore.BudgetStore, {
          open: (name, options) =>
            Effect.map(BudgetStore.memory.open(name, options), (opened) => ({
              ...opened,
              drain: BudgetStore.inBatches(Stream.never),
              take: (asks) => Effect.andThen(Effect.sleep(2), opened.take(asks))
            }))
        })
      ),
      evenly
    )
  )
})
