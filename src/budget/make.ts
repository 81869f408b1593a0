/**
 * The budget service: looks up the pool, checks what can be refused at once, and hands out reservations.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as PubSub from "effect/PubSub"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import type { TokenBudget } from "../Budget.ts"
import { BudgetStore } from "../BudgetStore.ts"
import * as Events from "../Events.ts"
import * as Believed from "../input/believed.ts"
import { waitOf } from "../input/arguments.ts"
import * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import { BudgetError, type BudgetErrorReason } from "./errors.ts"
import { latest } from "./latest.ts"
import { countsOf } from "./metrics.ts"
import type { BudgetStatus, Cooldown, Options, RateLimitSignal, ReserveOptions } from "./models.ts"
import { checkConcurrency, defaultPool, nameIn, parse, queueingOf } from "./options.ts"
import { heldOf, Pool } from "./pool.ts"
import { readingsOf } from "./readings.ts"
import { HeldReservation } from "./reservation.ts"
import * as Status from "./status.ts"
import { Waiter } from "./waiter.ts"

type Service = TokenBudget["Service"]
type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

export const make = (options: Options): Effect.Effect<Service, never, Scope.Scope> => {
  const { concurrency, isPool, known, limitsOf, maxQueued, poolNamed, poolOf } = parse(options)

  return Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const context = yield* Effect.context<never>()
    const runTimer = yield* FiberSet.makeRuntime<never>()
    const ticks = yield* PubSub.sliding<void>(1)
    const pools = new Map<string, Pool>()
    const changed = () => void PubSub.publishUnsafe(ticks, undefined)
    const after = (millis: number, then: Effect.Effect<void>) =>
      void runTimer(Effect.andThen(Effect.sleep(millis), then))

    const sharing = yield* BudgetStore
    const id = `${yield* Random.nextInt}.${yield* Random.nextInt}`
    const observer = Events.observerOf(context)
    const open = (name: string, kind = name): Pool => {
      const counts = countsOf(name, context)
      const limits = limitsOf(kind)
      const pool = new Pool({
        name,
        limits,
        concurrency,
        maxQueued,
        counts,
        clock,
        sharing,
        id,
        after,
        changed,
        observer
      })
      pools.set(name, pool)
      return pool
    }
    for (const name of known) open(name)
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        for (const pool of pools.values()) pool.shutDown()
        return Effect.forEach(pools.values(), ({ leave }) => leave, { concurrency: "unbounded", discard: true })
      })
    )

    /** The pool of a response or a failure; undefined where there can be none of that name. */
    const existing = (name = defaultPool): Pool | undefined =>
      pools.get(name) ?? (isPool(name) ? open(name) : undefined)

    // A caller that is interrupted before it has its reservation has taken nothing.
    const reserve: Service["reserve"] = (estimate, how) => {
      const admitted = Effect.uninterruptibleMask((restore) =>
        Effect.withFiber<HeldReservation, BudgetError, Scope.Scope>((fiber) => {
          const { context } = fiber
          const pool = poolFor(how)
          if (how?.counting !== undefined) pool.countAs(how.counting)
          const admission = pool.admit(estimate, queueingOf(context, how))
          const scope = Context.getUnsafe(context, Scope.Scope)
          if (admission instanceof HeldReservation) return within(scope, admission)
          const isTraced = Context.getOrUndefined(context, Tracer.ParentSpan) !== undefined
          return Effect.flatMap(wait(pool, admission, isTraced, restore), (held) => within(scope, held))
        })
      )
      return Effect.map(admitted, (held) => {
        held.isAtHand = true
        return held
      })
    }

    const observe = ({ pool: name, reservation, ...signal }: RateLimitSignal) =>
      Effect.sync(() => {
        const held = heldOf(reservation)
        ;(held?.owner ?? existing(name))?.observe(readingsOf(signal), held)
      })

    const cooldown = ({ pool: name, reason, reservation, retryAfter, signal, usage = Amounts.nothing }: Cooldown) => {
      const asked =
        retryAfter === undefined
          ? undefined
          : Believed.pause(Duration.toMillis(waitOf("Budget.cooldown: retryAfter", retryAfter)))
      return Effect.sync(() => {
        const held = heldOf(reservation)
        if (held === undefined) {
          existing(name)?.pause(reason, asked ?? 0)
          return "isolated"
        }
        const readings = signal === undefined ? undefined : readingsOf(signal)
        const used = Amounts.used(held.ticket.charge, usage, held.estimate)
        return held.owner.fail(held, { reason, retryAfter: asked, readings, used })
      })
    }

    const poolFor = (how: ReserveOptions | undefined): Pool => {
      const named = how?.pool ?? (how?.model === undefined ? undefined : poolOf(how.model))
      const name = nameIn(how?.account, named ?? defaultPool)
      return pools.get(name) ?? open(name, poolNamed("reserve", named))
    }

    const status = Effect.sync((): BudgetStatus => ({
      pools: Object.fromEntries(Array.from(pools, ([name, pool]) => [name, Status.of(pool)]))
    }))

    return {
      reserve,
      observe,
      cooldown,
      resize: ({ concurrency: permits, limits, pool: name }) => {
        if (permits !== undefined) checkConcurrency(permits)
        if (limits !== undefined) Limits.resolve(limits)
        return Effect.sync(() => existing(poolNamed("resize", name))?.resize(limits, permits))
      },
      poolOf,
      status,
      changes: latest(ticks, status)
    }
  })
}

/** Hands a reservation out for as long as a scope lasts: what nobody settles is kept as estimated, once it is at hand. */
const within = (scope: Scope.Scope, held: HeldReservation): Effect.Effect<HeldReservation> =>
  Effect.as(
    Scope.addFinalizerExit(scope, (exit) => (held.isAtHand ? held.end(exit) : held.refund)),
    held
  )

/** Sleeps until the caller is let in. Whatever else ends the wait gives everything back. */
const wait = (
  pool: Pool,
  admission: Waiter | BudgetErrorReason,
  isTraced: boolean,
  restore: Restore
): Effect.Effect<HeldReservation, BudgetError> => {
  if (!(admission instanceof Waiter)) return Effect.fail(new BudgetError({ reason: admission }))
  if (admission.ended !== undefined) return admission.ended
  const { maxWait } = admission
  const asleep = Effect.callback<HeldReservation, BudgetError>((resume) => admission.listen(resume))
  const bounded =
    maxWait === Infinity
      ? asleep
      : Effect.timeoutOrElse(asleep, {
          duration: maxWait,
          orElse: () => Effect.fail(new BudgetError({ reason: pool.tooLong(admission.binding, maxWait, maxWait) }))
        })
  return Effect.onExitPrimitive(restore(isTraced ? traced(bounded, pool.name, admission.agent) : bounded), (exit) => {
    if (exit._tag !== "Success") pool.cancel(admission)
    return undefined
  })
}

/** The span of a wait, for a caller that is traced. */
const traced = (
  waiting: Effect.Effect<HeldReservation, BudgetError>,
  pool: string,
  agent: string
): Effect.Effect<HeldReservation, BudgetError> =>
  Effect.useSpan("TokenBudget.reserve", { attributes: { "floodgate.pool": pool, "floodgate.agent": agent } }, (span) =>
    Effect.tap(waiting, ({ binding, waitedMillis }) => {
      span.attribute("floodgate.wait.seconds", waitedMillis / 1_000)
      if (binding !== undefined) span.attribute("floodgate.wait.dimension", binding)
      return Effect.void
    })
  )
