/** What a governor knows of a pool: how many of its calls usually run, and whether its provider can be reached. */
import type * as Context from "effect/Context"
import { type CallCounts, callCountsOf } from "../budget/metrics.ts"
import { maxIdlePools, nameIn } from "../budget/options.ts"
import * as Lru from "../domain/input/lru.ts"
import type * as Accounting from "../Accounting.ts"
import type { TokenBudget } from "../Budget.ts"
import type { Call } from "./models.ts"

/** As slow as the estimator's own averages: the last ten admissions or so count. */
const weight = 1 / 8

/** Longer than a server that starts together with its clients needs. */
const refusedMillis = 60_000

/** How far a call got: to a provider that answered, to a name that does not exist, or to a refused connection. */
export type Reach = "answered" | "unknown" | "refused"

export class PoolRecord {
  readonly name: string
  /** The name without an account. */
  readonly kind: string
  readonly counts: CallCounts
  private open = 0
  /** The calls that are under way, those that wait or rest between attempts included. */
  users = 0
  /** Whether all that was heard of it is that its credential is refused; undefined where nothing was heard. */
  isDenied: boolean | undefined = undefined
  private refusedSince: number | undefined = undefined
  /** How many calls usually run at the same time: a moving average over admissions, at least 1. */
  usual = 1
  /** Whether the provider has ever answered. */
  hasAnswered = false

  constructor(name: string, kind: string, context: Context.Context<never>) {
    this.name = name
    this.kind = kind
    this.counts = callCountsOf(name, context).join()
  }

  began(): void {
    this.open++
    this.usual += (this.open - this.usual) * weight
  }

  ended(): void {
    this.open--
  }

  get isIdle(): boolean {
    return this.users === 0 && this.open === 0
  }

  /**
   * Whether the address is wrong, after a call that failed. A provider that has answered before is down, and is waited for.
   * Before any answer, a name that does not exist is a wrong address, and so is one that has refused connections for a
   * minute. (A resolver that fails for the moment, `EAI_AGAIN`, is no wrong address.)
   */
  isWrongAddress(reach: Reach | undefined, now: number): boolean {
    if (reach === "answered") this.hasAnswered = true
    if (this.hasAnswered) return false
    if (reach !== "refused") return reach === "unknown"
    this.refusedSince ??= now
    return now - this.refusedSince >= refusedMillis
  }
}

/** The pools that the calls of a governor were made in. Those that no call is in make room. */
export class PoolRecords {
  private readonly byName = new Map<string, PoolRecord>()
  private readonly shedder: Lru.Shedder<string, PoolRecord>
  private readonly context: Context.Context<never>

  /** The registry of the context has the metrics. */
  constructor(context: Context.Context<never>) {
    this.context = context
    this.shedder = new Lru.Shedder(
      this.byName,
      ({ isIdle }) => isIdle,
      ({ counts }) => counts.leave()
    )
  }

  /** The pool of a call: what the budget says, else the class of models that share their limits. */
  of(budget: TokenBudget["Service"], accounting: Accounting.Accounting, call: Call): PoolRecord {
    const { account, model } = call
    const named = budget.poolOf(model)
    const kind = named === model ? (accounting.poolOf?.(model) ?? named) : named
    const name = nameIn(account, kind)
    const found = this.byName.get(name)
    if (found === undefined) this.shedder.shed(maxIdlePools - 1)
    const pool = found ?? new PoolRecord(name, kind, this.context)
    // Used last.
    this.byName.delete(name)
    this.byName.set(name, pool)
    return pool
  }

  /** A call has left a pool. An account of which all calls were denied leaves nothing behind: its credential may have been invented. */
  left(pool: PoolRecord): void {
    pool.users--
    if (pool.isDenied !== true || !pool.isIdle || pool.name === pool.kind || this.byName.get(pool.name) !== pool) return
    this.byName.delete(pool.name)
    pool.counts.leave()
  }
}
