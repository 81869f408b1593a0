/**
 * An admitted call: what its reservation is settled to, and what its end teaches.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Accounting from "../Accounting.ts"
import * as Budget from "../Budget.ts"
import type * as Events from "../Events.ts"
import type * as Estimator from "../Estimator.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import { isLlmError } from "../LlmError.ts"
import type { StopReason } from "../retry/errors.ts"
import type * as Failure from "./failure.ts"
import { causeOf, reach, read } from "./failure.ts"
import type { Call, ResponseInfo, Ticket } from "./models.ts"
import type { Conversations, Pool } from "./memory.ts"
import * as Payment from "./payment.ts"
import * as Settlement from "./settlement.ts"
import * as Trace from "./trace.ts"

/** The parts of a governor that tickets need. */
export interface Parts {
  readonly accounting: Accounting.Accounting
  readonly budget: Budget.TokenBudget["Service"]
  readonly conversations: Conversations
  readonly estimator: Estimator.Estimator["Service"]
  /** What the model of a call costs, where that is known. */
  readonly priceOf: (call: Call) => Payment.Paid["price"]
  /** Receives each event, if there is an observer. */
  readonly observer: ((event: Events.Event) => void) | undefined
}

/** The figures that somebody gives for a call, where they are any: services without figures give `null`. */
const figuresOf = (given: Accounting.Actual | undefined): Accounting.Actual | undefined =>
  Predicate.isObject(given) ? given : undefined

/** The result of a failed attempt. */
export interface Failed extends Failure.Reading {
  readonly verdict: Budget.Verdict | undefined
  readonly isWrongAddress: boolean
}

export class HeldTicket implements Ticket {
  private readonly parts: Parts
  private readonly trace: Trace.Trace
  private readonly pool: Pool
  private readonly call: Estimator.Call
  readonly estimate: Limits.Estimate
  readonly reservation: Budget.Reservation
  private readonly paid: Payment.Paid
  private isConcluded = false
  private isSent = false
  private actual: Accounting.Actual | undefined = undefined
  /** What the attempt failed with, if it did. */
  failed: Failed | undefined = undefined

  constructor(
    parts: Parts,
    trace: Trace.Trace,
    pool: Pool,
    call: Estimator.Call,
    estimate: Limits.Estimate,
    reservation: Budget.Reservation,
    paid: Payment.Paid
  ) {
    this.parts = parts
    this.trace = trace
    this.pool = pool
    this.call = call
    this.estimate = estimate
    this.reservation = reservation
    this.paid = paid
    pool.began()
    Trace.admitted(trace, estimate, reservation)
  }

  /** The request goes out. */
  send(): void {
    this.isSent = true
    Trace.sent(this.trace)
  }

  // Callers may take these apart from the ticket, which a stream need not keep.

  readonly observeLimits = (signal: Limits.Signal | undefined): Effect.Effect<void> =>
    signal === undefined ? Effect.void : this.parts.budget.observe({ ...signal, reservation: this.reservation })

  readonly recordUsage = (actual: Accounting.Actual): void => {
    this.actual = figuresOf(actual)
  }

  readonly succeed = (given: Accounting.Actual | undefined, response: ResponseInfo = {}): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (!this.conclude()) return Effect.void
      const actual = figuresOf(given)
      const { conversations, estimator } = this.parts
      const { continuation, finishReason } = response
      this.pool.hasAnswered = true
      Trace.succeeded(this.trace, actual, response)
      this.spend(Payment.answered(actual, this.paid.expected))
      if (actual === undefined) return this.reservation.settle({})
      if (continuation !== undefined) conversations.remember(continuation, actual)
      // A truncated reply is as long as its limit, which the request or the provider sets.
      const wasCut = finishReason === "max_tokens" || finishReason === "length"
      return Effect.andThen(
        this.reservation.settle(Settlement.counted(this.held, actual)),
        estimator.learn(wasCut ? { ...this.call, maxTokens: actual.outputTokens } : this.call, actual)
      )
    })

  readonly fail = (error: unknown): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (!this.conclude()) return Effect.void
      const { reservation } = this
      const { budget } = this.parts
      const reading = read(error)
      const isWrongAddress = this.pool.isWrongAddress(reach(error), this.trace.clock.currentTimeMillisUnsafe())
      const reason = isWrongAddress ? undefined : reading.pushback
      const { retryAfter, signal } = reading
      this.spend(Payment.failed(this.actual, this.paid.expected, reading.pushback, reading.usage))
      const usage = Settlement.afterFailure(this.held, reading.pushback, reading.usage)
      const limit = reason === "rateLimit" ? Settlement.limitHit(signal, this.estimate) : undefined
      const concluded: Effect.Effect<Budget.Verdict | undefined> =
        reason === undefined
          ? Effect.as(Effect.andThen(this.observeLimits(signal), reservation.settle(usage, "failure")), undefined)
          : budget.cooldown({ reason, retryAfter, reservation, usage, signal })
      return Effect.map(concluded, (verdict) => {
        this.failed = { ...reading, verdict, isWrongAddress }
        if (reason === "rateLimit" || reason === "ramp") this.reportRejection(verdict, limit, retryAfter)
        Trace.failed(this.trace, error, limit)
      })
    })

  private reportRejection(
    verdict: Budget.Verdict = "isolated",
    dimension: Limits.Dimension | undefined,
    retryAfter: Duration.Duration | undefined
  ): void {
    const { agent, pool } = this.reservation
    const { attempts, clock, model } = this.trace
    const at = clock.currentTimeMillisUnsafe()
    const until = retryAfter === undefined ? undefined : at + Duration.toMillis(retryAfter)
    this.parts.observer?.({ type: "rejection", at, pool, agent, model, attempt: attempts, verdict, dimension, until })
  }

  /** The refusal of a call that is larger than the provider's limit: no attempt of it can succeed. */
  tooLarge(error: unknown): Budget.BudgetError | undefined {
    const { failed } = this
    if (failed?.verdict !== "impossible") return undefined
    const whole = Amounts.whole(this.estimate)
    for (const dimension of Amounts.dimensions) {
      const asked = whole[dimension]
      const limit = failed.signal?.dimensions[dimension]?.limit ?? Infinity
      if (asked <= limit) continue
      const reason = new Budget.EstimateTooLarge({ pool: this.trace.pool, dimension, asked, limit })
      return new Budget.BudgetError({ reason, failure: causeOf(error) })
    }
    return undefined
  }

  readonly annotate = <E>(error: E): E => withHistory(error, this.trace)

  /** For a call of unknown outcome, input counts as used, and output as far as it was observed. An unsent call used nothing. */
  close(): Effect.Effect<void> {
    this.pool.ended()
    if (!this.conclude()) return Effect.void
    this.spend(this.isSent ? Payment.abandoned(this.actual, this.paid.expected) : undefined)
    return this.isSent ? this.reservation.settle(Settlement.counted(this.held), "failure") : this.reservation.refund
  }

  /** It is known what the call is billed for; undefined for nothing. */
  private spend(actual: Accounting.Actual | undefined): void {
    const { clock, counts } = this.trace
    const dollars = Payment.settle(this.paid, actual, clock.currentTimeMillisUnsafe())
    if (dollars > 0) counts.dollars.add(dollars)
  }

  /** Whether this is the first end of it. */
  private conclude(): boolean {
    const isFirst = !this.isConcluded
    this.isConcluded = true
    return isFirst
  }

  private get held(): Settlement.Held {
    const { accounting = this.parts.accounting } = this.call
    return { accounting, estimate: this.estimate, known: this.call, observed: this.actual }
  }
}

/** The final error with the history of the call: its attempts, its waits, and why it stopped. */
export const withHistory = <E>(error: E, trace: Trace.Trace, stoppedBy?: StopReason): E =>
  isLlmError(error)
    ? (error.annotate({
        attempts: trace.attempts,
        waited: trace.waited > 0 ? Duration.millis(trace.waited) : undefined,
        stoppedBy,
        limit: trace.limit
      }) as typeof error)
    : error
