/** Runs calls as promises, for callers that do not use Effect. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import { onAbort } from "./aborts.ts"

/**
 * The floodgate was closed. Calls and streams that were running end with this error, and every later call fails with it at once.
 *
 * @stability stable
 * @category errors
 * @since 0.4.0
 */
export class ClosedError extends Error {
  override readonly name = "ClosedError"

  constructor() {
    super("The floodgate was closed; the call was not made, or was ended")
  }
}

/**
 * Runs an effect as a promise. The promise rejects with the effect's failure, or with the signal's reason if the caller
 * aborted it.
 */
export type RunPromise = <A>(effect: Effect.Effect<A, unknown>, signal: AbortSignal | undefined) => Promise<A>

/** Runs effects as promises until its scope closes. */
export interface Runner {
  readonly run: RunPromise
  /** Aborts with a `ClosedError` when the scope closes. */
  readonly closed: AbortSignal
}

/** A signal that is aborted with a `ClosedError` when the scope closes. */
export const makeClosed: Effect.Effect<AbortSignal, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => new AbortController()),
    (controller) => Effect.sync(() => controller.abort(new ClosedError()))
  ),
  ({ signal }) => signal
)

/**
 * Makes a runner. When the scope closes, running effects are interrupted, and their promises and all later ones reject with a
 * `ClosedError`.
 */
export const makeRunner: Effect.Effect<Runner, never, Scope.Scope> = Effect.gen(function* () {
  const fork = yield* FiberSet.runtime(yield* FiberSet.make<unknown, unknown>())()
  const closed = yield* makeClosed
  const run: RunPromise = async <A>(effect: Effect.Effect<A, unknown>, signal: AbortSignal | undefined): Promise<A> => {
    closed.throwIfAborted()
    signal?.throwIfAborted()
    const fiber = fork(effect)
    const withdraw = signal && onAbort(signal, () => fiber.interruptUnsafe())
    if (withdraw !== undefined) fiber.addObserver(withdraw)
    const exit = await new Promise<Exit.Exit<A, unknown>>((resolve) => void fiber.addObserver(resolve))
    if (Exit.isSuccess(exit)) return exit.value
    signal?.throwIfAborted()
    throw Cause.hasInterruptsOnly(exit.cause) ? new ClosedError() : Cause.squash(exit.cause)
  }
  return { run, closed }
})
