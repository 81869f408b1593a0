/**
 * Retries that do not make an overload worse. The policy is a `Schedule`:
 *
 * ```ts
 * Schedule.exponential("2 seconds").pipe(
 *   cappedAt("60 seconds"), //                   providers count by the minute
 *   Schedule.jittered, //                        calls that failed together do not return together
 *   atLeastRetryAfter, //                        never earlier than the provider asked
 *   upToAttempts(5),
 *   whileRetryable((error) => error.isRetryable),
 *   within("10 minutes")
 * )
 * ```
 *
 * {@link make} makes it, with other figures if you state them. {@link withPolicy} retries an effect by it, and every
 * client retries its calls by the same engine.
 *
 * Twelve agents that are rejected together and wait a fixed second come back together and are rejected again. Three
 * things prevent that:
 *
 * - **Jitter.** Waits are random, so that calls that failed together do not return together.
 * - **The provider's `retry-after` is a floor.** Waits are only extended beyond it, because an earlier retry fails.
 * - **A retry budget.** `attempts` bounds one call. It does not bound a thousand calls that fail together and make five
 *   thousand requests when the provider has no room. All callers share one budget ({@link balance}): once a fifth of the
 *   calls are retries, further retries are delayed.
 *
 * **Details**
 *
 * **What you state is obeyed.** A `backoff` is the wait before every retry, and where it ends, the call ends. `attempts`
 * bounds every request that is sent. Only without them does a client tell failures apart: its own use up the five
 * attempts, and those of the pool (an empty bucket, an outage) are bounded by the ten minutes alone, and wait by a run
 * of the schedule of their own.
 *
 * When a call is given up, it fails with the last error. The field `stoppedBy` of an `LlmError` says why.
 *
 * **Gotchas**
 *
 * Retries multiply: five attempts around a client that makes three are fifteen requests. Retry in one place, and switch
 * other retries off (`maxRetries: 0` in the SDKs).
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
import { type Retried, retried, type Retrying } from "./call/retryEngine.ts"
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

export { balance, layerBudget } from "./call/retryBudget.ts"
export type { Retrying } from "./call/retryEngine.ts"
export type { Decision, Failed, Policy, Retryable } from "./call/retryPolicy.ts"

// -----------------------------------------------------------------------------
// Policies
// -----------------------------------------------------------------------------

/**
 * The options of a {@link Policy}.
 *
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
   * The longest delay before jitter. Providers count by the minute. It never shortens a `retry-after`.
   *
   * @default "60 seconds"
   */
  readonly cap?: Duration.Input | undefined
  /**
   * How delays are spread: `"proportional"` is `Schedule.jittered`, 0.8 to 1.2 times the delay, and enough where a budget
   * spreads the calls. `"full"`, any part of the delay, suits retries without a budget. `"none"` is for tests of times.
   *
   * @default "proportional"
   */
  readonly jitter?: "proportional" | "full" | "none" | undefined
  /**
   * The wait before every retry, whatever caused the failure, as any schedule of the errors. It replaces `base`,
   * `factor`, `cap` and `jitter`. Where it ends, the call ends. `retryAfter`, `while`, `attempts` and `maxElapsed` still
   * apply.
   *
   * @default made of the other options
   */
  readonly backoff?: Schedule.Schedule<unknown, E> | undefined
  /**
   * Which errors are retried. It is needed for errors that are not {@link Retryable}. A client or a governor never
   * retries an error with `isRetryable: false`, whatever this returns.
   *
   * @default those whose `isRetryable` is true
   */
  readonly while?: ((error: E) => boolean) | undefined
  /**
   * The number of attempts, including the first, whatever ended them. With 1 there are no retries at all.
   *
   * @default 5 that failed on their own account. They span 30 s of backoff, half a window. A client does not count
   * attempts that rate limits or an outage ended, but counts those that its own timeout ended
   */
  readonly attempts?: number | undefined
  /**
   * How long after the first failure an attempt may still begin. Calls survive an outage of some minutes, and do not
   * wait for a daily limit. Time in the queue before the first attempt does not count; {@link withDeadline} bounds
   * everything.
   *
   * @default "10 minutes", and the waits of a `backoff` on top
   */
  readonly maxElapsed?: Duration.Input | undefined
}

type Backoff = Schedule.Schedule<Duration.Duration>

const jitters = {
  proportional: (self: Backoff) => Schedule.jittered(self),
  full: (self: Backoff) => fullyJittered(self),
  none: (self: Backoff) => self
}

/** The waits of a policy that states no backoff. */
const exponential = ({ base = "2 seconds", cap = "60 seconds", factor, jitter = "proportional" }: Options): Backoff =>
  Schedule.exponential(base, factor).pipe(cappedAt(cap), jitters[jitter])

/**
 * Makes a policy. Without options it is the default of every client: 2 s, doubled up to 60 s, through
 * `Schedule.jittered`, 5 attempts, 10 minutes in all.
 *
 * **Details**
 *
 * A policy is a `Schedule` of {@link Failed} attempts, so `Schedule.tap`, `modifyDelay` and the like make another policy
 * of it. Its output is a {@link Decision}.
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
    within(maxElapsed ?? "10 minutes", isStated && maxElapsed === undefined)
  )
}

/**
 * The same policy as {@link make} makes, as a schedule of the errors: for `Effect.retry`, `Stream.retry` and the like.
 *
 * **Details**
 *
 * If the wait would end after `maxElapsed` or the deadline ({@link withDeadline}), the schedule ends at once. Its output
 * is a {@link Decision}.
 *
 * **Gotchas**
 *
 * It does not coordinate with other callers; use {@link withPolicy} for the retry budget. Throws a `RangeError` as
 * {@link make} does.
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

/** A failure of a call that nothing but its error says anything of. */
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

/** What {@link withPolicy} does beside retrying. */
type Hooks<E, R> = {
  /** Runs before each wait, for a log or a metric. It is part of the call: its defects end it. */
  readonly onRetry?: ((retry: Retrying<E>) => Effect.Effect<unknown, never, R>) | undefined
}

/** Notes in an `LlmError` why there was no further retry. */
const finish = <E>(error: E, stoppedBy: StopReason | undefined): E =>
  error instanceof LlmError && stoppedBy !== undefined ? (error.annotate({ stoppedBy }) as typeof error) : error

/**
 * Retries an effect as the policy says, within the retry budget ({@link balance}). Success, error and requirements stay
 * the same.
 *
 * **Details**
 *
 * Only failures with `isRetryable: true`, or that the policy's `while` accepts, are retried, never before their
 * `retryAfter` or after the deadline ({@link withDeadline}). Defects and interruptions are not retried. Nothing is held during a wait,
 * and interruption ends it at once. When it gives up, it fails with the last error. `onRetry` runs before each wait.
 *
 * **Gotchas**
 *
 * Error types without `isRetryable` do not fit the default policy; make a policy with `while`.
 *
 * **Example** (An error that may not be retried comes back at once)
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
 * **Example** (Errors of another kind)
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
      return tracked(
        tokens,
        clock,
        retried(policy, call, () => self)
      )
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
 * Sets a deadline, as a duration from now, after which no attempt begins, whatever the policies. The nearest deadline
 * applies.
 *
 * **Details**
 *
 * A call whose next attempt could only begin after the deadline fails at once with its last error; it does not wait first. If
 * the first attempt of a client or a governor could only begin after it, the call is refused with
 * `DeadlineMissed`. A running attempt is not cut short; use `Effect.timeout` for that.
 *
 * **Gotchas**
 *
 * {@link withPolicy} itself always makes the first attempt.
 *
 * A deadline is a wall-clock time: it passes while a machine sleeps, and moves if the clock is set. A wait in the queue
 * is bounded by the time that was left when it began.
 *
 * **Example** (Not sleeping for nothing)
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
 * @category combinators
 * @since 0.1.0
 */
export const withDeadline: {
  (after: Duration.Input): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  <A, E, R>(self: Effect.Effect<A, E, R>, after: Duration.Input): Effect.Effect<A, E, R>
} = dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, after: Duration.Input): Effect.Effect<A, E, R> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.flatMap(Deadline, (outer = Infinity) =>
      Effect.provideService(
        self,
        Deadline,
        // Less than nothing is left of a time that has passed: then nothing is sent at all.
        Math.min(outer, now + millisAfter(after))
      )
    )
  )
)
