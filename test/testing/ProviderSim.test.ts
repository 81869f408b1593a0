import type {
  DocumentBlockParam,
  MessageParam,
  RawMessageStreamEvent
} from "@anthropic-ai/sdk/resources/messages/messages"
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import type { LlmError } from "floodgate/LlmError"
import { LlmProvider } from "floodgate/LlmProvider"
import type { Params } from "floodgate/LlmProvider"
import * as Presets from "floodgate/Presets"
import { ProviderSim, Simulation } from "floodgate/testing"
import { sized } from "../support/size.ts"

const params = (characters: number, options: Partial<Params> = {}): Params => ({
  model: "claude-sonnet-5",
  max_tokens: 1_000,
  messages: [{ role: "user", content: "x".repeat(characters) }],
  ...options
})

const create = (params: Params) => Effect.flatMap(LlmProvider, (provider) => provider.create(params))
const sim = <A>(f: (sim: ProviderSim.ProviderSim["Service"]) => Effect.Effect<A>) =>
  Effect.flatMap(ProviderSim.ProviderSim, f)

/** Runs to its end in simulated time. */
const within = <A, E, R>(effect: Effect.Effect<A, E, R>, time: Duration.Input) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(effect)
    yield* TestClock.adjust(time)
    return yield* Fiber.join(fiber)
  })

const simulate = <A, E, R>(
  options: ProviderSim.Options,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, LlmProvider | ProviderSim.ProviderSim>> =>
  Effect.provide(effect, ProviderSim.layer(options))

const latency = { baseMillis: 1_000, perInputTokenMillis: 1, perOutputTokenMillis: 10 }

describe("ProviderSim", () => {
  describe("create", () => {
    it.effect("answers after the latency of its tokens, not a millisecond earlier", () =>
      simulate(
        { latency, outputTokens: 50 },
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(create(params(400)))
          yield* TestClock.adjust(1_599)
          assert.isUndefined(fiber.pollUnsafe())
          assert.strictEqual(yield* sim((sim) => sim.inFlight), 1)
          yield* TestClock.adjust(1)
          const { requestId, value } = yield* Fiber.join(fiber)
          assert.deepStrictEqual([value.usage.input_tokens, value.usage.output_tokens], [100, 50])
          assert.strictEqual(value.stop_reason, "end_turn")
          assert.strictEqual(requestId, "req_sim_00000001")
          const [entry] = yield* sim((sim) => sim.log)
          assert.deepStrictEqual([entry!.at, entry!.finishedAt, entry!.producedTokens], [0, 1_600, 50])
        })
      )
    )

    it.effect("never outputs more than max_tokens", () =>
      simulate(
        { outputTokens: 5_000 },
        Effect.gen(function* () {
          const { value } = yield* within(create(params(4, { max_tokens: 100 })), "1 minute")
          assert.strictEqual(value.usage.output_tokens, 100)
          assert.strictEqual(value.stop_reason, "max_tokens")
        })
      )
    )

    it.effect("logs the agent of a call, however it was named", () =>
      Effect.gen(function* () {
        const call = (options?: LlmClient.CallOptions, more?: Partial<Params>) =>
          LlmClient.create(params(4, more), options)
        const calls = Effect.all([
          call({ agent: "option" }),
          Stream.runDrain(LlmClient.stream(params(4), { agent: "stream" })),
          Effect.provideService(call(), Budget.Agent, "reference"),
          Agents.run([{ key: "job", effect: call() }]),
          call({ agent: "option" }, { metadata: { user_id: "metadata" } }),
          call()
        ])
        yield* Simulation.run(calls)
        const log = yield* sim((sim) => sim.log)
        assert.deepStrictEqual(
          log.map(({ agent }) => agent),
          ["option", "stream", "reference", "job", "metadata", "default"]
        )
      }).pipe(
        Effect.provide(
          LlmClient.layerProvider().pipe(
            Layer.provideMerge(Agents.layer),
            Layer.provide(Budget.layer()),
            Layer.provideMerge(ProviderSim.layer())
          )
        )
      )
    )

    it.effect("returns a copy of the log", () =>
      simulate(
        {},
        Effect.gen(function* () {
          yield* Effect.forkChild(create(params(40)))
          yield* TestClock.adjust(1)
          const [before] = yield* sim((sim) => sim.log)
          yield* TestClock.adjust("1 minute")
          const [after] = yield* sim((sim) => sim.log)
          assert.deepStrictEqual([before!.finishedAt, before!.producedTokens], [undefined, 0])
          assert.isAbove(after!.producedTokens, 0)
        })
      )
    )

    it.effect("counts files as a model sees them, and not their base64", () =>
      simulate(
        {},
        Effect.gen(function* () {
          const data = "A".repeat(40_000)
          const image = { type: "image", source: { type: "base64", media_type: "image/png", data } } as const
          const pdf = { type: "base64", media_type: "application/pdf", data } as const
          const count = (content: MessageParam["content"]) =>
            LlmProvider.use((provider) =>
              provider.countTokens({ model: "claude-sonnet-5", messages: [{ role: "user", content }] })
            )
          const documents: ReadonlyArray<DocumentBlockParam["source"]> = [
            pdf,
            { type: "content", content: [image, { type: "text", text: "x".repeat(40) }] },
            { type: "content", content: "x".repeat(40) },
            { type: "text", media_type: "text/plain", data: "x".repeat(40) }
          ]
          const counts = yield* Effect.forEach(documents, (source) => count([{ type: "document", source }]))
          assert.deepStrictEqual(
            counts.map(({ value }) => value),
            [1_000, 1_578, 10, 10]
          )
          assert.strictEqual((yield* count([image])).value, 1_568)
        })
      )
    )

    it.effect("answers from the given document, and counts the system prompt and tools as input", () =>
      simulate(
        {},
        Effect.gen(function* () {
          const document = [
            "# The water gate",
            "The gate was built in 1911 to keep the harbour calm. It still works.",
            "## Upkeep",
            "Every spring the hinges are greased by two volunteers. They take turns.",
            "- a list item that says nothing",
            `${"Further down there is a long paragraph about the tides. ".repeat(8)}`
          ].join("\n\n")
          const { value } = yield* within(
            create({ ...params(0), system: "s".repeat(40), messages: [{ role: "user", content: document }] }),
            "1 minute"
          )
          const [block] = value.content
          if (block?.type !== "text") assert.fail("expected text")
          assert.strictEqual(
            block.text,
            [
              "Topics: The water gate; Upkeep.",
              "",
              "- The gate was built in 1911 to keep the harbour calm.",
              "- Every spring the hinges are greased by two volunteers.",
              "- Further down there is a long paragraph about the tides."
            ].join("\n")
          )
          assert.strictEqual(value.usage.input_tokens, Math.ceil((document.length + 40) / 4))
          assert.strictEqual(value.usage.output_tokens, Math.ceil(block.text.length / 4))
        })
      )
    )

    it.effect("rejects with the dimension, the provider's figures and a wait in whole seconds", () =>
      simulate(
        { limits: { requests: { perMinute: 100 }, inputTokens: { perSecond: 1_000, burst: 10_000 } }, latency },
        Effect.gen(function* () {
          yield* Effect.forkChild(create(params(36_000)))
          yield* TestClock.adjust(100)
          const error = yield* Effect.flip(create(params(8_800)))
          assert.strictEqual(error.reason._tag, "RateLimited")
          // 1,100 tokens are left of 2,200: 1.1 s.
          assert.deepStrictEqual(error.retryAfter, Duration.seconds(2))
          assert.isTrue(error.isRetryable)
          assert.deepStrictEqual(error.signal?.dimensions.inputTokens, {
            limit: 60_000,
            remaining: 1_000,
            roundedTo: 1_000
          })
          assert.strictEqual(error.signal?.dimensions.requests?.remaining, 99)
          const [, entry] = yield* sim((sim) => sim.log)
          assert.deepStrictEqual(
            [entry!.outcome, entry!.rejectedBy, entry!.retryAfterMillis],
            ["rejected", "inputTokens", 1_100]
          )
        })
      )
    )

    it.effect("frees the slot of an interrupted call and keeps its input counted", () =>
      simulate(
        { limits: { inputTokens: { perMinute: 1_000 } }, concurrency: 1, latency },
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(create(params(2_000)))
          yield* TestClock.adjust(500)
          const busy = yield* Effect.flip(create(params(4)))
          assert.match(busy.message, /concurrent connections/)
          yield* Fiber.interrupt(fiber)
          const stats = yield* sim((sim) => sim.stats)
          assert.deepStrictEqual([stats.inFlight, stats.aborted, stats.rejectionsBy.concurrency], [0, 1, 1])
          const left = yield* sim((sim) => sim.left("claude-sonnet-5"))
          assert.closeTo(left.inputTokens!, 500 + 500 / 60, 1e-6)
        })
      )
    )

    it.effect(
      "answers a queued call one latency after a slot is free, and starts the next one of an interrupted call",
      () =>
        simulate(
          { concurrency: 1, queue: 3, latency: { ...latency, perInputTokenMillis: 0 }, outputTokens: 0 },
          Effect.gen(function* () {
            const [first, second, third] = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(create(params(4))))
            const streamed = yield* Effect.forkChild(
              Effect.flatMap(LlmProvider, (provider) =>
                Effect.scoped(Effect.flatMap(provider.stream(params(4)), ({ value }) => Stream.runDrain(value)))
              )
            )
            yield* TestClock.adjust(1_999)
            assert.isDefined(first!.pollUnsafe())
            assert.isUndefined(second!.pollUnsafe())
            yield* TestClock.adjust(1)
            assert.isDefined(second!.pollUnsafe())
            yield* TestClock.adjust(100)
            yield* Fiber.interrupt(third!)
            yield* TestClock.adjust(999)
            assert.isUndefined(streamed.pollUnsafe())
            yield* TestClock.adjust(1)
            assert.isDefined(streamed.pollUnsafe())
            const { aborted, completed, peakInFlight, queued } = yield* sim((sim) => sim.stats)
            assert.deepStrictEqual([aborted, completed, peakInFlight, queued], [1, 3, 1, 0])
          })
        )
    )

    it.effect(
      "gives up on a call that is queued for ten minutes, as the client does, and takes it out of the queue",
      () =>
        simulate(
          {
            concurrency: 1,
            queue: 1,
            latency: { ...latency, baseMillis: 540_000 },
            faults: [{ kind: "stall", calls: [1] }]
          },
          Effect.gen(function* () {
            yield* Effect.forkChild(create(params(4)))
            yield* TestClock.adjust(100)
            const error = yield* within(Effect.flip(create(params(4))), "10 minutes")
            assert.strictEqual(error.reason._tag, "TimedOut")
            assert.strictEqual((yield* sim((sim) => sim.stats)).queued, 0)
          })
        )
    )

    it.effect("answers 503 if it is busy, where that is its status", () =>
      simulate(
        { concurrency: 1, busyStatus: 503, latency },
        Effect.gen(function* () {
          yield* Effect.forkChild(create(params(4)))
          yield* TestClock.adjust(100)
          const { reason } = yield* Effect.flip(create(params(4)))
          assert.deepInclude(reason, { _tag: "Overloaded", status: 503 })
          const [, entry] = yield* sim((sim) => sim.log)
          assert.deepStrictEqual([entry!.outcome, entry!.status, entry!.rejectedBy], ["rejected", 503, "concurrency"])
        })
      )
    )

    it.effect("sends exact, OpenAI's, no or wrong headers, as configured", () =>
      Effect.gen(function* () {
        const signal = (headers: ProviderSim.Options["headers"]) =>
          simulate(
            { headers, limits: { inputTokens: { perMinute: 10_000 } }, latency, outputTokens: 0 },
            within(create(params(4_444)), "1 minute")
          ).pipe(Effect.map(({ signal }) => signal?.dimensions))
        const figures = { limit: 10_000, roundedTo: 1 }
        assert.deepStrictEqual(yield* signal("exact"), {
          inputTokens: { ...figures, remaining: 9_240 }
        })
        assert.deepStrictEqual(yield* signal("openai"), { tokens: { ...figures, remaining: 9_240 } })
        assert.isUndefined(yield* signal("none"))
        assert.deepStrictEqual(yield* signal("wrong"), {
          inputTokens: { limit: 20_000, remaining: 20_000, roundedTo: 1 }
        })
      })
    )

    it.effect("does not count cached tokens as input", () =>
      simulate(
        { cachedShare: 0.75, limits: { inputTokens: { perMinute: 1_000 } }, latency, outputTokens: 0 },
        Effect.gen(function* () {
          const { value } = yield* within(create(params(4_000)), 5_000)
          assert.deepStrictEqual([value.usage.input_tokens, value.usage.cache_read_input_tokens], [250, 750])
          assert.strictEqual((yield* sim((sim) => sim.log))[0]!.left.inputTokens, 750)
        })
      )
    )
  })

  describe("tool calls", () => {
    const call = { type: "tool_use", name: "search", input: { query: "x".repeat(40) } } as const

    it.effect("are blocks with an id, counted as output, and stop the answer", () =>
      simulate(
        { reply: () => ["Let me look.", call] },
        Effect.gen(function* () {
          const { value } = yield* within(create(params(40)), "1 minute")
          assert.strictEqual(value.stop_reason, "tool_use")
          assert.deepStrictEqual(
            value.content.map((block) => (block.type === "text" ? block.text : { ...block, caller: undefined })),
            ["Let me look.", { ...call, id: "toolu_sim_00000001_1", caller: undefined }]
          )
          const characters = "Let me look.".length + JSON.stringify(call.input).length
          assert.strictEqual(value.usage.output_tokens, Math.ceil(characters / 4))
        })
      )
    )

    it.effect("are left out when max_tokens cuts them off", () =>
      simulate(
        { reply: () => ["Let me look.", call] },
        Effect.gen(function* () {
          const { value } = yield* within(create(params(40, { max_tokens: 10 })), "1 minute")
          assert.strictEqual(value.stop_reason, "max_tokens")
          assert.deepStrictEqual(
            value.content.map(({ type }) => type),
            ["text"]
          )
        })
      )
    )

    it.effect("are streamed as pieces of JSON, one block after another", () =>
      simulate(
        { reply: () => ["Let me look.", call], latency },
        Effect.gen(function* () {
          const provider = yield* LlmProvider
          const stream = Effect.flatMap(provider.stream(params(40)), ({ value }) => Stream.runCollect(value))
          const events = yield* within(Effect.scoped(stream), "1 minute")
          const json = events.map((event) =>
            event.type === "content_block_delta" && event.delta.type === "input_json_delta"
              ? event.delta.partial_json
              : ""
          )
          assert.isAbove(json.filter((piece) => piece !== "").length, 1)
          assert.deepStrictEqual(JSON.parse(json.join("")), call.input)
          const indexes = events.flatMap((event) => ("index" in event ? [event.index] : []))
          assert.deepStrictEqual(
            indexes,
            indexes.toSorted((a, b) => a - b)
          )
          const last = events.at(-2)!
          assert.strictEqual(last.type === "message_delta" && last.delta.stop_reason, "tool_use")
        })
      )
    )
  })

  describe("stream", () => {
    const collect = (
      params: Params
    ): Effect.Effect<Array<readonly [number, RawMessageStreamEvent]>, unknown, LlmProvider | Scope.Scope> =>
      Effect.gen(function* () {
        const provider = yield* LlmProvider
        const { value } = yield* provider.stream(params)
        return yield* value.pipe(
          Stream.mapEffect((event) => Effect.map(Clock.currentTimeMillis, (at) => [at, event] as const)),
          Stream.runCollect
        )
      })

    it.effect("spreads the deltas over the time of the output and ends with the usage", () =>
      simulate(
        { latency, outputTokens: 30, reply: () => "abcdefghij".repeat(12) },
        Effect.gen(function* () {
          const events = yield* within(Effect.scoped(collect(params(400))), "1 minute")
          assert.deepStrictEqual(
            events.map(([at, { type }]) => `${at} ${type}`),
            [
              "1100 message_start",
              "1100 content_block_start",
              "1160 content_block_delta",
              "1220 content_block_delta",
              "1280 content_block_delta",
              "1340 content_block_delta",
              "1400 content_block_delta",
              "1400 content_block_stop",
              "1400 message_delta",
              "1400 message_stop"
            ]
          )
          const last = events.at(-2)![1]
          assert.deepStrictEqual(
            last.type === "message_delta" && [last.usage.input_tokens, last.usage.output_tokens],
            [100, 30]
          )
          assert.strictEqual((yield* sim((sim) => sim.stats)).completed, 1)
        })
      )
    )

    it.effect("aborts the call when its scope closes early, with the output so far", () =>
      simulate(
        { latency, outputTokens: 1_000, reply: () => "abcdefghij".repeat(400) },
        Effect.gen(function* () {
          const provider = yield* LlmProvider
          const some = Effect.flatMap(provider.stream(params(400)), ({ value }) =>
            Stream.runCollect(Stream.take(value, 50))
          )
          assert.strictEqual((yield* within(Effect.scoped(some), "1 minute")).length, 50)
          const [entry] = yield* sim((sim) => sim.log)
          assert.isTrue(entry!.aborted)
          assert.closeTo(entry!.producedTokens, (48 / 167) * 1_000, 3)
        })
      )
    )

    it.effect("is rejected before it opens", () =>
      simulate(
        { limits: { inputTokens: { perMinute: 10 } } },
        Effect.gen(function* () {
          const provider = yield* LlmProvider
          const error = yield* Effect.flip(Effect.scoped(provider.stream(params(400))))
          assert.strictEqual(error.reason._tag, "RateLimited")
        })
      )
    )

    for (const kind of ["cut", "truncated"] as const) {
      it.effect(`fails with what was received when it is ${kind}`, () =>
        simulate(
          { latency, outputTokens: 1_000, reply: () => "abcdefghij".repeat(400), faults: [{ kind }] },
          Effect.gen(function* () {
            const exit = yield* Effect.exit(within(Effect.scoped(collect(params(400))), "1 minute"))
            const error = yield* Effect.flip(Effect.failCause(Exit.isFailure(exit) ? exit.cause : assert.fail()))
            const reason = (error as { reason: { _tag: string; kind: string; received: { text: string } } }).reason
            assert.deepStrictEqual([reason._tag, reason.kind], ["StreamInterrupted", kind])
            assert.isAtLeast(reason.received.text.length, 900)
            assert.isAtMost(reason.received.text.length, 3_100)
            assert.strictEqual((yield* sim((sim) => sim.stats)).broken, 1)
          })
        )
      )
    }

    it.effect("fails at its end if it is malformed, after everything before was delivered", () =>
      simulate(
        { latency, outputTokens: 1_000, reply: () => "abcdefghij".repeat(400), faults: [{ kind: "malformed" }] },
        Effect.gen(function* () {
          const exit = yield* Effect.exit(within(Effect.scoped(collect(params(400))), "1 minute"))
          const error = yield* Effect.flip(Effect.failCause(Exit.isFailure(exit) ? exit.cause : assert.fail()))
          const reason = (error as { reason: { _tag: string; received: { text: string } } }).reason
          assert.strictEqual(reason._tag, "MalformedResponse")
          assert.isAtLeast(reason.received.text.length, 3_500)
          assert.strictEqual((yield* sim((sim) => sim.stats)).broken, 1)
        })
      )
    )

    it.effect("gives up a stream after a minute of silence, as the real client does", () =>
      simulate(
        { latency, outputTokens: 1_000, reply: () => "abcdefghij".repeat(400), faults: [{ kind: "stall" }] },
        Effect.gen(function* () {
          const seen: Array<number> = []
          const self = Effect.gen(function* () {
            const provider = yield* LlmProvider
            const { value } = yield* provider.stream(params(400))
            yield* Stream.runForEach(value, () => Effect.map(Clock.currentTimeMillis, (at) => seen.push(at)))
          })
          const { value: error } = yield* Simulation.run(Effect.flip(Effect.scoped(self)))
          assert.strictEqual(yield* Clock.currentTimeMillis, seen.at(-1)! + 60_000)
          const { reason } = error
          if (reason._tag !== "StreamInterrupted") return assert.fail(reason._tag)
          assert.strictEqual(reason.kind, "stalled")
          assert.isAtLeast(reason.received.text.length, 900)
          const [entry] = yield* sim((sim) => sim.log)
          assert.strictEqual(reason.received.usage.outputTokens, entry!.producedTokens)
          const stats = yield* sim((sim) => sim.stats)
          assert.deepStrictEqual([stats.inFlight, stats.aborted], [0, 1])
        })
      )
    )
  })

  describe("an answer that takes too long", () => {
    const patience: ReadonlyArray<readonly [what: string, options: ProviderSim.Options]> = [
      ["stalls", { outputTokens: 100, faults: [{ kind: "stall" }] }],
      ["is long", { outputTokens: 60_001, latency: { baseMillis: 0, perInputTokenMillis: 0 } }],
      ["never comes", { faults: [{ kind: "timeout", afterMillis: 3_600_000 }] }]
    ]
    for (const [what, options] of patience) {
      it.effect(`is given up after ten minutes, as by the real client: ${what}`, () =>
        simulate(
          options,
          Effect.gen(function* () {
            const fiber = yield* Effect.forkChild(Effect.flip(create(params(400, { max_tokens: 100_000 }))))
            yield* TestClock.adjust(599_999)
            assert.isUndefined(fiber.pollUnsafe())
            yield* TestClock.adjust(1)
            const { reason } = yield* Fiber.join(fiber)
            assert.deepStrictEqual([reason._tag, "after" in reason && reason.after], ["TimedOut", Duration.minutes(10)])
            const stats = yield* sim((sim) => sim.stats)
            assert.deepStrictEqual([stats.inFlight, stats.aborted], [0, 1])
          })
        )
      )
    }

    it.effect("is waited for if it is streamed", () =>
      simulate(
        { outputTokens: 60_001, latency: { baseMillis: 0, perInputTokenMillis: 0 } },
        Effect.gen(function* () {
          const self = Effect.flatMap(LlmProvider, (provider) =>
            Effect.flatMap(provider.stream(params(400, { max_tokens: 100_000 })), ({ value }) => Stream.runDrain(value))
          )
          const { duration } = yield* Simulation.run(Effect.scoped(self))
          assert.strictEqual(Duration.toMillis(duration), 600_010)
        })
      )
    )
  })

  describe("a request that makes no sense", () => {
    const valid = params(40)
    const wrong: ReadonlyArray<readonly [request: object, message: string]> = [
      [{ ...valid, max_tokens: undefined }, "max_tokens: expected an integer above 0"],
      [{ ...valid, max_tokens: 0.5 }, "max_tokens: expected an integer above 0"],
      [{ ...valid, model: undefined }, "model: Field required"],
      [{ ...valid, messages: undefined }, "messages: Field required"],
      [{ ...valid, messages: [{ role: "user" }] }, "messages.0.content: Field required"]
    ]
    for (const [request, message] of wrong) {
      it.effect(`is refused as over HTTP: ${message}`, () =>
        simulate(
          {},
          Effect.gen(function* () {
            const provider = yield* LlmProvider
            const asked = request as Params
            const failures: ReadonlyArray<Effect.Effect<unknown, LlmError>> = [
              provider.create(asked),
              Effect.scoped(provider.stream(asked))
            ]
            for (const { reason } of yield* Effect.forEach(failures, Effect.flip)) {
              assert.deepStrictEqual([reason._tag, reason.status, reason.detail], ["InvalidRequest", 400, message])
            }
            assert.strictEqual((yield* sim((sim) => sim.stats)).requests, 0)
          })
        )
      )
    }
  })

  describe("faults", () => {
    const tagOf = (fault: ProviderSim.Fault) =>
      simulate({ faults: [fault], latency }, within(Effect.flip(create(params(40))), "5 minutes")).pipe(
        Effect.map((error) => error.reason._tag)
      )

    it.effect("map to the errors that a real provider's client gives", () =>
      Effect.gen(function* () {
        const kinds = [
          ...(["400", "401", "404", "429", "529", "500"] as const),
          ...(["timeout", "refused", "cut", "truncated", "malformed"] as const)
        ]
        assert.deepStrictEqual(yield* Effect.forEach(kinds, (kind) => tagOf({ kind })), [
          "InvalidRequest",
          "AccessDenied",
          "InvalidRequest",
          "RateLimited",
          "Overloaded",
          "ServerFailed",
          "TimedOut",
          "ConnectionFailed",
          "ConnectionFailed",
          "ConnectionFailed",
          "MalformedResponse"
        ])
        assert.strictEqual(yield* tagOf({ kind: "429", errorCode: "ramp_limit_exceeded" }), "RampLimited")
        assert.strictEqual(yield* tagOf({ kind: "429", errorCode: "enforced_spend_limit_reached" }), "SpendLimited")
      })
    )

    it.effect("are read as the real client reads them, whatever the code", () =>
      Effect.gen(function* () {
        const reasonOf = (errorCode: string) =>
          simulate(
            { faults: [{ kind: "429", errorCode }] },
            Effect.map(Effect.flip(create(params(4))), ({ reason }) => reason)
          )
        const codes = ["slow_down", "insufficient_quota", "project_spend_limit_exceeded", "a_code_of_tomorrow"]
        const reasons = yield* Effect.forEach(codes, reasonOf)
        assert.deepStrictEqual(
          reasons.map(({ _tag }) => _tag),
          ["RampLimited", "SpendLimited", "SpendLimited", "RateLimited"]
        )
        const spent = yield* reasonOf("enforced_spend_limit_reached")
        assert.strictEqual(
          spent._tag === "SpendLimited" && spent.resumesAt && DateTime.formatIso(spent.resumesAt),
          "1970-02-01T00:00:00.000Z"
        )
      })
    )

    it.effect("of an outage end with it, to the millisecond", () =>
      simulate(
        { faults: [ProviderSim.outage(1_000, 2_000)], latency: { baseMillis: 0 } },
        Effect.gen(function* () {
          const at = (time: number) =>
            Effect.andThen(TestClock.setTime(time), Effect.exit(within(create(params(4)), 0)))
          yield* at(1_000)
          yield* at(1_999)
          yield* Effect.forkChild(create(params(4)))
          yield* TestClock.setTime(2_000)
          yield* Effect.forkChild(create(params(4)))
          yield* TestClock.setTime(3_000)
          const log = yield* sim((sim) => sim.log)
          assert.deepStrictEqual(
            log.map(({ at, status }) => [at, status]),
            [
              [1_000, 529],
              [1_999, 529],
              [1_999, 529],
              [2_000, 200]
            ]
          )
        })
      )
    )
  })

  describe("countTokens", () => {
    it.effect("counts as create does, outside of all limits", () =>
      simulate(
        { charsPerToken: 2.7, limits: { requests: { perMinute: 1 } } },
        Effect.gen(function* () {
          const provider = yield* LlmProvider
          for (let n = 0; n < 3; n++) {
            assert.strictEqual((yield* provider.countTokens(params(270))).value, 100)
          }
          assert.strictEqual((yield* sim((sim) => sim.stats)).countTokens, 3)
        })
      )
    )
  })

  describe("inputTokens", () => {
    it.effect("counts requests, also where their usage is reported and charged", () =>
      simulate(
        { inputTokens: ({ messages }) => 7.4 * messages.length, limits: { inputTokens: { perMinute: 10 } } },
        Effect.gen(function* () {
          const provider = yield* LlmProvider
          assert.strictEqual((yield* provider.countTokens(params(270))).value, 7)
          const { value } = yield* within(create(params(270)), "1 minute")
          assert.strictEqual(value.usage.input_tokens, 7)
        })
      )
    )

    it.effect("refuses an amount that is no number", () =>
      simulate(
        { inputTokens: () => Number.NaN },
        Effect.gen(function* () {
          const exit = yield* Effect.exit(create(params(270)))
          assert.include(String(exit), "ProviderSim.layer: inputTokens: expected a function that gives a finite number")
        })
      )
    )
  })

  describe("the incident", () => {
    /** 12 agents x 5 calls, 150,000 tokens and then 14,000 each, with fixed waits of a second. */
    const storm = (rejections: "free" | "charged") =>
      simulate(
        {
          limits: { tokens: { perSecond: 60_000, burst: 200_000 } },
          rejections,
          outputTokens: 0,
          latency: { baseMillis: 500, perInputTokenMillis: 0.01 }
        },
        Effect.gen(function* () {
          let done = 0
          const agent = Effect.fnUntraced(function* (id: number) {
            for (let call = 0; call < 5; call++) {
              const request = params((call === 0 ? 150_000 : 14_000) * 4, { metadata: { user_id: `agent-${id}` } })
              const patiently: Effect.Effect<unknown, never, LlmProvider> = Effect.suspend(() =>
                Effect.catch(create(request), () => Effect.andThen(Effect.sleep("1 second"), patiently))
              )
              yield* patiently
            }
            done++
          })
          const ids = Array.from({ length: 12 }, (_, id) => id)
          const fiber = yield* Effect.forkChild(
            Effect.andThen(Effect.forEach(ids, agent, { concurrency: "unbounded" }), Clock.currentTimeMillis)
          )
          yield* TestClock.adjust(sized("15 minutes", "1 hour"))
          const stats = yield* sim((sim) => sim.stats)
          const end = fiber.pollUnsafe()
          yield* Fiber.interrupt(fiber)
          return { done, stats, millis: end !== undefined && Exit.isSuccess(end) ? end.value : Infinity }
        })
      )

    it.effect(
      "livelocks under fixed retries when rejections count",
      () =>
        Effect.gen(function* () {
          const { done, millis, stats } = yield* storm("charged")
          assert.isBelow(done, 12)
          assert.strictEqual(millis, Infinity)
          assert.isAbove(stats.rejected, sized(2_500, 10_000))
        }),
      { tags: "full" }
    )

    it.effect("wastes calls but little time when rejections are free", () =>
      Effect.gen(function* () {
        const { done, millis, stats } = yield* storm("free")
        assert.strictEqual(done, 12)
        assert.isAbove(stats.rejected, 100)
        // The physical floor is 37.9 s and the last call.
        assert.isBelow(millis, 50_000)
        assert.isAtLeast(millis, 37_900)
      })
    )

    it.effect("gives identical bytes when it runs again", () =>
      Effect.gen(function* () {
        const log = simulate(
          {
            limits: { tokens: { perSecond: 6_000, burst: 20_000 } },
            outputTokens: ProviderSim.lognormal(200, 0.8),
            latency: { noise: 0.4 },
            faults: [{ kind: "500", rate: 0.1 }]
          },
          Effect.gen(function* () {
            const agents = Effect.forEach(
              Array.from({ length: 30 }, (_, id) => id),
              (id) => Effect.ignore(create(params(id * 400, { metadata: { user_id: `${id}` } }))),
              { concurrency: "unbounded" }
            )
            yield* within(agents, "10 minutes")
            return JSON.stringify(yield* sim((sim) => sim.log))
          })
        )
        assert.strictEqual(yield* log, yield* log)
      })
    )
  })

  describe("lognormal", () => {
    it("has the requested mean and a long tail", () => {
      const size = ProviderSim.lognormal(500, 0.8)
      const values = Array.from({ length: 10_000 }, (_, n) => size(params(0), (n + 0.5) / 10_000))
      assert.closeTo(values.reduce((sum, value) => sum + value, 0) / values.length, 500, 5)
      assert.isAbove(Math.max(...values), 4_000)
      for (const [mean, sigma] of [
        [0, 1],
        [Infinity, 1],
        [500, -1],
        [500, Infinity]
      ] as const) {
        assert.throws(
          () => ProviderSim.lognormal(mean, sigma),
          `ProviderSim.lognormal: expected finite numbers, mean > 0 and sigma >= 0, got ${mean} and ${sigma}`
        )
      }
    })
  })

  it.effect("takes a preset", () =>
    Effect.gen(function* () {
      const sim = yield* ProviderSim.ProviderSim
      assert.deepStrictEqual(yield* sim.left("claude-opus-4-8"), {
        requests: 1_000,
        inputTokens: 2_000_000,
        outputTokens: 400_000
      })
    }).pipe(Effect.provide(ProviderSim.layer(Presets.anthropic.start)))
  )

  it.effect("refuses an invalid result of a function among its options", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(create(params(4)))
      assert.include(String(exit), "ProviderSim.layer: reply: expected a function that gives a string")
    }).pipe(Effect.provide(ProviderSim.layer({ reply: () => undefined as unknown as string })))
  )
})
