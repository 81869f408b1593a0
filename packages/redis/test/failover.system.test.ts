/** A store whose servers fail over: a cluster of which named nodes die, and Sentinels, with both clients. Real servers. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Stored } from "floodgate/BudgetStore"
import * as FloodgateRedis from "@floodgate/redis"
import { StoreContract } from "floodgate/testing"
import * as Clients from "./clients.ts"
import * as Redis from "./server.ts"

const first: Stored = { version: "1", value: "one" }
const hour = 3_600_000

const hostOf = ({ url }: Redis.Server): string => new URL(url).host

/** Tries again as a budget does, until it succeeds. */
const eventually = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A> =>
  Effect.gen(function* () {
    for (;;) {
      const tried = yield* Effect.option(Effect.timeout(effect, "2 seconds"))
      if (tried._tag === "Some") return tried.value
      yield* Effect.sleep("100 millis")
    }
  })

/** The message of the failure of a check. */
const problemOf = (url: string) =>
  Effect.map(Effect.flip(FloodgateRedis.check({ url })), ({ cause }) => (cause as Error).message)

describe.skipIf(Redis.skipped !== undefined)("a store in a cluster", { timeout: 90_000 }, () => {
  let cluster: Redis.Cluster
  beforeAll(async () => {
    cluster = await Redis.startCluster(3)
  }, 60_000)
  afterAll(() => cluster.stop())

  it.live("cannot be several servers that are no nodes of one", () =>
    Effect.gen(function* () {
      const server = yield* Effect.promise(() => Redis.start())
      yield* Effect.addFinalizer(() => Effect.promise(server.stop))
      const twice = `${server.url},${hostOf(server)}`
      assert.match(yield* problemOf(twice), /is no node of a cluster, and each of several servers would have a budget/)
      // A node that leads to the cluster is enough.
      yield* FloodgateRedis.check({ url: `${server.url},${hostOf(cluster.masters[0]!)}` })
    }).pipe(Effect.scoped)
  )

  it.live("needs +cluster, and says so", () =>
    Effect.gen(function* () {
      const rights = ["~floodgate:*", "+eval", "+evalsha", "+time", "+hget", "+hmget", "+hset", "+pexpire", "+info"]
      const allow = (...more: ReadonlyArray<string>) =>
        Effect.forEach([...cluster.masters, ...cluster.replicas], (node) =>
          Effect.promise(() => node.command("ACL", "SETUSER", "gate", "reset", "on", ">word", ...rights, ...more))
        )
      const url = cluster.masters[0]!.url.replace("//", "//gate:word@")
      yield* allow("+client", "+select")
      assert.match(yield* problemOf(url), /^NOPERM the user may not run cluster: allow it \+cluster$/)
      yield* allow("+client", "+select", "+cluster")
      yield* FloodgateRedis.check({ url })
    })
  )

  it.live("is found while the named node hangs, through the nodes that were found before", () =>
    Effect.gen(function* () {
      const [named, other] = cluster.masters as [Redis.Server, Redis.Server]
      for (const client of Clients.names) {
        const store = yield* Clients.store(client, named.url, `hangs by ${client}`)
        // What another node keeps is there all the time.
        let n = 0
        const key = (name: string) => `hangs%20by%20${client}:${name}`
        const served = (name: string) =>
          Effect.promise(() =>
            other.command("EXISTS", key(name)).then(
              () => true,
              () => false
            )
          )
        while (!(yield* served(`pool${n}`))) n++
        yield* store.swap(`pool${n}`, undefined, first, hour)
        named.signal("SIGSTOP")
        yield* Effect.promise(() => other.command("CLIENT", "KILL", "TYPE", "normal"))
        const found = yield* Effect.timeout(eventually(store.read(`pool${n}`)), "20 seconds").pipe(
          Effect.ensuring(Effect.sync(() => named.signal("SIGCONT")))
        )
        assert.deepInclude(found, first)
        yield* eventually(FloodgateRedis.check({ url: named.url }))
        yield* Effect.promise(() =>
          Redis.until(async () => String(await other.command("CLUSTER", "INFO")).includes("cluster_slots_fail:0"))
        )
      }
    }).pipe(Effect.scoped)
  )
})

describe.skipIf(Redis.skipped !== undefined)("a store behind Sentinels", { timeout: 90_000 }, () => {
  let watched: Redis.Sentinels
  beforeAll(async () => {
    watched = await Redis.startSentinels()
  }, 60_000)
  afterAll(() => watched.stop())

  for (const client of Clients.names) {
    for (const check of StoreContract.checks) {
      it.live(`${check.name}, by ${client}`, () =>
        Effect.suspend(() => check.run(Clients.store(client, watched.url, `contract by ${client}`)))
      )
    }
  }

  it.live("logs in at the master and at the Sentinels, each with its own name and password", () =>
    Effect.gen(function* () {
      const word = "p@ss:w/rd%,"
      for (const server of [watched.master, watched.replica, ...watched.sentinels]) {
        const name = watched.sentinels.includes(server) ? "looker" : "gate"
        yield* Effect.promise(() => server.command("ACL", "SETUSER", name, "on", `>${name}${word}`, "~*", "+@all"))
      }
      const own = encodeURIComponent(`gate${word}`)
      const url = `${watched.url.replace("//", `//gate:${own}@`)}/3?sentinelUser=looker&sentinelPassword=${encodeURIComponent(`looker${word}`)}`
      for (const client of Clients.names) {
        const store = yield* Clients.store(client, url, `named ${client}`)
        yield* store.swap("pool", undefined, first, hour)
        const list = String(yield* Effect.promise(() => watched.master.command("CLIENT", "LIST")))
        assert.match(list, /db=3 .*user=gate/)
      }
      assert.match(yield* problemOf(url.replace("sentinelPassword=", "sentinelPassword=x")), /^WRONGPASS/)
      assert.match(yield* problemOf(url.replace("gate:", "gate:x")), /^WRONGPASS/)
    }).pipe(Effect.scoped)
  )

  it.live("says that no master has this name", () =>
    Effect.gen(function* () {
      assert.match(yield* problemOf(watched.url.replace("/gate", "/other")), /knows no master named "other"/)
    })
  )

  // The last, because the master is gone after it.
  it.live(
    "is found again at another server when the master is killed, with its state, and also with a dead Sentinel",
    () =>
      Effect.gen(function* () {
        const stores = yield* Effect.forEach(Clients.names, (client) =>
          Clients.store(client, watched.url, `f ${client}`)
        )
        for (const store of stores) yield* store.swap("pool", undefined, first, hour)
        yield* Effect.promise(() =>
          Redis.until(
            async () =>
              Number(await watched.replica.command("DBSIZE")) === Number(await watched.master.command("DBSIZE"))
          )
        )
        yield* Effect.promise(watched.sentinels[0]!.stop)
        yield* Effect.promise(watched.master.stop)
        for (const store of stores) {
          const next = { version: "2", value: "two" }
          const found = yield* Effect.timeout(eventually(store.swap("pool", "1", next, hour)), "30 seconds")
          assert.deepInclude(found, next)
        }
      }).pipe(Effect.scoped)
  )
})
