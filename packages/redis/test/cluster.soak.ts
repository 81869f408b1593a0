/**
 * A cluster of three masters, one with a replica. Pools on all of them keep working while slots move and a master dies. The nodes
 * take seconds to find each other, so this runs with `npm run redis:test`.
 */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Budget from "floodgate/Budget"
import * as FloodgateRedis from "@floodgate/redis"
import * as SharedState from "@floodgate/redis/internal"
import { StoreContract } from "floodgate/testing"
import * as State from "../../../src/sharing/state.ts"
import { keyOf } from "../src/store.ts"
import * as Clients from "./clients.ts"
import * as Redis from "./server.ts"

const slow = { tokens: { perSecond: 1, burst: 1_000 } }
const prefix = "cluster"
const quiet = Effect.provideService(References.MinimumLogLevel, "None")

describe.skipIf(Redis.skipped !== undefined)("a budget in a cluster of Redis", { timeout: 60_000 }, () => {
  let cluster: Redis.Cluster
  beforeAll(async () => {
    cluster = await Redis.startCluster()
  }, 60_000)
  afterAll(() => cluster.stop())

  const keyOfPool = (pool: string): string => keyOf(prefix, State.keyOf(pool))
  const slotOf = async (pool: string): Promise<string> =>
    String(await cluster.replica.command("CLUSTER", "KEYSLOT", keyOfPool(pool)))

  /** The name of a pool whose key a node serves now. */
  const poolOn = async (node: Redis.Server, name: string): Promise<string> => {
    for (let n = 0; ; n++) {
      const served = await node.command("EXISTS", keyOfPool(`${name}-${n}`)).then(
        () => true,
        () => false
      )
      if (served) return `${name}-${n}`
    }
  }
  const poolsOn = (name: string) => Effect.promise(() => Promise.all(cluster.masters.map((node) => poolOn(node, name))))

  for (const client of Clients.names) {
    describe(`by the package ${client}`, () => {
      const address = () => cluster.masters[1]!.url
      /** The budget of one more process. */
      const process = Effect.fnUntraced(function* (pools: ReadonlyArray<string>, url = address()) {
        const limits = { pools: Object.fromEntries(pools.map((pool) => [pool, slow])) }
        const context = yield* Layer.build(Clients.layer(client, url, prefix))
        return yield* Effect.provideContext(Budget.make({ limits }), context)
      })

      for (const check of StoreContract.checks) {
        it.live(check.name, () => Effect.suspend(() => check.run(Clients.store(client, address(), "contract"))))
      }

      it.live("spreads pools over the nodes, shares each, and sees them all from any", () =>
        Effect.gen(function* () {
          const pools = yield* poolsOn(`spread-${client}`)
          const [one, other] = yield* Effect.all([process(pools), process(pools, cluster.masters[2]!.url)])
          for (const [i, pool] of pools.entries()) {
            yield* one.reserve({ tokens: 500 + 100 * i }, { pool })
            const error = yield* Effect.flip(other.reserve({ tokens: 600 }, { pool, maxWait: 1_000 }))
            assert.strictEqual(error.reason._tag, "WaitTooLong")
          }
          for (const node of cluster.masters) {
            const seen = yield* SharedState.status({ url: node.url, prefix })
            for (const [i, pool] of pools.entries()) {
              const held = seen.find((each) => each.pool === pool)!.processes.map((each) => each.held.tokens)
              assert.include(held, 500 + 100 * i)
            }
          }
        }).pipe(Effect.scoped)
      )

      it.live("gives every node the name and the password of the address", () =>
        Effect.gen(function* () {
          const word = "p@ss:w/rd%"
          const name = `gate-${client}`
          // All that a user must be allowed.
          const script = ["+eval", "+evalsha", "+time", "+hget", "+hmget", "+hset", "+pexpire"]
          const rights = [...script, "+info", "+client", "+select", "+cluster"]
          for (const node of cluster.masters) {
            yield* Effect.promise(() =>
              node.command("ACL", "SETUSER", name, "on", `>${word}`, `~${prefix}:*`, ...rights)
            )
          }
          const pools = yield* poolsOn(`named-${client}`)
          const url = cluster.masters[0]!.url.replace("//", `//${name}:${encodeURIComponent(word)}@`)
          const budget = yield* process(pools, url)
          for (const pool of pools) yield* budget.reserve({ tokens: 1 }, { pool })
          for (const node of cluster.masters) {
            const list = String(yield* Effect.promise(() => node.command("CLIENT", "LIST")))
            assert.include(list, `user=${name}`)
          }
        }).pipe(Effect.scoped)
      )

      it.live("continues while the slot of its pool moves to another node", () =>
        Effect.gen(function* () {
          const [from, to] = cluster.masters as [Redis.Server, Redis.Server]
          const pool = yield* Effect.promise(() => poolOn(from, `moves-${client}`))
          const budget = yield* process([pool])
          let granted = 0
          const call = Effect.scoped(
            Effect.flatMap(budget.reserve({ tokens: 1 }, { pool }), (reservation) => reservation.settle({ tokens: 1 }))
          )
          const counted = Effect.andThen(call, Effect.sleep(2))
          const calls = yield* Effect.forkChild(Effect.forever(Effect.tap(counted, () => Effect.sync(() => granted++))))
          yield* Effect.promise(() => Redis.until(() => Promise.resolve(granted > 20)))
          yield* Effect.promise(async () => {
            const slot = await slotOf(pool)
            const idOf = async (node: Redis.Server) => String(await node.command("CLUSTER", "MYID"))
            await to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", await idOf(from))
            await from.command("CLUSTER", "SETSLOT", slot, "MIGRATING", await idOf(to))
            const keys = (await from.command("CLUSTER", "GETKEYSINSLOT", slot, "100")) as Array<string>
            const port = new URL(to.url).port
            for (const key of keys) await from.command("MIGRATE", "127.0.0.1", port, key, "0", "5000")
            for (const node of [to, from]) await node.command("CLUSTER", "SETSLOT", slot, "NODE", await idOf(to))
          })
          const moved = granted
          yield* Effect.promise(() => Redis.until(() => Promise.resolve(granted > moved + 20)))
          yield* Fiber.interrupt(calls)
          assert.strictEqual(yield* Effect.promise(() => to.command("EXISTS", keyOfPool(pool))), 1)
          const level = (yield* budget.status).pools[pool]!.dimensions.tokens!.level
          assert.isAtMost(Math.abs(1_000 - granted - level), 30)
        }).pipe(Effect.scoped, quiet)
      )
    })
  }

  it.live("fails at once, with advice, for a client of one node that is redirected to another", () =>
    Effect.gen(function* () {
      const pool = yield* Effect.promise(() => poolOn(cluster.masters[2]!, "elsewhere"))
      const layer = FloodgateRedis.layerStore({ prefix, whenAway: "fail" }).pipe(
        Layer.provide(NodeRedis.layer({ url: cluster.masters[1]!.url }))
      )
      const budget = yield* Effect.provideContext(
        Budget.make({ limits: { pools: { [pool]: slow } } }),
        yield* Layer.build(layer)
      )
      const error = yield* Effect.flip(budget.reserve({ tokens: 1 }, { pool }))
      assert.strictEqual(error.reason._tag, "StoreUnavailable")
    }).pipe(Effect.scoped, Effect.timeout(5_000), quiet)
  )

  // The last, because a master is gone after it.
  it.live("continues with the known state when a master dies and its replica takes its place", () =>
    Effect.gen(function* () {
      const [first, second] = cluster.masters as [Redis.Server, Redis.Server]
      const pool = yield* Effect.promise(() => poolOn(first, "dies"))
      const beside = yield* Effect.promise(() => poolOn(second, "lives"))
      const budgets = yield* Effect.forEach(Clients.names, (client) =>
        Effect.flatMap(Layer.build(Clients.layer(client, second.url, prefix)), (context) =>
          Effect.provideContext(Budget.make({ limits: { pools: { [pool]: slow, [beside]: slow } } }), context)
        )
      )
      for (const budget of budgets) {
        yield* budget.reserve({ tokens: 300 }, { pool })
        yield* budget.reserve({ tokens: 300 }, { pool: beside })
      }
      const offset = (text: unknown) => /master_repl_offset:(\d+)/.exec(String(text))?.[1]
      yield* Effect.promise(() =>
        Redis.until(
          async () =>
            offset(await first.command("INFO", "replication")) ===
            offset(await cluster.replica.command("INFO", "replication"))
        )
      )
      yield* Effect.promise(first.stop)
      for (const budget of budgets) {
        // What another node serves goes on meanwhile.
        yield* Effect.timeout(budget.reserve({ tokens: 10 }, { pool: beside }), 15_000)
        // 600 of 1,000 are taken.
        yield* Effect.timeout(budget.reserve({ tokens: 150 }, { pool }), 25_000)
        const error = yield* Effect.flip(budget.reserve({ tokens: 500 }, { pool, maxWait: 1_000 }))
        assert.strictEqual(error.reason._tag, "WaitTooLong")
      }
    }).pipe(Effect.scoped, quiet)
  )
})
