/**
 * A fleet of real processes on a real server, while both are treated badly. The provider's log is the judge: whatever
 * happens, it never sees more than the limit, or at most one burst more where the state was wiped; and nothing hangs.
 */
import { afterEach, assert, beforeEach, describe, it } from "@effect/vitest"
import * as FloodgateRedis from "floodgate/redis"
import * as Effect from "effect/Effect"
import * as Fleet from "./fleet.ts"
import * as Redis from "./server.ts"
import type { Job } from "./worker.ts"

const rate = 40_000
const burst = 80_000
/** Calls that were admitted in order arrive in clusters when the machine is busy: so much is not the budget's doing. */
const jitter = rate * 0.15
const limits = { tokens: { perSecond: rate, burst } }

describe.skipIf(Redis.skipped !== undefined)("redis store, in trouble", { timeout: 60_000 }, () => {
  let server: Redis.Server
  let provider: Fleet.Provider
  let jobs = 0

  beforeEach(async () => {
    server = await Redis.start()
    provider = await Fleet.provider(50)
  })
  afterEach(async () => {
    await provider.stop()
    await server.stop()
  })

  const job = (options: Partial<Job> = {}): Job => {
    const next = Fleet.random(++jobs)
    return {
      url: server.url,
      prefix: "chaos",
      name: `p${jobs}`,
      provider: provider.url,
      limits,
      agents: 6,
      calls: Array.from({ length: 3 }, () => Math.ceil(1_000 + next() * 4_000)),
      ...options
    }
  }

  const finish = async (
    workers: ReadonlyArray<Fleet.Worker>,
    lost: ReadonlyArray<Fleet.Worker> = []
  ): Promise<void> => {
    for (const worker of workers) {
      const outcome = await worker.outcome
      if (lost.includes(worker)) continue
      assert.deepInclude(outcome, { done: 18, failed: 0, errors: [] })
    }
  }

  it("is not over-spent by processes that are killed in flight, whose permits return after their lease", async () => {
    const store = { lease: 1_500 }
    const workers = await Fleet.start([0, 1, 2, 3].map(() => job({ store, concurrency: 6 })))
    await Fleet.sleep(700)
    const lost = workers.slice(0, 2)
    for (const { child } of lost) child.kill("SIGKILL")
    await finish(workers, lost)
    assert.isAtMost(Fleet.burstOf(provider.log, rate), burst + jitter)
    assert.isAtMost(provider.peak(), 6)
    const [pool] = await Effect.runPromise(FloodgateRedis.status({ url: server.url, prefix: "chaos" }))
    assert.strictEqual(pool!.inFlight, 0)
  })

  it("survives a server that stands still, scripts and connections that are cut, and clocks that are minutes apart", async () => {
    const workers = await Fleet.start([-300_000, 0, 420_000].map((skewMillis) => job({ skewMillis })))
    await Fleet.sleep(300)
    await server.command("SCRIPT", "FLUSH")
    await Fleet.sleep(200)
    await server.command("CLIENT", "KILL", "TYPE", "normal")
    await server.command("CLIENT", "KILL", "TYPE", "pubsub")
    await Fleet.sleep(300)
    server.signal("SIGSTOP")
    await Fleet.sleep(1_500)
    server.signal("SIGCONT")
    await finish(workers)
    assert.strictEqual(provider.log.length, 54)
    assert.isAtMost(Fleet.burstOf(provider.log, rate), burst + jitter)
  })

  it("spends at most one burst more when its state is wiped, and says so", async () => {
    const workers = await Fleet.start([0, 1, 2].map(() => job()))
    await Fleet.sleep(600)
    await server.command("FLUSHALL")
    await Fleet.sleep(500)
    await server.restart(300)
    await finish(workers)
    // A process that knew the state brings back what it knew: in fact not even the one burst is lost.
    assert.isAtMost(Fleet.burstOf(provider.log, rate), 2 * burst + jitter)
    const [pool] = await Effect.runPromise(FloodgateRedis.status({ url: server.url, prefix: "chaos" }))
    assert.strictEqual(pool!.origin, "wiped")
  })

  it("goes on with local shares while Redis is away, and without a burst when it is back", async () => {
    const workers = await Fleet.start([0, 1, 2].map(() => job({ store: { whenAway: "degrade", timeout: 300 } })))
    await Fleet.sleep(500)
    server.signal("SIGSTOP")
    const before = provider.log.length
    await Fleet.sleep(1_500)
    assert.isAbove(provider.log.length, before)
    server.signal("SIGCONT")
    await finish(workers)
    assert.isAtMost(Fleet.burstOf(provider.log, rate), burst + jitter)
  })

  it("fails at once where that was chosen, and hangs nowhere", async () => {
    const calls = Array.from({ length: 30 }, () => 4_000)
    const workers = await Fleet.start([0, 1].map(() => job({ calls, store: { whenAway: "fail", timeout: 300 } })))
    await Fleet.sleep(300)
    server.signal("SIGSTOP")
    for (const { outcome } of workers) {
      const { done, errors, failed } = (await outcome)!
      assert.deepStrictEqual(errors, ["StoreUnavailable"])
      assert.strictEqual(done + failed, 180)
    }
    server.signal("SIGCONT")
  })
})
