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
import { InvalidRequest, LlmError, Overloaded, RateLimited } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import { interruptAt } from "./support/yieldAt.ts"
import { Deadline } from "../src/call/retryPolicy.ts"
import { retryBalance } from "./support/retries.ts"

class Refused extends Data.TaggedError("Refused")<{
  readonly isRetryable: boolean
  readonly retryAfter?: Duration.Duration | undefined
}> {}

const refused = (retryAfter?: Duration.Input) =>
  new Refused({
    isRetryable: true,
    retryAfter: retryAfter === undefined ? undefined : Duration.fromInputUnsafe(retryAfter)
  })

const overloaded = new LlmError({ reason: new Overloaded({ status: 529 }) })

/** The delays of a schedule that is stepped with one input until it ends, without time between the steps. */
const delays = <I>(schedule: Schedule.Schedule<unknown, I>, input: I, times: number, between = 0) =>
  Effect.gen(function* () {
    const step = yield* Schedule.toStep(schedule)
    const millis: Array<number> = []
    for (let n = 0; n < times; n++) {
      const delay = yield* step(n * between, input).pipe(
        Effect.map(([, delay]) => Duration.toMillis(delay)),
        Pull.catchDone(() => Effect.undefined)
      )
      if (delay === undefined) break
      millis.push(delay)
    }
    return millis
  })

/** A call that fails a number of times, and records the times of its attempts. */
const failing = <E>(failures: number, error: E) => {
  const starts: Array<number> = []
  const call = Effect.gen(function* () {
    starts.push(yield* Clock.currentTimeMillis)
    return starts.length > failures ? "done" : yield* Effect.fail(error)
  })
  return { call, starts }
}

const recorded = (failures: number, retryAfter?: Duration.Input) => failing(failures, refused(retryAfter))

/** Without jitter, so that only `retryAfter` spreads the waits. */
const plain = Retry.make({ jitter: "none" })
/** One millisecond after each failure. */
const immediate = Retry.make({ base: 1, cap: 1, jitter: "none" })

const unit = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1, exclusiveMaximum: true }))
const withRandom = (value: number) =>
  Effect.provideService(Random.Random, { nextDoubleUnsafe: () => value, nextIntUnsafe: () => 0 })

describe("Retry", () => {
  describe("waits", () => {
    const endless = { attempts: 1_000, maxElapsed: Duration.infinity }

    it.effect("double from 2 s up to 60 s without jitter", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(
          yield* delays(Retry.schedule({ ...endless, jitter: "none" }), refused(), 7),
          [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
        )
      })
    )

    it.effect("repeat with the same seed", () =>
      Effect.gen(function* () {
        const draw = (seed: string) => delays(Retry.schedule(), refused(), 4).pipe(Random.withSeed(seed))
        assert.deepStrictEqual(yield* draw("a"), yield* draw("a"))
        assert.notDeepEqual(yield* draw("a"), yield* draw("b"))
      })
    )

    it.effect.prop(
      "are drawn within the bounds of their jitter, and rounded up",
      { random: unit, base: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 5_000 })) },
      ({ base, random }) =>
        Effect.gen(function* () {
          const cap = base * 10
          const draw = (jitter: Retry.Options["jitter"]) =>
            delays(Retry.schedule({ ...endless, base, cap, jitter }), refused(), 6)
          const full = yield* draw("full")
          const proportional = yield* draw("proportional")
          const exponential = yield* draw("none")
          for (const [n, delay] of exponential.entries()) {
            assert.strictEqual(delay, Math.min(cap, base * 2 ** n))
            assert.closeTo(full[n]!, delay * random + 0.5, 0.51)
            assert.closeTo(proportional[n]!, delay * (0.8 + 0.4 * random) + 0.5, 0.51)
          }
        }).pipe(withRandom(random)),
      { arbitrary: { runs: 200 } }
    )
  })

  describe("schedule", () => {
    it.effect("makes five attempts by default, which are four retries", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(
          yield* delays(Retry.schedule({ jitter: "none" }), refused(), 9),
          [2_000, 4_000, 8_000, 16_000]
        )
      })
    )

    it.effect("ends at once after an error that is not retryable", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* delays(Retry.schedule(), new Refused({ isRetryable: false }), 9), [])
        const busy = Retry.schedule({ while: (error: string) => error === "busy", jitter: "none", attempts: 2 })
        assert.deepStrictEqual(yield* delays(busy, "busy", 9), [2_000])
        assert.deepStrictEqual(yield* delays(busy, "broken", 9), [])
      })
    )

    it.effect.prop(
      "waits at least for the retry-after, and less than a fifth longer",
      { random: unit, millis: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 120_000 })) },
      ({ millis, random }) =>
        Effect.gen(function* () {
          const schedule = Retry.schedule({ base: 1, cap: 1, jitter: "none" })
          for (const delay of yield* delays(schedule, refused(millis), 9)) {
            assert.isAtLeast(delay, millis)
            assert.isAtMost(delay, Math.max(1, Math.ceil(millis * 1.2)))
          }
        }).pipe(withRandom(random)),
      { arbitrary: { runs: 200 } }
    )

    it.effect("waits for the backoff if that is longer than the retry-after", () =>
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

    it.effect("makes the last attempt at maxElapsed and none after it", () =>
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

    it.effect("does not count by default how long calls wait for their turn after a rate limit", () =>
      Effect.gen(function* () {
        const failed = (isLimited: boolean) =>
          ({ error: overloaded, isOwn: false, isLimited, isFinal: false, retryAfter: undefined }) as const
        // Ten minutes, and the 599.5 s from the end of the first wait to the second failure.
        for (const [end, isRetried] of [
          [1_198_500, true],
          [1_198_501, false]
        ] as const) {
          const step = yield* Schedule.toStep(Retry.make({ base: 1_000, cap: 1_000, jitter: "none", attempts: 9 }))
          yield* step(0, failed(true))
          yield* step(600_500, failed(false))
          const last: unknown = yield* Pull.catchDone(step(end, failed(false)), Effect.succeed)
          assert.strictEqual(Array.isArray(last), isRetried)
        }
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
      })
    )
  })

  describe("make", () => {
    it.effect("waits 2 s, doubled, through Schedule.jittered, for five attempts and ten minutes", () =>
      Effect.gen(function* () {
        const drawn = (random: number) => delays(Retry.schedule(), refused(), 9).pipe(withRandom(random))
        assert.deepStrictEqual(yield* drawn(0.5), [2_000, 4_000, 8_000, 16_000])
        assert.deepStrictEqual(yield* drawn(0), [1_600, 3_200, 6_400, 12_800])
        const lasting = (millis: number) => delays(Retry.schedule(), refused(millis), 1).pipe(withRandom(0))
        assert.deepStrictEqual(yield* lasting(600_000), [600_000])
        assert.deepStrictEqual(yield* lasting(600_001), [])
      })
    )

    describe("with a stated backoff", () => {
      const everySecond = Retry.make({ backoff: Schedule.spaced("1 second") })

      it.effect("waits by the backoff, within the attempts of the policy", () =>
        Effect.gen(function* () {
          const { call, starts } = failing(9, overloaded)
          const fiber = yield* Effect.forkChild(Effect.flip(Retry.withPolicy(call, everySecond)))
          yield* TestClock.adjust("1 minute")
          assert.strictEqual((yield* Fiber.join(fiber)).stoppedBy, "attempts")
          assert.deepStrictEqual(starts, [0, 1_000, 2_000, 3_000, 4_000])
        })
      )

      it.effect("waits by the error, if the schedule reads it", () =>
        Effect.gen(function* () {
          const slower = Schedule.spaced("1 second").pipe(
            Schedule.setInputType<LlmError>(),
            Schedule.modifyDelay(({ duration, input }) =>
              Effect.succeed(input.reason._tag === "Overloaded" ? Duration.times(duration, 10) : duration)
            )
          )
          const limited = new LlmError({ reason: new RateLimited({ status: 429 }) })
          const errors = [limited, overloaded, limited]
          const starts: Array<number> = []
          const call = Effect.gen(function* () {
            starts.push(yield* Clock.currentTimeMillis)
            const error = errors.shift()
            if (error !== undefined) yield* Effect.fail(error)
          })
          const fiber = yield* Effect.forkChild(Retry.withPolicy(call, Retry.make({ backoff: slower })))
          for (const [millis, attempts] of [
            [999, 1],
            [1_000, 2],
            [10_999, 2],
            [11_000, 3],
            [11_999, 3],
            [12_000, 4]
          ] as const) {
            yield* TestClock.setTime(millis)
            assert.strictEqual(starts.length, attempts, `at ${millis}`)
          }
          yield* Fiber.join(fiber)
        })
      )

      it.effect("does not retry an error that is not retryable", () =>
        Effect.gen(function* () {
          const error = new Refused({ isRetryable: false })
          const { call, starts } = failing(9, error)
          assert.strictEqual(yield* Effect.flip(Retry.withPolicy(call, everySecond)), error)
          assert.strictEqual(starts.length, 1)
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

      it.effect("ends at maxElapsed and at the deadline", () =>
        Effect.gen(function* () {
          const { call } = failing(9, overloaded)
          const short = Retry.make({ backoff: Schedule.spaced("1 second"), maxElapsed: 999 })
          assert.strictEqual((yield* Effect.flip(Retry.withPolicy(call, short))).stoppedBy, "deadline")
          const late = Retry.withPolicy(call, everySecond).pipe(Retry.withDeadline(999))
          assert.strictEqual((yield* Effect.flip(late)).stoppedBy, "deadline")
        })
      )

      it.effect("ends when the schedule ends, and reports that as the reason", () =>
        Effect.gen(function* () {
          const { call, starts } = failing(9, overloaded)
          const error = yield* Effect.flip(Retry.withPolicy(call, Retry.make({ backoff: Schedule.recurs(2) })))
          assert.strictEqual(error.stoppedBy, "schedule")
          assert.include(error.message, "the retry schedule has ended")
          assert.strictEqual(starts.length, 3)
          const never = Retry.make({ backoff: Schedule.recurs(0) })
          const notFound = new LlmError({ reason: new InvalidRequest({ status: 404 }) })
          assert.isUndefined((yield* Effect.flip(Retry.withPolicy(Effect.fail(notFound), never))).stoppedBy)
        })
      )

      it.effect("fails with the defect of a schedule", () =>
        Effect.gen(function* () {
          const bug = Schedule.modifyDelay(Schedule.forever, () => Effect.die("bug"))
          const exit = yield* Effect.exit(Retry.withPolicy(Effect.fail(overloaded), Retry.make({ backoff: bug })))
          assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        })
      )

      it.effect("is not a policy itself", () =>
        Effect.gen(function* () {
          for (const policy of [Schedule.spaced("1 second"), { attempts: 1 }]) {
            const exit = yield* Effect.exit(
              Retry.withPolicy(Effect.fail(refused()), policy as unknown as Retry.Policy<Refused>)
            )
            assert.include(String(exit), "Retry.withPolicy: expected a policy, as Retry.make gives it")
          }
        })
      )
    })

    it.effect("makes a schedule that combinators of Schedule change into another policy", () =>
      Effect.gen(function* () {
        const seen: Array<boolean> = []
        const policy = Retry.make<Refused>({ jitter: "none", maxElapsed: "1 hour" }).pipe(
          Schedule.modifyDelay(({ duration, input: { error } }) =>
            Effect.succeed(error.retryAfter === undefined ? Duration.times(duration, 3) : duration)
          ),
          Schedule.tap(({ input: { isOwn } }) => Effect.sync(() => seen.push(isOwn))),
          Schedule.upTo({ times: 3 })
        )
        const { call, starts } = recorded(9)
        const fiber = yield* Effect.forkChild(Effect.flip(Retry.withPolicy(call, policy)))
        yield* TestClock.adjust("5 minutes")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(starts, [0, 6_000, 18_000, 42_000])
        assert.isTrue(seen.every((isOwn) => isOwn))
      })
    )

    it.effect(
      "reports the end of a schedule that was made from the policy, but gives no reason after an error that is not retryable",
      () =>
        Effect.gen(function* () {
          const twice = Schedule.upTo(Retry.make<LlmError>({ jitter: "none" }), { times: 1 })
          const stopped = (error: LlmError) =>
            Effect.map(Effect.flip(Retry.withPolicy(Effect.fail(error), twice)), (error) => error.stoppedBy)
          const fiber = yield* Effect.forkChild(stopped(overloaded))
          yield* TestClock.adjust("1 minute")
          assert.strictEqual(yield* Fiber.join(fiber), "schedule")
          assert.isUndefined(yield* stopped(new LlmError({ reason: new InvalidRequest({ status: 404 }) })))
        })
    )

    describe("with `while`", () => {
      it.effect("retries the errors that it accepts, of any type", () =>
        Effect.gen(function* () {
          const policy = Retry.make({ jitter: "none", while: (error: "busy" | "broken") => error === "busy" })
          const busy = failing<"busy" | "broken">(1, "busy")
          const fiber = yield* Effect.forkChild(Retry.withPolicy(busy.call, policy))
          yield* TestClock.adjust("1999 millis")
          assert.strictEqual(busy.starts.length, 1)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(yield* Fiber.join(fiber), "done")
          const broken = failing<"busy" | "broken">(1, "broken")
          assert.strictEqual(yield* Effect.flip(Retry.withPolicy(broken.call, policy)), "broken")
          assert.strictEqual(broken.starts.length, 1)
        })
      )

      it.effect("takes precedence over isRetryable", () =>
        Effect.gen(function* () {
          const notFound = new LlmError({ reason: new InvalidRequest({ status: 404 }) })
          const always = Retry.make({ jitter: "none", while: (_: LlmError) => true })
          const { call, starts } = failing(1, notFound)
          const fiber = yield* Effect.forkChild(Retry.withPolicy(call, always))
          yield* TestClock.adjust("2 seconds")
          yield* Fiber.join(fiber)
          const never = Retry.make({ while: (_: LlmError) => false })
          assert.strictEqual(yield* Effect.flip(Retry.withPolicy(Effect.fail(overloaded), never)), overloaded)
          assert.deepStrictEqual(starts, [0, 2_000])
        })
      )
    })
  })

  describe("errors of other libraries", () => {
    it.effect("accepts AiError of effect/ai as it is", () =>
      Effect.gen(function* () {
        const limited = AiError.make({
          module: "LanguageModel",
          method: "generateText",
          reason: new AiError.RateLimitError({ retryAfter: Duration.seconds(16) })
        })
        const retries = (error: Retry.Retryable) =>
          Effect.map(delays(Retry.schedule(), error, 1), ({ length }) => length)
        assert.strictEqual(yield* retries(limited), 1)
        const exhausted = AiError.make({
          module: "LanguageModel",
          method: "generateText",
          reason: new AiError.QuotaExhaustedError({})
        })
        assert.strictEqual(yield* retries(exhausted), 0)
      })
    )

    it.effect("waits for the retry-after of an AiError", () =>
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
    it.effect("makes each attempt at the millisecond of the schedule", () =>
      Effect.gen(function* () {
        const { call, starts } = recorded(2)
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
      })
    )

    it.effect("starts the policy anew for each run of the same effect", () =>
      Effect.gen(function* () {
        const { call, starts } = recorded(99)
        const twice = Effect.replicateEffect(Effect.exit(Retry.withPolicy(call, plain)), 2)
        const fiber = yield* Effect.forkChild(twice)
        yield* TestClock.adjust("10 minutes")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(
          starts,
          [0, 2, 6, 14, 30, 30, 32, 36, 44, 60].map((seconds) => seconds * 1_000)
        )
      })
    )

    it.effect("fails with the last error after the last attempt, and reports that as the reason", () =>
      Effect.gen(function* () {
        const { call, starts } = failing(9, overloaded)
        const fiber = yield* Effect.forkChild(Effect.flip(Retry.withPolicy(call, plain)))
        yield* TestClock.adjust("30 seconds")
        const error = yield* Fiber.join(fiber)
        assert.deepStrictEqual([error.reason, error.stoppedBy], [overloaded.reason, "attempts"])
        assert.deepStrictEqual(starts, [0, 2_000, 6_000, 14_000, 30_000])
      })
    )

    it.effect("does not change an unknown error", () =>
      Effect.gen(function* () {
        const error = refused("5 hours")
        assert.strictEqual(yield* Effect.flip(Retry.withPolicy(Effect.fail(error), plain)), error)
      })
    )

    it.effect("retries neither defects nor interruptions", () =>
      Effect.gen(function* () {
        let runs = 0
        const once = <E extends Retry.Retryable>(effect: Effect.Effect<never, E>) =>
          Effect.exit(
            Retry.withPolicy(
              Effect.andThen(
                Effect.sync(() => runs++),
                effect
              ),
              Retry.make()
            )
          )
        const defect = yield* once(Effect.die(refused()))
        assert.isTrue(Exit.isFailure(defect) && Cause.hasDies(defect.cause))
        assert.isTrue(Exit.hasInterrupts(yield* once(Effect.interrupt)))
        assert.strictEqual(runs, 2)
      })
    )

    it.effect("fails at once if retry-after is longer than the time that is left", () =>
      Effect.gen(function* () {
        const limited = new LlmError({ reason: new RateLimited({ status: 429, retryAfter: Duration.hours(5) }) })
        const { call, starts } = failing(9, limited)
        const error = yield* Effect.flip(Retry.withPolicy(call, Retry.make()))
        assert.deepStrictEqual([error.stoppedBy, error.retryAfter], ["deadline", Duration.hours(5)])
        assert.deepStrictEqual(starts, [0])
      })
    )

    it.effect("fails at once if retry-after is infinite", () =>
      Effect.gen(function* () {
        const { call, starts } = recorded(9, Duration.infinity)
        yield* Effect.flip(Retry.withPolicy(call, Retry.make({ maxElapsed: Duration.infinity })))
        assert.deepStrictEqual(starts, [0])
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

    it.effect("reports each retry before its wait, with the delay of the retry budget", () =>
      Effect.gen(function* () {
        const seen: Array<unknown> = []
        const { call, starts } = recorded(9)
        const retried = Retry.withPolicy(call, Retry.make({ jitter: "none", attempts: 4 }), {
          onRetry: ({ attempt, delayed, error, wait }) =>
            Effect.map(Clock.currentTimeMillis, (now) =>
              seen.push([now, error._tag, attempt, Duration.toMillis(wait), Duration.toMillis(delayed)])
            )
        })
        const fiber = yield* Effect.forkChild(Effect.exit(retried))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(seen, [
          [0, "Refused", 1, 2_000, 0],
          [2_000, "Refused", 2, 8_000, 4_000],
          [10_000, "Refused", 3, 10_000, 2_000]
        ])
        assert.deepStrictEqual(starts, [0, 2_000, 10_000, 20_000])
      }).pipe(Effect.provide(Retry.layerBudget({ ratio: 0, minPerSecond: 0.1 })))
    )

    it.effect("ends with the defect of onRetry, and takes no retry from the budget", () =>
      Effect.gen(function* () {
        const onRetry = () => Effect.die("no disk left")
        const exit = yield* Effect.exit(Retry.withPolicy(recorded(1).call, plain, { onRetry }))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        assert.strictEqual(yield* retryBalance, 20)
      }).pipe(Effect.provide(Retry.layerBudget({ ratio: 0 })))
    )

    it.effect("spreads calls that failed together", () =>
      Effect.gen(function* () {
        const calls = Array.from({ length: 8 }, () => recorded(1, "10 seconds"))
        yield* Effect.forkChild(
          Effect.all(
            calls.map(({ call }) => Retry.withPolicy(call, Retry.make())),
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

    it.effect("makes an attempt at the deadline and none after it", () =>
      Effect.gen(function* () {
        const run = (after: Duration.Input) =>
          Effect.gen(function* () {
            const { call, starts } = failing(9, overloaded)
            const began = yield* Clock.currentTimeMillis
            const fiber = yield* call.pipe(
              Retry.withPolicy(second),
              Retry.withDeadline(after),
              Effect.flip,
              Effect.forkChild
            )
            yield* TestClock.adjust("10 seconds")
            return [starts.map((start) => start - began), (yield* Fiber.join(fiber)).stoppedBy]
          })
        assert.deepStrictEqual(yield* run(2_000), [[0, 1_000, 2_000], "deadline"])
        assert.deepStrictEqual(yield* run(1_999), [[0, 1_000], "deadline"])
      })
    )

    it.effect("makes no attempt after it if the wait ends late", () =>
      Effect.gen(function* () {
        const clock = yield* Clock.Clock
        const asleep: Clock.Clock = Object.assign(Object.create(clock), {
          sleep: (duration: Duration.Duration) => clock.sleep(Duration.sum(duration, Duration.hours(1)))
        })
        const { call, starts } = failing(9, overloaded)
        const fiber = yield* call.pipe(
          Retry.withPolicy(Retry.make({ base: "1 second", jitter: "none", attempts: 2 })),
          Retry.withDeadline("5 seconds"),
          Effect.provideService(Clock.Clock, asleep),
          Effect.flip,
          Effect.forkChild
        )
        yield* TestClock.adjust("2 hours")
        assert.strictEqual((yield* Fiber.join(fiber)).stoppedBy, "deadline")
        assert.deepStrictEqual(starts, [0])
      })
    )

    it.effect("applies the earliest of nested deadlines", () =>
      Effect.gen(function* () {
        const inner = Retry.withDeadline(Effect.map(Deadline, identity), "10 seconds")
        assert.strictEqual(yield* inner, 10_000)
        assert.strictEqual(yield* Retry.withDeadline(inner, "5 seconds"), 5_000)
        assert.strictEqual(yield* Retry.withDeadline(inner, "20 seconds"), 10_000)
      })
    )
  })

  describe("RetryBudget", () => {
    /** Allows a retry every ten seconds, and one at once. */
    const sparse = { ratio: 0, minPerSecond: 0.1 }
    const balance = retryBalance
    /** A call that makes a number of retries at once. */
    const taking = (retries: number) => {
      const atOnce = Retry.make({ backoff: Schedule.forever, attempts: retries + 1 })
      return Effect.andThen(Effect.forkChild(Retry.withPolicy(recorded(retries).call, atOnce)), TestClock.adjust(0))
    }

    it.effect("delays retries when it is spent, and fails none", () =>
      Effect.gen(function* () {
        const { call, starts } = recorded(4)
        const fiber = yield* Effect.forkChild(Retry.withPolicy(call, immediate))
        yield* TestClock.adjust("9999 millis")
        assert.deepStrictEqual(starts, [0, 1])
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(starts, [0, 1, 10_000])
        yield* TestClock.adjust("9999 millis")
        assert.strictEqual(starts.length, 3)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(starts.length, 4)
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* Fiber.join(fiber), "done")
      }).pipe(Effect.provide(Retry.layerBudget(sparse)))
    )

    it.effect("allows as many retries at once as calls are in flight, and delays further ones", () =>
      Effect.gen(function* () {
        const calls = Array.from({ length: 30 }, () => recorded(2))
        const fiber = yield* Effect.forkChild(
          Effect.forEach(calls, ({ call }) => Retry.withPolicy(call, immediate), { concurrency: "unbounded" })
        )
        yield* TestClock.adjust("1 millis")
        const made = () => calls.reduce((sum, { starts }) => sum + starts.length, 0)
        assert.strictEqual(made(), 60)
        // Thirty calls allow three retries a second.
        yield* TestClock.adjust("333 millis")
        assert.strictEqual(made(), 61)
        yield* TestClock.adjust("9 seconds")
        yield* TestClock.adjust("666 millis")
        assert.strictEqual(made(), 90)
        yield* Fiber.join(fiber)
      }).pipe(Effect.provide(Retry.layerBudget(sparse)))
    )

    it.effect("gains a fifth of a retry with each call", () =>
      Effect.gen(function* () {
        yield* taking(19)
        // The call itself has gained a fifth.
        assert.closeTo(yield* balance, 1.2, 1e-9)
        yield* Effect.replicateEffect(Retry.withPolicy(Effect.void, plain), 5)
        assert.closeTo(yield* balance, 2.2, 1e-9)
      }).pipe(Effect.provide(Retry.layerBudget()))
    )

    it.effect("gets back a retry that was interrupted in its wait", () =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Retry.withPolicy(recorded(9, "1 minute").call, plain))
        yield* Effect.yieldNow
        assert.strictEqual(yield* balance, 19)
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(yield* balance, 20)
      }).pipe(Effect.provide(Retry.layerBudget({ ratio: 0 })))
    )

    it.effect("gets back a retry that is interrupted at any step", () =>
      Effect.gen(function* () {
        for (let step = 1; step <= 60; step++) {
          yield* interruptAt(Retry.withPolicy(recorded(9, "1 minute").call, plain), step)
          assert.strictEqual(yield* balance, 20, `step ${step}`)
        }
      }).pipe(Effect.provide(Retry.layerBudget({ ratio: 0 })))
    )

    it.effect("delays no retry beyond the deadline, and gets that retry back", () =>
      Effect.gen(function* () {
        yield* taking(1)
        const run = (after: Duration.Input) =>
          Effect.exit(Retry.withPolicy(failing(1, overloaded).call, immediate)).pipe(
            Retry.withDeadline(after),
            Effect.forkChild
          )
        const late = yield* run("9999 millis")
        yield* Effect.yieldNow
        const exit = late.pollUnsafe()
        assert.isTrue(exit !== undefined && Exit.isSuccess(exit) && Exit.isFailure(exit.value))
        assert.strictEqual(yield* balance, 0)
        const inTime = yield* run("10 seconds")
        yield* TestClock.adjust("10 seconds")
        assert.isTrue(Exit.isSuccess(yield* Fiber.join(inTime)))
      }).pipe(Effect.provide(Retry.layerBudget(sparse)))
    )

    it.effect("is not charged for errors that are not retried", () =>
      Effect.gen(function* () {
        yield* Effect.flip(Retry.withPolicy(Effect.fail(new Refused({ isRetryable: false })), plain))
        yield* Effect.flip(Retry.withPolicy(Effect.fail(refused("5 hours")), plain))
        yield* Effect.flip(Retry.withPolicy(Effect.fail(refused()), Retry.make({ attempts: 1 })))
        assert.strictEqual(yield* balance, 20)
      }).pipe(Effect.provide(Retry.layerBudget({ ratio: 0 })))
    )

    it.effect("makes five attempts of every call at once when unlimited", () =>
      Effect.gen(function* () {
        const calls = Array.from({ length: 1_000 }, () => recorded(9))
        const all = Effect.forEach(calls, ({ call }) => Effect.flip(Retry.withPolicy(call, immediate)), {
          concurrency: "unbounded"
        })
        const fiber = yield* Effect.forkChild(all)
        yield* TestClock.adjust("4 millis")
        yield* Fiber.join(fiber)
        assert.isTrue(calls.every(({ starts }) => starts.length === 5))
        assert.strictEqual(yield* balance, Infinity)
      }).pipe(Effect.provide(Retry.layerBudget({ minPerSecond: Infinity })))
    )

    it.effect("is one for the whole process without a layer, and one per clock", () =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Retry.withPolicy(recorded(1, "1 second").call, plain))
        yield* Effect.yieldNow
        assert.strictEqual(yield* balance, 19)
        assert.strictEqual(yield* Effect.provide(balance, TestClock.layer()), 20)
        yield* Fiber.interrupt(fiber)
      })
    )
  })
})
