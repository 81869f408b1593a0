/**
 * A pool as it stands, for people.
 */
import * as Duration from "effect/Duration"
import type { Snapshot } from "../BudgetStore.ts"
import * as Limits from "../Limits.ts"
import type { PoolStatus } from "./models.ts"
import type * as Pool from "./poolModel.ts"

/** Waiters that a status lists. */
const listed = 32

export const of = (pool: Pool.Pool, snapshot: Snapshot | undefined): PoolStatus => {
  const waiting = snapshot === undefined ? [] : pool.waiting(listed, snapshot)
  const cooldown = snapshot?.ledger.cooldown
  const left = (cooldown?.until ?? 0) - (snapshot?.now ?? 0)
  return {
    dimensions: Limits.mapDimensions(snapshot?.ledger.buckets ?? {}, ({ level, rate, rule }) => ({
      level,
      capacity: rule.capacity,
      perSecond: rate * 1000
    })),
    inFlight: pool.inFlight(),
    allowed: pool.allowed(),
    queued: pool.queued(),
    waiting: waiting.map(({ dimension, millis, waitedMillis, waiter }) => ({
      agent: waiter.agent,
      priority: waiter.priority,
      charge: waiter.charge,
      waited: Duration.millis(waitedMillis),
      expected: Duration.millis(millis),
      dimension
    })),
    cooldown: cooldown !== undefined && left > 0 ? { reason: cooldown.reason, left: Duration.millis(left) } : undefined,
    pace: snapshot?.ledger.pace.scale ?? 1,
    binding: waiting[0]?.dimension,
    storeAvailable: snapshot !== undefined
  }
}
