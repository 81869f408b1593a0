/**
 * Refusals as typed failures.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Refused } from "../budgetStore/drain.ts"
import { BudgetError, type BudgetErrorReason, QuotaExhausted, WaitTooLong } from "./errors.ts"
import type * as Pool from "./poolModel.ts"

export const refuse = (reason: BudgetErrorReason): Effect.Effect<never, BudgetError> =>
  Effect.fail(new BudgetError({ reason }))

/** What a store says of a charge. */
export const byStore = (pool: string, refused: Refused): Effect.Effect<never, BudgetError> => {
  if (refused._tag === "StoreUnavailable") return refuse(refused)
  const { asked, dimension, left } = refused
  return refuse(new QuotaExhausted({ pool, dimension, asked, left }))
}

export const tooLong = (
  pool: string,
  foreseen: Pool.Prediction | undefined,
  maxWait: Duration.Duration
): Effect.Effect<never, BudgetError> => {
  const wait = Duration.max(Duration.millis(Math.ceil(foreseen?.millis ?? 0)), maxWait)
  return refuse(new WaitTooLong({ pool, dimension: foreseen?.dimension, wait, maxWait }))
}
