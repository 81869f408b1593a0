/**
 * Retries that do not make an overload worse. A retry policy is a `Schedule`:
 *
 * ```ts
 * Schedule.exponential("2 seconds").pipe(
 *   cappedAt("60 seconds"), //                     because providers count by the minute
 *   Schedule.jittered, //                          so that calls that failed together do not return together
 *   atLeastRetryAfter, //                          because the provider rejects an earlier attempt
 *   upToAttempts(5),
 *   whileRetryable((error) => error.isRetryable),
 *   within("10 minutes")
 * )
 * ```
 *
 * {@link make} makes it, with these figures by default. {@link withPolicy} retries an effect with it, and so does every client with
 * its calls.
 *
 * Twelve agents that are rejected together and wait for one second each come back together and are rejected again. Three things
 * prevent that:
 *
 * - **Jitter.** Waits are random, so that calls that failed together do not return together.
 * - **The provider's `retry-after` is a minimum.** It is only extended, because an earlier retry fails.
 * - **A retry budget.** `attempts` limits one call. It does not stop a thousand calls that fail together from sending five thousand
 *   requests when the provider has no room. All callers share one budget ({@link balance}): once a fifth of the calls are retries,
 *   further retries are delayed.
 *
 * **Details**
 *
 * **Explicit options win.** If you set `backoff`, it determines the wait before every retry, and the call fails when it ends.
 * If you set `attempts`, it limits all requests of a call. By default a client distinguishes two kinds of failures: the call's
 * own failures use up the five attempts, while failures of the pool (an empty bucket, an outage) are limited only by the ten
 * minutes and advance a separate run of the backoff.
 *
 * A call that is given up fails with its last error. The field `stoppedBy` of an `LlmError` says why.
 *
 * **Gotchas**
 *
 * Retries multiply: five attempts around a client that makes three are fifteen requests. Retry in one place, and turn other
 * retries off (`maxRetries: 0` in the SDKs).
 *
 * **Example** (Retrying a call that was refused)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * let attempts = 0
 * const call = Effect.suspend(() =>
 *   ++attempts < 2
 *     ? Effect.fail({ isRetryable: true, retryAfter: Duration.millis(5) })
 *     : Effect.succeed(`done at attempt ${attempts}`)
 * )
 *
 * const policy = Retry.make({ base: "1 millis", cap: "1 second" })
 *
 * await Effect.runPromise(Retry.withPolicy(call, policy)) // => "done at attempt 2"
 * ```
 *
 * @stability stable
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Schedule from "effect/Schedule"
import * as Input from "./domain/input/checks.ts"
import { shown } from "./domain/input/shown.ts"
import { LlmError } from "./LlmError.ts"
import { RetryBudget, tokensOf, tracked } from "./call/retryBudget.ts"
import { again, type Retried } from "./call/retryEngine.ts"
import {
  atLeastRetryAfter,
  cappedAt,
  Deadline,
  type Decision,
  type Failed,
  fullyJittered,
  isRetryable,
  type Policy,
  type Retryable,
  retryAfterOf,
  type StopReason,
  upToAttempts,
  waitingBy,
  whileRetryable,
  within
} from "./call/retryPolicy.ts"

export { layerBudget } from "./call/retryBudget.ts"
export type { Decision, Failed, Policy, Retryable } from "./call/retryPolicy.ts"

// -----------------------------------------------------------------------------
// Policies
// -----------------------------------------------------------------------------

/**
 * The options of a {@link Policy}.
 *
 * @stability stable
 * @category options
 * @since 0.1.0
 */
export interface Options<in E = Retryable> {
  /**
   * The first delay, before jitter. Limits replenish over tens of seconds, so a shorter delay retries too often.
   *
   * @default "2 seconds"
   */
  readonly base?: Duration.Input | undefined
  /**
   * The factor between one delay and the next.
   *
   * @default 2
   */
  readonly factor?: number | undefined
  /**
   * The longest delay before jitter. Providers count by the minute, so a longer one would waste time. It does not shorten a
   * `retry-after`.
   *
   * @default "60 seconds"
   */
  readonly cap?: Duration.Input | undefined
  /**
   * The spread of delays. `"proportional"` is `Schedule.jittered`, 0.8 to 1.2 times the delay, which suffices if a token budget
   * paces the calls. `"full"`, any part of the delay, suits retries without a budget. `"none"` is for tests of times.
   *
   * @default "proportional"
   */
  readonly jitter?: "proportional" | "full" | "none" | undefined
  /**
   * The wait before every retry, whatever caused the failure, as any schedule of the errors. It replaces `base`, `factor`, `cap`
   * and `jitter`. When it ends, the call fails. `retryAfter`, `while`, `attempts` and `maxElapsed` still apply.
   *
   * @default made of the other options
   */
  readonly backoff?: Schedule.Schedule<unknown, E> | undefined
  /**
   * Which errors are retried. Errors that are not {@link Retryable} need it. A client or a governor never retries an error with
   * `isRetryable: false`, whatever this returns.
   *
   * @default those whose `isRetryable` is true
   */
  readonly while?: ((error: E) => boolean) | undefined
  /**
   * The number of attempts, including the first, whatever ended them. With 1 there are no retries at all.
   *
   * @default 5, which span 30 s of backoff. A client does not count attempts that a rate limit or an outage ended, but counts those
   * that its own timeout ended
   */
  readonly attempts?: number | undefined
  /**
   * How long after the first failure an attempt may still begin. By default, calls survive an outage of some minutes, and do not
   * wait for a daily limit. The time in the queue before the first attempt does not count; {@link withDeadline} limits the whole
   * call.
   *
   * @default "10 minutes", plus the waits of a `backoff`, or without one, plus the time in the queue after a rate limit: there a
   * rejected call waits for its turn as long as one that was never sent. A stated time counts everything
   */
  readonly maxElapsed?: Duration.Input | undefined
}

type Backoff = Schedule.Schedule<Duration.Duration>

const jitters = {
  proportional: (self: Backoff) => Schedule.jittered(self),
  full: (self: Backoff) => fullyJittered(self),
  none: (self: Backoff) => self
}

/** The waits of a policy without a `backoff`. */
const exponential = ({ base = "2 seconds", cap = "60 seconds", factor, jitter = "proportional" }: Options): Backoff =>
  Schedule.exponential(base, factor).pipe(cappedAt(cap), jitters[jitter])

/**
 * Makes a policy. Without options it is the default of every client: 2 s, doubled up to 60 s, with `Schedule.jittered`, 5 attempts,
 * 10 minutes in all.
 *
 * **Details**
 *
 * A policy is a `Schedule` of {@link Failed} attempts whose output is a {@link Decision}. `Schedule.tap`,
 * `Schedule.modifyDelay` and others turn it into another policy.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` that names the option, what is expected and the value: `base` and `cap` are finite durations
 * above zero, `factor` is a finite number >= 1, `attempts` is an integer >= 1 and `maxElapsed` is a duration above zero. A
 * `backoff` excludes the four options that it replaces.
 *
 * **Example** (Longer, and no retries at all)
 *
 * ```ts doctest
 * import * as Schedule from "effect/Schedule"
 * import * as Retry from "floodgate/Retry"
 *
 * const patient = Retry.make({ base: "5 seconds", maxElapsed: "1 hour" })
 * const never = Retry.make({ attempts: 1 })
 *
 * Schedule.isSchedule(patient) // => true
 * Schedule.isSchedule(never) // => true
 * ```
 *
 * **Example** (The waits of another schedule)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Schedule from "effect/Schedule"
 * import * as Retry from "floodgate/Retry"
 *
 * let attempts = 0
 * const call = Effect.suspend(() => Effect.fail({ isRetryable: ++attempts < 3 }))
 *
 * const policy = Retry.make({ backoff: Schedule.spaced("1 millis").pipe(Schedule.jittered) })
 * await Effect.runPromise(Effect.flip(Retry.withPolicy(call, policy)))
 *
 * attempts // => 3
 * ```
 *
 * **Example** (The default, slower after an overload)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import * as Schedule from "effect/Schedule"
 * import type { LlmError } from "floodgate/LlmError"
 * import * as Retry from "floodgate/Retry"
 *
 * const policy: Retry.Policy<LlmError> = Retry.make<LlmError>().pipe(
 *   Schedule.modifyDelay(({ duration, input: { error } }) =>
 *     Effect.succeed(error.reason._tag === "Overloaded" ? Duration.times(duration, 3) : duration)
 *   )
 * )
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  <E extends Retryable = Retryable>(options?: Options<E>): Policy<E>
  <E>(options: Options<E> & { readonly while: (error: E) => boolean }): Policy<E>
} = (options: Options = {}): Policy<Retryable> => {
  Input.check("Retry.make", checkOptions, options)
  const { attempts, backoff, maxElapsed, while: isRetried = isRetryable } = options
  const isStated = backoff !== undefined
  return waitingBy(backoff ?? exponential(options), !isStated).pipe(
    atLeastRetryAfter,
    upToAttempts(attempts ?? 5, ({ isOwn }) => isOwn || attempts !== undefined),
    whileRetryable(isRetried),
    within(maxElapsed ?? "10 minutes", {
      byBackoff: isStated && maxElapsed === undefined,
      byTurns: !isStated && maxElapsed === undefined
    })
  )
}

/**
 * The policy of {@link make} as a schedule of errors, for `Effect.retry`, `Stream.retry` and others.
 *
 * **Details**
 *
 * If the wait would end after `maxElapsed` or the deadline ({@link withDeadline}), the schedule ends at once. Its output
 * is a {@link Decision}.
 *
 * **Gotchas**
 *
 * It does not use the retry budget that callers share; {@link withPolicy} does. Throws a `RangeError` as {@link make} does.
 *
 * **Example** (With Effect.retry)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * let attempts = 0
 * const call = Effect.suspend(() => (++attempts < 3 ? Effect.fail({ isRetryable: true }) : Effect.succeed(attempts)))
 *
 * await Effect.runPromise(Effect.retry(call, Retry.schedule({ base: "1 millis" }))) // => 3
 * ```
 *
 * @stability stable
 * @category constructors
 * @since 0.1.0
 */
export const schedule: {
  <E extends Retryable = Retryable>(options?: Options<E>): Schedule.Schedule<Decision, E>
  <E>(options: Options<E> & { readonly while: (error: E) => boolean }): Schedule.Schedule<Decision, E>
} = (options: Options = {}) =>
  Schedule.fromStep(
    Effect.map(Schedule.toStep(make(options)), (step) => (now: number, error: Retryable) => step(now, failedBy(error)))
  )

/** A failed attempt of which only the error is known. */
const failedBy = <E>(error: E): Failed<E> => ({
  error,
  isOwn: true,
  isFinal: false,
  retryAfter: retryAfterOf(error)
})

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

const besideBackoff: Input.Check = (value) => {
  const { backoff, ...given } = value as Options
  const name = (["base", "cap", "factor", "jitter"] as const).find((name) => given[name] !== undefined)
  return backoff === undefined || name === undefined
    ? undefined
    : { place: `.${name}`, text: `expected nothing beside a backoff, got ${shown(given[name])}` }
}

const checkOptions = Input.all(
  Input.options<Options>({
    base: Input.finiteSpan,
    factor: Input.atLeastOne,
    cap: Input.finiteSpan,
    jitter: Input.oneOf(...Object.keys(jitters)),
    backoff: Input.that("a schedule", Schedule.isSchedule),
    while: Input.callback,
    attempts: Input.whole,
    maxElapsed: Input.span
  }),
  besideBackoff
)

// -----------------------------------------------------------------------------
// Retries
// -----------------------------------------------------------------------------

/** Callbacks of {@link withPolicy}. */
type Hooks<E, R> = {
  /** Runs before each wait, for a log or a metric. It is part of the call: its defects end it. */
  readonly onRetry?:
    | ((retry: {
        readonly error: E
        /** The number of the attempt that failed, from 1. */
        readonly attempt: number
        /** The wait until the next attempt. */
        readonly wait: Duration.Duration
        /** The part of the wait that comes from the retry budget, which is spent. */
        readonly delayed: Duration.Duration
      }) => Effect.Effect<unknown, never, R>)
    | undefined
}

/** Adds to an `LlmError` why it was not retried. */
const finish = <E>(error: E, stoppedBy: StopReason | undefined): E =>
  error instanceof LlmError && stoppedBy !== undefined ? (error.annotate({ stoppedBy }) as typeof error) : error

/**
 * Retries an effect by a policy, within the retry budget ({@link balance}).
 *
 * **Details**
 *
 * Only failures with `isRetryable: true`, or those that the policy's `while` accepts, are retried, never before their
 * `retryAfter` or after the deadline ({@link withDeadline}). Defects and interruptions are not retried. A waiting retry holds
 * no resources, and interrupting it ends the wait at once. When the policy ends, the call fails with its last error. `onRetry`
 * runs before each wait.
 *
 * **Gotchas**
 *
 * Error types without `isRetryable` do not fit the default policy; make a policy with `while`.
 *
 * **Example** (An error that is not retryable fails at once)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const call = Effect.fail({ isRetryable: false, reason: "invalid request" })
 *
 * const error = await Effect.runPromise(call.pipe(Retry.withPolicy(Retry.make()), Effect.flip))
 *
 * error.reason // => "invalid request"
 * ```
 *
 * **Example** (Errors without isRetryable)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * let attempts = 0
 * const call = Effect.suspend(() => (++attempts < 3 ? Effect.fail("busy" as const) : Effect.succeed(attempts)))
 *
 * const policy = Retry.make({ base: "1 millis", while: (error: "busy") => error === "busy" })
 *
 * await Effect.runPromise(Retry.withPolicy(call, policy)) // => 3
 * ```
 *
 * **Example** (A log of retries)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const seen: Array<string> = []
 * let attempts = 0
 * const call = Effect.suspend(() => (++attempts < 3 ? Effect.fail({ isRetryable: true }) : Effect.void)).pipe(
 *   Retry.withPolicy(Retry.make({ base: "1 millis" }), {
 *     onRetry: ({ attempt }) => Effect.sync(() => seen.push(`attempt ${attempt} failed`))
 *   })
 * )
 *
 * await Effect.runPromise(call)
 * seen // => ["attempt 1 failed", "attempt 2 failed"]
 * ```
 *
 * @stability stable
 * @category combinators
 * @since 0.1.0
 */
export const withPolicy: {
  <E, R2 = never>(
    policy: Policy<E>,
    hooks?: Hooks<E, R2>
  ): <A, E1 extends E, R>(self: Effect.Effect<A, E1, R>) => Effect.Effect<A, E1, R | R2>
  <E, A, E1 extends E, R, R2 = never>(
    self: Effect.Effect<A, E1, R>,
    policy: Policy<E>,
    hooks?: Hooks<E1, R2>
  ): Effect.Effect<A, E1, R | R2>
} = dual(
  ([self]) => Effect.isEffect(self),
  <A, E, R, R2>(
    self: Effect.Effect<A, E, R>,
    policy: Policy<E>,
    { onRetry }: Hooks<E, R2> = {}
  ): Effect.Effect<A, E, R | R2> =>
    Effect.contextWith((context: Context.Context<R | R2>) => {
      if (!Schedule.isSchedule(policy)) Input.invalid("Retry.withPolicy", "a policy, as Retry.make gives it", policy)
      const clock = Context.get(context, Clock.Clock)
      const tokens = tokensOf(Context.get(context, RetryBudget), clock)
      const deadline = Context.get(context, Deadline) ?? Infinity
      const call: Retried<E, E, R2> = { clock, tokens, deadline, judge: failedBy, finish, onRetry }
      const retried = Effect.catchCause(self, (cause) => again(policy, call, () => self, cause))
      return tracked(tokens, clock, retried)
    })
)

// -----------------------------------------------------------------------------
// Deadline
// -----------------------------------------------------------------------------

const millisAfter = (after: Duration.Input): number => {
  Input.check("Retry.withDeadline", Input.wait, after)
  return Duration.toMillis(Duration.fromInputUnsafe(after))
}

/**
 * Sets a deadline, as a duration from now. No attempt begins after it, whatever the policies say. The earliest deadline applies.
 *
 * **Details**
 *
 * If the next attempt would begin after the deadline, the call fails at once with its last error. If that would already be the
 * first attempt of a client or a governor, the call is refused with `DeadlineMissed`. A running attempt is not ended; use
 * `Effect.timeout` for that.
 *
 * **Gotchas**
 *
 * {@link withPolicy} itself always makes the first attempt.
 *
 * A deadline is a wall-clock time: it passes while a machine sleeps, and moves if the clock is set. A wait in the queue is limited
 * to the time that was left when it began.
 *
 * **Example** (A retry that would be too late)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * let attempts = 0
 * const refused = Effect.fail({ isRetryable: true, retryAfter: Duration.hours(5) })
 * const call = Effect.suspend(() => (attempts++, refused)).pipe(
 *   Retry.withPolicy(Retry.make({ maxElapsed: Duration.infinity })),
 *   Retry.withDeadline("2 minutes")
 * )
 *
 * await Effect.runPromise(Effect.flip(call))
 * attempts // => 1
 * ```
 *
 * @stability stable
 * @category combinators
 * @since 0.1.0
 */
export const withDeadline: {
  (after: Duration.Input): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, after: Duration.Input): Effect.Effect<A, E, R>
} = /* @__PURE__ */ dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, after: Duration.Input): Effect.Effect<A, E, R> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.flatMap(Deadline, (outer = Infinity) =>
      Effect.provideService(
        self,
        Deadline,
        // A negative duration gives a deadline in the past, so that nothing is sent.
        Math.min(outer, now + millisAfter(after))
      )
    )
  )
)
