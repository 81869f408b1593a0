/** Faults that take longer to play: run them with `npm run redis:test`. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as SharedState from "@floodgate/redis/internal"
import { once } from "node:events"
import { type AddressInfo, connect, createServer } from "node:net"
import * as Fleet from "./fleet.ts"
import * as Redis from "./server.ts"
import { burst, rate, trouble } from "./trouble.ts"

/** A connection to a server that can be cut silently, in each direction. */
const cuttable = async (url: string) => {
  const way = { isCutTo: false, isCutFrom: false }
  const { port } = new URL(url)
  const between = createServer((near) => {
    const far = connect(Number(port), "127.0.0.1")
    near.on("data", (data) => void (way.isCutTo || far.write(data)))
    far.on("data", (data) => void (way.isCutFrom || near.write(data)))
    near.on("error", () => {}).on("close", () => far.destroy())
    far.on("error", () => {}).on("close", () => near.destroy())
  }).listen(0, "127.0.0.1")
  await once(between, "listening")
  return Object.assign(way, {
    url: `redis://127.0.0.1:${(between.address() as AddressInfo).port}`,
    close: () => void between.close()
  })
}

describe.skipIf(Redis.skipped !== undefined)("a budget in Redis, in trouble", { timeout: 120_000 }, () => {
  const scene = trouble()
  const { excess, finish, job } = scene
  const many = (length: number, tokens: number) => Array.from({ length }, () => tokens)
  /** What the provider heard of in a span of the run. */
  const heard = (from: number, to: number, name?: string) =>
    scene.provider.log.filter(({ at, process }) => at >= from && at < to && (name === undefined || process === name))
      .length
  const now = () => performance.timeOrigin + performance.now()

  it("waits for a server that stands still for five seconds, and admits no more for it", async () => {
    const workers = await Fleet.start([0, 1, 2].map(() => job({ calls: many(8, 3_000) })))
    await Fleet.sleep(400)
    scene.server.signal("SIGSTOP")
    await Fleet.sleep(1_000)
    const before = scene.provider.log.length
    await Fleet.sleep(4_000)
    assert.strictEqual(scene.provider.log.length, before)
    scene.server.signal("SIGCONT")
    await finish(workers, 32)
    assert.strictEqual(scene.provider.log.length, 96)
    assert.isAtMost(excess(), 0)
  })

  it("restores a process that was suspended beyond its lease", async () => {
    const calls = many(6, 2_000)
    const workers = await Fleet.start([0, 1, 2].map(() => job({ calls, concurrency: 4, store: { lease: 800 } })))
    await Fleet.sleep(500)
    workers[0]!.child.kill("SIGSTOP")
    await Fleet.sleep(5_000)
    workers[0]!.child.kill("SIGCONT")
    await finish(workers, 24)
    assert.isAtMost(excess(), 0)
    const [pool] = await Effect.runPromise(SharedState.status({ url: scene.server.url, prefix: "chaos" }))
    assert.strictEqual(pool!.inFlight, 0)
  })

  it("fails at once if configured so, and never hangs", async () => {
    const store = { whenAway: "fail", timeout: 300 } as const
    const workers = await Fleet.start([0, 1].map(() => job({ calls: many(30, 4_000), store })))
    await Fleet.sleep(300)
    scene.server.signal("SIGSTOP")
    for (const { outcome } of workers) {
      const { done, errors, failed } = (await outcome)!
      assert.deepStrictEqual(errors, ["StoreUnavailable"])
      assert.strictEqual(done + failed, 120)
    }
    scene.server.signal("SIGCONT")
  })

  for (const concurrency of [4, undefined]) {
    it(`continues with each process's part while Redis is away: ${concurrency ?? "any number of"} calls in flight`, async () => {
      const store = { whenAway: "degrade" } as const
      const options = { store, calls: many(40, 1_000), ...(concurrency !== undefined && { concurrency }) }
      const jobs = [0, 1, 2].map(() => job(options))
      const workers = await Fleet.start(jobs)
      await Fleet.sleep(1_000)
      scene.server.signal("SIGSTOP")
      const away = now()
      await Fleet.sleep(6_000)
      // Each of them continues, even if all slots were taken when Redis went away.
      const back = now()
      scene.server.signal("SIGCONT")
      await finish(workers, 160)
      for (const { name } of jobs) assert.isAbove(heard(away + 3_000, back, name), 5, name)
      assert.isAtMost(excess(), 0)
      assert.isAtMost(scene.provider.peak(), concurrency ?? Infinity)
    })
  }

  for (const way of ["isCutTo", "isCutFrom"] as const) {
    it(`continues with the part of a process that is cut off, which the others leave unused: ${way}`, async () => {
      const proxy = await cuttable(scene.server.url)
      const options = { store: { whenAway: "degrade" }, calls: many(40, 3_000) } as const
      const cut = job({ ...options, url: proxy.url })
      const workers = await Fleet.start([cut, job(options), job(options)])
      await Fleet.sleep(1_000)
      proxy[way] = true
      const away = now()
      await Fleet.sleep(14_000)
      const back = now()
      proxy[way] = false
      await finish(workers, 160)
      proxy.close()
      console.log(
        `cut off (${way}): ${Math.round(Fleet.burstOf(scene.provider.log, rate))} of ${burst}, ` +
          `${heard(away + 3_000, back, cut.name)} calls by its part, ${heard(away + 3_000, back)} in all`
      )
      assert.isAbove(heard(away + 3_000, back, cut.name), 20)
      // Two thirds of the rate are left to the others.
      assert.isAbove(heard(away + 3_000, back), (0.8 * (11 * rate)) / 3_000)
      assert.isAtMost(excess(), 0)
    })
  }

  it("is overspent by at most one burst when a stale state returns while processes are idle", async () => {
    const idle = { agents: 1, calls: [1, 1] }
    const workers = await Fleet.start([job(idle), job(idle), job({ calls: many(10, 4_000), agents: 6 })])
    await Fleet.sleep(200)
    await scene.server.command("SAVE")
    await Fleet.sleep(3_000)
    await scene.server.restart(1_000)
    const late = await Fleet.start([job({ calls: many(10, 4_000) })])
    await finish(workers.slice(0, 2), 2)
    await finish(workers.slice(2), 60)
    await finish(late, 40)
    const seen = Fleet.burstOf(scene.provider.log, rate)
    console.log(`an older state: ${Math.round(seen)} of a burst of ${burst}`)
    assert.isAtMost(excess(2), 0)
  })
})
