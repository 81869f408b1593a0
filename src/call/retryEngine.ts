/** Makes the attempts of a call until one succeeds or the policy ends. It holds nothing while it waits. */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as Input from "../domain/input/checks.ts"
import type { RetryTokens } from "./retryBudget.ts"
import type { Decision, Failed, Policy, StopReason } from "./retryPolicy.ts"

/** A retry that is about to wait; see `onRetry` of `Retry.withPolicy`. */
export interface Retrying<out E> {
  readonly error: E
  readonly attempt: number
  readonly wait: Duration.Duration
  readonly delayed: Duration.Duration
}

/** A call that is retried. Its attempts fail with `E`, and the policy judges `F`. */
export interface Retried<E, F, R = never> {
  readonly clock: Clock.Clock
  readonly tokens: RetryTokens
  /** The time after which no attempt begins, in milliseconds of the clock. */
  readonly deadline: number
  readonly judge: (error: E) => Failed<F>
  /** Whether the call continues elsewhere at once, without the policy. @default never */
  readonly moves?: ((error: E) => boolean) | undefined
  /** How long the call really waits, in milliseconds, where the policy says `millis`. @default as long as it says */
  readonly waits?: ((millis: number) => number) | undefined
  /** The error that the call fails with after its last attempt. */
  readonly finish: (error: E, stoppedBy: StopReason | undefined) => E
  /** Runs before each wait. */
  readonly onRetry?: ((retry: Retrying<E>) => Effect.Effect<unknown, never, R>) | undefined
}

/**
 * Makes the further attempts of a call after the first one has failed. Most calls need one, so the schedule starts here. No attempt
 * begins after its `until`. The caller counts the call in its retry budget.
 */
export const again = Effect.fnUntraced(function* <A, E, F, R, R2>(
  policy: Policy<F>,
  call: Retried<E, F, R2>,
  attempt: (until: number) => Effect.Effect<A, E, R>,
  first: Cause.Cause<E>
): Effect.fn.Return<A, E, R | R2> {
  const step = yield* Schedule.toStep(policy)
  let cause = first
  let last = call.deadline
  for (let number = 1; ; number++) {
    const found = Cause.findErrorOption(cause)
    if (found._tag === "None") return yield* Effect.failCause(cause)
    const error = found.value
    const failed = call.judge(error)
    if (call.moves?.(error) !== true) {
      const next = yield* Pull.catchDone(step(call.clock.currentTimeMillisUnsafe(), failed), Effect.succeed)
      if (!Array.isArray(next)) return yield* Effect.fail(call.finish(error, reasonOf(next)))
      const [{ until }, backoff] = next
      // The output of a schedule that was not made from a policy has no `until`.
      if (until === undefined) Input.invalid("Retry.withPolicy", "a policy, as Retry.make gives it", policy)
      last = until
      const wait = call.waits === undefined ? backoff : Duration.millis(call.waits(Duration.toMillis(backoff)))
      const isInTime = yield* waited(call, { error, attempt: number, wait, delayed: Duration.zero }, failed.isOwn, last)
      if (!isInTime) return yield* Effect.fail(call.finish(error, "deadline"))
    }
    const exit = yield* Effect.exit(attempt(last))
    if (Exit.isSuccess(exit)) return exit.value
    cause = exit.cause
  }
})

/** The reason why a policy has ended. If its decision was to continue, a schedule that was made from the policy has ended. */
const reasonOf = ({ stoppedBy, until }: Decision): StopReason | undefined =>
  stoppedBy ?? (until > 0 ? "schedule" : undefined)

/** Waits for the next attempt, longer if the retry budget is spent. Returns false if the attempt would begin too late. */
const waited = <E, F, R>(
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
    // The wait takes longer than planned if the machine sleeps.
    return Effect.map(slept, () => clock.currentTimeMillisUnsafe() <= until)
  })
