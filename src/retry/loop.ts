/**
 * The retry loop: makes attempts until one succeeds or the policy ends it. Nothing is held while it waits.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Backoff from "./backoff.ts"
import type { RetryBudget } from "./budget.ts"
import type { StopReason } from "./errors.ts"

/** The time, in milliseconds of the `Clock`, after which no further attempt begins; none by default. */
export const Deadline: Context.Reference<number | undefined> = Context.Reference<number | undefined>(
  "floodgate/Retry/Deadline",
  { defaultValue: () => undefined }
)

/** When to retry, for errors that may be retried. */
export interface Rules<in E> {
  readonly backoff: Schedule.Schedule<unknown, E>
  readonly attempts: number
  readonly maxElapsed: Duration.Duration
}

/** What a failure says of another attempt. */
export interface Judgement<out F> {
  readonly isRetryable: boolean
  /** Milliseconds that the provider asked to wait. */
  readonly retryAfter: number | undefined
  /** Whether it is the call's own: what the provider's limits or an outage cost uses up no attempt. */
  readonly isOwn: boolean
  /** The failure as the backoff sees it. */
  readonly failure: F
}

/** A call as the loop sees it. */
export interface Retried<A, E, R, F> {
  readonly budget: RetryBudget
  /** The time after which no attempt begins, in milliseconds of the clock. */
  readonly deadline: number
  /** Makes an attempt, which is told after which time it may no longer begin. */
  readonly attempt: (last: number) => Effect.Effect<A, E, R>
  readonly judge: (error: E) => Judgement<F>
  /** What the call fails with in the end. */
  readonly finish: (error: E, stoppedBy: StopReason | undefined) => E
  /** Called when another attempt follows, with the milliseconds until then. */
  readonly waits?: (error: E, millis: number) => void
}

/** Retries that are not the call's own are spread over this time, and more and more after a few of them in a row. */
const spread = { base: 2_000, factor: 2, cap: 60_000 }
const patience = 4

/** A running schedule: the time and the failure give its output and the delay. */
type Step<F> = (now: number, failure: F) => Pull.Pull<[unknown, Duration.Duration], never, unknown>

/** Makes a call, and retries it as the rules say. */
export const retry = <A, E, R, F>(rules: Rules<F>, call: Retried<A, E, R, F>): Effect.Effect<A, E, R> =>
  // Most calls need one attempt: what the others need is made when the first has failed.
  call.budget.track(Effect.catchCause(call.attempt(call.deadline), (cause) => again(rules, call, cause)))

/** Retries after the failure of the first attempt. */
const again = <A, E, R, F>(rules: Rules<F>, call: Retried<A, E, R, F>, first: Cause.Cause<E>): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    const { budget, deadline } = call
    let step: Step<F> | undefined
    let last: number | undefined
    let own = 0
    let others = 0

    /** Waits, also for a token if the retry budget is spent. False if that would take too long. */
    const wait = (millis: number, isOwn: boolean, left: number, error: E): Effect.Effect<boolean> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(isOwn ? budget.take : Effect.succeed(Duration.zero), (turn) => {
          const giveBack = isOwn ? budget.giveBack : Effect.void
          const longest = Math.max(millis, Duration.toMillis(turn))
          const isInTime = longest <= left && longest < Infinity
          if (isInTime) call.waits?.(error, longest)
          return isInTime
            ? Effect.as(
                Effect.onInterrupt(restore(Effect.sleep(longest)), () => giveBack),
                true
              )
            : Effect.as(giveBack, false)
        })
      )

    /** Waits until the next attempt. If there is none, returns the reason. */
    const next = Effect.fnUntraced(function* (
      error: E,
      { failure, isOwn, retryAfter }: Judgement<F>
    ): Effect.fn.Return<StopReason | undefined> {
      const now = yield* Clock.currentTimeMillis
      const random = yield* Random.next
      last ??= Math.min(now + Duration.toMillis(rules.maxElapsed), deadline)
      let delay: number
      // A policy of one attempt allows no other, whatever ended this one.
      if (rules.attempts === 1 || (isOwn && ++own >= rules.attempts)) return "attempts"
      if (isOwn) {
        step ??= yield* Schedule.toStep(rules.backoff)
        const stepped = yield* Pull.catchDone(step(now, failure), () => Effect.undefined)
        if (stepped === undefined) return "schedule"
        others = 0
        delay = Duration.toMillis(stepped[1])
      } else {
        delay = Backoff.exponential(spread, Math.max(1, ++others - patience)) * random
      }
      const hasWaited = yield* wait(Backoff.atLeast(delay, retryAfter, random), isOwn, last - now, error)
      // A machine that slept meanwhile is later than it should be.
      return hasWaited && (yield* Clock.currentTimeMillis) <= last ? undefined : "deadline"
    })

    for (let cause = first; ;) {
      const error = Cause.findErrorOption(cause)
      if (error._tag === "None") return yield* Effect.failCause(cause)
      const judgement = call.judge(error.value)
      if (!judgement.isRetryable) return yield* Effect.fail(call.finish(error.value, undefined))
      const stoppedBy = yield* next(error.value, judgement)
      if (stoppedBy !== undefined) return yield* Effect.fail(call.finish(error.value, stoppedBy))
      const exit = yield* Effect.exit(call.attempt(last ?? deadline))
      if (Exit.isSuccess(exit)) return exit.value
      cause = exit.cause
    }
  })
