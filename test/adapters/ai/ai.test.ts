import { assert, describe, it } from "@effect/vitest"
import * as AiError from "effect/ai/AiError"
import * as LanguageModel from "effect/ai/LanguageModel"
import * as Model from "effect/ai/Model"
import * as Prompt from "effect/ai/Prompt"
import type * as Response from "effect/ai/Response"
import * as Tool from "effect/ai/Tool"
import * as Toolkit from "effect/ai/Toolkit"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as FloodgateAi from "floodgate/ai"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"

type Answer = ReadonlyArray<Response.PartEncoded> | AiError.AiErrorReason
type StreamAnswer = Stream.Stream<Response.StreamPartEncoded, AiError.AiError> | AiError.AiErrorReason

const usage = (input: number, output: number) => ({ inputTokens: { total: input }, outputTokens: { total: output } })
const finish = (
  reason: Response.FinishReason = "stop",
  headers?: Record<string, string>
): Response.FinishPartEncoded => ({
  type: "finish",
  reason,
  usage: usage(100, 20),
  ...(headers !== undefined && { response: { status: 200, headers } })
})
const text = (text: string): Response.PartEncoded => ({ type: "text", text })
const aiError = (reason: AiError.AiErrorReason) => AiError.make({ module: "Script", method: "any", reason })
const http = (status: number, body?: object, headers: Record<string, string> = {}) => ({
  response: { status, headers },
  body: JSON.stringify(body)
})

/** A model with given answers, call by call, that records its requests. */
const scripted = (answers: {
  readonly whole?: ReadonlyArray<Answer>
  readonly streams?: ReadonlyArray<StreamAnswer>
}) => {
  const asked: Array<LanguageModel.ProviderOptions> = []
  let whole = 0
  let streams = 0
  const layer = Layer.effect(
    LanguageModel.LanguageModel,
    LanguageModel.make({
      generateText: (options) =>
        Effect.suspend(() => {
          asked.push(options)
          const answer = answers.whole?.[whole++]
          if (answer === undefined) return Effect.die(new Error("the script has no more answers"))
          return Array.isArray(answer)
            ? Effect.succeed([...answer])
            : Effect.fail(aiError(answer as AiError.AiErrorReason))
        }),
      streamText: (options) =>
        Stream.suspend((): Stream.Stream<Response.StreamPartEncoded, AiError.AiError> => {
          asked.push(options)
          const answer = answers.streams?.[streams++]
          if (answer === undefined) return Stream.die(new Error("the script has no more streams"))
          return Stream.isStream(answer)
            ? (answer as Stream.Stream<Response.StreamPartEncoded, AiError.AiError>)
            : Stream.fail(aiError(answer as AiError.AiErrorReason))
        })
    })
  )
  return { asked, layer }
}

const quotas = { requests: { total: 100 }, inputTokens: { total: 10_000 }, outputTokens: { total: 10_000 } }

const under = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  model: Layer.Layer<LanguageModel.LanguageModel>,
  options: Budget.Options = {},
  how: Governor.CallOptions = {}
) =>
  Effect.provide(
    effect,
    FloodgateAi.layer({ model: "m", maxTokens: 500, ...how }).pipe(
      Layer.provide(model),
      Layer.provideMerge(Governor.layer({ retry: Retry.make({ base: "1 second", jitter: "none" }) })),
      Layer.provideMerge(Budget.layer({ limits: quotas, ...options }))
    )
  )

/** Runs an effect to its end, however long it takes. */
const ending = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
  yield* TestClock.adjust("1 hour")
  return yield* Fiber.join(fiber)
})

const levels = Effect.gen(function* () {
  const { dimensions, inFlight } = (yield* (yield* Budget.TokenBudget).status).pools["default"]!
  assert.strictEqual(inFlight, 0)
  return {
    requests: 100 - dimensions.requests!.level,
    input: 10_000 - dimensions.inputTokens!.level,
    output: 10_000 - dimensions.outputTokens!.level
  }
})

const Lookup = Tool.make("Lookup", {
  description: "Looks a word up",
  parameters: Schema.Struct({ word: Schema.NonEmptyString }),
  success: Schema.Struct({ found: Schema.FiniteFromString })
})
const Words = Toolkit.make(Lookup)
const call: Response.PartEncoded & Response.StreamPartEncoded = {
  type: "tool-call",
  id: "t1",
  name: "Lookup",
  params: { word: "flood" }
}

describe("floodgate/ai", () => {
  describe("tools", () => {
    it.effect(
      "are resolved between round trips: a tool may call the model, although only one call may be in flight",
      () => {
        const { asked, layer } = scripted({
          whole: [
            [call, finish("tool-calls")],
            [text("inner"), finish()]
          ]
        })
        return under(
          Effect.gen(function* () {
            const model = yield* LanguageModel.LanguageModel
            const handlers = Words.toLayer({
              Lookup: ({ word }) =>
                Effect.map(Effect.orDie(model.generateText({ prompt: word })), ({ text }) => ({ found: text.length }))
            })
            const asking = model.generateText({ prompt: "go", toolkit: Words })
            const response = yield* ending(Effect.provide(asking, handlers))
            assert.deepStrictEqual(
              response.toolResults.map(({ result }) => result),
              [{ found: 5 }]
            )
            assert.deepStrictEqual(
              response.toolCalls.map(({ params }) => params),
              [{ word: "flood" }]
            )
            assert.strictEqual(asked.length, 2)
            assert.strictEqual(asked[0]!.tools[0]!.name, "Lookup")
            assert.deepStrictEqual(yield* levels, { requests: 2, input: 200, output: 40 })
          }),
          layer,
          { concurrency: 1 }
        )
      }
    )

    it.effect("run once, although the round trip was retried", () => {
      let runs = 0
      const { layer } = scripted({
        whole: [new AiError.InternalProviderError({ description: "500" }), [call, finish("tool-calls")]]
      })
      return under(
        Effect.gen(function* () {
          yield* ending(LanguageModel.generateText({ prompt: "go", toolkit: Words }))
          assert.strictEqual(runs, 1)
          assert.deepStrictEqual(yield* levels, { requests: 2, input: 100, output: 20 })
        }).pipe(Effect.provide(Words.toLayer({ Lookup: () => Effect.sync(() => ({ found: ++runs })) }))),
        layer
      )
    })

    it.effect("that fail do not repeat the round trip", () => {
      const { asked, layer } = scripted({ whole: [[call, finish("tool-calls")]] })
      const nested = aiError(new AiError.InternalProviderError({ description: "of a nested call" }))
      return under(
        Effect.gen(function* () {
          const exit = yield* ending(Effect.exit(LanguageModel.generateText({ prompt: "go", toolkit: Words })))
          assert.isTrue(Exit.isFailure(exit))
          assert.strictEqual(asked.length, 1)
        }).pipe(Effect.provide(Words.toLayer({ Lookup: () => Effect.die(nested) }))),
        layer
      )
    })

    it.effect("get their parameters as the model wrote them, and validate them as usual", () => {
      const wrong = { ...call, params: { word: "" } } as Response.PartEncoded
      const { layer } = scripted({ whole: [[wrong, finish("tool-calls")]] })
      return under(
        Effect.gen(function* () {
          const error = yield* ending(Effect.flip(LanguageModel.generateText({ prompt: "go", toolkit: Words })))
          assert.isTrue(AiError.isAiError(error))
          assert.strictEqual((error as AiError.AiError).reason._tag, "ToolParameterValidationError")
          assert.deepStrictEqual(yield* levels, { requests: 1, input: 100, output: 20 })
        }).pipe(Effect.provide(Words.toLayer({ Lookup: () => Effect.succeed({ found: 1 }) }))),
        layer
      )
    })

    it.effect("that the provider ran keep their results", () => {
      const ran = { ...call, providerExecuted: true } as Response.PartEncoded
      const result: Response.PartEncoded = {
        type: "tool-result",
        id: "t1",
        name: "Lookup",
        isFailure: false,
        providerExecuted: true,
        result: { found: "7" }
      }
      const { layer } = scripted({ whole: [[ran, result, text("done"), finish()]] })
      return under(
        Effect.gen(function* () {
          const response = yield* ending(LanguageModel.generateText({ prompt: "go", toolkit: Words }))
          assert.deepStrictEqual(
            response.toolResults.map(({ result }) => result),
            [{ found: 7 }]
          )
          assert.strictEqual(response.text, "done")
        }).pipe(Effect.provide(Words.toLayer({ Lookup: () => Effect.die("the provider runs it") }))),
        layer
      )
    })

    it.effect("may have had results that are not JSON, which the provider encodes", () => {
      const { layer } = scripted({ whole: [[text("hi"), finish()]] })
      const part = Prompt.toolResultPart({
        id: "t1",
        name: "Count",
        providerExecuted: false,
        isFailure: false,
        result: { found: 10n }
      })
      const prompt = Prompt.fromMessages([Prompt.toolMessage({ content: [part] })])
      return under(
        Effect.gen(function* () {
          assert.strictEqual((yield* ending(LanguageModel.generateText({ prompt }))).text, "hi")
        }),
        layer
      )
    })

    it.effect("of a stream run after the reservation was settled", () => {
      const { layer } = scripted({ streams: [Stream.fromArray([call, finish("tool-calls")])] })
      return under(
        Effect.gen(function* () {
          const budget = yield* Budget.TokenBudget
          const handlers = Words.toLayer({
            Lookup: () => Effect.map(budget.status, ({ pools }) => ({ found: pools["default"]!.inFlight }))
          })
          const parts = yield* ending(
            LanguageModel.streamText({ prompt: "go", toolkit: Words }).pipe(Stream.runCollect, Effect.provide(handlers))
          )
          assert.deepStrictEqual(
            parts.map(({ type }) => type),
            ["tool-call", "tool-result", "finish"]
          )
          const result = parts.find((part) => part.type === "tool-result")
          assert.deepStrictEqual(result?.result, { found: 0 })
          assert.deepStrictEqual(yield* levels, { requests: 1, input: 100, output: 20 })
        }),
        layer
      )
    })

    it.effect("are not resolved if the caller resolves them", () => {
      const { layer } = scripted({ whole: [[call, finish("tool-calls")]] })
      return under(
        Effect.gen(function* () {
          const response = yield* ending(
            LanguageModel.generateText({ prompt: "go", toolkit: Words, disableToolCallResolution: true })
          )
          assert.deepStrictEqual(response.toolResults, [])
          assert.strictEqual(response.toolCalls.length, 1)
          assert.deepStrictEqual(yield* levels, { requests: 1, input: 100, output: 20 })
        }),
        layer
      )
    })
  })

  describe("a file", () => {
    const reserved = (mediaType: string, data: string | Uint8Array | URL) => {
      const { layer } = scripted({ whole: [[text("Hello")]] })
      const part = Prompt.makePart("file", { mediaType, data })
      const prompt = Prompt.fromMessages([Prompt.makeMessage("user", { content: [part] })])
      // Nothing was counted, so the reservation is kept.
      const ask = Effect.andThen(
        LanguageModel.generateText({ prompt }),
        Effect.map(levels, ({ input }) => input)
      )
      return under(ask, layer)
    }

    it.effect("that is not text does not count by its size", () => {
      const { layer } = scripted({ whole: [[text("Hello"), finish()]] })
      const part = Prompt.makePart("file", { mediaType: "application/pdf", data: "x".repeat(1_000_000) })
      const prompt = Prompt.fromMessages([Prompt.makeMessage("user", { content: [part] })])
      const ask = Effect.map(LanguageModel.generateText({ prompt }), (response) => response.text)
      const limits = { inputTokens: { perMinute: 10_000, window: "bucket" as const } }
      return under(
        Effect.map(ask, (said) => assert.strictEqual(said, "Hello")),
        layer,
        { limits }
      )
    })

    it.effect("of text counts by its length, and others by what a model makes of them", () =>
      Effect.gen(function* () {
        // Regression: a text was reserved as a tenth of it, like a PDF.
        assert.strictEqual(yield* reserved("text/plain", "x".repeat(2_700)), 1_000)
        assert.strictEqual(yield* reserved("text/csv", new Uint8Array(2_700)), 1_000)
        assert.strictEqual(yield* reserved("application/pdf", "x".repeat(27_000)), 1_000)
        // Regression: a recording was reserved as a tenth of it, like a PDF, where models count half a percent.
        assert.strictEqual(yield* reserved("audio/mp3", "x".repeat(540_000)), 1_000)
        assert.strictEqual(yield* reserved("image/png", "x".repeat(27_000)), 1_556)
        assert.strictEqual(yield* reserved("text/plain", new URL("https://example.com/a.txt")), 0)
      })
    )
  })

  describe("objects", () => {
    const Weather = Schema.Struct({ degrees: Schema.FiniteFromString })

    it.effect("are decoded, and settled to their usage", () => {
      const { asked, layer } = scripted({ whole: [[text('{"degrees":"21"}'), finish()]] })
      return under(
        Effect.gen(function* () {
          const response = yield* ending(LanguageModel.generateObject({ prompt: "go", schema: Weather }))
          assert.deepStrictEqual(response.value, { degrees: 21 })
          assert.strictEqual(asked[0]!.responseFormat.type, "json")
          assert.deepStrictEqual(yield* levels, { requests: 1, input: 100, output: 20 })
        }),
        layer
      )
    })

    it.effect("come with tools, too", () => {
      const { layer } = scripted({ whole: [[call, text('{"degrees":"21"}'), finish("tool-calls")]] })
      return under(
        Effect.gen(function* () {
          const response = yield* ending(
            LanguageModel.generateObject({ prompt: "go", schema: Weather, toolkit: Words })
          )
          assert.deepStrictEqual(response.value, { degrees: 21 })
          assert.deepStrictEqual(
            response.toolResults.map(({ result }) => result),
            [{ found: 3 }]
          )
        }).pipe(Effect.provide(Words.toLayer({ Lookup: () => Effect.succeed({ found: 3 }) }))),
        layer
      )
    })

    it.effect("come with tools although their schema only decodes", () => {
      const degrees = Schema.String.pipe(
        Schema.decodeTo(Schema.Finite, {
          decode: SchemaGetter.transform(Number),
          encode: SchemaGetter.forbidden<string, number>(() => "one way")
        })
      )
      const { layer } = scripted({ whole: [[text('{"degrees":"21"}'), finish()]] })
      return under(
        Effect.gen(function* () {
          const schema = Schema.Struct({ degrees })
          const response = yield* ending(LanguageModel.generateObject({ prompt: "go", schema, toolkit: Words }))
          assert.deepStrictEqual(response.value, { degrees: 21 })
        }).pipe(Effect.provide(Words.toLayer({ Lookup: () => Effect.die("not asked for") }))),
        layer
      )
    })

    it.effect("are reserved with the JSON form of their schema, if it has one, with and without tools", () =>
      Effect.gen(function* () {
        // Regression: of a short question with a long schema two bytes were reserved.
        const names = Array.from({ length: 100 }, (_, n) => `property ${n}`)
        const long = Schema.Struct(Object.fromEntries(names.map((name) => [name, Schema.String])))
        const answer = JSON.stringify(Object.fromEntries(names.map((name) => [name, "x"])))
        const reserved = <A, E, R>(ask: Effect.Effect<A, E, R>, json: string) =>
          under(
            Effect.andThen(
              Effect.exit(ask),
              Effect.map(levels, ({ input }) => input)
            ),
            scripted({ whole: [[text(json)]] }).layer
          )
        const tokens = Math.ceil((2 + JSON.stringify(Tool.getJsonSchemaFromSchema(long)).length) / 2.7)
        assert.isAbove(tokens, 1_000)
        const ask = LanguageModel.generateObject({ prompt: "go", schema: long })
        assert.strictEqual(yield* reserved(ask, answer), tokens)
        const none = Toolkit.make()
        const resolved = LanguageModel.generateObject({ prompt: "go", schema: long, toolkit: none })
        assert.strictEqual(yield* reserved(resolved, answer), tokens)
      })
    )

    it.effect("that cannot be decoded are not requested again, because they were paid for", () => {
      const { asked, layer } = scripted({ whole: [[text("no json"), finish()]] })
      return under(
        Effect.gen(function* () {
          const error = yield* ending(Effect.flip(LanguageModel.generateObject({ prompt: "go", schema: Weather })))
          assert.strictEqual(error.reason._tag, "StructuredOutputError")
          assert.isTrue(error.isRetryable)
          assert.strictEqual(asked.length, 1)
          // Kept as estimated: 2 bytes and the schema's, and at most 500 tokens of output.
          const schema = Tool.getJsonSchemaFromSchema(Weather)
          const input = Math.ceil((2 + JSON.stringify(schema).length) / 2.7)
          assert.deepStrictEqual(yield* levels, { requests: 1, input, output: 500 })
        }),
        layer
      )
    })
  })

  describe("failures", () => {
    const overloaded = { type: "error", error: { type: "overloaded_error", message: "Overloaded" } }
    const network = { method: "POST", url: "https://provider.test" } as const
    const table: ReadonlyArray<
      readonly [name: string, reason: AiError.AiErrorReason, isRetried: boolean, requests: number, input: number]
    > = [
      ["429 with its response", new AiError.RateLimitError({ http: http(429) }), true, 0, 0],
      ["429 without", new AiError.RateLimitError({ retryAfter: Duration.seconds(3) }), true, 0, 0],
      [
        "a spend limit that comes as 429",
        new AiError.RateLimitError({
          http: http(429, {
            error: { type: "rate_limit_error", details: { error_code: "enforced_spend_limit_reached" } }
          })
        }),
        false,
        0,
        0
      ],
      ["a quota", new AiError.QuotaExhaustedError({}), false, 0, 0],
      ["529, which the adapter does not know", new AiError.UnknownError({ http: http(529, overloaded) }), true, 1, 0],
      ["500", new AiError.InternalProviderError({ description: "500" }), true, 1, 0],
      ["401", new AiError.AuthenticationError({ kind: "InvalidKey", http: http(401) }), false, 1, 0],
      ["400", new AiError.InvalidRequestError({ http: http(400) }), false, 1, 0],
      [
        "a refused connection",
        new AiError.NetworkError({ ...network, reason: "TransportError", cause: { code: "ECONNREFUSED" } }),
        true,
        0,
        0
      ],
      [
        "a connection that broke",
        new AiError.NetworkError({ ...network, reason: "TransportError", cause: { code: "ECONNRESET" } }),
        true,
        1,
        1
      ],
      ["a URL that is none", new AiError.NetworkError({ ...network, reason: "InvalidUrlError" }), false, 0, 0],
      [
        "output that does not decode, and says what it used",
        new AiError.InvalidOutputError({ description: "x", usage: { promptTokens: 7, completionTokens: 3 } }),
        false,
        1,
        7
      ]
    ]
    for (const [name, reason, isRetried, requests, input] of table) {
      const outcome = isRetried ? "retried" : "not retried"
      it.effect(`${name}: ${outcome}, ${requests} request(s) and ${input} token(s) of input kept`, () => {
        const { asked, layer } = scripted({ whole: [reason, [text("ok"), finish()]] })
        return under(
          Effect.gen(function* () {
            const result = yield* ending(Effect.result(LanguageModel.generateText({ prompt: "hi" })))
            const kept = yield* levels
            if (isRetried) {
              assert.isTrue(Result.isSuccess(result))
              assert.strictEqual(asked.length, 2)
              assert.deepStrictEqual([kept.requests - 1, kept.input - 100], [requests, input])
            } else {
              assert.strictEqual(Result.isFailure(result) && result.failure.reason, reason)
              assert.strictEqual(asked.length, 1)
              assert.deepStrictEqual([kept.requests, kept.input], [requests, input])
            }
          }),
          layer
        )
      })
    }

    it.effect("of a provider that fails again and again pause the pool, and use up no attempts", () => {
      const down = new AiError.UnknownError({ http: http(500) })
      const { layer } = scripted({ whole: [down, down, down, down, down, [text("ok"), finish()]] })
      return under(
        Effect.gen(function* () {
          const budget = yield* Budget.TokenBudget
          const pauses = yield* Effect.forkChild(
            Stream.runHead(
              Stream.filterMap(budget.changes, ({ pools }) =>
                Result.fromNullishOr(pools["default"]?.pause, () => "none")
              )
            )
          )
          const { text } = yield* ending(LanguageModel.generateText({ prompt: "hi" }))
          assert.strictEqual(text, "ok")
          assert.strictEqual(Option.getOrUndefined(yield* Fiber.join(pauses))?.reason, "overload")
        }),
        layer
      )
    })

    it.effect("wait as long as the response asks", () => {
      const reason = new AiError.RateLimitError({ http: http(429, {}, { "retry-after": "20" }) })
      const { asked, layer } = scripted({ whole: [reason, [text("ok"), finish()]] })
      return under(
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(LanguageModel.generateText({ prompt: "hi" }), {
            startImmediately: true
          })
          yield* TestClock.adjust("19999 millis")
          assert.strictEqual(asked.length, 1)
          yield* TestClock.adjust("10 seconds")
          assert.strictEqual((yield* Fiber.join(fiber)).text, "ok")
        }),
        layer
      )
    })

    it.effect("of the budget are AiErrors with its reason", () => {
      const { asked, layer } = scripted({})
      return under(
        Effect.gen(function* () {
          const large = yield* Effect.flip(LanguageModel.generateText({ prompt: "x".repeat(100_000) }))
          assert.strictEqual(large.reason._tag, "InvalidRequestError")
          assert.match(JSON.stringify(large.reason), /"floodgate":\{"reason":"EstimateTooLarge"/)
          assert.strictEqual(asked.length, 0)
        }),
        layer
      )
    })

    it.effect("of a retry that the budget refuses name the failure before it", () => {
      const { layer } = scripted({ whole: [new AiError.UnknownError({ http: http(529, overloaded) })] })
      return under(
        Effect.gen(function* () {
          const budget = yield* Budget.TokenBudget
          const fiber = yield* Effect.forkChild(Effect.flip(LanguageModel.generateText({ prompt: "hi" })), {
            startImmediately: true
          })
          // One call is in flight and one waits, so the queue is full.
          for (const _ of [1, 2]) {
            yield* Effect.forkChild(budget.reserve({ tokens: 1 }), { startImmediately: true })
            yield* TestClock.adjust("500 millis")
          }
          const { reason } = yield* Fiber.join(fiber)
          assert.match(JSON.stringify(reason), /"reason":"QueueFull","message":".*after: the provider is overloaded/)
        }).pipe(Effect.scoped),
        layer,
        { concurrency: 1, maxQueued: 1 }
      )
    })

    it.effect("of a wait that is too long say how long it would be", () => {
      const { layer } = scripted({ whole: [[text("ok"), finish()]] })
      return under(
        Effect.gen(function* () {
          yield* LanguageModel.generateText({ prompt: "hi" })
          const error = yield* Effect.flip(LanguageModel.generateText({ prompt: "hi" }))
          assert.strictEqual(error.reason._tag, "RateLimitError")
          assert.strictEqual(Duration.toMillis(error.retryAfter!), 60_000)
        }),
        layer,
        { limits: { requests: { perMinute: 1, burst: 1, window: "bucket" } } },
        { maxWait: "1 second" }
      )
    })

    it.effect("of a deadline that would be missed are not retried by a caller", () => {
      // Regression: the wait that was too long was given as a retryAfter.
      const { layer } = scripted({ whole: [[text("ok"), finish()]] })
      return under(
        Effect.gen(function* () {
          yield* LanguageModel.generateText({ prompt: "hi" })
          const late = Retry.withDeadline(LanguageModel.generateText({ prompt: "hi" }), "1 second")
          const { isRetryable, message, retryAfter } = yield* Effect.flip(late)
          assert.deepStrictEqual([isRetryable, retryAfter], [false, undefined])
          assert.include(message, "longer than the 1s to its deadline")
        }),
        layer,
        { limits: { requests: { perMinute: 1, burst: 1, window: "bucket" } } }
      )
    })

    it.effect("of a deadline that has passed are not retried by a caller", () => {
      const { asked, layer } = scripted({})
      const late = Effect.andThen(Effect.sleep(2), LanguageModel.generateText({ prompt: "hi" }))
      return under(
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(Effect.flip(Retry.withDeadline(late, 1)))
          yield* TestClock.adjust(2)
          const { isRetryable, message } = yield* Fiber.join(fiber)
          assert.isFalse(isRetryable)
          assert.include(message, "The deadline of the call passed")
          assert.strictEqual(asked.length, 0)
        }),
        layer
      )
    })
  })

  describe("streams", () => {
    const delta = (delta: string): Response.StreamPartEncoded => ({ type: "text-delta", id: "1", delta })
    const begin: Response.StreamPartEncoded = { type: "response-metadata", id: "r1", modelId: "m-1" }
    const start: Response.StreamPartEncoded = { type: "text-start", id: "1" }
    const failed: Response.StreamPartEncoded = { type: "error", error: { type: "overloaded_error", message: "later" } }
    const types = Effect.map(Stream.runCollect(LanguageModel.streamText({ prompt: "hi" })), (parts) =>
      parts.map(({ type }) => type)
    )

    it.effect("are retried while they have no content, an error part included", () => {
      const { asked, layer } = scripted({
        streams: [Stream.make(begin, start, failed), Stream.make(begin, delta("a"), finish())]
      })
      return under(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* ending(types), ["response-metadata", "text-delta", "finish"])
          assert.strictEqual(asked.length, 2)
          assert.deepStrictEqual(yield* levels, { requests: 2, input: 100, output: 20 })
        }),
        layer
      )
    })

    it.effect("give the error part when they give up", () => {
      const { layer } = scripted({ streams: [Stream.make(begin, failed)] })
      return under(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* ending(types), ["response-metadata", "error"])
          assert.strictEqual((yield* levels).input, 0)
        }),
        layer,
        {},
        { retry: Retry.make({ attempts: 1 }) }
      )
    })

    it.effect("are not retried after content, and settle to what was observed", () => {
      const broken = Stream.concat(
        Stream.make(begin, delta("x".repeat(27))),
        Stream.fail(aiError(new AiError.InternalProviderError({ description: "later" })))
      )
      const { asked, layer } = scripted({ streams: [broken] })
      return under(
        Effect.gen(function* () {
          assert.isTrue(Exit.isFailure(yield* ending(Effect.exit(types))))
          assert.strictEqual(asked.length, 1)
          assert.deepStrictEqual(yield* levels, { requests: 1, input: 1, output: 10 })
        }),
        layer
      )
    })

    it.effect("succeed once with their finish part, whether or not the consumer reads on", () => {
      // Regression: consumers that left with the finish counted as interrupted, and nothing was learned of their calls.
      const broken = Stream.fail(aiError(new AiError.InternalProviderError({ description: "later" })))
      const answer = [begin, delta("a"), finish()]
      const { layer } = scripted({
        streams: [Stream.never, broken, Stream.empty].map((after) => Stream.concat(Stream.fromArray(answer), after))
      })
      const toItsEnd = LanguageModel.streamText({ prompt: "hi" }).pipe(
        Stream.takeUntil(({ type }) => type === "finish"),
        Stream.runDrain
      )
      return under(
        Effect.gen(function* () {
          yield* ending(toItsEnd)
          assert.isTrue(Exit.isFailure(yield* ending(Effect.exit(types))))
          yield* ending(types)
          const { learned } = yield* Governor.Governor
          assert.deepStrictEqual((yield* learned).profiles.at(-1)?.outputs, [20, 20, 20])
          assert.deepStrictEqual(yield* levels, { requests: 3, input: 300, output: 60 })
        }),
        layer
      )
    })

    it.effect("fail with their error part, whether or not the consumer reads on", () => {
      const overloaded = Stream.concat(Stream.make(begin, delta("a"), failed), Stream.never)
      const { layer } = scripted({ streams: [overloaded, overloaded] })
      const toItsEnd = LanguageModel.streamText({ prompt: "hi" }).pipe(
        Stream.takeUntil(({ type }) => type === "error"),
        Stream.runDrain
      )
      return under(
        Effect.gen(function* () {
          yield* ending(toItsEnd)
          yield* toItsEnd
          const { pause } = (yield* (yield* Budget.TokenBudget).status).pools["default"]!
          assert.strictEqual(pause?.reason, "overload")
        }),
        layer
      )
    })

    it.effect("that end without a finish settle to what was observed", () => {
      const { layer } = scripted({ streams: [Stream.make(begin, delta("x".repeat(27)))] })
      return under(
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* ending(types), ["response-metadata", "text-delta"])
          assert.deepStrictEqual(yield* levels, { requests: 1, input: 1, output: 10 })
        }),
        layer
      )
    })

    it.effect("that are interrupted settle to what was observed", () => {
      const { layer } = scripted({ streams: [Stream.concat(Stream.make(begin, delta("x".repeat(27))), Stream.never)] })
      return under(
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(types)
          yield* TestClock.adjust("1 second")
          yield* Fiber.interrupt(fiber)
          assert.deepStrictEqual(yield* levels, { requests: 1, input: 1, output: 10 })
        }),
        layer
      )
    })
  })

  describe("make", () => {
    it.effect("takes the model's name from effect/ai's Model", () => {
      const { layer } = scripted({ whole: [[text("ok"), finish()]] })
      return Effect.gen(function* () {
        yield* LanguageModel.generateText({ prompt: "hi" })
        assert.deepStrictEqual(Object.keys((yield* (yield* Budget.TokenBudget).status).pools), ["sonnet-5"])
      }).pipe(
        Effect.provide(
          FloodgateAi.layer().pipe(
            Layer.provide(Model.make("anthropic", "claude-sonnet-5", layer)),
            Layer.provide(Governor.layer()),
            Layer.provideMerge(Budget.layer())
          )
        )
      )
    })

    it.effect("names what is missing without a model's name", () =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(
          Effect.scoped(
            Layer.build(
              FloodgateAi.layer().pipe(
                Layer.provide(scripted({}).layer),
                Layer.provide(Governor.layer()),
                Layer.provide(Budget.layer())
              )
            )
          )
        )
        assert.match(String(Exit.isFailure(exit) ? exit.cause : exit), /FloodgateAi.make: model: expected a name/)
      })
    )

    it.effect("reads the headers of the finish part", () => {
      const headers = {
        "anthropic-ratelimit-input-tokens-limit": "100000",
        "anthropic-ratelimit-input-tokens-remaining": "5000"
      }
      const { layer } = scripted({ whole: [[text("ok"), finish("stop", headers)]] })
      return under(
        Effect.gen(function* () {
          yield* LanguageModel.generateText({ prompt: "hi" })
          const { dimensions } = (yield* (yield* Budget.TokenBudget).status).pools["default"]!
          assert.isAtMost(dimensions.inputTokens!.level, 5_000)
        }),
        layer,
        { limits: { inputTokens: { perMinute: 100_000, window: "bucket" } } }
      )
    })
  })
})
