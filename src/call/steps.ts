/**
 * The steps of a call, which `Governor.ts` composes. Each takes a function that makes an attempt, and returns one that does
 * something around it.
 */
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import { type GovernedReservation, refused } from "../budget/models.ts"
import { check } from "../domain/input/checks.ts"
import * as Amounts from "../domain/amounts.ts"
import { LlmError, TimedOut } from "../LlmError.ts"
import * as RetryEngine from "./retryEngine.ts"
import type { Failed } from "./retryPolicy.ts"
import * as Admission from "./admission.ts"
import type { CallError } from "./admission.ts"
import * as Failure from "./failure.ts"
import { GovernedCall } from "./governedCall.ts"
import type { GovernorParts } from "./parts.ts"
import { callCheck, callOptionsCheck, type Call, type CallOptions, type Outcome, type Ticket } from "./models.ts"
import * as Placed from "./placed.ts"
import * as Trace from "./trace.ts"

/** Makes one attempt of a call. */
export type CallAttempt<A, E, R> = (call: GovernedCall) => Effect.Effect<A, E, R>

/** Checks a call and its options. */
export const checkCall = (operation: string, described: Call, options: CallOptions): void => {
  check(operation, callCheck, described)
  check(operation, callOptionsCheck, options)
}

/** Begins a call, which ends with its effect or, if it outlives that, with the scope around it. */
export const begin = <A, E, R>(
  operation: string,
  parts: GovernorParts,
  described: Call,
  options: CallOptions = {},
  endsWith: "effect" | "scope",
  attempt: CallAttempt<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.withFiber(({ context }) => {
    checkCall(operation, described, options)
    const scope = endsWith === "scope" ? Context.getUnsafe(context, Scope.Scope) : undefined
    return withAgent(attempt)(new GovernedCall(parts, described, options, context, scope))
  })

/** Attempts read the agent from their context. */
export const withAgent =
  <A, E, R>(attempt: CallAttempt<A, E, R>): CallAttempt<A, E, R> =>
  (call) => {
    const { agent } = call.options
    return agent === undefined ? attempt(call) : Effect.provideService(attempt(call), Budget.Agent, agent)
  }

// -----------------------------------------------------------------------------
// Timeout and circuit breaker
// -----------------------------------------------------------------------------

/** Sends an attempt, and ends it after the timeout. The time in the queue does not count. */
export const withTimeout =
  <A, E, R>(attempt: CallAttempt<A, E, R>): CallAttempt<A, E | LlmError, R> =>
  (call) => {
    const { timeout } = call.options
    const sent = Effect.suspend(() => {
      call.send()
      return attempt(call)
    })
    if (timeout === undefined) return sent
    const duration = Duration.fromInputUnsafe(timeout)
    const orElse = () => Effect.fail(new LlmError({ reason: new TimedOut({ after: duration }) }))
    return Effect.timeoutOrElse(sent, { duration, orElse })
  }

/** Refuses an attempt while the circuit breaker of its pool is open. */
export const withBreaker =
  <A, E, R>(attempt: CallAttempt<A, E, R>): CallAttempt<A, E | LlmError, R> =>
  (call) => {
    const { parts, pool } = call
    return parts.breaker === undefined ? attempt(call) : parts.breaker.protect(pool.name, attempt(call))
  }

// -----------------------------------------------------------------------------
// Settlement
// -----------------------------------------------------------------------------

/**
 * Makes an attempt in its scope, and settles its reservation if it succeeded or failed. The end of the call settles one that was
 * interrupted.
 */
export const withSettlement =
  <A, B>(settle: (call: GovernedCall, value: A) => Effect.Effect<B>) =>
  <E, R>(attempt: CallAttempt<A, E, R>): CallAttempt<B, E, Exclude<R, Scope.Scope>> =>
  (call) => {
    const running = Scope.provide(attempt(call), call.scope)
    // Both continue in the step in which the attempt ends, so that an interruption comes before it or after it.
    const settling = {
      onSuccess: (value: A) => settle(call, value),
      onFailure: (cause: Cause.Cause<E>) => Effect.uninterruptible(call.failWith(cause))
    }
    if (call.entry !== undefined && call.parts.learns !== undefined) return Effect.matchCauseEffect(running, settling)
    // What another layer has replaced needs effects to settle a call, and nothing may interrupt them.
    return Effect.uninterruptibleMask((restore) => Effect.matchCauseEffect(restore(running), settling))
  }

/** Settles a call that was answered. */
export const settleAnswered = <A>(
  call: GovernedCall,
  { actual, response, signal, value }: Outcome<A>
): Effect.Effect<A> => {
  const rest = call.settle(actual, response, signal)
  return rest === undefined ? Effect.succeed(value) : Effect.as(rest, value)
}

/** Leaves an opened call to its caller, who concludes the ticket. */
export const leaveOpen = <A>(_: GovernedCall, value: A): Effect.Effect<A> => Effect.succeed(value)

// -----------------------------------------------------------------------------
// Admission
// -----------------------------------------------------------------------------

/** Whether a call needs no choice of a place: it has no places, or only one, whose limits are applied already. */
export const isPlain = ({ parts, placement, pool }: GovernedCall): boolean => {
  if (placement === undefined) return true
  return placement.only !== undefined && parts.memory.hasLimits(pool.name, placement.only.limits)
}

/** Makes an attempt as soon as it is admitted. */
export const withAdmission =
  <A, E, R>(attempt: CallAttempt<A, E, R>): CallAttempt<A, E | CallError, R> =>
  (call) =>
    Effect.withFiber(({ context }) => {
      const rest = isPlain(call) ? Admission.admitted(call, context) : Placed.admitted(call, call.placement!)
      return rest === undefined ? attempt(call) : Effect.flatMap(rest, () => attempt(call))
    })

/** Waits until another call has filled the provider's cache with the prefix that both share. */
export const withWarmup =
  <A, E, R>(attempt: CallAttempt<A, E, R>): CallAttempt<A, E, R> =>
  (call) => {
    const { cacheKey } = call.options
    if (cacheKey === undefined) return attempt(call)
    return call.parts.warmup(JSON.stringify([call.request.model, cacheKey]), call.until, attempt(call))
  }

// -----------------------------------------------------------------------------
// Retries
// -----------------------------------------------------------------------------

/** Makes attempts until one succeeds or the policy ends, and then ends the call, or leaves that to its scope. */
export const withRetries =
  <A, E, R>(attempt: CallAttempt<A, E | CallError, R>): CallAttempt<A, E | CallError, R> =>
  (call) =>
    runWithRetries(
      call,
      Effect.suspend(() => attempt(call.next(call.deadline, call.tokens))),
      attempt
    )

/** Makes the first attempt of a call, and others by the policy. */
export const runWithRetries = <A, E, R>(
  call: GovernedCall,
  first: Effect.Effect<A, E | CallError, R>,
  attempt: CallAttempt<A, E | CallError, R>
): Effect.Effect<A, E | CallError, R> => {
  /** The call at its last attempt. */
  let current = call
  const again = (cause: Cause.Cause<E | CallError>) =>
    RetryEngine.again(
      call.options.retry ?? call.parts.policy,
      retryingOf<E>(call, () => current),
      (last) => attempt((current = current.next(last, call.tokens))),
      cause
    )
  const attempts = Effect.catchCause(first, again)
  return Effect.onExitPrimitive(call.isTraced ? Trace.within(call, attempts) : attempts, (exit) => current.over(exit))
}

/** What the retry engine needs of a call. */
const retryingOf = <E>({ clock, deadline, placement, tokens }: GovernedCall, current: () => GovernedCall) => ({
  clock,
  deadline,
  tokens,
  judge: (error: E | CallError) => judged(current(), error),
  moves: placement && ((error: E | CallError) => moves(current(), error)),
  waits: placement && ((millis: number) => Math.max(0, placement.avoidUntil(current().now + millis) - current().now)),
  onRetry: (retry: RetryEngine.Retrying<E | CallError>) => Effect.sync(() => report(current(), retry)),
  finish: (error: E | CallError, stoppedBy: LlmError["stoppedBy"]) => finished(current(), error, stoppedBy)
})

/** Whether a failure concerns only its own call. A tier without capacity would have refused any call. */
const isAlone = (verdict: Budget.Verdict | undefined, error: unknown): boolean =>
  verdict === "isolated" || (verdict === undefined && Failure.errorType(error) !== "TierFull")

/** A failed attempt as the policy sees it. */
const judged = (call: GovernedCall, error: unknown): Failed<LlmError> => {
  const { isRetryable, retryAfter } = Failure.read(error)
  const seen = { error: Failure.causeOf(error) as LlmError, retryAfter }
  const { failed } = call
  if (Failure.isRefusal(error) || failed === undefined) return { ...seen, isFinal: true, isOwn: true }
  call.failure = error
  const { isWrongAddress, verdict } = failed
  // The provider may be healthy and always take longer than the caller's timeout.
  const isOwn = isAlone(verdict, error) || Failure.isOwnTimeout(error)
  return {
    ...seen,
    isLimited: failed.pushback === "rateLimit",
    isFinal: isRetryable === false || isWrongAddress || verdict === "impossible",
    // With several places, a failure is the call's own only after all of them.
    isOwn: call.placement?.failed() === false ? false : isOwn
  }
}

/**
 * Whether a failure concerns all calls at the place, so that no retry there can help: the credential, the bill, a missing model, or no
 * provider at all.
 */
const isDenial = (error: unknown): boolean => {
  const reason = Failure.reasonOf(error)
  if (reason?._tag === "MalformedResponse") return reason.executed === false
  return reason?._tag === "AccessDenied" || reason?._tag === "SpendLimited" || reason?.status === 404
}

/** Whether a call continues at another place at once, because no attempt can succeed where it is. */
const moves = (call: GovernedCall, error: unknown): boolean => {
  const { failed, now, parts, placement, pool } = call
  if (failed === undefined || placement?.current === undefined) return false
  if (failed.verdict === "impossible") return placement.close("tooLarge")
  const isDenied = failed.isWrongAddress || isDenial(error)
  if (isDenied) parts.memory.setAside(pool.name, now)
  return (isDenied || Failure.errorType(error) === "CircuitOpen") && placement.close("denied")
}

/** Reports the wait for the next attempt to the observer. */
const report = (call: GovernedCall, { error, wait, ...retrying }: RetryEngine.Retrying<unknown>): void => {
  const { attempts: attempt, now: at, parts, reservation } = call
  const delayed = Duration.toMillis(retrying.delayed)
  if (delayed > 0) call.pool.counts.retriesDelayed++
  const { agent, pool } = reservation
  const retry = { at, pool, agent, model: call.request.model, attempt, until: at + Math.ceil(Duration.toMillis(wait)) }
  parts.observer?.({ type: "retry", ...retry, reason: Failure.errorType(error) })
  if (delayed > 0) parts.observer?.({ type: "retryDelayed", ...retry, delayed })
}

/** The refusal of a call that was rejected because it is larger than the provider's limit: no attempt can succeed. */
const tooLarge = (call: GovernedCall, error: unknown): Budget.BudgetError | undefined => {
  const { estimate, failed, pool } = call
  if (failed?.verdict !== "impossible") return undefined
  const held: GovernedReservation = call.reservation
  const refusal = held[refused]?.()
  if (refusal !== undefined) return new Budget.BudgetError({ reason: refusal, failure: Failure.causeOf(error) })
  const whole = Amounts.whole(estimate)
  for (const dimension of Amounts.dimensions) {
    const asked = whole[dimension]
    const limit = failed.signal?.dimensions[dimension]?.limit ?? Infinity
    if (asked <= limit) continue
    const reason = new Budget.EstimateTooLarge({ pool: pool.name, dimension, asked, limit })
    return new Budget.BudgetError({ reason, failure: Failure.causeOf(error) })
  }
  return undefined
}

/** The error that the caller gets: the failure of the last attempt, or the refusal of a retry with the failure before it. */
const finished = <E>(call: GovernedCall, error: E, stoppedBy: LlmError["stoppedBy"]): E => {
  const { failure } = call
  if (!Failure.isRefusal(error))
    return (tooLarge(call, error) as E | undefined) ?? call.withHistory(error, stoppedBy, true)
  if (failure === undefined) return error
  if (!(error instanceof Budget.BudgetError)) return call.withHistory(failure as E, "deadline", true)
  return new Budget.BudgetError({ reason: error.reason, failure: Failure.causeOf(failure) }) as typeof error
}

// -----------------------------------------------------------------------------
// Single admissions
// -----------------------------------------------------------------------------

/** Admits one attempt, for code that makes its own. */
export const admit = (call: GovernedCall): Effect.Effect<Ticket, CallError> => {
  const admission = withAdmission(() => Effect.void)
  const held = Effect.onExitPrimitive(
    Effect.suspend(() => admission(call.next(call.deadline))),
    (exit) =>
      exit._tag === "Success"
        ? Scope.addFinalizerExit(call.within!, (exit) => call.leave(exit) ?? Effect.void)
        : call.leave(exit)
  )
  // If an admission is interrupted before its caller has received it, nothing was sent.
  return Effect.map(held, () => {
    call.send()
    return call
  })
}
