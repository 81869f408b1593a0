/** The long windows of a subscription: calls are kept to a share. */
import type { RawMessageDeltaEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import { assert, describe, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import { LlmError, RateLimited, SpendLimited } from "floodgate/LlmError"
import { LlmProvider } from "floodgate/LlmProvider"
import * as Retry from "floodgate/Retry"
import * as Signals from "floodgate/Signals"
import * as Spending from "floodgate/Spending"
import { ProviderSim } from "floodgate/testing"
import { windowsWith } from "../support/paying.ts"

const hour = 3_600_000
const model = "claude-sonnet-5"

/** A subscription whose window of five hours holds ten dollars, which are a million tokens of output. A call takes 20 seconds. */
const subscription = (options: ProviderSim.Options = {}) =>
  ProviderSim.layer({
    windows: { "5h": { dollars: 10 } },
    outputTokens: ({ max_tokens }) => max_tokens,
    latency: { baseMillis: 20_000, perInputTokenMillis: 0, perOutputTokenMillis: 0 },
    ...options
  })

const once = Retry.make({ attempts: 1 })
const live = (windows: Governor.Options["windows"], learned?: Estimator.Learned, tryWindowsEvery?: Duration.Input) =>
  Governor.layer({ retry: once, windows, learned, tryWindowsEvery }).pipe(Layer.provide(Budget.layerUnlimited))

const learned = (window: { readonly used: number; readonly dollars: number; readonly resetsAt: number }) =>
  Schema.decodeUnknownSync(Estimator.Learned)({ profiles: [], windows: [{ account: "key", name: "5h", ...window }] })

type Way = "streamed" | "whole"

/** A call that uses this many tokens. The headers come at the end of a whole answer, and at the beginning of a streamed one. */
const ask = (
  tokens: number,
  how: Governor.CallOptions = {},
  way: Way = "streamed",
  starts: (used: number) => void = () => {}
) =>
  Effect.gen(function* () {
    const governor = yield* Governor.Governor
    const provider = yield* LlmProvider
    const params = { model, max_tokens: tokens, messages: [{ role: "user" as const, content: "Hi" }] }
    const sim = yield* ProviderSim.ProviderSim
    const attempt = Effect.gen(function* () {
      starts((yield* counted).used)
      if (way === "whole") {
        const { signal, value } = yield* provider.create(params)
        return { signal, outputTokens: value.usage.output_tokens }
      }
      const { signal, value } = yield* provider.stream(params)
      const events = yield* Stream.runCollect(value)
      const end = events.find(({ type }) => type === "message_delta") as RawMessageDeltaEvent
      return { signal, outputTokens: end.usage.output_tokens }
    }).pipe(Effect.scoped, Effect.provideService(ProviderSim.ProviderSim, sim))
    return yield* governor.run(
      { model, bytes: 10, maxTokens: tokens, account: "key" },
      () =>
        Effect.map(attempt, ({ outputTokens, signal }) => ({
          value: outputTokens,
          actual: { inputTokens: 1, outputTokens },
          signal
        })),
      how
    )
  })

/** The window as the provider counts it, and as the library knows it. */
const counted = Effect.flatMap(ProviderSim.ProviderSim, ({ stats }) =>
  Effect.map(stats, ({ windows }) => windows["5h"]!)
)
const windowOf = Effect.flatMap(Governor.Governor, ({ windows }) =>
  Effect.map(windows, (all) => all.find(({ name }) => name === "5h")!)
)

const causeOf = (error: unknown): unknown =>
  error instanceof Budget.BudgetError && error.reason._tag === "Denied" ? error.reason.cause : error

describe("long windows", () => {
  it.effect("keep batch work to its share, and interactive calls use the rest", () =>
    Effect.gen(function* () {
      const call = (priority: number) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(Effect.exit(ask(10_000, { priority })))
          yield* TestClock.adjust("20 seconds")
          return yield* Fiber.join(fiber)
        })
      let refused: unknown
      for (let n = 0; n < 100 && refused === undefined; n++) {
        const exit = yield* call(-1)
        if (exit._tag === "Failure") refused = causeOf((exit.cause.reasons[0] as { readonly error: unknown }).error)
      }
      // One call is a hundredth of the window, and so is the step of the header.
      const { endsAt, used } = yield* counted
      assert.isAtLeast(used, 0.7 * 0.95)
      assert.isAtMost(used, 0.7 + 0.02)
      if (!(refused instanceof Spending.WindowShareUsed)) return assert.fail(String(refused))
      assert.strictEqual(refused.until, Math.round(endsAt! / 1_000) * 1_000)
      assert.match(
        refused.message,
        /^(?:69|70)(?:\.\d)? % of the account's window of 5h are used.*70 %: wait until 1970/
      )
      for (let n = 0; n < 25; n++) assert.strictEqual((yield* call(1))._tag, "Success")
      assert.isAtLeast((yield* counted).used, 0.9)
      assert.strictEqual((yield* call(0))._tag, "Failure")
      // At the reset the share is free again.
      yield* TestClock.setTime(endsAt!)
      assert.strictEqual((yield* call(-1))._tag, "Success")
    }).pipe(Effect.provide(live({ "5h": { share: 0.7 } })), Effect.provide(subscription()))
  )

  // The headers of a whole answer include calls whose ends are not known here yet. These count twice until the next answer. Eight calls
  // are a sixth of this window.
  it.effect.each([
    ["streamed", 0.95],
    ["whole", 0.65]
  ] as const)(
    "are used up to their shares over three resets, a restart and a second user, with %s answers",
    ([way, least]) =>
      Effect.gen(function* () {
        const waits: Array<number> = []
        const errors: Array<number> = []
        let done = 0
        let largest = 0
        /** Eight agents that make calls of various sizes one after another. */
        const work = (calls: number) =>
          Effect.forEach(
            Array.from({ length: 8 }, (_, n) => n),
            (n) =>
              Effect.forEach(
                Array.from({ length: calls }, (_, m) => 10_000 + 5_000 * ((n + m) % 5)),
                (tokens) =>
                  Effect.tap(
                    ask(tokens, { priority: -1 }, way, (used) => (largest = Math.max(largest, used))),
                    () => Effect.sync(() => done++)
                  ),
                { discard: true }
              ),
            { concurrency: "unbounded", discard: true }
          ).pipe(Spending.waitForReset(({ until }) => waits.push(until)))
        const Json = Schema.fromJsonString(Estimator.Learned)
        let learned: Estimator.Learned | undefined
        for (const calls of [3, 15]) {
          const context = yield* Layer.build(live({ "5h": { share: 0.7 } }, learned))
          const running = yield* Effect.forkChild(Effect.provideContext(work(calls), context))
          for (let n = 0; n < 2_000 && running.pollUnsafe() === undefined; n++) yield* TestClock.adjust("1 minute")
          yield* Fiber.join(running)
          const { used } = yield* Effect.provideContext(windowOf, context)
          errors.push(Math.abs(used - (yield* counted).used))
          const governor = yield* Effect.provideContext(Governor.Governor, context)
          // The state goes through a file.
          learned = Schema.decodeUnknownSync(Json)(Schema.encodeSync(Json)(yield* governor.learned))
        }
        assert.strictEqual(done, 8 * 18)
        const { ended } = yield* counted
        assert.isAtLeast(ended.length, 3)
        // The second user goes on after the share is used.
        for (const used of ended.slice(0, 3)) assert.isAtLeast(used, 0.7 * least)
        if (way === "streamed") for (const error of errors) assert.isAtMost(error, 0.05)
        assert.isAtLeast(waits.length, 3)
        // A call starts within the share, but for the step of the header and what the other user has spent since.
        assert.isAtMost(largest, 0.7 + 0.01 + 0.004)
      }).pipe(Effect.scoped, Effect.provide(subscription({ neighbour: { share: 0.12 } })))
  )

  it.effect.each([
    ["streamed", 0.95],
    ["whole", 0.75]
  ] as const)(
    "is exceeded by at most one call of each of two programs of 20 agents that know nothing: %s answers",
    ([way, least]) =>
      Effect.gen(function* () {
        const starts: Array<number> = []
        const program = Effect.gen(function* () {
          const context = yield* Layer.build(live({ "5h": { share: 0.7 } }))
          // A call costs four cents: 0.4 % of the window.
          const call = ask(4_000, { priority: -1 }, way, (used) => starts.push(used))
          const agent = Effect.forEach(Array.from({ length: 40 }), () => call, { discard: true })
          return yield* Effect.forEach(Array.from({ length: 20 }), () => Effect.exit(agent), {
            concurrency: "unbounded"
          }).pipe(Effect.provideContext(context))
        })
        const running = [yield* Effect.forkChild(program), yield* Effect.forkChild(program)]
        for (let n = 0; n < 290; n++) yield* TestClock.adjust("1 minute")
        for (const fiber of running) assert.isDefined(fiber.pollUnsafe())
        const { used } = yield* counted
        assert.isAtMost(used, 0.7 + 0.01 + 2 * 0.004)
        assert.isAtLeast(used, 0.7 * least)
        assert.isAtMost(Math.max(...starts), 0.7 + 0.01)
      }).pipe(Effect.scoped, Effect.provide(subscription()))
  )

  it.effect("let a call wait if only the reservations of running calls are in its way", () =>
    Effect.gen(function* () {
      // Each is expected to use 4,096 tokens, which are 0.4 % of the window, and uses 1,000.
      const calls = yield* Effect.forEach([1, 2], () => Effect.forkChild(ask(80_000)))
      const late = yield* Effect.forkChild(Effect.flip(ask(80_000, { maxWait: "10 seconds" })))
      yield* TestClock.adjust("10 seconds")
      const error = yield* Fiber.join(late)
      assert.isTrue(error instanceof Budget.BudgetError && error.reason._tag === "WaitTooLong")
      const { stats } = yield* ProviderSim.ProviderSim
      yield* TestClock.adjust("10 seconds")
      yield* TestClock.adjust(1)
      assert.deepInclude(yield* stats, { completed: 1, inFlight: 1 })
      yield* TestClock.adjust("20 seconds")
      for (const call of calls) assert.strictEqual(yield* Fiber.join(call), 1_000)
    }).pipe(
      Effect.provide(live({ "5h": { share: 0.7 } }, learned({ used: 0.694, dollars: 10, resetsAt: 5 * hour }))),
      Effect.provide(subscription({ windows: { "5h": { dollars: 10, used: 0.694 } }, outputTokens: 1_000 }))
    )
  )

  it.effect("predict the fraction within a point after 50 calls", () =>
    Effect.gen(function* () {
      for (let n = 0; n < 60; n++) {
        const fiber = yield* Effect.forkChild(ask(3_000 + 100 * (n % 7)))
        yield* TestClock.adjust("20 seconds")
        yield* Fiber.join(fiber)
        if (n < 50) continue
        const { dollars, used } = yield* windowOf
        assert.closeTo(used, (yield* counted).used, 0.01)
        assert.closeTo(dollars!, 10, 1)
      }
    }).pipe(Effect.provide(live({ "5h": { share: 1 } })), Effect.provide(subscription()))
  )

  it.effect("refuse a call that is larger than the share without telling it to wait for the reset", () =>
    Effect.gen(function* () {
      const error = causeOf(yield* Effect.flip(ask(10_000)))
      if (!(error instanceof Spending.WindowShareUsed)) return assert.fail(String(error))
      assert.isFalse(error.isRetryable)
      assert.strictEqual(
        error.message,
        "20 % of the account's window of 5h are used, and this call may use up to 0.1 %: raise the share"
      )
    }).pipe(
      Spending.waitForReset(() => assert.fail("waits")),
      Effect.provide(live({ "5h": { share: 0.001 } }, learned({ used: 0.2, dollars: 10, resetsAt: 5 * hour }))),
      Effect.provide(subscription())
    )
  )

  it.effect("refuse everybody until the reset once the provider has rejected a call", () =>
    Effect.gen(function* () {
      const resetsAt = 3 * hour
      const headers = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
        "anthropic-ratelimit-unified-5h-utilization": "1.0",
        "anthropic-ratelimit-unified-5h-reset": String(resetsAt / 1_000)
      }
      const governor = yield* Governor.Governor
      const run = (fails: boolean) =>
        governor.run(
          { model, bytes: 10, maxTokens: 10 },
          () =>
            fails
              ? Effect.fail(
                  new LlmError({ reason: new RateLimited({ status: 429, signal: Signals.fromHeaders(headers) }) })
                )
              : Effect.succeed({ value: "" }),
          { priority: 1 }
        )
      yield* Effect.exit(run(true))
      const error = causeOf(yield* Effect.flip(run(false)))
      if (!(error instanceof Spending.WindowShareUsed)) return assert.fail(String(error))
      assert.strictEqual(error.message, "The account's window of 5h is used up: wait until 1970-01-01T03:00:00.000Z")
      // A call that may wait until then does so, and starts at the reset.
      const patient = governor.run({ model, bytes: 10, maxTokens: 10 }, () => Effect.succeed({ value: "late" }), {
        maxWait: "3 hours"
      })
      const waiting = yield* Effect.forkChild(patient)
      yield* TestClock.adjust(resetsAt - 1)
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(waiting), "late")
    }).pipe(Effect.provide(live({ "5h": { share: 0.7 } }, undefined, Infinity)))
  )

  it.effect("are only listed where none has a share: a rejected one refuses no call", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const headers = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
        "anthropic-ratelimit-unified-5h-utilization": "1.0",
        "anthropic-ratelimit-unified-5h-reset": "18000"
      }
      const run = (signal?: ReturnType<typeof Signals.fromHeaders>) =>
        governor.run({ model, bytes: 10, maxTokens: 10 }, () => Effect.succeed({ value: "answer", signal }))
      yield* run(Signals.fromHeaders(headers))
      assert.deepInclude(yield* windowOf, { isRejected: true, used: 1, share: undefined })
      assert.strictEqual(yield* run(), "answer")
    }).pipe(Effect.provide(live(undefined)))
  )

  it.effect("limit only those that have a share, and calls that count towards them", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const headers = {
        "anthropic-ratelimit-unified-5h-utilization": "0.4",
        "anthropic-ratelimit-unified-5h-reset": "18000",
        "anthropic-ratelimit-unified-7d-utilization": "0.9",
        "anthropic-ratelimit-unified-7d-reset": "604800"
      }
      const call = (more: Partial<Governor.Call> = {}) =>
        Effect.exit(
          governor.run({ model, bytes: 10, maxTokens: 10, account: "key", ...more }, () =>
            Effect.succeed({
              value: "",
              actual: { inputTokens: 1, outputTokens: 1 },
              signal: Signals.fromHeaders(headers)
            })
          )
        )
      for (let n = 0; n < 3; n++) assert.strictEqual((yield* call())._tag, "Success")
      headers["anthropic-ratelimit-unified-5h-utilization"] = "0.8"
      assert.strictEqual((yield* call())._tag, "Success")
      assert.strictEqual((yield* call())._tag, "Failure")
      assert.strictEqual((yield* call({ slowLane: true }))._tag, "Success")
      // Another account has windows of its own.
      assert.strictEqual((yield* call({ account: "other" }))._tag, "Success")
    }).pipe(Effect.provide(live({ "5h": { share: 0.7 } })))
  )

  it.effect("go on from a fraction that jumps down in the middle of a window, and from one that is old", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const hears = (used: number, resetsAt: number) =>
        governor.run({ model, bytes: 10, maxTokens: 10 }, () =>
          Effect.succeed({
            value: "",
            actual: { inputTokens: 1, outputTokens: 100_000 },
            signal: Signals.fromHeaders({
              "anthropic-ratelimit-unified-5h-utilization": String(used),
              "anthropic-ratelimit-unified-5h-reset": String(resetsAt / 1_000)
            })
          })
        )
      for (const used of [0.5, 0.52, 0.54]) yield* hears(used, 5 * hour)
      yield* hears(0.2, 5 * hour)
      assert.closeTo((yield* windowOf).used, 0.2, 0.04)
      yield* TestClock.setTime(6 * hour)
      yield* hears(0.01, 11 * hour)
      yield* hears(0.99, 5 * hour)
      const { resetsAt, used } = yield* windowOf
      assert.deepStrictEqual(resetsAt, 11 * hour)
      assert.isBelow(used, 0.1)
    }).pipe(Effect.provide(live({ "5h": { share: 0.9 } })))
  )

  for (const share of [0, 1.2, Number.NaN]) {
    it(`reject a share of ${share}`, () =>
      assert.throws(
        () => live({ "5h": { share } }),
        RangeError,
        /windows\["5h"\]\.share: expected a number > 0, at most 1/
      ))
  }

  it.each(["five hours", "0h", "5", "7d_", "constructor", "7d_oi"])("reject a share of the window %s", (name) =>
    assert.throws(() => live({ [name]: { share: 0.5 } }), RangeError, /names of windows such as "5h"/)
  )

  for (const [what, headers] of [
    [
      "an overage account",
      { "anthropic-ratelimit-unified-reset": "1", "anthropic-ratelimit-unified-overage-reset": "2" }
    ],
    ["a fraction without a reset", { "anthropic-ratelimit-unified-5h-utilization": "0.4" }],
    [
      "words instead of numbers",
      { "anthropic-ratelimit-unified-5h-utilization": "most", "anthropic-ratelimit-unified-5h-reset": "soon" }
    ]
  ] as const) {
    it(`know nothing from ${what}`, () => assert.isUndefined(Signals.fromHeaders(headers)))
  }
})

describe("calls within a long window", () => {
  const dollar = 1e9
  const holding = (dollars: number, used = 0) => windowsWith(1, { name: "5h", used, resetsAt: 5 * hour, dollars })
  const phases = (...holds: ReadonlyArray<{ readonly phase: string }>) => holds.map(({ phase }) => phase)

  it("are served between agents by their costs, and not by their number", () => {
    const { ask } = holding(85)
    const blocker = ask(85, "x")
    ask(60, "a")
    const [first, second] = [ask(10, "b"), ask(10, "b")]
    const later = ask(10, "a")
    blocker.settle(0)
    assert.deepStrictEqual(phases(first, second, later), ["held", "held", "waiting"])
  })

  it("are served between agents by what they have cost in the end, and not by what was expected", () => {
    const { ask } = holding(1_000)
    const blocker = ask(1_000, "x")
    const [one, other] = [ask(600, "a"), ask(500, "b")]
    const [more, another] = [ask(600, "b"), ask(600, "a")]
    blocker.settle(0)
    one.settle(300 * dollar)
    other.settle(0)
    assert.deepStrictEqual(phases(another, more), ["held", "waiting"])
  })

  it("go up to exactly the share, and none starts at the share", () => {
    const told = (used: number) => ({ dimensions: {}, windows: { "5h": { used, resetsAt: 5 * hour } } })
    for (const [used, phase] of [
      [0.49, "held"],
      [0.5, "ended"]
    ] as const) {
      const { ask, windows } = windowsWith(0.5)
      windows.observe(undefined, told(used), undefined, "m")
      assert.strictEqual(ask(1).phase, phase, `${used} of a window of unknown size`)
    }
    const { ask } = windowsWith(0.5, { name: "5h", used: 0.25, resetsAt: 5 * hour, dollars: 16 })
    assert.deepStrictEqual(phases(ask(4.001), ask(4)), ["ended", "held"])
  })

  it.each([0, undefined])("are served as those of an agent that has had nothing, after one of %s dollars", (none) => {
    const { ask } = holding(1_000)
    const blocker = ask(1_000, "x")
    // What asks for nothing is admitted at once, unless others wait.
    const [first, free, other] = [ask(600, "b"), ask(none, "free"), ask(500, "c")]
    const [second, next] = [ask(150, "b"), ask(150, "free")]
    blocker.settle(0)
    free.settle(50 * dollar)
    first.settle(300 * dollar)
    assert.deepStrictEqual(phases(other, next, second), ["held", "held", "waiting"])
  })

  it("are refused for a time that is not known, if nothing was heard since the last reset", () => {
    const { ask, pass } = windowsWith(0.5, { name: "5h", used: 0.5, resetsAt: 5 * hour, dollars: 10 })
    assert.strictEqual(ask(1).refusal?.until, 5 * hour)
    pass(5 * hour)
    ask(5).settle(5 * dollar)
    assert.deepStrictEqual(ask(1).refusal, {
      window: "5h",
      used: 0.5,
      share: 0.5,
      until: undefined,
      triesAt: undefined
    })
  })

  it("are held back by no size that is not known, and leave nothing unknown in what is stored", () => {
    const known = { name: "5h", used: 0.1, resetsAt: 5 * hour }
    const { ask, pass, windows } = windowsWith(0.5, known)
    assert.deepStrictEqual(phases(ask(1_000)), ["held"])
    assert.deepInclude(windows.status[0], { used: 0.1, resetsAt: 5 * hour, dollars: undefined })
    assert.deepStrictEqual(windows.learned, [known])
    windows.observe(undefined, { dimensions: {} }, undefined, "m")
    assert.deepStrictEqual(windows.learned, [known])
    // JSON has no infinity.
    pass(5 * hour)
    assert.deepInclude(windows.status[0], { used: 0, resetsAt: undefined })
    assert.deepStrictEqual(windows.learned, [{ ...known, used: 0, resetsAt: 0 }])
  })

  it("count as expected if their cost is unknown, and as nothing if they asked for nothing", () => {
    const { ask, windows } = holding(1_000)
    const blocker = ask(1_000, "x")
    const [free, unknown, large] = [ask(0, "free"), ask(100, "a"), ask(500, "b")]
    const [second, third, fourth] = [ask(450, "b"), ask(450, "a"), ask(450, "free")]
    blocker.settle(0)
    free.settle(0)
    unknown.settle(undefined)
    assert.deepStrictEqual(phases(large, second, third, fourth), ["held", "waiting", "waiting", "waiting"])
    large.settle(200 * dollar)
    assert.deepStrictEqual(phases(fourth, third, second), ["held", "waiting", "waiting"])
    fourth.settle(0)
    assert.deepStrictEqual(phases(third, second), ["held", "waiting"])
    assert.closeTo(windows.learned[0]!.used, 0.3, 1e-9)
  })

  it("hold exactly nothing when all have ended, also those that do not count", () => {
    const { ask, windows } = holding(1)
    for (const unit of [0.1, 1e-10]) {
      const holds = [1, undefined, 2, 3].map((units) => ask(units === undefined ? undefined : units * unit))
      assert.closeTo(windows.status[0]!.used, 6 * unit, 1e-3 * unit)
      const left = [5, 5, 3, 0]
      for (const [index, hold] of holds.entries()) {
        hold.settle(0)
        assert.closeTo(windows.status[0]!.used, left[index]! * unit, 1e-3 * unit)
      }
      assert.strictEqual(windows.status[0]!.used, 0)
    }
    assert.deepStrictEqual(phases(ask(1), ask(0.1)), ["held", "waiting"])
  })

  it("go as soon as a response shows that there is room", () => {
    const { ask, windows } = holding(10, 0.5)
    const running = ask(5)
    const waiting = ask(5)
    assert.deepStrictEqual(phases(running, waiting), ["held", "waiting"])
    const told = { used: 0, resetsAt: 10 * hour }
    windows.observe(undefined, { dimensions: {}, windows: { "5h": told } }, undefined, "m")
    assert.deepStrictEqual(phases(waiting), ["held"])
    // Half a window is held.
    assert.closeTo(windows.status[0]!.used, 1, 1e-9)
  })

  it("measure the window also by responses whose call is not known", () => {
    const { ask, windows } = windowsWith(1)
    const told = (used: number) =>
      windows.observe(undefined, { dimensions: {}, windows: { "5h": { used, resetsAt: 5 * hour } } }, undefined, "m")
    told(0)
    ask(2).settle(2 * dollar)
    told(0.2)
    const [{ dollars, used }] = windows.learned as [(typeof windows.learned)[number]]
    assert.closeTo(used, 0.2, 1e-9)
    assert.closeTo(dollars!, 10, 1e-9)
  })

  it("keep their account known beside a thousand others, of which only the latest are", () => {
    const { ask, windows } = windowsWith(1)
    const told = { dimensions: {}, windows: { "5h": { used: 0.1, resetsAt: 5 * hour } } }
    const running = ask(1, "agent", "running")
    windows.observe("running", told, running, "m")
    for (let n = 0; n < 2_000; n++) windows.observe(`${n}`, told, undefined, "m")
    const known = windows.learned.map(({ account }) => account)
    assert.isAtMost(known.length, 1_000)
    assert.deepStrictEqual(
      ["running", "0", "1999"].map((account) => known.includes(account)),
      [true, false, true]
    )
  })
})

describe("a spend limit that is used up", () => {
  const refused = (resumesAt?: number) =>
    Effect.flatMap(Governor.Governor, (governor) =>
      Effect.exit(
        governor.run({ model, bytes: 10, account: "key" }, () =>
          Effect.fail(
            new LlmError({
              reason: new SpendLimited({
                status: 429,
                resumesAt: resumesAt === undefined ? undefined : DateTime.makeUnsafe(resumesAt)
              })
            })
          )
        )
      )
    )
  const known = Effect.flatMap(Governor.Governor, ({ windows }) => windows)

  it.effect("is in the status until it is reset, and holds no call back", () =>
    Effect.gen(function* () {
      yield* refused()
      assert.deepStrictEqual(yield* known, [])
      yield* refused(5 * hour)
      // It says no more than the first.
      yield* refused()
      const [limit, ...others] = yield* known
      assert.deepStrictEqual(others, [])
      assert.deepInclude(limit!, { account: "key", name: "spend limit", isRejected: true, resetsAt: 5 * hour })
      yield* TestClock.adjust("5 hours")
      assert.deepStrictEqual(yield* known, [])
    }).pipe(Effect.provide(live(undefined)))
  )

  it.effect("leaves the status with the first call of its account that succeeds, because somebody has raised it", () =>
    Effect.gen(function* () {
      yield* refused(5 * hour)
      const governor = yield* Governor.Governor
      const succeed = (account: string) =>
        governor.run({ model, bytes: 10, account }, () => Effect.succeed({ value: "answer" }))
      yield* succeed("another")
      assert.lengthOf(yield* known, 1)
      yield* succeed("key")
      assert.deepStrictEqual(yield* known, [])
    }).pipe(Effect.provide(live(undefined)))
  )
})
