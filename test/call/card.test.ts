/**
 * The default policy is built from `Schedule.exponential` and `Schedule.jittered`. Each of these tests fails if the one that it
 * names does nothing (`jittered` returns its input, `exponential` is constant).
 */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { InvalidRequest, LlmError, RateLimited } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"

/** A failure that counts as the call's own, also in a client. */
const broken = new LlmError({ reason: new InvalidRequest({ status: 409 }) })
const empty = new LlmError({
  reason: new RateLimited({ status: 429, signal: { dimensions: { requests: { limit: 60_000, remaining: 0 } } } })
})

/** Seconds between the attempts of a call that always fails, with a fixed random number. */
const gaps = <E, R>(call: (attempt: Effect.Effect<never, LlmError>) => Effect.Effect<unknown, E, R>, error: LlmError) =>
  Effect.fnUntraced(function* (random: number) {
    const starts: Array<number> = []
    const attempt = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      starts.push(now)
      return Effect.fail(error)
    })
    const chance = { nextDoubleUnsafe: () => random, nextIntUnsafe: () => 0 }
    const fiber = yield* Effect.forkChild(Effect.exit(Effect.provideService(call(attempt), Random.Random, chance)))
    yield* TestClock.adjust("11 minutes")
    yield* Fiber.join(fiber)
    return starts.slice(1).map((start, n) => (start - starts[n]!) / 1_000)
  })

const plain = (attempt: Effect.Effect<never, LlmError>) => Retry.withPolicy(attempt, Retry.make())
const governed = (attempt: Effect.Effect<never, LlmError>) =>
  Effect.flatMap(Governor.Governor, (governor) => governor.run({ model: "m", bytes: 10 }, () => attempt))
const live = Governor.layer().pipe(Layer.provide(Budget.layer({ limits: { requests: { perMinute: 60_000 } } })))

describe("the card: Schedule", () => {
  it.effect("Schedule.exponential doubles the waits of the default policy, from 2 s", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* gaps(plain, broken)(0.5), [2, 4, 8, 16])
    })
  )

  it.effect("Schedule.exponential doubles the waits of a governed call", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* gaps(governed, broken)(0.5), [2, 4, 8, 16])
    }).pipe(Effect.provide(live))
  )

  it.effect("Schedule.exponential doubles the waits after rate limits, up to 60 s", () =>
    Effect.gen(function* () {
      const waits = yield* gaps(governed, empty)(0.5)
      assert.isAtLeast(waits.length, 8)
      for (const [n, wait] of waits.entries()) assert.isAtLeast(wait, Math.min(60, 2 * 2 ** n))
    }).pipe(Effect.provide(live))
  )

  it.effect("Schedule.jittered spreads the waits of the default policy by a fifth down and up", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* gaps(plain, broken)(0), [1.6, 3.2, 6.4, 12.8])
      const longest = yield* gaps(plain, broken)(1)
      for (const [n, wait] of longest.entries()) assert.closeTo(wait, 2.4 * 2 ** n, 0.002)
    })
  )

  it.effect("Schedule.jittered spreads the waits of a governed call by a fifth down and up", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* gaps(governed, broken)(0), [1.6, 3.2, 6.4, 12.8])
    }).pipe(Effect.provide(live))
  )

  it.effect("Schedule.jittered lets no two of many calls that failed together return together", () =>
    Effect.gen(function* () {
      const starts: Array<number> = []
      const call = Effect.suspend(() => {
        let attempts = 0
        const attempt = Effect.flatMap(Clock.currentTimeMillis, (now) => {
          if (attempts++ > 0) starts.push(now)
          return attempts > 1 ? Effect.void : Effect.fail(broken)
        })
        return Retry.withPolicy(attempt, Retry.make())
      })
      const fiber = yield* Effect.forkChild(
        Effect.replicateEffect(call, 10, { concurrency: "unbounded" }).pipe(Random.withSeed("card"))
      )
      yield* TestClock.adjust(Duration.seconds(3))
      yield* Fiber.join(fiber)
      assert.strictEqual(new Set(starts).size, 10)
    })
  )
})
