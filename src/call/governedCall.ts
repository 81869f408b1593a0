/** One governed call at one of its attempts: what it holds, its history, and its end. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import type * as Accounting from "../Accounting.ts"
import * as Budget from "../Budget.ts"
import { Entry } from "../budget/entry.ts"
import * as Reservation from "../budget/reservation.ts"
import { harmless } from "../domain/input/callbacks.ts"
import { millisOf } from "../domain/input/checks.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import { LlmError } from "../LlmError.ts"
import type * as Prices from "../Prices.ts"
import { RetryBudget, type RetryTokens, tokensOf } from "./retryBudget.ts"
import { Deadline } from "./retryPolicy.ts"
import type { Placement } from "../places/placement.ts"
import { perDollar } from "../domain/spending/ledger.ts"
import { type Purse, Purses } from "../domain/spending/models.ts"
import * as Failure from "./failure.ts"
import { type Call, type CallOptions, type FailureReport, isTraced, type ResponseInfo, type Ticket } from "./models.ts"
import type { GovernorParts } from "./parts.ts"
import type { Payment } from "./payment.ts"
import { callAt, placementOf, remember, type Reserving } from "./place.ts"
import type { PoolRecord } from "./pool.ts"
import * as Trace from "./trace.ts"
import * as Turns from "./turns.ts"
import * as Usage from "./usage.ts"

/** A failed attempt, with what the budget concludes from it. */
interface JudgedFailure extends FailureReport {
  readonly verdict: Budget.Verdict | undefined
  readonly isWrongAddress: boolean
}

/** The state of an attempt: without a reservation, with one, with its request sent, settled. */
type Phase = "waiting" | "admitted" | "sent" | "settled"

/** After this many exhaustions in a row, a call lets the others of its agent go first. */
const maxExhaustions = 2

/** The usage that an adapter reports. Some services report `null`. */
const usageOf = (given: Accounting.Actual | undefined): Accounting.Actual | undefined =>
  Predicate.isObject(given) ? given : undefined

/**
 * A call with one of its attempts. Each further attempt has a copy of its own, so that code that still runs after the end of
 * one attempt cannot change the next. It does not refer to the request, because a stream keeps the call in memory.
 */
export class GovernedCall implements Ticket, Usage.HeldCall {
  readonly parts: GovernorParts
  /** The call as it was described. */
  original: Call
  /** The call as the place of its last attempt has it. */
  request: Call
  readonly options: CallOptions
  pool: PoolRecord
  readonly clock: Clock.Clock
  accounting: Accounting.Accounting
  /** The places where it can be made; undefined if there is only one. */
  readonly placement: Placement | undefined
  /** The fairness key in the queue. */
  readonly agent: string
  readonly purses: ReadonlyArray<Purse>
  /** The longest wait of an attempt, in milliseconds. */
  readonly maxWait: number
  /** The time after which no attempt begins, in milliseconds of the clock. */
  readonly deadline: number
  readonly startedAt: number
  /** The retry budget of the caller if it has one, otherwise that of the governor or of the process. */
  readonly tokens: RetryTokens
  /** The scope that ends a call which outlives its effect. */
  within: Scope.Scope | undefined
  readonly isTraced: boolean
  span: Tracer.Span | undefined = undefined
  /** Whether the call is counted in its pool. */
  private hasBegun = false
  /** Whether it is counted in its retry budget, because an attempt may follow. */
  private isTrying = false
  /** The number of attempts that were sent. */
  attempts = 0
  /** Milliseconds in the queue. */
  queued = 0
  /** Milliseconds between the attempts. */
  waited = 0
  /** The tokens of its prompt, if they were counted. */
  counted: number | undefined = undefined
  /** The limit that the last rejection hit. */
  private limit: Limits.Dimension | undefined = undefined
  /** The error of the last attempt. */
  failure: unknown = undefined
  private failedAt = 0
  private sentAt = 0
  /** What its answer has said of its prompt. */
  private turn = new Turns.BegunTurn()

  // The attempt

  private phase: Phase = "waiting"
  private opened: Scope.Closeable | undefined = undefined
  /** When the attempt began to wait. */
  from = 0
  /** When its wait ends, by `maxWait` or by `last`. */
  until = Infinity
  /** The time after which it must not be sent, by the deadline or the retry policy. */
  last = Infinity
  /** Whether it is queued before the other calls of its agent. */
  isFirst = false
  /** The number of attempts in a row that met an empty bucket. */
  private exhaustions = 0
  known!: Usage.KnownCall
  estimate: Limits.Estimate = {}
  price: Prices.Price | undefined = undefined
  payment: Payment | undefined = undefined
  /** The call in the queue of its pool; undefined if it waits in several queues, or if another layer reserves for it. */
  entry: Entry | undefined = undefined
  /** What is left to do until it is admitted, if it was begun outside of Effect. */
  remaining: Effect.Effect<unknown, LlmError | Budget.BudgetError> | undefined = undefined
  /** The reservation that a layer or one of several places has made for it, or that the call has handed out. */
  given: Budget.Reservation | undefined = undefined
  observed: Accounting.Actual | undefined = undefined
  /** The model that has answered. */
  private answeredBy: string | undefined = undefined
  failed: JudgedFailure | undefined = undefined

  constructor(
    parts: GovernorParts,
    call: Call,
    options: CallOptions,
    context: Context.Context<never>,
    within: Scope.Scope | undefined
  ) {
    const { agent = Context.get(context, Budget.Agent), maxWait, purses } = options
    const around = Context.get(context, Purses)
    this.parts = parts
    this.original = call
    this.options = options
    this.clock = Context.get(context, Clock.Clock)
    this.placement = call.places && placementOf(call.places, call, options, parts.memory)
    const only = this.placement?.only
    this.request = only === undefined ? call : callAt(call, only)
    this.accounting = this.request.accounting ?? parts.accounting
    this.pool = parts.pools.of(parts.budget, this.accounting, this.request)
    this.agent = agent
    this.purses = purses === undefined ? around : [...around, ...purses]
    this.maxWait = maxWait === undefined ? Infinity : millisOf(maxWait)
    this.deadline = Context.get(context, Deadline) ?? Infinity
    this.startedAt = this.clock.currentTimeMillisUnsafe()
    this.tokens = tokensOf(Context.get(context, RetryBudget) ?? parts.retryBudget, this.clock)
    this.within = within
    this.isTraced = isTraced(context)
  }

  get now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  /** Holds what the attempt opened, and a reservation that a layer or one of several places has made for it. */
  get scope(): Scope.Closeable {
    return (this.opened ??= Scope.makeUnsafe())
  }

  get reservation(): Budget.Reservation {
    return (this.given ??= Reservation.handOut(this.entry!))
  }

  /** Whether its request is under way. */
  get isSent(): boolean {
    return this.phase === "sent"
  }

  /** Whether the deadline bounds the wait, and not the call's `maxWait`. */
  get isBoundByDeadline(): boolean {
    return this.last - this.from < this.maxWait
  }

  // ---------------------------------------------------------------------------
  // Attempts
  // ---------------------------------------------------------------------------

  /** Begins the next attempt, which must not be sent after `last`. The first attempt counts the call. */
  next(last: number, tokens?: RetryTokens): GovernedCall {
    const { failed, now } = this
    if (!this.hasBegun) {
      this.hasBegun = true
      this.pool.users++
      this.isTrying = tokens !== undefined
      tokens?.begin(now)
    }
    const call = failed === undefined ? this : this.again(failed)
    call.from = now
    call.last = last
    call.until = Math.min(last, now + this.maxWait)
    return call
  }

  /** A copy for another attempt. */
  private again(failed: JudgedFailure): GovernedCall {
    const call: GovernedCall = Object.assign(Object.create(GovernedCall.prototype), this)
    call.waited += this.now - this.failedAt
    call.phase = "waiting"
    call.opened = call.entry = call.remaining = call.given = undefined
    call.exhaustions = failed.verdict === "exhausted" ? this.exhaustions + 1 : 0
    // A rejected call is queued before the others of its agent. After an outage it is not: the call may have caused the failure.
    // Nor is it after repeated exhaustions: another call may be smaller, and fit into what the bucket has.
    call.isFirst = failed.verdict !== "outage" && call.exhaustions < maxExhaustions
    call.payment = call.observed = call.failed = undefined
    call.turn = new Turns.BegunTurn()
    return call
  }

  /** Continues at a place. */
  moveTo({ accounting, known, pool, price, request }: Reserving): void {
    pool.users++
    this.parts.pools.released(this.pool)
    this.request = request
    this.pool = pool
    this.accounting = accounting
    this.known = known
    this.price = price
    if (this.span !== undefined) Trace.placed(this.span, this.place!, pool.name)
  }

  /** The name of the place of the attempt. */
  get place(): string | undefined {
    const { placement } = this
    return placement?.current === undefined ? undefined : placement.places[placement.current]!.name
  }

  /** Notes that the attempt was admitted, by its entry in the queue or with a reservation that a layer has made. */
  admit(held: Entry | Budget.Reservation): void {
    const { pool, span } = this
    const { estimate } = held
    // A reservation or a tracer may throw, so both are read before anything is counted.
    const millis = held instanceof Entry ? held.waitedMillis : Duration.toMillis(held.waited)
    if (span !== undefined) Trace.admitted(span, held)
    if (held instanceof Entry) held.begin()
    else this.given = held
    this.estimate = estimate
    // The effect that counts a prompt keeps it in memory, and reading the answer may take long.
    if (this.request.countTokens !== undefined) this.request = { ...this.request, countTokens: undefined }
    if (this.original.countTokens !== undefined) this.original = { ...this.original, countTokens: undefined }
    this.phase = "admitted"
    this.limit = undefined
    this.queued += millis
    pool.began()
    pool.counts.queued(millis / 1_000)
  }

  /** Notes that the request is about to be sent. */
  send(): void {
    this.phase = "sent"
    this.attempts++
    this.sentAt = this.now
    if (this.placement !== undefined) this.parts.memory.sent(this.pool.name, this.sentAt)
    this.pool.counts.attempts++
  }

  // ---------------------------------------------------------------------------
  // The ticket
  // ---------------------------------------------------------------------------

  // Getters of functions, because callers may destructure a ticket.

  get observeLimits(): Ticket["observeLimits"] {
    return (signal) => later(() => this.observe(signal))
  }

  get recordUsage(): Ticket["recordUsage"] {
    return (actual) => {
      this.observed = this.parts.plausible.ofAnswer(this, usageOf(actual))
      const news = this.turn.news(this, this.observed, this.sentAt)
      if (news === undefined || this.phase !== "sent") return
      if (this.entry !== undefined) Reservation.observe(this.entry, news)
      else this.parts.fork(this.reservation.observe(news))
    }
  }

  get succeed(): Ticket["succeed"] {
    return (actual, response) => later(() => this.settle(actual, response))
  }

  get fail(): Ticket["fail"] {
    return (error) => later(() => this.settleFailed(error))
  }

  get annotate(): Ticket["annotate"] {
    return (error) => this.withHistory(error)
  }

  // ---------------------------------------------------------------------------
  // Settlement
  // ---------------------------------------------------------------------------

  // Each of these does synchronously what needs no Effect, and returns the rest as an effect. There is no rest unless another
  // layer has replaced a part of the governor.

  /** Learns what the headers of the response say about the limits. */
  observe(signal: Limits.Signal | undefined): Effect.Effect<void> | undefined {
    if (signal === undefined) return undefined
    this.observeWindows(signal)
    return this.entry === undefined ? this.reservation.observe(signal) : Reservation.observe(this.entry, signal)
  }

  private observeWindows(signal: Limits.Signal): void {
    if (signal.windows !== undefined) this.parts.windows.observe(this.request.account, signal, this.payment?.window)
  }

  /** Settles an attempt that was answered, and learns from it. */
  settle(
    given: Accounting.Actual | undefined,
    response: ResponseInfo = {},
    signal?: Limits.Signal
  ): Effect.Effect<void> | undefined {
    if (this.phase === "settled") return this.observe(signal)
    const actual = this.parts.plausible.ofAnswer(this, usageOf(given))
    const { parts, pool, span } = this
    pool.hasAnswered = true
    pool.isDenied = false
    this.answeredBy = response.model
    if (parts.windows.spendLimits.size > 0) parts.windows.succeeded(this.request.account)
    if (span !== undefined) Trace.succeeded(span, actual, response)
    const billed = actual === undefined ? Usage.expected(this) : Usage.billed(this, actual)
    const usage = actual === undefined ? {} : Usage.counted(this, actual)
    if (this.placement !== undefined) remember(this, this.now - this.sentAt, actual, response.continuation)
    const input = { predicted: Usage.promptOf(this), used: usage.inputTokens }
    this.turn.began(this, actual, this.sentAt)
    this.conclude(billed, actual !== undefined)
    if (actual === undefined) return this.settleTo(usage, signal)
    pool.used(this.request, response.model, actual, input)
    const { continuation, finishReason } = response
    parts.conversations.remember(this.known, continuation, actual, this.now)
    const learning = Usage.learning(this.known, actual, finishReason)
    // Waiting calls are decided on when this one is settled, and should benefit from what it teaches.
    parts.learns?.learn(learning, actual)
    const settled = this.settleTo(usage, signal)
    if (parts.learns !== undefined) return settled
    const learnt = Effect.suspend(() => parts.estimator.learn(learning, actual))
    return settled === undefined ? learnt : Effect.andThen(settled, learnt)
  }

  /** Settles an attempt that failed, and lets the budget judge a pushback. */
  settleFailed(error: unknown): Effect.Effect<void> | undefined {
    if (this.phase === "settled") return undefined
    const { pool } = this
    const facts = this.parts.plausible.ofError(this, Failure.read(error))
    const type = Failure.errorType(error)
    const isDenied = type === "AccessDenied"
    pool.isDenied = isDenied && pool.isDenied !== false
    const isWrongAddress = pool.isWrongAddress(Failure.reach(error), this.now)
    const reason = isWrongAddress ? undefined : facts.pushback
    const billed = Usage.billedAfterFailure(this, facts.pushback, facts.usage)
    const usage = Usage.afterFailure(this, facts.pushback, facts.usage)
    this.conclude(billed)
    const { retryAfter, signal } = facts
    this.parts.windows.failed(this.request.account, Failure.resumesAt(error))
    const judged = (verdict: Budget.Verdict | undefined): undefined =>
      this.judged({ ...facts, pushback: reason, verdict, isWrongAddress }, type)
    if (reason !== undefined) {
      if (signal !== undefined) this.observeWindows(signal)
      const failure = { reason, retryAfter, usage, signal }
      return this.entry === undefined
        ? Effect.map(this.reservation.fail(failure), judged)
        : judged(Reservation.ending(this.entry, (entry) => Reservation.fail(entry, failure)))
    }
    const ended = this.settleTo(usage, signal, isDenied ? "denied" : "failure")
    return ended === undefined ? judged(undefined) : Effect.map(ended, () => judged(undefined))
  }

  /** Replaces the estimate by a usage, once the budget has learned what the headers say. */
  private settleTo(
    usage: Limits.Usage,
    signal?: Limits.Signal,
    outcome?: "failure" | "denied"
  ): Effect.Effect<void> | undefined {
    if (signal !== undefined) this.observeWindows(signal)
    if (this.entry !== undefined) {
      return void Reservation.ending(this.entry, (entry) => Reservation.settle(entry, usage, outcome, signal))
    }
    const { reservation } = this
    if (signal === undefined) return reservation.settle(usage, outcome)
    if (outcome === undefined) return reservation.observe({ ...signal, usage })
    return Effect.andThen(reservation.observe(signal), reservation.settle(usage, outcome))
  }

  /** Notes a failed attempt and its verdict. */
  private judged(failed: JudgedFailure, type: string): undefined {
    const { clock, pool, span } = this
    const { pushback, signal } = failed
    this.failed = failed
    this.failedAt = this.now
    if (this.placement !== undefined) this.parts.memory.failed(pool.name, this.failedAt - this.sentAt)
    this.limit = pushback === "rateLimit" ? Usage.limitHit(signal, this.estimate) : undefined
    if (pushback === "rateLimit" || pushback === "ramp") this.reportRejection(failed)
    pool.counts.failed(1, type)
    if (span !== undefined) Trace.failed(span, this.attempts, type, this.limit, clock.currentTimeNanosUnsafe())
  }

  private reportRejection({ retryAfter, verdict = "isolated" }: JudgedFailure): void {
    const { agent, pool } = this.reservation
    const { attempts: attempt, limit: dimension, now: at } = this
    const until = retryAfter === undefined ? undefined : at + Duration.toMillis(retryAfter)
    const { model } = this.request
    this.parts.observer?.({ type: "rejection", at, pool, agent, model, attempt, verdict, dimension, until })
  }

  /**
   * Ends the attempt, and bills it; undefined if it costs nothing. If its usage is not known, its purses spend all that they
   * reserved. Whatever may throw must run before this, because nothing settles an attempt twice.
   */
  private conclude(billed: Accounting.Actual | undefined, isKnown = true): void {
    const { payment, pool, price } = this
    this.phase = "settled"
    pool.ended()
    const cost = price === undefined || billed === undefined ? 0 : Usage.costOf(price, billed)
    payment?.settle(isKnown ? cost : undefined)
    pool.counts.dollars += cost / perDollar
    if (billed !== undefined) this.report(billed, price && cost / perDollar)
  }

  // ---------------------------------------------------------------------------
  // The end
  // ---------------------------------------------------------------------------

  /**
   * Releases everything that a failed attempt holds, before the call waits. An interrupted one is settled by the end of the
   * call.
   */
  failWith<E>(cause: Cause.Cause<E>): Effect.Effect<never, E> {
    const failed = Exit.failCause(cause)
    if (Cause.hasInterruptsOnly(cause)) return failed
    const judged = this.settleFailed(Cause.squash(cause))
    const closed = this.opened === undefined ? failed : Effect.ensuring(failed, Scope.close(this.opened, failed))
    return judged === undefined ? closed : Effect.andThen(judged, closed)
  }

  /** No attempt follows: the last one has ended, or its answer has begun. */
  stopTrying(): void {
    if (this.isTrying) this.tokens.end(this.now)
    this.isTrying = false
  }

  /** Ends the call after its last attempt, or leaves that to the scope in which the call continues. */
  over(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    this.stopTrying()
    if (this.within === undefined || exit._tag === "Failure") return this.end(exit)
    return Scope.addFinalizerExit(this.within, (exit) => this.end(exit) ?? Effect.void)
  }

  /** The finalizer of a call: gives back what it holds, and counts it. */
  end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> | undefined {
    const { pool, span } = this
    this.stopTrying()
    const released = this.leave(exit, true)
    const traced = span && Trace.ended(span, this, exit)
    const pause = exit._tag === "Failure" ? Failure.pauseOf(exit) : undefined
    const paused = pause && this.parts.budget.pause({ ...pause, pool: pool.name })
    return inOrder(released, paused, traced)
  }

  /**
   * Gives back what the call holds, and closes what its attempt opened. It is the finalizer of a single admission, whose end is not
   * counted, because its caller makes the attempts.
   */
  leave(exit: Exit.Exit<unknown, unknown>, isCounted = false): Effect.Effect<void> | undefined {
    const { hasBegun, parts, pool } = this
    if (this.phase === "waiting") this.entry?.leave(exit)
    if (isCounted) {
      const end = exit._tag === "Success" ? Failure.none : Failure.endOf(exit)
      pool.over(this.request, this.answeredBy, (this.now - this.startedAt) / 1_000, end)
    }
    const settled = this.settleOpen()
    if (hasBegun) parts.pools.released(pool)
    return inOrder(settled, this.opened && Scope.closeUnsafe(this.opened, exit))
  }

  /**
   * Settles an attempt that was interrupted. An unsent one has used nothing. For a sent one, the input counts as used, and the output
   * as far as it was observed.
   */
  private settleOpen(): Effect.Effect<void> | undefined {
    const { given, payment, phase, pool } = this
    if (phase === "settled") return undefined
    if (phase === "waiting") {
      payment?.settle(0)
      return given?.refund
    }
    if (phase === "admitted") {
      this.conclude(undefined)
      return this.entry === undefined ? this.reservation.refund : this.settleTo(Amounts.nothing, undefined, "failure")
    }
    pool.isDenied = false
    const { billed, isKnown, usage } = this.soFar
    this.conclude(billed, isKnown)
    return this.settleTo(usage, undefined, "failure")
  }

  /** The usage so far. It is unknown if the caller's accounting throws, and then all that was reserved counts. */
  private get soFar(): { billed: Accounting.Actual | undefined; isKnown: boolean; usage: Limits.Usage } {
    try {
      return { billed: Usage.billed(this), isKnown: true, usage: Usage.counted(this) }
    } catch {
      return { billed: undefined, isKnown: false, usage: {} }
    }
  }

  /** Reports what the attempt costs to the caller, whose code may throw. */
  private report(actual: Accounting.Actual, dollars: number | undefined): void {
    const { onBilled } = this.options
    if (onBilled !== undefined) harmless(onBilled)({ model: this.request.model, actual, dollars })
  }

  // ---------------------------------------------------------------------------
  // Errors
  // ---------------------------------------------------------------------------

  /**
   * Adds the history of the call to its error: the attempts, how long it waited in all, and why it stopped. With `isOver`, the wait that
   * ends now counts.
   */
  withHistory<E>(error: E, stoppedBy?: LlmError["stoppedBy"], isOver = false): E {
    if (!(error instanceof LlmError)) return error
    const { attempts, failedAt, from, limit, now, phase } = this
    const millis = this.waited + this.queued + (isOver ? now - (phase === "waiting" ? from : failedAt) : 0)
    const waited = millis > 0 ? Duration.millis(millis) : undefined
    return error.annotate({ attempts, waited, stoppedBy, limit }) as typeof error
  }
}

/** What is left of a step, as an effect. */
const later = (step: () => Effect.Effect<void> | undefined): Effect.Effect<void> =>
  Effect.suspend(() => step() ?? Effect.void)

/** Runs effects one after another. Each runs even if one before it fails. */
export const inOrder = (
  ...effects: ReadonlyArray<Effect.Effect<unknown> | undefined>
): Effect.Effect<void> | undefined => {
  let all: Effect.Effect<unknown> | undefined
  for (const next of effects) {
    if (next !== undefined) all = all === undefined ? next : Effect.ensuring(all, next)
  }
  return all as Effect.Effect<void> | undefined
}
