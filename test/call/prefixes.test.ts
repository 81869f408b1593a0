/** Calls are estimated by what was said before: a prompt is known by its content, and what is cached of it by its age. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import { type Description, protocols } from "floodgate/protocol"
import { isDone, start } from "../support/budget.ts"

const { anthropic, openaiChat } = protocols

const mark = { cache_control: { type: "ephemeral" } }

/** A text of so many tokens, as the provider of these tests counts them, that no other number has. */
const text = (tokens: number, salt = 0) => `${salt}`.padEnd(4 * tokens, "The agent reads a file. ")

interface Prompt {
  readonly system?: number
  readonly turns: ReadonlyArray<number>
  /** Where the cache is asked for. @default at the end */
  readonly marks?: ReadonlyArray<number>
  readonly ttl?: "1h" | undefined
  readonly more?: object
}

const tokensOf = ({ system = 0, turns }: Prompt) => turns.reduce((sum, tokens) => sum + tokens, system)

const bodyOf = ({ marks, more, system, ttl, turns }: Prompt) => ({
  model: "m",
  max_tokens: 10,
  ...(system === undefined ? {} : { system: [{ type: "text", text: text(system, system), ...mark }] }),
  messages: turns.map((tokens, n) => ({
    role: n % 2 === 0 ? "user" : "assistant",
    content: [
      {
        type: "text",
        text: text(tokens, tokens),
        ...((marks ?? [turns.length - 1]).includes(n) ? { cache_control: { type: "ephemeral", ttl } } : {})
      }
    ]
  })),
  ...more
})

const callWith = ({ bytes, maxTokens, prefixes }: Description, model: string): Governor.Call => ({
  model,
  bytes,
  maxTokens,
  prefixes
})

const callOf = (prompt: Prompt): Governor.Call => {
  const description = anthropic.describe(bodyOf(prompt), anthropic.match("POST", "/v1/messages")!)!
  return callWith(description, "m")
}

interface Asked extends Governor.CallOptions {
  /** The tokens that the provider reads from its cache. */
  readonly read?: number
  readonly call?: Partial<Governor.Call>
  /** The tokens of the whole prompt as the provider counts them. @default what its texts have */
  readonly counted?: number
}

/** Makes a call, and returns the input that it reserved. */
const ask = Effect.fnUntraced(function* (prompt: Prompt, { call, counted, read = 0, ...how }: Asked = {}) {
  const governor = yield* Governor.Governor
  const all = counted ?? tokensOf(prompt)
  const asks = (prompt.marks?.length ?? 1) > 0 || prompt.system !== undefined
  const actual = {
    inputTokens: asks ? 0 : all - read,
    cacheCreationTokens: asks ? all - read : 0,
    cacheReadTokens: read,
    outputTokens: 5
  }
  return yield* governor.run(
    { ...callOf(prompt), ...call },
    ({ reservation }) => Effect.succeed({ value: reservation.charge.inputTokens!, actual }),
    { agent: "a", ...how }
  )
})

/** Calls of so many parts each, all of them new, as long as a prompt of 1,000 tokens. */
const callsOf = (parts: number) => {
  const { prefixes } = callOf({ turns: [1_000] })
  const bytes = Array.from({ length: parts }, (_, index) => (4_000 * (index + 1)) / parts)
  const marks = [{ index: parts - 1, life: 300_000 }]
  return (n: number): Pick<Governor.Call, "bytes" | "prefixes"> => ({
    bytes: 4_000,
    prefixes: { ...prefixes!, bytes, marks, fingerprints: bytes.map((_, index) => n * 1_000 + index) }
  })
}

/** Teaches that prefixes are read whole, and that texts have four bytes a token. */
const learned = Effect.gen(function* () {
  yield* ask({ turns: [10_000] }, { agent: "teacher" })
  yield* ask({ turns: [10_000, 1_000] }, { agent: "teacher", read: 10_000 })
})

const roomy = Layer.provideMerge(Governor.layer(), Budget.layer({ limits: { inputTokens: { perMinute: 10_000_000 } } }))

/** Room for 100,000 calls in one moment. */
const boundless = Layer.provideMerge(Governor.layer(), Budget.layer({ limits: { inputTokens: { total: 1e12 } } }))

const near = (actual: number, expected: number) => assert.closeTo(actual, expected, 0.02 * expected + 10)

describe("a call whose prompt begins as an earlier one", () => {
  it.effect("reserves what it adds, once it was seen that prefixes are read", () =>
    Effect.gen(function* () {
      yield* ask({ turns: [20_000] })
      // Nobody has read a prefix yet, and 4,000 bytes are taken for 1,481 tokens.
      near(yield* ask({ turns: [20_000, 1_000] }, { read: 20_000 }), 21_481)
      near(yield* ask({ turns: [20_000, 1_000, 500] }, { read: 21_000 }), 500)
      near(yield* ask({ turns: [20_000, 1_000, 500, 2_000] }), 2_000)
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )

  const cases: ReadonlyArray<readonly [what: string, next: Prompt, asked: Asked, expected: number]> = [
    ["the same again", { system: 5_000, turns: [30_000] }, {}, 0],
    ["under the name of another agent", { system: 5_000, turns: [30_000, 700] }, { agent: "b" }, 700],
    ["of one agent with two conversations", { system: 5_000, turns: [40_000] }, {}, 40_000],
    ["without breakpoints", { turns: [30_000, 700], marks: [] }, {}, 30_700],
    ["that asks for caching before what is known only", { system: 5_000, turns: [30_000, 700], marks: [] }, {}, 30_700],
    ["with another system prompt", { system: 5_001, turns: [30_000, 700] }, {}, 35_701],
    ["with an edited history", { system: 5_000, turns: [30_001, 700] }, {}, 30_701],
    ["that was compacted", { system: 5_000, turns: [3_000] }, {}, 3_000],
    ["with tools", { system: 5_000, turns: [30_000], more: { tools: [{ name: "t", description: "" }] } }, {}, 35_000],
    ["of another model", { system: 5_000, turns: [30_000] }, { call: { model: "n" } }, 35_000],
    ["of another account", { system: 5_000, turns: [30_000] }, { call: { account: "b" } }, 35_000],
    ["of another caller", { system: 5_000, turns: [30_000] }, { caller: "b" }, 35_000]
  ]
  for (const [what, next, asked, expected] of cases) {
    it.effect(`is estimated by what they have in common: ${what}`, () =>
      Effect.gen(function* () {
        yield* learned
        yield* ask({ system: 5_000, turns: [30_000] })
        // Another agent has read the system prompt, so its tokens are known.
        yield* ask({ system: 5_000, turns: [20_000] }, { agent: "sibling", read: 5_000 })
        const reserved = yield* ask(next, asked)
        // A prompt of which nothing is known may have more tokens than others of its size.
        if (expected <= 30_000) near(reserved, expected)
        else assert.isTrue(reserved >= 0.98 * expected && reserved <= 1.5 * expected, `${reserved}`)
      }).pipe(Effect.provide(Layer.fresh(roomy)))
    )
  }

  it.effect("knows the tokens of a rewritten prompt up to where it is as it was", () =>
    Effect.gen(function* () {
      yield* learned
      const turns = [30_000, 1_000, 2_000]
      for (let n = 1; n <= 3; n++) {
        yield* ask({ turns: turns.slice(0, n) }, { read: tokensOf({ turns: turns.slice(0, n - 1) }) })
      }
      near(yield* ask({ turns: [30_000, 1_000, 300, 50] }, { read: 31_000 }), 350)
      // It goes back further than the last two prompts, whose end was a breakpoint of an earlier call.
      near(yield* ask({ turns: [30_000, 400] }), 400)
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )

  it.effect("is one of several branches, each of which continues", () =>
    Effect.gen(function* () {
      yield* learned
      yield* ask({ turns: [30_000] })
      for (const branch of [101, 102, 103]) near(yield* ask({ turns: [30_000, branch] }, { read: 30_000 }), branch)
      for (const branch of [101, 102, 103]) {
        near(yield* ask({ turns: [30_000, branch, 900] }, { read: 30_000 + branch }), 900)
      }
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )

  it.effect("counts from the last answer that was seen", () =>
    Effect.gen(function* () {
      yield* learned
      yield* ask({ turns: [30_000] })
      const governor = yield* Governor.Governor
      const lost = governor.run(callOf({ turns: [30_000, 1_000] }), () => Effect.fail(new Error("reset")), {
        agent: "a"
      })
      yield* Effect.exit(lost)
      near(yield* ask({ turns: [30_000, 1_000, 600] }), 1_600)
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )

  for (const [ttl, millis] of [
    [undefined, 300_000],
    ["1h", 3_600_000]
  ] as const) {
    it.effect(`reserves everything once the cache has expired after ${millis} ms without use`, () =>
      Effect.gen(function* () {
        yield* learned
        yield* ask({ turns: [30_000], ttl })
        yield* TestClock.adjust(millis - 1)
        near(yield* ask({ turns: [30_000, 500], ttl }, { read: 30_000 }), 500)
        // Its use has refreshed it.
        yield* TestClock.adjust(millis - 1)
        near(yield* ask({ turns: [30_000, 600], ttl }, { read: 30_000 }), 600)
        yield* TestClock.adjust(millis)
        near(yield* ask({ turns: [30_000, 700], ttl }), 30_700)
      }).pipe(Effect.provide(Layer.fresh(roomy)))
    )
  }

  it.effect("relies on the cache although one prefix in ten was evicted early", () =>
    Effect.gen(function* () {
      yield* learned
      for (let n = 0; n < 40; n++) {
        yield* ask({ turns: [30_000 + n] })
        const isGone = n % 10 === 0
        near(yield* ask({ turns: [30_000 + n, 500] }, { read: isGone ? 0 : 30_000 + n }), 500)
      }
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )

  it.effect("does not rely on an early eviction's prefix, until it is written again", () =>
    Effect.gen(function* () {
      yield* learned
      yield* ask({ turns: [30_000] })
      // The first message is no breakpoint any more, and nothing was read.
      yield* ask({ turns: [30_000, 500] })
      near(yield* ask({ turns: [30_000, 600] }), 30_600)
      near(yield* ask({ turns: [30_000, 500, 100] }, { read: 30_500 }), 100)
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )

  it.effect("expects nothing of a provider that reads nothing", () =>
    Effect.gen(function* () {
      for (let n = 0; n < 10; n++) {
        yield* ask({ turns: [30_000 + n] })
        near(yield* ask({ turns: [30_000 + n, 500] }), 30_500 + n)
      }
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )

  it.effect("expects nothing of what the provider has not written", () =>
    Effect.gen(function* () {
      yield* learned
      // Too short for its cache, so nothing was read or written.
      const governor = yield* Governor.Governor
      const actual = { inputTokens: 800, outputTokens: 5 }
      yield* governor.run(callOf({ turns: [800] }), () => Effect.succeed({ value: "", actual }), { agent: "a" })
      near(yield* ask({ turns: [800, 300] }), 1_100)
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )

  it.effect("is known but for the last turn if two processes take turns with a conversation", () =>
    Effect.gen(function* () {
      const turns = [30_000]
      const processes = [Layer.fresh(roomy), Layer.fresh(roomy)]
      const contexts = yield* Effect.forEach(processes, (live) => Layer.build(live))
      for (const context of contexts) yield* Effect.provideContext(learned, context)
      for (let n = 0; n < 12; n++) {
        const read = n === 0 ? 0 : tokensOf({ turns: turns.slice(0, -1) })
        const reserved = yield* Effect.provideContext(ask({ turns }, { read }), contexts[n % 2]!)
        // What the other process has sent last, and what is new.
        if (n > 1) near(reserved, turns.at(-1)! + turns.at(-2)!)
        turns.push(500 + n)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("is known to the token where everything counts", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const turn = (turns: ReadonlyArray<number>, counted: number) => {
        const messages = turns.map((tokens) => ({ role: "user", content: text(tokens, tokens) }))
        const route = openaiChat.match("POST", "/v1/chat/completions")!
        const call = callWith(openaiChat.describe({ model: "g", messages }, route)!, "g")
        const actual = { inputTokens: 0, cacheReadTokens: counted, outputTokens: 5 }
        return governor.run({ ...call, accounting: Accounting.openai }, ({ reservation }) =>
          Effect.succeed({ value: reservation.charge.inputTokens!, actual })
        )
      }
      // A picture or a template makes it much larger than its bytes.
      yield* turn([10_000], 54_321)
      assert.strictEqual(yield* turn([10_000], 54_321), 54_321)
      const more = yield* turn([10_000, 10], 54_331)
      assert.isTrue(more > 54_321 && more < 54_500, `${more}`)
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )

  it.effect("is never refused and never negative if two prompts have one fingerprint", () =>
    Effect.gen(function* () {
      yield* learned
      yield* ask({ turns: [30_000] })
      const { prefixes } = callOf({ turns: [30_000] })
      const collides = { ...callOf({ turns: [200] }), prefixes }
      const governor = yield* Governor.Governor
      const actual = { inputTokens: 200, outputTokens: 5 }
      for (let n = 0; n < 5; n++) {
        const reserved = yield* governor.run(collides, ({ reservation }) =>
          Effect.succeed({ value: reservation.charge.inputTokens!, actual })
        )
        assert.isTrue(reserved >= 0 && reserved <= 30_000, `${reserved}`)
      }
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )
})

describe("a caller who sends ever new prompts", () => {
  it.effect(
    "makes nobody else's conversation cold",
    () =>
      Effect.gen(function* () {
        yield* Effect.forEach(["honest", "hostile"], (caller) =>
          Effect.andThen(
            ask({ turns: [10_000] }, { caller }),
            ask({ turns: [10_000, 1_000] }, { caller, read: 10_000 })
          )
        )
        yield* ask({ turns: [30_000] }, { caller: "honest" })
        const call = callsOf(3)
        const governor = yield* Governor.Governor
        const actual = { inputTokens: 0, cacheCreationTokens: 1_000, outputTokens: 5 }
        const hostile = (n: number) =>
          governor.run({ model: "m", ...call(n) }, () => Effect.succeed({ value: n, actual }), { caller: "hostile" })
        const sent = 100_000
        for (let n = 1; n <= sent; n++) yield* hostile(n)
        near(yield* ask({ turns: [30_000, 500] }, { caller: "honest" }), 500)
        // They are remembered for the hostile one as well, as long as there is room.
        assert.isBelow(yield* ask({ turns: [1_000] }, { caller: "hostile", call: call(sent), read: 1_000 }), 500)
        assert.isAtLeast(yield* ask({ turns: [1_000] }, { caller: "hostile", call: call(1) }), 1_000)
      }).pipe(Effect.provide(Layer.fresh(boundless))),
    { tags: "full" }
  )
})

describe("what is learned of prefixes", () => {
  it.effect("is in what is learned of the pool", () =>
    Effect.gen(function* () {
      yield* learned
      yield* ask({ turns: [30_000] })
      yield* TestClock.adjust(2_000)
      yield* ask({ turns: [30_000, 500] }, { read: 30_000 })
      const governor = yield* Governor.Governor
      const { profiles } = yield* governor.learned
      const { hits, prefixTokens, unusedFor } = profiles.find(({ kind }) => kind === undefined)!
      assert.deepStrictEqual(new Set(hits), new Set([1]))
      assert.isTrue(prefixTokens!.mean > 10_000 && prefixTokens!.mean < 30_000)
      assert.isTrue(unusedFor!.mean > 0 && unusedFor!.mean < 2_000)
      assert.isTrue(profiles.some(({ kind }) => kind === "a"))
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )

  it.effect("outlives the process, without the prefixes", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      yield* learned
      const kept = yield* Schema.encodeEffect(Schema.fromJsonString(Estimator.Learned))(yield* governor.learned)
      assert.notInclude(kept, "fingerprint")
      const restored = yield* Schema.decodeEffect(Schema.fromJsonString(Estimator.Learned))(kept)
      const next = Layer.provideMerge(
        Governor.layer({ learned: restored }),
        Budget.layer({ limits: { inputTokens: { perMinute: 10_000_000 } } })
      )
      yield* Effect.gen(function* () {
        const first = yield* ask({ turns: [10_000] })
        assert.isAtLeast(first, 10_000)
        near(yield* ask({ turns: [10_000, 300] }, { read: 10_000 }), 300)
      }).pipe(Effect.provide(Layer.fresh(next)))
    }).pipe(Effect.provide(Layer.fresh(roomy)))
  )

  it.effect("is measured: what was predicted, and what was used", () =>
    Effect.gen(function* () {
      yield* ask({ turns: [10_000] })
      yield* ask({ turns: [10_000, 1_000] }, { read: 10_000 })
      const all = yield* Metric.snapshot
      const of = (name: string) =>
        all.find(({ attributes, id }) => id === "floodgate_counted_input_tokens" && attributes?.["of"] === name)!
          .state as { readonly count: number }
      assert.strictEqual(of("used").count, 11_000)
      assert.isAbove(of("predicted").count, 20_000)
    }).pipe(Effect.provide(Layer.fresh(roomy)), Effect.provideService(Metric.MetricRegistry, new Map()))
  )
})

describe("a call that waits", () => {
  /** 40,000 tokens at once, and 100 a second. */
  const tight = Layer.provideMerge(
    Governor.layer(),
    Budget.layer({ limits: { inputTokens: { perSecond: 100, burst: 40_000 } } })
  )

  /** A call whose answer begins at once and ends after a minute. */
  const streamed = (prompt: Prompt, read: number) =>
    Effect.flatMap(Governor.Governor, (governor) => {
      const actual = {
        inputTokens: 0,
        cacheCreationTokens: tokensOf(prompt) - read,
        cacheReadTokens: read,
        outputTokens: 5
      }
      return governor.run(
        callOf(prompt),
        (ticket) =>
          Effect.gen(function* () {
            yield* Effect.sleep(1_000)
            ticket.recordUsage(actual)
            yield* Effect.sleep(60_000)
            return { value: "ok", actual }
          }),
        { agent: `${Math.min(...prompt.turns)}` }
      )
    })

  it.effect("is estimated again as soon as the answer to another one with its prefix has begun", () =>
    Effect.gen(function* () {
      yield* ask({ turns: [1_000] })
      yield* ask({ turns: [1_000, 100] }, { read: 1_000 })
      const first = yield* start(streamed({ turns: [30_000], marks: [0] }, 0))
      const branches = yield* Effect.forEach([11, 12, 13], (branch) =>
        start(streamed({ turns: [30_000, branch], marks: [0, 1] }, 30_000))
      )
      yield* TestClock.adjust(500)
      const { status } = yield* Budget.TokenBudget
      assert.strictEqual((yield* status).pools["default"]!.inFlight, 1)
      yield* TestClock.adjust(1_000)
      assert.strictEqual((yield* status).pools["default"]!.inFlight, 4)
      yield* TestClock.adjust(70_000)
      assert.deepStrictEqual([first, ...branches].map(isDone), [true, true, true, true])
    }).pipe(Effect.provide(Layer.fresh(tight)))
  )

  it.effect("waits for the bucket with all others that are cold after a break, and nothing is lost", () =>
    Effect.gen(function* () {
      yield* ask({ turns: [1_000] })
      yield* ask({ turns: [1_000, 100] }, { read: 1_000 })
      const herd = [15_001, 15_002, 15_003, 15_004, 15_005]
      for (const size of herd) {
        yield* ask({ turns: [size] })
        yield* TestClock.adjust("5 minutes")
      }
      yield* ask({ turns: [14_000] })
      yield* TestClock.adjust(290_000)
      const { status } = yield* Budget.TokenBudget
      const inFlight = Effect.map(status, ({ pools }) => pools["default"]!.inFlight)
      const cold = yield* Effect.forEach(herd, (size) => start(streamed({ turns: [size, 50], marks: [0, 1] }, 0)))
      const warm = yield* start(streamed({ turns: [14_000, 60], marks: [0, 1] }, 14_000))
      yield* TestClock.adjust(500)
      // 40,000 tokens are there, and each cold call takes 15,000.
      assert.strictEqual(yield* inFlight, 2)
      yield* TestClock.adjust("70 minutes")
      assert.deepStrictEqual([...cold, warm].map(isDone), [true, true, true, true, true, true])
      const { pools } = yield* status
      assert.strictEqual(pools["default"]!.queued, 0)
    }).pipe(Effect.provide(Layer.fresh(tight)))
  )

  it.effect("is estimated again when its prefix expires", () =>
    Effect.gen(function* () {
      yield* ask({ turns: [1_000] })
      yield* ask({ turns: [1_000, 100] }, { read: 1_000 })
      yield* ask({ turns: [20_000] })
      yield* ask({ turns: [20_000, 100] }, { read: 20_000 })
      const { reserve, status } = yield* Budget.TokenBudget
      const level = Effect.map(status, ({ pools }) => pools["default"]!.dimensions.inputTokens!.level)
      const leave = (tokens: number) =>
        Effect.flatMap(level, (left) => Effect.scoped(reserve({ inputTokens: Math.floor(left) - tokens })))
      yield* leave(200)
      yield* TestClock.adjust(299_500)
      // It would fit about a second later, when its prefix has expired.
      yield* leave(200)
      const late = yield* start(ask({ turns: [20_000, 100, 300] }))
      yield* TestClock.adjust(100_000)
      assert.isFalse(isDone(late))
      yield* TestClock.adjust(110_000)
      assert.isTrue(isDone(late))
    }).pipe(Effect.provide(Layer.fresh(tight)))
  )
})
