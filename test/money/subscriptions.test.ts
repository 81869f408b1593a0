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
    windows.observe(undefined, { dimensions: {}, windows: { "5h": { used: 0.9, resetsAt: 5 * hour } } }, undefined)
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
