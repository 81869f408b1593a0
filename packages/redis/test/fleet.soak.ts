/**
 * Eight real processes of twelve agents on one limit, compared with one process. It takes more than a minute, so it runs with
 * `npm run redis:test` and not with `npm test`.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Fleet from "./fleet.ts"
import * as Redis from "./server.ts"
import type { Outcome } from "./worker.ts"

const rate = 100_000
const burst = 200_000
const perAgent = 6
/**
 * A part of the burst: the excess of a machine that is busy with ten processes, where calls are sent later than they were
 * admitted.
 */
const blur = 0.05 * burst
/** When all processes wait for the limit, most requests find that another process was faster. */
const maxRequests = 5

/** The same 96 agents however they are spread. */
const callsOf = (agent: number): ReadonlyArray<number> => {
  const next = Fleet.random(agent)
  return Array.from({ length: perAgent }, () => Math.ceil(1_000 + next() * 8_000))
}

const run = async (processes: number, estimate: number) => {
  const server = await Redis.start()
  const provider = await Fleet.provider(100)
  const requests = async () => {
    const stats = String(await server.command("INFO", "commandstats"))
    return [...stats.matchAll(/cmdstat_(?:eval|evalsha):calls=(\d+)/g)].reduce(
      (sum, [, count]) => sum + Number(count),
      0
    )
  }
  const share = 96 / processes
  let before = 0
  const workers = await Fleet.start(
    Array.from({ length: processes }, (_, i) => ({
      url: server.url,
      prefix: "fleet",
      name: `p${i}`,
      provider: provider.url,
      limits: { tokens: { perSecond: rate, burst } },
      estimate,
      agents: share,
      calls: [],
      callsPerAgent: Array.from({ length: share }, (_, n) => callsOf(i * share + n))
    })),
    async () => (before = await requests())
  )
  const outcomes = (await Promise.all(workers.map(({ outcome }) => outcome))) as ReadonlyArray<Outcome>
  const after = await requests()
  await provider.stop()
  await server.stop()
  const { log } = provider
  const first = Math.min(...log.map(({ at }) => at))
  const span = Math.max(...log.map(({ at }) => at)) - first
  const calls = 96 * perAgent
  for (const outcome of outcomes) assert.deepInclude(outcome, { done: calls / processes, failed: 0, errors: [] })
  const grants = outcomes.flatMap(({ grants }) => grants.map(([at, tokens]) => ({ from: at, at, tokens })))
  return {
    span,
    granted: Math.round(Fleet.burstOf(grants, rate)),
    burstSeen: Math.round(Fleet.burstOf(log, rate)),
    blurMillis: Math.round(Fleet.blurOf(log)),
    // The middle of the run: all processes have work, and the burst is spent.
    jain: Fleet.jain(log, first + span * 0.1, first + span * 0.85),
    requestsPerCall: (after - before) / calls
  }
}

describe.skipIf(Redis.skipped !== undefined)("a fleet on one budget in Redis", () => {
  it("admits as one process would, fairly, and never over the limit", { timeout: 200_000 }, async () => {
    const alone = await run(1, 1)
    const fleet = await run(8, 1)
    const makespan = fleet.span / alone.span
    console.log(JSON.stringify({ makespan, fleet, alone }))
    // When the processes sent calls, and when the provider received them, which is later.
    assert.isAtMost(fleet.granted, burst + blur)
    assert.isAtMost(fleet.burstSeen, burst + blur)
    assert.isAtMost(makespan, 1.03)
    assert.isAtLeast(fleet.jain, 0.98)
    assert.isAtMost(fleet.requestsPerCall, maxRequests)
    assert.isAtMost(alone.requestsPerCall, 2)
  })

  it("does the same if each call refunds a quarter of its estimate", { timeout: 100_000 }, async () => {
    const fleet = await run(8, 4 / 3)
    console.log(JSON.stringify({ fleet }))
    assert.isAtMost(fleet.burstSeen, burst + blur)
    assert.isAtLeast(fleet.jain, 0.98)
    assert.isAtMost(fleet.requestsPerCall, maxRequests)
  })
})
