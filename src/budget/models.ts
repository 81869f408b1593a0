/**
 * What goes into a budget and what comes out: options, reservations, signals, status.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Pushback } from "../LlmError.ts"
import type * as Limits from "../Limits.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * How a budget is made.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * The provider's limits: one set that every pool gets, or a set per pool. A pool without limits learns them: its
   * first call goes alone, and the response's headers set them. Where each pool has its own, a reservation must name
   * the `model` or the `pool`; a name that is neither given nor a model's is refused, because nothing would limit it.
   */
  readonly limits?: Limits.Limits | Limits.Pools | undefined
  /**
   * Calls in flight at once, per pool.
   *
   * @default Infinity: the provider's limits decide. Set it where the provider limits connections or your machine does.
   */
  readonly concurrency?: number | undefined
  /**
   * The part of each burst that is kept back, 0 to 0.5. It shrinks while the provider confirms the local view.
   *
   * @default 0.05: two clocks and a network never agree to the token, and a bucket that spends to the last one loses races of
   * milliseconds.
   */
  readonly headroom?: number | undefined
  /**
   * Callers that may wait, per pool; the next fails at once with `QueueFull`.
   *
   * @default Infinity: a waiter costs about 1.5 KB, and losing work costs more.
   */
  readonly maxQueued?: number | undefined
  /**
   * A slow start for providers that limit how fast usage grows: rates begin at the part `from` and reach the whole after
   * `over`. A provider's ramp error switches the same on by itself.
   *
   * @default no slow start
   */
  readonly ramp?: { readonly from: number; readonly over: Duration.Input } | undefined
}

/**
 * How one reservation is queued.
 *
 * @category options
 * @since 0.1.0
 */
export interface ReserveOptions {
  /** The fairness key. @default {@link Agent} */
  readonly agent?: string | undefined
  /** The agent's share of service relative to others, 0.001 to 1000. @default 1 */
  readonly weight?: number | undefined
  /** Higher goes first. @default {@link Priority} */
  readonly priority?: number | undefined
  /**
   * The longest wait; more fails with `WaitTooLong`, at once where it can be foreseen. Whatever a store elsewhere takes to
   * answer counts as waiting: with one, 0 admits nobody.
   *
   * @default no bound
   */
  readonly maxWait?: Duration.Input | undefined
  /** The model that is called: the limits of its pool apply. @default unknown */
  readonly model?: string | undefined
  /**
   * The pool whose limits apply. Where limits are given per pool, one of those, a class of Claude's models as
   * `Presets.poolOf` names it, or what a `poolOf` of your own gave for a model.
   *
   * @default the pool of `model`, or "default", which is refused where limits are given per pool and none is called so
   */
  readonly pool?: string | undefined
  /** Stand first among the agent's own waiters: for a retry, which was already served once. @default false */
  readonly first?: boolean | undefined
}

// -----------------------------------------------------------------------------
// References
// -----------------------------------------------------------------------------

/**
 * The agent on whose behalf code runs, so that code deep inside an agent need not pass it.
 *
 * @category references
 * @since 0.1.0
 */
export const Agent = Context.Reference<string>("floodgate/Budget/Agent", { defaultValue: () => "default" })

/**
 * The priority of the calls that code makes. Higher goes first.
 *
 * @category references
 * @since 0.1.0
 */
export const Priority = Context.Reference<number>("floodgate/Budget/Priority", { defaultValue: () => 0 })

// -----------------------------------------------------------------------------
// Reservations, signals, status
// -----------------------------------------------------------------------------

/**
 * An estimate that was admitted. It is held until it is settled, refunded, or its scope closes; the first wins.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reservation {
  readonly pool: string
  readonly agent: string
  /** What is held, per limited dimension. */
  readonly charge: Limits.Charge
  /** How long the call stood in the queue. */
  readonly waited: Duration.Duration
  /** The dimension that it waited for last, if it had to wait for one. */
  readonly binding: Limits.Dimension | undefined
  /**
   * Replaces the estimate by what was used: the rest is given back, more becomes debt. A dimension that the usage leaves
   * out keeps its estimate. With `"failure"` the call does not count as a success of the provider.
   */
  readonly settle: (usage: Limits.Usage, outcome?: "success" | "failure") => Effect.Effect<void>
  /** Gives everything back: the call used nothing. */
  readonly refund: Effect.Effect<void>
}

/**
 * What a response says about the limits, and which call it answered.
 *
 * @category models
 * @since 0.1.0
 */
export interface RateLimitSignal extends Limits.Signal {
  /** The reservation of the call that was answered; with it the view can be raised, too. */
  readonly reservation?: Reservation | undefined
  /** One that is nobody's is ignored. @default the reservation's pool, or "default" */
  readonly pool?: string | undefined
}

/**
 * The provider said no: nobody in the pool is admitted for a while.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cooldown {
  /**
   * `"rateLimit"` and `"ramp"` pause the pool; `"overload"` is the provider's load: fewer calls in flight, and a rest of 5
   * to 20 s after each call that was sent alone and failed so.
   */
  readonly reason: Pushback
  /**
   * An hour is believed at most: what is closed for longer is probed once an hour.
   *
   * @default 2 s for rate limits, the first step of the default retry policy; none for overload
   */
  readonly retryAfter?: Duration.Input | undefined
  /** The reservation of the rejected call: tells whether the local view explains the rejection. */
  readonly reservation?: Reservation | undefined
  /**
   * What the rejected call used: its reservation is settled to that in the same step, so that what it frees lets nobody
   * out before the pause.
   *
   * @default the reservation is settled already
   */
  readonly usage?: Limits.Usage | undefined
  /** One that is nobody's is ignored. @default the reservation's pool, or "default" */
  readonly pool?: string | undefined
}

/**
 * One dimension of a pool as it stands. Amounts in the dimension's unit.
 *
 * @category models
 * @since 0.1.0
 */
export interface DimensionStatus {
  /** What may be taken now; negative is debt. */
  readonly level: number
  readonly capacity: number
  /** Refill per second; 0 for a quota. */
  readonly perSecond: number
}

/**
 * A waiter: for what it waits, and how long still.
 *
 * @category models
 * @since 0.1.0
 */
export interface WaiterStatus {
  readonly agent: string
  readonly priority: number
  readonly charge: Limits.Charge
  readonly waited: Duration.Duration
  readonly expected: Duration.Duration
  readonly dimension: Limits.Dimension | undefined
}

/**
 * A pool as it stands.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolStatus {
  readonly dimensions: Limits.PerDimension<DimensionStatus>
  readonly inFlight: number
  /** Calls that may be in flight now: less than the concurrency while a cooldown is probed. */
  readonly allowed: number
  readonly queued: number
  /** The first waiters in the order of service, at most 32. */
  readonly waiting: ReadonlyArray<WaiterStatus>
  readonly cooldown: { readonly reason: Pushback; readonly left: Duration.Duration } | undefined
  /** The part of the rates that is used: below 1 after rejections that the local view did not explain. */
  readonly pace: number
  /** What the first waiter waits for. */
  readonly binding: Limits.Dimension | undefined
  /** Whether the store answered; without it the figures are this process's own. */
  readonly storeAvailable: boolean
}

/**
 * All pools as they stand.
 *
 * @category models
 * @since 0.1.0
 */
export interface BudgetStatus {
  readonly pools: Readonly<Record<string, PoolStatus>>
}
