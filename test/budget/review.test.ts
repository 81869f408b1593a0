import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import { ReviewAt } from "../../src/budget/models.ts"

const limits = { tokens: { perMinute: 60_000, window: "bucket", burst: 60_000 } } as const

/** A call that waits for up to half a minute, and is reviewed after 18 s. */
const waiting = (budget: Budget.TokenBudget["Service"], now: number) =>
  Effect.scoped(budget.reserve({ tokens: 30_000 }, { agent: "b", maxWait: "5 minutes" })).pipe(
    Effect.provideService(ReviewAt, now + 18_000),
    Effect.exit,
    Effect.forkChild({ startImmediately: true })
  )

describe("a wait that is predicted again", () => {
  it.effect("continues if it is still short enough", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      yield* Effect.scoped(budget.reserve({ tokens: 60_000 }))
      const fiber = yield* waiting(budget, 0)
      yield* TestClock.adjust("29999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "Success")
    })
  )

  it.effect("ends if a pause has made it too long, at the time of the review", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      yield* Effect.scoped(budget.reserve({ tokens: 60_000 }))
      const fiber = yield* waiting(budget, 0)
      yield* TestClock.adjust("1 second")
      yield* budget.pause({ duration: "6 minutes", reason: "rateLimit" })
      yield* TestClock.adjust("16999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const exit = yield* Fiber.join(fiber)
      const error = yield* Effect.flip(exit)
      assert.strictEqual(error.reason._tag, "WaitTooLong")
      const { pools } = yield* budget.status
      assert.deepStrictEqual([pools["default"]!.queued, pools["default"]!.inFlight], [0, 0])
    })
  )

  it.effect("is not reviewed in the past, or without a maxWait", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ limits })
      yield* Effect.scoped(budget.reserve({ tokens: 60_000 }))
      yield* TestClock.adjust("1 second")
      const late = yield* waiting(budget, -18_000)
      const patient = yield* Effect.scoped(budget.reserve({ tokens: 30_000 })).pipe(
        Effect.provideService(ReviewAt, 2_000),
        Effect.forkChild({ startImmediately: true })
      )
      yield* budget.pause({ duration: "6 minutes", reason: "rateLimit" })
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(late.pollUnsafe())
      assert.isUndefined(patient.pollUnsafe())
      yield* Fiber.interruptAll([late, patient])
    })
  )
})
