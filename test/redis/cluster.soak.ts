/**
 * A cluster of three masters, one with a replica. Pools lie on all of them, and go on while slots move and a master dies.
 * Nodes take seconds to find each other, so it runs with `npm run redis:test`.
 */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Budget from "floodgate/Budget"
import { BudgetStore, type PoolOptions } from "floodgate/BudgetStore"
import * as FloodgateRedis from "floodgate/redis"
import { StoreContract } from "floodgate/testing"
import { keysOf } from "../../src/redis/connection.ts"
import * as Redis from "./server.ts"

const slow: PoolOptions = {
  limits: { tokens: { perSecond: 1, burst: 1_000 } },
  concurrency: Infinity,
  headroom: 0,
  ramp: undefined
}
const ask = (tokens: number) => [{ charge: { tokens }, priority: 0 }]
const quiet = Effect.provideService(References.MinimumLogLevel, "None")

describe.skipIf(Redis.skipped !== undefined)("redis store, on a cluster of three masters", { timeout: 60_000 }, () => {
  const prefix = Redis.fresh("cluster")
  let cluster: Redis.Cluster
  beforeAll(async () => {
    cluster = await Redis.startCluster()
  }, 60_000)
  afterAll(() => cluster.stop())

  const layer = (options: FloodgateRedis.Options = {}) =>
    Layer.suspend(() => FloodgateRedis.layerStoreUrl({ url: cluster.masters[1]!.url, prefix, ...options }))

  const slotOf = async (pool: string): Promise<string> =>
    String(await cluster.replica.command("CLUSTER", "KEYSLOT", keysOf(prefix, pool).all[0]!))

  /** The name of a pool whose keys a node serves now. */
  const poolOn = async (node: Redis.Server, name: string): Promise<string> => {
    for (let n = 0; ; n++) {
      const pool = `${name}-${n}`
      const served = await node.command("EXISTS", keysOf(prefix, pool).all[0]!).then(
        () => true,
        () => false
      )
      if (served) return pool
    }
  }

  for (const check of StoreContract.checks({ layer: layer(), shared: true })) {
    it.live(check.name, () => check.run)
  }

  it.live("gives every node the name and the password of the address", () =>
    Effect.gen(function* () {
      const word = "p@ss:w/rd%"
      yield* Effect.forEach(cluster.masters, (node) =>
        Effect.promise(() => node.command("ACL", "SETUSER", "gate", "on", `>${word}`, "~*", "&*", "+@all"))
      )
      const url = cluster.masters[0]!.url.replace("//", `//gate:${encodeURIComponent(word)}@`)
      const pools = yield* Effect.promise(() => Promise.all(cluster.masters.map((node) => poolOn(node, "named"))))
      yield* Effect.gen(function* () {
        const store = yield* BudgetStore
        for (const pool of pools) yield* store.open(pool, slow)
        for (const node of cluster.masters) {
          assert.match(
            String(yield* Effect.promise(() => node.command("CLIENT", "LIST"))),
            /user=gate .*evalsha|evalsha.* user=gate/
          )
        }
      }).pipe(Effect.scoped, Effect.provide(FloodgateRedis.layerStoreUrl({ url, prefix })))
    })
  )

  it.live("spreads pools over the nodes, and sees them all from any", () =>
    Effect.gen(function* () {
      const store = yield* BudgetStore
      const pools = yield* Effect.promise(() =>
        Promise.all(cluster.masters.flatMap((node, i) => ["a", "b"].map((name) => poolOn(node, `spread-${name}${i}`))))
      )
      const opened = yield* Effect.forEach(pools, (pool) => store.open(pool, slow), { concurrency: "unbounded" })
      for (const [i, pool] of opened.entries()) yield* pool.take(ask(100 * (i + 1)))
      for (const node of cluster.masters) {
        const seen = yield* FloodgateRedis.status({ url: node.url, prefix })
        const held = Object.fromEntries(seen.map(({ pool, processes }) => [pool, processes[0]?.held.tokens]))
        for (const [i, pool] of pools.entries()) assert.strictEqual(held[pool], 100 * (i + 1), pool)
      }
    }).pipe(Effect.scoped, Effect.provide(layer()))
  )

  it.live("wakes who waits for another's refund, on whatever node", () =>
    Effect.gen(function* () {
      const pools = yield* Effect.promise(() => Promise.all(cluster.masters.map((node) => poolOn(node, "wakes"))))
      const limits = { pools: Object.fromEntries(pools.map((pool) => [pool, slow.limits])) }
      const open = Budget.make({ limits, headroom: 0 })
      const one = yield* open
      const other = yield* open
      for (const pool of pools) {
        const reservation = yield* one.reserve({ tokens: 1_000 }, { pool })
        const waiter = yield* Effect.forkChild(other.reserve({ tokens: 900 }, { pool }))
        yield* Effect.sleep(100)
        assert.isUndefined(waiter.pollUnsafe())
        yield* reservation.refund
        yield* Effect.timeout(Fiber.join(waiter), 500)
      }
    }).pipe(Effect.scoped, Effect.provide(layer()), Effect.orDie)
  )

  it.live("goes on while the slot of its pool moves to another node", () =>
    Effect.gen(function* () {
      const [from, to] = cluster.masters as [Redis.Server, Redis.Server]
      const pool = yield* Effect.promise(() => poolOn(from, "moves"))
      const store = yield* Effect.flatMap(BudgetStore, (store) => store.open(pool, slow))
      let granted = 0
      const call = Effect.map(store.take(ask(1)), (taken) => void (granted += taken.granted.length))
      const calls = yield* Effect.forkChild(Effect.forever(Effect.andThen(call, Effect.sleep(2))))
      yield* Effect.promise(() => Redis.until(() => Promise.resolve(granted > 20)))
      yield* Effect.promise(async () => {
        const slot = await slotOf(pool)
        const idOf = async (node: Redis.Server) => String(await node.command("CLUSTER", "MYID"))
        await to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", await idOf(from))
        await from.command("CLUSTER", "SETSLOT", slot, "MIGRATING", await idOf(to))
        const keys = (await from.command("CLUSTER", "GETKEYSINSLOT", slot, "100")) as Array<string>
        const port = new URL(to.url).port
        // One after the other, as tools do: for a moment the pool's keys lie on both nodes.
        for (const key of keys) await from.command("MIGRATE", "127.0.0.1", port, key, "0", "5000")
        for (const node of [to, from]) await node.command("CLUSTER", "SETSLOT", slot, "NODE", await idOf(to))
      })
      const moved = granted
      yield* Effect.promise(() => Redis.until(() => Promise.resolve(granted > moved + 20)))
      yield* Fiber.interrupt(calls)
      assert.strictEqual(yield* Effect.promise(() => to.command("EXISTS", keysOf(prefix, pool).all[0]!)), 1)
      const [seen] = (yield* FloodgateRedis.status({ url: to.url, prefix })).filter((each) => each.pool === pool)
      assert.deepInclude(seen, { origin: "new" })
      assert.isAtMost(Math.abs(1_000 - granted - seen!.snapshot.ledger.buckets.tokens!.level), 25)
    }).pipe(Effect.scoped, Effect.provide(layer()), quiet)
  )

  it.live("says at once what to do where a client of one node is told to go to another", () =>
    Effect.gen(function* () {
      const pool = yield* Effect.promise(() => poolOn(cluster.masters[2]!, "elsewhere"))
      const error = yield* Effect.flip(Effect.flatMap(BudgetStore, (store) => store.open(pool, slow)))
      assert.strictEqual(error._tag, "StoreUnavailable")
      assert.match(String((error.cause as { readonly cause: unknown }).cause), /another node .* Use layerStoreUrl/)
    }).pipe(
      Effect.scoped,
      Effect.provide(
        FloodgateRedis.layerStore({ prefix }).pipe(
          Layer.provide(Layer.suspend(() => NodeRedis.layer({ url: cluster.masters[1]!.url })))
        )
      ),
      Effect.timeout(5_000),
      quiet
    )
  )

  // The last, because a master is gone after it.
  it.live("goes on with what was known when a master dies and its replica takes its place", () =>
    Effect.gen(function* () {
      const [first, second] = cluster.masters as [Redis.Server, Redis.Server]
      const pool = yield* Effect.promise(() => poolOn(first, "dies"))
      const beside = yield* Effect.promise(() => poolOn(second, "lives"))
      const store = yield* BudgetStore
      const one = yield* store.open(pool, slow)
      const other = yield* store.open(beside, slow)
      yield* one.take(ask(600))
      const offset = (text: unknown) => /master_repl_offset:(\d+)/.exec(String(text))?.[1]
      yield* Effect.promise(() =>
        Redis.until(
          async () =>
            offset(await first.command("INFO", "replication")) ===
            offset(await cluster.replica.command("INFO", "replication"))
        )
      )
      yield* Effect.promise(first.stop)
      // What another node serves goes on meanwhile.
      assert.strictEqual((yield* other.take(ask(1))).granted.length, 1)
      assert.strictEqual((yield* one.take(ask(500))).granted.length, 0)
      assert.strictEqual((yield* one.take(ask(300))).granted.length, 1)
      const [seen] = (yield* FloodgateRedis.status({ url: cluster.replica.url, prefix })).filter(
        (each) => each.pool === pool
      )
      assert.deepInclude(seen, { origin: "new", inFlight: 2 })
    }).pipe(Effect.scoped, Effect.provide(layer()), quiet)
  )
})
