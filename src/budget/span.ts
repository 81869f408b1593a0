/**
 * The span of a reservation, for a caller that is traced.
 */
import * as Effect from "effect/Effect"
import type { BudgetError } from "./errors.ts"
import type { HeldReservation } from "./reservation.ts"

export const traced = (
  reserve: Effect.Effect<HeldReservation, BudgetError>,
  pool: string,
  agent: string
): Effect.Effect<HeldReservation, BudgetError> =>
  Effect.useSpan("TokenBudget.reserve", { attributes: { "floodgate.pool": pool, "floodgate.agent": agent } }, (span) =>
    Effect.tap(reserve, ({ binding, waitedMillis }) => {
      span.attribute("floodgate.wait.seconds", waitedMillis / 1_000)
      if (binding !== undefined) span.attribute("floodgate.wait.dimension", binding)
      return Effect.void
    })
  )
