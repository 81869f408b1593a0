/**
 * The budget service: looks up the pool, checks what can be refused at once, and hands out reservations.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as PubSub from "effect/PubSub"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { TokenBudget } from "../Budget.ts"
import { BudgetStore, type Snapshot, type StoreUnavailable } from "../BudgetStore.ts"
import * as Limits from "../Limits.ts"
import { BudgetError, EstimateTooLarge, QueueFull } from "./errors.ts"
import type { BudgetStatus, Options, Reservation, ReserveOptions } from "./models.ts"
import { ambience, checkConcurrency, defaultPool, parse, type Queueing, queueingOf } from "./options.ts"
import { open } from "./pool.ts"
import { type Pool, type Prediction, Waiter } from "./poolModel.ts"
import { overQuota, refuse, tooLong } from "./refuse.ts"
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
    restore: Restore,
    estimate: Limits.Estimate,
    f: (reservation: Reservation) => Effect.Effect<A, E, R>,
    options?: ReserveOptions
  ) => Effect.Effect<A, E | BudgetError, R>
}

type Public = TokenBudget["Service"]

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

export const make = (options: Options): Effect.Effect<Service, never, Scope.Scope> => {
  const { concurrency, headroom, limitsOf, maxQueued, poolOf, ramp } = parse(options)

  return Effect.gen(function* () {
    const store = yield* BudgetStore
    const clock = yield* Clock.Clock
    const scope = yield* Effect.scope
    const ticks = yield* PubSub.sliding<void>(1)
    const ambientOf = ambience()
    const pools = new Map<string, Pool>()
    const opening = new Map<string, Fiber.Fiber<Pool, StoreUnavailable>>()
    let watchers = 0
    const changed = () => {
      if (watchers > 0) PubSub.publishUnsafe(ticks, undefined)
    }

    /**
     * Opens a pool once, however many ask for it meanwhile. It is opened by a fiber of the budget's own, so that a caller
     * that goes away leaves nothing half open. A failure is not remembered.
     */
    const openPool = (name: string): Effect.Effect<Pool, StoreUnavailable> =>
      Effect.suspend(() => {
        const underWay = opening.get(name)
        if (underWay !== undefined) return Fiber.join(underWay)
        const opened = open(name, store, { limits: limitsOf(name), headroom, ramp, concurrency, changed }).pipe(
          Scope.provide(scope),
          Effect.tap((pool) => Effect.sync(() => pools.set(name, pool))),
          Effect.ensuring(Effect.sync(() => opening.delete(name)))
        )
        return Effect.flatMap(Effect.forkIn(opened, scope, { startImmediately: true }), (fiber) => {
          if (fiber.pollUnsafe() === undefined) opening.set(name, fiber)
          return Fiber.join(fiber)
        })
      })

    const withPool = <A, E, R>(
      name: string,
      f: (pool: Pool) => Effect.Effect<A, E, R>
    ): Effect.Effect<A, E | StoreUnavailable, R> => {
      const pool = pools.get(name)
      return pool === undefined ? Effect.flatMap(openPool(name), f) : f(pool)
    }

    /** What a pool is told and its store misses is lost, not fatal: the provider will say it again. */
    const tell = (name: string, f: (pool: Pool) => Effect.Effect<void>): Effect.Effect<void> =>
      Effect.ignore(withPool(name, f))

    const foresee = (
      pool: Pool,
      charge: Limits.Charge,
      who: { readonly agent: string; readonly priority: number },
      maxWait: Duration.Duration | undefined
    ): Effect.Effect<Prediction | undefined, BudgetError> =>
      Effect.matchEffect(pool.snapshot, {
        onFailure: refuse,
        onSuccess: (snapshot) => {
          const exhausted = overQuota(pool.name, charge, snapshot)
          if (exhausted !== undefined) return refuse(exhausted)
          if (maxWait === undefined) return Effect.undefined
          const foreseen = pool.predict(charge, who, snapshot)
          return foreseen.millis > Duration.toMillis(maxWait)
            ? refuse(tooLong(pool.name, foreseen, maxWait))
            : Effect.succeed(foreseen)
        }
      })

    const admit = (pool: Pool, estimate: Limits.Estimate, how: Queueing, restore: Restore): Admission => {
      const rules = pool.rules()
      const charge = Limits.charge(estimate, rules)
      const tooLarge = Limits.neverFits(charge, rules)
      if (tooLarge !== undefined) {
        return Effect.flatMap(pool.doubt(estimate), (doubted) =>
          doubted
            ? asEffect(admit(pool, estimate, how, restore), restore)
            : refuse(new EstimateTooLarge({ pool: pool.name, ...tooLarge }))
        )
      }
      const held = pool.takeNow(charge)
      if (held !== undefined) return new HeldReservation(pool, how.agent, held)
      return how.maxWait !== undefined || pool.hasQuota()
        ? Effect.flatMap(restore(foresee(pool, charge, how, how.maxWait)), (foreseen) =>
            asEffect(enqueue(pool, estimate, charge, how, foreseen, maxQueued, restore), restore)
          )
        : enqueue(pool, estimate, charge, how, undefined, maxQueued, restore)
    }

    const openAndAdmit = (name: string, estimate: Limits.Estimate, how: Queueing, restore: Restore) =>
      Effect.flatMap(
        Effect.mapError(restore(openPool(name)), (reason) => new BudgetError({ reason })),
        (pool) => asEffect(admit(pool, estimate, how, restore), restore)
      )

    /** The way in. */
    const begin = (
      context: Context.Context<never>,
      estimate: Limits.Estimate,
      how: ReserveOptions | undefined,
      restore: Restore
    ): Admission => {
      const ambient = ambientOf(context)
      const queueing = queueingOf(how, ambient)
      const name = how?.pool ?? defaultPool
      const pool = pools.get(name)
      const admission =
        pool === undefined ? openAndAdmit(name, estimate, queueing, restore) : admit(pool, estimate, queueing, restore)
      return ambient.isTraced
        ? Span.traced(asEffect(admission, restore), name, queueing.agent, clock, context)
        : admission
    }

    const reserve: Service["reserve"] = (estimate, how) =>
      Effect.contextWith((context: Context.Context<Scope.Scope>) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.flatMap(asEffect(begin(context, estimate, how, restore), restore), (reservation) =>
            Effect.as(
              Scope.addFinalizerExit(Context.get(context, Scope.Scope), (exit) => reservation.end(exit) ?? Effect.void),
              reservation
            )
          )
        )
      )

    const use: Service["use"] = (context, restore, estimate, f, how) => {
      const admission = begin(context, estimate, how, restore)
      if (admission instanceof HeldReservation) return around(admission, f, restore)
      return admission instanceof Waiter ? standAround(admission, f, restore) : thenAround(admission, f, restore)
    }

    const status = Effect.suspend(() =>
      Effect.forEach(pools.values(), (pool) =>
        Effect.map(
          Effect.matchEffect(pool.snapshot, {
            onFailure: () => Effect.undefined,
            onSuccess: (snapshot) => Effect.succeed<Snapshot | undefined>(snapshot)
          }),
          (snapshot) => [pool.name, Status.of(pool, snapshot)] as const
        )
      )
    ).pipe(Effect.map((entries): BudgetStatus => ({ pools: Object.fromEntries(entries) })))

    const watching = Effect.acquireRelease(
      Effect.sync(() => void watchers++),
      () => Effect.sync(() => void watchers--)
    )

    return {
      reserve,
      use,
      observe: (signal) =>
        tell(signal.pool ?? signal.reservation?.pool ?? defaultPool, (pool) => {
          if (signal.reservation instanceof HeldReservation) signal.reservation.signal = signal
          return pool.observe(signal, heldOf(signal.reservation))
        }),
      cooldown: ({ pool: name, reason, reservation, retryAfter, usage }) => {
        const unsaid = reason === "overload" ? Duration.zero : defaultPause
        const millis = Duration.toMillis(retryAfter === undefined ? unsaid : Duration.fromInputUnsafe(retryAfter))
        return tell(name ?? reservation?.pool ?? defaultPool, (pool) =>
          pool.together(
            Effect.gen(function* () {
              if (usage !== undefined) yield* reservation?.settle(usage, "failure") ?? Effect.void
              // What the rejection said of the limits was read with the rejected call still held; now it is given back.
              if (reason !== "overload" && reservation instanceof HeldReservation && reservation.signal !== undefined) {
                yield* pool.observe(reservation.signal, undefined)
              }
              yield* pool.pause({ reason, millis, charge: reservation?.charge }, heldOf(reservation))
            })
          )
        )
      },
      resize: ({ concurrency: permits, limits, pool: name = defaultPool }) => {
        if (permits !== undefined) checkConcurrency(permits)
        if (limits !== undefined) Limits.resolve(limits)
        return tell(name, (pool) => pool.resize({ limits, concurrency: permits }))
      },
      poolOf,
      status,
      changes: Stream.unwrap(
        Effect.gen(function* () {
          yield* watching
          const subscription = yield* PubSub.subscribe(ticks)
          const later = Stream.fromSubscription(subscription)
          return Stream.mapEffect(Stream.concat(Stream.succeed<void>(undefined), later), () => status)
        })
      )
    }
  })
}

// What follows stands apart, so that a waiter's functions keep alive what they need and no more: a million may wait.

/**
 * How an estimate was admitted: at once; or its caller waits, and has yet to go to sleep; or there is more to it, an
 * effect that must run where only its waits can be interrupted.
 */
type Admission = HeldReservation | Waiter | Effect.Effect<HeldReservation, BudgetError>

type Use<A, E, R> = (reservation: Reservation) => Effect.Effect<A, E, R>

const around = <A, E, R>(reservation: HeldReservation, f: Use<A, E, R>, restore: Restore): Effect.Effect<A, E, R> => {
  const self = applied(f, reservation)
  // What is done already, as with `consume`, needs no guard.
  const done = Exit.isExit(self) ? self : undefined
  if (done === undefined) return Effect.onExitPrimitive(restore(self), (exit) => reservation.end(exit))
  const rest = reservation.end(done)
  return rest === undefined ? self : Effect.andThen(rest, self)
}

const thenAround = <A, E, R>(
  reserve: Effect.Effect<HeldReservation, BudgetError>,
  f: Use<A, E, R>,
  restore: Restore
): Effect.Effect<A, E | BudgetError, R> => Effect.flatMap(reserve, (reservation) => around(reservation, f, restore))

/** Stands in the queue and runs under the reservation: the two of them in one, because a waiter is asleep in it. */
const standAround = <A, E, R>(
  waiter: Waiter,
  f: Use<A, E, R>,
  restore: Restore
): Effect.Effect<A, E | BudgetError, R> => {
  let reservation: HeldReservation | undefined
  const run = (granted: HeldReservation) => {
    reservation = granted
    return f(granted)
  }
  return Effect.onExitPrimitive(restore(Effect.flatMap(waiter.pool.wait(waiter), run)), (exit) => {
    if (reservation === undefined) return waiter.pool.cancel(waiter)
    waiter.reservation = undefined
    return reservation.end(exit)
  })
}

/** Stands in the queue. */
const enqueue = (
  pool: Pool,
  estimate: Limits.Estimate,
  charge: Limits.Charge,
  how: Queueing,
  foreseen: Prediction | undefined,
  maxQueued: number,
  restore: Restore
): Admission => {
  const waiter = pool.admit(estimate, charge, how)
  const rest = pool.drainNow()
  return rest === undefined
    ? admissionOf(waiter, how.maxWait, foreseen, maxQueued, restore)
    : Effect.flatMap(rest, () => asEffect(admissionOf(waiter, how.maxWait, foreseen, maxQueued, restore), restore))
}

const admissionOf = (
  waiter: Waiter,
  maxWait: Duration.Duration | undefined,
  foreseen: Prediction | undefined,
  maxQueued: number,
  restore: Restore
): Admission => {
  const { pool, reservation } = waiter
  if (reservation !== undefined) return reservation
  if (pool.queued() > maxQueued + pool.unasked) {
    return stand(waiter, refuse(new QueueFull({ pool: pool.name, maxQueued })), restore)
  }
  return maxWait === undefined ? waiter : stand(waiter, within(maxWait, waiter, foreseen), restore)
}

/** Waits; whatever ends the wait but a grant gives everything back. */
const stand = (
  waiter: Waiter,
  wait: Effect.Effect<HeldReservation, BudgetError>,
  restore: Restore
): Effect.Effect<HeldReservation, BudgetError> =>
  Effect.onExitPrimitive(restore(wait), (exit) => {
    if (exit._tag !== "Success") return waiter.pool.cancel(waiter)
    waiter.reservation = undefined
    return undefined
  })

const within = (
  maxWait: Duration.Duration,
  waiter: Waiter,
  foreseen: Prediction | undefined
): Effect.Effect<HeldReservation, BudgetError> =>
  Effect.timeoutOrElse(waiter.pool.wait(waiter), {
    duration: maxWait,
    orElse: () => refuse(tooLong(waiter.pool.name, foreseen, maxWait))
  })

const asEffect = (admission: Admission, restore: Restore): Effect.Effect<HeldReservation, BudgetError> => {
  if (admission instanceof HeldReservation) return Effect.succeed(admission)
  return admission instanceof Waiter ? stand(admission, admission.pool.wait(admission), restore) : admission
}

/** What a caller's function gives; what it throws is a defect, and the reservation ends all the same. */
const applied = <A, E, R>(f: Use<A, E, R>, reservation: Reservation): Effect.Effect<A, E, R> => {
  try {
    return f(reservation)
  } catch (defect) {
    return Effect.die(defect)
  }
}

/** Whether a budget is one of ours, and not a double that somebody made for a test. */
export const hasUse = (budget: object): budget is Pick<Service, "use"> => "use" in budget
