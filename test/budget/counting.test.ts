/** A governor tells its budget how the provider of a call counts limits that are written without a window. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"

/** What the bucket of 60,000 tokens a minute holds after a call. */
const capacityAfter = (call: Effect.Effect<unknown, unknown, Governor.Governor | Budget.TokenBudget>) =>
  Effect.gen(function* () {
    yield* call
    const budget = yield* Budget.TokenBudget
    return (yield* budget.status).pools["default"]!.dimensions.inputTokens!.capacity
  }).pipe(
    Effect.provide(
      Governor.layer({ accounting: Accounting.anthropic }).pipe(
        Layer.provideMerge(Budget.layer({ limits: { inputTokens: { perMinute: 60_000 } } }))
      )
    )
  )

describe("a limit without a window", () => {
  it.effect("is kept in every minute by a budget alone, and a bucket for calls to a provider that counts so", () =>
    Effect.gen(function* () {
      const governed = Effect.flatMap(Governor.Governor, (governor) =>
        governor.run({ model: "claude", bytes: 10 }, () =>
          Effect.succeed({ value: "answer", actual: { inputTokens: 10, outputTokens: 1 } })
        )
      )
      assert.isBelow(yield* capacityAfter(Budget.withReservation({ inputTokens: 1 }, () => Effect.void)), 10_000)
      assert.strictEqual(yield* capacityAfter(governed), 60_000)
      // Also if it was changed before anybody knew.
      const resized = Effect.flatMap(Budget.TokenBudget, (budget) =>
        budget.resize({ limits: { inputTokens: { perMinute: 90_000 } } })
      )
      assert.strictEqual(yield* capacityAfter(Effect.andThen(resized, governed)), 90_000)
    })
  )
})
