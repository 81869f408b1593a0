/** What the tests with faults share: a server, a provider and small jobs. */
import { afterEach, assert, beforeEach } from "@effect/vitest"
import * as Clients from "./clients.ts"
import * as Fleet from "./fleet.ts"
import * as Redis from "./server.ts"
import type { Job } from "./worker.ts"

export const rate = 40_000
export const burst = 40_000

/** Call it in a `describe`: each test gets a server and a provider of its own. */
export const trouble = () => {
  let jobs = 0
  const scene = {
    server: undefined as unknown as Redis.Server,
    provider: undefined as unknown as Fleet.Provider,
    /** Four agents of three calls by one of the clients in turn, unless it says otherwise. */
    job: (options: Partial<Job> = {}): Job => {
      const next = Fleet.random(++jobs)
      return {
        url: scene.server.url,
        prefix: "chaos",
        name: `p${jobs}`,
        provider: scene.provider.url,
        limits: { tokens: { perSecond: rate, burst } },
        client: Clients.names[jobs % Clients.names.length]!,
        agents: 4,
        calls: Array.from({ length: 3 }, () => Math.ceil(1_000 + next() * 4_000)),
        ...options
      }
    },
    /** Waits for the ends of workers, which must have done everything. */
    finish: async (workers: ReadonlyArray<Fleet.Worker>, calls: number): Promise<void> => {
      for (const { outcome } of workers) assert.deepInclude(await outcome, { done: calls, failed: 0, errors: [] })
    },
    /** The largest excess that the provider saw in any interval over the refill and this many bursts. */
    excess: (bursts = 1): number => Fleet.burstOf(scene.provider.log, rate) - bursts * burst - Fleet.jitter(rate)
  }
  beforeEach(async () => {
    scene.server = await Redis.start()
    scene.provider = await Fleet.provider(50)
  })
  afterEach(async () => {
    await scene.provider.stop()
    await scene.server.stop()
  })
  return scene
}
