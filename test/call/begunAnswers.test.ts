/** What an answer uses beyond its estimate is charged once it has begun, so that others wait from then on and not from its end. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import type * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Governor from "floodgate/Governor"
import { LlmError, Overloaded } from "floodgate/LlmError"
import { isDone, start } from "../support/budget.ts"
import { MapStore } from "../support/store.ts"

/** 40,000 tokens at once, and 100 a second. */
const limits = { inputTokens: { perSecond: 100, burst: 40_000 } }

/** A call that is known to have so many tokens. */
const call = (inputTokens: number): Governor.Call => ({
  model: "m",
  bytes: 4 * inputTokens,
  inputTokens,
  maxTokens: 10
})

const begins = (inputTokens: number, outputTokens = 1): Accounting.Actual => ({ inputTokens, outputTokens })

/** A call that is expected to use 500 tokens, whose answer begins after a second and then says what it has used. */
const streamed = <A, E>(begun: Accounting.Actual, rest: (ticket: Governor.Ticket) => Effect.Effect<A, E>) =>
  Effect.flatMap(Governor.Governor, (governor) =>
    Effect.scoped(
      Effect.gen(function* () {
        const ticket = yield* governor.admit(call(500))
        yield* Effect.sleep(1_000)
        yield* ticket.observeLimits({ dimensions: {} })
        ticket.recordUsage(begun)
        return yield* rest(ticket)
      })
    )
  )

const minute = 60_000
const answered = (actual: Accounting.Actual) => (ticket: Governor.Ticket) =>
  Effect.andThen(
    Effect.sleep(minute),
    Effect.suspend(() => ticket.succeed(actual))
  )

const level = Effect.flatMap(Budget.TokenBudget, ({ status }) =>
  Effect.map(status, ({ pools }) => pools["default"]!.dimensions.inputTokens!.level)
)

/** The tokens that are gone from the bucket, without what was refilled in so many seconds. */
const used = (seconds: number) => Effect.map(level, (left) => Math.round(40_000 + 100 * seconds - left))

const governed = Layer.provideMerge(Governor.layer(), Budget.layer({ limits }))

/** Another layer in the way, which sees what is observed. */
const watched = (seen: Array<Parameters<Budget.Reservation["observe"]>[0]>) =>
  Layer.effect(
    Budget.TokenBudget,
    Effect.map(Budget.TokenBudget, (inner) => ({
      ...inner,
      reserve: (estimate: Parameters<typeof inner.reserve>[0], options?: Budget.ReserveOptions) =>
        Effect.map(inner.reserve(estimate, options), (reservation) => ({
          ...reservation,
          observe: (said: Parameters<Budget.Reservation["observe"]>[0]) =>
            Effect.tap(reservation.observe(said), () => Effect.sync(() => seen.push(said)))
        }))
    }))
  )

describe("an answer that has begun", () => {
  it.effect("is charged at once for what it uses beyond its estimate, and others wait from then on", () =>
    Effect.gen(function* () {
      const answer = yield* start(streamed(begins(39_000), answered(begins(39_000, 10))))
      assert.strictEqual(yield* used(0), 500)
      yield* TestClock.adjust(1_000)
      assert.strictEqual(yield* used(0), 39_000 - 100)
      const governor = yield* Governor.Governor
      const other = yield* start(governor.run(call(2_000), () => Effect.succeed({ value: "", actual: begins(2_000) })))
      yield* TestClock.adjust(8_000)
      assert.isFalse(isDone(other))
      yield* TestClock.adjust(2_000)
      assert.isTrue(isDone(other))
      yield* TestClock.adjust(minute)
      assert.isTrue(isDone(answer))
    }).pipe(Effect.provide(Layer.fresh(governed)))
  )

  /** What is charged after the answer has ended, whatever was charged when it began. */
  const ends: ReadonlyArray<
    readonly [
      how: string,
      begun: number,
      rest: (ticket: Governor.Ticket) => Effect.Effect<unknown, unknown>,
      expected: number
    ]
  > = [
    ["is complete", 30_000, answered(begins(30_000, 10)), 30_000],
    ["is complete, and has used more since", 30_000, answered(begins(33_000, 10)), 33_000],
    ["is complete, and was less than expected", 100, answered(begins(100, 10)), 100],
    ["is complete, and says nothing", 30_000, (ticket) => ticket.succeed(undefined), 30_000],
    ["breaks off", 30_000, (ticket) => ticket.fail(new LlmError({ reason: new Overloaded({ status: 529 }) })), 30_000],
    ["is left by its reader", 30_000, () => Effect.void, 30_000],
    ["is interrupted", 30_000, () => Effect.interrupt, 30_000],
    [
      "grows while it runs",
      10_000,
      (ticket) =>
        Effect.andThen(
          Effect.sync(() => ticket.recordUsage(begins(20_000, 5))),
          ticket.succeed(begins(30_000, 10))
        ),
      30_000
    ]
  ]
  for (const [how, begun, rest, expected] of ends) {
    it.effect(`is charged once if it ${how}`, () =>
      Effect.gen(function* () {
        // Room for what is given back.
        const { reserve } = yield* Budget.TokenBudget
        yield* Effect.scoped(reserve({ inputTokens: 9_000 }))
        const fiber = yield* start(Effect.exit(streamed(begins(begun), rest)))
        yield* TestClock.adjust(1_000)
        yield* TestClock.adjust(minute)
        assert.isTrue(isDone(fiber))
        assert.strictEqual(yield* used(61), 9_000 + expected)
        const { status } = yield* Budget.TokenBudget
        assert.strictEqual((yield* status).pools["default"]!.inFlight, 0)
      }).pipe(Effect.provide(Layer.fresh(governed)))
    )
  }

  it.effect("is charged for growth as soon as that is said", () =>
    Effect.gen(function* () {
      yield* start(
        streamed(begins(10_000), (ticket) =>
          Effect.gen(function* () {
            yield* Effect.sleep(1_000)
            ticket.recordUsage(begins(25_000, 2))
            ticket.recordUsage(begins(25_000, 3))
            ticket.recordUsage(begins(24_000, 4))
            return yield* Effect.never
          })
        )
      )
      yield* TestClock.adjust(1_000)
      assert.strictEqual(yield* used(1), 10_000)
      yield* TestClock.adjust(1_000)
      assert.strictEqual(yield* used(2), 25_000)
    }).pipe(Effect.provide(Layer.fresh(governed)))
  )

  it.effect("is charged for nothing that its estimate has: the rest comes back at its end", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const ticket = yield* governor.admit(call(20_000))
      ticket.recordUsage({ inputTokens: 100, cacheReadTokens: 19_900, outputTokens: 1 })
      assert.strictEqual(yield* used(0), 20_000)
      for (const broken of [NaN, -1]) ticket.recordUsage({ inputTokens: broken, outputTokens: 1 })
      assert.strictEqual(yield* used(0), 20_000)
      yield* ticket.succeed({ inputTokens: 100, cacheReadTokens: 19_900, outputTokens: 1 })
      assert.strictEqual(yield* used(0), 100)
      ticket.recordUsage(begins(30_000))
      assert.strictEqual(yield* used(0), 100)
    }).pipe(Effect.scoped, Effect.provide(Layer.fresh(governed)))
  )

  it.effect("is charged through a layer that replaces the budget, which sees it", () => {
    const seen: Array<Parameters<Budget.Reservation["observe"]>[0]> = []
    const layer = Layer.provideMerge(Governor.layer(), Layer.provide(watched(seen), Budget.layer({ limits })))
    return Effect.gen(function* () {
      yield* start(streamed(begins(39_000), () => Effect.never))
      yield* TestClock.adjust(1_000)
      assert.strictEqual(yield* used(1), 39_000)
      assert.deepInclude(seen.at(-1), { soFar: { inputTokens: 39_000, outputTokens: 10 } })
    }).pipe(Effect.provide(Layer.fresh(layer)))
  })

  it.effect("is charged where several places compete for the call", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const places = { places: ["a", "b"].map((account) => ({ name: account, model: "m", account })) }
      const fiber = yield* start(
        Effect.scoped(
          Effect.gen(function* () {
            const ticket = yield* governor.admit({ ...call(500), places })
            ticket.recordUsage(begins(39_000))
            return yield* Effect.never
          })
        )
      )
      yield* TestClock.adjust(10)
      const { status } = yield* Budget.TokenBudget
      const { pools } = yield* status
      const levels = Object.values(pools).map(({ dimensions }) => Math.round(dimensions.inputTokens!.level))
      assert.strictEqual(Math.min(...levels), 1_001)
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.provide(Layer.fresh(governed)))
  )

  it.effect("makes the calls of another process wait that shares the limit", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const shared = Layer.provide(governed, BudgetStore.layer(store))
      const [one, other] = yield* Effect.forEach([1, 2], () => Layer.build(Layer.fresh(shared)))
      const answer = yield* start(Effect.provideContext(streamed(begins(39_000), answered(begins(39_000, 10))), one!))
      yield* TestClock.adjust(2_000)
      const governor = Context.get(other!, Governor.Governor)
      const waiting = yield* start(
        governor.run(call(5_000), () => Effect.succeed({ value: "", actual: begins(5_000) }))
      )
      yield* TestClock.adjust(30_000)
      assert.isFalse(isDone(waiting))
      yield* TestClock.adjust(20_000)
      assert.isTrue(isDone(waiting))
      yield* TestClock.adjust(minute)
      assert.isTrue(isDone(answer))
      for (const context of [one!, other!]) {
        const left = yield* Effect.provideContext(level, context)
        assert.closeTo(left, 40_000 - 39_000 - 5_000 + 100 * 112, 200)
      }
    }).pipe(Effect.scoped)
  )
})
