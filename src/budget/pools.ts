/** The pools of a budget: which of them are open, and with which limits. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { InFlightLimit } from "../domain/concurrency.ts"
import { monotonic } from "../domain/input/clock.ts"
import type * as Limits from "../Limits.ts"
import { ClosedPools } from "./closedPools.ts"
import type { Entry } from "./entry.ts"
import { BudgetError, TooManyPools } from "./errors.ts"
import * as Learned from "./learned.ts"
import { countsOf } from "./metrics.ts"
import type { ReserveOptions } from "./models.ts"
import type { PoolOptions } from "./opening.ts"
import type * as Options from "./options.ts"
import { Pool } from "./pool.ts"
import { defaultPool, maxIdlePools, nameIn, PoolRegistry } from "./registry.ts"

/** How a kind of pools was resized. */
interface PoolChange {
  readonly limits: Limits.Limits | undefined
  readonly concurrency: InFlightLimit | undefined
}

/** The options that the pools of a budget share. */
export type CommonOptions = Omit<PoolOptions, "name" | "kind" | "limits" | "earlier" | "counts" | "denied" | "idled">

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
export class OpenPools {
  readonly byName = new Map<string, Pool>()
  /** The pools that the limits do not name. */
  private readonly unnamed = new PoolRegistry<Pool>(
    (pool) => this.mayClose(pool),
    (pool) => this.closePool(pool)
  )
  private readonly closedPools = new ClosedPools()
  /** How many pools were opened. A pool that is opened again has another number, and is another process in its store. */
  private opened = 0
  readonly sets: ReturnType<typeof Options.parse>
  private readonly shared: CommonOptions
  private readonly now: () => number
  private readonly context: Context.Context<never>
  /** The changes of kinds of pools that were resized: pools that open later get the same. */
  private readonly changed = new Map<string, PoolChange>()
  /** The concurrency of pools for which none was changed. */
  private concurrency: InFlightLimit
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
    this.concurrency = shared.concurrency
    this.now = monotonic(shared.clock)
    this.context = context
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
    const { concurrency, limits } = this.settingsOf(kind)
    const counts = countsOf(name, this.context)
    const id = `${this.shared.id}.${this.opened++}`
    const earlier = this.closedPools.take(name)
    const { idled } = this
    const denied = () => this.isClosed || this.unnamed.denied(pool)
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
    const { unnamed } = this
    const { maxPools } = this.sets
    unnamed.shed(Math.min(maxPools, maxIdlePools) - 1)
    if (unnamed.size < maxPools) return true
    const now = this.now()
    if (now < this.busyUntil) return false
    unnamed.shed(maxPools - 1, unnamed.size)
    if (unnamed.size < maxPools) return true
    this.busyUntil = now + busyMillis
    return false
  }

  /** The last call of a pool has ended, so that a search may find it idle. */
  private readonly idled = (): void => {
    this.busyUntil = 0
  }

  /** A pool that was resized by its own name stays, because a new one of its kind would get other limits. */
  private mayClose(pool: Pool): boolean {
    return pool.isIdle && !this.changed.has(pool.name) && this.closedPools.hasRoom(this.now())
  }

  /** Closes a pool and remembers what it learned and used. */
  private closePool(pool: Pool): void {
    const closed = pool.closedPool
    if (closed !== undefined) this.closedPools.put(pool.name, closed, this.now())
    this.byName.delete(pool.name)
    pool.shutDown()
    pool.options.counts.forget()
    if (closed === undefined) this.shared.after(0, pool.leave)
  }

  /** The known limits, and for pools that were not used again, those that an earlier budget had learned. */
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
  resize(name: string | undefined, limits: Limits.Limits | undefined, concurrency: InFlightLimit | undefined): void {
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
      if (each !== pool && each.kind === kind) this.resizeLike(each, limits, concurrency)
    }
  }

  /** Changes the concurrency of all pools, save those where it was changed by name. */
  resizeAll(concurrency: InFlightLimit): void {
    if (this.isClosed) return
    this.concurrency = concurrency
    const unnamed = this.changed.get(defaultPool)
    if (unnamed !== undefined) this.changed.set(defaultPool, { ...unnamed, concurrency: undefined })
    for (const each of this.byName.values()) {
      if (this.changed.get(each.kind)?.concurrency === undefined) this.resizeLike(each, undefined, concurrency)
    }
  }

  /** Gives a pool the limits and the concurrency again that it would have if it had not been changed by its own name. */
  restore(name: string): void {
    this.changed.delete(name)
    const pool = this.byName.get(name)
    if (pool === undefined) return
    const { concurrency, limits } = this.settingsOf(pool.kind)
    pool.resize(limits, concurrency)
  }

  /** The limits and the concurrency of pools of a kind, as they were changed last. */
  private settingsOf(kind: string) {
    const { concurrency = this.concurrency, limits = this.sets.limitsOf(kind) } = this.changed.get(kind) ?? {}
    return { concurrency, limits }
  }

  /** Changes a pool as others of its kind, save in what was changed by its own name. */
  private resizeLike(pool: Pool, limits: Limits.Limits | undefined, concurrency: InFlightLimit | undefined): void {
    const own = this.changed.get(pool.name)
    pool.resize(own?.limits ? undefined : limits, own?.concurrency ? undefined : concurrency)
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
    this.unnamed.use(name)
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
