/**
 * One governed call, at one of its attempts: what it holds, what its end settles and teaches, and what happened to it so far.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import type * as Accounting from "../Accounting.ts"
import * as Budget from "../Budget.ts"
import type { Wake } from "../budget/waker.ts"
import type * as Estimator from "../Estimator.ts"
import type * as Events from "../Events.ts"
import { millisOf } from "../domain/input/checks.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import { LlmError } from "../LlmError.ts"
import type * as Prices from "../Prices.ts"
import { RetryBudget, type Tokens, tokensOf } from "./retryBudget.ts"
import { Deadline } from "./retryPolicy.ts"
import type * as Retry from "../Retry.ts"
import { type Purse, Purses } from "../domain/spending/models.ts"
import * as Failure from "./failure.ts"
import type { Breaker, Call, CallOptions, ResponseInfo, Ticket } from "./models.ts"
import * as Payment from "./payment.ts"
import type { Pool, Pools } from "./pool.ts"
import * as Trace from "./trace.ts"
import * as Usage from "./usage.ts"
import type { Warmup } from "./warmup.ts"

/** The parts of a governor. */
export interface Parts {
  readonly accounting: Accounting.Accounting
  readonly breaker: Breaker | undefined
  readonly budget: Budget.TokenBudget["Service"]
  readonly conversations: Usage.Conversations
  readonly estimator: Estimator.Estimator["Service"]
  /** Receives each event, if there is an observer. */
  readonly observer: ((event: Events.Event) => void) | undefined
  readonly policy: Retry.Policy<LlmError>
  readonly pools: Pools
  readonly prices: Prices.Table
  /** The retry budget of the governor's own context, if it has one. */
  readonly retryBudget: Tokens | undefined
  readonly wake: Wake
  readonly warmup: Warmup
}

/** The result of a failed attempt. */
interface Failed extends Failure.Reading {
  readonly verdict: Budget.Verdict | undefined
  readonly isWrongAddress: boolean
}

/** What has come of an attempt: it has no reservation yet, it has one, its request went out, or it is settled. */
type Phase = "waiting" | "admitted" | "sent" | "settled"

/** A provider that asks for more time than any bucket needs to refill is closed for everybody until then. */
const longestRefill = 120_000

const noResponse: ResponseInfo = {}

/** The figures that somebody gives for a call, where they are any: services without figures give `null`. */
const figuresOf = (given: Accounting.Actual | undefined): Accounting.Actual | undefined =>
  Predicate.isObject(given) ? given : undefined

/**
 * A call with one of its attempts. A further attempt has a copy of its own, so that nothing that goes on after the end of one attempt
 * changes the next. A stream keeps it, so it holds no request.
 */
export class GovernedCall implements Ticket, Usage.Held {
  readonly parts: Parts
  readonly call: Call
  readonly how: CallOptions
  readonly pool: Pool
  readonly clock: Clock.Clock
  readonly accounting: Accounting.Accounting
  /** Whose turn it takes in the queue. */
  readonly agent: string
  readonly purses: ReadonlyArray<Purse>
  /** The longest wait of an attempt, and the time before which the call must begin, in milliseconds. */
  readonly maxWait: number
  readonly deadline: number
  readonly startedAt: number
  /** The retry budget that its retries are taken from: the caller's own goes before the governor's. */
  readonly tokens: Tokens
  /** The scope that it goes on in once it has succeeded, if it does. */
  readonly within: Scope.Scope | undefined
  readonly isTraced: boolean
  span: Tracer.Span | undefined = undefined
  /** Whether an attempt of it has begun to wait, and how many were sent. */
  private hasBegun = false
  attempts = 0
  /** Milliseconds in the queue, and between the attempts. */
  queued = 0
  waited = 0
  /** The limit that the last rejection hit. */
  private limit: Limits.Dimension | undefined = undefined
  /** What the last attempt failed with, and when. */
  failure: unknown = undefined
  private failedAt = 0

  // The attempt

  private phase: Phase = "waiting"
  /** What it opened lives as long as this, its reservation included. */
  scope: Scope.Closeable = Scope.makeUnsafe()
  /** When it began to wait, until when it may, and the time before which it must begin. */
  from = 0
  until = Infinity
  last = Infinity
  /** Whether it stands first among the calls of its agent. */
  isFirst = false
  known!: Usage.Known
  estimate: Limits.Estimate = {}
  price: Prices.Price | undefined = undefined
  payment: Payment.Payment | undefined = undefined
  reservation!: Budget.Reservation
  observed: Accounting.Actual | undefined = undefined
  failed: Failed | undefined = undefined

  constructor(
    parts: Parts,
    call: Call,
    how: CallOptions,
    context: Context.Context<never>,
    within: Scope.Scope | undefined
  ) {
    const { agent = Context.get(context, Budget.Agent), maxWait, purses } = how
    const around = Context.get(context, Purses)
    this.parts = parts
    this.call = call
    this.how = how
    this.clock = Context.get(context, Clock.Clock)
    this.accounting = call.accounting ?? parts.accounting
    this.pool = parts.pools.of(parts.budget, this.accounting, call)
    this.agent = agent
    this.purses = purses === undefined ? around : [...around, ...purses]
    this.maxWait = maxWait === undefined ? Infinity : millisOf(maxWait)
    this.deadline = Context.get(context, Deadline) ?? Infinity
    this.startedAt = this.clock.currentTimeMillisUnsafe()
    this.tokens = tokensOf(Context.get(context, RetryBudget) ?? parts.retryBudget, this.clock)
    this.within = within
    const parent = Context.getOrUndefined(context, Tracer.ParentSpan)
    this.isTraced = (parent ?? Context.getOrUndefined(context, Tracer.Tracer)) !== undefined
  }

  get now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  /** Whether it is the deadline that bounds the wait, and not the call's `maxWait`. */
  get isBoundByDeadline(): boolean {
    return this.last - this.from < this.maxWait
  }

  // ---------------------------------------------------------------------------
  // Its steps
  // ---------------------------------------------------------------------------

  /** The next attempt begins to wait. It must begin before a time. The first one counts the call, also in a retry budget. */
  next(last: number, tokens?: Tokens): GovernedCall {
    const { failed, now } = this
    if (!this.hasBegun) {
      this.hasBegun = true
      this.pool.users++
      tokens?.begin(now)
    }
    const call = failed === undefined ? this : this.again(failed)
    call.from = now
    call.last = last
    call.until = Math.min(last, now + this.maxWait)
    return call
  }

  /** A copy for another attempt. */
  private again(failed: Failed): GovernedCall {
    const call: GovernedCall = Object.assign(Object.create(GovernedCall.prototype), this)
    call.waited += this.now - this.failedAt
    call.phase = "waiting"
    call.scope = Scope.makeUnsafe()
    // After a rejection by the limits, the call is its agent's first. After a failure of its own it is not.
    call.isFirst = failed.verdict !== "outage"
    call.payment = call.observed = call.failed = undefined
    return call
  }

  /** It has a reservation. */
  admit(reservation: Budget.Reservation, estimate: Limits.Estimate): void {
    const { pool, span } = this
    // A reservation and a tracer that throw do so before anything counts.
    const millis = Duration.toMillis(reservation.waited)
    if (span !== undefined) Trace.admitted(span, estimate, reservation)
    this.reservation = reservation
    this.estimate = estimate
    this.phase = "admitted"
    this.limit = undefined
    this.queued += millis
    pool.began()
    pool.counts.queued(millis / 1_000)
  }

  /** Its request goes out. */
  send(): void {
    this.phase = "sent"
    this.attempts++
    this.pool.counts.attempts++
  }

  // ---------------------------------------------------------------------------
  // Its settlement
  // ---------------------------------------------------------------------------

  // Callers may take these apart from the ticket, which a stream need not keep.

  get observeLimits(): Ticket["observeLimits"] {
    return (signal) => (signal === undefined ? Effect.void : this.reservation.observe(signal))
  }

  get recordUsage(): Ticket["recordUsage"] {
    return (actual) => {
      this.observed = figuresOf(actual)
    }
  }

  get succeed(): Ticket["succeed"] {
    return (actual, response) => this.settle(actual, response)
  }

  get fail(): Ticket["fail"] {
    return (error) => Effect.suspend(() => this.settleFailed(error))
  }

  get annotate(): Ticket["annotate"] {
    return (error) => this.withHistory(error)
  }

  /** Settles what was answered. */
  settle(given: Accounting.Actual | undefined, response = noResponse, signal?: Limits.Signal): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.phase === "settled") return this.observeLimits(signal)
      const actual = figuresOf(given)
      const { known, parts, pool, reservation, span } = this
      pool.hasAnswered = true
      pool.isDenied = false
      if (span !== undefined) Trace.succeeded(span, actual, response)
      const billed = actual === undefined ? Usage.expected(this) : Usage.billed(this, actual)
      const usage = actual === undefined ? {} : Usage.counted(this, actual)
      this.conclude(billed, actual !== undefined)
      const ended = reservation.settle(usage)
      const settled = signal === undefined ? ended : Effect.andThen(reservation.observe(signal), ended)
      if (actual === undefined) return settled
      pool.counts.used(actual)
      const { continuation, finishReason } = response
      if (continuation !== undefined) parts.conversations.remember(continuation, actual)
      // A truncated reply is as long as its limit, which the request or the provider sets.
      const wasCut = finishReason === "max_tokens" || finishReason === "length"
      const learning = wasCut ? { ...known, maxTokens: actual.outputTokens } : known
      return Effect.flatMap(settled, () => parts.estimator.learn(learning, actual))
    })
  }

  /** Settles what failed. */
  private settleFailed(error: unknown): Effect.Effect<void> {
    if (this.phase === "settled") return Effect.void
    const { pool, reservation } = this
    const reading = Failure.read(error)
    const type = Failure.errorType(error)
    const isDenied = type === "AccessDenied"
    pool.isDenied = isDenied && pool.isDenied !== false
    const isWrongAddress = pool.isWrongAddress(Failure.reach(error), this.now)
    const reason = isWrongAddress ? undefined : reading.pushback
    const { retryAfter, signal } = reading
    const billed = Usage.billedAfterFailure(this, reading.pushback, reading.usage)
    const usage = Usage.afterFailure(this, reading.pushback, reading.usage)
    this.conclude(billed)
    const concluded: Effect.Effect<Budget.Verdict | undefined> =
      reason === undefined
        ? Effect.as(
            Effect.andThen(this.observeLimits(signal), reservation.settle(usage, isDenied ? "denied" : "failure")),
            undefined
          )
        : reservation.fail({ reason, retryAfter, usage, signal })
    return Effect.map(concluded, (verdict) =>
      this.judged({ ...reading, pushback: reason, verdict, isWrongAddress }, type)
    )
  }

  /** What its failure means is known. */
  private judged(failed: Failed, type: string): void {
    const { clock, pool, span } = this
    const { pushback, signal } = failed
    this.failed = failed
    this.failedAt = this.now
    this.limit = pushback === "rateLimit" ? Usage.limitHit(signal, this.estimate) : undefined
    if (pushback === "rateLimit" || pushback === "ramp") this.reportRejection(failed)
    pool.counts.failed(1, type)
    if (span !== undefined) Trace.failed(span, this.attempts, type, this.limit, clock.currentTimeNanosUnsafe())
  }

  private reportRejection({ retryAfter, verdict = "isolated" }: Failed): void {
    const { agent, pool } = this.reservation
    const { attempts: attempt, limit: dimension, now: at } = this
    const until = retryAfter === undefined ? undefined : at + Duration.toMillis(retryAfter)
    const { model } = this.call
    this.parts.observer?.({ type: "rejection", at, pool, agent, model, attempt, verdict, dimension, until })
  }

  /**
   * It is billed for this; undefined for nothing. If that is not known, its purses spend all they reserved. Whatever may throw
   * comes before this, because nothing else ends a call that is settled.
   */
  private conclude(billed: Accounting.Actual | undefined, isKnown = true): void {
    const { now, payment, pool, price } = this
    this.phase = "settled"
    pool.ended()
    pool.counts.dollars += Payment.settle(payment, price, billed, isKnown, now)
  }

  // ---------------------------------------------------------------------------
  // Its end
  // ---------------------------------------------------------------------------

  /** The attempt failed, so that it gives back everything before the call waits. The call's end settles what was interrupted. */
  failWith<E>(cause: Cause.Cause<E>): Effect.Effect<never, E> {
    const failed = Exit.failCause(cause)
    if (Cause.hasInterruptsOnly(cause)) return failed
    const closed = Effect.ensuring(failed, Scope.close(this.scope, failed))
    return Effect.andThen(this.fail(Cause.squash(cause)), closed)
  }

  /** Its attempts are over, and so is the call, unless it goes on in a scope. */
  over(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    if (this.hasBegun) this.tokens.end(this.now)
    if (this.within === undefined || exit._tag === "Failure") return this.end(exit)
    return Scope.addFinalizerExit(this.within, (exit) => this.end(exit) ?? Effect.void)
  }

  /** The one finalizer of a call: gives back what it holds, closes what its attempt opened, and counts it. */
  end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    const { hasBegun, parts, pool, span } = this
    const settled = this.settleOpen()
    pool.counts.ended(
      exit._tag === "Success" ? "success" : Failure.outcomeOf(exit),
      (this.now - this.startedAt) / 1_000
    )
    if (hasBegun) parts.pools.left(pool)
    const traced = span && Trace.ended(span, this, exit)
    const paused = exit._tag === "Failure" ? this.pauseOf(exit) : undefined
    return inOrder(settled, Scope.closeUnsafe(this.scope, exit), paused, traced)
  }

  /** The end of a call that makes its own attempts, which is not counted. */
  leave(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    const settled = this.settleOpen()
    if (this.hasBegun) this.parts.pools.left(this.pool)
    return inOrder(settled, Scope.closeUnsafe(this.scope, exit))
  }

  /**
   * Settles the attempt if nothing else did. For one of unknown outcome, input counts as used, and output as far as it was
   * observed. An unsent one used nothing.
   */
  private settleOpen(): Effect.Effect<void> | undefined {
    const { payment, phase, pool } = this
    if (phase === "settled") return undefined
    if (phase === "waiting") {
      payment?.settle(0, this.now)
      return undefined
    }
    if (phase === "admitted") {
      this.conclude(undefined)
      return this.reservation.refund
    }
    pool.isDenied = false
    const { billed, isKnown, usage } = this.soFar
    this.conclude(billed, isKnown)
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

  /** A provider that asks for more time than any bucket needs is closed for everybody until then. */
  private pauseOf(exit: Exit.Failure<unknown, unknown>): Effect.Effect<void> | undefined {
    const error = Exit.findErrorOption(exit)
    if (error._tag === "None") return undefined
    const { isRetryable, pushback, retryAfter = Duration.zero } = Failure.read(error.value)
    const millis = Duration.toMillis(retryAfter)
    return isRetryable === true && pushback === "rateLimit" && millis > longestRefill && millis < Infinity
      ? this.parts.budget.pause({ reason: pushback, duration: retryAfter, pool: this.pool.name })
      : undefined
  }

  // ---------------------------------------------------------------------------
  // Its errors
  // ---------------------------------------------------------------------------

  /** The final error with the history of the call: its attempts, its waits, and why it stopped. */
  withHistory<E>(error: E, stoppedBy?: LlmError["stoppedBy"]): E {
    if (!(error instanceof LlmError)) return error
    const { attempts, limit } = this
    const waited = this.waited > 0 ? Duration.millis(this.waited) : undefined
    return error.annotate({ attempts, waited, stoppedBy, limit }) as typeof error
  }

  /** The refusal of a call that is larger than the provider's limit: no attempt of it can succeed. */
  tooLarge(error: unknown): Budget.BudgetError | undefined {
    const { estimate, failed, pool } = this
    if (failed?.verdict !== "impossible") return undefined
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
}

/** Runs each of some effects, whatever comes of the ones before it. */
const inOrder = (...effects: ReadonlyArray<Effect.Effect<unknown> | undefined>): Effect.Effect<void> | undefined => {
  let all: Effect.Effect<unknown> | undefined
  for (const next of effects) {
    if (next !== undefined) all = all === undefined ? next : Effect.ensuring(all, next)
  }
  return all as Effect.Effect<void> | undefined
}
