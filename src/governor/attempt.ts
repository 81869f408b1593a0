/**
 * The steps around one attempt of a call.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import type * as Estimator from "../Estimator.ts"
import type * as Limits from "../Limits.ts"
import { annotate, isLlmError, LlmError, TimedOut } from "../LlmError.ts"
import * as Retry from "../Retry.ts"
import type { Failure } from "./models.ts"
import type * as Trace from "./trace.ts"

export const isRefusal = (error: unknown): error is Budget.BudgetError => error instanceof Budget.BudgetError

export const failureOf = (error: unknown): Failure => (typeof error === "object" && error !== null ? error : {})

export const isTooLarge = (
  error: Budget.BudgetError
): error is Budget.BudgetError & { readonly reason: Budget.EstimateTooLarge } =>
  error.reason._tag === "EstimateTooLarge"

/** By how much a guess of the input may be too high: 2.7 bytes a token are assumed at first, and more than 4 occur. */
const guessedTooHigh = 1.6

/** The estimate cut down to the limit that it is larger than, if it may be wrong by so much. */
export const clamp = (
  call: Estimator.Call,
  estimate: Limits.Estimate,
  { asked, dimension, limit }: Budget.EstimateTooLarge
): Limits.Estimate | undefined => {
  const guessed =
    dimension === "outputTokens"
      ? asked !== call.maxTokens
      : dimension !== "requests" && call.inputTokens === undefined && asked <= limit * guessedTooHigh
  return guessed ? { ...estimate, [dimension]: limit } : undefined
}

/** The queue is not stood in beyond the deadline, because no attempt begins after it. */
export const untilDeadline = Effect.fnUntraced(function* (maxWait: Duration.Input | undefined) {
  const deadline = yield* Retry.Deadline
  if (deadline === undefined) return maxWait
  const left = Duration.millis(Math.max(0, deadline - (yield* Clock.currentTimeMillis)))
  return maxWait === undefined ? left : Duration.min(left, Duration.fromInputUnsafe(maxWait))
})

export const within = <A, E, R>(
  timeout: Duration.Input | undefined,
  attempt: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LlmError, R> => {
  if (timeout === undefined) return attempt
  const after = Duration.fromInputUnsafe(timeout)
  const orElse = () => Effect.fail(new LlmError({ reason: new TimedOut({ after }) }))
  return Effect.timeoutOrElse(attempt, { duration: after, orElse })
}

/** Runs an effect in a scope that closes at once when it fails, so that a retry waits with empty hands. */
export const scopedIfItSucceeds = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const scope = yield* Scope.fork(yield* Effect.scope)
      return yield* Effect.onExit(restore(Scope.provide(self, scope)), (exit) =>
        Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)
      )
    })
  )

/** The final error with what only the client knows: how often it tried, how long it waited, and why it stopped. */
export const withHistory = <E>(error: E, trace: Trace.Trace): E => {
  if (!isLlmError(error)) return error
  const stopped = Retry.stoppedBy(error)
  return annotate(error, {
    attempts: trace.attempts,
    waited: trace.waited > 0 ? Duration.millis(trace.waited) : undefined,
    stoppedBy: stopped === "terminal" ? undefined : stopped,
    limit: trace.limit
  }) as E & LlmError
}
