/** What an account's calls may do while its long windows are used up, and what Floodgate learns of windows that it has not seen. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { LlmError, RateLimited } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import * as Signals from "floodgate/Signals"
import { windowsWith } from "../support/paying.ts"

const hour = 3_600_000
const dollar = 1e9

const live = (options: Governor.Options, budget: Budget.Options = {}) =>
  Governor.layer({ retry: Retry.make({ attempts: 1 }), ...options }).pipe(Layer.provide(Budget.layer(budget)))

describe("the slower lane", () => {
  const holding = () => windowsWith(0.5, { name: "5h", used: 0.1, resetsAt: 5 * hour, dollars: 10 })

  it("is open to a call while others of its account wait, and while they are refused", () => {
    const { ask, windows } = holding()
    const running = ask(4)
    assert.strictEqual(ask(4).phase, "waiting")
    assert.strictEqual(ask(undefined).phase, "held")
    running.settle(4 * dollar)
    windows.observe(undefined, { dimensions: {}, windows: { "5h": { used: 0.9, resetsAt: 5 * hour } } }, undefined, "m")
    assert.deepStrictEqual([ask(4).phase, ask(undefined).phase], ["ended", "held"])
  })

  it("counts apart, and teaches nothing about the size of a window", () => {
    const { ask, windows } = holding()
    const [before] = windows.status
    for (const dollars of [1, 2]) ask(undefined).settle(dollars * dollar)
    // An interrupted call costs something nobody knows.
    ask(undefined).settle(undefined)
    const [after] = windows.status
    assert.deepStrictEqual(after, { ...before!, slowLane: { calls: 3, dollars: 3 } })
  })

  it.effect("waits in its pool behind all other calls, whatever their priorities", () =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      const order: Array<string> = []
      const call = (name: string, slowLane: boolean, priority: number) =>
        Effect.forkChild(
          governor.run(
            { model: "m", bytes: 10, slowLane },
            () =>
              Effect.delay(
                Effect.sync(() => ({ value: order.push(name) })),
                "1 second"
              ),
            { priority }
          )
        )
      const fibers = [
        yield* call("first", false, 0),
        yield* call("slow", true, 1),
        yield* call("batch", false, -1),
        yield* call("person", false, 1)
      ]
      yield* TestClock.adjust("1 minute")
      for (const fiber of fibers) yield* Fiber.join(fiber)
      assert.deepStrictEqual(order, ["first", "person", "batch", "slow"])
    }).pipe(Effect.provide(live({}, { concurrency: 1 })))
  )
})

describe("windows of some models", () => {
  const told = (name: string, models: ReadonlyArray<string>, isRejected = true) => ({
    dimensions: {},
    windows: { [name]: { used: 1, resetsAt: 5 * hour, isRejected, models } }
  })

  it("refuse the calls of these models only: by name, or those in whose responses they were told", () => {
    const { ask, windows } = windowsWith(0.5)
    const phases = () =>
      ["claude-sonnet-5", "claude-fable-5", "claude-haiku-5"].map((model) => ask(1, "a", undefined, model).phase)
    windows.observe(undefined, told("7d_sonnet", ["sonnet"]), undefined, "claude-haiku-5")
    assert.deepStrictEqual(phases(), ["ended", "held", "held"])
    windows.observe(undefined, told("7d_oi", []), undefined, "claude-fable-5")
    assert.deepStrictEqual(phases(), ["ended", "ended", "held"])
    // A restart knows them, too.
    const { ask: later, windows: restarted } = windowsWith(0.5, ...windows.learned)
    assert.deepStrictEqual(
      restarted.status.map(({ models, name }) => [name, models]),
      [
        ["7d_sonnet", ["sonnet"]],
        ["7d_oi", ["claude-fable-5"]]
      ]
    )
    restarted.observe(undefined, told("7d_oi", []), undefined, "claude-fable-5")
    // One call tries whether the window is open by now.
    assert.strictEqual(later(1, "a", undefined, "claude-fable-5").phase, "held")
    assert.strictEqual(later(1, "a", undefined, "claude-fable-5").phase, "ended")
    assert.strictEqual(later(1, "a", undefined, "claude-haiku-5").phase, "held")
  })

  it("are spent by the calls of these models only, also after a restart", () => {
    const { ask, windows } = windowsWith(
      { "7d": { share: 0.9 }, "7d_sonnet": { share: 0.7 } },
      { name: "7d", used: 0, resetsAt: 5 * hour, dollars: 1_000 },
      { name: "7d_sonnet", used: 0.5, resetsAt: 5 * hour, dollars: 10, models: ["sonnet"] }
    )
    const running = ask(1, "a", undefined, "claude-haiku-5")
    for (let n = 0; n < 50; n++) ask(1, "a", undefined, "claude-haiku-5").settle(dollar)
    const used = () => Object.fromEntries(windows.status.map(({ name, used }) => [name, used]))
    assert.deepStrictEqual(used(), { "7d": 0.051, "7d_sonnet": 0.5 })
    assert.deepStrictEqual(
      windows.learned.map(({ used }) => used),
      [0.05, 0.5]
    )
    const sonnet = ask(1, "a", undefined, "claude-sonnet-5")
    assert.deepStrictEqual([sonnet.phase, used()["7d_sonnet"]], ["held", 0.6])
    // What the other model's calls cost while this one runs moves no fraction of its window.
    running.settle(5 * dollar)
    sonnet.settle(dollar)
    const told = (used: number) => ({
      dimensions: {},
      windows: { "7d_sonnet": { used, resetsAt: 5 * hour, models: ["sonnet"] } }
    })
    windows.observe(undefined, told(0.6), undefined, "claude-sonnet-5")
    const next = ask(1, "a", undefined, "claude-sonnet-5")
    windows.observe(undefined, told(0.6), next, "claude-sonnet-5")
    next.settle(dollar)
    assert.closeTo(windows.status[1]!.dollars!, 10, 0.1)
    assert.strictEqual(ask(1, "a", undefined, "claude-sonnet-5").phase, "ended")
  })

  it("may rest near their end: only the provider refuses calls of a window without a share", () => {
    const { ask, windows } = windowsWith(0.5)
    windows.observe(undefined, told("7d_oi", [], false), undefined, "claude-fable-5")
    assert.strictEqual(ask(1, "a", undefined, "claude-fable-5").phase, "held")
  })

  it("are as many as an account has, and so are the models of one", () => {
    const { windows } = windowsWith(0.5)
    for (let n = 1; n <= 200; n++) {
      windows.observe(undefined, told(`${n}h`, []), undefined, "m")
      windows.observe(undefined, told("1h", []), undefined, `model-${n}`)
    }
    assert.isAtMost(windows.status.length, 32)
    assert.isAtMost(windows.status[0]!.models!.length, 50)
  })
})

describe("the share of a window", () => {
  it("is that of all windows of its length, whatever they are called", () => {
    const { ask, windows } = windowsWith({ "1w": { share: 0.5 } })
    windows.observe(undefined, { dimensions: {}, windows: { "7d": { used: 0.6, resetsAt: hour } } }, undefined, "m")
    assert.deepInclude(ask(1).refusal, { window: "7d", share: 0.5 })
  })

  it("is missed once if no response tells of the window, with the names of those that there are", () => {
    const warnings: Array<string> = []
    const { windows } = windowsWith({ "5h": { share: 0.5 }, "7d": { share: 0.9 } }, (message) => warnings.push(message))
    const hear = (name: string) =>
      windows.observe(undefined, { dimensions: {}, windows: { [name]: { used: 0.1, resetsAt: hour } } }, undefined, "m")
    for (let n = 0; n < 9; n++) hear("7d")
    assert.deepStrictEqual(warnings, [])
    for (let n = 0; n < 20; n++) hear("7d")
    assert.deepStrictEqual(warnings, [
      'No response has told of the window "5h", so the share that is stated has no effect: this account has "7d" (this is logged once)'
    ])
  })

  it("is not missed if its window shows in time", () => {
    const { windows } = windowsWith({ "5h": { share: 0.5 } }, (message) => assert.fail(message))
    for (let n = 0; n < 30; n++) {
      const name = n === 5 ? "5h" : "7d"
      windows.observe(undefined, { dimensions: {}, windows: { [name]: { used: 0.1, resetsAt: hour } } }, undefined, "m")
    }
  })
})

/** An account whose window of five hours is spent, until somebody opens it, and how many requests it has got. */
const account = () => {
  const state = { isOpen: false, resetsAt: 5 * hour, requests: [] as Array<number>, answered: 0 }
  const call = (options: Governor.CallOptions = {}) =>
    Effect.flatMap(Governor.Governor, (governor) =>
      governor.run(
        { model: "claude-sonnet-5", bytes: 10, maxTokens: 10, account: "key" },
        () =>
          Effect.gen(function* () {
            const now = yield* Clock.currentTimeMillis
            state.requests.push(now)
            if (now >= state.resetsAt) Object.assign(state, { isOpen: true, resetsAt: state.resetsAt + 5 * hour })
            const { isOpen, resetsAt } = state
            const signal = Signals.fromHeaders({
              "anthropic-ratelimit-unified-status": isOpen ? "allowed" : "rejected",
              "anthropic-ratelimit-unified-representative-claim": "five_hour",
              "anthropic-ratelimit-unified-5h-utilization": isOpen ? "0.1" : "1",
              "anthropic-ratelimit-unified-5h-reset": String(resetsAt / 1_000)
            })
            yield* Effect.sleep("1 second")
            if (!isOpen)
              return yield* new LlmError({
                reason: new RateLimited({ status: 429, signal, retryAfter: Duration.hours(1) })
              })
            state.answered++
            return { value: "answer", actual: { inputTokens: 1, outputTokens: 1 }, signal }
          }),
        options
      )
    )
  const many = (calls: number, options?: Governor.CallOptions) =>
    Effect.forkChild(
      Effect.forEach(Array.from({ length: calls }), () => Effect.exit(call(options)), { concurrency: "unbounded" })
    )
  return { state, call, many }
}

const successes = (exits: ReadonlyArray<{ readonly _tag: string }>): number =>
  exits.filter(({ _tag }) => _tag === "Success").length

describe("a window that is spent", () => {
  const patient = { maxWait: "6 hours" } as const
  const shared = live({ windows: { "5h": { share: 0.9 } }, retry: Retry.make() })
  /** The window is spent, as a first call has found out. */
  const spent = Effect.gen(function* () {
    const all = account()
    all.state.resetsAt += yield* Clock.currentTimeMillis
    const first = yield* Effect.forkChild(Effect.exit(all.call()))
    yield* TestClock.adjust("1 second")
    assert.strictEqual((yield* Fiber.join(first))._tag, "Failure")
    return all
  })

  it.effect("is tried by one call of its account every ten minutes, and all others are refused", () =>
    Effect.gen(function* () {
      const { many, state } = yield* spent
      for (const [minutes, requests] of [
        [10, 2],
        [20, 3]
      ] as const) {
        yield* TestClock.setTime(minutes * 60_000 + 999)
        assert.strictEqual(successes(yield* Fiber.join(yield* many(20))), 0)
        assert.lengthOf(state.requests, requests - 1)
        yield* TestClock.adjust(1)
        const fiber = yield* many(20)
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
        assert.lengthOf(state.requests, requests)
      }
    }).pipe(Effect.provide(shared))
  )

  it.effect("lets all follow within 10 s after one has found it open, and loses none of those that wait", () =>
    Effect.gen(function* () {
      const { many, state } = yield* spent
      const waiting = yield* many(100, patient)
      yield* TestClock.adjust("47 minutes")
      // Nobody has noticed yet, and nobody was sent more often than six times an hour.
      assert.lengthOf(state.requests, 5)
      state.isOpen = true
      yield* TestClock.adjust("3 minutes")
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(state.answered, 100)
      assert.strictEqual(successes(yield* Fiber.join(waiting)), 100)
      assert.lengthOf(state.requests, 5 + 100)
    }).pipe(Effect.provide(shared))
  )

  it.effect("lets all go at the reset, each once, if no try finds it open", () =>
    Effect.gen(function* () {
      const { many, state } = yield* spent
      const waiting = yield* many(50, patient)
      yield* TestClock.setTime(state.resetsAt - 1)
      assert.strictEqual(state.answered, 0)
      assert.lengthOf(state.requests, 1 + 29)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(successes(yield* Fiber.join(waiting)), 50)
      assert.strictEqual(state.answered, 50)
    }).pipe(Effect.provide(shared))
  )

  /** The window opens for the interactive call that tries it, and says what the headers say. */
  const opens = (headers: Readonly<Record<string, string>> | undefined, before: number) =>
    Effect.gen(function* () {
      const governor = yield* Governor.Governor
      let started = 0
      const call = Effect.forkChild(
        governor.run(
          { model: "claude-sonnet-5", bytes: 10, maxTokens: 10, account: "key" },
          () =>
            Effect.delay(
              Effect.sync(() => ({
                value: ++started,
                actual: { inputTokens: 1, outputTokens: 1 },
                signal: headers && Signals.fromHeaders(headers)
              })),
              "1 second"
            ),
          { priority: 1, maxWait: "6 hours" }
        )
      )
      const { state } = yield* spent
      for (let n = 0; n < 30; n++) yield* call
      yield* TestClock.adjust(`${before} minutes`)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(started, 30)
      assert.lengthOf(state.requests, 1)
    }).pipe(Effect.provide(shared))

  const usedUp = {
    "anthropic-ratelimit-unified-status": "allowed",
    "anthropic-ratelimit-unified-5h-utilization": "1",
    "anthropic-ratelimit-unified-5h-reset": "18001",
    "anthropic-ratelimit-unified-overage-status": "allowed"
  }
  it.effect("lets all follow if the answer is paid for beside the window", () => opens(usedUp, 10))
  it.effect("lets all follow if the answer does not tell of the window", () => opens(undefined, 10))

  it.effect("lets all ask again if it opens too little for them, and each waits on", () =>
    Effect.gen(function* () {
      const { many } = yield* spent
      yield* many(20, patient)
      yield* TestClock.adjust("9 minutes")
      const governor = yield* Governor.Governor
      const signal = Signals.fromHeaders({ ...usedUp, "anthropic-ratelimit-unified-5h-utilization": "0.95" })
      // Another answer shows that it has opened, but its share is used.
      yield* governor.run({ model: "claude-sonnet-5", bytes: 10, account: "key", slowLane: true }, () =>
        Effect.succeed({ value: "", signal })
      )
      const [window] = yield* governor.windows
      assert.deepInclude(window, { isRejected: false })
    }).pipe(Effect.provide(shared), Effect.timeout("1 hour"))
  )

  it.effect("reaches a call that may not wait as the provider's own error, and slows nobody down afterwards", () =>
    Effect.gen(function* () {
      const { call, state } = account()
      const refused = yield* Effect.forkChild(Effect.flip(call()))
      yield* TestClock.adjust("1 second")
      assert.instanceOf(yield* Fiber.join(refused), LlmError)
      state.isOpen = true
      yield* TestClock.adjust("10 minutes")
      // The pool never paused.
      const next = yield* Effect.forkChild(call())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(next), "answer")
    }).pipe(Effect.provide(shared))
  )

  it.effect("is tried as often as is stated, or never", () =>
    Effect.gen(function* () {
      for (const [every, requests] of [
        ["1 hour", 1 + 4],
        [Duration.infinity, 1]
      ] as const) {
        const context = yield* Layer.build(
          live({ windows: { "5h": { share: 0.9 } }, retry: Retry.make(), tryWindowsEvery: every })
        )
        const { many, state } = yield* Effect.provideContext(spent, context)
        const waiting = yield* Effect.provideContext(many(10, { maxWait: "20 hours" }), context)
        yield* TestClock.adjust("290 minutes")
        assert.lengthOf(state.requests, requests)
        yield* Fiber.interrupt(waiting)
      }
    }).pipe(Effect.scoped)
  )
})

describe("a window of unknown size", () => {
  it("lets a few calls run at a time until something is told, and one at a time from half of the share on", () => {
    const { ask, windows } = windowsWith(0.6)
    const told = (used: number) =>
      windows.observe(undefined, { dimensions: {}, windows: { "5h": { used, resetsAt: 5 * hour } } }, undefined, "m")
    const first = [1, 1, 1, 1, 1].map((dollars) => ask(dollars))
    assert.deepStrictEqual(
      first.map(({ phase }) => phase),
      ["held", "held", "held", "waiting", "waiting"]
    )
    told(0.2)
    assert.deepStrictEqual(
      first.map(({ phase }) => phase),
      ["held", "held", "held", "waiting", "waiting"]
    )
    // What is known now: a dollar did not move it by a whole percent.
    first[0]!.settle(dollar)
    told(0.2)
    assert.deepStrictEqual(
      first.map(({ phase }) => phase),
      ["ended", "held", "held", "held", "held"]
    )
    const near = windowsWith(0.6)
    near.windows.observe(
      undefined,
      { dimensions: {}, windows: { "5h": { used: 0.31, resetsAt: 5 * hour } } },
      undefined,
      "m"
    )
    assert.deepStrictEqual([near.ask(1).phase, near.ask(1).phase], ["held", "waiting"])
  })

  it("does not hold back accounts without windows, calls without a price, or interactive ones", () => {
    const { ask } = windowsWith(0.6)
    const [first] = [1, 1, 1].map((dollars) => ask(dollars))
    const waiting = ask(1)
    assert.strictEqual(waiting.phase, "waiting")
    // It was answered, and nothing told of windows.
    first!.settle(0.5 * dollar)
    assert.deepStrictEqual(
      [waiting.phase, ...Array.from({ length: 20 }, () => ask(1).phase)],
      Array.from({ length: 21 }, () => "held")
    )
    const { ask: unpriced, windows } = windowsWith(0.6)
    windows.observe(undefined, { dimensions: {}, windows: { "5h": { used: 0.4, resetsAt: 5 * hour } } }, undefined, "m")
    assert.deepStrictEqual(
      Array.from({ length: 20 }, () => unpriced(0).phase),
      Array.from({ length: 20 }, () => "held")
    )
  })
})
