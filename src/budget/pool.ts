/**
 * One pool at work: its meters, the queue of callers, and the calls in flight.
 *
 * Whatever happens (an arrival, a settlement, a cancellation, a verdict, the timer) ends in {@link Pool.drain}, the one
 * loop that lets callers in. It runs in the fiber that causes it and takes no time. One timer sleeps for the head.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import { FairQueue, type Service } from "../admission/fairQueue.ts"
import * as Law from "../admission/law.ts"
import * as Limits from "../Limits.ts"
import {
  BudgetError,
  type BudgetErrorReason,
  EstimateTooLarge,
  QueueFull,
  QuotaExhausted,
  WaitTooLong
} from "./errors.ts"
import type { Counts } from "./metrics.ts"
import type { Reservation } from "./models.ts"
import * as Predict from "./predict.ts"
import { Permits } from "./permits.ts"
import { HeldReservation } from "./reservation.ts"
import { type Queueing, Waiter } from "./waiter.ts"

/** Timers of the runtime reach no further than 24 days: the head looks again every day. */
const longestSleep = 86_400_000
/** A pool that is closed for longer refuses its callers: as long as the default policy tries. */
const longestPause = 600_000
/** A call that takes nothing of any limit still takes its turn. */
const leastCost = 1e-4

export interface Options {
  readonly name: string
  readonly limits: Limits.Limits
  readonly concurrency: number
  readonly maxQueued: number
  readonly counts: Counts
  readonly clock: Clock.Clock
  /** Runs an effect in the budget's scope after so many milliseconds. */
  readonly after: (millis: number, then: Effect.Effect<void>) => void
  /** Called when something changed that a status shows. */
  readonly changed: () => void
}

export class Pool {
  readonly name: string
  readonly maxQueued: number
  private readonly options: Options
  private readonly meters: Ref.Ref<Law.Pool>
  private readonly queue = new FairQueue<Waiter>()
  private permits: Permits | undefined
  private limits: Limits.Limits
  /** How the provider counts, once a client has said so. */
  private counting: Limits.Counting | undefined = undefined
  private rules: Limits.Rules
  private knownLimits = 0
  private wakeAt = Infinity
  private isDraining = false
  private isClosed = false

  constructor(options: Options) {
    this.options = options
    this.name = options.name
    this.maxQueued = options.maxQueued
    this.limits = options.limits
    this.rules = Limits.resolve(options.limits)
    this.meters = Ref.makeUnsafe(Law.make(this.rules, Limits.shares(options.limits), this.now()))
    this.permits = options.concurrency === Infinity ? undefined : new Permits(options.concurrency)
    options.counts.open.add(this)
  }

  /** Milliseconds of the monotonic clock: no step of the wall clock moves them. */
  now(): number {
    return Number(this.options.clock.monotonicTimeNanosUnsafe()) / 1e6
  }
  get law(): Law.Pool {
    return this.meters.ref.current
  }
  get queued(): number {
    return this.queue.size
  }
  get inFlight(): number {
    return this.law.inFlight
  }
  /** The most calls in flight: the concurrency, and less where the provider was found to limit it. */
  get allowed(): number {
    return Math.min(this.permits?.most ?? Infinity, this.law.window.size)
  }

  // ---------------------------------------------------------------------------
  // Arrival
  // ---------------------------------------------------------------------------

  /** Admits an estimate at once, or lets its caller stand in the queue. */
  admit(estimate: Limits.Estimate, how: Queueing): HeldReservation | Waiter | BudgetErrorReason {
    const charge = Limits.wholeOf(estimate)
    const tooLarge = Limits.neverFits(charge, this.rules)
    if (tooLarge !== undefined) return new EstimateTooLarge({ pool: this.name, ...tooLarge })
    const now = this.now()
    if (
      this.queue.size === 0 &&
      !this.isClosed &&
      (this.permits === undefined || this.permits.isFree) &&
      !this.isDraining
    ) {
      const blocked = Law.decide(this.law, charge, now)
      if (blocked === undefined) {
        this.queue.forget()
        return this.hold(how.agent, estimate, Law.take(this.law, charge, now))
      }
    }
    return this.enqueue(estimate, charge, how, now)
  }

  private enqueue(
    estimate: Limits.Estimate,
    charge: Limits.Whole,
    how: Queueing,
    now: number
  ): HeldReservation | Waiter | BudgetErrorReason {
    const refused = this.quotaFor(charge) ?? this.closedFor(now)
    if (refused !== undefined) return refused
    if (how.maxWait < Infinity) {
      const { dimension, millis } = Predict.newcomer(this.law, this.queue, this.slots(), charge, how, now)
      if (millis > how.maxWait) return this.tooLong(dimension, millis, how.maxWait)
    }
    if (this.isClosed) return this.closed(how, estimate, charge, now)
    if (this.queue.size >= this.maxQueued) return new QueueFull({ pool: this.name, maxQueued: this.maxQueued })
    const waiter = new Waiter(how, estimate, charge, this.costOf(charge), now)
    this.queue.push(waiter, how.first)
    this.drain()
    return waiter
  }

  /** A budget that is closed interrupts its callers. */
  private closed(how: Queueing, estimate: Limits.Estimate, charge: Limits.Whole, now: number): Waiter {
    const waiter = new Waiter(how, estimate, charge, leastCost, now)
    waiter.end(Effect.interrupt)
    return waiter
  }

  /** Why a quota no longer holds a charge. */
  private quotaFor(charge: Limits.Whole): QuotaExhausted | undefined {
    for (const dimension of Limits.dimensions) {
      const cap = this.law.caps[dimension]
      const asked = charge[dimension]
      if (cap?.rule.quota !== true || asked <= cap.level * (1 + 1e-9)) continue
      return new QuotaExhausted({ pool: this.name, dimension, asked, left: Math.max(0, cap.level) })
    }
    return undefined
  }

  tooLong(dimension: Limits.Dimension | undefined, millis: number, maxWait: number): WaitTooLong {
    const wait = Duration.millis(Math.ceil(Math.max(millis, maxWait)))
    return new WaitTooLong({ pool: this.name, dimension, wait, maxWait: Duration.millis(maxWait) })
  }

  private costOf(charge: Limits.Whole): number {
    const { meters } = this.law
    let most = Limits.dominantShare(charge, this.rules)
    for (const { dimension, limit } of meters) {
      if (limit < Infinity && limit > 0) most = Math.max(most, charge[dimension] / (limit * 60_000))
    }
    return Math.max(leastCost, most)
  }

  private hold(
    agent: string,
    estimate: Limits.Estimate,
    ticket: Law.Ticket,
    service?: Service,
    waited?: number,
    binding?: Limits.Dimension
  ): HeldReservation {
    this.permits?.take()
    this.options.counts.reservations++
    this.options.changed()
    return new HeldReservation(this, agent, estimate, ticket, service, waited, binding)
  }

  // ---------------------------------------------------------------------------
  // The loop
  // ---------------------------------------------------------------------------

  /** Lets the heads of the queue in for as long as they fit, and sleeps for the first that does not. */
  drain(): void {
    this.options.changed()
    if (this.queue.size === 0 || this.isDraining || this.isClosed) return
    this.isDraining = true
    for (let waiter = this.queue.peek(); waiter !== undefined; waiter = this.queue.peek()) {
      if (this.permits?.isFree === false) break
      const now = this.now()
      const blocked = Law.decide(this.law, waiter.charge, now)
      if (blocked === undefined) this.grant(waiter, now)
      else {
        const exhausted = blocked.millis === Infinity ? this.quotaFor(waiter.charge) : undefined
        if (exhausted === undefined) {
          waiter.binding = blocked.dimension ?? waiter.binding
          this.wakeIn(blocked.millis)
          break
        }
        this.refuse(waiter, exhausted)
      }
    }
    this.isDraining = false
  }

  private grant(waiter: Waiter, now: number): void {
    const service = this.queue.shift()
    const waited = now - waiter.since
    const ticket = Law.take(this.law, waiter.charge, now)
    const reservation = this.hold(waiter.agent, waiter.estimate, ticket, service, waited, waiter.binding)
    if (waiter.isAwaited) this.options.counts.waited(waited / 1_000)
    else this.queue.forget()
    waiter.granted = reservation
    waiter.end(Effect.succeed(reservation))
  }

  /** An earlier timer stays: it looks again, and sleeps on. A later one ends in vain. */
  private wakeIn(millis: number): void {
    const sleep = Math.min(Math.ceil(millis), longestSleep)
    const at = this.now() + sleep
    if (millis === Infinity || at >= this.wakeAt) return
    this.wakeAt = at
    this.options.after(
      sleep,
      Effect.sync(() => {
        if (at !== this.wakeAt) return
        this.wakeAt = Infinity
        this.drain()
      })
    )
  }

  // ---------------------------------------------------------------------------
  // Ends
  // ---------------------------------------------------------------------------

  /** A caller waits no longer: what it was granted meanwhile is given back. */
  cancel(waiter: Waiter): void {
    if (waiter.granted !== undefined) return this.settle(waiter.granted, Limits.nothing, "failure")
    const wasHead = this.queue.peek() === waiter
    this.queue.remove(waiter)
    if (wasHead) this.drain()
    else this.options.changed()
  }

  /** Ends a reservation: what it reserved is replaced by what it used. Only the first end counts. */
  settle(held: HeldReservation, used: Limits.Charge, outcome: "success" | "failure"): void {
    if (!this.close(held)) return
    const now = this.now()
    if (outcome === "success") {
      Law.accept(this.law, held.ticket)
      Law.settle(this.law, held.ticket, used, now)
    } else Law.release(this.law, held.ticket, used, now)
    this.account(held, used, true)
    this.drain()
  }

  /** Ends a reservation of which nothing is known: it is kept as estimated. */
  end(held: HeldReservation, hasSucceeded: boolean): void {
    if (!this.close(held)) return
    if (hasSucceeded) Law.accept(this.law, held.ticket)
    Law.keep(this.law, held.ticket)
    this.drain()
  }

  private close(held: HeldReservation): boolean {
    if (!held.isOpen) return false
    held.isOpen = false
    this.permits?.release()
    return true
  }

  /** Agents share what is used, not what is asked for, and a call that was rejected has not had its turn. */
  private account(held: HeldReservation, used: Limits.Charge, isServed: boolean): void {
    const { charge } = held.ticket
    this.options.counts.settled(charge, used)
    if (held.service === undefined || !isServed) return
    const whole = { ...charge, ...used } as Limits.Whole
    const asked = this.costOf(charge)
    const cost = Limits.dimensions.every((each) => whole[each] === 0) ? 0 : this.costOf(whole)
    if (cost !== asked) this.queue.correct(held.service, cost / asked)
  }

  // ---------------------------------------------------------------------------
  // What the provider says
  // ---------------------------------------------------------------------------

  /** The headers of a response. A response that is no rejection shows that its call was accepted. */
  observe(readings: Law.Readings, held: HeldReservation | undefined): void {
    if (held !== undefined) Law.accept(this.law, held.ticket)
    Law.observe(this.law, held?.ticket, readings, this.now())
    this.repriceOnce()
    this.drain()
  }

  /** Costs are parts of limits: when more limits are known than before, they are others. */
  private repriceOnce(): void {
    let known = 0
    for (const { limit } of this.law.meters) if (limit < Infinity) known++
    if (known === this.knownLimits) return
    this.knownLimits = known
    this.queue.reprice((waiter) => this.costOf(waiter.charge))
  }

  /** The provider rejected a call, or failed. Returns what that says. */
  fail(
    held: HeldReservation,
    failure: {
      readonly reason: "rateLimit" | "ramp" | "overload"
      readonly retryAfter: number | undefined
      readonly readings: Law.Readings | undefined
      readonly used: Limits.Charge
    }
  ): Law.Verdict {
    if (!this.close(held)) return "isolated"
    const { reason, retryAfter, used } = failure
    const now = this.now()
    this.options.counts.cooldowns[reason]++
    const verdict =
      reason === "overload"
        ? Law.overload(this.law, held.ticket, { retryAfter, used }, now)
        : Law.reject(this.law, held.ticket, { ...failure, isRamp: reason === "ramp" }, now)
    this.repriceOnce()
    // A failed probe of an outage has had its turn: another agent's call is the next.
    this.account(held, used, verdict !== "outage")
    this.drain()
    return verdict
  }

  /** Nothing goes out for a time. Where that is long, whoever waits is refused rather than kept. */
  pause(millis: number): void {
    Law.pause(this.law, this.now() + millis)
    const refusal = this.closedFor(this.now())
    if (refusal !== undefined) {
      for (const waiter of this.queue.all()) this.refuse(waiter, refusal)
    }
    this.drain()
  }

  private closedFor(now: number): WaitTooLong | undefined {
    const left = this.law.gate.until - now
    return left > longestPause ? this.tooLong(undefined, left, longestPause) : undefined
  }

  // ---------------------------------------------------------------------------
  // Changes
  // ---------------------------------------------------------------------------

  /** A client says how its provider counts, where the limits do not say it. */
  countAs(counting: Limits.Counting): void {
    if (counting === this.counting) return
    this.counting = counting
    this.apply()
  }

  resize(limits: Limits.Limits | undefined, concurrency: number | undefined): void {
    if (concurrency === Infinity) this.permits = undefined
    else if (concurrency !== undefined) this.limitTo(concurrency)
    if (limits !== undefined) {
      this.limits = limits
      this.apply()
    }
    this.drain()
  }

  private limitTo(concurrency: number): void {
    if (this.permits !== undefined) return this.permits.resize(concurrency)
    this.permits = new Permits(Math.max(concurrency, this.inFlight))
    for (let i = 0; i < this.inFlight; i++) this.permits.take()
    this.permits.resize(concurrency)
  }

  private apply(): void {
    this.rules = Limits.resolve(this.limits, this.counting)
    Law.resize(this.law, this.rules, Limits.shares(this.limits), this.now())
    this.queue.reprice((waiter) => this.costOf(waiter.charge))
    for (const waiter of this.queue.all()) {
      const tooLarge = Limits.neverFits(waiter.charge, this.rules)
      if (tooLarge !== undefined) this.refuse(waiter, new EstimateTooLarge({ pool: this.name, ...tooLarge }))
    }
  }

  private refuse(waiter: Waiter, reason: BudgetErrorReason): void {
    this.queue.remove(waiter)
    waiter.end(Effect.fail(new BudgetError({ reason })))
  }

  /** The part of a charge that is limited. */
  limited(charge: Limits.Whole): Limits.Charge {
    return Limits.mapDimensions(charge, (amount, dimension) =>
      this.law.caps[dimension] !== undefined ||
      this.law.meters.some((each) => each.dimension === dimension && each.limit < Infinity)
        ? amount
        : undefined
    )
  }

  shutDown(): void {
    this.isClosed = true
    this.options.counts.open.delete(this)
    for (const waiter of this.queue.all()) {
      this.queue.remove(waiter)
      waiter.end(Effect.interrupt)
    }
  }

  // ---------------------------------------------------------------------------
  // Status
  // ---------------------------------------------------------------------------

  slots(): Predict.Slots {
    return { most: this.allowed, inFlight: this.inFlight, answerMillis: this.law.answerMillis }
  }

  /** The first waiters in the order of service, and how long each still waits. */
  waiting(count: number): ReadonlyArray<Predict.Expected> {
    return Predict.first(this.law, this.queue.first(count), this.slots(), this.now())
  }
}

export const heldOf = (reservation: Reservation | undefined): HeldReservation | undefined =>
  reservation instanceof HeldReservation ? reservation : undefined
