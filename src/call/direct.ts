/**
 * Drives a call without Effect as far as it can. It serves a call that is admitted at once and succeeds, and hands every other call
 * to Effect, at the point that it has reached.
 *
 * It decides nothing: the decisions are functions of the call, in `governedCall.ts` and `steps.ts`, which the steps in Effect use, too.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { pipe } from "effect/Function"
import * as Scope from "effect/Scope"
import { awaited, mayAsk } from "../budget/asking.ts"
import { Entry } from "../budget/entry.ts"
import * as Estimating from "../domain/estimating.ts"
import type * as Estimator from "../Estimator.ts"
import type * as Limits from "../Limits.ts"
import * as Counting from "./counting.ts"
import { GovernedCall } from "./governedCall.ts"
import type { GovernorParts } from "./parts.ts"
import type { Call, CallOptions, Ticket } from "./models.ts"
import { stay } from "./place.ts"
import type { CallError } from "./placed.ts"
import {
  broken,
  type CallAttempt,
  checked,
  isPlain,
  lessOf,
  pay,
  prepare,
  queueingOf,
  refusalFor,
  retriedAfter,
  timed,
  tooLate,
  withAgent
} from "./steps.ts"

// -----------------------------------------------------------------------------
// Admission
// -----------------------------------------------------------------------------

/**
 * Whether a call needs Effect only if it has to wait: no layer replaces the budget or the estimator, and the call has neither a choice
 * of places nor a span nor a prefix that it shares with others.
 */
export const isDirect = (call: GovernedCall, context: Context.Context<never>): boolean => {
  const { how, isTraced, parts } = call
  return (
    parts.atOnce !== undefined &&
    isPlain(call) &&
    !isTraced &&
    how.cacheKey === undefined &&
    mayAsk(parts.atOnce.ask, context)
  )
}

/** Asks the budget to admit an attempt, and notes what is left to do until it is admitted. */
const ask = (call: GovernedCall, context: Context.Context<never>): void => {
  prepare(call)
  const { parts, known } = call
  const estimate = parts.atOnce!.estimate(known)
  const revise = Estimating.revision(parts.estimator.estimate, call, estimate)
  const reserve = () => asked(call, context, estimate, revise, call.now)
  if (call.last < call.now) {
    call.rest = tooLate
    return
  }
  const unpaid = pay(call, call, estimate, context)
  call.rest =
    unpaid === undefined
      ? reserve()
      : Effect.flatMap(Effect.uninterruptibleMask(unpaid), () => reserve() ?? Effect.void)
}

const asked = (
  call: GovernedCall,
  context: Context.Context<never>,
  estimate: Limits.Estimate,
  revise: ReturnType<typeof Estimating.revision<Estimator.Call, Limits.Estimate>>,
  since: number
): Effect.Effect<unknown, CallError> | undefined => {
  const answer = call.parts.atOnce!.ask(context, estimate, queueingOf(call, call, call.now, revise))
  const admit = (entry: Entry): undefined => {
    entry.begin()
    if (call.placement !== undefined) stay(call.placement, call)
    call.admit(entry.waitedMillis, entry.estimate)
  }
  if (answer instanceof Entry) {
    call.entry = answer
    if (answer.isOpen) return admit(answer)
  }
  const waiting = answer instanceof Entry ? Counting.whileWaiting(call, [call], awaited(answer, context)) : answer
  return Effect.matchEffect(waiting, {
    onSuccess: (entry) => Effect.succeed(admit(entry)),
    onFailure: (error) => {
      const less = lessOf(call, error, estimate)
      if (less === undefined) return Effect.fail(refusalFor(call, error, since))
      return asked(call, context, less, revise, since) ?? Effect.void
    }
  })
}

// -----------------------------------------------------------------------------
// In Effect
// -----------------------------------------------------------------------------

/** Makes an attempt, in its scope, and settles it. */
const settling =
  <A, B>(settle: (call: GovernedCall, value: A) => Effect.Effect<B>) =>
  <E, R>(attempt: CallAttempt<A, E, R>): CallAttempt<B, E, Exclude<R, Scope.Scope>> =>
  (call) =>
    // Both continue in the step in which the attempt ends, so that an interruption comes before it or after it.
    Effect.matchCauseEffect(Scope.provide(attempt(call), call.scope), {
      onSuccess: (value) => settle(call, value),
      onFailure: (cause) => Effect.uninterruptible(call.failWith(cause))
    })

/** Makes an attempt as soon as it is admitted, and settles it. It stands for the steps `settled` and `reserved`. */
export const admittedAtOnce =
  <A, B>(settle: (call: GovernedCall, value: A) => Effect.Effect<B>) =>
  <E, R>(attempt: CallAttempt<A, E, R>): CallAttempt<B, E | CallError, Exclude<R, Scope.Scope>> => {
    const made = settling(settle)(attempt)
    return (call) =>
      Effect.withFiber(({ context }) => {
        ask(call, context)
        return call.rest === undefined ? made(call) : Effect.flatMap(call.rest, () => made(call))
      })
  }

// -----------------------------------------------------------------------------
// Outside of Effect
// -----------------------------------------------------------------------------

/**
 * Begins a call for code that sends requests without Effect. Undefined if the call needs Effect from the start; then nothing has
 * happened. Throws a `RangeError` if an option is invalid.
 *
 * If the call `isSent`, it was admitted, and its request must be sent now. Otherwise, or if its attempt fails, {@link resume} goes on.
 */
export type Begin = (context: Context.Context<never>, call: Call, how?: CallOptions) => GovernedCall | undefined

export const begin =
  (operation: string, parts: GovernorParts): Begin =>
  (context, described, how = {}) => {
    checked(operation, described, how)
    const call = new GovernedCall(parts, described, how, context, undefined)
    if (how.timeout !== undefined || parts.breaker !== undefined || !isDirect(call, context)) return undefined
    call.next(call.deadline, call.tokens)
    try {
      ask(call, context)
    } catch (thrown) {
      call.rest = Effect.die(thrown)
    }
    if (call.rest === undefined) call.send()
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
  const sent = pipe(attempt, timed, broken, withAgent)
  const opened = (_: GovernedCall, value: A) => Effect.succeed(value)
  const first = Effect.withFiber<A, E | CallError, Exclude<R, Scope.Scope> | Scope.Scope>(({ context }) => {
    call.within = Context.getUnsafe(context, Scope.Scope)
    if (rest !== undefined) return settling(opened)(() => rest)(call)
    const made = settling(opened)(sent)(call)
    return call.rest === undefined ? made : Effect.flatMap(call.rest, () => made)
  })
  return retriedAfter(call, first, admittedAtOnce(opened)(sent))
}
