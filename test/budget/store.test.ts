/** A budget that shares a store with other processes, while the store answers, is slow, and cannot be reached. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import * as BudgetStore from "floodgate/BudgetStore"
import * as Events from "floodgate/Events"
import { isDone, start } from "../support/budget.ts"
import { keyOf } from "../../src/sharing/state.ts"
import { statusOf } from "../../src/sharing/status.ts"
import { MapStore } from "../support/store.ts"

const limits = { tokens: { perSecond: 1_000, burst: 1_000 } }

/** The budget of another process. */
const open = (store: MapStore, options: BudgetStore.Options = {}, of: Budget.Options = { limits }) =>
  Effect.provide(Budget.make(of), BudgetStore.layer(store, options)).pipe(
    Effect.provideService(References.MinimumLogLevel, "None")
  )

const consume = (budget: Budget.TokenBudget["Service"], tokens: number, how?: Budget.ReserveOptions) =>
  Effect.scoped(Effect.asVoid(budget.reserve({ tokens }, how)))

const reasonOf = (error: Budget.BudgetError) => error.reason._tag

describe("Budget, sharing a store", () => {
  it.effect(
    "spends one limit together",
    () =>
      Effect.gen(function* () {
        const store = new MapStore()
        const budgets = [yield* open(store), yield* open(store)]
        let served = 0
        for (const budget of budgets) {
          const call = Effect.andThen(
            consume(budget, 100),
            Effect.sync(() => (served += 100))
          )
          yield* Effect.forkScoped(Effect.forever(call))
        }
        yield* TestClock.adjust("30 seconds")
        assert.isAtMost(served, 1_000 + 30_000)
        assert.isAtLeast(served, 0.9 * 30_000)
      }).pipe(Effect.scoped),
    { tags: "full" }
  )

  it.effect("shares a pool again after closing it", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const few = { limits, maxPools: 50 }
      const [one, two] = [yield* open(store, {}, few), yield* open(store, {}, few)]
      const names = Effect.map(one.status, ({ pools }) => new Set(Object.keys(pools)))
      for (let n = 0; n < 51; n++) yield* Fiber.join(yield* start(consume(one, 1, { account: `key-${n}` })))
      yield* TestClock.adjust("10 seconds")
      assert.isFalse((yield* names).has("key-0"))
      yield* Fiber.join(yield* start(consume(two, 900, { account: "key-0" })))
      const call = yield* start(consume(one, 190, { account: "key-0" }))
      yield* TestClock.adjust(80)
      assert.isFalse(isDone(call))
      yield* TestClock.adjust(500)
      assert.isTrue(isDone(call))
    }).pipe(Effect.scoped)
  )

  it.effect("applies the limits that another process sets", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const budgets = [yield* open(store), yield* open(store)] as const
      for (const budget of budgets) yield* Fiber.join(yield* start(consume(budget, 1)))
      yield* budgets[1].resize({ limits: { tokens: { perSecond: 10, burst: 10 } } })
      yield* TestClock.adjust("1 second")
      const [first, second] = yield* Effect.replicateEffect(start(consume(budgets[0], 10)), 2)
      yield* TestClock.adjust(500)
      assert.deepStrictEqual([isDone(first!), isDone(second!)], [true, false])
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(isDone(second!))
      assert.strictEqual(reasonOf(yield* Effect.flip(consume(budgets[0], 1_000))), "EstimateTooLarge")
    }).pipe(Effect.scoped)
  )

  it.effect("reads limits that were raised while it was idle when it refuses a call as too large", () =>
    Effect.gen(function* () {
      // Regression: an idle process kept refusing calls by a limit that another process had raised.
      const store = new MapStore()
      const budgets = [yield* open(store), yield* open(store)] as const
      for (const budget of budgets) yield* Fiber.join(yield* start(consume(budget, 1)))
      const refused = Effect.map(Effect.flip(consume(budgets[0], 100_000)), reasonOf)
      assert.strictEqual(yield* refused, "EstimateTooLarge")
      yield* TestClock.adjust("5 minutes")
      yield* budgets[1].resize({ limits: { tokens: { perSecond: 2_000, burst: 2_000 } } })
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(yield* refused, "EstimateTooLarge")
      yield* TestClock.adjust("1 second")
      const admitted = yield* start(consume(budgets[0], 100_000))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(admitted)
    }).pipe(Effect.scoped)
  )

  it.effect("keeps no process in the state that has closed", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const staying = yield* open(store)
      for (let n = 0; n < 5; n++) {
        yield* Effect.scoped(
          Effect.flatMap(open(store), (leaving) => Effect.flatMap(start(consume(leaving, 1)), Fiber.join))
        )
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(yield* start(consume(staying, 1)))
      }
      yield* TestClock.adjust("1 second")
      const { value } = (yield* store.read(keyOf("default")))!
      assert.strictEqual(Object.keys(JSON.parse(value).owners).length, 1)
    }).pipe(Effect.scoped)
  )

  it.effect("shows in its status what its own calls gave back, also while another process has committed", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      const [one, two] = [yield* open(store), yield* open(store)]
      const levelOf = Effect.map(one.status, ({ pools }) => pools["default"]!.dimensions.tokens!.level)
      const scope = yield* Scope.make()
      const asking = yield* start(Scope.provide(one.reserve({ tokens: 900 }), scope))
      yield* TestClock.adjust(100)
      const held = yield* Fiber.join(asking)
      yield* Fiber.join(yield* start(consume(two, 10)))
      const before = yield* levelOf
      yield* held.settle({ tokens: 100 })
      assert.closeTo((yield* levelOf) - before, 800, 1)
      store.latency = 200
      // Its next commit meets the other's, and is made again.
      const next = yield* start(consume(one, 1))
      const seen: Array<number> = []
      for (let n = 0; n < 60; n++) {
        yield* TestClock.adjust(10)
        seen.push(yield* levelOf)
      }
      store.latency = 0
      yield* TestClock.adjust("1 second")
      assert.isAtLeast(Math.min(...seen), before + 700)
      yield* Fiber.join(next)
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.scoped)
  )

  it.effect("does not wait longer than maxWait for a slow store", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      store.latency = 1_000
      const budget = yield* open(store)
      const hasty = yield* start(Effect.flip(consume(budget, 1, { maxWait: 999 })))
      const patient = yield* start(consume(budget, 1, { maxWait: "5 seconds" }))
      yield* TestClock.adjust(998)
      assert.isFalse(isDone(hasty))
      yield* TestClock.adjust(1)
      assert.strictEqual(reasonOf(yield* Fiber.join(hasty)), "WaitTooLong")
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(patient)
      store.latency = 0
    }).pipe(Effect.scoped)
  )

  it.effect("reports the waits of its calls, but not that for the reply of the store", () =>
    Effect.gen(function* () {
      const store = new MapStore()
      store.latency = 50
      const waits: Array<string> = []
      const observer = (event: Events.Event) => void (event.type === "wait" && waits.push(event.agent))
      const budget = yield* Effect.provideService(open(store), Events.Observer, observer)
      for (const [agent, tokens] of [
        ["first", 1_000],
        ["second", 500]
      ] as const) {
        yield* start(consume(budget, tokens, { agent }))
        yield* TestClock.adjust("100 millis")
      }
      store.latency = 0
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(waits, ["second"])
    }).pipe(Effect.scoped)
  )

  it("says what to delete in a store whose state is damaged: its key, if that is known", () => {
    const messageOf = (more: object) => {
      const cause = Object.assign(new Error("a number is missing"), { name: "Damaged" }, more)
      return new Budget.StoreUnavailable({ pool: "one", cause }).message
    }
    assert.include(messageOf({ key: "one:1" }), 'delete its key "one:1", which stands behind the store\'s prefix, and')
    for (const unknown of [{}, { key: undefined }]) assert.include(messageOf(unknown), "delete its key, and")
  })

  describe("that cannot be reached", () => {
    it.effect("fails its callers at once, and serves them again when it is back", () =>
      Effect.gen(function* () {
        const store = new MapStore()
        const budget = yield* open(store, { whenAway: "fail" })
        yield* Fiber.join(yield* start(consume(budget, 1)))
        store.isAway = true
        for (let i = 0; i < 2; i++) {
          const failed = yield* start(Effect.flip(consume(budget, 1)))
          yield* TestClock.adjust(0)
          const error = yield* Fiber.join(failed)
          assert.strictEqual(reasonOf(error), "StoreUnavailable")
          assert.isTrue(error.isRetryable)
          assert.include(error.message, "check that it can be reached")
        }
        store.isAway = false
        yield* TestClock.adjust("1 second")
        const served = yield* start(consume(budget, 1))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(served)
      }).pipe(Effect.scoped)
    )

    it.effect("lets its callers wait until it is back, for 30 s by default", () =>
      Effect.gen(function* () {
        const store = new MapStore()
        const budget = yield* open(store)
        yield* Fiber.join(yield* start(consume(budget, 1)))
        const away = Effect.sync(() => (store.isAway = true))
        yield* away
        const served = yield* start(consume(budget, 1))
        yield* TestClock.adjust("20 seconds")
        assert.isFalse(isDone(served))
        store.isAway = false
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(served)
        yield* away
        const failed = yield* start(Effect.flip(consume(budget, 1)))
        yield* TestClock.adjust(29_999)
        assert.isFalse(isDone(failed))
        yield* TestClock.adjust(1_001)
        const { message, reason } = yield* Fiber.join(failed)
        assert.strictEqual(reason._tag, "StoreUnavailable")
        assert.match(message, /^The budget's store has failed for 30 seconds for pool "default" \(.+\): check that/)
        // Later callers fail at once.
        assert.strictEqual(reasonOf(yield* Effect.flip(consume(budget, 1))), "StoreUnavailable")
      }).pipe(Effect.scoped)
    )

    for (const [what, away] of [
      ["interrupts itself", Effect.interrupt],
      ["dies", Effect.die(new Error("a bug"))]
    ] as const) {
      it.effect(`counts as unreachable when it ${what}, and serves again afterwards`, () =>
        Effect.gen(function* () {
          const store = new MapStore()
          store.away = away
          const budget = yield* open(store, { whenAway: "fail" })
          yield* Fiber.join(yield* start(consume(budget, 1)))
          store.isAway = true
          const failed = yield* start(Effect.flip(consume(budget, 1)))
          yield* TestClock.adjust("2 seconds")
          assert.strictEqual(reasonOf(yield* Fiber.join(failed)), "StoreUnavailable")
          store.isAway = false
          yield* TestClock.adjust("1 second")
          const served = yield* start(consume(budget, 1))
          yield* TestClock.adjust("1 second")
          yield* Fiber.join(served)
        }).pipe(Effect.scoped)
      )
    }

    it.effect("counts as unreachable when it does not answer in time", () =>
      Effect.gen(function* () {
        const store = new MapStore()
        store.latency = 60_000
        const budget = yield* open(store, { whenAway: "fail", timeout: "3 seconds" })
        const failed = yield* start(Effect.flip(consume(budget, 1)))
        yield* TestClock.adjust(2_999)
        assert.isFalse(isDone(failed))
        yield* TestClock.adjust(1)
        const { message, reason } = yield* Fiber.join(failed)
        assert.strictEqual(reason._tag, "StoreUnavailable")
        assert.match(message, /^The budget's store has failed for pool "default" \(no reply in time\): check that/)
      }).pipe(Effect.scoped)
    )

    it.effect(
      "lets each process continue with its part, and a process that never reached it with none",
      () =>
        Effect.gen(function* () {
          const store = new MapStore()
          const options = { whenAway: "degrade", degradeFor: "1 minute" } as const
          const budgets = [yield* open(store, options), yield* open(store, options)]
          const served = [0, 0]
          const failures: Array<string> = []
          for (const [i, budget] of budgets.entries()) {
            const call = Effect.andThen(
              consume(budget, 50),
              Effect.sync(() => (served[i]! += 50))
            )
            const calls = Effect.forever(call).pipe(
              Effect.catch((error) => Effect.sync(() => failures.push(reasonOf(error))))
            )
            yield* Effect.forkScoped(calls)
          }
          yield* TestClock.adjust("10 seconds")
          store.isAway = true
          const before = [...served]
          yield* TestClock.adjust("40 seconds")
          const during = served.map((all, i) => all - before[i]!)
          const sum = during[0]! + during[1]!
          assert.isAtMost(sum, 40_000 + 1_000)
          // One of three parts is left spare.
          assert.isAtLeast(sum, 0.6 * 40_000)
          assert.closeTo(during[0]!, during[1]!, 0.1 * sum)
          const stranger = yield* open(store, options)
          const failed = yield* start(Effect.flip(consume(stranger, 1)))
          yield* TestClock.adjust("1 second")
          assert.strictEqual(reasonOf(yield* Fiber.join(failed)), "StoreUnavailable")
          yield* TestClock.adjust("30 seconds")
          assert.deepStrictEqual(failures, ["StoreUnavailable", "StoreUnavailable"])
        }).pipe(Effect.scoped),
      { tags: "full" }
    )
  })

  describe("whose state is absurd", () => {
    const key = keyOf("default")
    const absurd = Effect.fnUntraced(function* (store: MapStore) {
      const before = yield* store.read(key)
      const value = JSON.stringify({ ...JSON.parse(before?.value ?? "{}"), time: 1e300 })
      yield* store.swap(key, before?.version, { version: "odd", value }, 60_000)
    })
    const counted = Effect.map(Metric.snapshot, (series) =>
      series.find(({ id }) => id === "floodgate_budget_damaged_states")
    )
    const observed = Effect.provideService(Metric.MetricRegistry, new Map())

    it.effect("continues with what the process knows, replaces the state, and reports it", () =>
      Effect.gen(function* () {
        const store = new MapStore()
        const budgets = [yield* open(store), yield* open(store)]
        for (const budget of budgets) yield* Fiber.join(yield* start(consume(budget, 400)))
        yield* absurd(store)
        const calls = yield* Effect.forEach(budgets, (budget) => start(consume(budget, 500)))
        yield* TestClock.adjust("5 seconds")
        for (const call of calls) yield* Fiber.join(call)
        assert.isBelow(JSON.parse((yield* store.read(key))!.value).time, 60_000)
        const { attributes, state } = (yield* counted)!
        assert.deepInclude(attributes, { pool: "default" })
        assert.deepInclude(state, { count: 1 })
      }).pipe(Effect.scoped, observed)
    )

    it.effect("refuses callers if no process knows the pool, and a status says why", () =>
      Effect.gen(function* () {
        const store = new MapStore()
        yield* absurd(store)
        const budget = yield* open(store, { whenAway: "fail" })
        const refused = yield* start(Effect.flip(consume(budget, 1)))
        yield* TestClock.adjust("1 second")
        const { message } = yield* Fiber.join(refused)
        assert.match(
          message,
          /damaged, time is not a number from .*: delete its key "[^"]+:default", which stands behind/
        )
        const status = statusOf(key, (yield* store.read(key))!)
        assert.match(status?.damaged ?? "", /^time is not a number from /)
        assert.deepInclude(status, { pool: "default", dimensions: {}, processes: [] })
      }).pipe(Effect.scoped)
    )
  })

  it("refuses durations that are too long for a state", () => {
    const store = new MapStore()
    for (const [option, most] of [
      ["lease", "1d"],
      ["degradeFor", "1d"],
      ["timeout", "1h"]
    ] as const) {
      assert.throws(
        () => BudgetStore.layer(store, { [option]: "25 hours" }),
        new RegExp(`BudgetStore.layer: ${option}: .*a duration > 0 of at most ${most}`)
      )
    }
  })
})
