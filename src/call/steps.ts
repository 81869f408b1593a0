/**
 * The steps of a call, which `governor.ts` composes. Each takes a function that makes an attempt, and returns one that does
 * something around it.
 */
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import { Entry } from "../budget/entry.ts"
import { check } from "../domain/input/checks.ts"
import { LlmError, TimedOut } from "../LlmError.ts"
import * as Admission from "./admission.ts"
import type { CallError } from "./admission.ts"
import { GovernedAttempt } from "./attempt.ts"
import { GovernedCall } from "./governedCall.ts"
import {
  type Breaker,
  type Call,
  callCheck,
  type CallOptions,
  callOptionsCheck,
  type Outcome,
  type Ticket
} from "./models.ts"
import type { GovernorParts } from "./parts.ts"
import { annotated, retryingOf } from "./retries.ts"
import * as RetryEngine from "./retryEngine.ts"
import * as Settlement from "./settlement.ts"
import * as Trace from "./trace.ts"

/** Makes an attempt. */
export type MakeAttempt<A, E, R> = (attempt: GovernedAttempt) => Effect.Effect<A, E, R>

// -----------------------------------------------------------------------------
// The beginning
// -----------------------------------------------------------------------------

/** Checks a call and its options at the door, before it is made. */
export const checked = <A, E, R>(
  operation: string,
  request: Call,
  options: CallOptions = {},
  make: () => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    check(operation, callCheck, request)
    check(operation, callOptionsCheck, options)
    return make()
  })

/** Begins a call, which ends with its effect or, if it outlives that, with the scope around it. */
export const begin = <A, E, R>(
  parts: GovernorParts,
  request: Call,
  options: CallOptions = {},
  endsWith: "effect" | "scope",
  run: (call: GovernedCall) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.withFiber(({ context }) => {
    const scope = endsWith === "scope" ? Context.getUnsafe(context, Scope.Scope) : undefined
    return run(new GovernedCall(parts, request, options, context, scope))
  })

/** A step that a call may need. */
type OptionalStep = <A, E, R>(make: MakeAttempt<A, E, R>) => MakeAttempt<A, E | LlmError, R>

/** Takes a step only if its option is given. */
export const when = <O>(option: O | undefined, step: (option: O) => OptionalStep): OptionalStep =>
  option === undefined ? identity : step(option)

// -----------------------------------------------------------------------------
// An attempt
// -----------------------------------------------------------------------------

/** A view of an attempt. Its members are getters of functions, because callers may destructure it. */
export class AttemptTicket implements Ticket {
  declare protected readonly attempt: GovernedAttempt

  constructor(attempt: GovernedAttempt) {
    this.attempt = attempt
  }

  get reservation(): Budget.Reservation {
    return this.attempt.reservation
  }

  get place(): string | undefined {
    return this.attempt.place
  }

  get observeLimits(): Ticket["observeLimits"] {
    return (signal) => Settlement.later(() => Settlement.observe(this.attempt, signal))
  }

  get recordUsage(): Ticket["recordUsage"] {
    return (actual) => Settlement.recordUsage(this.attempt, actual)
  }

  get succeed(): Ticket["succeed"] {
    return (actual, response) => Settlement.later(() => Settlement.answered(this.attempt, actual, response))
  }

  get fail(): Ticket["fail"] {
    return (error) => Settlement.later(() => Settlement.failed(this.attempt, error))
  }

  get annotate(): Ticket["annotate"] {
    return (error) => annotated(this.attempt, error)
  }
}

/** Sends an attempt. */
export const sent =
  <A, E, R>(send: (ticket: Ticket) => Effect.Effect<A, E, R>): MakeAttempt<A, E | CallError, R> =>
  (attempt) =>
    Effect.suspend(() => {
      attempt.send()
      return send(new AttemptTicket(attempt))
    })

/** Ends an attempt after the timeout. The time in the queue does not count. */
export const withTimeout = (timeout: Duration.Input): OptionalStep => {
  const duration = Duration.fromInputUnsafe(timeout)
  const orElse = () => Effect.fail(new LlmError({ reason: new TimedOut({ after: duration }) }))
  return (make) => (attempt) => Effect.timeoutOrElse(make(attempt), { duration, orElse })
}

/** Refuses an attempt while the circuit breaker of its pool is open. */
export const withBreaker =
  (breaker: Breaker): OptionalStep =>
  (make) =>
  (attempt) =>
    breaker.protect(attempt.pool.name, make(attempt))

// -----------------------------------------------------------------------------
// Settlement
// -----------------------------------------------------------------------------

/** Makes an attempt in a scope of its own. */
export const inScope =
  <A, E, R>(make: MakeAttempt<A, E, R>): MakeAttempt<A, E, Exclude<R, Scope.Scope>> =>
  (attempt) =>
    Scope.provide(make(attempt), attempt.scope)

/** Settles an attempt that succeeded or failed. The end of the call settles one that was interrupted. */
export const withSettlement =
  <A, B>(settle: (attempt: GovernedAttempt, value: A) => Effect.Effect<B>) =>
  <E, R>(make: MakeAttempt<A, E, R>): MakeAttempt<B, E, R> =>
  (attempt) => {
    const running = make(attempt)
    // Both continue in the step in which the attempt ends, so that an interruption comes before it or after it.
    const settling = {
      onSuccess: (value: A) => settle(attempt, value),
      onFailure: (cause: Cause.Cause<E>) => Effect.uninterruptible(Settlement.failedFor(attempt, cause))
    }
    const isOwn = attempt.held instanceof Entry && attempt.call.parts.learns !== undefined
    if (isOwn) return Effect.matchCauseEffect(running, settling)
    // What another layer has replaced needs effects to settle a call, and nothing may interrupt them.
    return Effect.uninterruptibleMask((restore) => Effect.matchCauseEffect(restore(running), settling))
  }

/** Settles an attempt that was answered. */
export const settleAnswered = <A>(
  attempt: GovernedAttempt,
  { actual, response, signal, value }: Outcome<A>
): Effect.Effect<A> => {
  const rest = Settlement.answered(attempt, actual, response, signal)
  return rest === undefined ? Effect.succeed(value) : Effect.as(rest, value)
}

/** Leaves an opened attempt to its caller, who concludes the ticket. */
export const leaveOpen = <A>(_: GovernedAttempt, value: A): Effect.Effect<A> => Effect.succeed(value)

// -----------------------------------------------------------------------------
// Admission
// -----------------------------------------------------------------------------

/** A step that makes an attempt as soon as it is admitted. */
export type AdmissionStep = <A, E, R>(make: MakeAttempt<A, E, R>) => MakeAttempt<A, E | CallError, R>

/** The step of a way to admit an attempt, which returns what is left to do until it is. */
export const admission =
  (admitted: typeof Admission.admitted): AdmissionStep =>
  (make) =>
  (attempt) =>
    Effect.withFiber(({ context }) => {
      const rest = admitted(attempt, context)
      return rest === undefined ? make(attempt) : Effect.flatMap(rest, () => make(attempt))
    })

/** Makes an attempt as soon as it is admitted. Its call has one place. */
export const withAdmission: AdmissionStep = /* @__PURE__ */ admission(Admission.admitted)

/** Waits until another call has filled the provider's cache with the prefix that both share. */
export const withWarmup =
  (cacheKey: string): OptionalStep =>
  (make) =>
  (attempt) => {
    const { call, request, until } = attempt
    const key = JSON.stringify([request.model, cacheKey])
    return Effect.withFiber(({ context }) =>
      call.parts.warmup(key, until, Admission.payingOf(call, context), make(attempt))
    )
  }

/** Provides the agent of a call, which attempts read from their context. */
export const withAgent =
  (agent: string): OptionalStep =>
  (make) =>
  (attempt) =>
    Effect.provideService(make(attempt), Budget.Agent, agent)

/** Provides the job of a call. */
export const withJob =
  (job: string | Budget.NamedJob): OptionalStep =>
  (make) =>
  (attempt) =>
    Effect.provideService(make(attempt), Budget.Job, job)

// -----------------------------------------------------------------------------
// Retries
// -----------------------------------------------------------------------------

/** Makes attempts until one succeeds or the policy ends, and then ends the call, or leaves that to its scope. */
export const withRetries =
  <A, E, R>(make: MakeAttempt<A, E | CallError, R>) =>
  (call: GovernedCall): Effect.Effect<A, E | CallError, R> => {
    const attempt = GovernedAttempt.first(call)
    return runWithRetries(
      attempt,
      Effect.suspend(() => {
        const { now } = call
        call.startTrying(now)
        return make(attempt.begin(call.deadline, now))
      }),
      make
    )
  }

/** Goes on with the first attempt of a call, and makes others by the policy. */
export const runWithRetries = <A, E, R>(
  attempt: GovernedAttempt,
  first: Effect.Effect<A, E | CallError, R>,
  make: MakeAttempt<A, E | CallError, R>
): Effect.Effect<A, E | CallError, R> => {
  const { call } = attempt
  let current = attempt
  const next = (last: number) => {
    const { failedAt, now } = call
    // A policy that is not ours may retry an attempt that was refused.
    const left = Settlement.left(current)
    if (current.failed !== undefined) call.waited += now - failedAt
    current = current.next()
    current.begin(last, now)
    return left === undefined ? make(current) : Effect.andThen(left, make(current))
  }
  const again = (cause: Cause.Cause<E | CallError>) =>
    RetryEngine.again(
      call.options.retry ?? call.parts.policy,
      retryingOf<E>(call, () => current),
      next,
      cause
    )
  const attempts = Effect.catchCause(first, again)
  return Effect.onExitPrimitive(call.isTraced ? Trace.within(attempt, attempts) : attempts, (exit) =>
    Settlement.over(current, exit)
  )
}

// -----------------------------------------------------------------------------
// Single admissions
// -----------------------------------------------------------------------------

/** Admits one attempt, for code that makes its own. */
export const admit =
  (admission: AdmissionStep) =>
  (call: GovernedCall): Effect.Effect<Ticket, CallError> => {
    const attempt = GovernedAttempt.first(call)
    const admitted = admission(() => Effect.void)
    const held = Effect.onExitPrimitive(
      Effect.suspend(() => admitted(attempt.begin(call.deadline, call.now))),
      (exit) =>
        exit._tag === "Success"
          ? Scope.addFinalizerExit(call.within!, (exit) => Settlement.release(attempt, exit) ?? Effect.void)
          : Settlement.release(attempt, exit)
    )
    // If an admission is interrupted before its caller has received it, nothing was sent.
    return Effect.map(held, () => {
      attempt.send()
      return new AttemptTicket(attempt)
    })
  }
