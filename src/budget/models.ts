/** The options, reservations, signals and status of a budget. */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Concurrency } from "../domain/concurrency.ts"
import type { MeasuredStatus } from "../pacing/measured.ts"
import type { DimensionStatus, KnownFigure } from "../pacing/status.ts"
import type { BudgetError, RejectedAsTooLarge } from "./errors.ts"
import type { Learned } from "./learned.ts"
import type * as Limits from "../Limits.ts"
import type { Certain } from "../domain/amounts.ts"
import type { Counting } from "../domain/rules.ts"
import type { Claim } from "../line/hold.ts"
import type { MeasuredCall } from "./measuring.ts"

export type { Concurrency } from "../domain/concurrency.ts"
export type { MeasuredStatus } from "../pacing/measured.ts"
export type { DimensionStatus, KnownFigure } from "../pacing/status.ts"
export type { Verdict } from "../pacing/verdicts.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * The options of a budget.
 *
 * @stability stable
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * The provider's limits: one set, or a set for each pool. A pool without limits learns them: it sends one call, then 2, 4, 8
   * at a time, until headers name the limits or the provider rejects calls. If each pool has its own limits, a reservation
   * must name the `model` or the `pool`. An unknown name is refused, because nothing would limit it.
   */
  readonly limits?: Limits.Limits | Limits.Pools | undefined
  /**
   * The limit of calls in flight, per pool.
   *
   * With `"measured"` it follows what the server takes: for servers of your own, such as vLLM, llama.cpp and Ollama, which queue any number
   * of calls and never reject one. `{ measuredUpTo: 64 }` never goes beyond that number.
   *
   * @default Infinity: the provider's limits decide. Set it if the provider or your machine limits connections.
   */
  readonly concurrency?: Concurrency | undefined
  /**
   * How many calls may wait, per pool. The next one fails at once with `QueueFull`.
   *
   * @default Infinity: a waiting reservation takes 1.7 KB, and losing work costs more.
   */
  readonly maxQueued?: number | undefined
  /**
   * The order of a caller's jobs in each pool.
   *
   * - `"fair"`: they share the limits by weight, at any time
   * - `"finish"`: that job goes first which would end first if they shared, so that most end earlier. It is for jobs that state their
   *   sizes; one of unknown size, or that exceeds its size, is served fairly. If all sizes are right, no job ends later than if the jobs
   *   shared, but for two calls. A third of the service still goes to the job that has been served least, so that a job whose size is too
   *   large does not wait for all others: stated twice too large, it ends 1.5 times later than if the jobs shared, four times 3 times later
   * - `"finish-trusted"`: the same without that third. Half of the jobs end still earlier, but one that is stated four times too large ends
   *   up to 13 times later. It is for whoever states the sizes of all
   *
   * Callers share the limits in any order, as do the agents of a job. Each process orders its own calls.
   *
   * @default "fair": it needs no sizes
   * @since 0.5.0
   */
  readonly order?: "fair" | "finish" | "finish-trusted" | undefined
  /**
   * The maximum number of pools besides those that `limits` names: one for each account and class of models. Beyond 1,000, idle
   * pools are closed, the least recently used first, but what they learned and used is remembered. If all `maxPools` are in
   * use, a call that needs another pool fails with `TooManyPools`.
   *
   * @default 10_000: as many as a gateway has connections. A pool in use takes about 9 KB, including its call.
   */
  readonly maxPools?: number | undefined
  /**
   * The limits that an earlier budget has learned, so that this one need not learn them again. It is ignored with a store, because the
   * shared state is newer.
   *
   * @default nothing
   */
  readonly learned?: Learned | undefined
}

/**
 * A job with a share of its own.
 *
 * @stability stable
 * @category options
 * @since 0.5.0
 */
export interface NamedJob {
  readonly name: string
  /**
   * How many tokens all of its calls will use that count towards the limits, as well as that is known. Only the order `"finish"` reads it:
   * see {@link Options.order}. The last one stated holds.
   *
   * @default not known: the job is served fairly
   */
  readonly size?: number | undefined
  /**
   * The job's share of service relative to others of its caller, 0.001 to 1000. If its calls state different ones, each call is charged by
   * its own, and the job counts with that of the call that began to wait when no other did.
   *
   * @default 1
   */
  readonly weight?: number | undefined
  /** The priority of its calls that state none. @default {@link Priority} */
  readonly priority?: number | undefined
}

/**
 * A caller with a share of its own.
 *
 * @stability stable
 * @category options
 * @since 0.5.0
 */
export interface NamedCaller {
  readonly name: string
  /** The caller's share of service relative to others, 0.001 to 1000. @default 1 */
  readonly weight?: number | undefined
}

/**
 * The options of a reservation.
 *
 * @stability stable
 * @category options
 * @since 0.1.0
 */
export interface ReserveOptions {
  /** The fairness key within a job. @default {@link Agent} */
  readonly agent?: string | undefined
  /** The agent's share of service relative to others of its job, 0.001 to 1000. @default 1 */
  readonly weight?: number | undefined
  /**
   * The job of the agent: what a user started, with all agents below it. Service is shared fairly between jobs first, so a job of many
   * agents gets no more than a job of one.
   *
   * @default {@link Job}, by default none: each agent is a job by itself
   * @since 0.5.0
   */
  readonly job?: string | NamedJob | undefined
  /**
   * Who calls. Service is shared fairly between callers first, then between the jobs of each. A job's name belongs to its caller, so
   * inventing jobs gives a caller nothing.
   *
   * @default all calls that name none have one caller
   * @since 0.5.0
   */
  readonly caller?: string | NamedCaller | undefined
  /** Higher goes first. @default {@link Priority} */
  readonly priority?: number | undefined
  /**
   * The longest wait. The call fails with `WaitTooLong` if it waits longer, or at once if it is expected to.
   *
   * @default no bound
   */
  readonly maxWait?: Duration.Input | undefined
  /** The model that is called. The limits of its pool apply. @default unknown */
  readonly model?: string | undefined
  /**
   * The pool whose limits apply. If limits are given per pool, it must be one of them, a class of Claude's models as
   * `Presets.poolOf` names it, or a pool that your own `poolOf` returned for a model.
   *
   * @default the pool of `model`, or "default", which is refused if limits are given per pool and none has that name
   */
  readonly pool?: string | undefined
  /**
   * The account at a provider that the call uses, such as `api.openai.com/org-1`. Each account has pools of its own, with the
   * limits of `pool`, so that two providers, or two customers of one, never share a pool.
   *
   * @default none: there is only one account
   */
  readonly account?: string | undefined
}

/**
 * Options of `reserve` that only the governor passes. Because their keys are symbols, they are not part of the public options,
 * but are kept when options are copied. The symbols are registered, so that two copies of the package agree on them.
 */
export const first: unique symbol = Symbol.for("floodgate/Budget/first")
export const counting: unique symbol = Symbol.for("floodgate/Budget/counting")
export const revised: unique symbol = Symbol.for("floodgate/Budget/revised")
export const certainly: unique symbol = Symbol.for("floodgate/Budget/certainly")
export const claimed: unique symbol = Symbol.for("floodgate/Budget/claimed")

export interface GovernedOptions extends ReserveOptions {
  /** Queues the call before the agent's other calls: a retry was already served once. */
  readonly [first]?: boolean | undefined
  /** How the provider counts limits that are written without a window. It applies to the pool from then on. */
  readonly [counting]?: Counting | undefined
  /**
   * Estimates the call again when its turn comes, because others may have taught meanwhile what it uses. Undefined if nothing is
   * known that was not known before. It must be quick; if it throws, the call keeps its estimate.
   */
  readonly [revised]?: (() => Limits.Estimate | undefined) | undefined
  /**
   * Computes what the call is charged even if its estimate is wrong. Only that must fit within the limits. A larger estimate counts as a
   * whole
   * limit, and what the call then uses beyond that is debt. Without it, all of the estimate must fit.
   */
  readonly [certainly]?: Certain | undefined
  /** The claim of a call that waits in several pools. Its caller gives up the reservations that are not admitted. */
  readonly [claimed]?: Claim | undefined
}

// -----------------------------------------------------------------------------
// References
// -----------------------------------------------------------------------------

/**
 * The agent on whose behalf code runs, so that code deep inside an agent need not pass it.
 *
 * **Example** (The calls of an agent)
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
 * @stability stable
 * @category references
 * @since 0.1.0
 */
export const Agent = Context.Reference<string>("floodgate/Budget/Agent", { defaultValue: () => "default" })

/**
 * The job that code works for, so that code deep inside it need not pass it: its name, or its name with a weight and a priority.
 *
 * **Example** (Two jobs that share a limit equally)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 *
 * const limits = { requests: { perSecond: 10, burst: 1 } }
 * const order: Array<string> = []
 * const call = (agent: string) => Budget.withReservation({}, () => Effect.sync(() => order.push(agent)), { agent })
 * const all = (agents: ReadonlyArray<string>) => Effect.forEach(agents, call, { concurrency: "unbounded" })
 *
 * const program = Effect.gen(function* () {
 *   yield* call("first")
 *   const report = all(["report 1", "report 2", "report 3"]).pipe(Effect.provideService(Budget.Job, "report"))
 *   const question = all(["question"]).pipe(Effect.provideService(Budget.Job, "question"))
 *   yield* Effect.all([report, question], { concurrency: "unbounded" })
 * })
 *
 * await Effect.runPromise(Effect.provide(program, Budget.layer({ limits })))
 * order // => ["first", "report 1", "question", "report 2", "report 3"]
 * ```
 *
 * @stability stable
 * @category references
 * @since 0.5.0
 */
export const Job = Context.Reference<string | NamedJob | undefined>("floodgate/Budget/Job", {
  defaultValue: () => undefined
})

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
 * @stability stable
 * @category references
 * @since 0.1.0
 */
export const Priority = Context.Reference<number>("floodgate/Budget/Priority", { defaultValue: () => 0 })

/**
 * The time to predict the wait of a call with `maxWait` again, in milliseconds since the epoch. A pause or a rejection may have
 * made the wait longer since the call arrived. If it is now too long, the call fails with `WaitTooLong` while its caller can
 * still respond.
 */
export const ReviewAt = Context.Reference<number | undefined>("floodgate/Budget/ReviewAt", {
  defaultValue: () => undefined
})

// -----------------------------------------------------------------------------
// Reservations, signals, status
// -----------------------------------------------------------------------------

/**
 * An estimate that was admitted. It is held until it is settled, fails, is refunded, or its scope closes. Only the first of
 * these counts.
 *
 * It is a plain object whose members do not use `this`, so it can be spread, decorated and destructured.
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
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Reservation {
  readonly pool: string
  readonly agent: string
  /** The estimate that was admitted. A governor estimates a waiting call again when others have taught what it uses. */
  readonly estimate: Limits.Estimate
  /** The amounts held, per limited dimension. */
  readonly charge: Limits.Usage
  /** How long the call was queued. */
  readonly waited: Duration.Duration
  /** The dimension that it waited for last, if any. */
  readonly binding: Limits.Dimension | undefined
  /** Updates the budget with what the response says. Only the response to a call can raise a level. */
  readonly observe: (
    said: Limits.Signal & {
      /** The usage of the call, if that is known: then its reservation is settled. @default not known yet */
      readonly usage?: Limits.Usage | undefined
      /**
       * The usage of the call so far, once its answer has begun. What exceeds the reservation becomes debt at once, so that other calls wait
       * from then on. The reservation is still held, and nothing is refunded before its end. A dimension that is left out keeps its estimate.
       *
       * @default not known yet
       * @since 0.5.0
       */
      readonly soFar?: Limits.Usage | undefined
    }
  ) => Effect.Effect<void>
  /**
   * Replaces the estimate by the actual usage. The rest is refunded, and usage beyond the estimate becomes debt. A dimension
   * that the usage leaves out keeps its estimate. With `"failure"` the call does not count as a success of the provider. With
   * `"denied"` the provider also refused the credential: the pool of an account whose calls were all denied is closed.
   */
  readonly settle: (usage: Limits.Usage, outcome?: "success" | "failure" | "denied") => Effect.Effect<void>
  /**
   * Ends the call because the provider rejected it or failed. Returns what that says about the limits:
   *
   * - `"isolated"`: nothing; only its own call is concerned
   * - `"exhausted"`: the provider's bucket was empty; the whole pool slows down
   * - `"ramp"`: usage grows too fast; growth is bounded
   * - `"outage"`: the provider does not work; one call at a time probes it
   * - `"impossible"`: the call is larger than the provider's limit
   *
   * All but `"isolated"` and `"impossible"` concern all callers, and do not count as failures of the call.
   */
  readonly fail: (failure: {
    /** `"rateLimit"` or `"ramp"` for a rejection (429), `"overload"` if the provider failed or could not be reached. */
    readonly reason: "rateLimit" | "ramp" | "overload"
    /** How long the provider asked to wait. @default none */
    readonly retryAfter?: Duration.Input | undefined
    /** The usage of the failed call. @default nothing */
    readonly usage?: Limits.Usage | undefined
    /** The limits in the response. @default what was observed for this reservation */
    readonly signal?: Limits.Signal | undefined
  }) => Effect.Effect<"isolated" | "exhausted" | "ramp" | "outage" | "impossible">
  /** Refunds everything: the call used nothing. */
  readonly refund: Effect.Effect<void>
}

/** A response's information about the limits, and about the usage of its call. */
export type Observation = Parameters<Reservation["observe"]>[0]

/** The failure of a call. */
export type FailOptions = Parameters<Reservation["fail"]>[0]

/** Information about the limits of a pool. */
export type PoolSignal = Limits.Signal & { readonly pool?: string | undefined }

/** A pause of a pool. */
export interface PauseOptions {
  readonly duration: Duration.Input
  readonly reason?: FailOptions["reason"] | undefined
  readonly pool?: string | undefined
}

/** Changes of a pool while calls run. */
export interface ResizeOptions {
  readonly pool?: string | undefined
  readonly limits?: Limits.Limits | undefined
  readonly concurrency?: Concurrency | undefined
}

/** The pool that first gets back what it had before it was changed by its name, as only the governor asks. */
export const restored: unique symbol = Symbol.for("floodgate/Budget/restored")

export interface GovernedResize extends ResizeOptions {
  readonly [restored]?: string | undefined
}

/** Properties of reservations that only the governor reads, with symbols for the same reasons as {@link first}. */
export const refused: unique symbol = Symbol.for("floodgate/Budget/refused")
export const measured: unique symbol = Symbol.for("floodgate/Budget/measured")

export interface GovernedReservation extends Reservation {
  /** Its call, if its pool measures how many calls may be in flight. */
  readonly [measured]?: MeasuredCall | undefined
  /** Why the provider's rejection of the call is final, once the call has failed; undefined if another attempt may be accepted. */
  readonly [refused]?: (() => RejectedAsTooLarge | undefined) | undefined
}

/**
 * The predicted start of a call, if all calls use their estimates and none fails.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface Foreseen {
  readonly pool: string
  /** How long it would wait; infinite if it can never be admitted. */
  readonly wait: Duration.Duration
  /**
   * The obstacle that it would wait for last: a limit, the end of another call (`"concurrency"`), or a pause. Undefined if it starts at
   * once.
   */
  readonly binding: Limits.Dimension | "concurrency" | "pause" | undefined
  /** Why it would be refused; undefined if it would not. */
  readonly refusal: BudgetError["reason"] | undefined
  /**
   * How long its job will take from now on, if the job gets its fair share beside those that wait now. Undefined if no call of the job has
   * stated its size, or the limits are not known.
   *
   * @since 0.5.0
   */
  readonly jobEnd?: Duration.Duration | undefined
  /**
   * Whether the wait may be longer, because calls before it are not counted: more than 1,000 wait, or processes share the pool
   * and only the first calls of the others are known.
   */
  readonly isLowerBound: boolean
}

/**
 * The status of a pool.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface PoolStatus {
  /** The dimensions that are limited. */
  readonly dimensions: { readonly [D in Limits.Dimension]?: DimensionStatus }
  /** The known limits of the provider, with their sources and ages. */
  readonly known: ReadonlyArray<KnownFigure>
  readonly inFlight: number
  /** The limit of calls in flight: the concurrency, or less if the provider was found to limit it. */
  readonly allowed: number
  /** The measured limit of calls in flight; undefined if it is not measured. */
  readonly measured?: MeasuredStatus | undefined
  readonly queued: number
  /** The first waiting calls in the order of service, at most 32. */
  readonly waiting: ReadonlyArray<{
    readonly agent: string
    /** Undefined if the agent is a job by itself. */
    readonly job: string | undefined
    readonly caller: string | undefined
    readonly priority: number
    readonly charge: Limits.Usage
    readonly waitedMillis: number
    /** How long it is expected to wait from now, if all calls use what was estimated. */
    readonly expectedMillis: number
    /** The limit that it waits for. */
    readonly dimension: Limits.Dimension | undefined
  }>
  readonly pause: { readonly reason: "rateLimit" | "ramp" | "overload"; readonly leftMillis: number } | undefined
  /** The limit that the first call waits for. */
  readonly binding: Limits.Dimension | undefined
}

/**
 * The status of all pools. Those without a call so far come last.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface BudgetStatus {
  readonly pools: Readonly<Record<string, PoolStatus>>
}
