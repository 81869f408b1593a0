/**
 * Retries that do not make things worse: spread in time, never earlier than the provider asked, bounded in number, and
 * bounded in sum over all callers.
 *
 * Twelve agents that are rejected together and wait a fixed second come back together, and are rejected again. Three
 * things break that up:
 *
 * - **Jitter.** A wait is drawn at random, so that those who failed together do not return together.
 * - **The provider's `retry-after` is a floor.** It is spread upwards only: an earlier retry is known to fail.
 * - **A retry budget.** `attempts` bounds one call. It does not bound a thousand calls that fail together, which five
 *   attempts each turn into five thousand requests, just when the provider has no room. The {@link RetryBudget} is
 *   shared by all callers: once a fifth of the calls are retries, further retries wait for their turn.
 *
 * **Details**
 *
 * {@link withPolicy} retries by a {@link Policy}, which takes the waits from any `Schedule` of the error: what may be
 * retried, how soon and how often does not depend on it. The whole policy is an ordinary `Schedule` ({@link schedule}),
 * too, and works with `Effect.retry`; it lacks the retry budget. Both fail with the last error when they give up; an
 * `LlmError` says in its field `stoppedBy` why they did.
 *
 * **Gotchas**
 *
 * Retries multiply: five attempts around a client that makes three are fifteen requests. Let one place own them, and
 * switch others off (`maxRetries: 0` in the SDKs).
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
import { durationOf, finiteOf, invalid } from "./input/arguments.ts"
import { isLlmError } from "./LlmError.ts"
import * as Backoff from "./retry/backoff.ts"
import { RetryBudget } from "./retry/budget.ts"
import { isRetryable, type Retryable, retryAfterMillis, type StopReason } from "./retry/errors.ts"
import * as Loop from "./retry/loop.ts"

export { layerBudget, layerBudgetUnlimited, RetryBudget } from "./retry/budget.ts"
export { isRetryable, type Retryable } from "./retry/errors.ts"

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * The options of a {@link backoff}.
 *
 * @category options
 * @since 0.1.0
 */
interface BackoffOptions {
  /**
   * The first delay, before jitter. Limits are replenished over tens of seconds: a shorter one asks too often.
   *
   * @default "2 seconds"
   */
  readonly base?: Duration.Input | undefined
  /**
   * By how much a delay is longer than the one before. Decorrelated jitter does not use it.
   *
   * @default 2
   */
  readonly factor?: number | undefined
  /**
   * The longest delay before jitter: the minute by which providers count. It never shortens a `retry-after`.
   *
   * @default "60 seconds"
   */
  readonly cap?: Duration.Input | undefined
  /**
   * How waits are spread.
   *
   * @default "full"
   */
  readonly jitter?: Backoff.Jitter | undefined
}

/**
 * The options of a {@link Policy}.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<in E = Retryable> extends BackoffOptions {
  /**
   * The waits, in place of `base`, `factor`, `cap` and `jitter`: any schedule of the errors. What may be retried, the
   * `retry-after` below which no wait falls, `attempts` and `maxElapsed` hold whatever it says; if it ends, so do the
   * retries.
   *
   * @default {@link backoff} of the other options
   */
  readonly backoff?: Schedule.Schedule<unknown, E> | undefined
  /**
   * Which errors are retried. Needed for errors that do not say of themselves whether they are {@link Retryable}. A client
   * or a governor never retries what says that it is not, whatever this says.
   *
   * @default those whose `isRetryable` is true
   */
  readonly while?: ((error: E) => boolean) | undefined
  /**
   * The number of attempts in all, the first included. Five of them span 30 s of backoff: half a window. Attempts that the
   * provider's limits or an outage cost a client are not counted, but where this is 1 there is no other in any case.
   *
   * @default 5
   */
  readonly attempts?: number | undefined
  /**
   * How long after the first failure an attempt may still begin. An outage of some minutes is survived, and a wait for a
   * daily limit is not begun. Time in a queue before the first attempt does not count; for a limit on everything see
   * {@link withDeadline}.
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
// Deadline
// -----------------------------------------------------------------------------

/**
 * The time, in milliseconds of the `Clock`, after which no further attempt begins. None by default.
 *
 * **Example** (None by default)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * await Effect.runPromise(Effect.gen(function* () { return yield* Retry.Deadline })) // => undefined
 * ```
 *
 * @see {@link withDeadline} for setting it as a duration from now
 * @category services
 * @since 0.1.0
 */
export const Deadline: Context.Reference<number | undefined> = Context.Reference<number | undefined>(
  "floodgate/Retry/Deadline",
  { defaultValue: () => undefined }
)

/**
 * Lets no attempt begin later than this long from now, whatever the policies within. The nearest deadline holds.
 *
 * **Details**
 *
 * A call whose next attempt would come too late fails at once with its own error, instead of sleeping for nothing; where
 * its wait for the budget would be too long, too. A call of a client or a governor that is too late for its first attempt
 * has no error yet, and is refused with `DeadlineMissed`. An attempt that runs is not cut short: that is what
 * `Effect.timeout` is for.
 *
 * **Gotchas**
 *
 * The first attempt of a bare {@link withPolicy} is made in any case.
 *
 * A deadline is a time of day, as that of whoever waits for the answer: a machine that slept finds it passed, and a clock
 * that is set moves it. A wait in a budget's queue is bounded by what was left when it began, whatever the clock does.
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
        Math.min(outer, now + Duration.toMillis(durationOf("Retry.withDeadline", after, "a duration", () => true)))
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
    Effect.map(Deadline, (deadline = Infinity) => {
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
 * The bare backoff: capped exponential delays with jitter, for ever and after any failure. Its output is the delay
 * without jitter, or with it when decorrelated.
 *
 * **Details**
 *
 * It is meant for building other schedules: {@link make} takes what becomes of it as its `backoff`.
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
  const { factor = 2, jitter = "full" } = options
  const base = finiteOf("Retry.base", options.base ?? "2 seconds")
  if (!(factor >= 1 && factor < Infinity)) invalid("Retry.factor", "a finite number >= 1", factor)
  const first = Duration.toMillis(base)
  const cap = durationOf(
    "Retry.cap",
    options.cap ?? "60 seconds",
    "a finite duration >= base",
    (millis) => millis >= first && millis < Infinity
  )
  if (!Backoff.jitters.includes(jitter)) invalid("Retry.jitter", `one of ${Backoff.jitters.join(", ")}`, jitter)
  if (jitter === "decorrelated") return decorrelated(first, Duration.toMillis(cap))
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
 * by errors that may not be retried, by `attempts`, by `maxElapsed` and by the {@link Deadline}.
 *
 * **Details**
 *
 * The floor is spread upwards by up to a fifth, so that callers who were told the same time do not return together, and
 * is rounded up to whole milliseconds. `cap` does not apply to it. If the wait ends after `maxElapsed` or the deadline,
 * the schedule ends at once. Its output is the wait.
 *
 * **Gotchas**
 *
 * It knows nothing of other callers: use {@link withPolicy} for the retry budget. Throws a `RangeError` as
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
 * Makes a policy. Without options it is the incident report's: 2 s, doubled up to 60 s, 5 attempts, full jitter.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` that names the option, what is expected and the value: `base` and `cap` are finite durations
 * with 0 < `base` <= `cap`, `factor` is a finite number >= 1, `attempts` is an integer >= 1 and `maxElapsed` is a
 * duration above zero. Beside a `backoff` the four options that it replaces are refused.
 *
 * **Example** (Longer, and no retries at all)
 *
 * ```ts doctest
 * import * as Retry from "floodgate/Retry"
 *
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
  const { attempts = 5, backoff: given, maxElapsed = "10 minutes", while: isRetried = isRetryable, ...waits } = options
  const { base, cap, factor, jitter } = waits
  if (!(Number.isSafeInteger(attempts) && attempts >= 1)) invalid("Retry.attempts", "an integer >= 1", attempts)
  for (const [option, value] of Object.entries({ base, cap, factor, jitter })) {
    if (given !== undefined && value !== undefined) invalid(`Retry.${option}`, "nothing beside a backoff", value)
  }
  return {
    backoff: given ?? backoff(waits),
    while: isRetried,
    attempts,
    maxElapsed: durationOf("Retry.maxElapsed", maxElapsed)
  }
}

/**
 * The policy with every default of {@link Options}.
 *
 * **Example** (Its defaults)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Retry from "floodgate/Retry"
 *
 * Retry.defaultPolicy.attempts // => 5
 * Retry.defaultPolicy.maxElapsed // => Duration.minutes(10)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const defaultPolicy: Policy = make()

// -----------------------------------------------------------------------------
// Combinators
// -----------------------------------------------------------------------------

/** An `LlmError` says in the end why nobody tried again. */
const finish = <E>(error: E, stoppedBy: StopReason | undefined): E =>
  isLlmError(error) && stoppedBy !== undefined ? (error.annotate({ stoppedBy }) as typeof error) : error

/**
 * Retries an effect as the policy says, within the {@link RetryBudget}. Success, error and requirements stay the same.
 *
 * **Details**
 *
 * Whatever the policy's backoff, only failures that say `isRetryable: true`, or that the policy's `while` accepts, are
 * retried, never sooner than their `retryAfter`, and none after the {@link Deadline}; defects and interruptions never are.
 * Nothing is held during a wait, and interruption ends it at once. When it gives up it fails with the last error.
 *
 * **Gotchas**
 *
 * An error type that does not have `isRetryable` does not fit the default policy: make one with `while`.
 *
 * **Example** (An error that may not be retried comes back at once)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const call = Effect.fail({ isRetryable: false, reason: "invalid request" })
 *
 * const error = await Effect.runPromise(call.pipe(Retry.withPolicy(Retry.defaultPolicy), Effect.flip))
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
    if (!Schedule.isSchedule(policy.backoff)) invalid("Retry.withPolicy", "a policy, as Retry.make gives it", policy)
    const judge = (failure: E): Loop.Judgement<E> => ({
      isRetryable: policy.while(failure),
      retryAfter: retryAfterMillis(failure),
      isOwn: true,
      failure
    })
    const deadline = Context.get(context, Deadline) ?? Infinity
    return Loop.retry(policy, {
      budget: Context.get(context, RetryBudget),
      deadline,
      attempt: () => self,
      judge,
      finish
    })
  })
)
