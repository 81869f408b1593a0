/** A budget in a real Redis, with both clients. `test/sharing` tests the rest in simulated time. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import type * as BudgetStore from "floodgate/BudgetStore"
import * as FloodgateRedis from "@floodgate/redis"
import * as SharedState from "@floodgate/redis/internal"
import { hostname } from "node:os"
import { pid } from "node:process"
import * as Clients from "./clients.ts"
import * as Redis from "./server.ts"
import { some } from "../../../test/support/size.ts"
import { withStalls } from "../../../test/support/stalls.ts"

/** Slow enough that what is refilled during a test does not matter. */
const slow: Budget.Options = { limits: { tokens: { perSecond: 1, burst: 1_000 } } }
const plenty: Budget.Options = { limits: { tokens: { perSecond: 1_000_000_000, burst: 1_000_000_000 } } }

/** Long enough to ask Redis, and far too short for anything to be refilled. */
const maxWait = 1_000

const quiet = Effect.provideService(References.MinimumLogLevel, "None")

describe.skipIf(Redis.skipped !== undefined)("a budget in Redis", () => {
  let server: Redis.Server
  beforeAll(async () => {
    server = await Redis.start()
  })
  afterAll(() => server.stop())

  const commandsOf = async (at: Redis.Server): Promise<number> => {
    const stats = String(await at.command("INFO", "commandstats"))
    return [...stats.matchAll(/cmdstat_(?:eval|evalsha):calls=(\d+)/g)].reduce((sum, [, n]) => sum + Number(n), 0)
  }

  it.live("tells processes of one machine apart that have no name", () =>
    Effect.gen(function* () {
      const at = { url: server.url, prefix: "unnamed" }
      const context = yield* Layer.build(FloodgateRedis.layerStoreUrl(at))
      const budget = yield* Effect.provideContext(Budget.make(slow), context)
      yield* budget.reserve({ tokens: 600 })
      const [status] = yield* SharedState.status(at)
      assert.strictEqual(status!.processes[0]!.name, `${hostname()}/${pid}`)
    }).pipe(Effect.scoped)
  )

  for (const client of some(Clients.names, 2)) {
    describe(`by the package ${client}`, () => {
      /** The budget of one more process. */
      const process = (
        prefix: string,
        options: Budget.Options = slow,
        sharing: BudgetStore.Options = {},
        at: Redis.Server = server
      ) =>
        Effect.gen(function* () {
          const context = yield* Layer.build(Clients.layer(client, at.url, `${prefix} by ${client}`, sharing))
          return yield* Effect.provideContext(Budget.make(options), context)
        })
      const statusOf = (prefix: string, at: Redis.Server = server) =>
        Effect.map(SharedState.status({ url: at.url, prefix: `${prefix} by ${client}` }), ([pool]) => pool!)

      it.live("admits a caller soon after another process has refunded what it waits for", () =>
        Effect.gen(function* () {
          const [one, other] = yield* Effect.all([process("wakes"), process("wakes")])
          const reservation = yield* one.reserve({ tokens: 1_000 })
          const waiter = yield* Effect.forkChild(other.reserve({ tokens: 900 }))
          yield* Effect.sleep(300)
          assert.isUndefined(waiter.pollUnsafe())
          yield* reservation.refund
          yield* Effect.timeout(Fiber.join(waiter), 2_000)
        }).pipe(Effect.scoped)
      )

      it.live("shows what each process holds and waits for, and only reads", () =>
        Effect.gen(function* () {
          const one = yield* process("told", { ...slow, concurrency: 7 }, { name: "one" })
          const other = yield* process("told", { ...slow, concurrency: 7 }, { name: "other" })
          yield* one.reserve({ tokens: 600 })
          yield* Effect.forkScoped(other.reserve({ tokens: 500 }))
          const told = Effect.repeat(statusOf("told"), {
            until: ({ processes }) => processes.length === 2 && processes[1]!.waiting !== undefined
          })
          const status = yield* Effect.timeout(told, 5_000)
          assert.deepInclude(status, { pool: "default", inFlight: 1, allowed: 7, pause: undefined })
          assert.closeTo(status.dimensions.tokens!.level, 400, 10)
          const [first, second] = status.processes
          assert.deepInclude(first, { name: "one", inFlight: 1, waiting: undefined })
          assert.strictEqual(first!.held.tokens, 600)
          assert.deepInclude(second, { name: "other", inFlight: 0 })
          assert.strictEqual(second!.waiting!.tokens, 500)
          // A prefix that nobody uses stays unused.
          assert.deepStrictEqual(yield* SharedState.status({ url: server.url, prefix: "nobody's" }), [])
          const keys = yield* Effect.promise(() => server.command("KEYS", "nobody*"))
          assert.deepStrictEqual(keys, [])
        }).pipe(Effect.scoped)
      )

      it.live("sends at most one command a call, and far fewer when many are in flight", () =>
        Effect.gen(function* () {
          const budget = yield* process("asks", plenty)
          const call = Effect.scoped(
            Effect.flatMap(budget.reserve({ tokens: 100 }), (reservation) => reservation.settle({ tokens: 90 }))
          )
          yield* call
          const asked = Effect.fnUntraced(function* (calls: Effect.Effect<unknown, Budget.BudgetError>) {
            const before = yield* Effect.promise(() => commandsOf(server))
            yield* calls
            return (yield* Effect.promise(() => commandsOf(server))) - before
          })
          assert.isAtMost(yield* asked(Effect.repeat(call, { times: 199 })), 210)
          const many = Effect.forEach(Array.from({ length: 5_000 }), () => call, {
            concurrency: "unbounded",
            discard: true
          })
          assert.isAtMost(yield* asked(many), 500)
        }).pipe(Effect.scoped)
      )

      it.live("asks again at once for a caller whose admission came too late", () =>
        Effect.gen(function* () {
          const own = yield* Redis.scoped
          const budget = yield* process("late", plenty, {}, own)
          const call = Effect.scoped(
            Effect.flatMap(budget.reserve({ tokens: 100 }), (reservation) => reservation.settle({ tokens: 100 }))
          )
          // It gets used to a server that answers at once.
          yield* Effect.repeat(call, { times: 300 })
          for (const millis of [100, 400]) {
            yield* Effect.promise(() => own.command("CLIENT", "PAUSE", String(millis), "ALL"))
            const start = performance.now()
            const [, stalled] = yield* withStalls(call)
            // A busy machine delays the process, the server and the network.
            assert.isBelow(performance.now() - start, millis + 350 + 4 * stalled)
          }
        }).pipe(Effect.scoped)
      )

      it.live("does not take a damaged or wiped state for a full bucket, and continues with what it knows", () =>
        Effect.gen(function* () {
          const spoilt: Readonly<Record<string, (key: string) => ReadonlyArray<string>>> = {
            gone: (key) => ["DEL", key],
            empty: (key) => ["HSET", key, "version", "x", "value", ""],
            cut: (key) => ["HSET", key, "version", "x", "value", '{"law":{"meters":[]'],
            foreign: (key) => ["HSET", key, "version", "x", "value", '{"law":{"meters":[]}}']
          }
          for (const [how, command] of Object.entries(spoilt)) {
            const prefix = `spoilt-${how}`
            const one = yield* process(prefix, slow, { whenAway: "fail" })
            const other = yield* process(prefix, slow, { whenAway: "fail" })
            yield* one.reserve({ tokens: 600 })
            // It knows what the first one has taken.
            assert.strictEqual(
              (yield* Effect.flip(other.reserve({ tokens: 500 }, { maxWait }))).reason._tag,
              "WaitTooLong"
            )
            const keys = (yield* Effect.promise(() =>
              server.command("KEYS", `${prefix}*by*${client}:*`)
            )) as ReadonlyArray<string>
            assert.lengthOf(keys, 1)
            yield* Effect.promise(() => server.command(...command(keys[0]!)))
            for (const each of [other, one]) {
              const error = yield* Effect.flip(each.reserve({ tokens: 500 }, { maxWait }))
              assert.include(["WaitTooLong", "StoreUnavailable"], error.reason._tag, how)
            }
            // An operator deletes the unreadable state. The processes then restore what they know.
            yield* Effect.promise(() => server.command("DEL", keys[0]!))
            const soon = Effect.retry(other.reserve({ tokens: 300 }), { schedule: Schedule.spaced(50) })
            yield* Effect.timeout(soon, 5_000)
            const error = yield* Effect.flip(one.reserve({ tokens: 500 }, { maxWait }))
            assert.strictEqual(error.reason._tag, "WaitTooLong", how)
          }
        }).pipe(Effect.scoped, quiet)
      )

      it.live("keeps a quota when the server is wiped, because the processes remember it", () =>
        Effect.gen(function* () {
          const own = yield* Redis.scoped
          const quota: Budget.Options = { limits: { tokens: { total: 1_000 } } }
          const one = yield* process("quota", quota, {}, own)
          yield* Effect.scoped(Effect.flatMap(one.reserve({ tokens: 700 }), (each) => each.settle({ tokens: 700 })))
          yield* Effect.promise(() => own.command("FLUSHALL"))
          const error = yield* Effect.flip(one.reserve({ tokens: 400 }))
          assert.strictEqual(error.reason._tag, "QuotaExhausted")
          yield* one.reserve({ tokens: 300 })
        }).pipe(Effect.scoped, quiet)
      )

      it.live("loses no settlement while a server is full, or not a master", () =>
        Effect.gen(function* () {
          const own = yield* Redis.scoped
          const refusals = [
            { on: ["CONFIG", "SET", "maxmemory", "1"], off: ["CONFIG", "SET", "maxmemory", "0"] },
            { on: ["REPLICAOF", "127.0.0.1", "1"], off: ["REPLICAOF", "NO", "ONE"] }
          ]
          for (const [n, { off, on }] of refusals.entries()) {
            const budget = yield* process(`refuses-${n}`, slow, {}, own)
            const reservation = yield* budget.reserve({ tokens: 600 })
            yield* Effect.promise(() => own.command(...on))
            yield* reservation.settle({ tokens: 100 })
            const waiter = yield* Effect.forkChild(budget.reserve({ tokens: 850 }))
            yield* Effect.sleep(1_000)
            assert.isUndefined(waiter.pollUnsafe())
            yield* Effect.promise(() => own.command(...off))
            yield* Effect.timeout(Fiber.join(waiter), 5_000)
            const { dimensions, inFlight } = yield* statusOf(`refuses-${n}`, own)
            assert.strictEqual(inFlight, 1)
            assert.closeTo(dimensions.tokens!.level, 50, 10)
          }
        }).pipe(Effect.scoped, quiet)
      )

      it.live("fails without a server at once, or after the stated wait", () =>
        Effect.gen(function* () {
          const nowhere = { ...server, url: "redis://127.0.0.1:1" }
          const waits = [
            ["fail", 0],
            ["degrade", 0],
            [{ wait: 700 }, 700]
          ] as const
          for (const [whenAway, least] of waits) {
            const budget = yield* process("nobody", slow, { whenAway }, nowhere)
            const start = performance.now()
            const error = yield* Effect.flip(budget.reserve({ tokens: 1 }))
            const took = performance.now() - start
            assert.strictEqual(error.reason._tag, "StoreUnavailable")
            assert.isTrue(error.isRetryable)
            assert.isAtLeast(took, least)
            // Far from the default patience of 30 s, also on a busy machine.
            assert.isAtMost(took, least + 15_000)
          }
        }).pipe(Effect.scoped, quiet)
      )

      it.live("closes at once, with all waiting callers, while the server stands still", () =>
        Effect.gen(function* () {
          const own = yield* Redis.scoped
          const scope = yield* Scope.make()
          const budget = yield* Scope.provide(process("ends", slow, { timeout: 300 }, own), scope)
          yield* budget.reserve({ tokens: 900 })
          const waiter = yield* Effect.forkChild(budget.reserve({ tokens: 500 }))
          yield* Effect.sleep(100)
          own.signal("SIGSTOP")
          // It has noticed.
          yield* Effect.sleep(2_000)
          assert.isUndefined(waiter.pollUnsafe())
          yield* Scope.close(scope, Exit.void)
          const exit = yield* Effect.timeout(Fiber.await(waiter), 15_000)
          assert.isTrue(Exit.isFailure(exit))
          // What is asked of it afterwards ends, too.
          yield* Effect.timeout(budget.status, 15_000)
          yield* Effect.timeout(Effect.exit(budget.reserve({ tokens: 1 })), 15_000)
          own.signal("SIGCONT")
        }).pipe(Effect.scoped, quiet)
      )
    })
  }
})
