/** How a budget treats callers after a rejection or a failure. The tests of `pacing` show how failures are judged. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import type * as Limits from "floodgate/Limits"
import { retryOf, isDone, make, pool, start, type Verdict } from "../support/budget.ts"
import { settled } from "../support/reported.ts"
import { MapStore } from "../support/store.ts"

const limits = { tokens: { perSecond: 1_000, burst: 1_000 } }

/** Starts calls of a second, and records when each begins. */
const calls = Effect.fnUntraced(function* (count: number, estimate: Limits.Estimate = { tokens: 1 }) {
  const begun: Array<number> = []
  const call = Budget.withReservation(estimate, () =>
    Effect.andThen(
      Effect.map(Clock.currentTimeMillis, (now) => begun.push(now)),
      Effect.sleep(1_000)
    )
  )
  for (let i = 0; i < count; i++) yield* start(call)
  return begun
})

describe("Budget cooldown", () => {
  it.effect("without a reservation stops every call until its end", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* budget.pause({ duration: "10 seconds", reason: "rateLimit" })
      yield* budget.pause({ duration: "1 second", reason: "rateLimit" })
      const begun = yield* calls(5)
      yield* TestClock.adjust(9_999)
      assert.deepStrictEqual(begun, [])
      yield* TestClock.adjust(1)
      assert.strictEqual(begun.length, 5)
    }).pipe(Effect.provide(make({ limits })))
  )

  it.effect("shows why the pool pauses and for how long, and refuses at once a caller that cannot wait so long", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* budget.pause({ duration: "6 seconds", reason: "overload" })
      const waiter = yield* start(Budget.consume(1, { agent: "b", maxWait: "6 seconds" }))
      yield* TestClock.adjust(1_000)
      const { pause, waiting } = yield* pool
      assert.deepStrictEqual(pause, { reason: "overload", leftMillis: 5_000 })
      assert.deepStrictEqual(
        waiting.map(({ agent, expectedMillis, waitedMillis }) => [agent, waitedMillis, expectedMillis]),
        [["b", 1_000, 5_000]]
      )
      const changed = yield* Stream.runHead(budget.changes)
      assert.deepStrictEqual(changed._tag === "Some" && changed.value.pools.default!.pause, pause)
      const { reason } = yield* Effect.flip(Budget.consume(1, { agent: "c", maxWait: 4_999 }))
      assert.deepInclude(reason, { _tag: "WaitTooLong", dimension: undefined })
      yield* TestClock.adjust(4_999)
      assert.isFalse(isDone(waiter))
      yield* TestClock.adjust(1)
      assert.isTrue(isDone(waiter))
      assert.isUndefined((yield* pool).pause)
    }).pipe(Effect.provide(make({ limits })))
  )

  it.effect("refuses new and waiting callers while a pool pauses for more than ten minutes", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      yield* budget.pause({ duration: "1 minute", reason: "rateLimit" })
      const waiter = yield* start(Effect.flip(Budget.consume(1)))
      yield* budget.pause({ duration: "11 minutes", reason: "rateLimit" })
      assert.strictEqual((yield* Fiber.join(waiter)).reason._tag, "WaitTooLong")
      assert.strictEqual((yield* Effect.flip(Budget.consume(1))).reason._tag, "WaitTooLong")
      yield* TestClock.adjust("1 minute")
      const patient = yield* start(Budget.consume(1))
      yield* TestClock.adjust(599_999)
      assert.isFalse(isDone(patient))
      yield* TestClock.adjust(1)
      assert.isTrue(isDone(patient))
    }).pipe(Effect.provide(make({ limits })))
  )

  it.effect("slows down once when many calls in flight are rejected together", () =>
    Effect.gen(function* () {
      // Regression: each of twelve slowed the pool down, to a twentieth.
      const budget = yield* Budget.TokenBudget
      const held = yield* Effect.replicateEffect(budget.reserve({ tokens: 10 }), 12)
      const verdicts: Array<Verdict> = []
      for (const reservation of held) {
        verdicts.push(yield* reservation.fail({ reason: "rateLimit", retryAfter: 100 }))
      }
      assert.deepStrictEqual(new Set(verdicts.slice(2)), new Set(["exhausted"]))
      const { dimensions, inFlight, pause } = yield* pool
      assert.deepStrictEqual([dimensions.tokens!.perSecond, inFlight, pause], [900, 0, undefined])
    }).pipe(Effect.scoped, Effect.provide(make({ limits })))
  )

  it.effect("applies the headers of a rejection after the refund of its call", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const reservation = yield* budget.reserve({ tokens: 400 })
      const signal = { dimensions: { tokens: { remaining: 200 } } }
      assert.strictEqual(yield* reservation.fail({ reason: "rateLimit", signal }), "exhausted")
      assert.strictEqual((yield* pool).dimensions.tokens!.level, 200)
    }).pipe(Effect.scoped, Effect.provide(make({ limits })))
  )

  it.effect("sends one call first when no limits are known, and charges the waiting calls for what it learned", () =>
    Effect.gen(function* () {
      // Regression: calls that were queued before the limits were known were all sent together, uncharged.
      const dimensions = { requests: { limit: 600, remaining: 599 }, inputTokens: { limit: 6_000, remaining: 150 } }
      yield* start(
        Budget.withReservation({ inputTokens: 150 }, (reservation) =>
          Effect.andThen(Effect.sleep(100), reservation.observe({ dimensions }))
        )
      )
      const begun = yield* calls(5, { inputTokens: 150 })
      yield* TestClock.adjust(99)
      assert.deepStrictEqual(begun, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(begun, [100])
      // 100 tokens a second are 1.5 s for each call.
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(begun.length, 5)
      for (const [i, at] of begun.entries()) assert.closeTo(at, 100 + 1_500 * i, 100)
    }).pipe(Effect.provide(make({})))
  )

  it.effect("bounds growth by what was used before a ramp error", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      for (let second = 0; second < 120; second++) {
        yield* Budget.consume(100)
        yield* TestClock.adjust("1 second")
      }
      const reservation = yield* budget.reserve({ tokens: 100 })
      assert.strictEqual(yield* reservation.fail({ reason: "ramp", retryAfter: "3 seconds" }), "ramp")
      const { dimensions, pause } = yield* pool
      assert.deepStrictEqual(pause, { reason: "ramp", leftMillis: 3_000 })
      const before = dimensions.tokens!.perSecond
      assert.closeTo(before, 100, 20)
      yield* TestClock.adjust("1 minute")
      assert.closeTo((yield* pool).dimensions.tokens!.perSecond, 1.4 * before, 1e-6)
    }).pipe(Effect.scoped, Effect.provide(make({ limits })))
  )
})

/** A provider that is down until a given time. Attempts take 100 ms, and isolated failures are retried after a second. */
const down = (until: number, retryAfter?: number) => {
  const sent: Array<{ readonly agent: string; readonly at: number; verdict: Verdict | undefined }> = []
  const attempt = (agent: string, first: boolean): Effect.Effect<void, Budget.BudgetError, Budget.TokenBudget> =>
    Effect.gen(function* () {
      const verdict = yield* Budget.withReservation(
        { tokens: 1 },
        (reservation) =>
          Effect.gen(function* () {
            const made = { agent, at: yield* Clock.currentTimeMillis, verdict: undefined as Verdict | undefined }
            sent.push(made)
            yield* Effect.sleep(100)
            if (made.at < until) made.verdict = yield* reservation.fail({ reason: "overload", retryAfter })
            return made.verdict
          }),
        retryOf({ agent }, first)
      )
      if (verdict === undefined) return
      if (verdict === "isolated") yield* Effect.sleep(1_000)
      return yield* attempt(agent, verdict === "isolated")
    })
  return { sent, times: () => sent.map(({ at }) => at), call: (agent: string) => attempt(agent, false) }
}

describe("Budget in an outage", () => {
  it.effect(
    "probes after 1, 2, 3, 5, 7 and 10 s, each time with another agent, and sends all calls when a probe succeeds",
    () =>
      Effect.gen(function* () {
        // Regression: a failed probe sent the next one at once, so an outage of 30 s cost every agent its five
        // attempts.
        const { call, sent, times } = down(35_000)
        const fibers = yield* Effect.forEach(["a", "b", "c", "d", "e", "f"], (agent) => start(call(agent)))
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(times(), [0, 0, 0, 0, 0, 0])
        let at = 100
        for (const rest of [1_000, 2_000, 3_000, 5_000, 7_000, 10_000]) {
          const before = sent.length
          assert.deepStrictEqual((yield* pool).pause, { reason: "overload", leftMillis: rest })
          yield* TestClock.adjust(rest - 1)
          assert.strictEqual(sent.length, before)
          yield* TestClock.adjust(1 + 100)
          assert.deepStrictEqual(times().slice(before), [(at += rest)])
          at += 100
        }
        // No agent uses up its attempts for the others.
        const probes = sent.slice(6)
        assert.strictEqual(new Set(probes.map(({ agent }) => agent)).size, probes.length)
        assert.isTrue(probes.every(({ verdict }) => verdict === "outage"))
        yield* TestClock.adjust(10_000 + 200)
        yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual(
          times()
            .slice(-6)
            .map((time) => time - at - 10_000),
          [0, 100, 100, 100, 100, 100]
        )
      }).pipe(Effect.provide(make({ limits })))
  )

  it.effect("does not pause for one overload among successes", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      for (let i = 0; i < 20; i++) {
        yield* Budget.consume(10)
        yield* TestClock.adjust(1_000)
      }
      const reservation = yield* budget.reserve({ tokens: 10 })
      yield* TestClock.adjust(100)
      assert.strictEqual(yield* reservation.fail({ reason: "overload" }), "isolated")
      assert.isUndefined((yield* pool).pause)
      assert.isTrue(isDone(yield* start(Budget.consume(10))))
    }).pipe(Effect.scoped, Effect.provide(make({ limits })))
  )

  it.effect("waits as long as the provider asks when that is longer", () =>
    Effect.gen(function* () {
      const { call, times } = down(2_000, 7_000)
      const agents = ["a", "b", "c", "d"]
      const fibers = yield* Effect.forEach(agents, (agent) => start(call(agent)))
      yield* TestClock.adjust(7_099)
      assert.deepStrictEqual(times(), [0, 0, 0, 0])
      yield* TestClock.adjust(1 + 300)
      yield* Fiber.joinAll(fibers)
      assert.strictEqual(times()[4], 7_100)
    }).pipe(Effect.provide(make({ limits })))
  )

  it.effect("sends the next probe when a probe is interrupted", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const held = yield* Effect.replicateEffect(budget.reserve({ tokens: 1 }), 4)
      for (const reservation of held) yield* reservation.fail({ reason: "overload" })
      const probe = yield* start(
        Budget.withReservation({ tokens: 1 }, ({ refund }) => Effect.onInterrupt(Effect.never, () => refund))
      )
      const next = yield* start(Budget.consume(1))
      yield* TestClock.adjust(1_001)
      assert.isFalse(isDone(next))
      yield* Fiber.interrupt(probe)
      yield* settled
      assert.isTrue(isDone(next))
    }).pipe(Effect.scoped, Effect.provide(make({ limits })))
  )

  it.effect("sends one call at a time, also over a slow store", () => {
    const store = new MapStore()
    store.latency = 2
    return Effect.gen(function* () {
      const { call, times } = down(40_000)
      const fibers = yield* Effect.forEach(["a", "b", "c"], (agent) => start(call(agent)))
      yield* TestClock.adjust("2 minutes")
      yield* Fiber.joinAll(fibers)
      const probes = times().filter((at) => at > 2_000 && at < 40_000)
      assert.isAtMost(probes.length, 6)
      assert.isAtMost(Math.max(...times()), 61_000)
      store.latency = 0
    }).pipe(Effect.provide(Layer.provide(make({ limits }), BudgetStore.layer(store))))
  })
})
