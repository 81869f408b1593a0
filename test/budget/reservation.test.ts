/** Reservations, from every way to get one. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import { makeStated } from "../support/budget.ts"

const burst = 1_000
const budget = makeStated({ limits: { tokens: { perSecond: 1_000, burst } } })

const level = Effect.map(
  Effect.flatMap(Budget.TokenBudget, ({ status }) => status),
  ({ pools }) => pools.default?.dimensions.tokens?.level
)

/** Settles with the bare function, as code does that was passed only `settle`. */
const passedOn = Budget.withReservation({ tokens: 100 }, ({ settle }) => settle({ tokens: 10 }))
const tapped = Budget.withReservation({ tokens: 100 }, ({ settle }) =>
  Effect.tap(Effect.succeed({ tokens: 10 }), settle)
)

/** Settles by `observe`: a later `settle` is ignored. */
const answered = Budget.withReservation({ tokens: 100 }, (reservation) =>
  Effect.gen(function* () {
    yield* reservation.observe({ dimensions: {}, usage: { tokens: 10 } })
    yield* reservation.settle({ tokens: 90 })
    yield* reservation.observe({ dimensions: {}, usage: { tokens: 80 } })
  })
)

const ofAgent = <E>(effect: Effect.Effect<void, E, Budget.TokenBudget>) =>
  Effect.tap(Agents.run([{ key: "a", effect }]), ([outcome]) =>
    Effect.sync(() => assert.deepStrictEqual([outcome?.exit._tag, outcome?.used.tokens], ["Success", 10]))
  )

const ways = {
  "at once": [passedOn, budget],
  "to whoever taps with it": [tapped, budget],
  "in a span": [Effect.withSpan(passedOn, "caller"), budget],
  "from a scope": [
    Effect.scoped(
      Effect.flatMap(
        Effect.flatMap(Budget.TokenBudget, ({ reserve }) => reserve({ tokens: 100 })),
        ({ settle }) => settle({ tokens: 10 })
      )
    ),
    budget
  ],
  "of an agent": [ofAgent(passedOn), Layer.provideMerge(Agents.layer, budget)],
  "by a response": [answered, budget],
  "by a response to an agent": [ofAgent(answered), Layer.provideMerge(Agents.layer, budget)]
} as const

describe("Reservation", () => {
  for (const [name, [settled, layer]] of Object.entries(ways)) {
    it.effect(`is settled by its function or by a response, once: ${name}`, () =>
      Effect.gen(function* () {
        yield* settled
        assert.strictEqual(yield* level, burst - 10)
      }).pipe(Effect.provide(layer as Layer.Layer<Budget.TokenBudget | Agents.Meter>))
    )
  }

  it.effect("is settled by its function alone: after a wait", () =>
    Effect.gen(function* () {
      yield* Budget.consume(burst)
      const waiter = yield* Effect.forkChild(passedOn)
      yield* TestClock.adjust(100)
      yield* Fiber.join(waiter)
      assert.strictEqual(yield* level, 90)
    }).pipe(Effect.provide(budget))
  )

  it.effect(
    "gives back what was not used of tokens that were charged as input or output, and the other way round",
    () =>
      Effect.gen(function* () {
        yield* Budget.withReservation({ tokens: 1_000 }, ({ settle }) => settle({ tokens: 100 }))
        yield* Budget.withReservation({ tokens: 50, outputTokens: 20 }, () => Effect.void)
        yield* Budget.withReservation({ inputTokens: 800 }, ({ settle }) => settle({ inputTokens: 50 }))
        const { inputTokens, outputTokens, tokens } = (yield* (yield* Budget.TokenBudget).status).pools.default!
          .dimensions
        assert.deepStrictEqual([inputTokens?.level, outputTokens?.level, tokens?.level], [820, 980, 800])
      }).pipe(
        Effect.provide(
          Budget.layer({
            limits: {
              inputTokens: { perSecond: 1_000 },
              outputTokens: { perSecond: 1_000 },
              tokens: { perSecond: 1_000 }
            }
          })
        )
      )
  )

  it.effect("names its charge in the limited dimensions only", () =>
    Effect.gen(function* () {
      const estimate = { inputTokens: 30, outputTokens: 20 }
      const whole = { requests: 1, ...estimate, tokens: 50 }
      for (const limited of [[], ["requests"], ["inputTokens"], ["outputTokens"], ["tokens", "requests"]] as const) {
        const limits = Object.fromEntries(limited.map((each) => [each, { perSecond: 1_000 }]))
        const { charge } = yield* (yield* Budget.make({ limits })).reserve(estimate)
        assert.deepStrictEqual(charge, Object.fromEntries(limited.map((each) => [each, whole[each]])))
      }
    }).pipe(Effect.scoped)
  )

  it.effect("is not given for invalid options", () =>
    Effect.gen(function* () {
      const reserve = (yield* Budget.TokenBudget).reserve as (estimate: unknown, how: unknown) => Effect.Effect<unknown>
      for (const [how, problem] of [
        [{ weight: 0 }, "weight: expected"],
        [{ maxWait: "soon" }, "maxWait: expected"],
        [{ agnet: "a" }, 'unknown option "agnet"']
      ] as const) {
        const exit = yield* Effect.exit(reserve({ tokens: 1 }, how))
        assert.include(String(exit), `RangeError: Budget.reserve: ${problem}`)
      }
      assert.strictEqual(yield* level, burst)
    }).pipe(Effect.scoped, Effect.provide(budget))
  )

  it.effect("teaches the limits of a response that comes after its end, and is not settled again", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make()
      const { observe, settle } = yield* budget.reserve({ tokens: 100 })
      yield* settle({ tokens: 10 })
      yield* observe({ dimensions: { tokens: { limit: 60_000, remaining: 50_000 } }, usage: { tokens: 90 } })
      const { dimensions, inFlight } = (yield* budget.status).pools.default!
      assert.strictEqual(inFlight, 0)
      assert.deepInclude(dimensions.tokens, { limitPerSecond: 1_000, level: 50_000 })
    }).pipe(Effect.scoped)
  )

  it.effect.each([undefined, null])("frees its place when it is settled with an invalid usage: %s", (usage) =>
    Effect.gen(function* () {
      const end = Budget.withReservation({ tokens: 100 }, ({ settle }) => Effect.suspend(() => settle(usage as never)))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(end)))
      const { pools } = yield* (yield* Budget.TokenBudget).status
      assert.deepStrictEqual([pools.default?.inFlight, yield* level], [0, 900])
      yield* passedOn
    }).pipe(Effect.provide(makeStated({ limits: { tokens: { perSecond: 1_000, burst } }, concurrency: 1 })))
  )

  it.effect("is settled by its function alone: without limits", () => Effect.provide(passedOn, Budget.layerUnlimited))
})
