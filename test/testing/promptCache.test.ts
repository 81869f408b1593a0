import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { LlmProvider, type Params } from "floodgate/LlmProvider"
import * as Prices from "floodgate/Prices"
import { ProviderSim } from "floodgate/testing"

/** Text of some tokens: the simulated provider counts four characters a token. */
const text = (tokens: number, name: string): string => name.padEnd(4, ".").repeat(tokens)

const control = { type: "ephemeral" } as const
const anHour = { type: "ephemeral", ttl: "1h" } as const

const block = (tokens: number, name: string, cache_control?: typeof control | typeof anHour) => ({
  type: "text" as const,
  text: text(tokens, name),
  ...(cache_control && { cache_control })
})

const request = (messages: Params["messages"], more: Partial<Params> = {}): Params => ({
  model: "claude-sonnet-5",
  max_tokens: 100,
  messages,
  ...more
})

/** A user's message of blocks. */
const said = (...content: ReadonlyArray<ReturnType<typeof block>>): Params["messages"][number] => ({
  role: "user",
  content: [...content]
})

const provider = (options: ProviderSim.Options = {}) =>
  ProviderSim.layer({ cache: "breakpoints", outputTokens: 10, latency: { perInputTokenMillis: 0 }, ...options })

const create = (params: Params) =>
  Effect.flatMap(LlmProvider, ({ create }) => create(params)).pipe(Effect.map(({ value }) => value.usage))

/** Makes a call in simulated time, and returns what its usage says: read from the cache, written to it, and the rest. */
const usageOf = Effect.fnUntraced(function* (params: Params) {
  const fiber = yield* Effect.forkChild(create(params), { startImmediately: true })
  yield* TestClock.adjust("10 minutes")
  const usage = yield* Fiber.join(fiber)
  return [usage.cache_read_input_tokens, usage.cache_creation_input_tokens, usage.input_tokens]
})

/** Makes a call that ends at once, so that the clock stands still. */
const instant: ProviderSim.Options = { latency: { baseMillis: 0, perInputTokenMillis: 0, perOutputTokenMillis: 0 } }

const instantly = (params: Params) =>
  Effect.map(create(params), (usage) => [
    usage.cache_read_input_tokens,
    usage.cache_creation_input_tokens,
    usage.input_tokens
  ])

const cached = (params: Params) => Effect.flatMap(ProviderSim.ProviderSim, (sim) => sim.cached(params))

const long = said(block(2_000, "a", control))

describe("the cache of ProviderSim", () => {
  it.effect("is off unless an option asks", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* instantly(request([long])), [0, 0, 2_000])
      assert.deepStrictEqual(yield* instantly(request([long])), [0, 0, 2_000])
      const [entry] = yield* (yield* ProviderSim.ProviderSim).log
      assert.notProperty(entry, "cacheReadTokens")
    }).pipe(Effect.provide(provider({ ...instant, cache: undefined })))
  )

  it("is either simulated by content or stated as a share", () => {
    assert.throws(
      () => Effect.runSync(Effect.scoped(Effect.provide(Effect.void, provider({ cachedShare: 0.5 })))),
      /cachedShare: expected nothing beside cache "breakpoints", got 0.5/
    )
  })

  describe("with breakpoints", () => {
    it.effect("writes a prefix up to its breakpoint, and reads it", () =>
      Effect.gen(function* () {
        const [tail, other] = [block(30, "b"), block(40, "c")]
        const start = block(2_000, "a", control)
        assert.deepStrictEqual(yield* instantly(request([said(start, tail)])), [0, 2_000, 30])
        assert.deepStrictEqual(yield* instantly(request([said(start, other)])), [2_000, 0, 40])
        assert.deepStrictEqual(yield* instantly(request([said(block(2_000, "A", control), other)])), [0, 2_000, 40])
      }).pipe(Effect.provide(provider(instant)))
    )

    it.effect("caches nothing without a breakpoint", () =>
      Effect.gen(function* () {
        const plain = request([said(block(2_000, "a"))])
        assert.deepStrictEqual(yield* instantly(plain), [0, 0, 2_000])
        assert.deepStrictEqual(yield* instantly(plain), [0, 0, 2_000])
      }).pipe(Effect.provide(provider(instant)))
    )

    it.effect("reads the whole of a growing conversation, whose breakpoints move on", () =>
      Effect.gen(function* () {
        const tools = [{ name: "read", description: text(500, "tool"), input_schema: { type: "object" as const } }]
        const system = [block(1_500, "sys", control)]
        const answer = { role: "assistant" as const, content: text(50, "ans") }
        const first = request([said(block(100, "a", control))], { tools, system })
        const second = request([said(block(100, "a")), answer, said(block(200, "b", control))], { tools, system })
        const [, before] = yield* instantly(first)
        // A tool counts by its JSON.
        assert.isAbove(before!, 2_100)
        assert.deepStrictEqual(yield* instantly(second), [before, 250, 0])
        const third = request([...second.messages, answer, said(block(7, "c"))], { tools, system })
        assert.deepStrictEqual(yield* instantly(third), [before! + 250, 0, 57])
      }).pipe(Effect.provide(provider(instant)))
    )

    it.effect("takes a text for the same as a list with its block, and other roles and tools for others", () =>
      Effect.gen(function* () {
        yield* instantly(request([said(block(2_000, "a", control)), said(block(5, "b"))]))
        const plain = { role: "user" as const, content: text(2_000, "a") }
        assert.strictEqual(yield* cached(request([plain, said(block(9, "c", control))])), 2_000)
        const answer = { role: "assistant" as const, content: text(2_000, "a") }
        assert.strictEqual(yield* cached(request([answer, said(block(9, "c", control))])), 0)
        const tools = [{ name: "read", input_schema: { type: "object" as const } }]
        assert.strictEqual(yield* cached(request([long], { tools })), 0)
        assert.strictEqual(yield* cached(request([long], { model: "claude-opus-5" })), 0)
      }).pipe(Effect.provide(provider(instant)))
    )

    it.effect("notices what callers change in their own objects", () =>
      Effect.gen(function* () {
        const start = block(2_000, "a", control)
        yield* instantly(request([said(start)]))
        start.text = text(2_000, "A")
        assert.deepStrictEqual(yield* instantly(request([said(start)])), [0, 2_000, 0])
      }).pipe(Effect.provide(provider(instant)))
    )

    it.effect("searches the last 20 blocks before a breakpoint", () =>
      Effect.gen(function* () {
        yield* instantly(request([long]))
        const more = (blocks: number) =>
          request(
            [long, said(...Array.from({ length: blocks }, (_, at) => block(1, `${at}`)), block(1, "e", control))].map(
              (message, at) => (at === 0 ? said(block(2_000, "a")) : message)
            )
          )
        assert.strictEqual(yield* cached(more(18)), 2_000)
        assert.strictEqual(yield* cached(more(19)), 0)
      }).pipe(Effect.provide(provider(instant)))
    )

    it.effect("caches from a number of tokens on that depends on the model", () =>
      Effect.gen(function* () {
        const shortest = {
          "claude-sonnet-5": 1_024,
          "claude-opus-5": 512,
          "claude-opus-4-7": 2_048,
          "claude-haiku-4-5-20251001": 4_096,
          "anthropic.claude-opus-4-5-v1:0": 4_096
        }
        for (const [model, tokens] of Object.entries(shortest)) {
          for (const [size, expected] of [
            [tokens - 1, 0],
            [tokens, tokens]
          ] as const) {
            const params = request([said(block(size, `${size}`, control))], { model })
            assert.deepStrictEqual(yield* instantly(params), [0, expected, size - expected])
            assert.strictEqual(yield* cached(params), expected)
          }
        }
      }).pipe(Effect.provide(provider(instant)))
    )

    it.effect("forgets a prefix five minutes after its last use, and not 1 ms earlier", () =>
      Effect.gen(function* () {
        const params = request([long])
        yield* instantly(params)
        yield* TestClock.adjust(299_999)
        assert.strictEqual(yield* cached(params), 2_000)
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* cached(params), 0)
      }).pipe(Effect.provide(provider(instant)))
    )

    it.effect("keeps a prefix for an hour where its breakpoint says so, and bills both", () =>
      Effect.gen(function* () {
        const params = request([said(block(2_000, "a", anHour), block(1_000, "b", control))])
        const usage = yield* create(params)
        assert.deepStrictEqual(usage.cache_creation, {
          ephemeral_1h_input_tokens: 2_000,
          ephemeral_5m_input_tokens: 1_000
        })
        yield* TestClock.adjust(300_000)
        assert.strictEqual(yield* cached(params), 2_000)
        yield* TestClock.adjust(3_299_999)
        assert.strictEqual(yield* cached(params), 2_000)
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* cached(params), 0)
      }).pipe(Effect.provide(provider(instant)))
    )

    it.effect("starts the lifetime again with each use, also of what a longer prefix begins with", () =>
      Effect.gen(function* () {
        const start = block(2_000, "a", control)
        const whole = request([said(start, block(1_000, "b", control))])
        yield* instantly(whole)
        yield* TestClock.adjust(200_000)
        yield* instantly(whole)
        yield* TestClock.adjust(299_999)
        assert.strictEqual(yield* cached(whole), 3_000)
        assert.strictEqual(yield* cached(request([said(start, block(1, "c", control))])), 2_000)
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* cached(whole), 0)
        assert.strictEqual(yield* cached(request([said(start)])), 0)
      }).pipe(Effect.provide(provider(instant)))
    )

    it.effect("can be read once the answer has begun, and not 1 ms earlier", () =>
      Effect.gen(function* () {
        const params = request([long])
        yield* Effect.forkChild(create(params), { startImmediately: true })
        yield* TestClock.adjust(499)
        assert.strictEqual(yield* cached(params), 0)
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* cached(params), 2_000)
      }).pipe(
        Effect.provide(provider({ latency: { baseMillis: 500, perInputTokenMillis: 0, perOutputTokenMillis: 50 } }))
      )
    )

    it.effect("reads nothing for equal calls at once", () =>
      Effect.gen(function* () {
        const fibers = yield* Effect.forEach([1, 2, 3], () =>
          Effect.forkChild(create(request([long])), { startImmediately: true })
        )
        yield* TestClock.adjust("1 minute")
        const usages = yield* Effect.forEach(fibers, (fiber) => Fiber.join(fiber))
        assert.deepStrictEqual(
          usages.map((usage) => usage.cache_creation_input_tokens),
          [2_000, 2_000, 2_000]
        )
        assert.deepStrictEqual(yield* usageOf(request([long])), [2_000, 0, 0])
      }).pipe(Effect.provide(provider()))
    )

    it.effect("keeps nothing of a call that was aborted before its answer, or rejected", () =>
      Effect.gen(function* () {
        const params = request([long])
        const fiber = yield* Effect.forkChild(create(params), { startImmediately: true })
        yield* TestClock.adjust(499)
        yield* Fiber.interrupt(fiber)
        yield* Effect.flip(create(params))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* cached(params), 0)
      }).pipe(
        Effect.provide(
          provider({
            latency: { baseMillis: 500, perInputTokenMillis: 0 },
            limits: { requests: { perMinute: 1 } }
          })
        )
      )
    )

    it.effect("shares nothing with another organisation", () =>
      Effect.gen(function* () {
        const params = request([long])
        const one = Effect.provide(instantly(params), provider(instant))
        assert.deepStrictEqual(yield* one, [0, 2_000, 0])
        assert.deepStrictEqual(yield* one, [0, 2_000, 0])
      })
    )

    it.effect(
      "counts what is written against a limit on input, and not what is read; a limit on tokens counts all",
      () =>
        Effect.gen(function* () {
          yield* instantly(request([long]))
          yield* instantly(request([long]))
          const sim = yield* ProviderSim.ProviderSim
          const { inputTokens, tokens } = yield* sim.left("claude-sonnet-5")
          assert.deepStrictEqual([inputTokens, tokens], [10_000 - 2_000, 10_000 - 2 * 2_010])
          const log = yield* sim.log
          assert.deepStrictEqual(
            log.map(({ cacheReadTokens, cacheWriteTokens, inputTokens }) => [
              inputTokens,
              cacheReadTokens,
              cacheWriteTokens
            ]),
            [
              [2_000, 0, 2_000],
              [0, 2_000, 0]
            ]
          )
        }).pipe(
          Effect.provide(
            provider({ ...instant, limits: { inputTokens: { perMinute: 10_000 }, tokens: { perMinute: 10_000 } } })
          )
        )
    )

    it.effect("charges subscription windows for what is written and read", () =>
      Effect.gen(function* () {
        const params = request([said(block(2_000, "a", anHour), block(1_000, "b", control), block(500, "c"))])
        yield* instantly(params)
        yield* instantly(params)
        const price = Prices.find("claude-sonnet-5")!
        const written = {
          inputTokens: 500,
          cacheCreationTokens: 3_000,
          cacheCreationLongTokens: 2_000,
          outputTokens: 10
        }
        const read = { inputTokens: 500, cacheReadTokens: 3_000, outputTokens: 10 }
        const { windows } = yield* (yield* ProviderSim.ProviderSim).stats
        assert.closeTo(windows["5h"]!.used, Prices.cost(price, written) + Prices.cost(price, read), 1e-9)
      }).pipe(Effect.provide(provider({ ...instant, windows: { "5h": { dollars: 1 } } })))
    )

    it.effect("states its usage at the start of a stream", () =>
      Effect.gen(function* () {
        yield* instantly(request([long]))
        const { value } = yield* Effect.flatMap(LlmProvider, ({ stream }) =>
          stream(request([said(block(2_000, "a"), block(40, "b", control))]))
        )
        const [first] = yield* Stream.runCollect(value)
        assert.strictEqual(first?.type === "message_start" ? first.message.usage.cache_read_input_tokens : 0, 2_000)
        assert.strictEqual(first?.type === "message_start" ? first.message.usage.cache_creation_input_tokens : 0, 40)
      }).pipe(Effect.scoped, Effect.provide(provider(instant)))
    )

    it.effect("counts prefixes as the option inputTokens counts requests", () =>
      Effect.gen(function* () {
        const params = request([said(block(2_000, "a", control), block(300, "b"))])
        assert.deepStrictEqual(yield* instantly(params), [0, 4_000, 600])
        assert.deepStrictEqual(yield* instantly(params), [4_000, 0, 600])
      }).pipe(
        Effect.provide(
          provider({
            ...instant,
            inputTokens: ({ messages }) =>
              messages
                .flatMap(({ content }) => content as Array<{ text: string }>)
                .reduce((sum, { text }) => sum + text.length / 2, 0)
          })
        )
      )
    )
  })

  describe("by itself", () => {
    const automatic = provider({ ...instant, cache: "automatic" })

    it.effect("reads from 1,024 tokens on, in steps of 128, and never the whole prompt", () =>
      Effect.gen(function* () {
        for (const [size, expected] of [
          [1_024, 0],
          [1_025, 1_024],
          [1_152, 1_024],
          [1_153, 1_152],
          [5_000, 4_992]
        ] as const) {
          const params = request([{ role: "user", content: text(size, `${size}`) }])
          assert.deepStrictEqual(yield* instantly(params), [0, expected, size - expected])
          assert.deepStrictEqual(yield* instantly(params), [expected, 0, size - expected])
        }
      }).pipe(Effect.provide(automatic))
    )

    it.effect("finds how far texts are equal, at most a step too short", () =>
      Effect.gen(function* () {
        const start = text(3_000, "a")
        yield* instantly(request([{ role: "user", content: `${start}one` }]))
        const read = yield* cached(request([{ role: "user", content: `${start}two` }]))
        assert.isAtMost(read, 3_000)
        assert.isAbove(read, 3_000 - 2 * 128)
        assert.strictEqual(yield* cached(request([{ role: "user", content: `b${start}` }])), 0)
      }).pipe(Effect.provide(automatic))
    )

    it.effect("counts all input, however much is read", () =>
      Effect.gen(function* () {
        yield* instantly(request([long]))
        yield* instantly(request([long]))
        const { inputTokens } = yield* (yield* ProviderSim.ProviderSim).left("claude-sonnet-5")
        assert.strictEqual(inputTokens, 10_000 - 2 * 2_000)
      }).pipe(
        Effect.provide(provider({ ...instant, cache: "automatic", limits: { inputTokens: { perMinute: 10_000 } } }))
      )
    )

    it.effect("forgets after five minutes without use, and not 1 ms earlier", () =>
      Effect.gen(function* () {
        const params = request([long])
        yield* instantly(params)
        yield* TestClock.adjust(299_999)
        assert.strictEqual(yield* cached(params), 1_920)
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* cached(params), 0)
      }).pipe(Effect.provide(automatic))
    )
  })
})
