/** Tells the retry policy of a failed attempt, and makes the error that the caller gets in the end. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Budget from "../Budget.ts"
import type { Verdict } from "../budget/models.ts"
import * as Amounts from "../domain/amounts.ts"
import { LlmError, RateLimited } from "../LlmError.ts"
import type { CallError } from "./admission.ts"
import type { GovernedAttempt } from "./attempt.ts"
import * as Failure from "./failure.ts"
import type { GovernedCall } from "./governedCall.ts"
import type * as RetryEngine from "./retryEngine.ts"
import type { Failed } from "./retryPolicy.ts"
import * as Settlement from "./settlement.ts"

/** The parts of a call that the retry engine needs. */
export const retryingOf = <E>(call: GovernedCall, current: () => GovernedAttempt) => {
  const { clock, deadline, placement, tokens } = call
  return {
    clock,
    deadline,
    tokens,
    judge: (error: E | CallError) => judged(current(), error),
    moves: (error: E | CallError) => parks(current()) || (placement !== undefined && moves(current(), error)),
    waits: placement && ((millis: number) => Math.max(0, placement.avoidUntil(call.now + millis) - call.now)),
    onRetry: (retry: RetryEngine.Retrying<E | CallError>) => Effect.sync(() => report(current(), retry)),
    finish: (error: E | CallError, stoppedBy: LlmError["stoppedBy"]) => finished(current(), error, stoppedBy)
  }
}

// -----------------------------------------------------------------------------
// What a failure means
// -----------------------------------------------------------------------------

/** Whether a failure concerns only its own call. A tier without capacity would have refused any call. */
const isAlone = (verdict: Verdict | undefined, error: unknown): boolean =>
  verdict === "isolated" || (verdict === undefined && Failure.errorType(error) !== "TierFull")

/** A policy sees a rate limit, also where a wait of days looked like a spend limit. */
const spentWindow = new LlmError({ reason: new RateLimited({ status: 429 }) })

/** Whether an attempt that a spent window has rejected may wait for its reset: its line lets it wait, so the policy only lets it try. */
const mayWait = ({ failed, payment }: GovernedAttempt): boolean =>
  failed?.resetsAt !== undefined &&
  failed.resetsAt < Infinity &&
  payment !== undefined &&
  failed.resetsAt <= payment.resetBy

/** A failed attempt as the policy sees it. */
const judged = (attempt: GovernedAttempt, error: unknown): Failed<LlmError> => {
  const { call, failed } = attempt
  const { isRetryable, retryAfter } = Failure.read(error)
  const seen = { error: Failure.causeOf(error) as LlmError, retryAfter }
  if (Failure.isRefusal(error) || failed === undefined) return { ...seen, isFinal: true, isOwn: true }
  call.failure = error
  const { isWrongAddress, verdict } = failed
  if (mayWait(attempt)) {
    // If the clock here is ahead, the window has ended already.
    const wait = failed.resetsAt! <= call.now ? retryAfter : undefined
    return { error: spentWindow, retryAfter: wait, isLimited: true, isFinal: false, isOwn: false }
  }
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

/** Whether a call is parked, or refused, by the window that it has found to be spent. */
const parks = (attempt: GovernedAttempt): boolean => {
  const { call, failed, payment } = attempt
  const mayAsk = mayWait(attempt) || (payment?.parks === true && failed?.resetsAt !== undefined)
  return mayAsk && payment?.window?.isClosed(call.now) === true
}

/** Whether a call continues at another place at once, because no attempt can succeed where it is. */
const moves = ({ call, failed, pool }: GovernedAttempt, error: unknown): boolean => {
  const { now, parts, placement } = call
  if (failed === undefined || placement?.current === undefined) return false
  if (failed.verdict === "impossible") return placement.close("tooLarge")
  const isDenied = failed.isWrongAddress || isDenial(error)
  if (isDenied) parts.places!.memory.setAside(pool.name, now)
  return (isDenied || Failure.errorType(error) === "CircuitOpen") && placement.close("denied")
}

/** Reports the wait for the next attempt to the observer. */
const report = (
  { call, pool, request }: GovernedAttempt,
  { error, wait, ...retrying }: RetryEngine.Retrying<unknown>
): void => {
  const { agent, attempts: attempt, now: at, parts } = call
  const delayed = Duration.toMillis(retrying.delayed)
  if (delayed > 0) pool.counts.retriesDelayed++
  const until = at + Math.ceil(Duration.toMillis(wait))
  const retry = { at, pool: pool.name, agent, model: request.model, attempt, until }
  parts.observer?.({ type: "retry", ...retry, reason: Failure.errorType(error) })
  if (delayed > 0) parts.observer?.({ type: "retryDelayed", ...retry, delayed })
}

// -----------------------------------------------------------------------------
// The error of the call
// -----------------------------------------------------------------------------

/** The error that the caller gets: the failure of the last attempt, or the refusal of a retry with the failure before it. */
const finished = <E>(attempt: GovernedAttempt, error: E, stoppedBy: LlmError["stoppedBy"]): E => {
  const { failure } = attempt.call
  if (!Failure.isRefusal(error))
    return (tooLarge(attempt, error) as E | undefined) ?? annotated(attempt, error, stoppedBy, true)
  if (failure === undefined) return error
  if (!(error instanceof Budget.BudgetError)) return annotated(attempt, failure as E, "deadline", true)
  return new Budget.BudgetError({ reason: error.reason, failure: Failure.causeOf(failure) }) as typeof error
}

/** The refusal of a call that was rejected because it is larger than the provider's limit: no attempt can succeed. */
const tooLarge = (
  { estimate, failed, held, pool }: GovernedAttempt,
  error: unknown
): Budget.BudgetError | undefined => {
  if (failed?.verdict !== "impossible") return undefined
  const refusal = Settlement.refusalOf(held!)
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

/**
 * Adds the history of a call to its error: the attempts, how long it waited in all, and why it stopped. With `isOver`, the wait that
 * ends now counts.
 */
export const annotated = <E>(
  { call, from, phase }: GovernedAttempt,
  error: E,
  stoppedBy?: LlmError["stoppedBy"],
  isOver = false
): E => {
  if (!(error instanceof LlmError)) return error
  const { attempts, failedAt, limit, now, queued, waited } = call
  const millis = waited + queued + (isOver ? now - (phase === "waiting" ? from : failedAt) : 0)
  return error.annotate({
    attempts,
    waited: millis > 0 ? Duration.millis(millis) : undefined,
    stoppedBy,
    limit
  }) as typeof error
}
