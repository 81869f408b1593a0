/**
 * What the governor reads from a failed attempt.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { identity } from "effect/Function"
import * as Predicate from "effect/Predicate"
import { BudgetError, Denied } from "../Budget.ts"
import { LlmError } from "../LlmError.ts"
import type * as Limits from "../Limits.ts"
import type { FailureReport } from "./models.ts"
import type { Reach } from "./pool.ts"

/** A failed attempt of an adapter whose callers expect something else than the governor reads. */
export class FailedAttempt<out A, out E> {
  /** What failed, as far as the adapter can tell: an `LlmError` where it can. */
  readonly failure: FailureReport
  /** What the caller gets if no further attempt is made. */
  readonly outcome: Effect.Effect<A, E>

  constructor(failure: FailureReport, outcome: Effect.Effect<A, E>) {
    this.failure = failure
    this.outcome = outcome
  }
}

/** Ends a call as its adapter's caller expects it. Errors of the governor and the budget may be converted. */
export const forCaller = <A, A1, E, E1, R, E2 = E>(
  call: Effect.Effect<A, E | FailedAttempt<A1, E1>, R>,
  convert: (error: E) => E2 = identity as never
): Effect.Effect<A | A1, E1 | E2, R> =>
  Effect.catch(call, (error): Effect.Effect<A1, E1 | E2> =>
    error instanceof FailedAttempt ? error.outcome : Effect.fail(convert(error))
  )

/** What failed, whatever the adapter's callers get of it. */
export const causeOf = (error: unknown): unknown => (error instanceof FailedAttempt ? error.failure : error)

/** Whether nothing was sent because the budget refused the call, or its deadline did. */
export const isRefusal = (error: unknown): boolean =>
  error instanceof BudgetError || (error instanceof LlmError && error.reason._tag === "DeadlineMissed")

const pushbacks = ["rateLimit", "ramp", "overload"] as const

/** What an error says of itself, where each property has the form that it should have. */
export interface FailureFacts {
  readonly isRetryable: boolean | undefined
  readonly retryAfter: Duration.Duration | undefined
  readonly pushback: FailureReport["pushback"]
  readonly signal: Limits.Signal | undefined
  readonly usage: Limits.Usage | undefined
}

const nothing: FailureFacts = {
  isRetryable: undefined,
  retryAfter: undefined,
  pushback: undefined,
  signal: undefined,
  usage: undefined
}

/** Reads an error. One whose properties throw says nothing. */
export const read = (error: unknown): FailureFacts => {
  try {
    return factsOf(causeOf(error))
  } catch {
    return nothing
  }
}

const factsOf = (cause: unknown): FailureFacts => {
  const failure: FailureReport = typeof cause === "object" && cause !== null ? cause : {}
  return {
    isRetryable: typeof failure.isRetryable === "boolean" ? failure.isRetryable : undefined,
    retryAfter: Duration.isDuration(failure.retryAfter) ? failure.retryAfter : undefined,
    pushback: pushbacks.find((one) => one === failure.pushback),
    signal: Predicate.isObject(failure.signal?.dimensions) ? failure.signal : undefined,
    usage: failure.usage
  }
}

/**
 * How far a failed call got: to a provider that answered, or no further than a name that does not exist or a refused
 * connection; undefined where that cannot be told.
 */
export const reach = (error: unknown): Reach | undefined => {
  const cause = causeOf(error)
  if (!(cause instanceof LlmError)) return undefined
  if (cause.status !== undefined) return "answered"
  if (cause.reason._tag !== "ConnectionFailed" || cause.reason.sent) return undefined
  const { code } = cause.reason
  if (code === "ENOTFOUND") return "unknown"
  return code === "ECONNREFUSED" || code === "ConnectionRefused" ? "refused" : undefined
}

/** Whether the caller's own timeout ended the attempt. One that the provider or the network reports has a name there. */
export const isOwnTimeout = (error: unknown): boolean => {
  const cause = causeOf(error)
  if (!(cause instanceof LlmError) || cause.reason._tag !== "TimedOut") return false
  const { code, requestId, status } = cause.reason
  return status === undefined && code === undefined && requestId === undefined
}

/** How a call ended that did not succeed. */
export const outcomeOf = (exit: Exit.Failure<unknown, unknown>): "failure" | "refused" | "interrupted" => {
  if (Exit.hasInterrupts(exit)) return "interrupted"
  const error = Exit.findErrorOption(exit)
  return error._tag === "Some" && isRefusal(error.value) ? "refused" : "failure"
}

const tagOf = (value: unknown): string | undefined =>
  Predicate.hasProperty(value, "_tag") && typeof value._tag === "string" ? value._tag : undefined

/** The name of a failure: the tag of its reason where it has one, or of what denied it. */
export const errorType = (error: unknown): string => {
  const cause = causeOf(error)
  const reason = Predicate.hasProperty(cause, "reason") ? cause.reason : undefined
  return tagOf(reason instanceof Denied ? reason.cause : reason) ?? tagOf(cause) ?? "_OTHER"
}
