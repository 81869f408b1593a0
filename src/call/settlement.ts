/**
 * Ends an attempt: it was answered, it failed, or it was left. Then what it holds is replaced by what it has used, its payment by
 * its cost, and its pool and its caller hear of it. Only the first end counts. What a usage is and costs is computed in `usage.ts`.
 *
 * A step does at once what needs no Effect, and returns the rest.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type * as Accounting from "../Accounting.ts"
import type * as Budget from "../Budget.ts"
import { Entry, type SettledAs } from "../budget/entry.ts"
import {
  type FailOptions,
  type GovernedReservation,
  measured,
  type Observation,
  refused,
  type Verdict
} from "../budget/models.ts"
import type { MeasuredCall } from "../budget/measuring.ts"
import * as Reservation from "../budget/reservation.ts"
import { bytesPerToken } from "../domain/amounts.ts"
import { harmless } from "../domain/input/callbacks.ts"
import { perDollar } from "../domain/spending/ledger.ts"
import type * as Limits from "../Limits.ts"
import type { GovernedAttempt, Held, JudgedFailure } from "./attempt.ts"
import * as Failure from "./failure.ts"
import type { ResponseInfo } from "./models.ts"
import type { ReportedUsage } from "./reported.ts"
import * as Trace from "./trace.ts"
import * as Usage from "./usage.ts"

// -----------------------------------------------------------------------------
// Rests
// -----------------------------------------------------------------------------

/** The rest of a step, as an effect; undefined if nothing is left. */
export type Rest<E = never> = Effect.Effect<void, E> | undefined

/** Runs a step as an effect. */
export const later = (step: () => Rest): Effect.Effect<void> => Effect.suspend(() => step() ?? Effect.void)

/** Runs what several steps have left, one after another. Each runs even if one before it fails. */
export const inOrder = (...rests: ReadonlyArray<Rest>): Rest => {
  let all: Rest
  for (const next of rests) {
    if (next !== undefined) all = all === undefined ? next : Effect.ensuring(all, next)
  }
  return all
}

// -----------------------------------------------------------------------------
// Before the end
// -----------------------------------------------------------------------------

/** Learns what the headers of the response say about the limits. */
export const observe = (attempt: GovernedAttempt, signal: Limits.Signal | undefined): Rest => {
  if (signal === undefined) return undefined
  if (signal.windows !== undefined) observeWindows(attempt, signal)
  return observeHeld(attempt.held!, signal)
}

const observeWindows = ({ call, payment, request }: GovernedAttempt, signal: Limits.Signal): void =>
  call.parts.windows.observe(request.account, signal, payment?.window, request.model)

/** Notes the usage so far, in case the attempt is left, and tells the budget if it is news. */
export const recordUsage = (attempt: GovernedAttempt, given: Accounting.Actual | undefined): void => {
  const { call, held, phase } = attempt
  const usage = call.parts.plausible.ofAnswer(attempt, given)
  attempt.observed = usage
  if (usage === undefined) return
  measuredOf(held)?.heard(usage.actual.outputTokens)
  const isBegun = promptBegan(attempt, usage)
  const soFar = grown(attempt, usage)
  if (phase !== "sent" || !(isBegun || soFar !== undefined)) return
  // The first waiting call is looked at again, which may begin with the same prefix, which is in the cache now.
  const rest = observeHeld(held!, { dimensions: {}, soFar })
  if (rest !== undefined) call.parts.fork(rest)
}

/** Remembers the prefixes of a prompt once the provider has counted it, and how its conversation grows. Returns whether it does so now. */
const promptBegan = (attempt: GovernedAttempt, usage: ReportedUsage): boolean => {
  if (attempt.isRemembered) return false
  const { call, known, pool, sentAt } = attempt
  const { conversations, history } = call.parts
  const turn = conversations.began(known, usage, sentAt, call.now)
  if (turn === undefined) return false
  history?.prompted(pool.name, turn, turn.prompt - (Usage.counted(attempt, usage).inputTokens ?? 0))
  attempt.turn = turn.number
  return (attempt.isRemembered = true)
}

/** The usage of an answer that goes on, if its prompt is larger than it said before. */
const grown = (attempt: GovernedAttempt, usage: ReportedUsage): Limits.Usage | undefined => {
  const { isCounted, prompt } = usage
  if (!isCounted || prompt <= attempt.prompt) return undefined
  attempt.prompt = prompt
  try {
    return Usage.soFar(attempt, usage)
  } catch {
    // The accounting is the caller's. If it throws, the call keeps its estimate until its end.
    return undefined
  }
}

// -----------------------------------------------------------------------------
// Answered
// -----------------------------------------------------------------------------

/** Settles an attempt that was answered, and learns from it. */
export const answered = (
  attempt: GovernedAttempt,
  given: Accounting.Actual | undefined,
  response: ResponseInfo = {},
  signal?: Limits.Signal
): Rest => {
  if (attempt.phase === "settled") return observe(attempt, signal)
  const { call, pool, request } = attempt
  const { plausible, windows } = call.parts
  const reported = plausible.ofAnswer(attempt, given)
  pool.hasAnswered = true
  pool.isDenied = false
  attempt.answeredBy = response.model
  if (windows.spendLimits.size > 0) windows.succeeded(request.account)
  if (call.span !== undefined) Trace.succeeded(call.span, reported, response)
  if (reported !== undefined) return answeredWith(attempt, reported, response, signal)
  // The estimate is kept.
  measuredOf(attempt.held)?.counted((response.bytes ?? 0) / bytesPerToken)
  const billed = Usage.expected(attempt)
  if (call.placement !== undefined) call.parts.places!.remember(attempt, undefined, response.continuation)
  conclude(attempt, billed, false)
  return settle(attempt, {}, undefined, signal)
}

/** Settles an attempt whose answer has told its usage. */
const answeredWith = (
  attempt: GovernedAttempt,
  reported: ReportedUsage,
  response: ResponseInfo,
  signal: Limits.Signal | undefined
): Rest => {
  const { call, known, pool, request } = attempt
  const { conversations, estimator, learns } = call.parts
  const { actual } = reported
  const billed = Usage.billed(attempt, reported)
  const usage = Usage.counted(attempt, reported)
  const input = { predicted: Usage.promptOf(attempt), used: usage.inputTokens }
  if (call.placement !== undefined) call.parts.places!.remember(attempt, reported, response.continuation)
  promptBegan(attempt, reported)
  conclude(attempt, billed)
  pool.used(request, response.model, reported, input)
  conversations.remember(known, response.continuation, reported, call.now)
  const tokens = Math.max(attempt.prompt, reported.prompt)
  if (call.isCapped && Usage.isTold(known, tokens)) conversations.verify(known, tokens, response.model)
  const learning = Usage.learning(known, actual, response.finishReason)
  measuredOf(attempt.held)?.counted(actual.outputTokens)
  // Waiting calls are decided on when this one is settled, and should benefit from what it teaches.
  learns?.learn(learning, actual)
  const settled = settle(attempt, usage, undefined, signal)
  if (learns !== undefined) return settled
  const learnt = Effect.suspend(() => estimator.learn(learning, actual))
  return settled === undefined ? learnt : Effect.andThen(settled, learnt)
}

// -----------------------------------------------------------------------------
// Failed
// -----------------------------------------------------------------------------

/** Whether the address is wrong. Warns of the first failure of a pool that looks so: a client may wait for long, or hide the address. */
const addressed = ({ call, pool }: GovernedAttempt, error: unknown): boolean => {
  const reach = Failure.reach(error)
  const isWrong = pool.isWrongAddress(reach, call.now)
  if (pool.isNews(reach)) {
    const then = isWrong ? "" : "; calls are tried again for a while"
    call.parts.fork(Effect.logWarning(`${Failure.reasonText(error)}${then}`))
  }
  return isWrong
}

/** Settles an attempt that failed, and lets the budget judge a pushback. */
export const failed = (attempt: GovernedAttempt, error: unknown): Rest => {
  if (attempt.phase === "settled") return undefined
  const { call, pool, request } = attempt
  const { plausible, windows } = call.parts
  const facts = plausible.ofError(attempt, Failure.read(error))
  const type = Failure.errorType(error)
  const isDenied = type === "AccessDenied"
  pool.isDenied = isDenied && pool.isDenied !== false
  const isWrongAddress = addressed(attempt, error)
  const reason = isWrongAddress ? undefined : facts.pushback
  const { retryAfter, signal } = facts
  const billed = Usage.billedAfterFailure(attempt, facts.pushback, facts.usage)
  const usage = Usage.afterFailure(attempt, facts.pushback, facts.usage)
  conclude(attempt, billed)
  windows.failed(request.account, Failure.resumesAt(error))
  // A window that is spent says nothing about the limits of the pool, and its own line knows when calls may go.
  const resetsAt = hasLine(attempt) ? resetOf(signal) : undefined
  const judged = (verdict: Verdict | undefined): undefined =>
    noteFailure(attempt, { ...facts, pushback: reason, verdict, isWrongAddress, resetsAt }, type)
  if (reason === undefined || resetsAt !== undefined) {
    const ended = settle(attempt, usage, isDenied ? "denied" : "failure", signal)
    const verdict = resetsAt === undefined ? undefined : "exhausted"
    return ended === undefined ? judged(verdict) : Effect.map(ended, () => judged(verdict))
  }
  if (signal?.windows !== undefined) observeWindows(attempt, signal)
  return failHeld(attempt.held!, { reason, retryAfter, usage, signal }, judged)
}

/** Whether an attempt stood in the line of the windows of its account. */
const hasLine = ({ call, payment }: GovernedAttempt): boolean =>
  call.parts.windows.isLimiting || payment?.parks === true

/** The latest reset of the long windows of which the provider rejects calls; undefined if it does not. */
const resetOf = (signal: Limits.Signal | undefined): number | undefined => {
  if (signal?.windows === undefined) return undefined
  const rejected = Object.values(signal.windows).filter(({ isRejected }) => isRejected === true)
  return rejected.length === 0 ? undefined : Math.max(...rejected.map(({ resetsAt }) => resetsAt))
}

/** Notes how an attempt failed, and the verdict. */
const noteFailure = (attempt: GovernedAttempt, failed: JudgedFailure, type: string): undefined => {
  const { call, pool } = attempt
  const { pushback, signal } = failed
  const isRejected = pushback === "rateLimit" || pushback === "ramp"
  attempt.failed = failed
  call.failedAt = call.now
  if (call.placement !== undefined) call.parts.places!.memory.failed(pool.name, call.failedAt - attempt.sentAt)
  call.limit = pushback === "rateLimit" ? Usage.limitHit(signal, attempt.estimate) : undefined
  if (isRejected) reportRejection(attempt, failed)
  pool.counts.failed(1, type)
  if (call.span !== undefined) {
    Trace.failed(call.span, call.attempts, type, call.limit, call.clock.currentTimeNanosUnsafe())
  }
}

const reportRejection = (
  { call, pool, request }: GovernedAttempt,
  { retryAfter, verdict = "isolated" }: JudgedFailure
): void => {
  const { agent, attempts: attempt, limit: dimension, now: at, parts } = call
  const until = retryAfter === undefined ? undefined : at + Duration.toMillis(retryAfter)
  const { model } = request
  parts.observer?.({ type: "rejection", at, pool: pool.name, agent, model, attempt, verdict, dimension, until })
}

/** Settles an attempt that failed for a cause, and closes what it opened, before its call waits. An interrupted one is left. */
export const failedFor = <E>(attempt: GovernedAttempt, cause: Cause.Cause<E>): Effect.Effect<never, E> => {
  const exit = Exit.failCause(cause)
  if (Cause.hasInterruptsOnly(cause)) return exit
  const judged = failed(attempt, Cause.squash(cause))
  const { opened } = attempt
  const closed = opened === undefined ? exit : Effect.ensuring(exit, Scope.close(opened, exit))
  return judged === undefined ? closed : Effect.andThen(judged, closed)
}

// -----------------------------------------------------------------------------
// Left
// -----------------------------------------------------------------------------

/**
 * Settles an attempt that nobody waits for any longer. One that was not sent has used nothing. Otherwise its input counts as used, and
 * its output as far as it was observed.
 */
export const left = (attempt: GovernedAttempt): Rest => {
  const { held, payment, phase, pool } = attempt
  switch (phase) {
    case "settled":
      return undefined
    case "waiting":
      attempt.phase = "settled"
      payment?.settle(0)
      return held && refund(held)
    case "admitted":
      conclude(attempt, undefined)
      return refund(held!)
    case "sent": {
      pool.isDenied = false
      const call = measuredOf(held)
      if (call !== undefined) call.isLost = true
      const { billed, isKnown, usage } = soFar(attempt)
      conclude(attempt, billed, isKnown)
      return settle(attempt, usage, "failure")
    }
  }
}

/** The usage so far. It is unknown if the caller's accounting throws, and then all that was reserved counts. */
const soFar = (
  attempt: GovernedAttempt
): { readonly billed: Accounting.Actual | undefined; readonly isKnown: boolean; readonly usage: Limits.Usage } => {
  try {
    return { billed: Usage.billed(attempt), isKnown: true, usage: Usage.counted(attempt) }
  } catch {
    return { billed: undefined, isKnown: false, usage: {} }
  }
}

// -----------------------------------------------------------------------------
// What every end does
// -----------------------------------------------------------------------------

/**
 * Ends an attempt that was admitted, and bills it; undefined if it costs nothing. If its usage is not known, its purses spend all that
 * they reserved. Whatever may throw must run before this, because nothing settles an attempt twice.
 */
const conclude = (attempt: GovernedAttempt, billed: Accounting.Actual | undefined, isKnown = true): void => {
  const { call, payment, pool, price, request } = attempt
  const { onBilled } = call.options
  attempt.phase = "settled"
  pool.ended()
  if (call.placement !== undefined) call.parts.places!.forgetSent(attempt)
  const cost = price === undefined || billed === undefined ? 0 : Usage.costOf(price, billed)
  payment?.settle(isKnown ? cost : undefined, billed && Usage.tokensOf(billed))
  pool.counts.dollars += cost / perDollar
  if (billed === undefined || onBilled === undefined) return
  const dollars = price && cost / perDollar
  harmless(onBilled)({ model: request.model, actual: billed, dollars, turn: attempt.turn })
}

// -----------------------------------------------------------------------------
// What is held: an entry in the queue of the budget, with no rest, or the reservation of a layer
// -----------------------------------------------------------------------------

/** The reason why the provider's rejection is final; undefined if another attempt may be accepted. */
export const refusalOf = (held: Held): Budget.BudgetError["reason"] | undefined => {
  if (held instanceof Entry) return held.rejection
  const { [refused]: refusal }: GovernedReservation = held
  return refusal?.()
}

/** The call, if its pool measures how many calls may be in flight. */
const measuredOf = (held: Held | undefined): MeasuredCall | undefined => {
  if (held === undefined || held instanceof Entry) return held?.measured
  const { [measured]: call }: GovernedReservation = held
  return call
}

/** Learns what a response says, before the attempt has ended. */
const observeHeld = (held: Held, said: Observation): Rest =>
  held instanceof Entry ? Reservation.observe(held, said) : held.observe(said)

/** Replaces the estimate by a usage, once the budget has learned what the headers say. */
const settle = (attempt: GovernedAttempt, usage: Limits.Usage, outcome?: SettledAs, signal?: Limits.Signal): Rest => {
  const held = attempt.held!
  if (signal?.windows !== undefined) observeWindows(attempt, signal)
  if (held instanceof Entry) {
    return Reservation.ending(held, (entry) => Reservation.settle(entry, usage, outcome, signal))
  }
  if (signal === undefined) return held.settle(usage, outcome)
  if (outcome === undefined) return held.observe({ ...signal, usage })
  return Effect.andThen(held.observe(signal), held.settle(usage, outcome))
}

/** Lets the budget judge a pushback. */
const failHeld = (held: Held, failure: FailOptions, judged: (verdict: Verdict) => undefined): Rest => {
  if (!(held instanceof Entry)) return Effect.map(held.fail(failure), judged)
  return judged(Reservation.ending(held, (entry) => Reservation.fail(entry, failure)))
}

/** Gives everything back: the attempt has used nothing, and waits no longer. */
export const refund = (held: Held): Rest => {
  if (!(held instanceof Entry)) return held.refund
  held.pool.cancel(held)
  return undefined
}

// -----------------------------------------------------------------------------
// The end of the call
// -----------------------------------------------------------------------------

/**
 * Ends a call with its last attempt, or leaves that to the scope in which the call continues. A function of its own, because a closure
 * within the steps would keep what is sent in memory as long as a stream.
 */
export const over = (attempt: GovernedAttempt, exit: Exit.Exit<unknown, unknown>): Rest => {
  const { call } = attempt
  if (call.within === undefined || exit._tag === "Failure") return end(attempt, exit)
  call.stopTrying(call.now)
  return Scope.addFinalizerExit(call.within, (exit) => end(attempt, exit) ?? Effect.void)
}

/** Ends a call: gives back what its last attempt holds, counts it, and pauses the pool if the provider asked for that. */
export const end = (attempt: GovernedAttempt, exit: Exit.Exit<unknown, unknown>): Rest => {
  const { call, failed, pool } = attempt
  const { budget } = call.parts
  const { now } = call
  call.stopTrying(now)
  const ended = exit._tag === "Success" ? Failure.none : Failure.endOf(exit)
  pool.over(attempt.request, attempt.answeredBy, (now - call.startedAt) / 1_000, ended)
  const released = release(attempt, exit)
  const traced = call.span && Trace.ended(call.span, call, exit)
  const pause = exit._tag === "Failure" && failed?.resetsAt === undefined ? Failure.pauseOf(exit) : undefined
  return inOrder(released, pause && budget.pause({ ...pause, pool: pool.name }), traced)
}

/** Gives back what an attempt holds, and closes what it opened. It ends a single admission, whose caller makes the attempts. */
export const release = (attempt: GovernedAttempt, exit: Exit.Exit<unknown, unknown>): Rest => {
  const { call, opened, phase, pool } = attempt
  const settled = phase === "settled" ? undefined : left(attempt)
  call.parked?.leave()
  if (call.hasBegun) call.parts.pools.released(pool)
  return inOrder(settled, opened && Scope.closeUnsafe(opened, exit))
}
