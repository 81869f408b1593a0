/**
 * Begins a call without Effect, for code that sends requests by callbacks. If the call has to wait, or its attempt fails, it goes on in
 * Effect, at the point that it has reached. Both take the same steps.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { pipe } from "effect/Function"
import * as Scope from "effect/Scope"
import type * as Accounting from "../Accounting.ts"
import { mayAsk } from "../budget/asking.ts"
import type * as Limits from "../Limits.ts"
import { admitted, type CallError } from "./admission.ts"
import { GovernedAttempt } from "./attempt.ts"
import { GovernedCall } from "./governedCall.ts"
import type { Call, CallOptions, Outcome, ResponseInfo, Ticket } from "./models.ts"
import type { GovernorParts } from "./parts.ts"
import * as Settlement from "./settlement.ts"
import {
  AttemptTicket,
  inScope,
  leaveOpen,
  runWithRetries,
  sent,
  when,
  withAdmission,
  withAgent,
  withJob,
  withSettlement
} from "./steps.ts"

/**
 * Whether a call needs Effect only if it has to wait: no layer replaces the budget or the estimator, and the call has neither places,
 * nor a span, a prefix that it shares with others, a timeout or a circuit breaker.
 */
const isDirect = (attempt: GovernedAttempt, context: Context.Context<never>): boolean => {
  const { isTraced, options, parts, placement } = attempt.call
  const { ask, breaker, estimates, learns } = parts
  const isOwn = ask !== undefined && estimates !== undefined && learns !== undefined && mayAsk(ask, context)
  const isBare = options.cacheKey === undefined && options.timeout === undefined && breaker === undefined && !isTraced
  return isOwn && isBare && placement === undefined
}

/** The first attempt of a call that was begun without Effect. Each step returns what is left to do, if there is anything. */
export class DirectTicket extends AttemptTicket {
  /** The rest of its admission. */
  readonly rest: Settlement.Rest<CallError>

  constructor(attempt: GovernedAttempt, context: Context.Context<never>) {
    super(attempt)
    const { deadline, now } = attempt.call
    attempt.call.startTrying(now)
    attempt.begin(deadline, now)
    this.rest = admittedOrDead(attempt, context)
    if (this.rest === undefined) attempt.send()
  }

  /** Whether its request must be sent now. */
  get isSent(): boolean {
    return this.rest === undefined
  }

  observe(signal: Limits.Signal | undefined): Settlement.Rest {
    return Settlement.observe(this.attempt, signal)
  }

  settle(actual: Accounting.Actual | undefined, response?: ResponseInfo): Settlement.Rest {
    return Settlement.answered(this.attempt, actual, response)
  }

  settleFailed(error: unknown): Settlement.Rest {
    return Settlement.failed(this.attempt, error)
  }

  /** Ends the call. */
  end(exit: Exit.Exit<unknown, unknown>): Settlement.Rest {
    return Settlement.end(this.attempt, exit)
  }

  /**
   * Goes on in Effect with a call that was not admitted yet, or whose attempt was sent, with the `rest` of that attempt. The call then ends
   * with the scope, as one of `Governor.open` does.
   */
  resume<A, E, R>(
    send: (ticket: Ticket) => Effect.Effect<A, E, R>,
    rest?: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | CallError, Exclude<R, Scope.Scope> | Scope.Scope> {
    const { attempt } = this
    const { call } = attempt
    const settling = withSettlement<A, A>(leaveOpen)
    const made = pipe(
      sent(send),
      inScope,
      when(call.options.agent, withAgent),
      when(call.options.job, withJob),
      settling
    )
    const first = Effect.withFiber<A, E | CallError, Exclude<R, Scope.Scope> | Scope.Scope>(({ context }) => {
      call.within = Context.getUnsafe(context, Scope.Scope)
      if (rest !== undefined) return settling(inScope(() => rest))(attempt)
      return this.rest === undefined ? made(attempt) : Effect.flatMap(this.rest, () => made(attempt))
    })
    return runWithRetries(attempt, first, withAdmission(made))
  }
}

const admittedOrDead = (attempt: GovernedAttempt, context: Context.Context<never>): Settlement.Rest<CallError> => {
  try {
    return admitted(attempt, context)
  } catch (thrown) {
    return Effect.die(thrown)
  }
}

// -----------------------------------------------------------------------------
// For callers that have checked the options
// -----------------------------------------------------------------------------

/** `Governor.run` for callers that have checked the call and its options, and whose attempts open nothing in a scope. */
export type Run = <A, E, R>(
  request: Call,
  send: (ticket: Ticket) => Effect.Effect<Outcome<A>, E, R>,
  options?: CallOptions
) => Effect.Effect<A, E | CallError, R>

/** `Governor.open` for callers that have checked the call and its options. */
export interface OpenForms {
  readonly open: <A, E, R>(
    request: Call,
    send: (ticket: Ticket) => Effect.Effect<A, E, R>,
    options?: CallOptions
  ) => Effect.Effect<A, E | CallError, R | Scope.Scope>
  /** For {@link begin}, which clients without HTTP do not import. */
  readonly parts: GovernorParts
}

/**
 * Begins a call for code that sends requests without Effect. Undefined if the call needs Effect from the start; then nothing has
 * happened.
 *
 * If the ticket `isSent`, the call was admitted, and its request must be sent now. Otherwise, or if its attempt fails, `resume` goes
 * on.
 */
export const begin = (
  parts: GovernorParts,
  context: Context.Context<never>,
  request: Call,
  options: CallOptions = {}
): DirectTicket | undefined => {
  const attempt = GovernedAttempt.first(new GovernedCall(parts, request, options, context, undefined))
  return isDirect(attempt, context) ? new DirectTicket(attempt, context) : undefined
}
