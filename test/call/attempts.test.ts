import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmError from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import { pool } from "../support/budget.ts"

const call: Governor.Call = { model: "m", bytes: 2_700, inputTokens: 1_000, maxTokens: 500 }
const once = Retry.make({ attempts: 1 })
const steady = (attempts?: number, options: Retry.Options = {}) =>
  Retry.make({ base: "1 second", jitter: "none", attempts, ...options })

const plenty = { requests: { perMinute: 60_000 }, inputTokens: { perMinute: 60_000_000 } }

const layer = (retry: Retry.Policy<LlmError.LlmError>, budget: Budget.Options = {}) =>
  Governor.layer({ retry }).pipe(
    Layer.provideMerge(Budget.layer({ limits: plenty, ...budget })),
    Layer.provide(Retry.layerBudget({ minPerSecond: Infinity }))
  )

const run = <A, E, R>(
  attempt: (ticket: Governor.Ticket) => Effect.Effect<Governor.Outcome<A>, E, R>,
  options?: Governor.CallOptions
) => Effect.flatMap(Governor.Governor, (governor) => governor.run(call, attempt, options))

const fail = (reason: LlmError.LlmErrorReason) => Effect.fail(new LlmError.LlmError({ reason }))
const succeed = <A>(value: A) => Effect.succeed({ value, actual: { inputTokens: 900, outputTokens: 100 } })

/** An attempt that fails for each of the reasons and then succeeds. It records when each attempt began. */
const script = (...reasons: ReadonlyArray<LlmError.LlmErrorReason>) => {
  const starts: Array<number> = []
  const attempt = () =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const reason = reasons[starts.length]
      starts.push(now)
      return reason === undefined ? succeed("done") : fail(reason)
    })
  return { attempt, starts }
}

const down = new LlmError.ServerFailed({ status: 500 })
/** Eight calls that fail together. */
const outage = Effect.forkChild(
  Effect.replicateEffect(Effect.exit(run(() => Effect.andThen(Effect.yieldNow, fail(down)), { retry: once })), 8, {
    concurrency: "unbounded"
  })
)

describe("attempts", () => {
  it.effect("are not used up by the probes of a known outage, which go out 1, 2, 3, 5, 7 and 10 s apart", () =>
    Effect.gen(function* () {
      yield* outage
      yield* Effect.yieldNow
      yield* Effect.yieldNow
      assert.strictEqual((yield* pool).pause?.leftMillis, 1_000)
      const { attempt, starts } = script(down, down, down, down, down, down)
      const fiber = yield* Effect.forkChild(run(attempt))
      // The fifth waits for its own backoff, which is longer than the pause by then.
      yield* TestClock.adjust("18999 millis")
      assert.deepStrictEqual(starts, [1_000, 3_000, 6_000, 11_000])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(starts, [1_000, 3_000, 6_000, 11_000, 19_000])
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* Fiber.join(fiber), "done")
      assert.strictEqual(starts.length, 7)
    }).pipe(Effect.provide(layer(steady())))
  )

  it.effect("are not used up by rejections of an empty bucket", () =>
    Effect.gen(function* () {
      const signal = { dimensions: { inputTokens: { limit: 60_000_000, remaining: 0 } } }
      const empty = new LlmError.RateLimited({ status: 429, signal })
      const { attempt, starts } = script(empty, empty, empty, empty, empty, empty)
      const fiber = yield* Effect.forkChild(run(attempt))
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* Fiber.join(fiber), "done")
      assert.strictEqual(starts.length, 7)
    }).pipe(Effect.provide(layer(steady())))
  )

  it.effect("are used up by failures that are the call's own, while others succeed", () =>
    Effect.gen(function* () {
      const { attempt, starts } = script(...Array.from({ length: 99 }, () => down))
      const others = Effect.forever(
        Effect.andThen(
          run(() => succeed(1)),
          Effect.sleep("50 millis")
        )
      )
      yield* Effect.forkChild(others)
      yield* TestClock.adjust("1 second")
      const fiber = yield* Effect.forkChild(Effect.flip(run(attempt)))
      yield* TestClock.adjust("30 seconds")
      const error = yield* Fiber.join(fiber)
      assert.instanceOf(error, LlmError.LlmError)
      assert.deepStrictEqual([error.attempts, error.stoppedBy], [5, "attempts"])
      assert.deepStrictEqual(
        starts,
        [0, 1, 3, 7, 15].map((seconds) => 1_000 + seconds * 1_000)
      )
    }).pipe(Effect.provide(layer(steady(5))))
  )

  // Regression: against a healthy provider that took longer than its timeout, a call with two attempts continued for ten
  // minutes, because its own timeouts counted as an outage.
  for (const [what, attempt, options] of [
    ["the option `timeout`", () => Effect.as(Effect.sleep("500 millis"), { value: 1 }), { timeout: "200 millis" }],
    ["a client's own timeout", () => Effect.andThen(Effect.sleep("200 millis"), fail(new LlmError.TimedOut({}))), {}]
  ] as const) {
    it.effect(`are used up by ${what} in an outage, too`, () =>
      Effect.gen(function* () {
        const retry = steady(2)
        const many = Effect.replicateEffect(Effect.flip(run(attempt, { ...options, retry })), 12, {
          concurrency: "unbounded"
        })
        const fiber = yield* Effect.forkChild(many)
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual((yield* pool).pause?.reason, "overload")
        yield* TestClock.adjust("9 minutes")
        assert.isDefined(fiber.pollUnsafe())
        for (const error of yield* Fiber.join(fiber)) {
          assert.instanceOf(error, LlmError.LlmError)
          assert.deepStrictEqual([error.reason._tag, error.attempts, error.stoppedBy], ["TimedOut", 2, "attempts"])
        }
      }).pipe(Effect.provide(layer(once)))
    )
  }

  for (const reported of [{ status: 504 }, { code: "ETIMEDOUT" }, { requestId: "req_1" }]) {
    it.effect(
      `are not used up by a timeout that the provider or the network reports in an outage: ${Object.keys(reported)[0]}`,
      () =>
        Effect.gen(function* () {
          yield* outage
          yield* Effect.yieldNow
          const { attempt, starts } = script(...Array.from({ length: 5 }, () => new LlmError.TimedOut(reported)))
          const fiber = yield* Effect.forkChild(run(attempt))
          yield* TestClock.adjust("2 minutes")
          assert.strictEqual(yield* Fiber.join(fiber), "done")
          assert.strictEqual(starts.length, 6)
        }).pipe(Effect.provide(layer(steady())))
    )
  }

  it.effect("are limited to one if the policy says so, whatever failed", () =>
    Effect.gen(function* () {
      yield* outage
      yield* Effect.yieldNow
      const { attempt, starts } = script(down)
      const fiber = yield* Effect.forkChild(Effect.flip(run(attempt)))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(fiber)
      assert.strictEqual(starts.length, 1)
    }).pipe(Effect.provide(layer(once)))
  )

  it.effect("wait by a schedule of the error", () =>
    Effect.gen(function* () {
      const backoff = Schedule.spaced("1 second").pipe(
        Schedule.setInputType<LlmError.LlmError>(),
        Schedule.modifyDelay(({ duration, input }) =>
          Effect.succeed(input.reason._tag === "Overloaded" ? Duration.times(duration, 10) : duration)
        )
      )
      const { attempt, starts } = script(
        new LlmError.InvalidRequest({ status: 409 }),
        new LlmError.Overloaded({ status: 529 })
      )
      yield* Effect.forkChild(
        Effect.forever(
          Effect.andThen(
            run(() => succeed(1)),
            Effect.sleep("50 millis")
          )
        )
      )
      const fiber = yield* Effect.forkChild(run(attempt, { retry: Retry.make({ backoff }) }))
      yield* TestClock.adjust("10999 millis")
      assert.deepStrictEqual(starts, [0, 1_000])
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(fiber), "done")
    }).pipe(Effect.provide(layer(once)))
  )

  it.effect("end when the policy's schedule ends, and report that as the reason", () =>
    Effect.gen(function* () {
      const { attempt, starts } = script(
        ...Array.from({ length: 9 }, () => new LlmError.InvalidRequest({ status: 409 }))
      )
      const error = yield* Effect.flip(run(attempt))
      assert.instanceOf(error, LlmError.LlmError)
      assert.deepStrictEqual([error.stoppedBy, starts.length], ["schedule", 3])
    }).pipe(Effect.provide(layer(Retry.make({ backoff: Schedule.recurs(2) }))))
  )

  it.effect("are made after errors that `while` accepts, but never after those that are not retryable", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const retry = Retry.make({
        backoff: Schedule.forever,
        while: ({ reason }: LlmError.LlmError) => asked.push(reason._tag) < 2
      })
      const conflict = new LlmError.InvalidRequest({ status: 409 })
      const refused = script(conflict, conflict, conflict)
      yield* Effect.flip(run(refused.attempt, { retry }))
      const missing = script(new LlmError.InvalidRequest({ status: 404 }))
      yield* Effect.flip(run(missing.attempt, { retry }))
      assert.deepStrictEqual([refused.starts.length, missing.starts.length], [2, 1])
      assert.deepStrictEqual(asked, ["InvalidRequest", "InvalidRequest"])
    }).pipe(Effect.provide(layer(once)))
  )

  it.effect("that still run after their end do not change the next one", () =>
    Effect.gen(function* () {
      const tickets: Array<Governor.Ticket> = []
      const attempt = (ticket: Governor.Ticket) =>
        tickets.push(ticket) === 1 ? fail(new LlmError.InvalidRequest({ status: 409 })) : Effect.never
      const fiber = yield* Effect.forkChild(run(attempt))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(tickets.length, 2)
      const [first, second] = tickets
      first!.recordUsage({ inputTokens: 7, outputTokens: 7 })
      yield* first!.succeed({ inputTokens: 7, outputTokens: 7 })
      yield* first!.fail("late")
      second!.recordUsage({ inputTokens: 1_000, outputTokens: 40 })
      const { dimensions } = yield* pool
      yield* Fiber.interrupt(fiber)
      const after = (yield* pool).dimensions
      // Settled to the output that the second attempt observed, and not to the 500 tokens that it reserved.
      assert.strictEqual(after.outputTokens!.level - dimensions.outputTokens!.level, 460)
    }).pipe(Effect.provide(layer(steady(2), { limits: { requests: { total: 10 }, outputTokens: { total: 10_000 } } })))
  )

  it.effect("are made after an unknown error that `while` accepts", () =>
    Effect.gen(function* () {
      let attempts = 0
      const attempt = () => (++attempts < 3 ? Effect.fail("busy") : succeed("done"))
      const retry = Retry.make({ backoff: Schedule.forever, while: (error: unknown) => error === "busy" })
      assert.strictEqual(yield* run(attempt, { retry }), "done")
    }).pipe(Effect.provide(layer(once)))
  )

  it.effect("wait in the queue no longer than the policy allows them to begin, and end with the failure before", () =>
    Effect.gen(function* () {
      const { attempt } = script(new LlmError.InvalidRequest({ status: 409, requestId: "req_1" }))
      const fiber = yield* Effect.forkChild(Effect.flip(run(attempt)))
      yield* Effect.yieldNow
      yield* Effect.forkChild(run(() => Effect.never))
      yield* TestClock.adjust("59999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(fiber)
      assert.instanceOf(error, LlmError.LlmError)
      assert.deepStrictEqual([error.requestId, error.stoppedBy], ["req_1", "deadline"])
    }).pipe(Effect.provide(layer(steady(3, { maxElapsed: "1 minute" }), { concurrency: 1 })))
  )
})
