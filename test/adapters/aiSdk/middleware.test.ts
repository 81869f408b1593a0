import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as FloodgateAiSdk from "floodgate/ai-sdk"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Floodgate from "floodgate/promise"
import * as Retry from "floodgate/Retry"
import { describe as describeCall } from "../../../src/adapters/aiSdk/describe.ts"
import { ApiCallError } from "../../support/aiSdkModel.ts"
import { rejection } from "../../support/rejection.ts"

// Promises and streams of the platform, so these run on the real clock. Waits are for conditions, never for times.

const quick = Retry.make({ base: "1 millis", jitter: "none", attempts: 3 })
const quotas = { requests: { total: 1_000 }, inputTokens: { total: 100_000 }, outputTokens: { total: 100_000 } }

type Params = Parameters<FloodgateAiSdk.Middleware["wrapGenerate"]>[0]["params"]

interface World {
  readonly middleware: FloodgateAiSdk.Middleware
  readonly pool: Effect.Effect<Budget.PoolStatus>
}

const world = Effect.fnUntraced(function* (
  options: Parameters<typeof FloodgateAiSdk.make>[0] & Pick<Budget.Options, "limits" | "concurrency"> = {}
): Effect.fn.Return<World, never, Scope.Scope> {
  const { callOptions, ...budget } = options
  const live = Layer.provideMerge(Governor.layer({ retry: quick }), Budget.layer({ limits: quotas, ...budget }))
  const context = yield* Layer.build(live)
  const middleware = yield* Effect.provideContext(FloodgateAiSdk.make({ callOptions }), context)
  const pool = Effect.map(
    Effect.flatMap(Budget.TokenBudget, ({ status }) => status),
    ({ pools }) => pools["default"]!
  )
  return { middleware, pool: Effect.provideContext(pool, context) }
})

const until = <A>(effect: Effect.Effect<A>, holds: (a: A) => boolean) =>
  Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("2 millis") })

const levels = ({ dimensions }: Budget.PoolStatus) =>
  [dimensions.requests, dimensions.inputTokens, dimensions.outputTokens].map((one) => one?.level)

const ask = (text = "Hello"): Params => ({ prompt: [{ role: "user", content: [{ type: "text", text }] }] })

const usage = { inputTokens: { total: 30, noCache: 10, cacheRead: 20, cacheWrite: 0 }, outputTokens: { total: 5 } }
const info = { provider: "test.chat", modelId: "my-model" }

/** An error that a model throws instead of an answer. */
class Thrown {
  readonly error: ApiCallError

  constructor(body: string, headers: Record<string, string> = {}) {
    this.error = new ApiCallError(new Response(body, { status: 429, headers }), body)
  }
}

/** A model with these answers in order: results, or errors that it throws. */
const scripted = <A extends object>(...answers: ReadonlyArray<A | Thrown>) => {
  const seen: Array<Params> = []
  const next = async (params: Params): Promise<A> => {
    const answer = answers[seen.push(params) - 1]
    if (answer === undefined) throw new Error("asked too often")
    if (answer instanceof Thrown) throw answer.error
    return answer
  }
  return { ...info, doGenerate: next, doStream: next, seen }
}

type Part = { readonly type: string } & Readonly<Record<string, unknown>>

/** A stream of parts that then ends, breaks, or stays open. */
const parts = (all: ReadonlyArray<Part>, then: "end" | "hang" | Error = "end") => {
  const left = [...all]
  const cancelled = { current: false }
  const stream = new ReadableStream<Part>({
    pull: (controller) => {
      const part = left.shift()
      if (part !== undefined) return controller.enqueue(part)
      if (then === "end") return controller.close()
      return then === "hang" ? new Promise<void>(() => {}) : controller.error(then)
    },
    cancel: () => void (cancelled.current = true)
  })
  return { stream, cancelled }
}

const start: Part = { type: "stream-start", warnings: [] }
const text = (delta: string): Part => ({ type: "text-delta", id: "0", delta })
const finish: Part = { type: "finish", usage, finishReason: { unified: "stop", raw: "end_turn" } }

const read = async (stream: ReadableStream<Part>): Promise<ReadonlyArray<Part>> => {
  const all: Array<Part> = []
  for await (const part of stream) all.push(part)
  return all
}

/** A rejection that is over at once. */
const rejected = () =>
  new Thrown(`{"type":"error","error":{"type":"rate_limit_error","message":"Wait"}}`, { "retry-after-ms": "1" })

describe("floodgate/ai-sdk", () => {
  describe("wrapGenerate", () => {
    it.live("settles to the usage, without what was read from the cache", () =>
      Effect.gen(function* () {
        const { middleware, pool } = yield* world()
        const result = { usage, finishReason: { unified: "stop" }, text: "Hi" }
        const model = scripted(result)
        const given = yield* Effect.promise(() => middleware.wrapGenerate({ params: ask(), model }))
        assert.strictEqual(given, result)
        assert.deepStrictEqual(levels(yield* pool), [999, 99_990, 99_995])
        assert.instanceOf(model.seen[0]!.abortSignal, AbortSignal)
      })
    )

    it.live("understands the usage of version 5, which has the cached input within the input", () =>
      Effect.gen(function* () {
        const { middleware, pool } = yield* world()
        const model = scripted({ usage: { inputTokens: 30, outputTokens: 5, cachedInputTokens: 20 } })
        yield* Effect.promise(() => middleware.wrapGenerate({ params: ask(), model }))
        assert.deepStrictEqual(levels(yield* pool), [999, 99_990, 99_995])
      })
    )

    it.live("keeps the estimate where nothing was counted", () =>
      Effect.gen(function* () {
        const { middleware, pool } = yield* world()
        const model = scripted({ usage: { inputTokens: {}, outputTokens: {} } })
        yield* Effect.promise(() => middleware.wrapGenerate({ params: ask("x".repeat(2_700)), model }))
        assert.strictEqual((yield* pool).dimensions.inputTokens!.level, 99_000)
      })
    )

    it.live("retries, and marks the final error as not retryable for the SDK", () =>
      Effect.gen(function* () {
        const { middleware, pool } = yield* world()
        const model = scripted(rejected(), { usage })
        yield* Effect.promise(() => middleware.wrapGenerate({ params: ask(), model }))
        assert.strictEqual(model.seen.length, 2)
        const spent = { type: "rate_limit_error", details: { error_code: "enforced_spend_limit_reached" } }
        const last = new Thrown(JSON.stringify({ type: "error", error: spent }))
        assert.isTrue(last.error.isRetryable)
        const hopeless = scripted<{ readonly usage: unknown }>(last)
        const error = yield* rejection(() => middleware.wrapGenerate({ params: ask(), model: hopeless }))
        assert.strictEqual(error, last.error)
        assert.isFalse(last.error.isRetryable)
        assert.strictEqual(hopeless.seen.length, 1)
        assert.strictEqual((yield* pool).inFlight, 0)
      })
    )

    it.live("reads limits from the headers that a provider passes on", () =>
      Effect.gen(function* () {
        const { middleware, pool } = yield* world({ limits: { requests: { perMinute: 1_000 } } })
        const headers = { "x-ratelimit-limit-requests": "1000", "x-ratelimit-remaining-requests": "7" }
        const model = scripted({ usage, response: { headers } })
        yield* Effect.promise(() => middleware.wrapGenerate({ params: ask(), model }))
        assert.isAtMost((yield* pool).dimensions.requests!.level, 10)
      })
    )

    it.live("lets an aborted caller leave the queue, and aborts a running call", () =>
      Effect.gen(function* () {
        const { middleware, pool } = yield* world({ concurrency: 1 })
        const hanging = {
          ...info,
          doGenerate: ({ abortSignal }: Params) =>
            new Promise<{ usage: unknown }>((_, reject) => {
              abortSignal!.addEventListener("abort", () => reject(abortSignal!.reason as Error))
            })
        }
        const [first, second] = [new AbortController(), new AbortController()]
        const call = (abortSignal: AbortSignal) =>
          middleware
            .wrapGenerate({ params: { ...ask(), abortSignal }, model: hanging })
            .catch((error: unknown) => error)
        const running = call(first.signal)
        yield* until(pool, ({ inFlight }) => inFlight === 1)
        const waiting = call(second.signal)
        yield* until(pool, ({ queued }) => queued === 1)
        second.abort(new Error("enough"))
        assert.strictEqual((yield* Effect.promise(() => waiting)) as unknown, second.signal.reason)
        assert.strictEqual((yield* pool).queued, 0)
        first.abort()
        yield* Effect.promise(() => running)
        yield* until(pool, ({ inFlight }) => inFlight === 0)
      })
    )

    it.live("refuses a call that can never fit without a request, and every call once it is closed", () =>
      Effect.gen(function* () {
        const closed = yield* Effect.scoped(
          Effect.gen(function* () {
            const { middleware } = yield* world({ limits: { inputTokens: { total: 100 } } })
            const model = scripted({ usage })
            const params = ask("x".repeat(4_000))
            const error = yield* rejection(() => middleware.wrapGenerate({ params, model }))
            assert.instanceOf(error, Budget.BudgetError)
            assert.strictEqual(model.seen.length, 0)
            return middleware
          })
        )
        const error = yield* rejection(() => closed.wrapGenerate({ params: ask(), model: scripted({ usage }) }))
        assert.match(String(error), /was closed/)
      })
    )
  })

  describe("wrapStream", () => {
    it.live("passes every part on, and settles when the last was read", () =>
      Effect.gen(function* () {
        const { middleware, pool } = yield* world()
        const all = [start, text("Hel"), text("lo"), finish]
        const model = scripted(parts(all))
        const { stream } = yield* Effect.promise(() => middleware.wrapStream({ params: ask(), model }))
        assert.strictEqual((yield* pool).inFlight, 1)
        assert.deepStrictEqual(yield* Effect.promise(() => read(stream)), all)
        assert.deepStrictEqual(levels(yield* until(pool, ({ inFlight }) => inFlight === 0)), [999, 99_990, 99_995])
      })
    )

    for (const [name, broken] of [
      ["an error part", () => parts([start, { type: "error", error: { type: "overloaded_error", message: "" } }])],
      ["a broken stream", () => parts([start], Object.assign(new TypeError("terminated"), { code: "ECONNRESET" }))],
      ["an empty stream", () => parts([start])]
    ] as const) {
      it.live(`is retried after ${name} before the first content`, () =>
        Effect.gen(function* () {
          const { middleware, pool } = yield* world()
          const model = scripted(rejected(), broken(), parts([start, text("Hello"), finish]))
          const { stream } = yield* Effect.promise(() => middleware.wrapStream({ params: ask(), model }))
          assert.deepStrictEqual(yield* Effect.promise(() => read(stream)), [start, text("Hello"), finish])
          assert.strictEqual(model.seen.length, 3)
          yield* until(pool, ({ inFlight }) => inFlight === 0)
        })
      )
    }

    it.live("gives the parts of the last attempt when all have failed", () =>
      Effect.gen(function* () {
        const { middleware, pool } = yield* world()
        const invalid = { type: "error", error: { type: "invalid_request_error", message: "No" } }
        const { stream } = yield* Effect.promise(() =>
          middleware.wrapStream({ params: ask(), model: scripted(parts([start, invalid])) })
        )
        assert.deepStrictEqual(yield* Effect.promise(() => read(stream)), [start, invalid])
        assert.strictEqual((yield* pool).inFlight, 0)
      })
    )

    it.live("ends its reservation with an error after content, which nobody retries", () =>
      Effect.gen(function* () {
        const { middleware, pool } = yield* world()
        const model = scripted(parts([text("x".repeat(270))], new Error("gone")))
        const { stream } = yield* Effect.promise(() => middleware.wrapStream({ params: ask(), model }))
        assert.match(String(yield* rejection(() => read(stream))), /gone/)
        const [requests, , output] = levels(yield* until(pool, ({ inFlight }) => inFlight === 0))
        assert.deepStrictEqual([requests, output, model.seen.length], [999, 99_900, 1])
      })
    )

    it.live("without content in time is cancelled, and so is one that arrives too late", () =>
      Effect.gen(function* () {
        const retry = Retry.make({ attempts: 1 })
        const { middleware, pool } = yield* world({ callOptions: { timeout: "20 millis", retry } })
        const silent = parts([start], "hang")
        assert.match(
          String(yield* rejection(() => middleware.wrapStream({ params: ask(), model: scripted(silent) }))),
          /20ms/
        )
        yield* until(
          Effect.sync(() => silent.cancelled.current),
          identity
        )
        const late = parts([start, text("a"), finish])
        const gate = Promise.withResolvers<typeof late>()
        const model = { ...scripted(late), doStream: () => gate.promise }
        assert.match(String(yield* rejection(() => middleware.wrapStream({ params: ask(), model }))), /20ms/)
        gate.resolve(late)
        yield* until(
          Effect.sync(() => late.cancelled.current),
          identity
        )
        assert.strictEqual((yield* pool).inFlight, 0)
      })
    )

    it.live("that fails before its content is cancelled", () =>
      Effect.gen(function* () {
        const { middleware } = yield* world()
        const failing = parts([start, { type: "error", error: { type: "invalid_request_error" } }], "hang")
        yield* Effect.promise(() => middleware.wrapStream({ params: ask(), model: scripted(failing) }))
        yield* until(
          Effect.sync(() => failing.cancelled.current),
          identity
        )
      })
    )

    for (const how of ["cancelled", "aborted"] as const) {
      it.live(`that is ${how} settles to what came, and its request ends`, () =>
        Effect.gen(function* () {
          const { middleware, pool } = yield* world()
          const controller = new AbortController()
          const answer = parts([start, text("x".repeat(270))], "hang")
          const model = scripted(answer)
          const params = { ...ask(), abortSignal: controller.signal }
          const { stream } = yield* Effect.promise(() => middleware.wrapStream({ params, model }))
          const reader = stream.getReader()
          yield* Effect.promise(async () => {
            await reader.read()
            await reader.read()
          })
          assert.strictEqual((yield* pool).inFlight, 1)
          if (how === "aborted") controller.abort()
          else yield* Effect.promise(() => reader.cancel())
          const [requests, , output] = levels(yield* until(pool, ({ inFlight }) => inFlight === 0))
          assert.deepStrictEqual([requests, output], [999, 99_900])
          assert.isTrue(model.seen[0]!.abortSignal!.aborted)
          if (how === "cancelled") assert.isTrue(answer.cancelled.current)
        })
      )
    }
  })

  describe("the description of a call", () => {
    const of = (params: Params, provider = "test.chat") => describeCall(params, { ...info, provider }, false)

    it("counts texts by their bytes, and files by what a model makes of them", () => {
      const sizes = (content: unknown) => {
        const { bytes, textBytes } = of({ prompt: [{ role: "user", content }] }).call
        return [bytes, textBytes]
      }
      assert.deepStrictEqual(sizes("grüße"), [7, 7])
      assert.deepStrictEqual(
        sizes([
          { type: "text", text: "abc" },
          { type: "reasoning", text: "de" }
        ]),
        [5, 5]
      )
      const image = new Uint8Array(1_000_000)
      assert.deepStrictEqual(sizes([{ type: "file", mediaType: "image/png", data: image }]), [4_200, 0])
      const pdf = { type: "file", mediaType: "application/pdf" }
      assert.deepStrictEqual(sizes([{ ...pdf, data: "x".repeat(1_000) }]), [100, 0])
      assert.deepStrictEqual(sizes([{ ...pdf, data: { type: "data", data: "x".repeat(1_000) } }]), [100, 0])
      assert.deepStrictEqual(sizes([{ ...pdf, data: { type: "url", url: new URL("http://a/") } }]), [0, 0])
      assert.deepStrictEqual(sizes([{ type: "tool-call", toolName: "ab", input: { c: 1 } }]), [9, 9])
      const output = { type: "content", value: [{ type: "text", text: "cde" }] }
      assert.deepStrictEqual(sizes([{ type: "tool-result", toolName: "ab", output }]), [5, 5])
      assert.deepStrictEqual(sizes(7), [0, 0])
    })

    // Regression: a value of the tool's own counted as a picture or as nothing.
    it("counts the results of tools in full, whatever they look like", () => {
      const data = "x".repeat(100_000)
      for (const value of [{ type: "image", source: data }, { cache_control: data }, { type: "base64", data }, data]) {
        const content = [{ type: "tool-result", toolName: "ab", output: { type: "json", value } }]
        assert.isAtLeast(of({ prompt: [{ role: "tool", content }] }).call.textBytes!, data.length)
      }
    })

    it("knows the options of the provider that cost more", () => {
      const priceOf = (options: object) => {
        const { fast, priceFactor } = of({ ...ask(), providerOptions: { floodgate: {}, own: options } }).call
        return [fast, priceFactor]
      }
      assert.deepStrictEqual(priceOf({}), [undefined, undefined])
      assert.deepStrictEqual(priceOf({ serviceTier: "priority" }), [true, undefined])
      assert.deepStrictEqual(priceOf({ serviceTier: "ultrafast" }), [undefined, 6])
      assert.deepStrictEqual(priceOf({ speed: "fast", inferenceGeo: "us" }), [true, 1.1])
    })

    it("allows the larger output of the SDK's option and OpenAI's own, which overrides it", () => {
      const most = (maxOutputTokens: number | undefined, own: object) =>
        of({ ...ask(), maxOutputTokens, providerOptions: { openai: own } }).call.maxTokens
      assert.strictEqual(most(10, { maxCompletionTokens: 500 }), 500)
      assert.strictEqual(most(undefined, { maxCompletionTokens: 500 }), 500)
      assert.strictEqual(most(10, {}), 10)
      assert.isUndefined(most(undefined, {}))
    })

    it("counts tools and the form of an object by their schemas", () => {
      const bare = of(ask()).call.bytes
      const tool = { type: "function", name: "weather", inputSchema: { type: "object" } }
      assert.isAbove(of({ ...ask(), tools: [tool] }).call.bytes, bare + 50)
      const responseFormat = { type: "json", schema: { type: "object", properties: {} } }
      assert.isAbove(of({ ...ask(), responseFormat }).call.bytes, bare + 30)
    })

    it("names the agent, its class, the provider, and whether it thinks", () => {
      const floodgate = { agent: "a7", kind: "writer" }
      const { agent, call } = of({ ...ask(), providerOptions: { floodgate } }, "amazon-bedrock")
      assert.deepStrictEqual([agent, call.kind, call.provider, call.thinking], ["a7", "writer", "aws.bedrock", false])
      assert.strictEqual(of({ ...ask(), headers: { "x-floodgate-agent": "a8" } }).agent, "a8")
      const anthropic = { thinking: { type: "enabled", budgetTokens: 1_000 } }
      assert.isTrue(of({ ...ask(), providerOptions: { anthropic } }, "anthropic.messages").call.thinking)
      assert.strictEqual(of(ask(), "anthropic.messages").call.provider, "anthropic")
    })
  })

  it.live("has its own budget in programs without Effect, and refuses with a RefusedError", () =>
    Effect.promise(async () => {
      await using floodgate = Floodgate.create({ limits: { inputTokens: { total: 1_000 } } })
      await floodgate.aiSdk.wrapGenerate({ params: ask(), model: scripted({ usage }) })
      const { pools } = await floodgate.status()
      assert.strictEqual(pools["default"]!.dimensions.inputTokens!.level, 990)
      const model = scripted<{ readonly usage: unknown }>()
      const refused = await floodgate.aiSdk
        .wrapGenerate({ params: ask("x".repeat(4_000)), model })
        .catch((error: unknown) => error)
      assert.instanceOf(refused, Floodgate.RefusedError)
      assert.strictEqual(refused.reason, "used")
    })
  )
})
