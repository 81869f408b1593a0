/**
 * Streams that somebody reads after their call was opened: how one is opened, and what its end means.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type * as Accounting from "../Accounting.ts"
import { LlmError, type LlmErrorReason } from "../LlmError.ts"
import { infoOf } from "../protocol/messages.ts"
import { type Answer, usageOf } from "../protocol/protocol.ts"
import type { ResponseInfo, Ticket } from "./models.ts"

/** How a stream ended. `why` is the reason that its reader gave. */
export type Conclusion =
  | { readonly _tag: "Complete"; readonly actual: Accounting.Actual | undefined; readonly info: ResponseInfo }
  | { readonly _tag: "Failed"; readonly reason: LlmErrorReason }
  | { readonly _tag: "Abandoned"; readonly why: unknown }

/** How a stream ended that was read to its end, or that failed. */
export const endOf = (answer: Answer, failure: LlmErrorReason | undefined): Conclusion =>
  failure === undefined
    ? { _tag: "Complete", actual: usageOf(answer), info: infoOf(answer) }
    : { _tag: "Failed", reason: failure }

/** Tells the call how its stream ended. One that was abandoned is settled when its scope closes. */
export const conclude = (ticket: Ticket, conclusion: Conclusion): Effect.Effect<void> => {
  switch (conclusion._tag) {
    case "Complete":
      return ticket.succeed(conclusion.actual, conclusion.info)
    case "Failed":
      return ticket.fail(new LlmError({ reason: conclusion.reason }))
    case "Abandoned":
      return Effect.void
  }
}

/** Reports the end of a stream once, however often its reader comes to an end. */
export const once = (ended: (conclusion: Conclusion) => void): ((conclusion: Conclusion) => void) => {
  let hasEnded = false
  return (conclusion) => {
    if (hasEnded) return
    hasEnded = true
    ended(conclusion)
  }
}

/**
 * Opens a call in a scope of its own, which is closed at once if that fails; else whoever reads the stream closes it. To be
 * run where nothing interrupts; `restore` is around the opening.
 */
export const inScope = <A, E>(
  opening: Effect.Effect<A, E, Scope.Scope>,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
): Effect.Effect<{ readonly opened: A; readonly scope: Scope.Closeable }, E> =>
  Effect.flatMap(Scope.make(), (scope) =>
    Effect.map(
      Effect.onExit(restore(Scope.provide(opening, scope)), (exit) =>
        Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)
      ),
      (opened) => ({ opened, scope })
    )
  )
