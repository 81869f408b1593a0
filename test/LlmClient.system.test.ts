import { assert, describe, it } from "@effect/vitest"
import type { RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import type * as Governor from "floodgate/Governor"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import * as LlmError from "floodgate/LlmError"
import type * as LlmProvider from "floodgate/LlmProvider"
import * as Retry from "floodgate/Retry"
import * as Spending from "floodgate/Spending"
import { ProviderSim, Simulation } from "floodgate/testing"
import { pool } from "./support/budget.ts"
import { answer, serve } from "./support/httpProvider.ts"
import {
  blockStart,
  blockStop,
  delta,
  events,
  fail,
  message,
  messageDelta,
  params,
  type Script,
  scripted,
  start,
  stop,
  textOf,
  whole
} from "./support/scriptedProvider.ts"
import { together } from "./support/together.ts"

// -----------------------------------------------------------------------------
// Helpers
// -----------------------------------------------------------------------------

const limits: Limits.Limits = {
  requests: { perMinute: 1_200 },
  inputTokens: { perMinute: 100_000, window: "bucket" },
  outputTokens: { perMinute: 50_000, window: "bucket" }
}

/** A dollar for each million of input, two for output. */
const prices = { [params.model]: { input: 1, output: 2 } }

const environment = (url: string) =>
  ConfigProvider.layer(ConfigProvider.fromUnknown({ ANTHROPIC_API_KEY: "key", ANTHROPIC_BASE_URL: url }))

const steady = Retry.make({ base: "1 second", jitter: "none", attempts: 3 })

const budget = (options: Budget.Options = {}) => Budget.layer({ limits, ...options })

type Options = Governor.Options & { readonly budget?: Budget.Options }

const over = (script: Script, { budget: given, ...options }: Options = {}) => {
  const { layer, seen } = scripted(script)
  const live = LlmClient.layerProvider({ retry: steady, ...options }).pipe(
    Layer.provideMerge(budget(given)),
    Layer.provide(layer),
    Layer.provideMerge(Retry.layerBudget({ minPerSecond: Infinity }))
  )
  return { live, seen }
}

const simulated = (sim: ProviderSim.Options, { budget: given, ...options }: Options = {}) =>
  LlmClient.layerProvider(options).pipe(
    Layer.provideMerge(budget(given)),
    Layer.provideMerge(ProviderSim.layer({ reply: () => "word ".repeat(400), ...sim }))
  )

/** What was taken from full buckets. */
const taken = Effect.map(pool, ({ dimensions, inFlight }) => ({
  input: 100_000 - dimensions.inputTokens!.level,
  output: 50_000 - dimensions.outputTokens!.level,
  inFlight
}))

const known = { inputTokens: 1_000 }
const ask = LlmClient.stream(params, known)
const collect = Stream.runCollect(ask)

const reasonOf = (error: LlmError.LlmError | Budget.BudgetError): LlmError.LlmErrorReason => {
  assert.instanceOf(error, LlmError.LlmError)
  return error.reason
}

const overloaded = new LlmError.LlmError({ reason: new LlmError.Overloaded({ status: 200, code: "overloaded_error" }) })

describe("LlmClient", () => {
  describe("create", () => {
    it.effect("answers, and settles to the usage of the answer", () => {
      const { live } = over({ create: () => Effect.succeed(message("Hello")) })
      return Effect.gen(function* () {
        const { content } = yield* LlmClient.create(params, known)
        assert.deepStrictEqual(content, message("Hello").content)
        assert.deepStrictEqual(yield* taken, { input: 900, output: 100, inFlight: 0 })
      }).pipe(Effect.provide(live))
    })

    it.effect("with a PDF and pictures is not refused because of guessed tokens", () => {
      const { live } = over({ create: () => Effect.succeed(message("Hello")) })
      const source = { type: "base64" as const, media_type: "application/pdf" as const, data: "x".repeat(10_000_000) }
      const picture = { type: "base64" as const, media_type: "image/png" as const, data: "x" }
      const pictures = Array.from({ length: 150 }, () => ({ type: "image" as const, source: picture }))
      const content = [{ type: "document" as const, source }, ...pictures]
      return Effect.gen(function* () {
        const text = [{ type: "text" as const, text: "x".repeat(1_000_000) }]
        const error = yield* Effect.flip(LlmClient.create({ ...params, messages: [{ role: "user", content: text }] }))
        assert.instanceOf(error, Budget.BudgetError)
        const { id } = yield* LlmClient.create({ ...params, messages: [{ role: "user", content }] })
        assert.strictEqual(id, "msg_1")
      }).pipe(Effect.provide(live))
    })

    it.effect("is retried, and reports its attempts when it fails", () => {
      const { live, seen } = over({
        create: () => fail(new LlmError.InvalidRequest({ status: 409, requestId: "req_1" }))
      })
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Effect.flip(LlmClient.create(params)))
        yield* TestClock.adjust("3 seconds")
        const error = yield* Fiber.join(fiber)
        assert.instanceOf(error, LlmError.LlmError)
        assert.strictEqual(seen.attempts, 3)
        assert.deepStrictEqual(
          [error.attempts, error.waited, error.stoppedBy, error.requestId],
          [3, Duration.seconds(3), "attempts", "req_1"]
        )
      }).pipe(Effect.provide(live))
    })

    it.effect("hides a single rejection from the caller", () =>
      Effect.gen(function* () {
        yield* Simulation.run(LlmClient.create(params))
        const sim = yield* ProviderSim.ProviderSim
        const { completed, rejected } = yield* sim.stats
        assert.deepStrictEqual([rejected, completed], [1, 1])
      }).pipe(Effect.provide(simulated({ faults: [{ kind: "429", calls: [1], retryAfterMillis: 16_000 }] })))
    )

    it.effect("aborts the request when it is interrupted, and keeps the input", () =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(LlmClient.create(params, known))
        yield* TestClock.adjust("100 millis")
        assert.strictEqual((yield* taken).inFlight, 1)
        yield* Fiber.interrupt(fiber)
        const sim = yield* ProviderSim.ProviderSim
        assert.strictEqual((yield* sim.stats).aborted, 1)
        const { inFlight, input, output } = yield* taken
        assert.deepStrictEqual([inFlight, output], [0, 0])
        assert.isAtLeast(input, 800)
      }).pipe(Effect.provide(simulated({})))
    )

    for (const [what, odd] of [
      ["max_tokens beyond every model", { max_tokens: 1e300 }],
      ["thinking that is null", { thinking: null }]
    ] as const) {
      it.effect(`lets the provider answer to ${what}`, () => {
        // Regression: the caller got a defect instead of the provider's 400.
        const invalid = fail(new LlmError.InvalidRequest({ status: 400 }))
        const { live, seen } = over(
          { create: () => invalid, stream: () => invalid },
          { accounting: Accounting.bedrockMantle }
        )
        return Effect.gen(function* () {
          const wrong = { ...params, ...odd } as LlmProvider.Params
          for (const ask of [LlmClient.create(wrong), Stream.runDrain(LlmClient.stream(wrong))]) {
            assert.strictEqual(reasonOf(yield* Effect.flip(Effect.asVoid(ask)))._tag, "InvalidRequest")
          }
          assert.strictEqual(seen.attempts, 2)
        }).pipe(Effect.provide(live))
      })
    }

    it.effect("takes the limits from the first response when none are given", () => {
      const signal: Limits.Signal = { dimensions: { inputTokens: { limit: 60_000, remaining: 59_000 } } }
      const { live, seen } = over(
        { create: () => Effect.as(Effect.sleep("1 second"), message("Hello")), signal },
        {
          budget: { limits: undefined }
        }
      )
      return Effect.gen(function* () {
        const calls = Effect.forEach([1, 2, 3], () => LlmClient.create(params), { concurrency: "unbounded" })
        const fiber = yield* Effect.forkChild(calls)
        yield* Effect.yieldNow
        assert.strictEqual(seen.attempts, 1)
        yield* TestClock.adjust("3 seconds")
        yield* Fiber.join(fiber)
        const shared = yield* Budget.TokenBudget
        const { pools } = yield* shared.status
        assert.deepStrictEqual(Object.keys(pools), ["sonnet-5"])
        assert.strictEqual(pools["sonnet-5"]!.dimensions.inputTokens!.limitPerSecond, 1_000)
      }).pipe(Effect.provide(live))
    })
  })

  describe("stream", () => {
    it.effect("passes on every event, and settles to the usage in the stream", () => {
      const { live, seen } = over({ stream: () => Effect.succeed(events(...whole("Hello"))) })
      return Effect.gen(function* () {
        assert.deepStrictEqual(yield* collect, whole("Hello"))
        assert.deepStrictEqual(yield* taken, { input: 900, output: 100, inFlight: 0 })
        assert.strictEqual(seen.open, 0)
      }).pipe(Effect.provide(live))
    })

    it.effect("holds its reservation as long as it runs", () =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(collect)
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual((yield* taken).inFlight, 1)
        yield* TestClock.adjust("1 minute")
        assert.isNotEmpty(textOf(yield* Fiber.join(fiber)))
        assert.strictEqual((yield* taken).inFlight, 0)
      }).pipe(Effect.provide(simulated({ outputTokens: 400 })))
    )

    it.effect("asks for an event only when the consumer does", () => {
      let pulled = 0
      const source = Stream.tap(events(...whole("Hello")), () => Effect.sync(() => pulled++))
      const { live } = over({ stream: () => Effect.succeed(source) })
      return Effect.gen(function* () {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const pull = yield* Stream.toPull(ask)
            yield* pull
            assert.strictEqual(pulled, 2)
            yield* pull
            assert.strictEqual(pulled, 3)
          })
        )
      }).pipe(Effect.provide(live))
    })

    it.effect("that the consumer leaves early is aborted and settled to what was received", () => {
      const text = "x".repeat(27)
      const list = [start, blockStart, delta(text), delta(text), blockStop, messageDelta(100), stop]
      const { live, seen } = over({ stream: () => Effect.succeed(events(...list)) })
      return Effect.gen(function* () {
        const some = yield* Stream.runCollect(Stream.take(ask, 3))
        assert.strictEqual(some.length, 3)
        assert.strictEqual(seen.open, 0)
        // One token was counted by the provider, and 27 characters are about 10.
        assert.deepStrictEqual(yield* taken, { input: 900, output: 11, inFlight: 0 })
      }).pipe(Effect.provide(live))
    })

    for (const [what, usage] of [
      ["says 0 of the prompt", { input_tokens: 0, output_tokens: 0 }],
      ["says no usage", undefined]
    ] as const) {
      it.effect(
        `that ${what} before it is left keeps its prompt, and is settled to the output that was received`,
        () => {
          // Regression: with such gateways, all of the input was given back, or the output was lost.
          const first = { type: "message_start", message: { id: "x", model: "m", usage } } as RawMessageStreamEvent
          const { live } = over({ stream: () => Effect.succeed(events(first, blockStart, delta("x".repeat(27)))) })
          return Effect.gen(function* () {
            yield* Stream.runDrain(Stream.take(ask, 3))
            assert.deepStrictEqual(yield* taken, { input: 1_000, output: 10, inFlight: 0 })
            yield* Effect.flip(collect)
            assert.deepStrictEqual(yield* taken, { input: 2_000, output: 20, inFlight: 0 })
          }).pipe(Effect.provide(live))
        }
      )
    }

    it.effect("that is complete is settled to the usage that it reports, and keeps the estimate of the rest", () => {
      const first = { type: "message_start", message: { id: "x", model: "m" } } as RawMessageStreamEvent
      const counted = { ...messageDelta(100), usage: { output_tokens: 100 } } as RawMessageStreamEvent
      const silent = { type: "message_delta", delta: { stop_reason: "end_turn" } } as RawMessageStreamEvent
      const { live } = over({
        stream: (attempt) =>
          Effect.succeed(events(first, blockStart, delta("Hello"), attempt === 1 ? counted : silent, stop))
      })
      return Effect.gen(function* () {
        yield* collect
        assert.deepStrictEqual(yield* taken, { input: 1_000, output: 100, inFlight: 0 })
        yield* collect
        assert.deepStrictEqual(yield* taken, { input: 2_000, output: 600, inFlight: 0 })
        const { profiles } = yield* (yield* LlmClient.LlmClient).learned
        assert.deepStrictEqual(profiles.at(-1)?.outputs, [100])
      }).pipe(Effect.provide(live))
    })

    it.effect("that is interrupted aborts the request and leaves nothing behind", () =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(collect)
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.interrupt(fiber)
        const sim = yield* ProviderSim.ProviderSim
        assert.deepStrictEqual([(yield* sim.stats).aborted, yield* sim.inFlight], [1, 0])
        const { dimensions, inFlight } = yield* pool
        const output = 10_000 - dimensions.outputTokens!.level
        assert.strictEqual(inFlight, 0)
        assert.isAbove(output, 1)
        assert.isBelow(output, 400)
      }).pipe(
        // A quota does not refill, which would hide the usage.
        Effect.provide(simulated({ outputTokens: 400 }, { budget: { limits: { outputTokens: { total: 10_000 } } } }))
      )
    )

    it.effect("is retried before its first content, and passes on no event of the failed attempt", () => {
      const { live, seen } = over({
        stream: (attempt) =>
          attempt === 1
            ? fail(new LlmError.Overloaded({ status: 529 }))
            : Effect.succeed(
                attempt === 2 ? Stream.concat(events(start), Stream.fail(overloaded)) : events(...whole("Hello"))
              )
      })
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(collect)
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(yield* Fiber.join(fiber), whole("Hello"))
        assert.deepStrictEqual([seen.attempts, seen.open], [3, 0])
      }).pipe(Effect.provide(live))
    })

    it.effect("is closed before the wait for its retry", () => {
      const { live, seen } = over({
        stream: () => Effect.succeed(Stream.concat(events(start), Stream.fail(overloaded)))
      })
      return Effect.gen(function* () {
        yield* Effect.forkChild(collect)
        yield* TestClock.adjust("500 millis")
        assert.deepStrictEqual([seen.attempts, seen.open], [1, 0])
        assert.strictEqual((yield* taken).inFlight, 0)
      }).pipe(Effect.provide(live))
    })

    it.effect("that fails after content reports what was received, and is not retried", () => {
      const { live, seen } = over(
        {
          stream: () =>
            Effect.succeed(Stream.concat(events(start, blockStart, delta("Once upon")), Stream.fail(overloaded)))
        },
        { budget: { concurrency: 8 } }
      )
      return Effect.gen(function* () {
        const got: Array<RawMessageStreamEvent> = []
        const error = yield* ask.pipe(
          Stream.runForEach((event) => Effect.sync(() => got.push(event))),
          Effect.flip
        )
        const reason = reasonOf(error)
        assert.strictEqual(reason._tag, "StreamInterrupted")
        assert.strictEqual(reason.code, "overloaded_error")
        assert.strictEqual(reason.received?.text, "Once upon")
        assert.isFalse(error.isRetryable)
        assert.strictEqual(textOf(got), "Once upon")
        assert.deepStrictEqual([seen.attempts, seen.open], [1, 0])
        assert.deepStrictEqual(yield* taken, { input: 900, output: 5, inFlight: 0 })
      }).pipe(Effect.provide(live))
    })

    it.effect("that fails after content reports the attempts before", () => {
      const { live } = over({
        stream: (attempt) =>
          attempt === 1
            ? Effect.fail(overloaded)
            : Effect.succeed(Stream.concat(events(start, blockStart, delta("Once")), Stream.fail(overloaded)))
      })
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Effect.flip(collect))
        yield* TestClock.adjust("1 second")
        const error = yield* Fiber.join(fiber)
        assert.instanceOf(error, LlmError.LlmError)
        assert.strictEqual(error.reason._tag, "StreamInterrupted")
        assert.deepStrictEqual([error.attempts, error.waited], [2, Duration.seconds(1)])
        assert.match(error.message, /\(after 2 attempts, 1s waited\)$/)
      }).pipe(Effect.provide(live))
    })

    for (const kind of ["cut", "truncated"] as const) {
      it.effect(`that is ${kind} half-way reports that`, () =>
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(Effect.flip(collect))
          yield* TestClock.adjust("1 minute")
          const reason = reasonOf(yield* Fiber.join(fiber))
          assert.strictEqual(reason._tag, "StreamInterrupted")
          assert.strictEqual(reason._tag === "StreamInterrupted" && reason.kind, kind)
          assert.isNotEmpty(reason.received?.text)
          assert.strictEqual((yield* taken).inFlight, 0)
        }).pipe(Effect.provide(simulated({ outputTokens: 400, faults: [{ kind, calls: [1] }] })))
      )
    }

    it.effect("is complete only after message_stop, even if the provider's adapter ends it before", () => {
      const { live, seen } = over({
        stream: (attempt) =>
          Effect.succeed(attempt === 1 ? events(start) : events(start, blockStart, delta("Once"), blockStop))
      })
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Effect.flip(collect))
        yield* TestClock.adjust("5 seconds")
        const reason = reasonOf(yield* Fiber.join(fiber))
        assert.strictEqual(reason._tag === "StreamInterrupted" && reason.kind, "truncated")
        assert.strictEqual(seen.attempts, 2)
      }).pipe(Effect.provide(live))
    })

    it.effect("has succeeded after its message_stop, whether the consumer reads on or not", () => {
      // Regression: consumers that left at message_stop counted as interrupted. Nothing was learned, and after a pause of the
      // pool only one call was sent at a time.
      const { live } = over(
        {
          stream: (attempt) =>
            attempt === 1
              ? fail(new LlmError.RateLimited({ status: 429, retryAfter: Duration.seconds(1) }))
              : Effect.succeed(Stream.concat(events(...whole("Hello")), Stream.never))
        },
        { budget: { concurrency: 8 } }
      )
      return Effect.gen(function* () {
        const toItsEnd = Stream.runDrain(Stream.takeUntil(ask, (event) => event.type === "message_stop"))
        const fiber = yield* Effect.forkChild(Effect.all([toItsEnd, toItsEnd, toItsEnd, toItsEnd]))
        yield* TestClock.adjust("10 seconds")
        yield* Fiber.join(fiber)
        assert.strictEqual((yield* pool).allowed, 8)
        const { profiles } = yield* (yield* LlmClient.LlmClient).learned
        assert.deepStrictEqual(profiles.at(-1)?.outputs, [100, 100, 100, 100])
      }).pipe(Effect.provide(live))
    })

    const broken = Stream.fail(new LlmError.LlmError({ reason: new LlmError.ConnectionFailed({ sent: true }) }))
    for (const [what, answer, after] of [
      ["another message_stop", whole("Hello"), events(stop)],
      ["a lost connection", whole("Hello"), broken],
      ["a lost connection, and before it no content", [start, messageDelta(100), stop], broken]
    ] as const) {
      it.effect(`has succeeded once, even if ${what} follows its message_stop`, () => {
        const { live, seen } = over({ stream: () => Effect.succeed(Stream.concat(events(...answer), after)) })
        return Effect.gen(function* () {
          assert.deepStrictEqual((yield* collect).slice(0, answer.length), answer)
          assert.strictEqual(seen.attempts, 1)
          assert.deepStrictEqual(yield* taken, { input: 900, output: 100, inFlight: 0 })
          const { profiles } = yield* (yield* LlmClient.LlmClient).learned
          assert.deepStrictEqual(profiles.at(-1)?.outputs, [100])
        }).pipe(Effect.provide(live))
      })
    }

    it.effect("without content is complete, too", () => {
      const { live } = over({ stream: () => Effect.succeed(events(start, messageDelta(0), stop)) })
      return Effect.gen(function* () {
        assert.strictEqual((yield* collect).length, 3)
        assert.deepStrictEqual(yield* taken, { input: 900, output: 0, inFlight: 0 })
      }).pipe(Effect.provide(live))
    })

    it.effect("has its timeout up to the first content only", () => {
      const slow = Stream.concat(
        events(start, blockStart),
        Stream.fromEffectDrain(Effect.sleep("1 minute")).pipe(Stream.concat(events(delta("Hello"), blockStop, stop)))
      )
      const { live, seen } = over({
        stream: (attempt) => Effect.succeed(attempt === 1 ? Stream.concat(events(start), Stream.never) : slow)
      })
      return Effect.gen(function* () {
        const stream = LlmClient.stream(params, { timeout: "5 seconds" })
        const fiber = yield* Effect.forkChild(Stream.runCollect(stream))
        yield* TestClock.adjust("6 seconds")
        assert.strictEqual(seen.attempts, 2)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(textOf(yield* Fiber.join(fiber)), "Hello")
      }).pipe(Effect.provide(live))
    })

    it.effect("frees its slot for the next call, however it ends", () =>
      Effect.gen(function* () {
        const consume = (n: number) => Effect.exit(n % 2 === 0 ? Stream.runDrain(Stream.take(ask, 4)) : collect)
        const fiber = yield* Effect.forkChild(
          Effect.forEach(
            Array.from({ length: 20 }, (_, n) => n),
            consume,
            { concurrency: "unbounded" }
          )
        )
        yield* TestClock.adjust("30 minutes")
        assert.strictEqual((yield* Fiber.join(fiber)).length, 20)
        const { inFlight, queued } = yield* pool
        assert.deepStrictEqual([inFlight, queued], [0, 0])
      }).pipe(
        Effect.provide(
          simulated(
            {
              outputTokens: 200,
              faults: [
                { kind: "cut", rate: 0.2 },
                { kind: "529", rate: 0.2 },
                { kind: "429", rate: 0.1 }
              ]
            },
            { budget: { concurrency: 2 } }
          )
        )
      )
    )
  })

  describe("countTokens", () => {
    it.effect("is retried by the policy of the layer, but not after errors that are not retryable", () => {
      const retry = Retry.make({ base: "1 second", jitter: "none", attempts: 2, while: (_: LlmError.LlmError) => true })
      const { live, seen } = over(
        {
          countTokens: (attempt) =>
            fail(attempt < 3 ? new LlmError.Overloaded({ status: 529 }) : new LlmError.InvalidRequest({ status: 404 }))
        },
        { retry }
      )
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Effect.flip(LlmClient.countTokens(params)))
        yield* TestClock.adjust("1 second")
        const error = yield* Fiber.join(fiber)
        assert.instanceOf(error, LlmError.LlmError)
        assert.strictEqual(error.stoppedBy, "attempts")
        assert.strictEqual(seen.attempts, 2)
        yield* Effect.flip(LlmClient.countTokens(params))
        assert.strictEqual(seen.attempts, 3)
      }).pipe(Effect.provide(live))
    })

    it.effect("is retried but not budgeted", () => {
      const { live, seen } = over({
        countTokens: (attempt) => (attempt === 1 ? fail(new LlmError.RateLimited({ status: 429 })) : Effect.succeed(7))
      })
      return Effect.gen(function* () {
        yield* Budget.consume(0)
        const fiber = yield* Effect.forkChild(LlmClient.countTokens(params))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(fiber), 7)
        assert.strictEqual(seen.attempts, 2)
        assert.isUndefined((yield* pool).pause)
      }).pipe(Effect.provide(live))
    })
  })

  describe("learned", () => {
    it.effect("can be saved and passed to the next client", () => {
      const script: Script = { create: () => Effect.succeed(message("Hello", 900, 40)) }
      const reserved = Effect.gen(function* () {
        const client = yield* LlmClient.LlmClient
        yield* client.create(params)
        return yield* client.learned
      })
      return Effect.gen(function* () {
        const first = yield* Effect.provide(reserved, over(script).live)
        assert.deepStrictEqual(first.profiles.at(-1)?.outputs, [40])
        const second = yield* Effect.provide(reserved, over(script, { learned: first }).live)
        assert.deepStrictEqual(second.profiles.at(-1)?.outputs, [40, 40])
      })
    })
  })

  describe("agents", () => {
    it.effect("the agent of the context is served fairly", () =>
      Effect.gen(function* () {
        const ofAgent = (agent: string) =>
          Effect.provideService(LlmClient.create({ ...params, metadata: { user_id: agent } }), Budget.Agent, agent)
        yield* Effect.forkChild(
          Effect.forEach(Array.from({ length: 30 }), () => ofAgent("greedy"), { concurrency: "unbounded" })
        )
        yield* Effect.yieldNow
        yield* Effect.forkChild(ofAgent("modest"))
        yield* TestClock.adjust("5 minutes")
        const sim = yield* ProviderSim.ProviderSim
        const order = (yield* sim.log).map((entry) => entry.agent)
        assert.strictEqual(order.length, 31)
        assert.isAtMost(order.indexOf("modest"), 2)
      }).pipe(Effect.provide(simulated({}, { budget: { concurrency: 1 } })))
    )
  })

  describe("layerProvider", () => {
    // The client was built once for the whole program, over the first governor and provider.
    it.effect("makes a new client each time", () =>
      Effect.gen(function* () {
        const clients = yield* together(
          ["one", "two"].map((text) => over({ create: () => Effect.succeed(message(text)) }).live)
        )
        const answers = yield* Effect.forEach(clients, (client) =>
          Effect.provideContext(LlmClient.create(params), client)
        )
        assert.deepStrictEqual(answers.map(LlmClient.text), ["one", "two"])
      }).pipe(Effect.scoped)
    )
  })

  describe.each([
    ["layer", (baseUrl: string) => LlmClient.layer({ apiKey: Redacted.make("key"), baseUrl, prices })],
    ["layerConfig", (url: string) => Layer.provide(LlmClient.layerConfig({ prices }), environment(url))]
  ])("%s", (_, layerAt) => {
    // It uses real HTTP, through the SDK.
    it.live("pays by the given prices", () =>
      Effect.gen(function* () {
        const { seen, url } = yield* serve(() => answer)
        const purse = Spending.make("us", { dollars: 1 })
        const client = Layer.provide(layerAt(url), Budget.layerUnlimited)
        yield* LlmClient.create(params).pipe(Spending.from(purse), Effect.provide(client))
        assert.strictEqual(seen.attempts, 1)
        // 25 tokens of input, and 12 of output.
        assert.closeTo((yield* purse.status).spent, (25 * 1 + 12 * 2) / 1_000_000, 1e-9)
      })
    )
  })

  describe("text", () => {
    it("joins text blocks and leaves out the others", () => {
      const answer = message("one ")
      const tool = { type: "tool_use", id: "1", name: "search", input: {}, caller: { type: "direct" } } as const
      assert.strictEqual(
        LlmClient.text({ ...answer, content: [...answer.content, tool, ...message("two").content] }),
        "one two"
      )
      assert.strictEqual(LlmClient.text({ ...answer, content: [tool] }), "")
    })

    it("is the text that an event adds", () => {
      assert.strictEqual(LlmClient.text(delta("a piece")), "a piece")
      const json = { type: "input_json_delta", partial_json: "{" } as const
      assert.strictEqual(LlmClient.text({ type: "content_block_delta", index: 0, delta: json }), "")
      assert.deepStrictEqual([start, blockStart, stop].map(LlmClient.text), ["", "", ""])
    })
  })
})
