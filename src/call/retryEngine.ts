/**
 * The engine of all retries: makes attempts until one succeeds or the policy ends. Nothing is held while it waits.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as Input from "../domain/input/checks.ts"
import type { RetryTokens } from "./retryBudget.ts"
import type { StopReason } from "./retryErrors.ts"
import type { Decision, Failed, Policy } from "./retryPolicy.ts"

/**
 * A retry that is about to wait.
 *
 * @category models
 * @since 0.4.0
 */
export interface Retrying<out E> {
  readonly error: E
  /** The attempt that failed, from 1. */
  readonly attempt: number
  /** How long until the next attempt. */
  readonly wait: Duration.Duration
  /** How much of the wait the retry budget has added, because it is spent. */
  readonly delayed: Duration.Duration
}

/** A call as the engine sees it: attempts fail with `E`, and the policy judges `F`. */
export interface Retried<E, F, R = never> {
  readonly clock: Clock.Clock
  readonly tokens: RetryTokens
  /** The time after which no attempt begins, in milliseconds of the clock. */
  readonly deadline: number
  readonly judge: (error: E) => Failed<F>
  /** What the call fails with in the end. */
  readonly finish: (error: E, stoppedBy: StopReason | undefined) => E
  /** Runs before each wait. */
  readonly onRetry?: ((retry: Retrying<E>) => Effect.Effect<unknown, never, R>) | undefined
}

/** Makes an attempt, which must not begin after a time. */
type Attempt<A, E, R> = (until: number) => Effect.Effect<A, E, R>

/** Retries attempts as a policy says. The caller counts the call in its retry budget. */
export const retried = <A, E, F, R, R2 = never>(
  policy: Policy<F>,
  call: Retried<E, F, R2>,
  attempt: Attempt<A, E, R>
): Effect.Effect<A, E, R | R2> =>
  // Most calls need one attempt, so the schedule is started when that has failed.
  Effect.catchCause(attempt(call.deadline), (cause) => again(policy, call, attempt, cause))

/** Goes on after the first attempt has failed. */
const again = Effect.fnUntraced(function* <A, E, F, R, R2>(
  policy: Policy<F>,
  call: Retried<E, F, R2>,
  attempt: Attempt<A, E, R>,
  first: Cause.Cause<E>
): Effect.fn.Return<A, E, R | R2> {
  const step = yield* Schedule.toStep(policy)
  let cause = first
  for (let number = 1; ; number++) {
    const found = Cause.findErrorOption(cause)
    if (found._tag === "None") return yield* Effect.failCause(cause)
    const error = found.value
    const failed = call.judge(error)
    const next = yield* Pull.catchDone(step(call.clock.currentTimeMillisUnsafe(), failed), Effect.succeed)
    if (!Array.isArray(next)) return yield* Effect.fail(call.finish(error, reasonOf(next)))
    const [{ until }, wait] = next
    // A schedule that no policy was made of judges no errors.
    if (until === undefined) Input.invalid("Retry.withPolicy", "a policy, as Retry.make gives it", policy)
    const isInTime = yield* rested(call, { error, attempt: number, wait, delayed: Duration.zero }, failed.isOwn, until)
    if (!isInTime) return yield* Effect.fail(call.finish(error, "deadline"))
    const exit = yield* Effect.exit(attempt(until))
    if (Exit.isSuccess(exit)) return exit.value
    cause = exit.cause
  }
})

/** Why a policy has ended. If it would have gone on, a schedule that was made of it has ended. */
const reasonOf = ({ stoppedBy, until }: Decision): StopReason | undefined =>
  stoppedBy ?? (until > 0 ? "schedule" : undefined)

/** Waits for the next attempt, longer if the retry budget is spent. Returns false if that is too late. */
const rested = <E, F, R>(
  { clock, onRetry, tokens }: Retried<E, F, R>,
  retry: Retrying<E>,
  isOwn: boolean,
  until: number
): Effect.Effect<boolean, never, R> =>
  Effect.uninterruptibleMask((restore) => {
    const now = clock.currentTimeMillisUnsafe()
    // The token budget paces the retries after rate limits and outages.
    const turn = Duration.millis(isOwn ? tokens.take(now) : 0)
    const giveBack = isOwn ? Effect.sync(() => tokens.giveBack()) : Effect.void
    const wait = Duration.max(retry.wait, turn)
    if (now + Duration.toMillis(wait) > until) return Effect.as(giveBack, false)
    const delayed = Duration.subtract(wait, retry.wait)
    const reported = onRetry ? Effect.suspend(() => onRetry({ ...retry, wait, delayed })) : Effect.void
    const slept = Effect.onExitPrimitive(restore(Effect.andThen(reported, Effect.sleep(wait))), (exit) =>
      exit._tag === "Failure" ? giveBack : undefined
    )
    // A machine that slept meanwhile is later than it should be.
    return Effect.map(slept, () => clock.currentTimeMillisUnsafe() <= until)
  })
