/** What an account's calls may do while its long windows are used up, and what Floodgate learns of windows that it has not seen. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
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
    assert.strictEqual(later(1, "a", undefined, "claude-fable-5").phase, "ended")
    assert.strictEqual(later(1, "a", undefined, "claude-haiku-5").phase, "held")
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
