/**
 * Admits an attempt of a call in its pool: estimates it, pays for it, reserves the estimate, and says what a refusal means for the call.
 *
 * What needs no Effect is done at once, and the rest is returned as an effect, if there is any.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import { awaited, mayAsk } from "../budget/asking.ts"
import { Entry } from "../budget/entry.ts"
import { certainly, claimed, counting, first, type GovernedOptions, revised } from "../budget/models.ts"
import { ownerOf } from "../budget/options.ts"
import type * as Limits from "../Limits.ts"
import { DeadlineMissed, LlmError } from "../LlmError.ts"
import { Resets } from "../domain/spending/models.ts"
import * as PriceTable from "../domain/prices.ts"
import type { GovernedAttempt, Held } from "./attempt.ts"
import * as Counting from "./counting.ts"
import type { Call, CallOptions } from "./models.ts"
import type { Paying } from "../money/paying.ts"
import { Lines } from "./lines.ts"
import * as Payment from "./payment.ts"
import type { Reserving } from "./place.ts"
import type { CallPlace } from "../places/models.ts"
import type * as Prices from "../Prices.ts"
import type { Rest } from "./settlement.ts"
import * as Usage from "./usage.ts"

export type CallError = LlmError | Budget.BudgetError

/** Estimates a call again; undefined if nothing was learned. */
type Revise = GovernedOptions[typeof revised]

/**
 * Admits an attempt. Returns what is left to do until it is admitted; undefined if it is. If that is interrupted or refused, the end of
 * the call releases what it holds.
 */
export const admitted = (attempt: GovernedAttempt, context: Context.Context<never>): Rest<CallError> => {
  const { call, pool, request } = attempt
  const { estimates, estimator, prices } = call.parts
  const known = Usage.known(call, request, pool)
  attempt.price = priceOf(request, call.placement?.only, prices)
  attempt.known = known
  if (estimates !== undefined) return admittedFor(attempt, estimates.estimate(known), context)
  return Effect.flatMap(estimator.estimate(known), (estimate) => admittedFor(attempt, estimate, context) ?? Effect.void)
}

/** The price of a call at a place, which may state it. */
export const priceOf = (call: Call, place: CallPlace | undefined, prices: Prices.Table): Prices.Price | undefined => {
  const listed = place?.price ?? PriceTable.find(call.model, prices)
  return listed && PriceTable.charged(listed, call)
}

/**
 * A function that estimates a call at a place again, with what is known of it by then. It returns undefined if that is the same, and
 * nothing was learned since it was last called. Undefined for an estimator without synchronous forms, which may take time.
 */
export const revisionOf = (
  { call }: GovernedAttempt,
  at: { known: Usage.KnownCall },
  before: Limits.Estimate
): Revise => {
  const { conversations, estimates } = call.parts
  if (estimates === undefined) return undefined
  let { lessons } = estimates
  let last = at.known
  return () => {
    const known = (at.known = Usage.withPrefix(at.known, conversations, call.now))
    if (estimates.lessons === lessons && known === last) return undefined
    lessons = estimates.lessons
    last = known
    return estimates.estimate(known, before)
  }
}

const admittedFor = (
  attempt: GovernedAttempt,
  estimate: Limits.Estimate,
  context: Context.Context<never>
): Rest<CallError> => {
  const { call, last } = attempt
  const { now } = call
  if (last < now) return tooLate
  const revise = revisionOf(attempt, attempt, estimate)
  const unpaid = pay(attempt, attempt, estimate, context)
  if (unpaid === undefined) return reserve(attempt, estimate, revise, now, context)
  return Effect.flatMap(unpaid, () => reserve(attempt, estimate, revise, call.now, context) ?? Effect.void)
}

// -----------------------------------------------------------------------------
// Payment
// -----------------------------------------------------------------------------

/** The priority of calls that have opted in to the slower lane: all others go first. */
const slowPriority = Number.MIN_SAFE_INTEGER

const priorityOf = ({ priority }: CallOptions, { slowLane }: Call): number | undefined =>
  slowLane === true ? slowPriority : priority

/** How a call stands in the lines before its pool. */
export const payingOf = (
  { agent, options, parts, request }: GovernedAttempt["call"],
  context: Context.Context<never>
): Paying => {
  const { caller, job, weight } = options
  const owner = ownerOf(context, { agent, caller, job, priority: priorityOf(options, request), weight })
  return { ...owner, wake: parts.wake }
}

/** Pays for an attempt. Returns what is left to do until it is paid; undefined if it is, or if nobody has to pay. */
export const pay = (
  attempt: GovernedAttempt,
  at: Reserving,
  estimate: Limits.Estimate,
  context: Context.Context<never>
): Rest<CallError> => {
  const { call, until } = attempt
  const { clock, now: since, options, parts, purses } = call
  const { reportCap, windows } = parts
  const lines = Context.get(context, Lines)
  const parks = options.park ?? Context.get(context, Resets) !== undefined
  const isFree = purses.length === 0 && options.purses === undefined && !windows.isLimiting && !parks
  if (isFree && lines.length === 0) return undefined
  const { accounting, known, pool, price } = at
  const paying = payingOf(call, context)
  const request: Payment.PaymentRequest = {
    lines,
    purses,
    price,
    call: { accounting, estimate, known },
    pool: pool.name,
    account: at.request.account,
    windows,
    parks,
    resetBy: parks ? attempt.parkedUntil : until,
    parked: () => {
      call.parked ??= windows.parking.place(paying, at.request.model, at.request.account)
      // The retry policy does not count the time in the parking.
      if (parks) {
        attempt.last = call.deadline
        attempt.until = attempt.parkedUntil
      }
      return { place: call.parked, until: attempt.until }
    },
    paying,
    clock,
    report: (event) => reportCap({ type: "cap", pool: pool.name, ...event }),
    since,
    until
  }
  // However the attempt ends, its end settles this.
  const payment = (attempt.payment = new Payment.Payment())
  const rest = Payment.pay(payment, request, context)
  return rest && Effect.mapError(rest, (error) => refusalFor(attempt, error, since))
}

// -----------------------------------------------------------------------------
// Reservation
// -----------------------------------------------------------------------------

/** Reserves an estimate, and admits the attempt. Returns what is left to do; undefined if it is admitted. */
const reserve = (
  attempt: GovernedAttempt,
  estimate: Limits.Estimate,
  revise: Revise,
  since: number,
  context: Context.Context<never>
): Rest<CallError> => {
  const { call } = attempt
  const asked = ask(attempt, estimate, queueingOf(attempt, attempt, since, revise), context)
  const isEntry = asked instanceof Entry
  if (isEntry) attempt.held = asked
  if (isEntry && asked.isOpen) return admit(attempt, asked)
  const waiting: Effect.Effect<Held, Budget.BudgetError> = isEntry ? awaited(asked, context) : noted(attempt, asked)
  return Effect.matchEffect(Counting.whileWaiting(call, [attempt], waiting), {
    onSuccess: (held) => Effect.succeed(admit(attempt, held)),
    onFailure: (error) => {
      if (!isClosed(attempt)) return Effect.fail(refusalFor(attempt, error, since))
      // A call that does not park has found the window spent, and paused the pool.
      attempt.payment!.settle(0)
      return admittedFor(attempt, estimate, context) ?? Effect.void
    }
  })
}

/** Whether an attempt that parks would be parked again, because a window is spent. */
export const isClosed = ({ call, payment }: GovernedAttempt): boolean =>
  payment?.parks === true && payment.window?.isClosed(call.now) === true

/** Admits an attempt where its call can only go. */
const admit = (attempt: GovernedAttempt, held: Held): undefined => {
  if (attempt.call.placement !== undefined) attempt.stayAt(attempt.call.placement)
  attempt.admit(held)
}

/** Asks the budget to admit an attempt: at once, unless a layer has replaced `reserve`. Then it is left to do, in the scope of the attempt. */
export const ask = (
  { call: { parts } }: GovernedAttempt,
  estimate: Limits.Estimate,
  options: GovernedOptions,
  context: Context.Context<never>
): Entry | Effect.Effect<Budget.Reservation, Budget.BudgetError, Scope.Scope> =>
  parts.ask !== undefined && mayAsk(parts.ask, context)
    ? parts.ask(context, estimate, options)
    : parts.budget.reserve(estimate, options)

/** Notes a reservation in the step in which a layer gives it, so that an interruption comes before it or after it. */
const noted = (
  attempt: GovernedAttempt,
  reserved: Effect.Effect<Budget.Reservation, Budget.BudgetError, Scope.Scope>
): Effect.Effect<Budget.Reservation, Budget.BudgetError> =>
  Scope.provide(
    Effect.onExitPrimitive(reserved, (exit) => {
      if (exit._tag === "Success") attempt.held = exit.value
      return undefined
    }),
    attempt.scope
  )

/** Returns how an attempt is queued. Its `maxWait` counts from `since`. */
export const queueingOf = (
  { call: { agent, options, request }, isFirst, until }: GovernedAttempt,
  { accounting, known, pool }: Reserving,
  since: number,
  revise?: Revise,
  claim?: GovernedOptions[typeof claimed]
): GovernedOptions => ({
  agent,
  job: options.job,
  caller: options.caller,
  priority: priorityOf(options, request),
  weight: options.weight,
  maxWait: until === Infinity ? undefined : Math.max(0, until - since),
  pool: pool.kind,
  account: pool.account,
  [first]: isFirst,
  [counting]: accounting.counting,
  [revised]: revise,
  [certainly]: (mayBeCached) => Usage.certain(accounting, known, mayBeCached),
  [claimed]: claim
})

// -----------------------------------------------------------------------------
// Refusals
// -----------------------------------------------------------------------------

/** The refusal of an attempt whose deadline has passed. */
const tooLate = Effect.fail(new LlmError({ reason: new DeadlineMissed({ wait: Duration.zero, left: Duration.zero }) }))

/** Converts a refusal of the budget, which knows neither the call's deadline nor its wait before `since`. */
export const refusalFor = (attempt: GovernedAttempt, error: Budget.BudgetError, since: number): CallError => {
  const { from, isBoundByDeadline, last } = attempt
  const { reason } = error
  if (reason._tag !== "WaitTooLong") return error
  const { dimension, maxWait, pool } = reason
  const before = Duration.millis(since - from)
  const wait = Duration.sum(reason.wait, before)
  if (isBoundByDeadline) {
    return new LlmError({ reason: new DeadlineMissed({ pool, dimension, wait, left: Duration.millis(last - from) }) })
  }
  return new Budget.BudgetError({
    reason: new Budget.WaitTooLong({ pool, dimension, wait, maxWait: Duration.sum(maxWait, before) })
  })
}
