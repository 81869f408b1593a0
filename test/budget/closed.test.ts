/** Law 15: after its scope has ended, a budget admits no call and leaves none waiting. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import { type LuaRedis, make as makeRedis, store as storeOf } from "../sharing/luaRedis.ts"
import { settled } from "../support/reported.ts"
import { MapStore } from "../support/store.ts"

const stores: Readonly<Record<string, Effect.Effect<Layer.Layer<never>>>> = {
  "in memory": Effect.succeed(Layer.empty),
  "over a store": Effect.sync(() => BudgetStore.layer(new MapStore())),
  "over a store that takes its time": Effect.sync(() => {
    const store = new MapStore()
    store.latency = 5
    return BudgetStore.layer(store)
  }),
  "over the script for Redis": Effect.map(
    Effect.promise(() => makeRedis()),
    (redis: LuaRedis) => {
      redis.now = () => 1_700_000_000_000
      return BudgetStore.layer(storeOf("closed", redis))
    }
  )
}

const limits = { pools: { busy: { tokens: { total: 1_000 } }, idle: { tokens: { total: 1_000 } } } }

/** Callers of a used pool, of an unused one, and of one that was never opened. */
const callers: ReadonlyArray<Budget.ReserveOptions> = [
  { pool: "busy" },
  { pool: "idle" },
  { pool: "idle", account: "somebody" },
  { pool: "busy", maxWait: 1 },
  { pool: "idle", account: "another", maxWait: "1 day" }
]

describe("Law 15, closed is closed", () => {
  for (const [name, store] of Object.entries(stores)) {
    it.effect(`admits no call and leaves none waiting, ${name}`, () =>
      Effect.gen(function* () {
        const layer = yield* store
        const start = Effect.map(Scope.make(), (scope) => ({
          scope,
          budget: Effect.flatMap(Layer.buildWithScope(layer, scope), (context) =>
            Scope.provide(Effect.provideContext(Budget.make({ limits, concurrency: 1 }), context), scope)
          )
        }))
        const { budget: opened, scope } = yield* start
        const budget = yield* opened
        const reserve = (how: Budget.ReserveOptions) =>
          Effect.forkChild(Effect.scoped(budget.reserve({ tokens: 1 }, how)))
        const within = yield* Scope.make()
        const holding = yield* Effect.forkChild(
          Scope.provide(budget.reserve({ tokens: 100 }, { pool: "busy" }), within)
        )
        yield* TestClock.adjust("1 second")
        const held = yield* Fiber.join(holding)
        const before = yield* reserve({ pool: "busy" })
        yield* TestClock.adjust("1 second")
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
        yield* settled
        const during = yield* Effect.forEach(callers, reserve)
        yield* TestClock.adjust("1 second")
        const after = yield* Effect.forEach(callers, reserve)
        yield* settled
        for (const [at, fiber] of [before, ...during, ...after].entries()) {
          const exit = fiber.pollUnsafe()
          assert.isDefined(exit, `caller ${at} waits`)
          assert.isTrue(Exit.hasInterrupts(exit!), `caller ${at} was admitted`)
        }
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(closing)
        // Later callers open no pool.
        yield* held.settle({ tokens: 50 })
        yield* budget.observe({ pool: "somebody/idle", dimensions: {} })
        yield* budget.pause({ duration: "1 second", pool: "somebody/idle", reason: "rateLimit" })
        yield* budget.resize({ pool: "idle", concurrency: 5 })
        const { pools } = yield* budget.status
        assert.deepStrictEqual(Object.keys(pools).sort(), ["busy", "idle"])
        assert.deepStrictEqual(
          Object.values(pools).map(({ queued }) => queued),
          [0, 0]
        )
        yield* Scope.close(within, Exit.void)
      })
    )
  }
})
