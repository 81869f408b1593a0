/** What a user states in a policy is obeyed, whatever the pool concludes. Only the default distinguishes failures. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import { LlmError, type LlmErrorReason, Overloaded, RateLimited } from "floodgate/LlmError"
import * as LlmProvider from "floodgate/LlmProvider"
import * as Retry from "floodgate/Retry"

const params = { model: "claude-sonnet-5", max_tokens: 10, messages: [{ role: "user" as const, content: "Hi" }] }

/** When the attempts of eight calls began, by agent, through a client whose provider always fails. */
const client = (reason: LlmErrorReason, retry: Retry.Policy<LlmError>) =>
  Effect.gen(function* () {
    const starts = new Map<string, Array<number>>()
    const attempt = Effect.gen(function* () {
      const agent = yield* Budget.Agent
      starts.set(agent, [...(starts.get(agent) ?? []), yield* Clock.currentTimeMillis])
      // Other calls begin meanwhile.
      yield* Effect.sleep("100 millis")
      return yield* Effect.fail(new LlmError({ reason }))
    })
    const provider = LlmProvider.make({
      name: "down",
      create: () => attempt,
      stream: () => Effect.succeed({ value: Stream.empty, signal: undefined, requestId: undefined }),
      countTokens: () => attempt
    })
    const live = LlmClient.layerProvider({ retry }).pipe(
      Layer.provide(Budget.layer({ limits: { requests: { perMinute: 60_000 } } })),
      Layer.provide(Layer.succeed(LlmProvider.LlmProvider, provider))
    )
    const calls = Array.from({ length: 8 }, (_, n) => Effect.flip(LlmClient.create(params, { agent: `agent-${n}` })))
    const fiber = yield* Effect.forkChild(Effect.provide(Effect.all(calls, { concurrency: "unbounded" }), live))
    yield* TestClock.adjust("20 hours")
    assert.isDefined(fiber.pollUnsafe(), "all calls have ended")
    return { errors: yield* Fiber.join(fiber), starts: [...starts.values()] }
  })

const hour = 3_600_000

const failures = {
  "529": new Overloaded({ status: 529 }),
  "429": new RateLimited({ status: 429 }),
  "429 of an empty bucket": new RateLimited({
    status: 429,
    signal: { dimensions: { requests: { limit: 60_000, remaining: 0 } } }
  })
}

describe("what a policy states", () => {
  // Regression: 28 attempts in four minutes after a permanent 529, and 35 after a permanent 429.
  for (const [what, reason] of Object.entries(failures)) {
    it.effect(`makes three attempts an hour apart after a permanent ${what}, if stated`, () =>
      Effect.gen(function* () {
        const policy = Retry.make({ backoff: Schedule.spaced("1 hour"), attempts: 3 })
        const { errors, starts } = yield* client(reason, policy)
        assert.strictEqual(starts.length, 8)
        for (const times of starts) {
          assert.strictEqual(times.length, 3)
          for (const [n, time] of times.slice(1).entries()) assert.isAtLeast(time - times[n]!, hour)
        }
        for (const error of errors) {
          assert.instanceOf(error, LlmError)
          assert.deepStrictEqual([error.attempts, error.stoppedBy], [3, "attempts"])
        }
      })
    )

    it.effect(`ends the call when its backoff ends, after a permanent ${what}`, () =>
      Effect.gen(function* () {
        const policy = Retry.make({ backoff: Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 2 })) })
        const { errors, starts } = yield* client(reason, policy)
        for (const times of starts) assert.strictEqual(times.length, 3)
        for (const error of errors) assert.strictEqual((error as LlmError).stoppedBy, "schedule")
      })
    )

    it.effect(`limits all requests by its attempts, after a permanent ${what}`, () =>
      Effect.gen(function* () {
        const { starts } = yield* client(reason, Retry.make({ attempts: 2 }))
        for (const times of starts) assert.strictEqual(times.length, 2)
      })
    )

    it.effect(`ends after ten minutes if only an endless backoff is stated, after a permanent ${what}`, () =>
      Effect.gen(function* () {
        const { starts } = yield* client(reason, Retry.make({ backoff: Schedule.forever }))
        for (const times of starts) assert.isAtMost(times.at(-1)! - times[0]!, 600_100)
      })
    )
  }

  it.effect("waits by the same backoff, whether the failure is the call's own or the pool's", () =>
    Effect.gen(function* () {
      const steps: Array<string> = []
      const backoff = Schedule.spaced("3 seconds").pipe(
        Schedule.setInputType<LlmError>(),
        Schedule.tap(({ attempt, input }) => Effect.sync(() => steps.push(`${attempt} ${input.reason._tag}`)))
      )
      const reasons = [failures["429 of an empty bucket"], failures["429"], failures["429 of an empty bucket"]]
      const attempt = Effect.suspend(() => {
        const reason = reasons.shift()
        return reason === undefined ? Effect.succeed({ value: "done" }) : Effect.fail(new LlmError({ reason }))
      })
      const live = Governor.layer({ retry: Retry.make({ backoff }) }).pipe(Layer.provide(Budget.layer()))
      const call = Effect.flatMap(Governor.Governor, (governor) =>
        governor.run({ model: "m", bytes: 10 }, () => attempt)
      )
      const fiber = yield* Effect.forkChild(Effect.provide(call, live))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* Fiber.join(fiber), "done")
      assert.deepStrictEqual(steps, ["1 RateLimited", "2 RateLimited", "3 RateLimited"])
    })
  )

  it.effect("starts its backoff once for each call", () =>
    Effect.gen(function* () {
      let started = 0
      const backoff = Schedule.fromStep(
        Effect.map(
          Effect.tap(Schedule.toStep(Schedule.spaced("1 second")), () => Effect.sync(() => started++)),
          (step) => (now: number, _: LlmError) => step(now, undefined)
        )
      )
      yield* client(failures["429 of an empty bucket"], Retry.make({ backoff, attempts: 3 }))
      assert.strictEqual(started, 8)
    })
  )

  it.effect("adds the waits of its backoff to the ten minutes, and nothing else", () =>
    Effect.gen(function* () {
      const hourly = Retry.make({ backoff: Schedule.spaced("1 hour") })
      const starts: Array<number> = []
      const call = (retryAfter?: Duration.Duration) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          starts.push(now)
          return Effect.fail(new LlmError({ reason: new RateLimited({ status: 429, retryAfter }) }))
        })
      const fiber = yield* Effect.forkChild(Effect.flip(Retry.withPolicy(call(), hourly)))
      yield* TestClock.adjust("5 hours")
      assert.strictEqual((yield* Fiber.join(fiber)).stoppedBy, "attempts")
      assert.deepStrictEqual(starts, [0, hour, 2 * hour, 3 * hour, 4 * hour])
      const asked = yield* Effect.flip(Retry.withPolicy(call(Duration.hours(5)), hourly))
      assert.strictEqual(asked.stoppedBy, "deadline")
    })
  )
})
