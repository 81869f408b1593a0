/**
 * Begins a call without Effect, for code that sends requests by callbacks. If the call has to wait, or its attempt fails, it goes on in
 * Effect, at the point that it has reached. Both take the same steps.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Scope from "effect/Scope"
import { mayAsk } from "../budget/asking.ts"
import { admitted, type CallError } from "./admission.ts"
import { GovernedCall } from "./governedCall.ts"
import type { GovernorParts } from "./parts.ts"
import type { Call, CallOptions, Ticket } from "./models.ts"
import {
  withBreaker,
  checkCall,
  isPlain,
  leaveOpen,
  withAdmission,
  runWithRetries,
  withSettlement,
  withTimeout,
  withAgent
} from "./steps.ts"

/**
 * Whether a call needs Effect only if it has to wait: no layer replaces the budget or the estimator, and the call has neither a choice
 * of places, nor a span, a prefix that it shares with others, a timeout or a circuit breaker.
 */
const isDirect = (call: GovernedCall, context: Context.Context<never>): boolean => {
  const { ask, breaker, estimates, learns } = call.parts
  const isOwn = ask !== undefined && estimates !== undefined && learns !== undefined && mayAsk(ask, context)
  const { cacheKey, timeout } = call.options
  const isBare = cacheKey === undefined && timeout === undefined && breaker === undefined && !call.isTraced
  return isOwn && isBare && isPlain(call)
}

/**
 * Begins a call for code that sends requests without Effect. Undefined if the call needs Effect from the start; then nothing has
 * happened. Throws a `RangeError` if an option is invalid.
 *
 * If the call `isSent`, it was admitted, and its request must be sent now. Otherwise, or if its attempt fails, {@link resume} goes on.
 */
export type Begin = (context: Context.Context<never>, call: Call, options?: CallOptions) => GovernedCall | undefined

export const begin =
  (operation: string, parts: GovernorParts): Begin =>
  (context, described, options = {}) => {
    checkCall(operation, described, options)
    const call = new GovernedCall(parts, described, options, context, undefined)
    if (!isDirect(call, context)) return undefined
    call.next(call.deadline, call.tokens)
    try {
      call.remaining = admitted(call, context)
    } catch (thrown) {
      call.remaining = Effect.die(thrown)
    }
    if (call.remaining === undefined) call.send()
    return call
  }

/**
 * Goes on in Effect with a call that was begun outside of it: one that was not admitted yet, or whose attempt was sent, with the
 * `rest` of that attempt. The call then ends with the scope, as one of `Governor.open` does.
 */
export const resume = <A, E, R>(
  call: GovernedCall,
  attempt: (ticket: Ticket) => Effect.Effect<A, E, R>,
  rest?: Effect.Effect<A, E, R>
): Effect.Effect<A, E | CallError, Exclude<R, Scope.Scope> | Scope.Scope> => {
  const settling = withSettlement<A, A>(leaveOpen)
  const attempting = pipe(attempt, withTimeout, withBreaker, withAgent, settling)
  const first = Effect.withFiber<A, E | CallError, Exclude<R, Scope.Scope> | Scope.Scope>(({ context }) => {
    call.within = Context.getUnsafe(context, Scope.Scope)
    if (rest !== undefined) return settling(() => rest)(call)
    return call.remaining === undefined ? attempting(call) : Effect.flatMap(call.remaining, () => attempting(call))
  })
  return runWithRetries(call, first, withAdmission(attempting))
}
