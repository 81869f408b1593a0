/**
 * Events of calls as plain data, for a log, a dashboard or a test.
 *
 * Waits, rejections, retries and pauses are reported to the {@link Observer} of the context in which a budget and a governor
 * are made. Metrics only count these; events also say why they happened and until when they last.
 *
 * **Example** (A pause)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Events from "floodgate/Events"
 *
 * const seen: Array<Events.Event> = []
 * const observer = Layer.succeed(Events.Observer, (event) => void seen.push(event))
 *
 * const program = Effect.flatMap(Budget.TokenBudget, (budget) =>
 *   budget.pause({ duration: "5 seconds" })
 * )
 * await Effect.runPromise(Effect.provide(program, Budget.layer().pipe(Layer.provide(observer))))
 *
 * seen.map(({ pool, type }) => [type, pool]) // => [["pause", "default"]]
 * ```
 *
 * @stability stable
 * @since 0.2.0
 */
import * as Context from "effect/Context"
import type { Dimension } from "./Limits.ts"

/** The fields of every event. Times are milliseconds since the epoch. */
type Base = {
  readonly at: number
  readonly pool: string
}

/** A call must wait. `until` is a prediction: it becomes later if other calls go first or are rejected. */
type WaitEvent = Base & {
  readonly type: "wait"
  readonly agent: string
  /** The dimension that it waits for; undefined if it waits for another call to end, or for a pause. */
  readonly dimension: Dimension | undefined
  readonly until: number
}

/** The provider rejected a call because of a limit (429). */
type RejectionEvent = Base & {
  readonly type: "rejection"
  readonly agent: string
  readonly model: string
  /** The attempt that was rejected, counted from 1. */
  readonly attempt: number
  /** Its meaning: `isolated` concerns only this call, `exhausted` slows the whole pool down. See `fail` of a `Reservation`. */
  readonly verdict: "isolated" | "exhausted" | "ramp" | "outage" | "impossible"
  /** The limit that was hit, if the response names it. */
  readonly dimension: Dimension | undefined
  /** When the provider allows a retry, if it says so. */
  readonly until: number | undefined
}

/** A call failed and will be retried. */
type RetryEvent = Base & {
  readonly type: "retry"
  readonly agent: string
  readonly model: string
  /** The attempt that failed, counted from 1. */
  readonly attempt: number
  /** Why it failed, by the name of the reason in `floodgate/LlmError`, such as `Overloaded`. */
  readonly reason: string
  /** When it is queued again. */
  readonly until: number
}

/**
 * The retry budget is spent, and delays the retry of the `retry` event before. Many of these mean that a fifth of all calls
 * are retries: look at the `reason` of their `retry` events.
 */
type RetryDelayedEvent = Base & {
  readonly type: "retryDelayed"
  readonly agent: string
  readonly model: string
  /** The attempt that failed, counted from 1. */
  readonly attempt: number
  /** Milliseconds that the retry budget adds to the wait. */
  readonly delayed: number
  readonly until: number
}

/** A pool sends nothing for a time. */
type PauseEvent = Base & {
  readonly type: "pause"
  readonly reason: "rateLimit" | "ramp" | "overload"
  readonly until: number
}

/** An attempt goes to another place than it usually would. */
type PlaceEvent = Base & {
  readonly type: "place"
  readonly agent: string
  readonly model: string
  readonly place: string
  /**
   * - `"sooner"`: it starts sooner there
   * - `"slow"`: answers take clearly longer where it would have gone
   * - `"cheaper"`: it is the cheapest place that is expected to answer in time
   * - `"failed"`: it failed where it was before
   */
  readonly why: "sooner" | "slow" | "cheaper" | "failed"
  /** Milliseconds that it waited there. */
  readonly waited: number
  /** Where it would have gone, or has failed. */
  readonly instead: string
  /** Milliseconds that it was expected to wait there; undefined if it failed there, or would have been refused. */
  readonly insteadWait: number | undefined
}

/** A cap in dollars is reached, so that calls are refused, or calls fit again. `pool` is that of the call that was refused. */
type CapEvent = Base & {
  readonly type: "cap"
  /** The name of the purse. */
  readonly cap: string
  readonly isReached: boolean
  /** In dollars, within the period of the cap. */
  readonly spent: number
  /** In dollars. What running calls have reserved is part of it. */
  readonly left: number
  /** In dollars. */
  readonly limit: number
  /** When the refused call would fit; undefined if never, or if the cap is not reached. */
  readonly until: number | undefined
}

/**
 * An event of a call or a pool, by its `type`. Times are milliseconds since the epoch.
 *
 * - `"wait"`: a call must wait, probably until `until`
 * - `"rejection"`: the provider rejected a call because of a limit (429); the `verdict` says what it means for other calls
 * - `"retry"`: a call failed and will be retried
 * - `"retryDelayed"`: the retry budget is spent, and delays a retry
 * - `"pause"`: a pool sends nothing for a time
 * - `"place"`: an attempt goes to another place than it usually would
 * - `"cap"`: a cap in dollars is reached, or calls fit it again (since 0.5.0)
 *
 * @stability stable
 * @category models
 * @since 0.2.0
 */
export type Event = WaitEvent | RejectionEvent | RetryEvent | RetryDelayedEvent | PauseEvent | PlaceEvent | CapEvent

/**
 * Gets each event as it happens. A budget and a governor read it when they are made. Errors that it throws are ignored, so
 * that it cannot break a call.
 *
 * **Example** (A rejection)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as Events from "floodgate/Events"
 * import * as Governor from "floodgate/Governor"
 * import { LlmError, RateLimited } from "floodgate/LlmError"
 * import * as Retry from "floodgate/Retry"
 *
 * const seen: Array<string> = []
 * const observer = Layer.succeed(Events.Observer, ({ type }) => void seen.push(type))
 *
 * const rejected = Effect.fail(new LlmError({ reason: new RateLimited({ status: 429 }) }))
 * const call = Effect.flatMap(Governor.Governor, (governor) => governor.run({ model: "m", bytes: 10 }, () => rejected))
 *
 * const live = Governor.layer({ retry: Retry.make({ attempts: 1 }) }).pipe(
 *   Layer.provide(Budget.layer()),
 *   Layer.provide(observer)
 * )
 *
 * await Effect.runPromise(Effect.provide(Effect.flip(call), live))
 * seen // => ["rejection"]
 * ```
 *
 * @stability stable
 * @category references
 * @since 0.2.0
 */
export const Observer: Context.Reference<((event: Event) => void) | undefined> = Context.Reference<
  ((event: Event) => void) | undefined
>("floodgate/Events/Observer", { defaultValue: () => undefined })
