import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as PersistenceRedis from "effect/persistence/Redis"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import { BudgetStore, type Held, type PoolOptions } from "floodgate/BudgetStore"
import type * as Limits from "floodgate/Limits"
import * as FloodgateRedis from "floodgate/redis"
import { once } from "node:events"
import { type AddressInfo, createServer, type Socket } from "node:net"
import { keysOf } from "../../src/redis/connection.ts"
import * as Store from "../../src/redis/store.ts"
import type * as Wire from "../../src/redis/wire.ts"
import * as Redis from "./server.ts"
import { aroundSend } from "./wire.ts"

const slow: PoolOptions = {
  limits: { tokens: { perSecond: 1, burst: 1_000 } },
  concurrency: 2,
  headroom: 0,
  ramp: undefined
}
const ask = (tokens: number) => [{ charge: { tokens }, priority: 0 }]

const prefix = Redis.fresh("store")
const key = (pool: string, part: string) => keysOf(prefix, pool).all.find((name) => name.endsWith(`:${part}`))!

// By the server's clock, so in real time.
describe.skipIf(Redis.skippedWithoutAny !== undefined)("redis store", () => {
  let server: Awaited<ReturnType<typeof Redis.any>>
  beforeAll(async () => {
    server = await Redis.any()
  })
  afterAll(() => server.stop())

  const layer = (options: FloodgateRedis.Options = {}) =>
    Layer.suspend(() => FloodgateRedis.layerStoreUrl({ url: server.url, prefix, ...options }))
  const quiet = Effect.provideService(References.MinimumLogLevel, "None")

  /** A store over a wire that can be cut. */
  const cuttable = (options: FloodgateRedis.Options) => {
    const state = { isCut: false, sent: 0 }
    return Object.assign(state, {
      layer: FloodgateRedis.layerStore(options).pipe(
        Layer.provide(
          aroundSend(
            (send) =>
              (command, ...args) =>
                Effect.suspend(() => {
                  state.sent++
                  return state.isCut
                    ? Effect.fail(new PersistenceRedis.RedisError({ cause: new Error("cut") }))
                    : send(command, ...args)
                })
          )
        ),
        Layer.provide(NodeRedis.layer({ url: server.url }))
      )
    })
  }

  /** Budgets of two processes with one pool, of which one serves itself while its wire is cut. */
  const two = Effect.fnUntraced(function* (name: string, limits: Limits.Limits) {
    const wire = cuttable({ prefix: name, whenAway: "degrade" })
    const open = Budget.make({ limits })
    const one = yield* Effect.provideContext(open, yield* Layer.build(wire.layer))
    const other = yield* Effect.provideContext(open, yield* Layer.build(layer({ prefix: name })))
    return { one, other, wire }
  })

  const scriptsRun = async (): Promise<number> => {
    const stats = String(await server.command("INFO", "commandstats"))
    return [...stats.matchAll(/cmdstat_eval(?:sha)?:calls=(\d+)/g)].reduce((sum, [, count]) => sum + Number(count), 0)
  }

  it.live("lets one call out alone when limits that were only learned are forgotten", () =>
    Effect.gen(function* () {
      // Regression: with limits that were changed to none all processes went out together.
      const store = yield* Effect.flatMap(BudgetStore, (store) =>
        store.open("forgotten", { ...slow, limits: {}, concurrency: Infinity })
      )
      const two = [
        { charge: {}, priority: 0 },
        { charge: {}, priority: 0 }
      ]
      const first = yield* store.take(two)
      assert.strictEqual(first.granted.length, 1)
      yield* store.observe({ dimensions: { tokens: { limit: 1_000 } } }, first.granted[0])
      yield* store.settle(first.granted[0]!, {}, true)
      const known = yield* store.take(two)
      assert.strictEqual(known.granted.length, 2)
      for (const held of known.granted) yield* store.settle(held, {}, true)
      yield* store.unlearn(0)
      assert.deepStrictEqual(store.rules(), {})
      assert.strictEqual((yield* store.take(two)).granted.length, 1)
    }).pipe(Effect.scoped, Effect.provide(layer({ prefix: `${prefix}-forgotten` })), Effect.orDie)
  )

  it.live("asks nothing while the heads of its queues wait", () =>
    Effect.gen(function* () {
      const open = Budget.make({ limits: { tokens: { perSecond: 100, burst: 1_000 } }, headroom: 0 })
      const budgets = yield* Effect.all([open, open, open])
      yield* budgets[0].reserve({ tokens: 1_000 })
      for (const budget of budgets) {
        for (let n = 0; n < 100; n++) yield* Effect.forkScoped(budget.reserve({ tokens: 500 }))
      }
      yield* Effect.sleep(300)
      const before = yield* Effect.promise(scriptsRun)
      yield* Effect.sleep(1_500)
      assert.strictEqual((yield* Effect.promise(scriptsRun)) - before, 0)
    }).pipe(Effect.scoped, Effect.provide(layer({ prefix: `${prefix}-heads` })), Effect.orDie)
  )

  it.live("says what nobody waits for with the next request, and by itself before long", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const one = yield* store.open("company", { ...slow, concurrency: Infinity })
      const { granted } = yield* one.take([...ask(100), ...ask(100)])
      const before = yield* Effect.promise(scriptsRun)
      for (const held of granted) yield* one.settle(held, held.charge, true)
      yield* Effect.sleep(100)
      assert.strictEqual((yield* Effect.promise(scriptsRun)) - before, 0)
      yield* Effect.sleep(900)
      assert.strictEqual((yield* Effect.promise(scriptsRun)) - before, 1)
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.live("settles and asks for the next call in one request", () =>
    Effect.gen(function* () {
      const call = Budget.withReservation({ tokens: 100 }, (reservation) => reservation.settle({ tokens: 50 }))
      yield* call
      const before = yield* Effect.promise(scriptsRun)
      yield* Effect.repeat(call, { times: 99 })
      assert.isAtMost((yield* Effect.promise(scriptsRun)) - before, 101)
    }).pipe(
      Effect.provide(
        Budget.layer({ limits: { tokens: { perSecond: 1_000_000 } } }).pipe(
          Layer.provide(layer({ prefix: `${prefix}-pairs` }))
        )
      ),
      Effect.orDie
    )
  )

  it.live("has one request at a time under way, whatever the number of waiters", () => {
    let underWay = 0
    let most = 0
    let requests = 0
    const counted = aroundSend(
      (send) =>
        (command, ...args) =>
          Effect.suspend(() => {
            most = Math.max(most, ++underWay)
            requests++
            return Effect.ensuring(
              send(command, ...args),
              Effect.sync(() => underWay--)
            )
          })
    )
    const live = Budget.layer({ limits: { tokens: { perSecond: 1_000_000, burst: 100_000 } } }).pipe(
      Layer.provide(FloodgateRedis.layerStore({ prefix: `${prefix}-many` })),
      Layer.provide(counted),
      Layer.provide(NodeRedis.layer({ url: server.url }))
    )
    return Effect.gen(function* () {
      const before = yield* Effect.promise(scriptsRun)
      yield* Effect.forEach(Array.from({ length: 10_000 }), () => Budget.consume(100), {
        concurrency: "unbounded",
        discard: true
      })
      assert.strictEqual(most, 1)
      assert.isBelow(requests, 10_000)
      // The server has seen no others: so many, and the first one twice if it did not know the script.
      const seen = (yield* Effect.promise(scriptsRun)) - before
      assert.isAtMost(seen, requests + 1)
    }).pipe(Effect.provide(live), Effect.orDie)
  })

  it.live("never reads a corrupt, partial or foreign state as a full bucket", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const spoil: ReadonlyArray<readonly [pool: string, ...command: ReadonlyArray<string>]> = [
        ["corrupt", "SET", key("corrupt", "state"), "nonsense"],
        ["truncated", "SETRANGE", key("truncated", "state"), "40", "nonsense"],
        ["gone", "DEL", key("gone", "state")],
        ["foreignOpen", "SET", key("foreignOpen", "open"), "x"],
        ["foreignLost", "SET", key("foreignLost", "lost"), "x"],
        ["foreignSeen", "SET", key("foreignSeen", "seen"), "x"],
        [
          "foreign",
          "EVAL",
          "redis.call('DEL', KEYS[1]); return redis.call('LPUSH', KEYS[1], 'x')",
          "1",
          key("foreign", "state")
        ],
        [
          "beside",
          "EVAL",
          "redis.call('DEL', KEYS[1], KEYS[2]); return redis.call('SET', KEYS[2], 'x')",
          "2",
          key("beside", "state"),
          key("beside", "open")
        ]
      ]
      for (const [pool, ...command] of spoil) {
        const one = yield* store.open(pool, slow)
        yield* one.take(ask(600))
        yield* Effect.promise(() => server.command(...command))
        // Somebody who never saw the state, and somebody who did.
        const other = yield* store.open(pool, slow)
        assert.strictEqual((yield* other.take(ask(500))).granted.length, 0, pool)
        yield* other.take([])
        assert.strictEqual((yield* one.take(ask(500))).granted.length, 0, pool)
        const level = (yield* one.snapshot).ledger.buckets.tokens!.level
        assert.isBelow(level, 10, pool)
      }
    }).pipe(Effect.scoped, Effect.provide(layer()), quiet)
  )

  it.live("keeps a quota through a wiped state, as those who spend it remember", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const quota: PoolOptions = { ...slow, limits: { tokens: { total: 1_000 } } }
      const one = yield* store.open("quota", quota)
      yield* one.take(ask(300))
      yield* Effect.promise(() => server.command("DEL", key("quota", "state"), key("quota", "open")))
      assert.strictEqual((yield* one.snapshot).ledger.buckets.tokens!.level, 700)
    }).pipe(Effect.scoped, Effect.provide(layer()), quiet)
  )

  it.live("takes no total that was cut for damage, however its level is rounded", () =>
    Effect.gen(function* () {
      // Regression: the level of 67,316.5 became 1,320.6000000000058 of 1,320.6, and all other levels began at nothing.
      const requests = { perSecond: 0.001, burst: 10 }
      const one = yield* Effect.flatMap(BudgetStore, (store) =>
        store.open("rounded", { ...slow, limits: { requests, tokens: { total: 67_316.5 } } })
      )
      yield* one.resize({ limits: { requests, tokens: { total: 1_320.6 } }, concurrency: undefined })
      yield* one.snapshot
      assert.lengthOf((yield* one.take([{ charge: { requests: 5, tokens: 1 }, priority: 0 }])).granted, 1)
    }).pipe(Effect.scoped, Effect.provide(layer()), quiet)
  )

  it.live("wakes the head of another process at the moment of a refund", () =>
    Effect.gen(function* () {
      const limits = { tokens: { perSecond: 1, burst: 1_000 } }
      const open = Budget.make({ limits, headroom: 0 })
      const one = yield* open
      const other = yield* open
      const reservation = yield* one.reserve({ tokens: 1_000 })
      const waiter = yield* Effect.forkChild(other.reserve({ tokens: 900 }))
      yield* Effect.sleep(100)
      assert.isUndefined(waiter.pollUnsafe())
      yield* reservation.refund
      yield* Effect.timeout(Fiber.join(waiter), 500)
    }).pipe(Effect.scoped, Effect.provide(layer({ prefix: `${prefix}-wakes` })), Effect.orDie)
  )

  it.live("tells who holds and waits for what, in which process", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const one = yield* store.open("seen", slow)
      yield* one.take(ask(600))
      yield* one.take(ask(700))
      const pools = yield* FloodgateRedis.status({ url: server.url, prefix })
      const pool = pools.find((each) => each.pool === "seen")!
      assert.strictEqual(pool.origin, "new")
      assert.deepInclude(pool.processes[0], { inFlight: 1, waiting: { tokens: 700 } })
      assert.strictEqual(pool.processes[0]!.held.tokens, 600)
      assert.isTrue(pool.processes[0]!.name.startsWith("tester-"))
    }).pipe(Effect.scoped, Effect.provide(layer({ name: "tester" })))
  )

  it.live("only looks, whatever lies there", () =>
    Effect.gen(function* () {
      const state = keysOf(`${prefix}-looks`, "pool").all[0]!
      yield* Effect.promise(() => server.command("LPUSH", state, "x"))
      // And one that is no name of a pool.
      const nameless = keysOf(`${prefix}-looks`, "").all[0]!.replace("}", "%}")
      yield* Effect.promise(() => server.command("SET", nameless, "x"))
      assert.deepStrictEqual(yield* FloodgateRedis.status({ url: server.url, prefix: `${prefix}-looks` }), [])
      assert.strictEqual(yield* Effect.promise(() => server.command("TYPE", state)), "list")
      yield* Effect.promise(() => server.command("DEL", state, nameless))
    })
  )

  it.live("takes a star in a prefix for a star, not for a pattern", () =>
    Effect.gen(function* () {
      const open = (name: string) =>
        Effect.flatMap(BudgetStore, (store) => store.open("starred", slow)).pipe(
          Effect.flatMap((pool) => pool.snapshot),
          Effect.provide(layer({ prefix: name }))
        )
      const poolsOf = (name: string) =>
        Effect.map(FloodgateRedis.status({ url: server.url, prefix: name }), (pools) => pools.map(({ pool }) => pool))
      yield* open(`${prefix}-ab`)
      assert.deepStrictEqual(yield* poolsOf(`${prefix}-a*`), [])
      yield* open(`${prefix}-a*`)
      assert.deepStrictEqual(yield* poolsOf(`${prefix}-a*`), ["starred"])
    }).pipe(Effect.scoped)
  )

  it.live("keeps what was changed while it runs when processes start that give what was given before, or nothing", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const seen = Effect.gen(function* () {
        const pools = yield* FloodgateRedis.status({ url: server.url, prefix })
        const { allowed, snapshot } = pools.find((each) => each.pool === "resized")!
        return [allowed, snapshot.ledger.buckets.tokens?.rule.capacity, snapshot.ledger.headroom]
      })
      const start = (options: Partial<PoolOptions> = {}) => store.open("resized", { ...slow, ...options })
      const one = yield* start()
      yield* one.resize({ limits: { tokens: { perSecond: 1, burst: 5_000 } }, concurrency: 50 })
      yield* one.snapshot
      yield* start()
      assert.deepStrictEqual(yield* seen, [50, 5_000, 0])
      yield* start({ limits: {}, concurrency: Infinity })
      yield* start()
      assert.deepStrictEqual(yield* seen, [50, 5_000, 0])
      // What was changed is said again of a state that was lost; who starts later does not undo that either.
      yield* Effect.promise(() => server.command("DEL", key("resized", "state")))
      yield* start()
      yield* one.snapshot
      yield* start()
      assert.deepStrictEqual(yield* seen, [50, 5_000, 0])
      yield* start({ headroom: 0.1, concurrency: 7, limits: { tokens: { perSecond: 1, burst: 300 } } })
      assert.deepStrictEqual(yield* seen, [7, 300, 0.1])
    }).pipe(Effect.scoped, Effect.provide(layer()), quiet)
  )

  it.live("gives a state that was lost what was changed last, whoever comes back last", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const seen = Effect.gen(function* () {
        const pools = yield* FloodgateRedis.status({ url: server.url, prefix })
        const { allowed, snapshot } = pools.find((each) => each.pool === "changed")!
        return [allowed, snapshot.ledger.buckets.tokens?.rule.capacity]
      })
      const limits = (burst: number) => ({ tokens: { perSecond: 1, burst } })
      const wipe = Effect.promise(() => server.command("DEL", ...keysOf(prefix, "changed").all))
      const first = yield* Scope.make()
      const one = yield* Scope.provide(store.open("changed", slow), first)
      const other = yield* store.open("changed", slow)
      yield* one.resize({ limits: limits(5_000), concurrency: undefined })
      yield* one.snapshot
      yield* other.resize({ limits: limits(300), concurrency: undefined })
      yield* other.snapshot
      yield* one.resize({ limits: undefined, concurrency: 9 })
      yield* one.snapshot
      yield* other.snapshot
      for (const [early, late] of [
        [one, other],
        [other, one]
      ] as const) {
        yield* wipe
        yield* early.snapshot
        yield* late.snapshot
        assert.deepStrictEqual(yield* seen, [9, 300])
      }
      // Who changed it has left, and who starts first knows nothing of it.
      yield* Scope.close(first, Exit.void)
      yield* wipe
      const third = yield* store.open("changed", slow)
      yield* other.snapshot
      assert.deepStrictEqual(yield* seen, [9, 300])
      yield* third.snapshot
      assert.strictEqual(third.rules().tokens!.capacity, 300)
    }).pipe(Effect.scoped, Effect.provide(layer()), quiet)
  )

  it.live("gives a state that was lost what the one who began it again has no word on", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const none: PoolOptions = { ...slow, limits: {}, concurrency: Infinity }
      const seen = Effect.gen(function* () {
        const pools = yield* FloodgateRedis.status({ url: server.url, prefix })
        const { allowed, snapshot } = pools.find((each) => each.pool === "word")!
        return [allowed, snapshot.ledger.buckets.tokens?.rule.capacity]
      })
      const wipe = Effect.promise(() => server.command("DEL", ...keysOf(prefix, "word").all))
      const one = yield* store.open("word", { ...slow, concurrency: 3 })
      yield* wipe
      const other = yield* store.open("word", none)
      yield* one.snapshot
      assert.deepStrictEqual(yield* seen, [3, 1_000])
      // Another has changed something else of it meanwhile.
      yield* wipe
      yield* store.open("word", none)
      yield* store.open("word", { ...none, concurrency: 7 })
      yield* one.snapshot
      assert.deepStrictEqual(yield* seen, [7, 1_000])
      yield* other.snapshot
      assert.deepStrictEqual(yield* seen, [7, 1_000])
    }).pipe(Effect.scoped, Effect.provide(layer()), quiet)
  )

  it.live("leaves a state that was lost what the one who remembers a change has no word on", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const one = yield* store.open("silent", { ...slow, limits: {}, concurrency: Infinity })
      yield* one.resize({ limits: undefined, concurrency: 5 })
      yield* one.snapshot
      yield* Effect.promise(() => server.command("DEL", ...keysOf(prefix, "silent").all))
      yield* store.open("silent", slow)
      yield* one.snapshot
      assert.strictEqual(one.rules().tokens?.capacity, 1_000)
      const pools = yield* FloodgateRedis.status({ url: server.url, prefix })
      assert.strictEqual(pools.find((each) => each.pool === "silent")!.allowed, 5)
    }).pipe(Effect.scoped, Effect.provide(layer()), quiet)
  )

  it.live("tells a process the rules of a state that began again without it", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const one = yield* store.open("again", slow)
      yield* Effect.promise(() => server.command("DEL", ...keysOf(prefix, "again").all))
      yield* store.open("again", { ...slow, limits: { tokens: { perSecond: 1, burst: 300 } } })
      yield* one.snapshot
      assert.strictEqual(one.rules().tokens!.capacity, 300)
    }).pipe(Effect.scoped, Effect.provide(layer()), quiet)
  )

  it.live("goes on from what each process knows where a replica takes over that has not heard the last", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const one = yield* store.open("replica", { ...slow, concurrency: Infinity })
      const other = yield* store.open("replica", { ...slow, concurrency: Infinity })
      const copy = (from: string, to: string) =>
        Effect.promise(async () => {
          for (const key of ["state", "open", "seen"]) {
            const name = `{${prefix}:replica}:${key}`
            await server.command("COPY", `${name}${from}`, `${name}${to}`, "REPLACE")
          }
        })
      const [first] = (yield* one.take(ask(100))).granted
      yield* other.snapshot
      yield* copy("", "-replica")
      const [second] = (yield* one.take(ask(300))).granted
      yield* one.settle(first!, { tokens: 100 }, true)
      yield* one.snapshot
      yield* copy("-replica", "")
      const [third] = (yield* other.take(ask(50))).granted
      assert.notStrictEqual(third!.id, second!.id)
      assert.isBelow((yield* one.snapshot).ledger.buckets.tokens!.level, 610)
      yield* other.snapshot
      const pools = yield* FloodgateRedis.status({ url: server.url, prefix })
      const { inFlight, processes } = pools.find((each) => each.pool === "replica")!
      assert.strictEqual(inFlight, 2)
      assert.sameMembers(
        processes.map(({ held }) => held.tokens),
        [300, 50]
      )
      yield* Effect.promise(() =>
        server.command("DEL", ...["state", "open", "seen"].map((key) => `{${prefix}:replica}:${key}-replica`))
      )
    }).pipe(Effect.scoped, Effect.provide(layer()), quiet)
  )

  it.live("holds nothing for who was interrupted while he asked", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const one = yield* store.open("interrupted", slow)
      // Before it is said, and while it is under way.
      for (let turns = 0; turns < 5; turns++) {
        const fiber = yield* Effect.forkChild(one.take(ask(100)), { startImmediately: true })
        for (let n = 0; n < turns; n++) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
        const answered = yield* Fiber.await(fiber)
        if (Exit.isFailure(answered)) continue
        for (const held of answered.value.granted) yield* one.settle(held, { tokens: 0 }, false)
      }
      yield* one.snapshot
      const { ledger } = yield* one.snapshot
      assert.strictEqual(ledger.buckets.tokens!.level, 1_000)
      assert.lengthOf((yield* one.take([...ask(1), ...ask(1)])).granted, 2)
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.live("knows apart what it admitted by itself in one outage and in the next", () => {
    const wire = cuttable({ prefix: `${prefix}-cut`, whenAway: "degrade" })
    const seen = Effect.map(
      FloodgateRedis.status({ url: server.url, prefix: `${prefix}-cut` }),
      ([pool]) => pool!.processes[0]!.held.tokens
    )
    return Effect.gen(function* () {
      const store = yield* BudgetStore
      const limits = { tokens: { perSecond: 1_000 } }
      const one = yield* store.open("cut", { ...slow, limits, concurrency: Infinity })
      const outage = Effect.fnUntraced(function* (tokens: number) {
        wire.isCut = true
        const taken = yield* Effect.repeat(one.take(ask(tokens)), {
          until: ({ granted }) => granted.length > 0,
          schedule: Schedule.spaced(10)
        })
        return taken.granted[0]!
      })
      const isBack = (held: number) =>
        Effect.repeat(seen, { until: (tokens) => tokens === held, schedule: Schedule.spaced(25) })
      const first = yield* outage(10)
      wire.isCut = false
      yield* isBack(10)
      const second = yield* outage(20)
      yield* one.settle(first, { tokens: 10 }, true)
      wire.isCut = false
      yield* isBack(20)
      yield* one.settle(second, { tokens: 20 }, true)
      yield* isBack(0)
    }).pipe(Effect.scoped, Effect.provide(wire.layer), quiet)
  })

  it.live("foresees something of a call that is larger than its share of a window", () =>
    // Regression: nothing ever lets it in, and the process stood still over when that would be.
    Effect.gen(function* () {
      const { one, other, wire } = yield* two(`${prefix}-large`, { tokens: { perMinute: 1_000 } })
      for (const budget of [other, one]) yield* Effect.scoped(budget.reserve({ tokens: 1 }))
      wire.isCut = true
      const waits = yield* Effect.forkScoped(one.reserve({ tokens: 900 }), { startImmediately: true })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(one.reserve({ tokens: 900 }, { maxWait: "50 millis" }))))
      const waiting = Effect.map(one.status, ({ pools }) => pools["default"]!.waiting.length)
      yield* Effect.repeat(waiting, { until: (count) => count === 1, schedule: Schedule.spaced(10) })
      wire.isCut = false
      yield* Effect.timeout(Fiber.join(waits), "10 seconds")
    }).pipe(Effect.scoped, quiet)
  )

  it.live("refuses what is more than its share of a quota has left, and nothing else", () =>
    Effect.gen(function* () {
      const { one, other, wire } = yield* two(`${prefix}-quota`, { tokens: { total: 1_000 } })
      const call = (tokens: number, budget = one) => Effect.exit(Effect.scoped(budget.reserve({ tokens })))
      const reasonOf = (exit: Exit.Exit<unknown, Budget.BudgetError>) =>
        Exit.match(exit, {
          onFailure: (cause) => Option.getOrThrow(Cause.findErrorOption(cause)).reason._tag,
          onSuccess: () => "admitted"
        })
      yield* call(1, other)
      yield* call(99)
      wire.isCut = true
      // The first is asked for alone, and the others together.
      const calls = yield* Effect.forEach([10, 500, 10, 950], (tokens) =>
        Effect.forkScoped(call(tokens), { startImmediately: true })
      )
      const reasons = (yield* Effect.forEach(calls, Fiber.join)).map(reasonOf)
      assert.deepStrictEqual(reasons, ["admitted", "StoreUnavailable", "admitted", "QuotaExhausted"])
    }).pipe(Effect.scoped, quiet)
  )

  it.live("slows its share once for calls that were out together, whoever admitted them", () => {
    const wire = cuttable({ prefix: `${prefix}-judged`, whenAway: "degrade" })
    return Effect.gen(function* () {
      const limits = { tokens: { perSecond: 1_000, burst: 1_000 } }
      const pool = yield* Effect.flatMap(BudgetStore, (store) =>
        store.open("judged", { ...slow, limits, concurrency: Infinity })
      )
      const reject = Effect.fnUntraced(function* (held: Held) {
        yield* pool.pause({ reason: "rateLimit", millis: 10, charge: held.charge, takenAt: held.takenAt })
        const { ledger, now } = yield* pool.snapshot
        yield* Effect.sleep(Math.ceil((ledger.cooldown?.until ?? now) - now) + 1)
        return ledger.pace.scale
      })
      const { granted } = yield* pool.take([...ask(1), ...ask(1)])
      wire.isCut = true
      yield* Effect.repeat(pool.take(ask(1)), {
        until: (taken) => taken.granted.length > 0,
        schedule: Schedule.spaced(10)
      })
      const once = yield* reject(granted[0]!)
      assert.isBelow(once, 1)
      assert.strictEqual(yield* reject(granted[1]!), once)
      const own = yield* Effect.repeat(pool.take([...ask(1), ...ask(1)]), {
        until: (taken) => taken.granted.length === 2,
        schedule: Schedule.spaced(10)
      })
      assert.isBelow(yield* reject(own.granted[0]!), once)
    }).pipe(Effect.scoped, Effect.provide(wire.layer), quiet)
  })

  it.live("comes back from a cooldown call by call while Redis is away, and when it is back", () => {
    const wire = cuttable({ prefix: `${prefix}-cool`, whenAway: "degrade" })
    return Effect.gen(function* () {
      const budget = yield* Budget.make({ limits: { tokens: { perSecond: 100_000 } }, headroom: 0 })
      let ended = 0
      const call = Effect.scoped(
        Effect.flatMap(budget.reserve({ tokens: 10 }), (held) => Effect.map(held.settle({ tokens: 10 }), () => ended++))
      )
      // What goes out alone is waited for a minute, unless its success is heard.
      const calls = Effect.timeout(Effect.repeat(call, { times: 9 }), "10 seconds")
      yield* call
      wire.isCut = true
      yield* call
      yield* budget.cooldown({ reason: "rateLimit", retryAfter: "20 millis" })
      yield* calls
      wire.isCut = false
      yield* calls
      assert.strictEqual(ended, 22)
    }).pipe(Effect.scoped, Effect.provide(wire.layer), quiet)
  })

  it.live.each(["fail", "degrade"] as const)(
    "leaves no head in the way of others for who went meanwhile: %s",
    (whenAway) => {
      const name = `${prefix}-ghost-${whenAway}`
      let isDeaf = false
      // What is sent arrives, and no reply comes back.
      const deaf = FloodgateRedis.layerStore({ prefix: name, whenAway, timeout: "1 second" }).pipe(
        Layer.provide(
          aroundSend(
            (send) =>
              (command, ...args) =>
                Effect.flatMap(send(command, ...args), (reply) =>
                  isDeaf ? Effect.never : Effect.succeed(reply as never)
                )
          )
        ),
        Layer.provide(NodeRedis.layer({ url: server.url }))
      )
      return Effect.gen(function* () {
        const limits = { tokens: { perSecond: 1, burst: 1_000 } }
        const open = Budget.make({ limits, headroom: 0 })
        const one = yield* Effect.provideContext(open, yield* Layer.build(deaf))
        const other = yield* Effect.provideContext(open, yield* Layer.build(layer({ prefix: name })))
        yield* one.reserve({ tokens: 500 })
        isDeaf = true
        // It fails, or is served from its share and does not wait for that.
        assert.isTrue(Exit.isFailure(yield* Effect.exit(Effect.timeout(one.reserve({ tokens: 900 }), 2_000))))
        isDeaf = false
        yield* Effect.timeout(other.reserve({ tokens: 100 }), "15 seconds")
      }).pipe(Effect.scoped, quiet)
    }
  )

  it.live.each(["fail", "degrade", "wait"] as const)(
    "takes a head out of the way of others whose caller went while Redis was away: %s",
    (way) => {
      const name = `${prefix}-gone-${way}`
      const wire = cuttable({ prefix: name, whenAway: way === "wait" ? { wait: "30 seconds" } : way })
      const stands = Effect.map(
        FloodgateRedis.status({ url: server.url, prefix: name }),
        ([pool]) => pool?.processes.some(({ waiting }) => waiting !== undefined) === true
      )
      return Effect.gen(function* () {
        const open = Budget.make({ limits: { tokens: { perSecond: 1, burst: 1_000 } }, headroom: 0 })
        const one = yield* Effect.provideContext(open, yield* Layer.build(wire.layer))
        const other = yield* Effect.provideContext(open, yield* Layer.build(layer({ prefix: name })))
        const held = yield* one.reserve({ tokens: 500 })
        const head = yield* Effect.forkChild(one.reserve({ tokens: 900 }))
        yield* Effect.repeat(stands, { until: (is) => is, schedule: Schedule.spaced(10) })
        const tries = (n: number) => {
          const before = wire.sent
          return Effect.repeat(Effect.void, { until: () => wire.sent >= before + n, schedule: Schedule.spaced(10) })
        }
        wire.isCut = true
        yield* Effect.forkChild(held.settle({ tokens: 501 }))
        yield* tries(2)
        yield* Fiber.interrupt(head)
        yield* tries(1)
        wire.isCut = false
        yield* Effect.timeout(other.reserve({ tokens: 100 }), "5 seconds")
      }).pipe(Effect.scoped, quiet)
    }
  )

  it.live("charges every call after the first by the limits that the first one taught", () =>
    Effect.gen(function* () {
      const budget = yield* Budget.make({ headroom: 0 })
      const first = yield* budget.reserve({ inputTokens: 10 })
      const reserve = Effect.forkScoped(budget.reserve({ inputTokens: 1_000 }), { startImmediately: true })
      const early = yield* Effect.all(Array.from({ length: 20 }, () => reserve))
      const dimensions = { inputTokens: { limit: 20_000, remaining: 19_000, window: "bucket" } } as const
      yield* budget.observe({ dimensions, reservation: first })
      yield* first.settle({ inputTokens: 10 })
      const all = [...early, ...(yield* Effect.all(Array.from({ length: 20 }, () => reserve)))]
      const charges = () =>
        all.flatMap((fiber) => {
          const exit = fiber.pollUnsafe()
          return exit !== undefined && Exit.isSuccess(exit) ? [exit.value.charge] : []
        })
      yield* Effect.promise(() => Redis.until(() => Promise.resolve(charges().length >= 19)))
      yield* Effect.sleep(100)
      assert.deepStrictEqual(
        charges(),
        Array.from({ length: 19 }, () => ({ inputTokens: 1_000 }))
      )
    }).pipe(Effect.scoped, Effect.provide(layer({ prefix: `${prefix}-taught` })), Effect.orDie)
  )

  it.live("loses no settlement where its user may neither publish nor hear, and says so once", () => {
    const word = "secret"
    const warnings: Array<string> = []
    const count = Logger.make(({ message }) => void warnings.push(String(message)))
    return Effect.gen(function* () {
      const user = ["ACL", "SETUSER", prefix, "on", `>${word}`, "~*", "resetchannels", "+@all"]
      yield* Effect.promise(() => server.command(...user))
      yield* Effect.addFinalizer(() => Effect.promise(() => server.command("ACL", "DELUSER", prefix)))
      const url = server.url.replace("//", `//${prefix}:${word}@`)
      const context = yield* Layer.build(FloodgateRedis.layerStoreUrl({ url, prefix }))
      const store = Context.get(context as Context.Context<BudgetStore>, BudgetStore)
      const one = yield* store.open("mute", slow)
      const other = yield* store.open("mute", slow)
      const { granted } = yield* one.take([...ask(400), ...ask(500)])
      yield* other.take(ask(300))
      // Now the other would be told.
      yield* one.settle(granted[0]!, { tokens: 10 }, true)
      const { ledger } = yield* one.snapshot
      assert.isAtLeast(ledger.buckets.tokens!.level, 490)
      yield* Effect.sleep(1_100)
      assert.lengthOf(
        warnings.filter((text) => text.includes(`may not hear messages`)),
        1
      )
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([count])))
  })

  it.live("leaves nothing behind of a pool that could not be opened", () => {
    const wire = cuttable({ prefix: `${prefix}-unopened`, whenAway: "fail" })
    wire.isCut = true
    return Effect.gen(function* () {
      const store = yield* BudgetStore
      for (let n = 0; n < 10; n++) yield* Effect.flip(store.open("unopened", slow))
      const { sent } = wire
      yield* Effect.sleep(1_000)
      assert.strictEqual(wire.sent, sent)
      wire.isCut = false
      yield* store.open("unopened", slow)
    }).pipe(Effect.scoped, Effect.provide(wire.layer), quiet)
  })

  it.live("says that the store is unavailable when there was never a server", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Budget.consume(1))
      assert.strictEqual(error.reason._tag, "StoreUnavailable")
    }).pipe(
      Effect.provide(
        Budget.layer({ limits: slow.limits }).pipe(
          Layer.provide(FloodgateRedis.layerStoreUrl({ url: "redis://127.0.0.1:1", whenAway: "fail" }))
        )
      ),
      quiet
    )
  )

  it.live("takes a server that accepts and says nothing for one that is away", () =>
    Effect.gen(function* () {
      const sockets = new Set<Socket>()
      const silent = createServer((socket) => {
        sockets.add(socket)
        socket.on("error", () => {}).on("close", () => sockets.delete(socket))
        // Else its end would not be noticed.
        socket.resume()
      }).listen(0, "127.0.0.1")
      yield* Effect.promise(() => once(silent, "listening"))
      const url = `redis://127.0.0.1:${(silent.address() as AddressInfo).port}`
      const budget = Budget.layer({ limits: slow.limits }).pipe(
        Layer.provide(FloodgateRedis.layerStoreUrl({ url, whenAway: "fail", timeout: "200 millis" }))
      )
      const call = Effect.provide(Budget.consume(1), budget)
      assert.strictEqual((yield* Effect.flip(call)).reason._tag, "StoreUnavailable")
      assert.strictEqual((yield* Effect.flip(FloodgateRedis.status({ url })))._tag, "StoreUnavailable")
      // Nor does it hold up who is interrupted meanwhile.
      yield* Effect.exit(Effect.timeout(call, 100))
      yield* Effect.promise(() => Redis.until(() => Promise.resolve(sockets.size === 0)))
      silent.close()
    }).pipe(Effect.timeout("15 seconds"), quiet)
  )
})

/** A store whose server is a function. */
const scripted = (replyTo: (operation: Wire.Operation, seq: number) => unknown) => {
  const state = { wake: (_: number, __: number) => {}, isDumb: false, isCut: false }
  const settings = { whenAway: "fail", patienceMillis: 0, leaseMillis: 3_600_000, timeoutMillis: 1_000 } as const
  const send = (request: string) =>
    Effect.suspend(() => {
      const [seq, , version, operations] = JSON.parse(request) as [
        number,
        number,
        number,
        ReadonlyArray<Wire.Operation>
      ]
      const configuration = { limits: {}, headroom: 0, concurrency: -1, given: ["{}", 0, -1], changedAt: [0, 0, -1] }
      const rule = { capacity: 1_000, rate: 0.001, most: 1_000, quota: false }
      const news = version === 1 ? 0 : [[false, false, false, rule], configuration]
      if (state.isCut) return Effect.fail(new PersistenceRedis.RedisError({ cause: new Error("cut") }))
      if (state.isDumb) return Effect.succeed("no JSON")
      return Effect.try({
        try: () =>
          JSON.stringify([
            0,
            1,
            1,
            "new",
            1,
            news,
            [false, false, false, 5],
            operations.map((said) => replyTo(said, seq)),
            -1,
            0
          ]),
        catch: (cause) => new PersistenceRedis.RedisError({ cause })
      })
    })
  return Object.assign(state, {
    layer: Layer.succeed(BudgetStore, {
      open: (pool, options) =>
        Store.open(pool, options, settings, send, (wake) => Effect.sync(() => void (state.wake = wake)))
    })
  })
}

describe("redis store, over a scripted server", () => {
  const granting = ([name]: Wire.Operation): unknown => (name === "take" ? [1, 1, [false, false, false, 5], 0] : 0)
  const quiet = Effect.provideService(References.MinimumLogLevel, "None")

  it.effect("takes an answer that makes no sense for none, and goes on with the next that does", () => {
    const server = scripted(granting)
    return Effect.gen(function* () {
      const pool = yield* (yield* BudgetStore).open("p", slow)
      server.isDumb = true
      assert.strictEqual((yield* Effect.flip(pool.take(ask(1))))._tag, "StoreUnavailable")
      server.isDumb = false
      yield* TestClock.adjust(1_000)
      assert.lengthOf((yield* pool.take(ask(1))).granted, 1)
    }).pipe(Effect.scoped, Effect.provide(server.layer), quiet)
  })

  it.effect("goes on from the number that another of its name has come to", () => {
    const server = scripted((operation, seq) => {
      if (operation[0] === "take" && seq <= 40) throw new Error(`STALE request ${seq} after 40`)
      return granting(operation)
    })
    return Effect.gen(function* () {
      const pool = yield* (yield* BudgetStore).open("p", slow)
      yield* Effect.exit(pool.take(ask(1)))
      yield* TestClock.adjust(1_000)
      assert.lengthOf((yield* pool.take(ask(1))).granted, 1)
    }).pipe(Effect.scoped, Effect.provide(server.layer), quiet)
  })

  it.effect("says at its end what it has to settle, if Redis comes back before long", () => {
    const said: Array<unknown> = []
    const server = scripted((operation) => {
      said.push(operation[0])
      return granting(operation)
    })
    const used = Effect.gen(function* () {
      const pool = yield* (yield* BudgetStore).open("p", slow)
      const { granted } = yield* pool.take(ask(100))
      server.isCut = true
      yield* pool.settle(granted[0]!, { tokens: 10 }, true)
    })
    return Effect.gen(function* () {
      const ended = yield* Effect.forkChild(Effect.scoped(used), { startImmediately: true })
      yield* TestClock.adjust(1)
      yield* TestClock.adjust(500)
      assert.isUndefined(ended.pollUnsafe())
      server.isCut = false
      yield* TestClock.adjust(300)
      assert.isDefined(ended.pollUnsafe())
      assert.include(said, "settle")
    }).pipe(Effect.provide(server.layer), quiet)
  })

  it.effect("says after an outage what is true by then, although it was on its way before", () => {
    const said: Array<Wire.Operation> = []
    const server = scripted((operation) => {
      said.push(operation)
      return granting(operation)
    })
    return Effect.gen(function* () {
      const pool = yield* (yield* BudgetStore).open("p", slow)
      server.isCut = true
      yield* pool.pause({ reason: "rateLimit", millis: 10_000, charge: undefined })
      yield* Effect.asVoid(pool.observe({ dimensions: { tokens: { remaining: 10 } } }, undefined))
      assert.strictEqual((yield* Effect.flip(pool.take(ask(1))))._tag, "StoreUnavailable")
      yield* TestClock.adjust(8_000)
      server.isCut = false
      said.length = 0
      yield* TestClock.adjust(1_000)
      const [paused] = said.filter(([name]) => name === "pause")
      assert.isAtMost(Number(paused?.[2]), 2_000)
      // Nobody waits for the one, and the other is too old.
      assert.deepStrictEqual(
        said.filter(([name, ...asks]) => (name === "take" && asks.length > 0) || name === "observe"),
        []
      )
      assert.lengthOf((yield* pool.take(ask(1))).granted, 1)
    }).pipe(Effect.scoped, Effect.provide(server.layer), quiet)
  })

  it.effect("keeps no pause in line that was over long before Redis is back", () => {
    const said: Array<Wire.Operation> = []
    const server = scripted((operation) => {
      said.push(operation)
      return granting(operation)
    })
    return Effect.gen(function* () {
      const pool = yield* (yield* BudgetStore).open("p", slow)
      server.isCut = true
      const settling = yield* Effect.forkChild(Effect.exit(pool.take(ask(1))), { startImmediately: true })
      yield* TestClock.adjust(1)
      assert.isDefined(settling.pollUnsafe())
      for (const millis of [10, 60_000, 4_000]) yield* pool.pause({ reason: "rateLimit", millis, charge: undefined })
      yield* TestClock.adjust(4_000)
      server.isCut = false
      yield* TestClock.adjust(500)
      const heard = () => said.filter(([name]) => name === "pause").length
      // What was over a moment ago tells the others something still.
      assert.strictEqual(heard(), 3)
      server.isCut = true
      for (const millis of [10, 60_000, 4_000]) yield* pool.pause({ reason: "rateLimit", millis, charge: undefined })
      yield* TestClock.adjust(6_000)
      server.isCut = false
      yield* TestClock.adjust(500)
      assert.strictEqual(heard(), 4)
    }).pipe(Effect.scoped, Effect.provide(server.layer), quiet)
  })

  it.effect("gives back what was granted although the answer was lost and nobody waits any more", () => {
    const settled: Array<unknown> = []
    const heard = new Map<number, unknown>()
    let isLost = false
    const server = scripted((operation, seq) => {
      if (operation[0] === "settle") settled.push(operation[1])
      // As the script does, it answers what it has heard before from memory.
      const reply = heard.get(seq) ?? granting(operation)
      heard.set(seq, reply)
      if (isLost) throw new Error("the answer was lost")
      return reply
    })
    return Effect.gen(function* () {
      const pool = yield* (yield* BudgetStore).open("p", slow)
      isLost = true
      assert.strictEqual((yield* Effect.flip(pool.take(ask(1))))._tag, "StoreUnavailable")
      isLost = false
      yield* TestClock.adjust(1_000)
      assert.deepStrictEqual(settled, [1])
    }).pipe(Effect.scoped, Effect.provide(server.layer), quiet)
  })

  it.effect("loses what the script stumbles over, and nothing that was said with it", () => {
    const settled: Array<unknown> = []
    const server = scripted(([name, id]) => {
      if (name === "take") return [3, 3, [false, false, false, 5], 0]
      if (name !== "settle") return 0
      if (id === 2) throw new Error("ERR stumbled script: 1, on @user_script:1.")
      settled.push(id)
      return 1
    })
    return Effect.gen(function* () {
      const pool = yield* (yield* BudgetStore).open("p", slow)
      const { granted } = yield* pool.take([...ask(1), ...ask(1), ...ask(1)])
      for (const held of granted) yield* pool.settle(held, { tokens: 0 }, true)
      yield* TestClock.adjust(5_000)
      assert.deepStrictEqual([...new Set(settled)], [1, 3])
    }).pipe(Effect.scoped, Effect.provide(server.layer), quiet)
  })

  it.effect("comes when the head that waits may, whatever is still said to an earlier one", () => {
    let isFree = false
    const server = scripted(([name]) => {
      if (name !== "take") return 0
      return isFree ? [1, 1, [false, false, false, 5], 0] : [1, 0, [false, false, false, 5], ["wait", 5_000, 4, 7]]
    })
    return Effect.gen(function* () {
      const budget = yield* Budget.make({ limits: slow.limits, headroom: 0 })
      const waiter = yield* Effect.forkChild(budget.reserve({ tokens: 10 }), { startImmediately: true })
      yield* TestClock.adjust(1)
      server.wake(200, 7)
      yield* TestClock.adjust(50)
      server.wake(3_000, 6)
      isFree = true
      yield* TestClock.adjust(149)
      assert.isUndefined(waiter.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.isDefined(waiter.pollUnsafe())
    }).pipe(Effect.scoped, Effect.provide(server.layer))
  })
})
