/**
 * The budget service: looks up the pool, checks what can be refused at once, and hands out reservations.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as PubSub from "effect/PubSub"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { BudgetStore, type Held, type Snapshot, type StoreUnavailable } from "../BudgetStore.ts"
import * as Limits from "../Limits.ts"
import {
  BudgetError,
  type BudgetErrorReason,
  EstimateTooLarge,
  QueueFull,
  QuotaExhausted,
  WaitTooLong
} from "./errors.ts"
import {
  Agent,
  type BudgetStatus,
  type Cooldown,
  type DimensionStatus,
  type Options,
  type PoolStatus,
  Priority,
  type RateLimitSignal,
  type Reservation,
  type ReserveOptions
} from "./models.ts"
import * as Pool from "./pool.ts"
import type * as Predict from "./predict.ts"

const defaultPool = "default"
const defaultPause = Duration.seconds(2)
const listedWaiters = 32
/** A wider range than any use needs, and sums of shares stay exact. */
const leastWeight = 0.001

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

const check = (valid: boolean, option: string, expected: string, value: unknown): void => {
  if (!valid) throw new RangeError(`Budget.make: ${option}: expected ${expected}, got ${value}`)
}

const wholeOrInfinite = (value: number): boolean => value === Infinity || Number.isInteger(value)

const checkConcurrency = (concurrency: number): void =>
  check(concurrency >= 1 && wholeOrInfinite(concurrency), "concurrency", "an integer >= 1", concurrency)

const isPools = (limits: Limits.Limits | Limits.Pools): limits is Limits.Pools => "pools" in limits

const parse = ({ concurrency = Infinity, headroom = 0.05, limits, maxQueued = Infinity, ramp }: Options) => {
  checkConcurrency(concurrency)
  check(maxQueued >= 0 && wholeOrInfinite(maxQueued), "maxQueued", "an integer >= 0", maxQueued)
  check(headroom >= 0 && headroom <= 0.5, "headroom", "a number from 0 to 0.5", headroom)
  const from = ramp?.from ?? 1
  check(from > 0 && from <= 1, "ramp.from", "a number above 0, at most 1", from)
  const millis = ramp === undefined ? 1 : Duration.toMillis(Duration.fromInputUnsafe(ramp.over))
  check(millis > 0, "ramp.over", "a duration above 0", millis)
  const sets = limits === undefined ? {} : isPools(limits) ? limits.pools : { [defaultPool]: limits }
  for (const set of Object.values(sets)) Limits.resolve(set)
  return {
    concurrency,
    headroom,
    maxQueued,
    ramp: ramp === undefined ? undefined : { from, millis },
    poolOf:
      limits === undefined ? Limits.poolOf : isPools(limits) ? (limits.poolOf ?? Limits.poolOf) : () => defaultPool,
    limitsOf: (pool: string): Limits.Limits =>
      limits === undefined
        ? {}
        : isPools(limits)
          ? Object.hasOwn(limits.pools, pool)
            ? limits.pools[pool]!
            : {}
          : limits
  }
}

// -----------------------------------------------------------------------------
// Reservations
// -----------------------------------------------------------------------------

class HeldReservation implements Reservation {
  readonly agent: string
  readonly charge: Limits.Charge
  readonly binding: Limits.Dimension | undefined
  readonly owner: Pool.Pool
  readonly held: Held
  private readonly waitedMillis: number
  private closed = false
  /** What its response said of the limits. */
  signal: Limits.Signal | undefined

  constructor(owner: Pool.Pool, agent: string, held: Held, waiter: Pool.Waiter | undefined) {
    this.owner = owner
    this.held = held
    this.agent = agent
    this.charge = held.charge
    this.binding = waiter?.binding
    this.waitedMillis = waiter?.waitedMillis ?? 0
  }
  get pool(): string {
    return this.owner.name
  }
  get waited(): Duration.Duration {
    return Duration.millis(this.waitedMillis)
  }
  settle(usage: Limits.Usage, outcome: "success" | "failure" = "success"): Effect.Effect<void> {
    return this.close(usage, outcome === "success")
  }
  get refund(): Effect.Effect<void> {
    return this.close(Limits.nothing, false)
  }
  /** Nobody said what it used: it is kept as estimated. */
  end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    if (this.closed) return undefined
    this.closed = true
    return this.owner.settle(this.held, this.charge, exit._tag === "Success")
  }
  private close(usage: Limits.Usage, succeeded: boolean): Effect.Effect<void> {
    const settle = () => {
      if (this.closed) return Effect.void
      this.closed = true
      return this.owner.settle(this.held, Limits.used(this.charge, usage), succeeded) ?? Effect.void
    }
    return Effect.suspend(() => (this.owner.isInstant() ? settle() : Effect.uninterruptible(Effect.suspend(settle))))
  }
}

const heldOf = (reservation: Reservation | undefined): Held | undefined =>
  reservation instanceof HeldReservation ? reservation.held : undefined

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

const refuse = (reason: BudgetErrorReason): Effect.Effect<never, BudgetError> =>
  Effect.fail(new BudgetError({ reason }))

const refusedByStore =
  (pool: string) =>
  (refused: Pool.Refused): BudgetError =>
    new BudgetError({
      reason:
        refused._tag === "Exhausted"
          ? new QuotaExhausted({ pool, dimension: refused.dimension, asked: refused.asked, left: refused.left })
          : refused._tag === "TooLarge"
            ? new EstimateTooLarge({ pool, dimension: refused.dimension, asked: refused.asked, limit: refused.limit })
            : refused
    })

const overQuota = (pool: string, charge: Limits.Charge, { ledger }: Snapshot): QuotaExhausted | undefined => {
  for (const dimension of Limits.dimensions) {
    const bucket = ledger.buckets[dimension]
    const asked = charge[dimension] ?? 0
    if (bucket?.rule.quota && asked > bucket.level) {
      return new QuotaExhausted({ pool, dimension, asked, left: Math.max(0, bucket.level) })
    }
  }
  return undefined
}

const tooLong = (pool: string, foreseen: Predict.Prediction | undefined, maxWait: Duration.Duration): WaitTooLong =>
  new WaitTooLong({
    pool,
    dimension: foreseen?.dimension,
    wait: Duration.max(Duration.millis(Math.ceil(foreseen?.millis ?? 0)), maxWait),
    maxWait
  })

// -----------------------------------------------------------------------------
// Status
// -----------------------------------------------------------------------------

const statusOf = (pool: Pool.Pool, snapshot: Snapshot | undefined): PoolStatus => {
  const dimensions: { [D in Limits.Dimension]?: DimensionStatus } = {}
  const waiting = snapshot === undefined ? [] : pool.waiting(listedWaiters, snapshot)
  for (const dimension of Limits.dimensions) {
    const bucket = snapshot?.ledger.buckets[dimension]
    if (bucket === undefined) continue
    dimensions[dimension] = { level: bucket.level, capacity: bucket.rule.capacity, perSecond: bucket.rate * 1000 }
  }
  const cooldown = snapshot?.ledger.cooldown
  const left = (cooldown?.until ?? 0) - (snapshot?.now ?? 0)
  return {
    dimensions,
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

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

export interface Service {
  readonly reserve: (
    estimate: Limits.Estimate,
    options?: ReserveOptions
  ) => Effect.Effect<Reservation, BudgetError, Scope.Scope>
  /** The same around one effect, without a scope: half the cost. Not part of the public service. */
  readonly use: <A, E, R>(
    context: Context.Context<never>,
    estimate: Limits.Estimate,
    f: (reservation: Reservation) => Effect.Effect<A, E, R>,
    options?: ReserveOptions
  ) => Effect.Effect<A, E | BudgetError, R>
  readonly observe: (signal: RateLimitSignal) => Effect.Effect<void>
  readonly cooldown: (pause: Cooldown) => Effect.Effect<void>
  readonly resize: (options: {
    readonly pool?: string | undefined
    readonly limits?: Limits.Limits | undefined
    readonly concurrency?: number | undefined
  }) => Effect.Effect<void>
  readonly poolOf: (model: string) => string
  readonly status: Effect.Effect<BudgetStatus>
  readonly changes: Stream.Stream<BudgetStatus>
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** How a caller stands in the queue, checked. */
interface Queueing extends Pool.WaiterOptions {
  readonly maxWait: Duration.Duration | undefined
}

const queueingOf = (how: ReserveOptions, context: Context.Context<never>): Queueing => {
  const { first = false, maxWait, weight = 1 } = how
  const priority = how.priority ?? Context.get(context, Priority)
  if (!(weight >= leastWeight && weight <= 1 / leastWeight)) {
    throw new RangeError(
      `Budget.reserve: weight: expected a number from ${leastWeight} to ${1 / leastWeight}, got ${weight}`
    )
  }
  if (!Number.isFinite(priority)) {
    throw new RangeError(`Budget.reserve: priority: expected a finite number, got ${priority}`)
  }
  return {
    agent: how.agent ?? Context.get(context, Agent),
    priority,
    weight,
    first,
    maxWait: maxWait === undefined ? undefined : Duration.fromInputUnsafe(maxWait)
  }
}

export const make = (options: Options): Effect.Effect<Service, never, Scope.Scope> => {
  const { concurrency, headroom, limitsOf, maxQueued, poolOf, ramp } = parse(options)

  return Effect.gen(function* () {
    const store = yield* BudgetStore
    const scope = yield* Effect.scope
    const ticks = yield* PubSub.sliding<void>(1)
    const pools = new Map<string, Pool.Pool>()
    const opening = new Map<string, Fiber.Fiber<Pool.Pool, StoreUnavailable>>()
    let watchers = 0
    const changed = () => {
      if (watchers > 0) PubSub.publishUnsafe(ticks, undefined)
    }

    /**
     * Opens a pool once, however many ask for it meanwhile. It is opened by a fiber of the budget's own, so that a caller
     * that goes away leaves nothing half open. A failure is not remembered.
     */
    const openPool = (name: string): Effect.Effect<Pool.Pool, StoreUnavailable> =>
      Effect.suspend(() => {
        const underWay = opening.get(name)
        if (underWay !== undefined) return Fiber.join(underWay)
        const opened = Pool.open(name, store, { limits: limitsOf(name), headroom, ramp, concurrency, changed }).pipe(
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
      f: (pool: Pool.Pool) => Effect.Effect<A, E, R>
    ): Effect.Effect<A, E | StoreUnavailable, R> => {
      const pool = pools.get(name)
      return pool === undefined ? Effect.flatMap(openPool(name), f) : f(pool)
    }

    /** What a pool is told and its store misses is lost, not fatal: the provider will say it again. */
    const tell = (name: string, f: (pool: Pool.Pool) => Effect.Effect<void>): Effect.Effect<void> =>
      Effect.ignore(withPool(name, f))

    const foresee = (
      pool: Pool.Pool,
      charge: Limits.Charge,
      who: { readonly agent: string; readonly priority: number },
      maxWait: Duration.Duration | undefined
    ): Effect.Effect<Predict.Prediction | undefined, BudgetError> =>
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

    /** Waits in the queue; whatever ends the wait but a grant gives everything back. */
    const stand = (
      pool: Pool.Pool,
      waiter: Pool.Waiter,
      maxWait: Duration.Duration | undefined,
      foreseen: Predict.Prediction | undefined,
      restore: Restore
    ): Effect.Effect<Held, BudgetError> => {
      if (waiter.held !== undefined) return Effect.succeed(waiter.held)
      const granted = Effect.mapError(pool.wait(waiter), refusedByStore(pool.name))
      const bounded =
        pool.queued() > maxQueued + pool.unasked
          ? refuse(new QueueFull({ pool: pool.name, maxQueued }))
          : maxWait === undefined
            ? granted
            : Effect.timeoutOrElse(granted, {
                duration: maxWait,
                orElse: () => refuse(tooLong(pool.name, foreseen, maxWait))
              })
      return Effect.onExit(restore(bounded), (exit) => (exit._tag === "Success" ? Effect.void : pool.cancel(waiter)))
    }

    /** Admits an estimate, or refuses it; a reservation as it is where that took no time. */
    const admit = (
      pool: Pool.Pool,
      estimate: Limits.Estimate,
      how: Queueing,
      restore: Restore
    ): HeldReservation | Effect.Effect<HeldReservation, BudgetError> => {
      const rules = pool.rules()
      const charge = Limits.charge(estimate, rules)
      const tooLarge = Limits.neverFits(charge, rules)
      if (tooLarge !== undefined) {
        return Effect.flatMap(pool.doubt(estimate), (doubted) =>
          doubted
            ? asEffect(admit(pool, estimate, how, restore))
            : refuse(new EstimateTooLarge({ pool: pool.name, ...tooLarge }))
        )
      }
      const held = pool.takeNow(charge)
      if (held !== undefined) return new HeldReservation(pool, how.agent, held, undefined)
      const enqueue = (foreseen: Predict.Prediction | undefined): Effect.Effect<HeldReservation, BudgetError> => {
        const waiter = pool.admit(estimate, charge, how)
        const held = Effect.flatMap(pool.drain, () => stand(pool, waiter, how.maxWait, foreseen, restore))
        return Effect.map(held, (held) => new HeldReservation(pool, how.agent, held, waiter))
      }
      return how.maxWait !== undefined || Limits.hasQuota(rules)
        ? Effect.flatMap(restore(foresee(pool, charge, how, how.maxWait)), enqueue)
        : enqueue(undefined)
    }

    /** Admits, and goes on with the reservation before anything can interrupt. */
    const admitted = <A, E, R>(
      context: Context.Context<never>,
      estimate: Limits.Estimate,
      how: ReserveOptions,
      then: (reservation: HeldReservation, restore: Restore) => Effect.Effect<A, E, R>
    ): Effect.Effect<A, E | BudgetError, R> =>
      Effect.uninterruptibleMask((restore) => {
        const queueing = queueingOf(how, context)
        const name = how.pool ?? defaultPool
        const open = pools.get(name)
        const reservation =
          open !== undefined
            ? admit(open, estimate, queueing, restore)
            : Effect.flatMap(
                Effect.mapError(restore(openPool(name)), (reason) => new BudgetError({ reason })),
                (pool) => asEffect(admit(pool, estimate, queueing, restore))
              )
        return reservation instanceof HeldReservation
          ? then(reservation, restore)
          : Effect.flatMap(reservation, (reservation) => then(reservation, restore))
      })

    const reserve: Service["reserve"] = (estimate, how = noOptions) =>
      Effect.contextWith((context: Context.Context<Scope.Scope>) =>
        admitted(context, estimate, how, (reservation) =>
          Effect.as(
            Scope.addFinalizerExit(Context.get(context, Scope.Scope), (exit) => reservation.end(exit) ?? Effect.void),
            reservation
          )
        )
      )

    const use: Service["use"] = (context, estimate, f, how = noOptions) =>
      admitted(context, estimate, how, (reservation, restore) =>
        Effect.onExitPrimitive(restore(applied(f, reservation)), (exit) => reservation.end(exit))
      )

    const status = Effect.suspend(() =>
      Effect.forEach(pools.values(), (pool) =>
        Effect.map(
          Effect.matchEffect(pool.snapshot, {
            onFailure: () => Effect.undefined,
            onSuccess: (snapshot) => Effect.succeed<Snapshot | undefined>(snapshot)
          }),
          (snapshot) => [pool.name, statusOf(pool, snapshot)] as const
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
      cooldown: ({ pool: name, reason, reservation, retryAfter }) => {
        const millis = Duration.toMillis(
          retryAfter === undefined
            ? reason === "overload"
              ? Duration.zero
              : defaultPause
            : Duration.fromInputUnsafe(retryAfter)
        )
        return tell(name ?? reservation?.pool ?? defaultPool, (pool) =>
          // What the rejection said of the limits was read with the rejected call still held; now it is given back.
          Effect.andThen(
            reason === "overload" || !(reservation instanceof HeldReservation) || reservation.signal === undefined
              ? Effect.void
              : pool.observe(reservation.signal, undefined),
            pool.pause({ reason, millis, charge: reservation?.charge }, heldOf(reservation))
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

const noOptions: ReserveOptions = {}

const asEffect = <E>(reservation: HeldReservation | Effect.Effect<HeldReservation, E>) =>
  reservation instanceof HeldReservation ? Effect.succeed(reservation) : reservation

/** What a caller's function gives; what it throws is a defect, and the reservation ends all the same. */
const applied = <A, E, R>(
  f: (reservation: Reservation) => Effect.Effect<A, E, R>,
  reservation: Reservation
): Effect.Effect<A, E, R> => {
  try {
    return f(reservation)
  } catch (defect) {
    return Effect.die(defect)
  }
}

/** Whether a budget is one of ours, and not a double that somebody made for a test. */
export const hasUse = (budget: object): budget is Pick<Service, "use"> => "use" in budget
