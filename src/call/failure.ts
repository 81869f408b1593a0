/** Reads a failed attempt for the governor. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { identity } from "effect/Function"
import * as Predicate from "effect/Predicate"
import { BudgetError, Denied } from "../Budget.ts"
import type { PauseOptions } from "../budget/models.ts"
import { LlmError, type LlmErrorReason } from "../LlmError.ts"
import { invalidUrl } from "../protocol/sdkErrors.ts"
import type { CallEnd, FailureReport } from "./models.ts"
import type { Reach } from "./pool.ts"

/** A failed attempt of an adapter whose caller expects another error, or a response, instead of the `LlmError`. */
export class FailedAttempt<out A, out E> {
  /** The report that the governor reads: an `LlmError`, if the adapter could make one. */
  readonly failure: FailureReport
  /** The caller's outcome if there is no further attempt. */
  readonly outcome: Effect.Effect<A, E>

  constructor(failure: FailureReport, outcome: Effect.Effect<A, E>) {
    this.failure = failure
    this.outcome = outcome
  }
}

/** Ends a call as its adapter's caller expects. `convert` converts the errors of the governor and the budget. */
export const forCaller = <A, A1, E, E1, R, E2 = E>(
  call: Effect.Effect<A, E | FailedAttempt<A1, E1>, R>,
  convert: (error: E) => E2 = identity as never
): Effect.Effect<A | A1, E1 | E2, R> =>
  Effect.catch(call, (error): Effect.Effect<A1, E1 | E2> =>
    error instanceof FailedAttempt ? error.outcome : Effect.fail(convert(error))
  )

/** The error that the governor reads, without the adapter's wrapper. */
export const causeOf = (error: unknown): unknown => (error instanceof FailedAttempt ? error.failure : error)

/** Whether the budget or the deadline refused the attempt, so that nothing was sent. */
export const isRefusal = (error: unknown): boolean =>
  error instanceof BudgetError || (error instanceof LlmError && error.reason._tag === "DeadlineMissed")

/** The reason of an `LlmError`; undefined for any other error. */
export const reasonOf = (error: unknown): LlmErrorReason | undefined => {
  const cause = causeOf(error)
  return cause instanceof LlmError ? cause.reason : undefined
}

const pushbacks = ["rateLimit", "ramp", "overload"] as const

/** Reads the properties of an error. Those of a wrong type are left out, and all of them if a getter throws. */
export const read = (error: unknown): FailureReport => {
  try {
    return reportOf(causeOf(error))
  } catch {
    return {}
  }
}

const reportOf = (cause: unknown): FailureReport => {
  const given: FailureReport = typeof cause === "object" && cause !== null ? cause : {}
  return {
    isRetryable: typeof given.isRetryable === "boolean" ? given.isRetryable : undefined,
    retryAfter: Duration.isDuration(given.retryAfter) ? given.retryAfter : undefined,
    pushback: pushbacks.find((one) => one === given.pushback),
    signal: Predicate.isObject(given.signal?.dimensions) ? given.signal : undefined,
    usage: given.usage
  }
}

/** The event of an attempt and what to do about it, without the history of its call. */
export const reasonText = (error: unknown): string => reasonOf(error)?.message ?? String(error)

const refused = /^(ECONN|Connection)REFUSED$/i
/** An unknown host, or one without this encryption, such as a server without TLS at an address with https. */
const unknown = /ENOTFOUND|EPROTO|TLS|SSL|CERT|UNABLE_TO_/

/** How far a failed attempt got; undefined if that is not known. */
export const reach = (error: unknown): Reach | undefined => {
  const reason = reasonOf(error)
  if (reason?.status !== undefined) return "answered"
  if (reason?._tag === "InvalidRequest" && reason.code === invalidUrl) return "unknown"
  if (reason?._tag !== "ConnectionFailed" || reason.sent) return undefined
  const { code = "" } = reason
  if (unknown.test(code)) return "unknown"
  return refused.test(code) ? "refused" : undefined
}

/**
 * The time when the spend limit that refused an attempt is reset, in milliseconds since the epoch. Undefined for other failures, and if the
 * provider does not say.
 */
export const resumesAt = (error: unknown): number | undefined => {
  const reason = reasonOf(error)
  return reason?._tag === "SpendLimited" ? reason.resumesAt?.epochMilliseconds : undefined
}

/** Whether the caller's own `timeout` ended the attempt. Timeouts of the provider or the network have a status or a code. */
export const isOwnTimeout = (error: unknown): boolean => {
  const reason = reasonOf(error)
  if (reason?._tag !== "TimedOut") return false
  const { code, requestId, status } = reason
  return status === undefined && code === undefined && requestId === undefined
}

/** No bucket takes longer to refill. A provider that asks for more time will reject all calls until then. */
const maxRefillMillis = 120_000

/** The pause that a failed call asks for: more time than any bucket needs to refill. */
export const pauseOf = (exit: Exit.Failure<unknown, unknown>): PauseOptions | undefined => {
  const error = Exit.findErrorOption(exit)
  if (error._tag === "None") return undefined
  const { isRetryable, pushback, retryAfter = Duration.zero } = read(error.value)
  const millis = Duration.toMillis(retryAfter)
  return isRetryable === true && pushback === "rateLimit" && millis > maxRefillMillis && millis < Infinity
    ? { reason: pushback, duration: retryAfter }
    : undefined
}

/** Tells how a call that did not succeed is counted. */
const outcomeOf = (exit: Exit.Failure<unknown, unknown>): "failure" | "refused" | "interrupted" => {
  if (Exit.hasInterrupts(exit)) return "interrupted"
  const error = Exit.findErrorOption(exit)
  return error._tag === "Some" && isRefusal(error.value) ? "refused" : "failure"
}

const tagOf = (value: unknown): string | undefined =>
  Predicate.hasProperty(value, "_tag") && typeof value._tag === "string" ? value._tag : undefined

/** The name of a failure, for metrics and spans: the tag of its reason, or of the cause of a denial. */
export const errorType = (error: unknown): string => {
  const cause = causeOf(error)
  const reason = Predicate.hasProperty(cause, "reason") ? cause.reason : undefined
  return tagOf(reason instanceof Denied ? reason.cause : reason) ?? tagOf(cause) ?? "_OTHER"
}

/** The end of a call that has succeeded. */
export const none: CallEnd = { outcome: "success", failure: undefined }

export const endOf = (exit: Exit.Failure<unknown, unknown>): CallEnd => {
  const outcome = outcomeOf(exit)
  return { outcome, failure: outcome === "interrupted" ? outcome : safeType(Cause.squash(exit.cause)) }
}

/** The name of a failure, also if the caller's error throws when it is read. */
const safeType = (error: unknown): string => {
  try {
    return errorType(error)
  } catch {
    return "_OTHER"
  }
}
