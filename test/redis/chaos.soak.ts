/** More trouble, which takes longer: it runs with `npm run redis:test`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import { once } from "node:events"
import { type AddressInfo, connect, createServer } from "node:net"
import * as Budget from "floodgate/Budget"
import * as FloodgateRedis from "floodgate/redis"
import * as Fleet from "./fleet.ts"
import * as Redis from "./server.ts"
import { burst, rate, trouble } from "./trouble.ts"

describe.skipIf(Redis.skipped !== undefined)("redis store, in trouble", { timeout: 100_000 }, () => {
  const scene = trouble()
  const { finish, job } = scene

  it("waits for a server that stands still for five seconds, and admits no more for it", async () => {
    const workers = await Fleet.start([0, 1, 2].map(() => job({ calls: Array.from({ length: 8 }, () => 3_000) })))
    await Fleet.sleep(400)
    scene.server.signal("SIGSTOP")
    await Fleet.sleep(1_000)
    const before = scene.provider.log.length
    await Fleet.sleep(4_000)
    // What was admitted had arrived by then.
    assert.strictEqual(scene.provider.log.length, before)
    scene.server.signal("SIGCONT")
    await finish(workers, 32)
    assert.strictEqual(scene.provider.log.length, 96)
    assert.isAtMost(Fleet.burstOf(scene.provider.log, rate), burst)
  })

  it("takes a process that stood still beyond its lease back as it was", async () => {
    const calls = Array.from({ length: 6 }, () => 2_000)
    const workers = await Fleet.start([0, 1, 2].map(() => job({ calls, concurrency: 4, store: { lease: 800 } })))
    await Fleet.sleep(500)
    workers[0]!.child.kill("SIGSTOP")
    await Fleet.sleep(5_000)
    workers[0]!.child.kill("SIGCONT")
    await finish(workers, 24)
    assert.isAtMost(Fleet.burstOf(scene.provider.log, rate), burst)
    const [pool] = await Effect.runPromise(FloodgateRedis.status({ url: scene.server.url, prefix: "chaos" }))
    assert.strictEqual(pool!.inFlight, 0)
  })

  it("is over-spent by one burst at most each time that its state is wiped", async () => {
    const workers = await Fleet.start([0, 1, 2].map(() => job({ calls: Array.from({ length: 8 }, () => 3_000) })))
    await Fleet.sleep(600)
    await scene.server.command("FLUSHALL")
    await Fleet.sleep(1_000)
    await scene.server.restart(1_000)
    await finish(workers, 32)
    const seen = Fleet.burstOf(scene.provider.log, rate)
    console.log(`wiped twice: ${Math.round(seen)} of a burst of ${burst}`)
    assert.isAtMost(seen, 2 * burst)
  })

  it("goes on with local shares while Redis is away, and without a burst when it is back", async () => {
    const workers = await Fleet.start([0, 1, 2].map(() => job({ store: { whenAway: "degrade", timeout: 300 } })))
    await Fleet.sleep(500)
    scene.server.signal("SIGSTOP")
    const before = scene.provider.log.length
    await Fleet.sleep(1_500)
    assert.isAbove(scene.provider.log.length, before)
    scene.server.signal("SIGCONT")
    await finish(workers, 12)
    assert.isAtMost(Fleet.burstOf(scene.provider.log, rate), burst)
  })

  it("fails at once where that was chosen, and hangs nowhere", async () => {
    const calls = Array.from({ length: 30 }, () => 4_000)
    const workers = await Fleet.start([0, 1].map(() => job({ calls, store: { whenAway: "fail", timeout: 300 } })))
    await Fleet.sleep(300)
    scene.server.signal("SIGSTOP")
    for (const { outcome } of workers) {
      const { done, errors, failed } = (await outcome)!
      assert.deepStrictEqual(errors, ["StoreUnavailable"])
      assert.strictEqual(done + failed, 120)
    }
    scene.server.signal("SIGCONT")
  })

  it("replaces a connection that has died without a word", async () => {
    const { port } = new URL(scene.server.url)
    const before: Array<{ isDead: boolean }> = []
    const between = createServer((near) => {
      const far = connect(Number(port), "127.0.0.1")
      const state = { isDead: false }
      before.push(state)
      near.on("data", (data) => void (state.isDead || far.write(data)))
      far.on("data", (data) => void (state.isDead || near.write(data)))
      near.on("error", () => {}).on("close", () => far.destroy())
      far.on("error", () => {}).on("close", () => near.destroy())
    }).listen(0, "127.0.0.1")
    await once(between, "listening")
    const url = `redis://127.0.0.1:${(between.address() as AddressInfo).port}`
    const limits = { tokens: { perSecond: 1, burst: 1_000 } }
    const woken = Effect.gen(function* () {
      const [one, other] = yield* Effect.all([
        Budget.make({ limits, headroom: 0 }),
        Budget.make({ limits, headroom: 0 })
      ])
      const reservation = yield* one.reserve({ tokens: 1_000 })
      yield* Effect.sync(() => before.forEach((state) => (state.isDead = true)))
      const waiter = yield* Effect.forkChild(other.reserve({ tokens: 900 }), { startImmediately: true })
      yield* Effect.promise(() => Redis.until(() => Promise.resolve(before.length >= 4)))
      yield* reservation.refund
      return yield* Fiber.join(waiter)
    })
    const admitted = await Effect.runPromise(
      woken.pipe(
        Effect.scoped,
        Effect.provide(FloodgateRedis.layerStoreUrl({ url, timeout: "500 millis" })),
        Effect.timeout("29 seconds"),
        Effect.provideService(References.MinimumLogLevel, "None")
      )
    )
    assert.strictEqual(admitted.charge.tokens, 900)
    between.close()
  })
})
