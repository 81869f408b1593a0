/**
 * The budget service: looks up the pool, checks what can be refused at once, and hands out reservations.
 */
import * as Cache from "effect/Cache"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as PubSub from "effect/PubSub"
import * as Scope from "effect/Scope"
import type { TokenBudget } from "../Budget.ts"
import { BudgetStore } from "../BudgetStore.ts"
import * as Believed from "../internal/believed.ts"
import { waitOf } from "../internal/invalid.ts"
import { monotonicMillis } from "../internal/monotonic.ts"
import * as Limits from "../Limits.ts"
import * as Admission from "./admission.ts"
import { BudgetError } from "./errors.ts"
import { latest } from "./latest.ts"
import type { BudgetStatus, Options, Reservation, ReserveOptions } from "./models.ts"
import { ambience, checkConcurrency, defaultPool, parse, type Queueing, queueingOf } from "./options.ts"
import { open } from "./pool.ts"
import type { Pool } from "./poolModel.ts"
import { heldOf, HeldReservation } from "./reservation.ts"
import * as Span from "./span.ts"
import * as Status from "./status.ts"

/** The first step of the default retry policy. */
const defaultPause = Duration.seconds(2)

/** The public service, and what stays within the package. */
export interface Service extends Public {
  /** `reserve` around one effect, without a scope: half the cost. To be called where nothing interrupts. */
  readonly use: <A, E, R>(
    context: Context.Context<never>,
    restore: Admission.Restore,
    estimate: Limits.Estimate,
    f: (reservation: Reservation) => Effect.Effect<A, E, R>,
    options?: ReserveOptions
  ) => Effect.Effect<A, E | BudgetError, R>
}

type Public = TokenBudget["Service"]

export const make = (options: Options): Effect.Effect<Service, never, Scope.Scope> => {
  const { concurrency, headroom, isPool, limitsOf, maxQueued, poolNamed, poolOf, ramp } = parse(options)

  return Effect.gen(function* () {
    const store = yield* BudgetStore
    const scope = yield* Effect.scope
    const millis = monotonicMillis(yield* Clock.Clock)
    const ticks = yield* PubSub.sliding<void>(1)
    const ambientOf = ambience()
    const pools = new Map<string, Pool>()
    const changed = () => void PubSub.publishUnsafe(ticks, undefined)

    /** Opens a pool once, however many ask for it meanwhile. A failure is not remembered. */
    const opened = yield* Cache.makeWith(
      (name: string) =>
        open(name, store, { limits: limitsOf(name), headroom, ramp, concurrency, maxQueued, changed }).pipe(
          Scope.provide(scope),
          Effect.tap((pool) => Effect.sync(() => pools.set(name, pool)))
        ),
      { capacity: Infinity, timeToLive: (exit) => (exit._tag === "Success" ? Duration.infinity : Duration.zero) }
    )
    /** It is opened by a fiber of the budget's own, so that a caller that goes away leaves nothing half open. */
    const openPool = (name: string) =>
      Effect.flatMap(Effect.forkIn(Cache.get(opened, name), scope, { startImmediately: true }), Fiber.join)

    /**
     * What a pool is told and its store misses is lost, not fatal: the provider will say it again. So is what is said of a
     * pool that is nobody's.
     */
    const tell = (name = defaultPool, f: (pool: Pool) => Effect.Effect<void>) =>
      Effect.suspend(() => {
        const pool = pools.get(name)
        if (pool !== undefined) return f(pool)
        return isPool(name) ? Effect.ignore(Effect.flatMap(openPool(name), f)) : Effect.void
      })

    /** A store that is away when it is first asked is waited for no longer than the caller would wait in the queue. */
    const openAndAdmit = (name: string, estimate: Limits.Estimate, how: Queueing, restore: Admission.Restore) => {
      const opens = Effect.mapError(openPool(name), (reason) => new BudgetError({ reason }))
      return Effect.flatMap(restore(Admission.inTime(opens, name, how.patience)), (pool) =>
        Admission.asEffect(Admission.admit(pool, estimate, how, restore), restore)
      )
    }

    /** The way in. */
    const begin = (
      context: Context.Context<never>,
      estimate: Limits.Estimate,
      how: ReserveOptions | undefined,
      restore: Admission.Restore
    ): Admission.Admission => {
      const ambient = ambientOf(context)
      const queueing = queueingOf(how, ambient, millis)
      const named = how?.pool ?? (how?.model === undefined ? undefined : poolOf(how.model))
      const name = named ?? defaultPool
      const pool = pools.get(name)
      const admission =
        pool === undefined
          ? openAndAdmit(poolNamed("reserve", named), estimate, queueing, restore)
          : Admission.admit(pool, estimate, queueing, restore)
      return ambient.isTraced ? Span.traced(Admission.asEffect(admission, restore), name, queueing.agent) : admission
    }

    /** A caller that is interrupted before it has its reservation has taken nothing. */
    const reserve: Service["reserve"] = (estimate, how) =>
      Effect.contextWith((context: Context.Context<Scope.Scope>) => {
        let atHand = false
        const end = (reservation: HeldReservation) => (exit: Exit.Exit<unknown, unknown>) =>
          atHand ? (reservation.end(exit) ?? Effect.void) : reservation.refund
        const held = Effect.uninterruptibleMask((restore) =>
          Effect.flatMap(Admission.asEffect(begin(context, estimate, how, restore), restore), (reservation) =>
            Effect.as(Scope.addFinalizerExit(Context.get(context, Scope.Scope), end(reservation)), reservation)
          )
        )
        return Effect.map(held, (reservation) => {
          atHand = true
          return reservation
        })
      })

    const use: Service["use"] = (context, restore, estimate, f, how) => {
      const admission = begin(context, estimate, how, restore)
      return Admission.around(admission, f, restore)
    }

    const status = Effect.suspend(() =>
      Effect.forEach(pools.values(), (pool) =>
        Effect.map(
          Effect.orElseSucceed(pool.snapshot, () => undefined),
          (snapshot) => [pool.name, Status.of(pool, snapshot)] as const
        )
      )
    ).pipe(Effect.map((entries): BudgetStatus => ({ pools: Object.fromEntries(entries) })))

    const service: Public = {
      reserve,
      observe: ({ pool: name, reservation, ...said }) =>
        tell(name ?? reservation?.pool, (pool) => {
          const signal = Believed.signal(said)
          if (reservation instanceof HeldReservation) reservation.signal = signal
          return pool.observe(signal, heldOf(reservation))
        }),
      cooldown: ({ pool: name, reason, reservation, retryAfter, usage }) => {
        const unsaid = reason === "overload" ? Duration.zero : defaultPause
        const asked = retryAfter === undefined ? unsaid : waitOf("Budget.cooldown: retryAfter", retryAfter)
        const millis = Believed.pause(Duration.toMillis(asked))
        const settle = usage === undefined ? undefined : reservation?.settle(usage, "failure")
        const told = tell(name ?? reservation?.pool, (pool) =>
          pool.together(
            Effect.gen(function* () {
              if (settle !== undefined) yield* settle
              // What the rejection said of the limits was read with the rejected call still held; now it is given back.
              if (reason !== "overload" && reservation instanceof HeldReservation && reservation.signal !== undefined) {
                yield* pool.observe(reservation.signal, undefined)
              }
              yield* pool.pause({ reason, millis, charge: reservation?.charge }, heldOf(reservation))
            })
          )
        )
        // A pool that is nobody's hears nothing, but the call is settled all the same; it counts once.
        return settle === undefined ? told : Effect.andThen(told, settle)
      },
      resize: ({ concurrency: permits, limits, pool: name }) => {
        if (permits !== undefined) checkConcurrency(permits)
        if (limits !== undefined) Limits.resolve(limits)
        return Effect.suspend(() =>
          tell(poolNamed("resize", name), (pool) => pool.resize({ limits, concurrency: permits }))
        )
      },
      poolOf,
      status,
      changes: latest(ticks, status)
    }
    // Not enumerable: whoever spreads a budget to put something around its `reserve` leaves the way past it behind.
    return Object.defineProperty(service, "use", { value: use }) as Service
  })
}

/** Whether a budget is one of ours, and not a double that somebody made for a test. */
export const hasUse = (budget: object): budget is Pick<Service, "use"> => "use" in budget
