/**
 * The budget service: looks up the pool, checks what can be refused at once, and hands out reservations.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
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

const defaultPool = "default"
const defaultPause = Duration.seconds(2)
const listedWaiters = 32

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
      limits === undefined
        ? Limits.poolOf
        : isPools(limits)
          ? (limits.poolOf ?? Limits.poolOf)
          : () => defaultPool,
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

  constructor(owner: Pool.Pool, waiter: Pool.Waiter, held: Held) {
    this.owner = owner
    this.held = held
    this.agent = waiter.agent
    this.charge = waiter.charge
    this.binding = waiter.binding
    this.waitedMillis = waiter.waitedMillis
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
  end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return this.closed ? Effect.void : this.close({}, exit._tag === "Success")
  }
  private close(usage: Limits.Usage, succeeded: boolean): Effect.Effect<void> {
    return Effect.uninterruptible(
      Effect.suspend(() => {
        if (this.closed) return Effect.void
        this.closed = true
        return this.owner.settle(this.held, Limits.used(this.charge, usage), succeeded)
      })
    )
  }
}

const heldOf = (reservation: Reservation | undefined): Held | undefined =>
  reservation instanceof HeldReservation ? reservation.held : undefined

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

const refuse = (reason: BudgetErrorReason): Effect.Effect<never, BudgetError> => Effect.fail(new BudgetError({ reason }))

const refusedByStore =
  (pool: string) =>
  (refused: Pool.Refused): BudgetError =>
    new BudgetError({
      reason:
        refused._tag === "Exhausted"
          ? new QuotaExhausted({ pool, dimension: refused.dimension, asked: refused.asked, left: refused.left })
          : refused
    })

const neverFits = (pool: string, charge: Limits.Charge, rules: Limits.Rules): EstimateTooLarge | undefined => {
  for (const dimension of Limits.dimensions) {
    const limit = rules[dimension]?.most
    const asked = charge[dimension]
    if (limit !== undefined && asked !== undefined && asked > limit) {
      return new EstimateTooLarge({ pool, dimension, asked, limit })
    }
  }
  return undefined
}

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

const tooLong = (pool: string, foreseen: Pool.Prediction | undefined, maxWait: Duration.Duration): WaitTooLong =>
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

export const make = (options: Options): Effect.Effect<Service, never, Scope.Scope> => {
  const { concurrency, headroom, limitsOf, maxQueued, poolOf, ramp } = parse(options)

  return Effect.gen(function* () {
    const store = yield* BudgetStore
    const scope = yield* Effect.scope
    const ticks = yield* PubSub.sliding<void>(1)
    const pools = new Map<string, Pool.Pool>()
    const opening = new Map<string, Effect.Effect<Pool.Pool, StoreUnavailable>>()
    let watchers = 0
    const changed = () => {
      if (watchers > 0) PubSub.publishUnsafe(ticks, undefined)
    }

    /** Opens a pool once, however many ask for it meanwhile. A failure is not remembered. */
    const openPool = (name: string): Effect.Effect<Pool.Pool, StoreUnavailable> =>
      Effect.suspend(() => {
        const underWay = opening.get(name)
        if (underWay !== undefined) return underWay
        const opened = Pool.open(name, store, { limits: limitsOf(name), headroom, ramp, concurrency, changed }).pipe(
          Scope.provide(scope),
          Effect.tap((pool) => Effect.sync(() => pools.set(name, pool))),
          Effect.ensuring(Effect.sync(() => opening.delete(name)))
        )
        return Effect.flatMap(Effect.cached(opened), (once) => {
          opening.set(name, once)
          return once
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
    ): Effect.Effect<Pool.Prediction | undefined, BudgetError> =>
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

    const reserve: Service["reserve"] = (estimate, how = {}) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.contextWith((context: Context.Context<Scope.Scope>) => {
          const agent = how.agent ?? Context.get(context, Agent)
          const priority = how.priority ?? Context.get(context, Priority)
          const weight = how.weight ?? 1
          if (!(weight > 0 && weight < Infinity)) return invalid("weight", "a finite number > 0", weight)
          if (!Number.isFinite(priority)) return invalid("priority", "a finite number", priority)
          const maxWait = how.maxWait === undefined ? undefined : Duration.fromInputUnsafe(how.maxWait)

          /** Waits in the queue; whatever ends the wait but a grant gives everything back. */
          const stand = (
            pool: Pool.Pool,
            waiter: Pool.Waiter,
            foreseen: Pool.Prediction | undefined
          ): Effect.Effect<Held, BudgetError> => {
            if (waiter.held !== undefined) return Effect.succeed(waiter.held)
            const granted = Effect.mapError(pool.wait(waiter), refusedByStore(pool.name))
            const bounded =
              pool.queued() > maxQueued
                ? refuse(new QueueFull({ pool: pool.name, maxQueued }))
                : maxWait === undefined
                  ? granted
                  : Effect.timeoutOrElse(granted, {
                      duration: maxWait,
                      orElse: () => refuse(tooLong(pool.name, foreseen, maxWait))
                    })
            return Effect.onExit(restore(bounded), (exit) =>
              exit._tag === "Success" ? Effect.void : pool.cancel(waiter)
            )
          }

          const enqueue = (
            pool: Pool.Pool,
            charge: Limits.Charge,
            foreseen: Pool.Prediction | undefined
          ): Effect.Effect<Reservation, BudgetError> => {
            const waiter = pool.admit(charge, { agent, priority, weight, first: how.first ?? false })
            const held = Effect.andThen(
              pool.drain,
              Effect.suspend(() => stand(pool, waiter, foreseen))
            )
            return Effect.flatMap(held, (granted) => {
              const reservation = new HeldReservation(pool, waiter, granted)
              return Effect.as(
                Scope.addFinalizerExit(Context.get(context, Scope.Scope), (exit) => reservation.end(exit)),
                reservation
              )
            })
          }

          const admitted = withPool(how.pool ?? defaultPool, (pool): Effect.Effect<Reservation, BudgetError> => {
            const rules = pool.rules()
            const charge = Limits.charge(estimate, rules)
            const tooLarge = neverFits(pool.name, charge, rules)
            if (tooLarge !== undefined) return refuse(tooLarge)
            return maxWait !== undefined || Limits.hasQuota(rules)
              ? Effect.flatMap(foresee(pool, charge, { agent, priority }, maxWait), (foreseen) =>
                  enqueue(pool, charge, foreseen)
                )
              : enqueue(pool, charge, undefined)
          })
          return Effect.mapError(admitted, (error) =>
            error._tag === "StoreUnavailable" ? new BudgetError({ reason: error }) : error
          )
        })
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
      observe: (signal) =>
        tell(signal.pool ?? signal.reservation?.pool ?? defaultPool, (pool) =>
          pool.observe(signal, heldOf(signal.reservation))
        ),
      cooldown: ({ pool: name, reason, reservation, retryAfter }) => {
        const millis = Duration.toMillis(
          retryAfter === undefined
            ? reason === "overload"
              ? Duration.zero
              : defaultPause
            : Duration.fromInputUnsafe(retryAfter)
        )
        return tell(name ?? reservation?.pool ?? defaultPool, (pool) =>
          pool.pause({ reason, millis, charge: reservation?.charge })
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

const invalid = (option: string, expected: string, value: unknown): Effect.Effect<never> =>
  Effect.die(new RangeError(`Budget.reserve: ${option}: expected ${expected}, got ${value}`))
