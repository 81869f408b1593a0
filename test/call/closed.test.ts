import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmError from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import { pool } from "../support/budget.ts"

const call: Governor.Call = { model: "m", bytes: 2_700, inputTokens: 1_000, maxTokens: 500 }

const layer = Governor.layer().pipe(
  Layer.provideMerge(Budget.layer({ limits: { inputTokens: { perMinute: 60_000_000 } }, concurrency: 2 }))
)

const run = <A, E, R>(attempt: Effect.Effect<Governor.Outcome<A>, E, R>) =>
  Effect.flatMap(Governor.Governor, (governor) => governor.run(call, () => attempt))

const succeed = run(Effect.succeed({ value: "done" }))
const closedFor = (retryAfter: Duration.Input, after: Duration.Input = 0) => {
  const reason = new LlmError.RateLimited({ status: 429, retryAfter: Duration.fromInputUnsafe(retryAfter) })
  return Effect.flip(run(Effect.andThen(Effect.sleep(after), Effect.fail(new LlmError.LlmError({ reason })))))
}

const refusal = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(self), (error) => {
    if (!(error instanceof Budget.BudgetError)) return assert.fail(String(error))
    return error.reason
  })

describe("a provider that is closed", () => {
  it.effect("for longer than the policy waits fails the call at once, with the time", () =>
    Effect.gen(function* () {
      const error = yield* closedFor("30 minutes")
      assert.instanceOf(error, LlmError.LlmError)
      assert.deepStrictEqual(
        [error.reason._tag, error.retryAfter, error.stoppedBy, error.attempts],
        ["RateLimited", Duration.minutes(30), "deadline", 1]
      )
    }).pipe(Effect.provide(layer))
  )

  it.effect("for longer than any bucket needs to refill pauses the pool for all calls", () =>
    Effect.gen(function* () {
      yield* Retry.withDeadline(closedFor("2 minutes"), "1 minute")
      assert.isUndefined((yield* pool).pause)
      yield* Retry.withDeadline(closedFor("120001 millis"), "1 minute")
      assert.deepStrictEqual((yield* pool).pause, { reason: "rateLimit", leftMillis: 120_001 })
      const next = yield* Effect.forkChild(succeed)
      yield* TestClock.adjust("2 minutes")
      assert.isUndefined(next.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(next), "done")
    }).pipe(Effect.provide(layer))
  )

  it.effect("refuses calls that would wait longer than ten minutes at once, with the time", () =>
    Effect.gen(function* () {
      yield* closedFor("600001 millis")
      const reason = yield* refusal(succeed)
      if (reason._tag !== "WaitTooLong") return assert.fail(reason._tag)
      assert.deepStrictEqual(reason.wait, Duration.millis(600_001))
      yield* TestClock.adjust("1 millis")
      const next = yield* Effect.forkChild(succeed)
      yield* TestClock.adjust("599999 millis")
      assert.isUndefined(next.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(next), "done")
    }).pipe(Effect.provide(layer))
  )

  it.effect("refuses waiting calls, too", () =>
    Effect.gen(function* () {
      yield* Effect.forkChild(run(Effect.never))
      yield* Effect.forkChild(closedFor("30 minutes", "1 second"))
      yield* Effect.yieldNow
      // One of them gets the slot of the rejected call before the wait of that is known.
      yield* Effect.forkChild(run(Effect.never))
      const waiting = yield* Effect.forkChild(refusal(succeed))
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const reason = yield* Fiber.join(waiting)
      if (reason._tag !== "WaitTooLong") return assert.fail(reason._tag)
      assert.deepStrictEqual(reason.wait, Duration.minutes(30))
    }).pipe(Effect.provide(layer))
  )

  it.effect("for ever pauses nothing", () =>
    Effect.gen(function* () {
      yield* closedFor(Duration.infinity)
      assert.isUndefined((yield* pool).pause)
      assert.strictEqual(yield* succeed, "done")
    }).pipe(Effect.provide(layer))
  )
})
