/**
 * The steps around one attempt of a call.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { identity } from "effect/Function"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import { durationOf } from "../internal/invalid.ts"
import { annotate, isLlmError, LlmError, TimedOut } from "../LlmError.ts"
import { stop } from "../retry/errors.ts"
import * as Retry from "../Retry.ts"
import type * as Trace from "./trace.ts"

export const isRefusal = (error: unknown): error is Budget.BudgetError => error instanceof Budget.BudgetError

export const within = (
  timeout: Duration.Input | undefined
): (<A, E, R>(attempt: Effect.Effect<A, E, R>) => Effect.Effect<A, E | LlmError, R>) => {
  if (timeout === undefined) return identity
  const duration = durationOf("CallOptions.timeout", timeout)
  const orElse = () => Effect.fail(new LlmError({ reason: new TimedOut({ after: duration }) }))
  return Effect.timeoutOrElse({ duration, orElse })
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
  const told = annotate(error, {
    attempts: trace.attempts,
    waited: trace.waited > 0 ? Duration.millis(trace.waited) : undefined,
    stoppedBy: stopped === "terminal" ? undefined : stopped,
    limit: trace.limit
  })
  if (stopped !== undefined) stop(told, stopped)
  return told as E & LlmError
}
