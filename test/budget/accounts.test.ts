import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
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
})
