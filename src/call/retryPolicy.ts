/**
 * The parts of a retry policy, each a schedule made from another. `Retry.make` puts them together.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type { Retryable, StopReason } from "./retryErrors.ts"

/**
 * A failed attempt, as a policy sees it.
 *
 * @category models
 * @since 0.4.0
 */
export interface Failed<out E = unknown> {
  readonly error: E
  /** Whether it is the call's own failure. One that a rate limit or an outage caused is the pool's. */
  readonly isOwn: boolean
  /** Whether the call must not be retried, whatever the policy's `while` says. */
  readonly isFinal: boolean
  /** How long the provider asked to wait. */
  readonly retryAfter: Duration.Duration | undefined
}

/**
 * What a policy says after a failure, beside the wait.
 *
 * @category models
 * @since 0.4.0
 */
export interface Decision {
  /** The wait of the backoff alone. */
  readonly backoff: Duration.Duration
  /** The time after which the next attempt may not begin, in milliseconds of the `Clock`; 0 if there is none. */
  readonly until: number
  /** Why there is no further attempt, although the failure may be retried. */
  readonly stoppedBy: "attempts" | "deadline" | "schedule" | undefined
}

/**
 * When to retry, as a `Schedule` of failed attempts. Made by {@link make}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Policy<in E = Retryable> extends Schedule.Schedule<Decision, Failed<E>> {}

type PolicyStep<E> = (now: number, failed: Failed<E>) => Pull.Pull<[Decision, Duration.Duration], never, Decision>

/** The time, in milliseconds of the `Clock`, after which no further attempt begins; none by default. */
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

/** A random part of each delay. It spreads calls that failed together further than `Schedule.jittered`. */
export const fullyJittered = <Out, In>(self: Schedule.Schedule<Out, In>): Schedule.Schedule<Out, In> =>
  Schedule.modifyDelay(self, ({ duration }) =>
    Effect.map(Random.next, (random) => Duration.millis(Duration.toMillis(duration) * random))
  )

/**
 * A policy that waits as a backoff says, until it ends. Counted apart, failures of the pool step a run of their own of
 * the same backoff, so that they do not make the call's own waits longer.
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

/** The part of a `retry-after` that may be added to it. */
const upward = 0.2

/**
 * Waits at least for `retryAfter`, spread upwards by up to a fifth so that calls that were told the same time do not come
 * back together. Fractions are rounded up because timers cut them off.
 */
export const atLeastRetryAfter = <E>(self: Policy<E>): Policy<E> =>
  Schedule.modifyDelay(self, ({ duration, input: { retryAfter = Duration.zero } }) =>
    Effect.map(Random.next, (random) => {
      const floor = Math.max(0, Duration.toMillis(retryAfter)) * (1 + upward * random)
      return Duration.millis(Math.ceil(Math.max(Duration.toMillis(duration), floor)))
    })
  )

/** Ends with the last of so many attempts that count. */
export const upToAttempts = <E>(max: number, counts: (failed: Failed<E>) => boolean) =>
  mapStep<E>((step) => {
    let used = 0
    return (now, failed) => (counts(failed) && ++used >= max ? end("attempts") : step(now, failed))
  })

/** Ends with the first failure that must not be retried. */
export const whileRetryable = <E>(isRetryable: (error: E) => boolean) =>
  mapStep<E>((step) => (now, failed) => (failed.isFinal || !isRetryable(failed.error) ? end() : step(now, failed)))

/**
 * Ends where the next attempt would begin later than `maxElapsed` after the first failure, or than the caller's deadline.
 * With `onTop`, the waits of the backoff are added to that time.
 */
export const within = <E>(maxElapsed: Duration.Input, onTop: boolean) =>
  mapStep<E>((step) => {
    let last: number | undefined
    return (now, failed) =>
      Effect.flatMap(step(now, failed), ([decision, wait]) =>
        Effect.flatMap(Deadline, (deadline = Infinity) => {
          last ??= now + Duration.toMillis(Duration.fromInputUnsafe(maxElapsed))
          if (onTop) last += Duration.toMillis(decision.backoff)
          const until = Math.min(last, deadline)
          const next = now + Duration.toMillis(wait)
          return next <= until && next < Infinity
            ? Effect.succeed<[Decision, Duration.Duration]>([{ ...decision, until }, wait])
            : end("deadline")
        })
      )
  })
