import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import type * as Tracer from "effect/Tracer"
import * as Budget from "floodgate/Budget"
import type * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import * as LlmError from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import { inspect } from "node:util"
import { recordingTracer } from "../support/spans.ts"
import {
  delta,
  events,
  fail,
  message,
  params,
  type Script,
  scripted,
  start,
  whole,
  blockStart
} from "../support/scriptedProvider.ts"

const limits = {
  inputTokens: { perMinute: 100_000, window: "bucket" as const },
  outputTokens: { perMinute: 50_000, window: "bucket" as const }
}

/** Collects spans and metrics of an effect. */
const collecting = () => {
  // Without the spans of the budget, which has one for each reservation.
  const { spans, tracer } = recordingTracer((span) => /^(chat|agent)/.test(span.name))
  const watch = <A, E, R>(self: Effect.Effect<A, E, R>) =>
    self.pipe(Effect.withTracer(tracer), Effect.provideService(Metric.MetricRegistry, new Map()))
  return { spans, watch }
}

const live = (script: Script, options: Governor.Options & { readonly budget?: Budget.Options } = {}) =>
  LlmClient.layerProvider({ retry: Retry.make({ base: "1 second", jitter: "none", attempts: 2 }), ...options }).pipe(
    Layer.provideMerge(Budget.layer({ limits, ...options.budget })),
    Layer.provide(scripted(script).layer),
    Layer.provideMerge(Retry.layerBudget({ minPerSecond: Infinity }))
  )

const attributes = (span: Tracer.Span | undefined): Record<string, unknown> =>
  Object.fromEntries(span?.attributes ?? [])

const known = { inputTokens: 1_000, agent: "agent-7" }

describe("telemetry", () => {
  describe("span", () => {
    it.effect("is one for a call with all its attempts, with the GenAI names", () => {
      const { spans, watch } = collecting()
      const script: Script = {
        create: (attempt) =>
          attempt === 1 ? fail(new LlmError.Overloaded({ status: 529 })) : Effect.succeed(message("Hello"))
      }
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Effect.withSpan(LlmClient.create(params, known), "agent"))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
        const [outer, span, ...others] = spans
        assert.deepStrictEqual([outer?.name, span?.name, others.length], ["agent", "chat claude-sonnet-5", 0])
        assert.strictEqual(span!.kind, "client")
        assert.strictEqual(span!.parent._tag === "Some" && span!.parent.value.spanId, outer!.spanId)
        assert.strictEqual(span!.status._tag, "Ended")
        assert.deepStrictEqual(attributes(span), {
          "gen_ai.operation.name": "chat",
          "gen_ai.provider.name": "scripted",
          "gen_ai.request.model": "claude-sonnet-5",
          "gen_ai.request.max_tokens": 500,
          "gen_ai.response.id": "msg_1",
          "gen_ai.response.model": "claude-sonnet-5-20260901",
          "gen_ai.response.finish_reasons": ["end_turn"],
          "gen_ai.usage.input_tokens": 900,
          "gen_ai.usage.output_tokens": 100,
          "floodgate.pool": "default",
          "floodgate.agent": "agent-7",
          "floodgate.estimate.input_tokens": 1_000,
          "floodgate.estimate.output_tokens": 500,
          "floodgate.attempts": 2,
          "floodgate.queue.seconds": 0,
          "floodgate.retry.wait.seconds": 1
        })
        const failed = (span as Tracer.NativeSpan).events.map(([name, , detail]) => [name, detail])
        assert.deepStrictEqual(failed, [
          ["floodgate.attempt.failed", { "error.type": "Overloaded", "floodgate.attempt": 1 }]
        ])
      }).pipe(Effect.provide(live(script)), watch)
    })

    it.effect("reports how long the call waited in the queue, and for which limit", () => {
      const { spans, watch } = collecting()
      return Effect.gen(function* () {
        yield* Budget.withReservation({ inputTokens: 100_000 }, () => Effect.void)
        const fiber = yield* Effect.forkChild(LlmClient.create(params, known))
        yield* TestClock.adjust("5 seconds")
        yield* Fiber.join(fiber)
        const { "floodgate.queue.bound_by": binding, "floodgate.queue.seconds": seconds } = attributes(spans[0])
        assert.strictEqual(binding, "inputTokens")
        assert.closeTo(seconds as number, 0.6, 0.05)
      }).pipe(Effect.provide(live({ create: () => Effect.succeed(message("Hello")) })), watch)
    })

    it.effect("reports why the call failed, and which limit it hit", () => {
      const { spans, watch } = collecting()
      const signal = { dimensions: { outputTokens: { limit: 8_000, remaining: 0 } } }
      const script: Script = {
        create: () => fail(new LlmError.RateLimited({ status: 429, requestId: "req_1", signal }))
      }
      return Effect.gen(function* () {
        yield* Effect.exit(LlmClient.create(params, known))
        const told = attributes(spans[0])
        assert.strictEqual(told["error.type"], "RateLimited")
        assert.strictEqual(told["http.response.status_code"], 429)
        assert.strictEqual(told["floodgate.request.id"], "req_1")
        assert.strictEqual(told["floodgate.limit"], "outputTokens")
        assert.strictEqual(told["floodgate.stopped_by"], "attempts")
        const { status } = spans[0]!
        assert.strictEqual(status._tag === "Ended" && status.exit._tag, "Failure")
      }).pipe(Effect.provide(live(script, { retry: Retry.make({ attempts: 1 }) })), watch)
    })

    it.effect("of a stream ends with the stream", () => {
      const { spans, watch } = collecting()
      return Effect.gen(function* () {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const pull = yield* Stream.toPull(LlmClient.stream(params, known))
            yield* pull
            assert.strictEqual(spans[0]!.status._tag, "Started")
          })
        )
        assert.strictEqual(spans[0]!.status._tag, "Ended")
        yield* Stream.runDrain(LlmClient.stream(params, known))
        const told = attributes(spans[1])
        assert.isTrue(told["gen_ai.request.stream"])
        assert.deepStrictEqual(
          [told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"], told["gen_ai.response.model"]],
          [900, 100, "claude-sonnet-5-20260901"]
        )
      }).pipe(Effect.provide(live({ stream: () => Effect.succeed(events(...whole("Hello"))) })), watch)
    })

    it.effect("of a stream that breaks has its error", () => {
      const { spans, watch } = collecting()
      const overloaded = new LlmError.LlmError({ reason: new LlmError.Overloaded({ status: 200 }) })
      const script: Script = {
        stream: () => Effect.succeed(Stream.concat(events(start, blockStart, delta("Once")), Stream.fail(overloaded)))
      }
      return Effect.gen(function* () {
        yield* Effect.exit(Stream.runDrain(LlmClient.stream(params, known)))
        assert.strictEqual(attributes(spans[0])["error.type"], "StreamInterrupted")
      }).pipe(Effect.provide(live(script)), watch)
    })

    it.effect("has no content of the request or the response", () => {
      const { spans, watch } = collecting()
      const secret = { ...params, messages: [{ role: "user" as const, content: "CONTENT-IN" }] }
      return Effect.gen(function* () {
        yield* LlmClient.create(secret)
        const told = inspect([attributes(spans[0]), spans[0]!.events], { depth: 10 })
        assert.notInclude(told, "CONTENT")
      }).pipe(Effect.provide(live({ create: () => Effect.succeed(message("CONTENT-OUT")) })), watch)
    })
  })

  describe("metrics", () => {
    it.effect("count calls, attempts, failures, tokens and seconds, as Prometheus reads them", () => {
      const { watch } = collecting()
      const script: Script = {
        create: (attempt) => {
          if (attempt === 1) return fail(new LlmError.Overloaded({ status: 529 }))
          return attempt === 4 ? fail(new LlmError.InvalidRequest({ status: 404 })) : Effect.succeed(message("Hello"))
        }
      }
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(LlmClient.create(params, known))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
        yield* LlmClient.create(params, known)
        yield* Effect.exit(LlmClient.create(params, known))
        yield* Effect.exit(LlmClient.create(params, { inputTokens: 1_000_000 }))
        const text = yield* PrometheusMetrics.format()
        for (const line of [
          `floodgate_calls{outcome="success",pool="default"} 2`,
          `floodgate_calls{outcome="failure",pool="default"} 1`,
          `floodgate_calls{outcome="refused",pool="default"} 1`,
          `floodgate_attempts{pool="default"} 4`,
          `floodgate_attempt_failures{pool="default",reason="Overloaded"} 1`,
          `floodgate_attempt_failures{pool="default",reason="InvalidRequest"} 1`,
          `floodgate_tokens{pool="default",type="input"} 1800`,
          `floodgate_tokens{pool="default",type="output"} 200`,
          `floodgate_queue_seconds_count{pool="default"} 4`,
          `floodgate_call_seconds_count{pool="default"} 4`,
          `floodgate_call_seconds_sum{pool="default"} 1`
        ]) {
          const sorted = text.replaceAll(
            /\{([^}]*)\}/g,
            (_, labels: string) => `{${labels.split(",").sort().join(",")}}`
          )
          assert.include(sorted, line)
        }
      }).pipe(Effect.provide(live(script)), watch)
    })

    it.effect("count a call that was interrupted as such", () => {
      const { watch } = collecting()
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(LlmClient.create(params, known))
        yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        const text = yield* PrometheusMetrics.format()
        assert.match(text, /floodgate_calls\{[^}]*outcome="interrupted"[^}]*\} 1/)
      }).pipe(Effect.provide(live({ create: () => Effect.never })), watch)
    })
  })
})
