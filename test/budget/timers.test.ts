import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import { Simulation } from "floodgate/testing"

/** A clock that counts present and past sleeps. */
const counting = Effect.map(Clock.Clock, (clock) => {
  const counted = { asleep: 0, sleeps: 0 }
  const own = Object.assign(Object.create(clock) as Clock.Clock, {
    sleep: (...args: Parameters<Clock.Clock["sleep"]>) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          counted.asleep++
          counted.sleeps++
        }),
        () => clock.sleep(...args),
        () => Effect.sync(() => counted.asleep--)
      )
  })
  return Object.assign(counted, { clock: own })
})

describe("the timer of a budget", () => {
  // Regression: a timer that an earlier one had overtaken armed one more when it fired, so that each wait left another
  // chain of timers behind. A run of a minute took ten seconds of computing.
  it.effect("sleeps about once for each call that waits, however often an earlier time is found", () =>
    Effect.gen(function* () {
      const calls = 400
      const counted = yield* counting
      const limits = { tokens: { perSecond: 1_000, burst: 1_000 } }
      const budget = yield* Effect.provideService(Budget.make({ limits }), Clock.Clock, counted.clock)
      // A refund admits the next call before its timer fires.
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
      assert.isAbove(counted.sleeps, 10)
      assert.isAtMost(counted.sleeps, 3 * calls)
    }).pipe(Effect.scoped)
  )

  it.effect("replaces the one that an earlier time overtakes", () =>
    Effect.gen(function* () {
      const counted = yield* counting
      const limits = { requests: { perSecond: 1, burst: 1 }, tokens: { perMinute: 600, window: "bucket" } } as const
      const budget = yield* Effect.provideService(Budget.make({ limits }), Clock.Clock, counted.clock)
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
      assert.isAtMost(counted.asleep, 3)
      yield* Fiber.interrupt(long)
    }).pipe(Effect.scoped)
  )

  it.effect("sleeps as often in a long outage of its store as in a short one", () =>
    Effect.gen(function* () {
      const counted = yield* counting
      const stored = new Map<string, BudgetStore.Stored>()
      let isAway = false
      const reached = <A>(get: () => A) =>
        Effect.suspend(() =>
          isAway ? Effect.fail(new BudgetStore.StoreError({ cause: new Error("nobody listens") })) : Effect.sync(get)
        )
      const store: BudgetStore.Store = {
        read: (key) => reached(() => stored.get(key)),
        swap: (key, expected, next) =>
          reached(() => {
            if (stored.get(key)?.version === expected) stored.set(key, next)
            return stored.get(key)
          })
      }
      for (const whenAway of ["degrade", "fail", { wait: "1 hour" }] as const) {
        isAway = false
        stored.clear()
        const budget = yield* Budget.make({ limits: { tokens: { perSecond: 1_000 } } }).pipe(
          Effect.provideService(Clock.Clock, counted.clock),
          Effect.provide(BudgetStore.layer(store, { whenAway }))
        )
        yield* Effect.forkChild(Effect.scoped(budget.reserve({ tokens: 1 })))
        yield* TestClock.adjust("2 minutes")
        isAway = true
        yield* TestClock.adjust("1 minute")
        const before = counted.asleep
        yield* TestClock.adjust("5 minutes")
        assert.isAtMost(counted.asleep, before + 1, JSON.stringify(whenAway))
      }
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"), Effect.scoped)
  )
})
