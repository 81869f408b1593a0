/** The status of a pool. */
import { dimensionsOf, knownOf } from "../pacing/status.ts"
import { limited } from "./decision.ts"
import type { PoolStatus } from "./models.ts"
import type { Pool } from "./pool.ts"

/** How many waiting calls a status lists. */
const maxListed = 32

export const statusOf = (pool: Pool): PoolStatus => {
  const { gate } = pool.law
  const left = gate.until - pool.now()
  const waiting = pool.waiting(maxListed)
  return {
    dimensions: dimensionsOf(pool.law, pool.now()),
    known: knownOf(pool.law, pool.now()),
    inFlight: pool.inFlight,
    allowed: pool.allowed,
    measured: pool.measured,
    queued: pool.queued,
    waiting: waiting.map(({ dimension, expectedMillis, waiter }) => ({
      agent: waiter.agent,
      job: waiter.job,
      caller: waiter.caller,
      priority: waiter.priority,
      charge: limited(pool.law, waiter.charge),
      waitedMillis: pool.waitedBy(waiter),
      expectedMillis,
      dimension
    })),
    pause: left > 0 ? { reason: gate.reason, leftMillis: left } : undefined,
    binding: waiting[0]?.dimension
  }
}
