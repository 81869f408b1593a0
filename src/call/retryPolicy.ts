/** The parts of a retry policy. Each makes a schedule from another, and `Retry.make` composes them. */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Predicate from "effect/Predicate"

// -----------------------------------------------------------------------------
// Errors
// -----------------------------------------------------------------------------

/**
 * The properties of an error that decide about retries.
 *
 * **Details**
 *
 * The type is structural: `LlmError` and the `AiError` of `effect/ai` fit, and so can your own errors.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Retryable {
  /** Whether another attempt can succeed. */
  readonly isRetryable: boolean
  /** How long the provider asked to wait. */
  readonly retryAfter?: Duration.Duration | undefined
}

/** Whether an error has `isRetryable: true`. Errors without the property are not retried. */
export const isRetryable = (error: unknown): boolean =>
  Predicate.hasProperty(error, "isRetryable") && error.isRetryable === true

/** The `retryAfter` of an error, if it is a duration. */
export const retryAfterOf = (error: unknown): Duration.Duration | undefined =>
  Predicate.hasProperty(error, "retryAfter") && Duration.isDuration(error.retryAfter) ? error.retryAfter : undefined

// -----------------------------------------------------------------------------
// Policies
// -----------------------------------------------------------------------------

/**
 * A failed attempt, as a policy sees it.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface Failed<out E = unknown> {
  readonly error: E
  /** Whether the failure is the call's own. Those that a rate limit or an outage causes are the pool's. */
  readonly isOwn: boolean
  /**
   * Whether a rate limit caused the failure. The next attempt then waits for its turn as every call does, and the default of `maxElapsed`
   * does not count that wait.
   *
   * @default false
   * @since 0.5.0
   */
  readonly isLimited?: boolean | undefined
  /** Whether the call must not be retried, whatever the policy's `while` says. */
  readonly isFinal: boolean
  /** How long the provider asked to wait. */
  readonly retryAfter: Duration.Duration | undefined
}

/**
 * The output of a policy after a failure. The delay of the schedule is the wait.
 *
 * @stability stable
 * @category models
 * @since 0.4.0
 */
export interface Decision {
  /** The delay of the backoff, before `retryAfter` extends it. */
  readonly backoff: Duration.Duration
  /** The time after which the next attempt must not begin, in milliseconds of the `Clock`; 0 if there is no next attempt. */
  readonly until: number
  /**
   * The reason not to retry a retryable failure.
   *
   * - `"attempts"`: all allowed attempts were made
   * - `"deadline"`: the next attempt would have begun after `maxElapsed` or the deadline
   * - `"schedule"`: the policy's `backoff` ended
   */
  readonly stoppedBy: "attempts" | "deadline" | "schedule" | undefined
}

export type StopReason = NonNullable<Decision["stoppedBy"]>

/**
 * A retry policy: a `Schedule` of failed attempts. Made by {@link make}.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Policy<in E = Retryable> extends Schedule.Schedule<Decision, Failed<E>> {}

type PolicyStep<E> = (now: number, failed: Failed<E>) => Pull.Pull<[Decision, Duration.Duration], never, Decision>

/** The time after which no attempt begins, in milliseconds of the `Clock`. There is none by default. */
export const Deadline: Context.Reference<number | undefined> = Context.Reference<number | undefined>(
  "floodgate/Retry/Deadline",
  { defaultValue: () => undefined }
)

const end = (stoppedBy?: StopReason): Effect.Effect<never, Cause.Done<Decision>> =>
  Cause.done({ backoff: Duration.zero, until: 0, stoppedBy })

const mapStep =
  <E>(make: (step: PolicyStep<E>) => PolicyStep<E>) =>
  (self: Policy<E>): Policy<E> =>
    Schedule.fromStep(Effect.map(Schedule.toStep(self), make))

/** Caps the delays of a schedule. */
export const cappedAt =
  (cap: Duration.Input) =>
  <Out, In>(self: Schedule.Schedule<Out, In>): Schedule.Schedule<Out, In> => {
    const longest = Duration.fromInputUnsafe(cap)
    return Schedule.modifyDelay(self, ({ duration }) => Effect.succeed(Duration.min(duration, longest)))
  }

/** Waits for a random part of each delay, which spreads calls that failed together further than `Schedule.jittered`. */
export const fullyJittered = <Out, In>(self: Schedule.Schedule<Out, In>): Schedule.Schedule<Out, In> =>
  Schedule.modifyDelay(self, ({ duration }) =>
    Effect.map(Random.next, (random) => Duration.millis(Duration.toMillis(duration) * random))
  )

/**
 * Waits by a backoff until that ends. With `isCountedApart`, failures of the pool step a second run of the same backoff, so that
 * they do not make the waits after the call's own failures longer.
 */
export const waitingBy = <E>(backoff: Schedule.Schedule<unknown, E>, isCountedApart: boolean): Policy<E> => {
  const start = Schedule.toStep(backoff)
  return Schedule.fromStep(
    Effect.map(Effect.all([start, isCountedApart ? start : Effect.undefined]), ([own, pools = own]): PolicyStep<E> => {
      return (now, failed) => {
        const stepped = Pull.catchDone((failed.isOwn ? own : pools)(now, failed.error), () => end("schedule"))
        return Effect.map(stepped, ([, wait]) => [{ backoff: wait, until: Infinity, stoppedBy: undefined }, wait])
      }
    })
  )
}

/** The largest part of a `retry-after` that is added to it. */
const maxAdded = 0.2

/**
 * Waits at least for `retryAfter`, plus a random part of up to a fifth, so that calls that got the same time do not return
 * together. Fractions of a millisecond are rounded up, because timers cut them off.
 */
export const atLeastRetryAfter = <E>(self: Policy<E>): Policy<E> =>
  Schedule.modifyDelay(self, ({ duration, input: { retryAfter = Duration.zero } }) =>
    Effect.map(Random.next, (random) => {
      const floor = Math.max(0, Duration.toMillis(retryAfter)) * (1 + maxAdded * random)
      return Duration.millis(Math.ceil(Math.max(Duration.toMillis(duration), floor)))
    })
  )

/** Ends with the last of `max` attempts. `counts` tells which failures count. */
export const upToAttempts = <E>(max: number, counts: (failed: Failed<E>) => boolean) =>
  mapStep<E>((step) => {
    let used = 0
    return (now, failed) => (counts(failed) && ++used >= max ? end("attempts") : step(now, failed))
  })

/** Ends with the first failure that is not retryable. */
export const whileRetryable = <E>(isRetryable: (error: E) => boolean) =>
  mapStep<E>((step) => (now, failed) => (failed.isFinal || !isRetryable(failed.error) ? end() : step(now, failed)))

/** The reasons to extend `maxElapsed`. */
interface Extended {
  /** Whether the delays of the backoff do. */
  readonly byBackoff: boolean
  /** Whether the waits for a turn do, after rate limits. A call that was never rejected may wait for its turn as long as it takes. */
  readonly byTurns: boolean
}

/**
 * Ends if the next attempt would begin later than `maxElapsed` after the first failure, or after the caller's deadline.
 */
export const within = <E>(maxElapsed: Duration.Input, { byBackoff, byTurns }: Extended) =>
  mapStep<E>((step) => {
    let last: number | undefined
    /** Since when a turn is waited for that extends the time. */
    let since = Infinity
    return (now, failed) =>
      Effect.flatMap(step(now, failed), ([decision, wait]) =>
        Effect.flatMap(Deadline, (deadline = Infinity) => {
          last ??= now + Duration.toMillis(Duration.fromInputUnsafe(maxElapsed))
          last += Math.max(0, now - since)
          if (byBackoff) last += Duration.toMillis(decision.backoff)
          const next = now + Duration.toMillis(wait)
          if (next > Math.min(last, deadline) || next === Infinity) return end("deadline")
          const isExtending = byTurns && failed.isLimited === true
          since = isExtending ? next : Infinity
          const until = isExtending ? deadline : Math.min(last, deadline)
          return Effect.succeed<[Decision, Duration.Duration]>([{ ...decision, until }, wait])
        })
      )
  })
