/**
 * What happens to calls, as plain data: for a log, a dashboard, or a test.
 *
 * Waits, rejections, retries and pauses are reported to the {@link Observer} of the context in which a budget and a governor are
 * made. Metrics and spans have the same in sums; an event has the why, and until when.
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
 * @since 0.2.0
 */
import * as Context from "effect/Context"
import type { Dimension } from "./Limits.ts"

/** What all events have. Times are milliseconds since the epoch. */
type Base = {
  readonly at: number
  readonly pool: string
}

/** A call has to wait for its turn. `until` is foreseen, and later where others come first or the provider rejects calls. */
type WaitEvent = Base & {
  readonly type: "wait"
  readonly agent: string
  /** What it waits for first; undefined for a place among the calls in flight, or the end of a pause. */
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
  /** What it says: `isolated` concerns this call only, after `exhausted` everybody goes slower; see `Budget.Verdict`. */
  readonly verdict: "isolated" | "exhausted" | "ramp" | "outage" | "impossible"
  /** The limit that was hit, where the response tells. */
  readonly dimension: Dimension | undefined
  /** Until when the provider asks to wait, where it does. */
  readonly until: number | undefined
}

/** A call failed, and is tried again. */
type RetryEvent = Base & {
  readonly type: "retry"
  readonly agent: string
  readonly model: string
  /** The attempt that failed, counted from 1. */
  readonly attempt: number
  /** Why it failed, by the name of the reason in `floodgate/LlmError`, such as `Overloaded`. */
  readonly reason: string
  /** When it stands in the queue again. */
  readonly until: number
}

/**
 * The retry budget is spent, and delays the retry that the `retry` event before it reports. More than single ones mean that
 * a fifth of all calls are retries: look at the `reason` of those.
 */
type RetryDelayedEvent = Base & {
  readonly type: "retryDelayed"
  readonly agent: string
  readonly model: string
  /** The attempt that failed, counted from 1. */
  readonly attempt: number
  /** Milliseconds that the retry budget has added to the wait. */
  readonly delayed: number
  readonly until: number
}

/** Nothing of a pool goes out for a time. */
type PauseEvent = Base & {
  readonly type: "pause"
  readonly reason: "rateLimit" | "ramp" | "overload"
  readonly until: number
}

/**
 * What happens to calls, by its `type`. Times are milliseconds since the epoch.
 *
 * - `"wait"`: a call has to wait for its turn, as foreseen until `until`
 * - `"rejection"`: the provider rejected a call because of a limit (429); the `verdict` says what that means for others
 * - `"retry"`: a call failed, and is tried again
 * - `"retryDelayed"`: the retry budget is spent, and delays a retry
 * - `"pause"`: nothing of a pool goes out for a time
 *
 * @category models
 * @since 0.2.0
 */
export type Event = WaitEvent | RejectionEvent | RetryEvent | RetryDelayedEvent | PauseEvent

/**
 * Gets each event, as it happens. It is read when a budget and a governor are made; what it throws is ignored, so that it cannot
 * break a call.
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
 * @category references
 * @since 0.2.0
 */
export const Observer: Context.Reference<((event: Event) => void) | undefined> = Context.Reference<
  ((event: Event) => void) | undefined
>("floodgate/Events/Observer", { defaultValue: () => undefined })
