/**
 * Where a budget keeps its buckets: the memory of this process, or a store that many processes share.
 *
 * The queue of waiters and the semaphore belong to a process; the levels, cooldowns and learned limits belong to a
 * store. A store applies the steps of one pool atomically and reads its own clock, so that processes need not agree on
 * the time.
 *
 * A store of your own says in `drain` how a pool asks it: with {@link inBatches}, as anything that takes time. Only one
 * whose steps take none is asked {@link atOnce}. `floodgate/testing` exports the contract suite that every store must pass.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { MakeDrain } from "./budgetStore/drain.ts"
import { memory } from "./budgetStore/memory.ts"
import type * as Ledger from "./internal/ledger.ts"
import type * as Limits from "./Limits.ts"
import type { Pushback } from "./LlmError.ts"

export * from "./budgetStore/atOnce.ts"
export type { MakeDrain } from "./budgetStore/drain.ts"
export * from "./budgetStore/inBatches.ts"
export * from "./budgetStore/memory.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * What a store holds for one admitted call. `id` counts up in the order of admission.
 *
 * @category models
 * @since 0.1.0
 */
export type Held = Ledger.Held

/**
 * Why a charge is not admitted now: it must wait `millis` for `dimension` (`undefined`: for the end of a cooldown or
 * for a change elsewhere), a quota has too little left, or a store that is away cannot say.
 *
 * @category models
 * @since 0.1.0
 */
export type Blocked = Exclude<Ledger.Decision, { readonly _tag: "Granted" }> | StoreUnavailable

/**
 * One call that asks to be admitted. Higher priority goes first.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ask {
  readonly charge: Limits.Charge
  readonly priority: number
}

/**
 * The answer to `take`: what was granted, in order, and what blocks the first that was not.
 *
 * @category models
 * @since 0.1.0
 */
export interface Taken {
  readonly granted: ReadonlyArray<Held>
  readonly blocked: Blocked | undefined
}

/**
 * A pause of a whole pool. `charge` is what the rejected call had reserved; with it the store can tell whether the local
 * view explains the rejection. `takenAt` is when it was admitted; with it the store can tell whether the rejection says
 * anything new.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pause {
  readonly reason: Pushback
  readonly millis: number
  readonly charge: Limits.Charge | undefined
  readonly takenAt?: number | undefined
}

/**
 * A pool as its store sees it. Times are milliseconds of the store's clock; `now` is the moment of the snapshot.
 *
 * @category models
 * @since 0.1.0
 */
export interface Snapshot {
  readonly ledger: Ledger.Ledger
  readonly now: number
}

/**
 * What a pool is opened with.
 *
 * @category options
 * @since 0.1.0
 */
export interface PoolOptions {
  readonly limits: Limits.Limits
  /** Calls in flight at once, in all processes together; `Infinity` where nothing bounds them. */
  readonly concurrency: number
  /** The part of each burst that is kept back. */
  readonly headroom: number
  /** A slow start of the rates, from a part of them to the whole. */
  readonly ramp: { readonly from: number; readonly millis: number } | undefined
}

/**
 * A store that cannot be reached, whose state cannot be read, or that breaks: then `cause` is what it threw.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>("floodgate/BudgetStore/StoreUnavailable")(
  "StoreUnavailable",
  { pool: Schema.String, cause: Schema.Defect() }
) {
  /** The store may be back at the next attempt. */
  get isRetryable(): boolean {
    return true
  }
  override get message(): string {
    return `The budget's store did not answer for pool "${this.pool}": check that it is reachable, or choose what happens when it is away`
  }
}

/**
 * The steps of a store that takes no time, as plain functions. Its clock is the monotonic clock of this process: the budget
 * tells from `takenAt` how long a call waited.
 *
 * @category models
 * @since 0.1.0
 */
export interface Immediate {
  /** Admits one charge, or says what blocks it. */
  readonly take: (charge: Limits.Charge) => Held | Blocked
  readonly settle: (held: Held, used: Limits.Charge) => void
}

/**
 * The buckets of one pool.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolStore {
  /**
   * The rules as last heard: they may have been learned or changed, by another process too. The same object as long as
   * they are the same.
   */
  readonly rules: () => Limits.Rules
  /**
   * Admits the longest prefix of the calls that fits now, each in all its dimensions or not at all. The first that does
   * not fit then waits at the store, where it has its place among the heads of other processes, until the next `take`;
   * one of no calls says that nobody waits here any more.
   */
  readonly take: (asks: ReadonlyArray<Ask>) => Effect.Effect<Taken, StoreUnavailable>
  /** Replaces what was held by what was used. A call that succeeded lets a probed pool grow. */
  readonly settle: (held: Held, used: Limits.Charge, succeeded: boolean) => Effect.Effect<void, StoreUnavailable>
  /** Moves the view toward the provider's. */
  readonly observe: (signal: Limits.Signal, answered: Held | undefined) => Effect.Effect<void, StoreUnavailable>
  readonly pause: (pause: Pause) => Effect.Effect<void, StoreUnavailable>
  /** Changes what is given, for all processes; here `rules` says so at once. */
  readonly resize: (change: {
    readonly limits: Limits.Limits | undefined
    readonly concurrency: number | undefined
  }) => Effect.Effect<void, StoreUnavailable>
  /**
   * Goes back to the limits that are configured, unless limits were told less than so long ago: by a response, or by
   * whoever changed them. In one step, so that nothing is undone that another process says meanwhile; then `rules` says so.
   */
  readonly unlearn: (untoldMillis: number) => Effect.Effect<void, StoreUnavailable>
  readonly snapshot: Effect.Effect<Snapshot, StoreUnavailable>
  /**
   * How a pool asks it: {@link inBatches}, which calls the store's `take` and `settle`, or {@link atOnce} where steps take
   * no time, which calls the steps that it was given. Whoever replaces those two in a store of that kind replaces this.
   */
  readonly drain: MakeDrain
}

// -----------------------------------------------------------------------------
// Service
// -----------------------------------------------------------------------------

/**
 * The store of a budget's buckets. Without a layer it is the memory of this process.
 *
 * @category services
 * @since 0.1.0
 */
export const BudgetStore = Context.Reference<BudgetStore>("floodgate/BudgetStore/BudgetStore", {
  defaultValue: () => memory
})

/**
 * Opens pools. The scope is the budget's: a pool closes with it.
 *
 * @category models
 * @since 0.1.0
 */
export interface BudgetStore {
  readonly open: (pool: string, options: PoolOptions) => Effect.Effect<PoolStore, StoreUnavailable, Scope.Scope>
}
