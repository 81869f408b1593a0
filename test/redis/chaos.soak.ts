/** More trouble, which takes longer: it runs with `npm run redis:test`. */
import { assert, describe, it } from "@effect/vitest"
import * as Fleet from "./fleet.ts"
import * as Redis from "./server.ts"
import { burst, jitter, rate, trouble } from "./trouble.ts"

describe.skipIf(Redis.skipped !== undefined)("redis store, in trouble", { timeout: 100_000 }, () => {
  const scene = trouble()
  const { finish, job } = scene

  it("goes on with local shares while Redis is away, and without a burst when it is back", async () => {
    const workers = await Fleet.start([0, 1, 2].map(() => job({ store: { whenAway: "degrade", timeout: 300 } })))
    await Fleet.sleep(500)
    scene.server.signal("SIGSTOP")
    const before = scene.provider.log.length
    await Fleet.sleep(1_500)
    assert.isAbove(scene.provider.log.length, before)
    scene.server.signal("SIGCONT")
    await finish(workers, 12)
    assert.isAtMost(Fleet.burstOf(scene.provider.log, rate), burst + jitter)
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
})
