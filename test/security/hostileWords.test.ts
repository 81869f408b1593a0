import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import { assertReadable, everyWord, limits, say, Word } from "../support/hostileWords.ts"

const words = Schema.Array(Word)
const soon = Effect.repeat(Effect.yieldNow, { times: 50 })

describe("a budget that is given absurd numbers", () => {
  it.effect.prop("keeps its figures finite, and refuses what makes no sense by name", { words }, ({ words }) =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      for (const word of words) {
        yield* say(budget, word, true, soon)
        assertReadable(yield* budget.status)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("survives every operation with every odd number, one after the other", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      for (const word of everyWord) {
        yield* say(budget, word, true, soon)
        assertReadable(yield* budget.status)
      }
    }).pipe(Effect.scoped)
  )

  it.effect(
    "closes its pool for an hour at a failure that asks for years, and not at all if the wait is malformed",
    () =>
      Effect.gen(function* () {
        const governor = yield* Governor.Governor
        const budget = yield* Budget.TokenBudget
        const closedFor = Effect.fnUntraced(function* (retryAfter: unknown) {
          const failure = { isRetryable: true, pushback: "rateLimit", retryAfter }
          const call = { model: "m", bytes: 10, maxTokens: 5 }
          const failed = Effect.flip(
            governor.run(call, () => Effect.fail(failure), { retry: Retry.make({ attempts: 1 }) })
          )
          assert.strictEqual(yield* failed, failure)
          return (yield* budget.status).pools.default?.pause?.leftMillis
        })
        assert.isUndefined(yield* closedFor("30"))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* closedFor(Duration.days(3_650)), 3_600_000)
      }).pipe(Effect.provide(Governor.layer().pipe(Layer.provideMerge(Budget.layer({ limits })))))
  )

  it.effect.prop("admits calls within hours of getting its limits back, if nothing was used", { words }, ({ words }) =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      // What a rejection takes at the rate of absurd limits is a debt that stays.
      for (const word of words) if (word.say !== "resize") yield* say(budget, word, false, soon)
      yield* budget.resize({ limits, concurrency: 1 })
      // While the pool is closed for long, every caller is refused.
      yield* TestClock.adjust("1 hour")
      const call = yield* Effect.forkChild(Effect.scoped(budget.reserve({ inputTokens: 1, outputTokens: 1 })))
      yield* TestClock.adjust("12 hours")
      assert.strictEqual(call.pollUnsafe()?._tag, "Success", JSON.stringify(yield* budget.status))
      yield* Fiber.join(call)
    }).pipe(Effect.scoped)
  )
})
