/**
 * The steps of a call, which `Governor.ts` composes. Each takes what makes an attempt, and gives what makes it with something
 * around it.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import { check, invalid } from "../domain/input/checks.ts"
import { LlmError, TimedOut } from "../LlmError.ts"
import * as Engine from "./retryEngine.ts"
import type * as Retry from "../Retry.ts"
import { admitted, type CallError } from "./admission.ts"
import * as Failure from "./failure.ts"
import { GovernedCall, type Parts } from "./governedCall.ts"
import type { Breaker, Call, CallOptions, Ticket } from "./models.ts"
import * as Checks from "./options.ts"
import * as Trace from "./trace.ts"
import type { Warmup } from "./warmup.ts"

/** Makes one attempt of a call. */
type Attempt<A, E, R> = (call: GovernedCall) => Effect.Effect<A, E, R>

/** Begins a call: a description of it, and how it is run. With `outlivesEffect` it goes on until the caller's scope closes. */
export const begin = <A, E, R>(
  operation: string,
  parts: Parts,
  call: Call,
  { how = {}, outlivesEffect }: { readonly how: CallOptions | undefined; readonly outlivesEffect: boolean },
  made: (call: GovernedCall) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.withFiber(({ context }) => {
    check(operation, Checks.call, how)
    if (typeof call.model !== "string") invalid(`${operation}: model`, "a string", call.model)
    const within = outlivesEffect ? Context.getUnsafe(context, Scope.Scope) : undefined
    const making = made(new GovernedCall(parts, call, how, context, within))
    // Attempts know for whom they are made.
    return how.agent === undefined ? making : Effect.provideService(making, Budget.Agent, how.agent)
  })

// -----------------------------------------------------------------------------
// Steps
// -----------------------------------------------------------------------------

/** Sends an attempt, for no longer than the timeout. The wait in the queue is not part of that. */
export const timed =
  (timeout: Duration.Input | undefined) =>
  <A, E, R>(attempt: Attempt<A, E, R>): Attempt<A, E | LlmError, R> =>
  (call) => {
    const sent = Effect.suspend(() => {
      call.send()
      return attempt(call)
    })
    if (timeout === undefined) return sent
    const duration = Duration.fromInputUnsafe(timeout)
    const orElse = () => Effect.fail(new LlmError({ reason: new TimedOut({ after: duration }) }))
    return Effect.timeoutOrElse(sent, { duration, orElse })
  }

/** Asks the circuit breaker of the pool, which may let nothing be sent. */
export const broken =
  (breaker: Breaker | undefined, pool: string) =>
  <A, E, R>(attempt: Attempt<A, E, R>): Attempt<A, E | LlmError, R> =>
    breaker === undefined ? attempt : (call) => breaker.protect(pool, attempt(call))

/** Settles the reservation of an attempt that succeeded, or failed. The end of the call settles one that was interrupted. */
export const settled =
  <A, B>(settle: (call: GovernedCall, value: A) => Effect.Effect<B>) =>
  <E, R>(attempt: Attempt<A, E, R>): Attempt<B, E, R> =>
  (call) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.exit(restore(attempt(call))), (exit) =>
        Exit.isSuccess(exit) ? settle(call, exit.value) : call.failWith(exit.cause)
      )
    )

/** Gives an attempt its reservation of the budget, and a scope. */
export const reserved =
  (budget: Budget.TokenBudget["Service"]) =>
  <A, E, R>(attempt: Attempt<A, E, R>): Attempt<A, E | CallError, Exclude<R, Scope.Scope>> =>
  (call) =>
    Scope.provide(Effect.flatMap(admitted(budget, call), attempt), call.scope)

/** Waits for the call that fills the provider's cache first, if it shares a prefix with others. */
export const warmed =
  (warmup: Warmup, key: string | undefined) =>
  <A, E, R>(attempt: Attempt<A, E, R>): Attempt<A, E, R> =>
    key === undefined ? attempt : (call) => warmup(JSON.stringify([call.call.model, key]), call.until, attempt(call))

/** Makes attempts until one succeeds or the policy ends, and ends the call: at once, or with the scope that it goes on in. */
export const retried =
  (policy: Retry.Policy<LlmError>) =>
  <A, E, R>(attempt: Attempt<A, E | CallError, R>): Attempt<A, E | CallError, R> =>
  (first) => {
    let call = first
    const { clock, deadline, isTraced, tokens } = first
    const retries = {
      clock,
      deadline,
      tokens,
      judge: (error: E | CallError) => judged(call, error),
      onRetry: (retry: Engine.Retrying<E | CallError>) => Effect.sync(() => report(call, retry)),
      finish: (error: E | CallError, stoppedBy: LlmError["stoppedBy"]) => finished(call, error, stoppedBy)
    }
    const attempts = Engine.retried(first.how.retry ?? policy, retries, (last) =>
      attempt((call = call.next(last, tokens)))
    )
    return Effect.onExitPrimitive(isTraced ? Trace.within(first, attempts) : attempts, (exit) => call.over(exit))
  }

// -----------------------------------------------------------------------------
// Failures
// -----------------------------------------------------------------------------

/** What the failure of an attempt says of another one. */
const judged = (call: GovernedCall, error: unknown): Retry.Failed<LlmError> => {
  const { isRetryable, retryAfter } = Failure.read(error)
  const seen = { error: Failure.causeOf(error) as LlmError, retryAfter }
  const { failed } = call
  if (Failure.isRefusal(error) || failed === undefined) return { ...seen, isFinal: true, isOwn: true }
  call.failure = error
  const { isWrongAddress, verdict } = failed
  return {
    ...seen,
    isFinal: isRetryable === false || isWrongAddress || verdict === "impossible",
    // A healthy provider may take longer than the caller's timeout, each time.
    isOwn: verdict === undefined || verdict === "isolated" || Failure.isOwnTimeout(error)
  }
}

/** Reports that a call waits for its next attempt. */
const report = (call: GovernedCall, { error, wait, ...retrying }: Engine.Retrying<unknown>): void => {
  const { attempts: attempt, now: at, parts, reservation } = call
  const delayed = Duration.toMillis(retrying.delayed)
  if (delayed > 0) call.pool.counts.retriesDelayed++
  const { agent, pool } = reservation
  const retry = { at, pool, agent, model: call.call.model, attempt, until: at + Math.ceil(Duration.toMillis(wait)) }
  parts.observer?.({ type: "retry", ...retry, reason: Failure.errorType(error) })
  if (delayed > 0) parts.observer?.({ type: "retryDelayed", ...retry, delayed })
}

/** The final error: the failure of the last attempt, or the refusal of a retry with the failure before it. */
const finished = <E>(call: GovernedCall, error: E, stoppedBy: LlmError["stoppedBy"]): E => {
  const { failure } = call
  if (!Failure.isRefusal(error)) return (call.tooLarge(error) as E | undefined) ?? call.withHistory(error, stoppedBy)
  if (failure === undefined) return error
  if (!(error instanceof Budget.BudgetError)) return call.withHistory(failure as E, "deadline")
  return new Budget.BudgetError({ reason: error.reason, failure: Failure.causeOf(failure) }) as typeof error
}

// -----------------------------------------------------------------------------
// Single admissions
// -----------------------------------------------------------------------------

/** One admission, for code that makes its own attempts. */
export const admit = (parts: Parts, call: Call, how?: CallOptions): Effect.Effect<Ticket, CallError, Scope.Scope> =>
  begin("Governor.admit", parts, call, { how, outlivesEffect: true }, (call) => {
    const admission = Effect.suspend(() => admitted(parts.budget, call.next(call.deadline)))
    const held = Effect.onExitPrimitive(Scope.provide(admission, call.scope), (exit) =>
      exit._tag === "Success"
        ? Scope.addFinalizerExit(call.within!, (exit) => call.leave(exit) ?? Effect.void)
        : call.leave(exit)
    )
    // Once the caller has it: one that was interrupted before has sent nothing.
    return Effect.map(held, () => {
      call.send()
      return call
    })
  })
