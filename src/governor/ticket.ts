/**
 * An admitted call: what its reservation is settled to, and what its end teaches.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Tracer from "effect/Tracer"
import type * as Accounting from "../Accounting.ts"
import * as Budget from "../Budget.ts"
import type * as Events from "../Events.ts"
import type * as Estimator from "../Estimator.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import { LlmError } from "../LlmError.ts"
import type { Price } from "../prices/rates.ts"
import type { StopReason } from "../retry/errors.ts"
import { perDollar } from "../spending/ledger.ts"
import type { Payment } from "../spending/purse.ts"
import type * as Failure from "./failure.ts"
import { causeOf, errorType, reach, read } from "./failure.ts"
import type { ResponseInfo, Ticket } from "./models.ts"
import type { Pool } from "./pool.ts"
import * as Trace from "./trace.ts"
import * as Usage from "./usage.ts"

/** The parts of a governor that tickets need. */
export interface Parts {
  readonly accounting: Accounting.Accounting
  readonly conversations: Usage.Conversations
  readonly estimator: Estimator.Estimator["Service"]
  /** Receives each event, if there is an observer. */
  readonly observer: ((event: Events.Event) => void) | undefined
}

/** One call as it goes on, over all of its attempts. A stream keeps it for as long as it lasts, so it holds no request. */
export interface History {
  readonly pool: Pool
  readonly model: string
  readonly clock: Clock.Clock
  readonly startedAt: number
  /** Whether it is counted among the users of its pool. */
  isUser: boolean
  span: Tracer.Span | undefined
  /** How many were sent. */
  attempts: number
  /** Milliseconds in the queue, of all attempts. */
  queued: number
  /** Milliseconds between the attempts. */
  waited: number
  /** When the last attempt failed. */
  failedAt: number
  /** The limit that the last rejection hit. */
  limit: Limits.Dimension | undefined
}

/** The figures that somebody gives for a call, where they are any: services without figures give `null`. */
const figuresOf = (given: Accounting.Actual | undefined): Accounting.Actual | undefined =>
  Predicate.isObject(given) ? given : undefined

/** The result of a failed attempt. */
export interface Failed extends Failure.Reading {
  readonly verdict: Budget.Verdict | undefined
  readonly isWrongAddress: boolean
}

const noResponse: ResponseInfo = {}

export class HeldTicket implements Ticket, Usage.Held {
  private readonly parts: Parts
  private readonly history: History
  readonly accounting: Accounting.Accounting
  readonly known: Usage.Known
  readonly estimate: Limits.Estimate
  readonly reservation: Budget.Reservation
  private readonly price: Price | undefined
  private readonly payment: Payment | undefined
  private isConcluded = false
  private isSent = false
  observed: Accounting.Actual | undefined = undefined
  /** What the attempt failed with, if it did. */
  failed: Failed | undefined = undefined

  constructor(
    parts: Parts,
    history: History,
    known: Usage.Known,
    estimate: Limits.Estimate,
    reservation: Budget.Reservation,
    price: Price | undefined,
    payment: Payment | undefined
  ) {
    this.parts = parts
    this.history = history
    this.accounting = known.accounting ?? parts.accounting
    this.known = known
    this.estimate = estimate
    this.reservation = reservation
    this.price = price
    this.payment = payment
    const { pool, span } = history
    // A reservation and a tracer that throw do so before anything counts.
    const millis = Duration.toMillis(reservation.waited)
    if (span !== undefined) Trace.admitted(span, estimate, reservation)
    history.limit = undefined
    history.queued += millis
    pool.began()
    pool.counts.queued(millis / 1_000)
  }

  /** The request goes out. */
  send(): void {
    this.isSent = true
    this.history.attempts++
    this.history.pool.counts.attempts.add(1)
  }

  // Callers may take these apart from the ticket, which a stream need not keep.

  readonly observeLimits = (signal: Limits.Signal | undefined): Effect.Effect<void> =>
    signal === undefined ? Effect.void : this.reservation.observe(signal)

  readonly recordUsage = (actual: Accounting.Actual): void => {
    this.observed = figuresOf(actual)
  }

  readonly succeed = (
    given: Accounting.Actual | undefined,
    response = noResponse,
    signal?: Limits.Signal
  ): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (this.isConcluded) return this.observeLimits(signal)
      const actual = figuresOf(given)
      const { known, parts, reservation, history } = this
      history.pool.hasAnswered = true
      history.pool.isDenied = false
      if (history.span !== undefined) Trace.succeeded(history.span, actual, response)
      const billed = actual === undefined ? Usage.expected(this) : Usage.billed(this, actual)
      const usage = actual === undefined ? {} : Usage.counted(this, actual)
      this.conclude()
      this.spend(billed, actual !== undefined)
      const settled = Effect.flatMap(this.observeLimits(signal), () => reservation.settle(usage))
      if (actual === undefined) return settled
      history.pool.counts.used(actual)
      const { continuation, finishReason } = response
      if (continuation !== undefined) parts.conversations.remember(continuation, actual)
      // A truncated reply is as long as its limit, which the request or the provider sets.
      const wasCut = finishReason === "max_tokens" || finishReason === "length"
      const learning = wasCut ? { ...known, maxTokens: actual.outputTokens } : known
      return Effect.flatMap(settled, () => parts.estimator.learn(learning, actual))
    })

  readonly fail = (error: unknown): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (this.isConcluded) return Effect.void
      const { reservation, history } = this
      const reading = read(error)
      const type = errorType(error)
      const isDenied = type === "AccessDenied"
      history.pool.isDenied = isDenied && history.pool.isDenied !== false
      const isWrongAddress = history.pool.isWrongAddress(reach(error), history.clock.currentTimeMillisUnsafe())
      const reason = isWrongAddress ? undefined : reading.pushback
      const { retryAfter, signal } = reading
      const billed = Usage.billedAfterFailure(this, reading.pushback, reading.usage)
      const usage = Usage.afterFailure(this, reading.pushback, reading.usage)
      this.conclude()
      this.spend(billed)
      const limit = reason === "rateLimit" ? Usage.limitHit(signal, this.estimate) : undefined
      const concluded: Effect.Effect<Budget.Verdict | undefined> =
        reason === undefined
          ? Effect.as(
              Effect.andThen(this.observeLimits(signal), reservation.settle(usage, isDenied ? "denied" : "failure")),
              undefined
            )
          : reservation.fail({ reason, retryAfter, usage, signal })
      return Effect.map(concluded, (verdict) => {
        this.failed = { ...reading, verdict, isWrongAddress }
        if (reason === "rateLimit" || reason === "ramp") this.reportRejection(verdict, limit, retryAfter)
        history.failedAt = history.clock.currentTimeMillisUnsafe()
        history.limit = limit
        history.pool.counts.failures.add(1, type)
        if (history.span !== undefined) {
          Trace.failed(history.span, history.attempts, type, limit, history.clock.currentTimeNanosUnsafe())
        }
      })
    })

  private reportRejection(
    verdict: Budget.Verdict = "isolated",
    dimension: Limits.Dimension | undefined,
    retryAfter: Duration.Duration | undefined
  ): void {
    const { agent, pool } = this.reservation
    const { attempts, clock, model } = this.history
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
      const reason = new Budget.EstimateTooLarge({ pool: this.history.pool.name, dimension, asked, limit })
      return new Budget.BudgetError({ reason, failure: causeOf(error) })
    }
    return undefined
  }

  readonly annotate = <E>(error: E): E => withHistory(error, this.history)

  /**
   * Ends it where nothing else did. For a call of unknown outcome, input counts as used, and output as far as it was observed.
   * An unsent call used nothing.
   */
  close(): Effect.Effect<void> | undefined {
    if (this.isConcluded) return undefined
    this.conclude()
    if (!this.isSent) {
      this.spend(undefined)
      return this.reservation.refund
    }
    this.history.pool.isDenied = false
    const { billed, isKnown, usage } = this.soFar
    this.spend(billed, isKnown)
    return this.reservation.settle(usage, "failure")
  }

  /** What it has used as far as that is known. If its accounting throws, all that was reserved may be. */
  private get soFar(): { billed: Accounting.Actual | undefined; isKnown: boolean; usage: Limits.Usage } {
    try {
      return { billed: Usage.billed(this), isKnown: true, usage: Usage.counted(this) }
    } catch {
      return { billed: undefined, isKnown: false, usage: {} }
    }
  }

  /** The call is over, and billed for this; undefined for nothing. If that is not known, its purses spend all they reserved. */
  private spend(billed: Accounting.Actual | undefined, isKnown = true): void {
    const { payment, price, history } = this
    const cost = price === undefined || billed === undefined ? 0 : Usage.costOf(price, billed)
    payment?.settle(isKnown ? cost : undefined, history.clock.currentTimeMillisUnsafe())
    if (cost > 0) history.pool.counts.dollars.add(cost / perDollar)
  }

  /** Whatever may throw comes before this: nothing else ends a call that is concluded. */
  private conclude(): void {
    this.isConcluded = true
    this.history.pool.ended()
  }
}

/** The final error with the history of the call: its attempts, its waits, and why it stopped. */
export const withHistory = <E>(error: E, history: History, stoppedBy?: StopReason): E =>
  error instanceof LlmError
    ? (error.annotate({
        attempts: history.attempts,
        waited: history.waited > 0 ? Duration.millis(history.waited) : undefined,
        stoppedBy,
        limit: history.limit
      }) as typeof error)
    : error
