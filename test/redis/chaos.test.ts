/**
 * A fleet of real processes on a real server, while both are treated badly. The provider's log is the judge: whatever
 * happens, it never sees more than the limit, or at most one burst more where the state was wiped; and nothing hangs.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import { BudgetStore } from "floodgate/BudgetStore"
import * as FloodgateRedis from "floodgate/redis"
import * as Fleet from "./fleet.ts"
import * as Redis from "./server.ts"
import { burst, rate, trouble } from "./trouble.ts"

describe.skipIf(Redis.skipped !== undefined)("redis store, in trouble", { timeout: 60_000 }, () => {
  const scene = trouble()
  const { finish, job } = scene

  it("is not over-spent by processes that are killed in flight, whose permits return after their lease", async () => {
    const store = { lease: 800 }
    const calls = [3_000, 2_000, 4_000, 1_000, 3_000]
    const [dead, ...alive] = await Fleet.start([0, 1, 2].map(() => job({ store, calls, concurrency: 4 })))
    await Fleet.sleep(500)
    dead!.child.kill("SIGKILL")
    await finish(alive, 20)
    assert.isAtMost(Fleet.burstOf(scene.provider.log, rate), burst)
    assert.isAtMost(scene.provider.peak(), 4)
    const [pool] = await Effect.runPromise(FloodgateRedis.status({ url: scene.server.url, prefix: "chaos" }))
    assert.strictEqual(pool!.inFlight, 0)
    assert.deepStrictEqual(
      pool!.processes.filter(({ name }) => name.startsWith("p1-")),
      []
    )
  })

  it("survives a server that stands still, scripts and connections that are cut, and clocks that are minutes apart", async () => {
    const workers = await Fleet.start([-300_000, 0, 420_000].map((skewMillis) => job({ skewMillis })))
    await Fleet.sleep(300)
    await scene.server.command("SCRIPT", "FLUSH")
    await Fleet.sleep(200)
    await scene.server.command("CLIENT", "KILL", "TYPE", "normal")
    await scene.server.command("CLIENT", "KILL", "TYPE", "pubsub")
    await Fleet.sleep(300)
    scene.server.signal("SIGSTOP")
    await Fleet.sleep(1_500)
    scene.server.signal("SIGCONT")
    await finish(workers, 12)
    assert.strictEqual(scene.provider.log.length, 36)
    assert.isAtMost(Fleet.burstOf(scene.provider.log, rate), burst)
  })

  it("loses no settlement to a server that is full, or is no master for a while", async () => {
    const refusals = [
      { on: ["CONFIG", "SET", "maxmemory", "1"], off: ["CONFIG", "SET", "maxmemory", "0"] },
      { on: ["REPLICAOF", "127.0.0.1", "1"], off: ["REPLICAOF", "NO", "ONE"] }
    ]
    const { url } = scene.server
    let outages = 0
    const count = Logger.make(({ message }) => void (outages += String(message).includes("does not answer") ? 1 : 0))
    await Effect.gen(function* () {
      const store = yield* BudgetStore
      for (const [n, { off, on }] of refusals.entries()) {
        const limits = { tokens: { perSecond: 1, burst: 1_000 } }
        const pool = yield* store.open(`refuses-${n}`, { limits, concurrency: 2, headroom: 0, ramp: undefined })
        const ask = (tokens: number) => pool.take([{ charge: { tokens }, priority: 0 }])
        const { granted } = yield* ask(600)
        yield* Effect.promise(() => scene.server.command(...on))
        // A script that has written once is let through, full or not: this one begins with what is refused.
        const next = yield* Effect.forkChild(ask(1), { startImmediately: true })
        yield* pool.settle(granted[0]!, { tokens: 100 }, true)
        yield* Effect.promise(() => Redis.until(() => Promise.resolve(outages > n)))
        yield* Effect.promise(() => scene.server.command(...off))
        assert.lengthOf((yield* Fiber.join(next)).granted, 1)
        yield* Effect.promise(() =>
          Redis.until(async () => {
            const pools = await Effect.runPromise(FloodgateRedis.status({ url, prefix: "full" }))
            const seen = pools.find((each) => each.pool === `refuses-${n}`)!
            return seen.inFlight === 1 && seen.snapshot.ledger.buckets.tokens!.level >= 899
          })
        )
      }
    }).pipe(
      Effect.scoped,
      Effect.provide(FloodgateRedis.layerStoreUrl({ url, prefix: "full" })),
      Effect.provide(Logger.layer([count])),
      Effect.runPromise
    )
  })

  it("spends at most one burst more when its state is wiped, and says so", async () => {
    const workers = await Fleet.start([0, 1, 2].map(() => job()))
    await Fleet.sleep(600)
    await scene.server.command("FLUSHALL")
    await Fleet.sleep(500)
    await scene.server.restart(300)
    await finish(workers, 12)
    // A process that knew the state brings back what it knew: in fact not even the one burst is lost.
    assert.isAtMost(Fleet.burstOf(scene.provider.log, rate), 2 * burst)
    const [pool] = await Effect.runPromise(FloodgateRedis.status({ url: scene.server.url, prefix: "chaos" }))
    assert.strictEqual(pool!.origin, "wiped")
  })
})
