/**
 * The retry loop: makes attempts until one succeeds or the policy ends it. Nothing is held while it waits.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Backoff from "./backoff.ts"
import { RetryBudget } from "./budget.ts"
import type { StopReason } from "./errors.ts"

/** When to retry, whatever the failures are. */
export interface Rules<in E> {
  readonly backoff: Schedule.Schedule<unknown, E>
  readonly attempts: number
  readonly maxElapsed: Duration.Duration
}

/** What a failure says of another attempt. */
export interface Judgement {
  readonly isRetryable: boolean
  /** Milliseconds that the provider asked to wait. */
  readonly retryAfter: number | undefined
  /** Whether it is the call's own: what the provider's limits or an outage cost uses up no attempt. */
  readonly isOwn: boolean
}

export interface Options<E> {
  readonly judge: (error: E) => Judgement
  /** What the call fails with in the end. */
  readonly finish: (error: E, stoppedBy: StopReason | undefined) => E
  /** The time after which no attempt begins, in milliseconds of the clock. */
  readonly deadline: number
}

/** Retries that are not the call's own are spread over this time, and more and more after a few of them in a row. */
const spread = { base: 2_000, factor: 2, cap: 60_000 }
const patience = 4

/** A schedule as it goes on: the time and the error give its output and the delay. */
type Step<E> = (now: number, error: E) => Effect.Effect<[unknown, Duration.Duration], unknown>

/** The wait before the next attempt, in milliseconds; why there is none otherwise. */
type Next = { readonly millis: number } | { readonly stoppedBy: StopReason }

export const retry = <A, E, R>(
  attempt: Effect.Effect<A, E, R>,
  rules: Rules<E>,
  { deadline, finish, judge }: Options<E>
): Effect.Effect<A, E, R> =>
  Effect.flatMap(RetryBudget, (budget) => {
    const loop = Effect.gen(function* () {
      let step: Step<E> | undefined
      let since: number | undefined
      let own = 0
      let others = 0

      /** Takes a retry from the budget, and gives it back where the wait comes to nothing. */
      const waitInTurn = (millis: number, until: number) =>
        Effect.flatMap(budget.take, (turn) => {
          const wait = Math.max(millis, Duration.toMillis(turn))
          return until - wait < 0
            ? Effect.as(budget.giveBack, false)
            : Effect.as(
                Effect.onInterrupt(Effect.sleep(wait), () => budget.giveBack),
                true
              )
        })

      const next = Effect.fnUntraced(function* (error: E, judgement: Judgement): Effect.fn.Return<Next> {
        const now = yield* Clock.currentTimeMillis
        const random = yield* Random.next
        since ??= now
        const until = Math.min(since + Duration.toMillis(rules.maxElapsed), deadline) - now
        let delay: number
        if (judgement.isOwn) {
          if (++own >= rules.attempts) return { stoppedBy: "attempts" }
          step ??= yield* Schedule.toStep(rules.backoff)
          const stepped = yield* Effect.exit(step(now, error))
          if (Exit.isFailure(stepped)) return { stoppedBy: "schedule" }
          others = 0
          delay = Duration.toMillis(stepped.value[1])
        } else {
          delay = Backoff.exponential(spread, Math.max(1, ++others - patience)) * random
        }
        const millis = Backoff.atLeast(delay, judgement.retryAfter, random)
        if (!(millis <= until)) return { stoppedBy: "deadline" }
        if (!judgement.isOwn) yield* Effect.sleep(millis)
        else if (!(yield* waitInTurn(millis, until))) return { stoppedBy: "deadline" }
        // A machine that slept meanwhile is later than it should be.
        return (yield* Clock.currentTimeMillis) > deadline ? { stoppedBy: "deadline" } : { millis }
      })

      for (;;) {
        const exit = yield* Effect.exit(attempt)
        if (Exit.isSuccess(exit)) return exit.value
        const failure = Cause.findErrorOption(exit.cause)
        if (failure._tag === "None") return yield* exit
        const judgement = judge(failure.value)
        if (!judgement.isRetryable) return yield* Effect.fail(finish(failure.value, undefined))
        const decided = yield* next(failure.value, judgement)
        if ("stoppedBy" in decided) return yield* Effect.fail(finish(failure.value, decided.stoppedBy))
      }
    })
    return Effect.acquireUseRelease(
      budget.begin,
      () => loop,
      () => budget.end
    )
  })
