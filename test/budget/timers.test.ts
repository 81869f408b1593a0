import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import { Simulation } from "floodgate/testing"

describe("the timer of a budget", () => {
  // Regression: a timer that an earlier one had overtaken armed one more when it fired, so that each wait left another
  // chain of timers behind. A run of a minute took ten seconds of computing.
  it.effect("sleeps about once for each call that waits, however often an earlier time is found", () =>
    Effect.gen(function* () {
      const calls = 400
      let sleeps = 0
      const counted = Effect.map(Clock.Clock, (clock) =>
        Object.assign(Object.create(clock) as Clock.Clock, {
          sleep: (...args: Parameters<Clock.Clock["sleep"]>) => {
            sleeps++
            return clock.sleep(...args)
          }
        })
      )
      const budget = yield* Effect.provideServiceEffect(
        Budget.make({ limits: { tokens: { perSecond: 1_000, burst: 1_000 } } }),
        Clock.Clock,
        counted
      )
      // What is given back lets the next call go earlier than its timer.
      const call = (n: number) =>
        Effect.scoped(
          Effect.gen(function* () {
            const held = yield* budget.reserve({ tokens: 500 })
            yield* Effect.sleep(50 + (n % 7) * 30)
            yield* held.settle({ tokens: 100 })
          })
        )
      yield* Simulation.run(
        Effect.forEach(
          Array.from({ length: calls }, (_, n) => n),
          call,
          { concurrency: 40 }
        )
      )
      assert.isAbove(sleeps, 10)
      assert.isAtMost(sleeps, 3 * calls)
    }).pipe(Effect.scoped)
  )

  it.effect("replaces the one that an earlier time overtakes", () =>
    Effect.gen(function* () {
      let asleep = 0
      const counted = Effect.map(Clock.Clock, (clock) =>
        Object.assign(Object.create(clock) as Clock.Clock, {
          sleep: (...args: Parameters<Clock.Clock["sleep"]>) =>
            Effect.acquireUseRelease(
              Effect.sync(() => asleep++),
              () => clock.sleep(...args),
              () => Effect.sync(() => asleep--)
            )
        })
      )
      const limits = { requests: { perSecond: 1, burst: 1 }, tokens: { perMinute: 600, window: "bucket" } } as const
      const budget = yield* Effect.provideServiceEffect(Budget.make({ limits }), Clock.Clock, counted)
      const call = (tokens: number, used: number, priority = 0) =>
        Effect.scoped(Effect.flatMap(budget.reserve({ tokens }, { priority }), (held) => held.settle({ tokens: used })))
      // One waits about an hour for a debt, and small urgent ones pass it.
      yield* call(0, 36_000)
      const long = yield* Effect.forkChild(call(600, 600))
      for (let n = 0; n < 100; n++) {
        yield* Effect.forkChild(call(0, 0, 1))
        yield* Effect.forkChild(call(0, 0, 1))
        yield* TestClock.adjust("2 seconds")
      }
      assert.isAtMost(asleep, 3)
      yield* Fiber.interrupt(long)
    }).pipe(Effect.scoped)
  )
})
