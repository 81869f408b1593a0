/** The budget service: it finds the pool of a call, and hands out reservations. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"
import * as Scheduler from "effect/Scheduler"
import * as Scope from "effect/Scope"
import { BudgetStore, opener } from "../sharing/port.ts"
import * as SyncForm from "../domain/syncForm.ts"
import { latest, observerOf, tickOf } from "./observer.ts"
import { monotonic } from "../domain/input/clock.ts"
import * as Lru from "../domain/input/lru.ts"
import { yielding } from "../domain/stepwise.ts"
import { check } from "../domain/input/checks.ts"
import type * as Limits from "../Limits.ts"
import { BudgetError, TooManyPools } from "./errors.ts"
import { checkLive, forecast as forecastSteps, prepareLive } from "./forecast/forecast.ts"
import type * as Forecast from "./forecast/models.ts"
import * as Learned from "./learned.ts"
import { countsOf } from "./metrics.ts"
import {
  type BudgetStatus,
  type Cooldown,
  counting,
  type Foreseen,
  type GovernedOptions,
  type Options as BudgetOptions,
  type PauseOptions,
  type RateLimitSignal,
  type Reservation,
  type ReserveOptions,
  type ResizeOptions,
  ReviewAt,
  type Verdict
} from "./models.ts"
import * as Options from "./options.ts"
import { defaultPool, maxIdlePools, nameIn } from "./options.ts"
import { Pool } from "./pool.ts"
import type { PoolOptions } from "./opening.ts"
import { type Ask, awaited } from "./asking.ts"
import { Entry } from "./entry.ts"
import { never } from "./foresee.ts"
import { handOut, pauseOf, readingsOf } from "./reservation.ts"
import { ClosedPools } from "./closedPools.ts"
import { statusOf } from "./status.ts"
import * as Waker from "./waker.ts"

type CommonOptions = Omit<PoolOptions, "name" | "kind" | "limits" | "earlier" | "counts" | "denied" | "idled">

/** The maximum number of names that are warned about. */
const maxWarned = 100

/**
 * How long to wait before searching for an idle pool again, unless the last call of a pool ends first. A later search may
 * succeed because a pause has ended.
 */
const busyMillis = 100

/**
 * The pools of a budget. Those that the limits name exist from the start, others from their first call on. There are at most
 * `maxPools` others: idle ones are closed to make room.
 */
class OpenPools {
  readonly byName = new Map<string, Pool>()
  /** The pools that the limits do not name, the least recently used first. */
  private readonly unnamed = new Map<string, Pool>()
  private readonly shedder: Lru.Shedder<string, Pool>
  private readonly closedPools = new ClosedPools()
  /** How many pools were opened. A pool that is opened again has another number, and is another process in its store. */
  private opened = 0
  readonly sets: ReturnType<typeof Options.parse>
  private readonly shared: CommonOptions
  private readonly now: () => number
  private readonly context: Context.Context<never>
  /** How kinds of pools were resized: pools that open later get the same. */
  private readonly changed = new Map<string, Pick<ResizeOptions, "limits" | "concurrency">>()
  private readonly warned = new Set<string>()
  /** Until when all pools count as in use, because a search has found no idle one. */
  private busyUntil = 0
  /** Whether the scope of the budget has closed. Then no pool opens. */
  isClosed = false

  constructor(
    sets: ReturnType<typeof Options.parse>,
    shared: CommonOptions,
    context: Context.Context<never>,
    learned: Learned.Learned | undefined
  ) {
    this.sets = sets
    this.shared = shared
    this.now = monotonic(shared.clock)
    this.context = context
    this.shedder = new Lru.Shedder(this.unnamed, this.mayClose, this.closePool)
    const age = learned === undefined ? 0 : Math.max(0, this.shared.clock.currentTimeMillisUnsafe() - learned.at)
    const at = this.now() - age
    for (const entry of learned?.pools ?? []) {
      const snapshot = { at, until: at, memory: Learned.memoryOf(entry), levels: {}, used: {} }
      this.closedPools.put(entry.pool, { kind: undefined, snapshot, counting: undefined }, this.now())
    }
    for (const name of sets.known) this.open(name)
  }

  /** Opens a pool; undefined if there are too many. */
  private open(name: string, kind = name): Pool | undefined {
    const isGiven = this.sets.known.includes(name)
    if (!isGiven && !this.makesRoom()) return undefined
    if (!isGiven) this.warn(kind, this.sets.doubtOf(kind, this.unused))
    const { concurrency = this.shared.concurrency, limits = this.sets.limitsOf(kind) } = this.changed.get(kind) ?? {}
    const counts = countsOf(name, this.context)
    const id = `${this.shared.id}.${this.opened++}`
    const earlier = this.closedPools.take(name)
    const { idled } = this
    const denied = () => this.denied(pool)
    const pool = new Pool({ ...this.shared, id, name, kind, limits, concurrency, earlier, counts, denied, idled })
    this.byName.set(name, pool)
    if (!isGiven) this.unnamed.set(name, pool)
    return pool
  }

  /** All pools. Those without a call so far come last. */
  get usedFirst(): ReadonlyArray<Pool> {
    return Array.from(this.byName.values()).sort((a, b) => Number(a.isUnused) - Number(b.isUnused))
  }

  /** The pools that the limits name and no call has used. */
  private get unused(): ReadonlyArray<string> {
    return this.sets.known.filter((name) => this.byName.get(name)?.isUnused)
  }

  /** Warns of a name, once. */
  private warn(name: string, text: string | undefined): void {
    if (text === undefined || this.warned.has(name) || this.warned.size >= maxWarned) return
    this.warned.add(name)
    this.shared.after(0, Effect.logWarning(text))
  }

  /** Makes room for one more pool. False if all are in use. */
  private makesRoom(): boolean {
    const { unnamed, shedder } = this
    const { maxPools } = this.sets
    shedder.shed(Math.min(maxIdlePools, maxPools) - 1)
    if (unnamed.size < maxPools) return true
    const now = this.now()
    if (now < this.busyUntil) return false
    shedder.shed(maxPools - 1, unnamed.size)
    if (unnamed.size < maxPools) return true
    this.busyUntil = now + busyMillis
    return false
  }

  /** The last call of a pool has ended, so that a search may find it idle. */
  private readonly idled = (): void => {
    this.busyUntil = 0
  }

  /** A pool that was resized by its own name stays, because a new one of its kind would get other limits. */
  private readonly mayClose = (pool: Pool): boolean =>
    pool.isIdle && !this.changed.has(pool.name) && this.closedPools.hasRoom(this.now())

  /** Closes a pool and remembers what it learned and used. */
  private readonly closePool = (pool: Pool): void => {
    const closed = pool.closedPool
    if (closed !== undefined) this.closedPools.put(pool.name, closed, this.now())
    this.byName.delete(pool.name)
    pool.shutDown()
    pool.options.counts.forget()
    if (closed === undefined) this.shared.after(0, pool.leave)
  }

  /** Closes the pool of an account whose calls were all denied: its credential may be invented. */
  private denied(pool: Pool): void {
    const isOfAccount = pool.name !== pool.options.kind && this.unnamed.has(pool.name)
    if (!isOfAccount || this.isClosed || !this.mayClose(pool)) return
    this.unnamed.delete(pool.name)
    this.closePool(pool)
  }

  /** What is known about limits, and for pools that were not used again, what an earlier budget had learned. */
  get learned(): Learned.Learned {
    const known = Array.from(this.byName, ([name, { learned }]) => (learned ? [Learned.entryOf(name, learned)] : []))
    const earlier = Array.from(this.closedPools.learned, ([name, { snapshot }]) =>
      Learned.entryOf(name, snapshot.memory!)
    )
    return {
      at: this.shared.clock.currentTimeMillisUnsafe(),
      pools: [...known.flat(), ...earlier].slice(0, Learned.maxPools)
    }
  }

  /** Changes a pool, and all accounts' pools of its kind. */
  resize(name: string | undefined, limits: Limits.Limits | undefined, concurrency: number | undefined): void {
    if (this.isClosed) return
    const kind = name !== undefined && this.byName.has(name) ? name : this.sets.poolNamed("resize", name)
    const pool = this.existing(kind)
    if (pool === undefined) throw this.tooMany(kind)
    const before = this.changed.get(kind)
    this.changed.set(kind, {
      limits: limits ?? before?.limits,
      concurrency: concurrency ?? before?.concurrency
    })
    pool.resize(limits, concurrency)
    for (const each of this.byName.values()) {
      if (each !== pool && each.options.kind === kind) each.resize(limits, concurrency)
    }
  }

  /** Schedules another prediction of a wait. */
  review(entry: Entry, at: number | undefined): void {
    if (at === undefined || entry.queueing.maxWait === Infinity) return
    const left = at - this.shared.clock.currentTimeMillisUnsafe()
    const review = Effect.sync(() => entry.pool.review(entry))
    if (left > 0) this.shared.after(left, review)
  }

  /** The pool that an update names; undefined if there can be none of that name. */
  existing(name = defaultPool): Pool | undefined {
    const found = this.byName.get(name)
    if (found !== undefined || this.isClosed) return found
    const kind = this.closedPools.kindOf(name)
    if (kind !== undefined || this.sets.isPool(name)) return this.open(name, kind)
    const meant = this.sets.meantBy(name)
    if (meant !== undefined)
      this.warn(
        name,
        `An update of the pool "${name}" was ignored, because no such pool exists: did you mean "${meant}"?`
      )
    return undefined
  }

  /** The pool of a reservation, or an error if all pools are in use. Throws if the budget does not know the name. */
  of({ account, model, pool }: ReserveOptions = {}, operation = "reserve"): Pool | BudgetError {
    const named = pool ?? (model === undefined ? undefined : this.sets.poolOf(model))
    const name = nameIn(account, named ?? defaultPool)
    const found = this.byName.get(name)
    if (found === undefined) return this.open(name, this.sets.poolNamed(operation, named)) ?? this.tooMany(name)
    // It is now the most recently used.
    if (this.unnamed.delete(name)) this.unnamed.set(name, found)
    return found
  }

  private tooMany(pool: string): BudgetError {
    return new BudgetError({ reason: new TooManyPools({ pool, maxPools: this.sets.maxPools }) })
  }

  get close(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.isClosed = true
      for (const pool of this.byName.values()) pool.shutDown()
      return Effect.forEach(this.byName.values(), ({ leave }) => leave, { concurrency: "unbounded", discard: true })
    })
  }
}

export const make = (options: BudgetOptions) => {
  const sets = Options.parse(options)
  return Effect.gen(function* () {
    const context = yield* Effect.context<never>()
    const own = yield* opener
    const ticks = yield* Effect.acquireRelease(PubSub.sliding<void>(1), PubSub.shutdown)
    const wake = Waker.make(yield* Scheduler.Scheduler)
    const shared: CommonOptions = {
      concurrency: sets.concurrency,
      maxQueued: sets.maxQueued,
      ...own,
      sharing: yield* BudgetStore,
      wake,
      changed: tickOf(ticks, wake),
      observer: observerOf(context)
    }
    const pools = new OpenPools(sets, shared, context, options.learned)
    yield* Effect.addFinalizer(() => pools.close)
    const status = Effect.sync((): BudgetStatus => ({
      pools: Object.fromEntries(pools.usedFirst.map((pool) => [pool.name, statusOf(pool)]))
    }))
    return {
      reserve: SyncForm.attach(reserve(pools), ask(pools)),
      foresee: foresee(pools),
      forecast: forecast(pools),
      observe: observe(pools),
      pause: pause(pools),
      cooldown: cooldown(pools),
      resize: resize(pools),
      poolOf: sets.poolOf,
      status,
      changes: latest(ticks, status),
      learned: Effect.sync(() => pools.learned)
    }
  })
}

// -----------------------------------------------------------------------------
// Operations
// -----------------------------------------------------------------------------

/** Asks for admission: the call is admitted at once, refused, or queued. */
const ask =
  (pools: OpenPools): Ask =>
  (context, estimate, options) => {
    if (options !== undefined) check("Budget.reserve", Options.reserveCheck, options)
    Options.checkCounted(context)
    if (pools.isClosed) return Effect.interrupt
    const pool = pools.of(options)
    if (pool instanceof BudgetError) return Effect.fail(pool)
    const entry = pool.admit(estimate, Options.queueingOf(context, options), options?.[counting])
    if (entry.phase === "waiting") pools.review(entry, Context.get(context, ReviewAt))
    return entry
  }

/** A caller that is interrupted before it has its reservation holds nothing. */
const reserve =
  (pools: OpenPools) =>
  (estimate: Limits.Estimate, options?: GovernedOptions): Effect.Effect<Reservation, BudgetError, Scope.Scope> => {
    const admitted = Effect.uninterruptibleMask((restore) =>
      Effect.withFiber<Entry, BudgetError, Scope.Scope>(({ context }) => {
        const asked = ask(pools)(context, estimate, options)
        if (!(asked instanceof Entry)) return asked
        const scope = Context.getUnsafe(context, Scope.Scope)
        if (asked.isOpen) return endingWith(scope, asked)
        const waited = Effect.onExitPrimitive(restore(awaited(asked, context)), (exit) => {
          if (exit._tag !== "Success") asked.leave(exit)
          return undefined
        })
        return Effect.flatMap(waited, (entry) => endingWith(scope, entry))
      })
    )
    return Effect.map(admitted, handOut)
  }

const foresee =
  (pools: OpenPools) =>
  (estimate: Limits.Estimate, options?: GovernedOptions): Effect.Effect<Foreseen> =>
    Effect.withFiber(({ context }) => {
      if (options !== undefined) check("Budget.foresee", Options.reserveCheck, options)
      Options.checkCounted(context)
      const pool = pools.isClosed ? undefined : pools.of(options, "foresee")
      if (pool === undefined) return Effect.interrupt
      if (pool instanceof Pool) {
        return Effect.succeed(pool.foresee(estimate, Options.queueingOf(context, options), options?.[counting]))
      }
      const refusal = pool.reason as TooManyPools
      return Effect.succeed(never(refusal.pool, refusal))
    })

const forecast =
  (pools: OpenPools) =>
  (workload: Forecast.Workload, options: Forecast.LiveOptions = {}): Effect.Effect<Forecast.Forecast, BudgetError> =>
    Effect.withFiber(({ context }) => {
      checkLive("Budget.forecast", workload, options)
      const { account, model, pool: named } = options
      const pool = pools.isClosed ? undefined : pools.of({ account, model, pool: named }, "forecast")
      if (pool === undefined) return Effect.interrupt
      if (pool instanceof BudgetError) return Effect.fail(pool)
      const { priority } = Options.queueingOf(context)
      return yielding(forecastSteps(prepareLive(pool.view, workload, options, priority)))
    })

const observe =
  (pools: OpenPools) =>
  (signal: RateLimitSignal): Effect.Effect<void> =>
    Effect.suspend(() => {
      check("Budget.observe", Options.observeCheck, signal)
      const { pool, reservation, ...said } = signal
      if (reservation !== undefined) return reservation.observe(said)
      pools.existing(pool)?.observe(readingsOf(said))
      return Effect.void
    })

const pause =
  (pools: OpenPools) =>
  (options: PauseOptions): Effect.Effect<void> =>
    Effect.sync(() => {
      check("Budget.pause", Options.pauseCheck, options)
      const { duration, pool, reason = "rateLimit" } = options
      pools.existing(pool)?.pause(reason, pauseOf(duration))
    })

const cooldown =
  (pools: OpenPools) =>
  (cooldown: Cooldown): Effect.Effect<Verdict> =>
    Effect.suspend(() => {
      check("Budget.cooldown", Options.cooldownCheck, cooldown)
      const { pool, reservation, ...failure } = cooldown
      if (reservation !== undefined) return reservation.fail(failure)
      const { reason, retryAfter = 0 } = failure
      pools.existing(pool)?.pause(reason, pauseOf(retryAfter))
      return Effect.succeed("isolated")
    })

const resize =
  (pools: OpenPools) =>
  (options: ResizeOptions): Effect.Effect<void> =>
    Effect.sync(() => {
      check("Budget.resize", Options.resized, options)
      const { concurrency, limits, pool } = options
      pools.resize(pool, limits, concurrency)
    })

/** Ends a reservation with a scope. */
const endingWith = (scope: Scope.Scope, entry: Entry): Effect.Effect<Entry> =>
  Effect.as(
    Scope.addFinalizerExit(scope, (exit) => Effect.sync(() => entry.leave(exit))),
    entry
  )
