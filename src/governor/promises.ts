/** Calls as promises, for callers that do not use Effect. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"

/**
 * Runs an effect as a promise. The promise rejects with the effect's failure, or with the signal's reason if the caller
 * aborted it.
 */
export type Run = <A>(effect: Effect.Effect<A, unknown>, signal: AbortSignal | undefined) => Promise<A>

/**
 * Makes a function that runs effects as promises until the scope closes. Effects that run at that time are interrupted, and
 * their promises reject with an error that says so; so does every later one.
 */
export const makeRun: Effect.Effect<Run, never, Scope.Scope> = Effect.gen(function* () {
  const fork = yield* FiberSet.runtime(yield* FiberSet.make<unknown, unknown>())()
  return async <A>(effect: Effect.Effect<A, unknown>, signal: AbortSignal | undefined): Promise<A> => {
    const fiber = fork(effect, signal === undefined ? {} : { signal })
    const exit = await new Promise<Exit.Exit<A, unknown>>((resolve) => void fiber.addObserver(resolve))
    if (Exit.isSuccess(exit)) return exit.value
    signal?.throwIfAborted()
    throw Cause.hasInterruptsOnly(exit.cause)
      ? new Error("The floodgate was closed; the call was not made, or was aborted")
      : Cause.squash(exit.cause)
  }
})
