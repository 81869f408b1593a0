/**
 * The span of a reservation: made when the wait is over, with its beginning in the past, so that a waiter costs no more
 * for it. Only for a caller that is traced.
 */
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import type { BudgetError } from "./errors.ts"
import type { HeldReservation } from "./reservation.ts"

export const traced = (
  reserve: Effect.Effect<HeldReservation, BudgetError>,
  pool: string,
  agent: string,
  clock: Clock.Clock,
  context: Context.Context<never>
): Effect.Effect<HeldReservation, BudgetError> => {
  const startTime = clock.currentTimeNanosUnsafe()
  return Effect.onExit(reserve, (exit) =>
    Effect.map(Effect.tracer, (tracer) => {
      const parent = Context.getOrUndefined(context, Tracer.ParentSpan)
      if (parent === undefined) return
      const span = tracer.span({
        name: "TokenBudget.reserve",
        parent: Option.some(parent),
        annotations: Context.empty(),
        links: [],
        startTime,
        kind: "internal",
        root: false,
        sampled: parent.sampled
      })
      span.attribute("floodgate.pool", pool)
      span.attribute("floodgate.agent", agent)
      if (Exit.isSuccess(exit)) {
        span.attribute("floodgate.wait.seconds", exit.value.waitedMillis / 1_000)
        if (exit.value.binding !== undefined) span.attribute("floodgate.wait.dimension", exit.value.binding)
      }
      span.end(clock.currentTimeNanosUnsafe(), exit)
    })
  )
}
