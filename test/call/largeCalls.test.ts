/**
 * Law 16: what may fit is tried. A call is refused at once only for what it is certainly charged. Any other is sent when the bucket is
 * full, and a large call waits at most three fills of its bucket once it is the turn of its agent.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { TestClock } from "effect/testing"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmError from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import type { Limits, Signal } from "floodgate/Limits"

const perMinute = 60_000

interface Setting extends Governor.Options {
  readonly limits?: Limits | undefined
}

const layerOf = ({ limits = { inputTokens: { perMinute, window: "bucket" } }, ...options }: Setting = {}) =>
  Governor.layer(options).pipe(Layer.provideMerge(Budget.layer({ limits })))

/** A call whose whole prompt is known. Whether a part of it is cached is not. */
const known = (inputTokens: number): Governor.Call => ({ model: "m", bytes: 4 * inputTokens, inputTokens })

const uncached = (inputTokens: number) => ({ inputTokens, outputTokens: 0 })

const rejection = (signal?: Signal) =>
  Effect.fail(new LlmError.LlmError({ reason: new LlmError.RateLimited({ status: 429, signal }) }))

const headers = (remaining: number): Signal => ({
  dimensions: { inputTokens: { limit: perMinute, remaining } }
})

const run = <E>(call: Governor.Call, attempt: Effect.Effect<Governor.Outcome<string>, E>) =>
  Effect.flatMap(Governor.Governor, (governor) => governor.run(call, () => attempt, { agent: "large" }))

/** The reason of a refusal by the budget. */
const refusedFor = (exit: Exit.Exit<unknown, unknown>) => {
  const error = Exit.isFailure(exit) ? exit.cause.reasons.find((reason) => reason._tag === "Fail")?.error : undefined
  return error instanceof Budget.BudgetError ? error : assert.fail(`expected a refusal, got ${exit}`)
}

/** The exit of an effect that may take minutes. */
const ended = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(Effect.exit(effect))
    yield* TestClock.adjust("5 minutes")
    return yield* Fiber.join(fiber)
  })

describe("law 16, what may fit is tried", () => {
  it.effect(
    "a call that is estimated above its bucket is sent when that is full, and what it used beyond is paid first",
    () =>
      Effect.gen(function* () {
        const sent: Array<readonly [string, number]> = []
        const send = (name: string, used: number) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            sent.push([name, Math.round(now / 1_000)])
            return Effect.succeed({ value: name, actual: uncached(used) })
          })
        yield* run(known(15_000), send("small", 15_000))
        const large = yield* Effect.forkChild(run(known(10 * perMinute), send("large", 1.5 * perMinute)))
        yield* TestClock.adjust("14999 millis")
        assert.strictEqual(sent.length, 1)
        yield* TestClock.adjust("1 millis")
        yield* Fiber.join(large)
        // It left a debt of half a minute.
        const next = yield* Effect.forkChild(run(known(1_000), send("next", 1_000)))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(next)
        assert.deepStrictEqual(sent, [
          ["small", 0],
          ["large", 15],
          ["next", 46]
        ])
      }).pipe(Effect.provide(layerOf()))
  )

  for (const [name, accounting, caches, isRefused] of [
    ["a cached prompt is free, and it asks for caching", Accounting.anthropic, true, false],
    ["a cached prompt is free, and nobody knows whether it asks for caching", Accounting.anthropic, undefined, false],
    ["a cached prompt is free, but it asks for no caching", Accounting.anthropic, false, true],
    ["all of a prompt counts (OpenAI)", Accounting.openai, undefined, true],
    ["all of a prompt counts (Gemini)", Accounting.gemini, undefined, true],
    ["all of a prompt is reserved (Bedrock)", Accounting.bedrockRuntime({ burndown: 5 }), true, true]
  ] as const) {
    it.effect(`a counted prompt above the limit is ${isRefused ? "refused" : "sent"} where ${name}`, () =>
      Effect.gen(function* () {
        const limits = {
          tokens: { perMinute, window: "bucket" },
          inputTokens: { perMinute, window: "bucket" }
        } as const
        const call = { ...known(perMinute + 1), caches }
        const sent = run(call, Effect.succeed({ value: "", actual: uncached(1) }))
        const exit = yield* Effect.provide(ended(sent), layerOf({ limits, accounting }))
        if (isRefused) assert.strictEqual(refusedFor(exit).reason._tag, "EstimateTooLarge")
        else assert.isTrue(Exit.isSuccess(exit))
      })
    )
  }

  for (const told of ["limits", "nothing"] as const) {
    for (const shown of [undefined, perMinute]) {
      // Nothing says how large a bucket is that neither limits nor headers describe.
      if (told === "nothing" && shown === undefined) continue
      const name = `told ${told}, ${shown === undefined ? "without" : "with"} headers`
      it.effect(`a call that a full bucket rejects twice is refused, and then those as large: ${name}`, () =>
        Effect.gen(function* () {
          let sent = 0
          let rejectedAt = 0
          const reject = Effect.flatMap(Clock.currentTimeMillis, (now) => {
            sent++
            rejectedAt = now
            return rejection(shown === undefined ? undefined : headers(shown))
          })
          const accept = Effect.succeed({ value: "", actual: uncached(10), signal: shown && headers(shown - 10) })
          yield* run(known(10), accept as Effect.Effect<Governor.Outcome<string>>)
          yield* TestClock.adjust("1 hour")
          let refusedAt = 0
          const refused = Effect.onExit(run(known(2 * perMinute), reject), () =>
            Effect.map(Clock.currentTimeMillis, (now) => void (refusedAt = now))
          )
          const error = refusedFor(yield* ended(refused))
          assert.strictEqual(refusedAt, rejectedAt)
          const { failure, reason } = error
          if (reason._tag !== "RejectedAsTooLarge") return assert.fail(reason._tag)
          const { asked, burst, dimension } = reason
          assert.deepStrictEqual([sent, dimension, asked, burst], [2, "inputTokens", 2 * perMinute, perMinute])
          assert.isFalse(error.isRetryable)
          assert.instanceOf(failure, LlmError.LlmError)
          assert.include(error.message, "split the call")
          // Within ten minutes of the last rejection nothing as large is sent; what is smaller is.
          for (const [factor, isRefused] of [
            [2, true],
            [3, true],
            [1.99, false]
          ] as const) {
            const exit = yield* Effect.exit(
              run(known(factor * perMinute), accept as Effect.Effect<Governor.Outcome<string>>)
            )
            assert.strictEqual(Exit.isFailure(exit), isRefused, `${factor}`)
            if (isRefused) assert.strictEqual(refusedFor(exit).reason._tag, "RejectedAsTooLarge")
          }
          assert.strictEqual(sent, 2)
        }).pipe(Effect.provide(layerOf(told === "limits" ? {} : { limits: {} })))
      )
    }
  }
})

describe("a call that is larger than what was rejected", () => {
  it.effect("is tried again as soon as the bucket has grown by more than a hundredth", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const limit = 99_000
      const isSent = Effect.map(
        ended(run(known(2 * limit), Effect.succeed({ value: "", actual: uncached(10) }))),
        Exit.isSuccess
      )
      assert.strictEqual(refusedFor(yield* ended(run(known(2 * limit), rejection()))).reason._tag, "RejectedAsTooLarge")
      const grown = (to: number) => budget.resize({ limits: { inputTokens: { perMinute: to, window: "bucket" } } })
      yield* grown(100_000)
      assert.isFalse(yield* isSent)
      yield* grown(100_100)
      assert.isTrue(yield* isSent)
    }).pipe(Effect.provide(layerOf({ limits: { inputTokens: { perMinute: 99_000, window: "bucket" } } })))
  )
})

describe("a quota", () => {
  it.effect("never refills, so a prompt that may exceed it is refused although it may be cached", () =>
    Effect.gen(function* () {
      const send = Effect.succeed({ value: "", actual: uncached(1) })
      assert.strictEqual(refusedFor(yield* Effect.exit(run(known(1_001), send))).reason._tag, "EstimateTooLarge")
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(run(known(1_000), send))))
    }).pipe(Effect.provide(layerOf({ limits: { inputTokens: { total: 1_000 } } })))
  )
})

describe("a call that was rejected once", () => {
  /** Rejected once, then accepted. */
  const rejectedOnce = () => {
    let sent = 0
    return Effect.suspend(() => (++sent === 1 ? rejection() : Effect.succeed({ value: "accepted" })))
  }

  /** A call that takes the whole bucket, and goes before the others. */
  const ahead = Effect.flatMap(Governor.Governor, (governor) =>
    governor.run(known(perMinute), () => Effect.succeed({ value: "", actual: uncached(perMinute) }), { priority: 1 })
  )

  const minute = 60_000

  for (const [name, retry, isAccepted] of [
    ["waits for its turn as long as that takes", Retry.make<LlmError.LlmError>(), true],
    ["waits no longer than a stated maxElapsed", Retry.make<LlmError.LlmError>({ maxElapsed: "10 minutes" }), false]
  ] as const) {
    it.effect(name, () =>
      Effect.gen(function* () {
        // Regression: it was refused when others would take more than ten minutes, at once or when these were over.
        const call = yield* Effect.forkChild(Effect.exit(run(known(perMinute), rejectedOnce())))
        yield* TestClock.adjust("1 second")
        const others = yield* Effect.forkChild(
          Effect.forEach(Array.from({ length: 20 }), () => ahead, { concurrency: "unbounded" })
        )
        yield* TestClock.adjust("30 minutes")
        yield* Fiber.join(others)
        assert.strictEqual(Exit.isSuccess(yield* Fiber.join(call)), isAccepted)
      }).pipe(Effect.provide(layerOf({ retry })))
    )
  }

  it.effect("waits no longer than ten minutes for outages, in which its turn does not come", () =>
    Effect.gen(function* () {
      const overloaded = Effect.fail(new LlmError.LlmError({ reason: new LlmError.Overloaded({ status: 529 }) }))
      const call = yield* Effect.forkChild(Effect.flip(run(known(10), overloaded)))
      yield* TestClock.adjust("10 minutes")
      const error = yield* Fiber.join(call)
      assert.instanceOf(error, LlmError.LlmError)
      assert.include(["deadline", "attempts"], error.stoppedBy)
    }).pipe(Effect.provide(layerOf()))
  )

  it.effect("says how long it has waited in all: between attempts and for the turn that did not come", () =>
    Effect.gen(function* () {
      // Regression: "after 2s waited" after nine minutes in the queue.
      const call = yield* Effect.forkChild(
        Effect.flatMap(Effect.flip(run(known(perMinute), rejectedOnce())), (error) =>
          Effect.map(Clock.currentTimeMillis, (now) => [error, now] as const)
        )
      )
      yield* TestClock.adjust("1 second")
      for (let i = 0; i < 20; i++) {
        yield* Effect.forkChild(ahead)
        yield* TestClock.adjust("1 minute")
      }
      const [error, now] = yield* Fiber.join(call)
      assert.instanceOf(error, LlmError.LlmError)
      assert.strictEqual(error.stoppedBy, "deadline")
      assert.isAbove(now, 5 * minute)
      assert.strictEqual(Duration.toMillis(error.waited!), now)
      assert.include(error.message, Duration.format(error.waited!))
    }).pipe(Effect.provide(layerOf({ retry: Retry.make({ maxElapsed: "10 minutes" }) })))
  )
})
