/**
 * Refusals as typed failures.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Snapshot } from "../BudgetStore.ts"
import type { Refused } from "../budgetStore/drain.ts"
import * as Limits from "../Limits.ts"
import { BudgetError, type BudgetErrorReason, QuotaExhausted, WaitTooLong } from "./errors.ts"
import type * as Pool from "./poolModel.ts"

export const refuse = (reason: BudgetErrorReason): Effect.Effect<never, BudgetError> =>
  Effect.fail(new BudgetError({ reason }))

/** What the store says of a waiter. */
export const byStore = (pool: string, refused: Refused): Effect.Effect<never, BudgetError> => {
  if (refused._tag === "StoreUnavailable") return refuse(refused)
  const { asked, dimension, left } = refused
  return refuse(new QuotaExhausted({ pool, dimension, asked, left }))
}

export const overQuota = (pool: string, charge: Limits.Charge, { ledger }: Snapshot): QuotaExhausted | undefined => {
  for (const dimension of Limits.dimensions) {
    const bucket = ledger.buckets[dimension]
    const asked = charge[dimension] ?? 0
    if (bucket?.rule.quota && asked > bucket.level) {
      return new QuotaExhausted({ pool, dimension, asked, left: Math.max(0, bucket.level) })
    }
  }
  return undefined
}

export const tooLong = (pool: string, foreseen: Pool.Prediction | undefined, maxWait: Duration.Duration): WaitTooLong =>
  new WaitTooLong({
    pool,
    dimension: foreseen?.dimension,
    wait: Duration.max(Duration.millis(Math.ceil(foreseen?.millis ?? 0)), maxWait),
    maxWait
  })
