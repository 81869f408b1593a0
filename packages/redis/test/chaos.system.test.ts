/**
 * Real processes and a real server, under faults. The provider's log must never show more than the limit, or one burst more if
 * the state was lost, and nothing may hang.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as SharedState from "@floodgate/redis/internal"
import { isFull, sized } from "../../../test/support/size.ts"
import * as Fleet from "./fleet.ts"
import * as Redis from "./server.ts"
import { burst, rate, trouble } from "./trouble.ts"

describe.skipIf(Redis.skipped !== undefined)("a budget in Redis, in trouble", { timeout: 60_000 }, () => {
  /** One entry for each process. */
  const fleet = sized([0, 1], [0, 1, 2])
  const scene = trouble()
  const { excess, finish, job } = scene
  const status = async () => {
    const [pool] = await Effect.runPromise(SharedState.status({ url: scene.server.url, prefix: "chaos" }))
    return pool!
  }

  it("is not overspent when a process is killed, and frees its places after the lease", async () => {
    const store = { lease: 800 }
    const calls = [3_000, 2_000, 4_000, 1_000, 3_000]
    // Two remain, so that their calls take longer than the lease, and one of them finds the dead.
    const jobs = [0, 1, 2].map(() => job({ store, calls, concurrency: 4 }))
    const [dead, ...alive] = await Fleet.start(jobs)
    await Fleet.sleep(500)
    dead!.child.kill("SIGKILL")
    await finish(alive, 20)
    assert.isAtMost(excess(), 0)
    assert.isAtMost(scene.provider.peak(), 4)
    const { inFlight, processes } = await status()
    assert.strictEqual(inFlight, 0)
    assert.deepStrictEqual(
      processes.filter(({ name }) => name === jobs[0]!.name),
      []
    )
  })

  it("survives a server that stands still, cut connections, lost scripts, and clocks that are minutes apart", async () => {
    const workers = await Fleet.start(
      sized([-300_000, 420_000], [-300_000, 0, 420_000]).map((skewMillis) => job({ skewMillis }))
    )
    await Fleet.sleep(300)
    await scene.server.command("SCRIPT", "FLUSH")
    await Fleet.sleep(200)
    await scene.server.command("CLIENT", "KILL", "TYPE", "normal")
    await Fleet.sleep(200)
    await scene.server.command("CLIENT", "PAUSE", "700", "ALL")
    await Fleet.sleep(200)
    scene.server.signal("SIGSTOP")
    await Fleet.sleep(1_500)
    scene.server.signal("SIGCONT")
    await finish(workers, 12)
    assert.strictEqual(scene.provider.log.length, 12 * workers.length)
    assert.isAtMost(excess(), 0)
  })

  it.runIf(isFull)("is overspent by at most one burst when its state is wiped and the server restarts", async () => {
    const workers = await Fleet.start([0, 1, 2].map(() => job()))
    await Fleet.sleep(600)
    await scene.server.command("FLUSHALL")
    await Fleet.sleep(500)
    await scene.server.restart(300)
    await finish(workers, 12)
    assert.isAtMost(excess(2), 0)
  })

  it.runIf(isFull)("is overspent by at most one burst when an older state is restored, and pays it back", async () => {
    const calls = Array.from({ length: 6 }, () => 3_000)
    const workers = await Fleet.start(fleet.map(() => job({ calls })))
    // The bucket is nearly full in the saved state, and empty when that state returns.
    await scene.server.command("SAVE")
    await Fleet.sleep(1_200)
    await scene.server.restart(300)
    await finish(workers, 24)
    const { log } = scene.provider
    assert.isAtMost(excess(2), 0)
    // In the end no more was sent than the limit grants, because later calls have waited for the excess.
    const first = Math.min(...log.map(({ from }) => from))
    const last = Math.max(...log.map(({ at }) => at))
    const sum = log.reduce((all, { tokens }) => all + tokens, 0)
    assert.isAtMost(sum, burst + (rate * (last - first)) / 1_000 + Fleet.jitter(rate))
  })
})
