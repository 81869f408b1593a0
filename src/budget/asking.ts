/** Asks for admission, waits for it, and runs with it. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Tracer from "effect/Tracer"
import * as SyncForm from "../domain/syncForm.ts"
import type * as Limits from "../Limits.ts"
import { Entry } from "./entry.ts"
import { BudgetError } from "./errors.ts"
import { tooLong } from "./foresee.ts"
import type { GovernedOptions, Reservation } from "./models.ts"
import { handOut } from "./reservation.ts"

/**
 * Asks for admission without Effect, with options that were checked. Returns the call, admitted or waiting, or an effect that fails with the refusal. The caller must
 * end the call with {@link Entry.leave}.
 */
export interface Ask {
  (
    context: Context.Context<never>,
    estimate: Limits.Estimate,
    options: GovernedOptions | undefined
  ): Entry | Effect.Effect<never, BudgetError>
  /** Whether callers in this context may ask so. @default all may */
  readonly isFor?: (context: Context.Context<never>) => boolean
}

/** Whether a caller may ask without Effect. */
export const mayAsk = ({ isFor }: Ask, context: Context.Context<never>): boolean =>
  !Context.get(context, SyncForm.OnlyEffect) && (isFor === undefined || isFor(context))

/** Sleeps until the call is admitted or refused. If it is interrupted, the call must leave. */
export const awaited = (entry: Entry, context: Context.Context<never>): Effect.Effect<Entry, BudgetError> => {
  const { agent, pool, queueing } = entry
  const { maxWait } = queueing
  if (entry.phase !== "waiting") return exitOf(entry)
  const asleep = Effect.callback<Entry, BudgetError>((resume) => entry.listen(() => resume(exitOf(entry))))
  // It may have been admitted in the millisecond of the timeout.
  const late = Effect.suspend(() =>
    entry.phase === "waiting"
      ? Effect.fail(new BudgetError({ reason: tooLong(pool.name, entry.binding, maxWait, maxWait) }))
      : exitOf(entry)
  )
  const bounded =
    maxWait === Infinity ? asleep : Effect.timeoutOrElse(asleep, { duration: maxWait, orElse: () => late })
  return traced(bounded, context, { "floodgate.pool": pool.name, "floodgate.agent": agent })
}

/** The end of a wait. Without a refusal, its budget has closed. */
export const exitOf = (entry: Entry): Exit.Exit<Entry, BudgetError> => {
  const { isOpen, refusal } = entry
  if (isOpen) return Exit.succeed(entry)
  return refusal === undefined ? Exit.interrupt() : Exit.fail(new BudgetError({ reason: refusal }))
}

/** Waits in a span, for a caller that is traced. */
export const traced = <A, E>(
  waiting: Effect.Effect<A, E>,
  context: Context.Context<never>,
  attributes: Record<string, string>
): Effect.Effect<A, E> => {
  if (Context.getOrUndefined(context, Tracer.ParentSpan) === undefined) return waiting
  return Effect.useSpan("TokenBudget.reserve", { attributes }, (span) =>
    Effect.tap(waiting, (held) => {
      if (!(held instanceof Entry)) return Effect.void
      const { binding, pool, waitedMillis } = held
      span.attribute("floodgate.pool", pool.name)
      span.attribute("floodgate.wait.seconds", waitedMillis / 1_000)
      if (binding !== undefined) span.attribute("floodgate.wait.dimension", binding)
      return Effect.void
    })
  )
}

/** Runs an effect with a reservation, which ends with it. */
export const using = <A, E, R>(
  ask: Ask,
  estimate: Limits.Estimate,
  use: (reservation: Reservation) => Effect.Effect<A, E, R>,
  options: GovernedOptions | undefined
): Effect.Effect<A, E | BudgetError, R> => {
  let entry: Entry | undefined
  const used = Effect.withFiber<A, E | BudgetError, R>(({ context }) => {
    const asked = ask(context, estimate, options)
    if (!(asked instanceof Entry)) return asked
    entry = asked
    return asked.isOpen ? use(handOut(asked)) : Effect.flatMap(awaited(asked, context), (entry) => use(handOut(entry)))
  })
  // The finalizer comes first, so that nothing can interrupt the fiber between the admission and the finalizer.
  return Effect.onExitPrimitive(used, (exit) => {
    entry?.leave(exit)
    return undefined
  })
}
