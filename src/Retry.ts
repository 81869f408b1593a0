/**
 * Retries that do not make an overload worse: they are spread in time, are never earlier than the provider asked, and
 * are bounded for each call and for all callers together.
 *
 * Twelve agents that are rejected together and wait a fixed second come back together and are rejected again. Three
 * things prevent that:
 *
 * - **Jitter.** Waits are random, so that calls that failed together do not return together.
 * - **The provider's `retry-after` is a floor.** Waits are only extended beyond it, because an earlier retry fails.
 * - **A retry budget.** `attempts` bounds one call. It does not bound a thousand calls that fail together and make five
 *   thousand requests when the provider has no room. All callers share the {@link RetryBudget}: once a fifth of the
 *   calls are retries, further retries wait for a token.
 *
 * **Details**
 *
 * {@link withPolicy} retries by a {@link Policy}. A policy takes its waits from any `Schedule` of the error, and
 * decides itself what is retried, how early and how often. {@link schedule} is the whole policy as an ordinary
 * `Schedule` for `Effect.retry`, without the retry budget. Both fail with the last error when they give up. The field
 * `stoppedBy` of an `LlmError` says why.
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
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Input from "./input/checks.ts"
import { shown } from "./input/shown.ts"
import { LlmError } from "./LlmError.ts"
import * as Backoff from "./retry/backoff.ts"
import { RetryBudget } from "./retry/budget.ts"
import { isRetryable, type Retryable, retryAfterMillis, type StopReason } from "./retry/errors.ts"
import * as Loop from "./retry/loop.ts"

export { layerBudget, RetryBudget } from "./retry/budget.ts"
export type { Retryable } from "./retry/errors.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * The options of a {@link backoff}.
 *
 * @category options
 * @since 0.1.0
 */
export interface BackoffOptions {
  /**
   * The first delay, before jitter. Limits replenish over tens of seconds, so a shorter delay retries too often.
   *
   * @default "2 seconds"
   */
  readonly base?: Duration.Input | undefined
  /**
   * The factor between one delay and the next. Decorrelated jitter does not use it.
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
   * How waits are spread.
   *
   * @default "full"
   */
  readonly jitter?: "full" | "equal" | "decorrelated" | "proportional" | "none" | undefined
}

/**
 * The options of a {@link Policy}.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<in E = Retryable> extends BackoffOptions {
  /**
   * The waits, as any schedule of the errors, instead of `base`, `factor`, `cap` and `jitter`. `while`, `retry-after`,
   * `attempts` and `maxElapsed` still apply. If the schedule ends, so do the retries.
   *
   * @default {@link backoff} of the other options
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
   * The number of attempts, including the first. Five span 30 s of backoff, half a window. A client does not count
   * attempts that rate limits or an outage cost, but counts those that its own timeout ended. With 1 there are no retries
   * at all.
   *
   * @default 5
   */
  readonly attempts?: number | undefined
  /**
   * How long after the first failure an attempt may still begin. Calls survive an outage of some minutes, and do not
   * wait for a daily limit. Time in the queue before the first attempt does not count; {@link withDeadline} bounds
   * everything.
   *
   * @default "10 minutes"
   */
  readonly maxElapsed?: Duration.Input | undefined
}

/**
 * When to retry: how long to wait after each failure, how often, and until when. Made by {@link make}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Policy<in E = Retryable> {
  readonly backoff: Schedule.Schedule<unknown, E>
  readonly while: (error: E) => boolean
  readonly attempts: number
  readonly maxElapsed: Duration.Duration
}

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

const backoffOptions: Input.Checks<BackoffOptions> = {
  base: Input.finiteSpan,
  factor: Input.atLeastOne,
  cap: Input.finiteSpan,
  jitter: Input.oneOf(...Backoff.jitters)
}

const defaultBase = "2 seconds"
const defaultCap = "60 seconds"

const capFromBase: Input.Check = (value) => {
  const { base = defaultBase, cap = defaultCap } = value as BackoffOptions
  return Input.millisOf(cap) < Input.millisOf(base)
    ? { place: ".cap", text: `expected a finite duration >= base, got ${shown(cap)}` }
    : undefined
}

const checkBackoff = Input.all(Input.options(backoffOptions), capFromBase)

const policyOptions = Input.options<Options>({
  ...backoffOptions,
  backoff: Input.that("a schedule", Schedule.isSchedule),
  while: Input.callback,
  attempts: Input.whole,
  maxElapsed: Input.span
})

const besideBackoff: Input.Check = (value) => {
  const { backoff, ...given } = value as Options
  if (backoff === undefined) return capFromBase(value)
  const name = (["base", "cap", "factor", "jitter"] as const).find((name) => given[name] !== undefined)
  return name && { place: `.${name}`, text: `expected nothing beside a backoff, got ${shown(given[name])}` }
}

const checkPolicy = Input.all(policyOptions, besideBackoff)

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
 * A call whose next attempt would be too late, or would wait too long in the queue, fails at once with its last error
 * instead of sleeping in vain. If the first attempt of a client or a governor is too late, the call is refused with
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
    Effect.flatMap(Loop.Deadline, (outer = Infinity) =>
      Effect.provideService(
        self,
        Loop.Deadline,
        // Less than nothing is left of a time that has passed: then nothing is sent at all.
        Math.min(outer, now + millisAfter(after))
      )
    )
  )
)

// -----------------------------------------------------------------------------
// Schedules
// -----------------------------------------------------------------------------

const decorrelated = (base: number, cap: number): Schedule.Schedule<Duration.Duration> =>
  Schedule.fromStep(
    Effect.sync(() => {
      let previous: number | undefined
      return () =>
        Effect.map(Random.next, (random): [Duration.Duration, Duration.Duration] => {
          previous = Backoff.decorrelated({ base, cap }, previous, random)
          const delay = Duration.millis(previous)
          return [delay, delay]
        })
    })
  )

/** Whether to go on after this failure. */
const goOn =
  <E>(policy: Policy<E>) =>
  (meta: Schedule.Metadata<unknown, E>): Effect.Effect<boolean> =>
    Effect.map(Loop.Deadline, (deadline = Infinity) => {
      const wait = Duration.toMillis(meta.duration)
      const left = Math.min(Duration.toMillis(policy.maxElapsed) - meta.elapsed, deadline - meta.now)
      return policy.while(meta.input) && meta.attempt < policy.attempts && wait <= left && wait < Infinity
    })

const scheduleOf = <E>(policy: Policy<E>): Schedule.Schedule<Duration.Duration, E> =>
  policy.backoff.pipe(
    Schedule.modifyDelay((meta) =>
      Effect.map(Random.next, (random) =>
        Duration.millis(Backoff.atLeast(Duration.toMillis(meta.duration), retryAfterMillis(meta.input), random))
      )
    ),
    Schedule.while(goOn(policy)),
    Schedule.map((meta) => meta.duration)
  )

/**
 * The bare backoff: capped exponential delays with jitter, without end and after any failure. Its output is the delay
 * without jitter, or with jitter if decorrelated.
 *
 * **Details**
 *
 * Use it to build other schedules, for the option `backoff` of {@link make}.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` that names the option, what is expected and the value.
 *
 * **Example** (The delays after three failures)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import * as Schedule from "effect/Schedule"
 * import * as Retry from "floodgate/Retry"
 *
 * const delays = Effect.gen(function* () {
 *   const step = yield* Schedule.toStep(Retry.backoff({ cap: "5 seconds", jitter: "none" }))
 *   const steps = [yield* step(0, undefined), yield* step(0, undefined), yield* step(0, undefined)]
 *   return steps.map(([, delay]) => Duration.toMillis(delay))
 * })
 *
 * await Effect.runPromise(delays.pipe(Effect.orDie)) // => [2_000, 4_000, 5_000]
 * ```
 *
 * @category schedules
 * @since 0.1.0
 */
export const backoff = (options: BackoffOptions = {}): Schedule.Schedule<Duration.Duration> => {
  Input.check("Retry.backoff", checkBackoff, options)
  const { factor = 2, jitter = "full" } = options
  const base = Duration.fromInputUnsafe(options.base ?? defaultBase)
  const cap = Duration.fromInputUnsafe(options.cap ?? defaultCap)
  if (jitter === "decorrelated") return decorrelated(Duration.toMillis(base), Duration.toMillis(cap))
  const capped = Schedule.modifyDelay(Schedule.exponential(base, factor), (meta) =>
    Effect.succeed(Duration.min(meta.duration, cap))
  )
  if (jitter === "none") return capped
  if (jitter === "proportional") return Schedule.jittered(capped)
  return Schedule.modifyDelay(capped, (meta) =>
    Effect.map(Random.next, (random) => Backoff.spread(jitter, Duration.toMillis(meta.duration), random))
  )
}

/**
 * The whole policy as a schedule for `Effect.retry`: {@link backoff} with the provider's `retryAfter` as a floor, ended
 * by errors that may not be retried, by `attempts`, by `maxElapsed` and by a deadline ({@link withDeadline}).
 *
 * **Details**
 *
 * The floor is extended by up to a fifth, so that callers with the same `retryAfter` do not return together, and
 * rounded up to whole milliseconds. `cap` does not apply to it. If the wait would end after `maxElapsed` or the
 * deadline, the schedule ends at once. Its output is the wait.
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
 * @category schedules
 * @since 0.1.0
 */
export const schedule: {
  <E extends Retryable = Retryable>(options?: Options<E>): Schedule.Schedule<Duration.Duration, E>
  <E>(options: Options<E> & { readonly while: (error: E) => boolean }): Schedule.Schedule<Duration.Duration, E>
} = (options: Options = {}) => scheduleOf(make(options))

// -----------------------------------------------------------------------------
// Policies
// -----------------------------------------------------------------------------

/**
 * Makes a policy. Without options it is the default of every client: 2 s, doubled up to 60 s, full jitter, 5 attempts,
 * 10 minutes in all.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` that names the option, what is expected and the value: `base` and `cap` are finite durations
 * with 0 < `base` <= `cap`, `factor` is a finite number >= 1, `attempts` is an integer >= 1 and `maxElapsed` is a
 * duration above zero. A `backoff` excludes the four options that it replaces.
 *
 * **Example** (The defaults, longer, and no retries at all)
 *
 * ```ts doctest
 * import * as Retry from "floodgate/Retry"
 *
 * Retry.make().attempts // => 5
 * Retry.make({ base: "5 seconds", attempts: 8 }).attempts // => 8
 * Retry.make({ attempts: 1 }).attempts // => 1
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
 * **Example** (Slower after an overload)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import * as Schedule from "effect/Schedule"
 * import type { LlmError } from "floodgate/LlmError"
 * import * as Retry from "floodgate/Retry"
 *
 * const backoff = Retry.backoff().pipe(
 *   Schedule.setInputType<LlmError>(),
 *   Schedule.modifyDelay(({ duration, input }) =>
 *     Effect.succeed(input.reason._tag === "Overloaded" ? Duration.times(duration, 3) : duration)
 *   )
 * )
 *
 * Retry.make({ backoff, attempts: 8 }).attempts // => 8
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  <E extends Retryable = Retryable>(options?: Options<E>): Policy<E>
  <E>(options: Options<E> & { readonly while: (error: E) => boolean }): Policy<E>
} = (options: Options = {}): Policy => {
  Input.check("Retry.make", checkPolicy, options)
  const { attempts = 5, backoff: given, maxElapsed = "10 minutes", while: isRetried = isRetryable, ...waits } = options
  return {
    backoff: given ?? backoff(waits),
    while: isRetried,
    attempts,
    maxElapsed: Duration.fromInputUnsafe(maxElapsed)
  }
}

// -----------------------------------------------------------------------------
// Combinators
// -----------------------------------------------------------------------------

/** Notes in an `LlmError` why there was no further retry. */
const finish = <E>(error: E, stoppedBy: StopReason | undefined): E =>
  error instanceof LlmError && stoppedBy !== undefined ? (error.annotate({ stoppedBy }) as typeof error) : error

/**
 * Retries an effect as the policy says, within the {@link RetryBudget}. Success, error and requirements stay the same.
 *
 * **Details**
 *
 * Only failures with `isRetryable: true`, or that the policy's `while` accepts, are retried, never before their
 * `retryAfter` or after the deadline ({@link withDeadline}). Defects and interruptions are not retried. Nothing is held during a wait,
 * and interruption ends it at once. When it gives up, it fails with the last error.
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
 * @category combinators
 * @since 0.1.0
 */
export const withPolicy: {
  <E>(policy: Policy<E>): <A, E1 extends E, R>(self: Effect.Effect<A, E1, R>) => Effect.Effect<A, E1, R>
  <E, A, E1 extends E, R>(self: Effect.Effect<A, E1, R>, policy: Policy<E>): Effect.Effect<A, E1, R>
} = dual(2, <A, E, R>(self: Effect.Effect<A, E, R>, policy: Policy<E>): Effect.Effect<A, E, R> =>
  Effect.contextWith((context: Context.Context<R>) => {
    if (!Schedule.isSchedule(policy.backoff))
      Input.invalid("Retry.withPolicy", "a policy, as Retry.make gives it", policy)
    const judge = (failure: E): Loop.Judgement<E> => ({
      isRetryable: policy.while(failure),
      retryAfter: retryAfterMillis(failure),
      isOwn: true,
      failure
    })
    const deadline = Context.get(context, Loop.Deadline) ?? Infinity
    return Loop.retry(policy, {
      budget: Context.get(context, RetryBudget),
      deadline,
      attempt: () => self,
      judge,
      finish
    })
  })
)
