/**
 * The options, reservations, signals and status of a budget.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { DimensionStatus } from "../pacing/status.ts"
import type { Pushback } from "../domain/signal.ts"
import type { BudgetError } from "./errors.ts"
import type { Learned } from "./learned.ts"
import type * as Limits from "../Limits.ts"
import type { Counting } from "../domain/rules.ts"

export type { DimensionStatus } from "../pacing/status.ts"

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
   * The provider's limits: one set, or a set for each pool. A pool without limits learns them: calls go out one after
   * another, then 2, 4, 8 at a time, until headers name the limits or the provider rejects calls. If each pool has its
   * own limits, a reservation must name the `model` or the `pool`. An unknown name is refused, because nothing would
   * limit it.
   */
  readonly limits?: Limits.Limits | Limits.Pools | undefined
  /**
   * Calls in flight at once, per pool.
   *
   * @default Infinity: the provider's limits decide. Set it where the provider limits connections or your machine does.
   */
  readonly concurrency?: number | undefined
  /**
   * Callers that may wait, per pool; the next fails at once with `QueueFull`.
   *
   * @default Infinity: a waiter costs about 2.5 KB, and losing work costs more.
   */
  readonly maxQueued?: number | undefined
  /**
   * The most pools beside those that `limits` names: one for each account and class of models. Beyond 1,000, those that nobody
   * uses make room, the least recently used first, and what they learned and used is remembered. If all `maxPools` are in use,
   * a call that needs another one fails with `TooManyPools`.
   *
   * @default 10_000: as many as a gateway has connections. A pool in use takes about 9 KB, its call included.
   */
  readonly maxPools?: number | undefined
  /**
   * What an earlier budget had learned, so that this one need not find it out again. With a store it is left aside: what
   * processes share is newer.
   *
   * @default nothing
   */
  readonly learned?: Learned | undefined
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
   * The longest wait. A longer one fails with `WaitTooLong`, at once if it can be foreseen.
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
  /**
   * The account with a provider that the call is made with, such as `api.openai.com/org-1`. Each has pools of its own, with
   * the limits that were given for `pool`, so that two providers, or two customers of one, never share one.
   *
   * @default none: there is only one
   */
  readonly account?: string | undefined
}

/** Options of `reserve` that only the governor passes. As symbols they are not public, and a copy of the options keeps them. */
export const first: unique symbol = Symbol("floodgate/Budget/first")
export const counting: unique symbol = Symbol("floodgate/Budget/counting")

export interface GovernedOptions extends ReserveOptions {
  /** Queues the call before the agent's other calls: a retry was already served once. */
  readonly [first]?: boolean | undefined
  /** How the provider counts limits that are written without a window. It holds for the pool from then on. */
  readonly [counting]?: Counting | undefined
}

/**
 * What of a pool changes while calls run. Whatever is left out stays as it is.
 *
 * @category options
 * @since 0.4.0
 */
export interface ResizeOptions {
  /** @default "default" */
  readonly pool?: string | undefined
  readonly limits?: Limits.Limits | undefined
  readonly concurrency?: number | undefined
}

// -----------------------------------------------------------------------------
// References
// -----------------------------------------------------------------------------

/**
 * The agent on whose behalf code runs. Code deep inside an agent need not pass it.
 *
 * **Example** (Whose calls they are)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 *
 * const call = Budget.withReservation({ tokens: 10 }, ({ agent }) => Effect.succeed(agent))
 *
 * const program = call.pipe(Effect.provideService(Budget.Agent, "researcher"), Effect.provide(Budget.layer()))
 *
 * await Effect.runPromise(program) // => "researcher"
 * ```
 *
 * @category references
 * @since 0.1.0
 */
export const Agent = Context.Reference<string>("floodgate/Budget/Agent", { defaultValue: () => "default" })

/**
 * The priority of the calls that code makes. Higher goes first.
 *
 * **Example** (A chat before the batch)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 *
 * const limits = { requests: { perSecond: 10, burst: 1 } }
 * const order: Array<string> = []
 * const call = (name: string) => Budget.withReservation({}, () => Effect.sync(() => order.push(name)))
 *
 * const program = Effect.gen(function* () {
 *   yield* call("first")
 *   const batch = call("batch")
 *   const chat = call("chat").pipe(Effect.provideService(Budget.Priority, 1))
 *   yield* Effect.all([batch, chat], { concurrency: "unbounded" })
 * })
 *
 * await Effect.runPromise(Effect.provide(program, Budget.layer({ limits })))
 * order // => ["first", "chat", "batch"]
 * ```
 *
 * @category references
 * @since 0.1.0
 */
export const Priority = Context.Reference<number>("floodgate/Budget/Priority", { defaultValue: () => 0 })

/**
 * When a wait that `maxWait` bounds is foreseen once more, in milliseconds since the epoch: a caller that would wait too long
 * by then fails with `WaitTooLong`, while it can still tell somebody. A pause or a rejection may have come since it arrived.
 */
export const ReviewAt = Context.Reference<number | undefined>("floodgate/Budget/ReviewAt", {
  defaultValue: () => undefined
})

// -----------------------------------------------------------------------------
// Reservations, signals, status
// -----------------------------------------------------------------------------

/**
 * What a response says: about the limits, and about what its call used.
 *
 * @category models
 * @since 0.4.0
 */
export interface Observation extends Limits.Signal {
  /** What the answered call used, if that is known: its reservation ends with this, as by its `settle`. @default not known yet */
  readonly usage?: Limits.Usage | undefined
}

/**
 * How a call failed.
 *
 * @category models
 * @since 0.4.0
 */
export interface FailOptions {
  /** `"rateLimit"` and `"ramp"` for a rejection (429), `"overload"` where the provider failed or could not be reached. */
  readonly reason: Pushback
  /** How long the provider asked to wait. @default none */
  readonly retryAfter?: Duration.Input | undefined
  /** What the failed call used. @default nothing */
  readonly usage?: Limits.Usage | undefined
  /** What the response says of the limits. @default what was observed for this reservation */
  readonly signal?: Limits.Signal | undefined
}

/**
 * What a failure says about the limits.
 *
 * - `"isolated"`: nothing; it concerns its own call only
 * - `"exhausted"`: the provider's bucket was empty; the whole pool slows down
 * - `"ramp"`: usage grows too fast; growth is bounded
 * - `"outage"`: the provider does not work; one call at a time probes it
 * - `"impossible"`: the call is larger than the provider's limit
 *
 * @category models
 * @since 0.4.0
 */
export type Verdict = "isolated" | "exhausted" | "ramp" | "outage" | "impossible"

/**
 * An estimate that was admitted. It is held until it is settled, fails, is refunded, or its scope closes; the first of these
 * counts.
 *
 * It is a plain object whose members need no `this`: it can be spread, decorated and taken apart.
 *
 * **Example** (A layer that counts what is settled)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 *
 * let settled = 0
 * const counting = Layer.effect(
 *   Budget.TokenBudget,
 *   Effect.map(Budget.TokenBudget, (budget) => ({
 *     ...budget,
 *     reserve: (estimate, options) =>
 *       Effect.map(budget.reserve(estimate, options), (reservation) => ({
 *         ...reservation,
 *         settle: (usage, outcome) => Effect.tap(reservation.settle(usage, outcome), () => Effect.sync(() => settled++))
 *       }))
 *   }))
 * )
 *
 * const call = Budget.withReservation({ tokens: 10 }, (reservation) => reservation.settle({ tokens: 5 }))
 *
 * await Effect.runPromise(Effect.provide(call, Layer.provide(counting, Budget.layer())))
 *
 * settled // => 1
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface Reservation {
  readonly pool: string
  readonly agent: string
  /** What is held, per limited dimension. */
  readonly charge: Limits.Usage
  /** How long the call was queued. */
  readonly waited: Duration.Duration
  /** The dimension that it waited for last, if it had to wait for one. */
  readonly binding: Limits.Dimension | undefined
  /** Updates the budget with what the response to the call says. Only a response to a call can raise a level. */
  readonly observe: (said: Observation) => Effect.Effect<void>
  /**
   * Replaces the estimate by what was used: the rest is given back, more becomes debt. A dimension that the usage leaves
   * out keeps its estimate. With `"failure"` the call does not count as a success of the provider. With `"denied"` the provider
   * has refused its credential as well: an account of which all calls were denied leaves no pool behind.
   */
  readonly settle: (usage: Limits.Usage, outcome?: "success" | "failure" | "denied") => Effect.Effect<void>
  /** The provider rejected the call, or failed. Returns what that says of the limits. */
  readonly fail: (failure: FailOptions) => Effect.Effect<Verdict>
  /** Gives everything back: the call used nothing. */
  readonly refund: Effect.Effect<void>
}

/**
 * When a call would start, if all calls use what was estimated and nothing fails.
 *
 * @category models
 * @since 0.4.0
 */
export interface Foreseen {
  readonly pool: string
  /** How long it would wait; infinite if it can never be admitted. */
  readonly wait: Duration.Duration
  /**
   * What it would wait for last: a limit, the end of another call (`"concurrency"`), or the end of a pause. It is undefined if
   * the call would start at once.
   */
  readonly binding: Limits.Dimension | "concurrency" | "pause" | undefined
  /** Why it would be refused, if it would be. */
  readonly refusal: BudgetError["reason"] | undefined
  /**
   * Whether others may go before it that are not counted: more than 1,000 callers wait before it, or processes share the pool
   * and only the first callers of the others are known.
   */
  readonly isLowerBound: boolean
}

/**
 * What a response says, for the `observe` of a budget.
 *
 * @category models
 * @since 0.1.0
 */
export interface RateLimitSignal extends Limits.Signal {
  /**
   * The reservation of the call that was answered.
   *
   * @deprecated Call its own `observe`.
   */
  readonly reservation?: Reservation | undefined
  /**
   * What the answered call used.
   *
   * @deprecated Pass it to the `observe` of the reservation.
   */
  readonly usage?: Limits.Usage | undefined
  /** An unknown pool is ignored. @default the reservation's pool, or "default" */
  readonly pool?: string | undefined
}

/**
 * A time in which nothing of a pool is sent.
 *
 * @category models
 * @since 0.4.0
 */
export interface PauseOptions {
  /** How long; an hour at most. A pause that lasts longer already stays. */
  readonly duration: Duration.Input
  /** What the pause is shown and counted as. @default "rateLimit" */
  readonly reason?: Pushback | undefined
  /** The pool. One that does not exist is ignored. @default "default" */
  readonly pool?: string | undefined
}

/**
 * The provider rejected a call, or failed.
 *
 * @deprecated A {@link Reservation} has `fail`, and a budget `pause`.
 * @category models
 * @since 0.1.0
 */
export interface Cooldown extends FailOptions {
  /** The reservation of the failed call, which ends with this. Without one the whole pool pauses for `retryAfter`. */
  readonly reservation?: Reservation | undefined
  /** The pool that pauses, where there is no `reservation`. One that does not exist is ignored. @default "default" */
  readonly pool?: string | undefined
}

/**
 * A pool as it stands.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolStatus {
  /** Each dimension that is limited. */
  readonly dimensions: { readonly [D in Limits.Dimension]?: DimensionStatus }
  readonly inFlight: number
  /** The most calls in flight: the concurrency, or less where the provider was found to limit it. */
  readonly allowed: number
  readonly queued: number
  /** The first callers in the order of service, at most 32. */
  readonly waiting: ReadonlyArray<{
    readonly agent: string
    readonly priority: number
    readonly charge: Limits.Usage
    readonly waitedMillis: number
    /** How long it still waits if all calls use what was estimated. */
    readonly expectedMillis: number
    /** What it waits for. */
    readonly dimension: Limits.Dimension | undefined
  }>
  readonly pause: { readonly reason: "rateLimit" | "ramp" | "overload"; readonly leftMillis: number } | undefined
  /** What the first caller waits for. */
  readonly binding: Limits.Dimension | undefined
}

/**
 * All pools as they stand; those that no call has used yet come last.
 *
 * @category models
 * @since 0.1.0
 */
export interface BudgetStatus {
  readonly pools: Readonly<Record<string, PoolStatus>>
}
