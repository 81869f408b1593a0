import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Events from "floodgate/Events"
import * as Governor from "floodgate/Governor"
import { InvalidRequest, LlmError, Overloaded, RateLimited } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"

type Of<T> = Extract<Events.Event, { readonly type: T }>

const observed = (limits: Budget.Options["limits"], observer?: (event: Events.Event) => void) => {
  const events: Array<Events.Event> = []
  const live = Governor.layer({ retry: Retry.make({ base: "2 seconds", jitter: "none" }) }).pipe(
    Layer.provideMerge(Budget.layer({ limits })),
    Layer.provide(Layer.succeed(Events.Observer, observer ?? ((event) => void events.push(event))))
  )
  return { events, live }
}

const call = { model: "gpt-6", bytes: 2_700, maxTokens: 10 }
const ok = Effect.succeed({ value: "ok", actual: { inputTokens: 1_000, outputTokens: 10 } })

describe("Events", () => {
  it.effect("reports a wait as it begins, with what is waited for and until when", () => {
    const { events, live } = observed({ tokens: { perSecond: 100, burst: 1_000 } })
    return Effect.gen(function* () {
      yield* Budget.consume(1_000)
      assert.deepStrictEqual(events, [])
      const waiting = yield* Effect.forkChild(Budget.consume(500, { agent: "a" }), { startImmediately: true })
      const [event] = events
      assert.strictEqual(event?.type, "wait")
      const { until, ...wait } = event as Of<"wait">
      assert.deepStrictEqual(wait, { type: "wait", at: 0, pool: "default", agent: "a", dimension: "tokens" })
      yield* TestClock.adjust(4_999)
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust(until - 4_999)
      yield* Fiber.join(waiting)
      assert.strictEqual(events.length, 1)
    }).pipe(Effect.provide(live))
  })

  it.effect("reports a rejection with its verdict, and the retry with its time", () => {
    const { events, live } = observed({ requests: { total: 10 } })
    return Effect.gen(function* () {
      const governor = yield* Governor.Governor
      let attempts = 0
      const attempt = Effect.suspend(() =>
        ++attempts === 1
          ? Effect.fail(new LlmError({ reason: new RateLimited({ status: 429, retryAfter: Duration.seconds(7) }) }))
          : ok
      )
      const fiber = yield* Effect.forkChild(
        governor.run(call, () => attempt, { agent: "a" }),
        { startImmediately: true }
      )
      const whose = { at: 0, pool: "default", agent: "a", model: "gpt-6", attempt: 1 }
      const [rejection, retry] = events
      assert.deepStrictEqual(rejection, {
        type: "rejection",
        ...whose,
        verdict: "isolated",
        dimension: undefined,
        until: 7_000
      })
      assert.strictEqual(retry?.type, "retry")
      assert.isAtLeast((retry as Of<"retry">).until, 7_000)
      assert.strictEqual((retry as Of<"retry">).reason, "RateLimited")
      yield* TestClock.adjust((retry as Of<"retry">).until - 1)
      assert.strictEqual(attempts, 1)
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(fiber), "ok")
      assert.strictEqual(events.length, 2)
    }).pipe(Effect.provide(live))
  })

  it.effect("reports a retry that the retry budget delays, and by how much", () => {
    const { events, live } = observed(undefined)
    return Effect.gen(function* () {
      const governor = yield* Governor.Governor
      let attempts = 0
      const attempt = Effect.suspend(() =>
        ++attempts < 3 ? Effect.fail(new LlmError({ reason: new InvalidRequest({ status: 409 }) })) : ok
      )
      const fiber = yield* Effect.forkChild(governor.run(call, () => attempt, { agent: "a" }))
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(yield* Fiber.join(fiber), "ok")
      // A retry every 10 s, and one at once: the second one has to wait for the first to be worked off.
      const retries = events.filter(({ type }) => type === "retry")
      const delayed = events.filter(({ type }) => type === "retryDelayed")
      assert.strictEqual(retries.length, 2)
      const { at } = retries[1]!
      assert.deepStrictEqual(delayed, [
        {
          type: "retryDelayed",
          at,
          pool: "gpt-6",
          agent: "a",
          model: "gpt-6",
          attempt: 2,
          until: 10_000,
          delayed: 10_000 - at - 4_000
        }
      ])
      const text = yield* PrometheusMetrics.format()
      assert.match(text, /floodgate_retries_delayed\{[^}]*\} 1/)
    }).pipe(
      Effect.provide(live),
      Effect.provide(Retry.layerBudget({ ratio: 0, minPerSecond: 0.1 })),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  })

  it.effect("reports a pause and its extension, but not a shorter pause", () => {
    const { events, live } = observed(undefined)
    return Effect.gen(function* () {
      const budget = yield* Budget.TokenBudget
      const pause = (millis: number) => budget.pause({ duration: millis, reason: "rateLimit", pool: "gpt-6" })
      yield* pause(5_000)
      yield* pause(3_000)
      yield* pause(9_000)
      assert.deepStrictEqual(events, [
        { type: "pause", at: 0, pool: "gpt-6", reason: "rateLimit", until: 5_000 },
        { type: "pause", at: 0, pool: "gpt-6", reason: "rateLimit", until: 9_000 }
      ])
    }).pipe(Effect.provide(live))
  })

  it.effect("reports the pause of an outage", () => {
    const { events, live } = observed(undefined)
    return Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const failing = Effect.fail(new LlmError({ reason: new Overloaded({ status: 529 }) }))
      const calls = Array.from({ length: 8 }, () => governor.run(call, () => failing, { maxWait: 0 }))
      yield* Effect.forEach(calls, Effect.exit, { concurrency: "unbounded" }).pipe(
        Effect.forkChild({ startImmediately: true }),
        Effect.andThen(TestClock.adjust("10 minutes"))
      )
      const pause = events.find(({ type }) => type === "pause")
      assert.strictEqual((pause as Of<"pause"> | undefined)?.reason, "overload")
    }).pipe(Effect.provide(live))
  })

  it.effect("does not let an observer that throws break a call", () => {
    const { live } = observed({ tokens: { perSecond: 100, burst: 1_000 } }, () => {
      throw new Error("no disk left")
    })
    return Effect.gen(function* () {
      yield* Budget.consume(1_000)
      const waiting = yield* Effect.forkChild(Budget.consume(500), { startImmediately: true })
      yield* TestClock.adjust("6 seconds")
      yield* Fiber.join(waiting)
    }).pipe(Effect.provide(live))
  })
})
