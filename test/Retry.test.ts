import { assert, describe, it } from "@effect/vitest"
import * as AiError from "effect/ai/AiError"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { TestClock } from "effect/testing"
import * as Retry from "floodgate/Retry"

class Refused extends Data.TaggedError("Refused")<{
  readonly isRetryable: boolean
  readonly retryAfter?: Duration.Duration | undefined
}> {}

const refused = (retryAfter?: Duration.Input) =>
  new Refused({
    isRetryable: true,
    retryAfter: retryAfter === undefined ? undefined : Duration.fromInputUnsafe(retryAfter)
  })

/** The delays of a schedule that is stepped with one input for as long as it goes on, without time between the steps. */
const delays = (schedule: Schedule.Schedule<unknown, unknown>, input: unknown, times: number, between = 0) =>
  Effect.gen(function* () {
    const step = yield* Schedule.toStep(schedule)
    const millis: Array<number> = []
    for (let n = 0; n < times; n++) {
      const delay = yield* step(n * between, input).pipe(
        Effect.map(([, delay]) => Duration.toMillis(delay)),
        Pull.catchDone(() => Effect.succeed(undefined))
      )
      if (delay === undefined) break
      millis.push(delay)
    }
    return millis
  })

/** A call that is refused `failures` times and keeps the times of its attempts. */
const recorded = (failures: number, retryAfter?: Duration.Input) => {
  const starts: Array<number> = []
  const attempts: Array<number> = []
  const call = Effect.gen(function* () {
    starts.push(yield* Clock.currentTimeMillis)
    const attempt = yield* Retry.Attempt
    assert.strictEqual(attempt.first, attempt.number === 1)
    attempts.push(attempt.number)
    return starts.length > failures ? "done" : yield* refused(retryAfter)
  })
  return { call, starts, attempts }
}

/** No jitter of our own: what is left is the upward spread of `retryAfter`. */
const plain = Retry.make({ jitter: "none" })

const unit = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1, exclusiveMaximum: true }))
const withRandom = (value: number) =>
  Effect.provideService(Random.Random, { nextDoubleUnsafe: () => value, nextIntUnsafe: () => 0 })

describe("Retry", () => {
  describe("backoff", () => {
    it.effect("doubles from 2 s up to 60 s without jitter", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(
          yield* delays(Retry.backoff({ jitter: "none" }), undefined, 7),
          [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
        )
      })
    )

    it.effect("repeats its delays with the same seed", () =>
      Effect.gen(function* () {
        const draw = (seed: string) => delays(Retry.backoff(), undefined, 8).pipe(Random.withSeed(seed))
        assert.deepStrictEqual(yield* draw("a"), yield* draw("a"))
        assert.notDeepEqual(yield* draw("a"), yield* draw("b"))
      })
    )

    it.effect.prop(
      "draws every variant within its bounds",
      { random: unit, base: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 5_000 })) },
      ({ base, random }) =>
        Effect.gen(function* () {
          const cap = base * 10
          const draw = (jitter: Retry.Jitter) => delays(Retry.backoff({ base, cap, jitter }), undefined, 6)
          const full = yield* draw("full")
          const equal = yield* draw("equal")
          const proportional = yield* draw("proportional")
          const decorrelated = yield* draw("decorrelated")
          const exponential = yield* draw("none")
          // Durations are kept to the nanosecond.
          const rounding = 1e-6
          for (const [n, delay] of exponential.entries()) {
            assert.isAtMost(delay, cap)
            assert.closeTo(full[n]!, delay * random, rounding)
            assert.closeTo(equal[n]!, delay / 2 + (delay / 2) * random, rounding)
            assert.closeTo(proportional[n]!, delay * (0.8 + 0.4 * random), 1e-3)
            assert.isAtLeast(decorrelated[n]!, base)
            assert.isAtMost(decorrelated[n]!, Math.min(cap, (decorrelated[n - 1] ?? base) * 3) + rounding)
          }
        }).pipe(withRandom(random)),
      { arbitrary: { runs: 200 } }
    )

    it.effect("lets decorrelated delays grow from the delay before", () =>
      Effect.gen(function* () {
        const schedule = Retry.backoff({ base: "1 second", cap: "5 seconds", jitter: "decorrelated" })
        assert.deepStrictEqual(
          yield* delays(schedule, undefined, 4).pipe(withRandom(0.5)),
          [2_000, 3_500, 5_000, 5_000]
        )
      })
    )

    it.effect("starts decorrelated jitter afresh for each run", () =>
      Effect.gen(function* () {
        const schedule = Retry.backoff({ jitter: "decorrelated" })
        const draw = delays(schedule, undefined, 5).pipe(Random.withSeed(1))
        assert.deepStrictEqual(yield* draw, yield* draw)
      })
    )
  })

  describe("schedule", () => {
    it.effect("lets five attempts begin by default, that is four retries", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(
          yield* delays(Retry.schedule({ jitter: "none" }), refused(), 9),
          [2_000, 4_000, 8_000, 16_000]
        )
      })
    )

    it.effect("ends at once after an error that may not be retried", () =>
      Effect.gen(function* () {
        const error = new Refused({ isRetryable: false })
        assert.deepStrictEqual(yield* delays(Retry.schedule(), error, 9), [])
        assert.deepStrictEqual(yield* delays(Retry.schedule(), "a string", 9), [])
        assert.strictEqual(Retry.stoppedBy(error), "terminal")
        assert.strictEqual(Retry.stoppedBy("a string"), undefined)
      })
    )

    it.effect.prop(
      "never waits less than was asked, nor a fifth more",
      { random: unit, millis: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 120_000 })) },
      ({ millis, random }) =>
        Effect.gen(function* () {
          const schedule = Retry.schedule({ base: 1, cap: 1 })
          for (const delay of yield* delays(schedule, refused(millis), 9)) {
            assert.isAtLeast(delay, millis)
            assert.isAtMost(delay, Math.max(1, Math.ceil(millis * 1.2)))
          }
        }).pipe(withRandom(random)),
      { arbitrary: { runs: 200 } }
    )

    it.effect("waits for the backoff when that is longer than was asked", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(
          yield* delays(Retry.schedule({ jitter: "none" }), refused("1 second"), 9),
          [2_000, 4_000, 8_000, 16_000]
        )
      })
    )

    it.effect("does not shorten a retry-after to the cap", () =>
      Effect.gen(function* () {
        const [delay] = yield* delays(Retry.schedule({ cap: "5 seconds" }), refused("90 seconds"), 1)
        assert.isAtLeast(delay!, 90_000)
      })
    )

    it.effect("lets the last attempt begin at maxElapsed and none after it", () =>
      Effect.gen(function* () {
        const run = (maxElapsed: number, between: number) =>
          delays(Retry.schedule({ base: 1_000, factor: 1, jitter: "none", maxElapsed }), refused(), 9, between)
        assert.deepStrictEqual(yield* run(1_000, 0), [1_000, 1_000, 1_000, 1_000])
        assert.deepStrictEqual(yield* run(999, 0), [])
        // the second step is 500 ms after the first
        assert.deepStrictEqual(yield* run(1_500, 500), [1_000, 1_000])
        assert.deepStrictEqual(yield* run(1_499, 500), [1_000])
      })
    )

    it.effect("works with Effect.retry", () =>
      Effect.gen(function* () {
        let attempts = 0
        const error = refused()
        const call = Effect.suspend(() => {
          attempts++
          return Effect.fail(error)
        })
        const fiber = yield* Effect.forkChild(Effect.flip(Effect.retry(call, Retry.schedule({ attempts: 3 }))))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* Fiber.join(fiber), error)
        assert.strictEqual(attempts, 3)
        assert.strictEqual(Retry.stoppedBy(error), "attempts")
      })
    )
  })

  describe("make", () => {
    it.effect("has the defaults of the incident report", () =>
      Effect.gen(function* () {
        const { attempts, backoff, maxElapsed } = Retry.defaultPolicy
        assert.deepStrictEqual([attempts, maxElapsed], [5, Duration.minutes(10)])
        const drawn = yield* delays(backoff, undefined, 7).pipe(withRandom(0.5))
        assert.deepStrictEqual(drawn, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000])
      })
    )

    describe("with a schedule of one's own", () => {
      const everySecond = Retry.make({ backoff: Schedule.spaced("1 second") })

      it.effect("waits as it says, within the attempts of the policy", () =>
        Effect.gen(function* () {
          const { call, starts } = recorded(9)
          const fiber = yield* Effect.forkChild(Effect.flip(Retry.withPolicy(call, everySecond)))
          yield* TestClock.adjust("1 minute")
          assert.strictEqual(Retry.stoppedBy(yield* Fiber.join(fiber)), "attempts")
          assert.deepStrictEqual(starts, [0, 1_000, 2_000, 3_000, 4_000])
        })
      )

      it.effect("does not retry an error that may not be retried, also in place of another policy's", () =>
        Effect.gen(function* () {
          const error = new Refused({ isRetryable: false })
          const policy = { ...Retry.defaultPolicy, backoff: Schedule.forever }
          for (const each of [everySecond, policy]) {
            assert.strictEqual(yield* Effect.flip(Retry.withPolicy(Effect.fail(error), each)), error)
            assert.strictEqual(Retry.stoppedBy(error), "terminal")
          }
        })
      )

      it.effect("waits at least for the retry-after", () =>
        Effect.gen(function* () {
          const { call, starts } = recorded(1, "30 seconds")
          const fiber = yield* Effect.forkChild(Retry.withPolicy(call, everySecond).pipe(withRandom(0)))
          yield* TestClock.adjust(29_999)
          assert.deepStrictEqual(starts, [0])
          yield* TestClock.adjust(1)
          assert.strictEqual(yield* Fiber.join(fiber), "done")
        })
      )

      it.effect("heeds maxElapsed and the deadline", () =>
        Effect.gen(function* () {
          const { call } = recorded(9)
          const short = Retry.make({ backoff: Schedule.spaced("1 second"), maxElapsed: 999 })
          assert.strictEqual(Retry.stoppedBy(yield* Effect.flip(Retry.withPolicy(call, short))), "deadline")
          const late = Retry.withPolicy(call, everySecond).pipe(Retry.withDeadline(999))
          assert.strictEqual(Retry.stoppedBy(yield* Effect.flip(late)), "deadline")
        })
      )

      it.effect("ends where the schedule does", () =>
        Effect.gen(function* () {
          const { call, starts } = recorded(9)
          const error = yield* Effect.flip(Retry.withPolicy(call, Retry.make({ backoff: Schedule.recurs(2) })))
          assert.strictEqual(Retry.stoppedBy(error), "attempts")
          assert.strictEqual(starts.length, 3)
          const terminal = new Refused({ isRetryable: false })
          yield* Effect.flip(Retry.withPolicy(Effect.fail(terminal), Retry.make({ backoff: Schedule.recurs(0) })))
          assert.strictEqual(Retry.stoppedBy(terminal), "terminal")
        })
      )

      it.effect("is a policy only when made into one", () =>
        Effect.gen(function* () {
          const call = Effect.fail(refused())
          for (const policy of [Schedule.spaced("1 second"), { attempts: 1 }]) {
            const exit = yield* Effect.exit(Retry.withPolicy(call, policy as unknown as Retry.Policy))
            assert.include(String(exit), "Retry.withPolicy: expected a policy, as Retry.make gives it")
          }
        })
      )
    })

    const bad: ReadonlyArray<readonly [options: Retry.Options, message: string]> = [
      [{ base: 0 }, "Retry.base: expected a finite duration > 0, got 0"],
      [{ base: "Infinity" }, "Retry.base: expected a finite duration > 0, got Infinity"],
      [{ base: "soon" as "1 second" }, "Retry.base: expected a finite duration > 0, got soon"],
      [{ base: Number.NaN }, "Retry.base: expected a finite duration > 0, got NaN"],
      [{ factor: 0.9 }, "Retry.factor: expected a finite number >= 1, got 0.9"],
      [{ factor: Infinity }, "Retry.factor: expected a finite number >= 1, got Infinity"],
      [{ cap: "1 second" }, "Retry.cap: expected a finite duration >= base, got 1 second"],
      [{ attempts: 0 }, "Retry.attempts: expected an integer >= 1, got 0"],
      [{ attempts: 1.5 }, "Retry.attempts: expected an integer >= 1, got 1.5"],
      [{ attempts: Infinity }, "Retry.attempts: expected an integer >= 1, got Infinity"],
      [
        { jitter: "some" as "full" },
        "Retry.jitter: expected one of full, equal, decorrelated, proportional, none, got some"
      ],
      [{ maxElapsed: 0 }, "Retry.maxElapsed: expected a duration > 0, got 0"],
      [
        { backoff: Schedule.forever, base: "1 second" },
        "Retry.make: expected nothing but backoff, attempts, maxElapsed, got base"
      ],
      [
        { maxAttempts: 3 } as Retry.Options,
        "Retry.make: expected nothing but backoff, attempts, maxElapsed, base, factor, cap, jitter, got maxAttempts"
      ]
    ]
    for (const [options, message] of bad) {
      it(`refuses ${message.slice("Retry.".length)}`, () => {
        assert.throws(() => Retry.make(options), RangeError, message)
      })
    }
  })

  describe("isRetryable and stoppedBy", () => {
    it("accepts AiError of effect/ai as it is", () => {
      const limited = AiError.make({
        module: "LanguageModel",
        method: "generateText",
        reason: new AiError.RateLimitError({ retryAfter: Duration.seconds(16) })
      })
      const fits: Retry.Retryable = limited
      assert.isTrue(Retry.isRetryable(fits))
      const exhausted = AiError.make({
        module: "LanguageModel",
        method: "generateText",
        reason: new AiError.QuotaExhaustedError({})
      })
      assert.isFalse(Retry.isRetryable(exhausted))
      assert.strictEqual(Retry.stoppedBy(limited), undefined)
    })

    it.effect("waits for as long as an AiError asks", () =>
      Effect.gen(function* () {
        let attempts = 0
        const call = Effect.suspend(() =>
          ++attempts === 1
            ? Effect.fail(
                AiError.make({
                  module: "LanguageModel",
                  method: "generateText",
                  reason: new AiError.RateLimitError({ retryAfter: Duration.seconds(16) })
                })
              )
            : Effect.succeed("done")
        )
        const fiber = yield* Effect.forkChild(Retry.withPolicy(call, plain).pipe(withRandom(0)))
        yield* TestClock.adjust(15_999)
        assert.strictEqual(attempts, 1)
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* Fiber.join(fiber), "done")
      })
    )
  })

  describe("withPolicy", () => {
    it.effect("begins each attempt at the millisecond of the schedule, and tells it its number", () =>
      Effect.gen(function* () {
        const { attempts, call, starts } = recorded(2)
        const fiber = yield* Effect.forkChild(Retry.withPolicy(call, plain))
        yield* TestClock.adjust(1_999)
        assert.deepStrictEqual(starts, [0])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(starts, [0, 2_000])
        yield* TestClock.adjust(3_999)
        assert.deepStrictEqual(starts, [0, 2_000])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(starts, [0, 2_000, 6_000])
        assert.strictEqual(yield* Fiber.join(fiber), "done")
        assert.deepStrictEqual(attempts, [1, 2, 3])
      })
    )

    it.effect("is the first attempt outside of a policy", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* Retry.Attempt, { number: 1, first: true })
      })
    )

    it.effect("counts anew for each run of the same effect", () =>
      Effect.gen(function* () {
        const numbers: Array<number> = []
        const call = Retry.withPolicy(
          Effect.map(Retry.Attempt, ({ number }) => void numbers.push(number)),
          plain
        )
        yield* Effect.all([call, call])
        assert.deepStrictEqual(numbers, [1, 1])
      })
    )

    it.effect("gives the last error back when attempts are exhausted", () =>
      Effect.gen(function* () {
        const { call, starts } = recorded(9)
        const fiber = yield* Effect.forkChild(Effect.flip(Retry.withPolicy(call, plain)))
        yield* TestClock.adjust("30 seconds")
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(Retry.stoppedBy(error), "attempts")
        assert.deepStrictEqual(starts, [0, 2_000, 6_000, 14_000, 30_000])
      })
    )

    it.effect("does not retry errors that say nothing, nor defects", () =>
      Effect.gen(function* () {
        let runs = 0
        const failing = <E>(effect: Effect.Effect<never, E>) =>
          Retry.withPolicy(
            Effect.suspend(() => {
              runs++
              return effect
            }),
            Retry.defaultPolicy
          )
        const error = new Error("broken")
        assert.strictEqual(yield* Effect.flip(failing(Effect.fail(error))), error)
        assert.strictEqual(Retry.stoppedBy(error), "terminal")
        assert.strictEqual(yield* Effect.flip(failing(Effect.fail("text"))), "text")
        const exit = yield* Effect.exit(failing(Effect.die(refused())))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        assert.strictEqual(runs, 3)
      })
    )

    it.effect("fails at once when retry-after is longer than the time that is left", () =>
      Effect.gen(function* () {
        const { call, starts } = recorded(9, "5 hours")
        const error = yield* Effect.flip(Retry.withPolicy(call, Retry.defaultPolicy))
        assert.strictEqual(Retry.stoppedBy(error), "deadline")
        assert.deepStrictEqual(starts, [0])
      })
    )

    it.effect("does not sleep for ever when retry-after is infinite", () =>
      Effect.gen(function* () {
        const { call } = recorded(9, Duration.infinity)
        const policy = Retry.make({ maxElapsed: Duration.infinity })
        assert.strictEqual(Retry.stoppedBy(yield* Effect.flip(Retry.withPolicy(call, policy))), "deadline")
      })
    )

    it.effect("ends its wait when it is interrupted", () =>
      Effect.gen(function* () {
        const { call, starts } = recorded(9, "1 minute")
        const fiber = yield* Effect.forkChild(Retry.withPolicy(call, plain))
        yield* TestClock.adjust("1 second")
        yield* Fiber.interrupt(fiber)
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(starts, [0])
      })
    )

    it.effect("holds no resource of an attempt while it waits", () =>
      Effect.gen(function* () {
        let held = 0
        const call = Effect.scoped(
          Effect.acquireRelease(
            Effect.sync(() => held++),
            () => Effect.sync(() => held--)
          ).pipe(Effect.andThen(Effect.fail(refused("1 minute"))))
        )
        yield* Effect.forkChild(Retry.withPolicy(call, plain))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(held, 0)
      })
    )

    it.effect("spreads those who failed together", () =>
      Effect.gen(function* () {
        const calls = Array.from({ length: 8 }, () => recorded(1, "10 seconds"))
        yield* Effect.forkChild(
          Effect.all(
            calls.map(({ call }) => Retry.withPolicy(call, Retry.defaultPolicy)),
            { concurrency: "unbounded" }
          ).pipe(Random.withSeed("herd"))
        )
        yield* TestClock.adjust("9999 millis")
        assert.isTrue(calls.every(({ starts }) => starts.length === 1))
        yield* TestClock.adjust("2001 millis")
        assert.isTrue(calls.every(({ starts }) => starts.length === 2))
        assert.strictEqual(new Set(calls.map(({ starts }) => starts[1])).size, 8)
      })
    )
  })

  describe("withDeadline", () => {
    const second = Retry.make({ base: "1 second", factor: 1, jitter: "none" })

    it.effect("lets an attempt begin at the deadline and none after it", () =>
      Effect.gen(function* () {
        const run = (after: Duration.Input) =>
          Effect.gen(function* () {
            const { call, starts } = recorded(9)
            const began = yield* Clock.currentTimeMillis
            const fiber = yield* call.pipe(
              Retry.withPolicy(second),
              Retry.withDeadline(after),
              Effect.flip,
              Effect.forkChild
            )
            yield* TestClock.adjust("10 seconds")
            return [starts.map((start) => start - began), Retry.stoppedBy(yield* Fiber.join(fiber))]
          })
        assert.deepStrictEqual(yield* run(2_000), [[0, 1_000, 2_000], "deadline"])
        assert.deepStrictEqual(yield* run(1_999), [[0, 1_000], "deadline"])
      })
    )

    it.effect("lets none begin after it that was woken late", () =>
      Effect.gen(function* () {
        const clock = yield* Clock.Clock
        const asleep: Clock.Clock = Object.assign(Object.create(clock), {
          sleep: (duration: Duration.Duration) => clock.sleep(Duration.sum(duration, Duration.hours(1)))
        })
        const { attempts, call } = recorded(9)
        const fiber = yield* call.pipe(
          Retry.withPolicy(Retry.make({ base: "1 second", jitter: "none", attempts: 2 })),
          Retry.withDeadline("5 seconds"),
          Effect.provideService(Clock.Clock, asleep),
          Effect.flip,
          Effect.forkChild
        )
        yield* TestClock.adjust("2 hours")
        assert.strictEqual(Retry.stoppedBy(yield* Fiber.join(fiber)), "deadline")
        assert.deepStrictEqual(attempts, [1])
      })
    )

    it.effect("keeps the nearest of nested deadlines", () =>
      Effect.gen(function* () {
        const inner = Retry.withDeadline(Effect.map(Retry.Deadline, identity), "10 seconds")
        assert.strictEqual(yield* inner, 10_000)
        assert.strictEqual(yield* Retry.withDeadline(inner, "5 seconds"), 5_000)
        assert.strictEqual(yield* Retry.withDeadline(inner, "20 seconds"), 10_000)
      })
    )
  })

  describe("RetryBudget", () => {
    const immediate = Retry.make({ base: 1, cap: 1, jitter: "none" })

    /** How many attempts `calls` failing calls make, `perSecond` of them starting each second. */
    const storm = (calls: number, perSecond: number) =>
      Effect.gen(function* () {
        let attempts = 0
        const reasons: Record<string, number> = {}
        const call = Effect.suspend(() => {
          attempts++
          return Effect.fail(refused())
        })
        for (let n = 0; n < calls; n += perSecond) {
          const fiber = yield* Effect.forEach(
            Array.from({ length: perSecond }),
            () => Effect.flip(Retry.withPolicy(call, immediate)),
            { concurrency: "unbounded" }
          ).pipe(Effect.forkChild)
          yield* TestClock.adjust("1 second")
          for (const error of yield* Fiber.join(fiber)) {
            const reason = String(Retry.stoppedBy(error))
            reasons[reason] = (reasons[reason] ?? 0) + 1
          }
        }
        return { retries: attempts - calls, reasons }
      })

    it.effect("keeps the retries of 10,000 failing calls to a fifth", () =>
      Effect.gen(function* () {
        const { reasons, retries } = yield* storm(10_000, 100).pipe(
          Effect.provide(Retry.layerBudget({ minPerSecond: 0 }))
        )
        assert.strictEqual(retries, 2_000)
        assert.isTrue(reasons.retryBudget! >= 9_500)
      })
    )

    it.effect("adds the floor per second", () =>
      Effect.gen(function* () {
        // The hundredth second is the last: ten windows of 20 besides the fifth.
        const { retries } = yield* storm(10_000, 100).pipe(Effect.provide(Retry.layerBudget()))
        assert.strictEqual(retries, 2_000 + 200)
      })
    )

    it.effect("makes five attempts of every call when unlimited", () =>
      Effect.gen(function* () {
        const { reasons, retries } = yield* storm(1_000, 100).pipe(Effect.provide(Retry.layerBudgetUnlimited))
        assert.strictEqual(retries, 4_000)
        assert.deepStrictEqual(reasons, { attempts: 1_000 })
        const balance = Effect.flatMap(Retry.RetryBudget, (budget) => budget.balance)
        assert.strictEqual(yield* Effect.provide(balance, Retry.layerBudgetUnlimited), Infinity)
      })
    )

    it.effect("is one for the whole process without a layer, and one per clock", () =>
      Effect.gen(function* () {
        const { retries } = yield* storm(100, 100)
        assert.strictEqual(retries, 20 + 20)
        const budget = yield* Retry.RetryBudget
        assert.isFalse(yield* budget.withdraw)
        const other = yield* Effect.provide(budget.balance, TestClock.layer())
        assert.strictEqual(other, 20)
      })
    )

    it.effect("gives the original error back at once", () =>
      Effect.gen(function* () {
        const error = refused("1 minute")
        const failed = yield* Retry.withPolicy(Effect.fail(error), plain).pipe(
          Effect.flip,
          Effect.provide(Retry.layerBudget({ minPerSecond: 0, ratio: 0 }))
        )
        assert.strictEqual(failed, error)
        assert.strictEqual(Retry.stoppedBy(error), "retryBudget")
      })
    )

    it.effect("is not charged for errors that would not be retried anyway", () =>
      Effect.gen(function* () {
        const budget = yield* Retry.makeBudget({ ratio: 0 })
        const provided = Effect.provideService(Retry.RetryBudget, budget)
        yield* Effect.flip(Retry.withPolicy(Effect.fail("text"), plain).pipe(provided))
        yield* Effect.flip(Retry.withPolicy(Effect.fail(refused("5 hours")), plain).pipe(provided))
        yield* Effect.flip(Retry.withPolicy(Effect.fail(refused()), Retry.make({ attempts: 1 })).pipe(provided))
        assert.strictEqual(yield* budget.balance, 20)
      })
    )

    it.effect("counts a call when its first attempt ends, however long that took, and once", () =>
      Effect.gen(function* () {
        // Regression: calls that stood in a queue for longer than the ten seconds had earned nothing when they failed.
        const budget = yield* Retry.makeBudget({ minPerSecond: 0 })
        let attempts = 0
        const queued = Effect.suspend(() => {
          attempts++
          return Effect.andThen(Effect.sleep("30 seconds"), Effect.fail(refused()))
        })
        const calls = Effect.replicateEffect(Effect.flip(Retry.withPolicy(queued, immediate)), 5, {
          concurrency: "unbounded"
        })
        const fiber = yield* Effect.forkChild(Effect.provideService(calls, Retry.RetryBudget, budget))
        yield* TestClock.adjust("29999 millis")
        assert.strictEqual(yield* budget.balance, 0)
        yield* TestClock.adjust("2 millis")
        assert.strictEqual(attempts, 6)
        yield* TestClock.adjust("1 minute")
        const stops = (yield* Fiber.join(fiber)).map(Retry.stoppedBy)
        assert.deepStrictEqual([attempts, ...new Set(stops)], [6, "retryBudget"])
      })
    )

    it.effect("does not count a call that was interrupted in its first attempt", () =>
      Effect.gen(function* () {
        // Regression: callers that left a queue together earned retries for others.
        const budget = yield* Retry.makeBudget({ minPerSecond: 0 })
        const waiting = Effect.provideService(Retry.withPolicy(Effect.never, immediate), Retry.RetryBudget, budget)
        const fiber = yield* Effect.forkChild(Effect.replicateEffect(waiting, 10, { concurrency: "unbounded" }))
        yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* budget.balance, 0)
      })
    )

    it("refuses options out of range", () => {
      assert.throws(
        () => Retry.makeBudget({ ratio: -1 }),
        RangeError,
        "Retry.ratio: expected a finite number >= 0, got -1"
      )
      assert.throws(
        () => Retry.layerBudget({ minPerSecond: Infinity }),
        RangeError,
        "Retry.minPerSecond: expected a finite number >= 0, got Infinity"
      )
    })
  })
})
