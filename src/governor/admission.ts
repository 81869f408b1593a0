/**
 * The admission of a call: what it is expected to use, the reservation that it gets for that, and what becomes of the
 * reservation.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type * as Accounting from "../Accounting.ts"
import * as Budget from "../Budget.ts"
import type * as Estimator from "../Estimator.ts"
import { isAmount } from "../internal/believed.ts"
import { pushbacks } from "../internal/pushbacks.ts"
import { bytesPerToken } from "../protocol/requestSize.ts"
import * as Settlement from "../internal/settlement.ts"
import * as Limits from "../Limits.ts"
import { isLlmError } from "../LlmError.ts"
import * as Retry from "../Retry.ts"
import * as Attempt from "./attempt.ts"
import * as Bound from "./bound.ts"
import { causeOf } from "./failed.ts"
import type { Call, CallOptions, Failure, ResponseInfo, Ticket } from "./models.ts"
import * as Trace from "./trace.ts"

/** What admissions are made of. */
export interface Means {
  readonly accounting: Accounting.Accounting
  readonly budget: Budget.TokenBudget["Service"]
  readonly estimator: Estimator.Estimator["Service"]
}

/** Admits a call for as long as the scope lasts. */
export type Admit = (
  trace: Trace.Trace,
  call: Call,
  how: CallOptions,
  bound: Bound.Bound
) => Effect.Effect<Ticket, Budget.BudgetError, Scope.Scope>

/** Makes the admissions of a governor, which count together how many calls usually run. */
export const make = (means: Means): Admit => {
  const { accounting, budget, estimator } = means
  const flights = makeFlights()
  const answered = new Set<string>()
  return (trace, call, how, bound) =>
    Effect.uninterruptibleMask(
      Effect.fnUntraced(function* (restore) {
        const { pool } = trace
        const agent = how.agent ?? (yield* Budget.Agent)
        // What is no number of tokens is the provider's to complain of.
        const maxTokens = isAmount(call.maxTokens) ? call.maxTokens : undefined
        const known: Known = {
          ...call,
          maxTokens,
          pool,
          kind: call.kind ?? agent,
          together: flights.usual(pool)
        }
        const expected = yield* estimator.estimate(known)
        const queueing = {
          agent,
          priority: how.priority,
          weight: how.weight,
          pool,
          first: !(yield* Retry.Attempt).first
        }
        const ask = (estimate: Limits.Estimate) =>
          Effect.flatMap(Clock.currentTimeMillis, (queuedAt) =>
            Effect.mapError(
              restore(budget.reserve(estimate, { ...queueing, maxWait: Bound.left(bound, queuedAt) })),
              (error) => Bound.refusal(bound, queuedAt, error)
            )
          )
        const { estimate, reservation } = yield* reserve(accounting, ask, known, expected)
        const admitted: Admitted = { accounting, trace, known, estimate, reservation, observed: undefined }
        const { attempts } = trace
        flights.began(pool)
        yield* Effect.addFinalizer(() =>
          Effect.suspend(() => {
            flights.ended(pool)
            // Nobody said how it ended: input is spent, and output as far as it was seen.
            return trace.attempts > attempts
              ? reservation.settle(Settlement.counted(admitted), "failure")
              : reservation.refund
          })
        )
        yield* Trace.admitted(trace, estimate, reservation)
        return ticketOf(means, admitted, answered)
      })
    )
}

// -----------------------------------------------------------------------------
// The estimate and its reservation
// -----------------------------------------------------------------------------

/** What was reserved of an estimate. */
interface Reserved {
  readonly estimate: Limits.Estimate
  readonly reservation: Budget.Reservation
}

/**
 * A guess may be larger than the limit although the call is not: output is not known before, and of input only the
 * length. Such a call reserves all that there is.
 */
const reserve = (
  accounting: Accounting.Accounting,
  ask: (estimate: Limits.Estimate) => Effect.Effect<Budget.Reservation, Budget.BudgetError, Scope.Scope>,
  call: Known,
  estimate: Limits.Estimate
): Effect.Effect<Reserved, Budget.BudgetError, Scope.Scope> =>
  Effect.matchEffect(ask(estimate), {
    onSuccess: (reservation) => Effect.succeed({ estimate, reservation }),
    onFailure: (error) => {
      const { reason } = error
      return reason._tag === "EstimateTooLarge" && leastOf(accounting, call, estimate, reason.dimension) <= reason.limit
        ? reserve(accounting, ask, call, { ...estimate, [reason.dimension]: reason.limit })
        : Effect.fail(error)
    }
  })

/** A call as the estimator takes it, and how much of it is text. */
type Known = Estimator.Call & Pick<Call, "textBytes">

/** By how much a guess of the input may be too high: 2.7 bytes a token are assumed at first, and more than 4 occur. */
const guessedTooHigh = 1.6

/**
 * The least that a call can take of a limit, however wrong the guesses in its estimate are. What was learned of prompts is
 * such a guess, too: of another call with a short body and a long document, for example. So are pictures, of any size, and
 * documents, whose data may be text or pictures of pages.
 */
const leastOf = (
  accounting: Accounting.Accounting,
  call: Known,
  { inputTokens = Infinity, outputTokens = 0 }: Limits.Estimate,
  dimension: Limits.Dimension
): number => {
  const least = accounting.estimate({
    inputTokens:
      call.inputTokens ?? Math.min(inputTokens, (call.textBytes ?? call.bytes) / bytesPerToken) / guessedTooHigh,
    cachedTokens: 0,
    outputTokens: outputTokens === call.maxTokens ? outputTokens : 0,
    maxTokens: call.maxTokens
  })
  return Limits.whole(least)[dimension]
}

// -----------------------------------------------------------------------------
// What becomes of it
// -----------------------------------------------------------------------------

/** A call that holds its reservation. */
interface Admitted extends Settlement.Held {
  readonly trace: Trace.Trace
  readonly known: Estimator.Call
  readonly reservation: Budget.Reservation
  observed: Accounting.Actual | undefined
}

/** Whether a reply is as long as its limit, which the request or the provider sets. */
const wasCut = ({ finishReason = "" }: ResponseInfo): boolean => ["max_tokens", "length"].includes(finishReason)

/** `answered` are the pools in which a call has succeeded. */
const ticketOf = ({ budget, estimator }: Means, admitted: Admitted, answered: Set<string>): Ticket => {
  const { estimate, known, reservation, trace } = admitted
  const heard: Ticket["heard"] = (signal) =>
    signal === undefined ? Effect.void : budget.observe({ ...signal, reservation })
  let isConcluded = false
  const conclude = (as: () => Effect.Effect<void>): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (isConcluded) return Effect.void
      isConcluded = true
      return as()
    })
  return {
    reservation,
    heard,
    observed: (actual) => {
      admitted.observed = actual
    },
    succeed: (actual, response = {}) =>
      conclude(() => {
        answered.add(trace.pool)
        return Effect.andThen(
          actual === undefined
            ? reservation.settle({})
            : Effect.andThen(
                reservation.settle(Settlement.counted(admitted, actual)),
                estimator.learn(wasCut(response) ? { ...known, maxTokens: actual.outputTokens } : known, actual)
              ),
          Trace.succeeded(trace, actual, response)
        )
      }),
    fail: (error) =>
      conclude(() => {
        const cause = causeOf(error)
        // It may be anybody's, with a process's `signal` for example: what is of another form says nothing.
        const said: Failure = typeof cause === "object" && cause !== null ? cause : {}
        const signal = Predicate.isObject(said.signal?.dimensions) ? said.signal : undefined
        const retryAfter = Duration.isDuration(said.retryAfter) ? said.retryAfter : undefined
        const pushback =
          pushbacks.find((one) => one === said.pushback) ??
          (isDown(cause) && answered.has(trace.pool) ? "overload" : undefined)
        const limit = pushback === "rateLimit" ? Settlement.limitHit(signal, estimate) : undefined
        const usage = Settlement.afterFailure(admitted, pushback, said.usage)
        const settled =
          pushback === undefined
            ? reservation.settle(usage, "failure")
            : budget.cooldown({ reason: pushback, retryAfter, reservation, usage })
        return heard(signal).pipe(Effect.andThen(settled), Effect.andThen(Trace.failed(trace, error, limit)))
      }),
    withHistory: (error) => Attempt.withHistory(error, trace)
  }
}

/**
 * Whether the provider cannot be reached, or does not work. If it has answered before, that is an outage, and one call
 * at a time finds out when it ends. If it never has, the address is probably wrong, and the caller should hear so soon.
 */
const isDown = (error: unknown): boolean =>
  isLlmError(error) &&
  (error.reason._tag === "ServerFailed" || (error.reason._tag === "ConnectionFailed" && !error.reason.sent))

// -----------------------------------------------------------------------------
// Calls that run together
// -----------------------------------------------------------------------------

interface Flight {
  open: number
  usual: number
}

/** As slow as the estimator's own averages: the last ten admissions or so count. */
const weight = 1 / 8

/** How many calls of a pool usually run at the same time: a moving average over admissions. */
const makeFlights = () => {
  const pools = new Map<string, Flight>()
  return {
    began: (pool: string): void => {
      const flight = pools.get(pool) ?? { open: 0, usual: 1 }
      flight.open++
      flight.usual += (flight.open - flight.usual) * weight
      pools.set(pool, flight)
    },
    ended: (pool: string): void => {
      const flight = pools.get(pool)
      if (flight !== undefined) flight.open--
    },
    /** At least 1. */
    usual: (pool: string): number => pools.get(pool)?.usual ?? 1
  }
}
