/**
 * One pool at work: its meters, the queue of callers, and the calls in flight.
 *
 * Whatever happens (an arrival, a settlement, a cancellation, a verdict, the timer) ends in {@link Pool.drain}, which lets
 * callers in by one loop. It runs in the fiber that causes it and takes no time. One timer sleeps for the head. Where
 * processes share the pool, the same loop is played on the state that they share, by {@link Exchange}.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import { FairQueue, type Service } from "../admission/fairQueue.ts"
import * as Law from "../admission/law.ts"
import * as Memory from "../admission/memory.ts"
import type { Event } from "../Events.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import * as Rules from "../limits/rules.ts"
import type { Pushback } from "../limits/signal.ts"
import {
  BudgetError,
  type BudgetErrorReason,
  EstimateTooLarge,
  QueueFull,
  QuotaExhausted,
  StoreUnavailable,
  WaitTooLong
} from "./errors.ts"
import type { Sharing } from "../budgetStore/sharing.ts"
import type { Exchange } from "../budgetStore/exchange.ts"
import type { Front, Host, Outcome, Plan } from "../budgetStore/host.ts"
import type { Config } from "../budgetStore/state.ts"
import type { Counts } from "./metrics.ts"
import * as Predict from "./predict.ts"
import { Permits } from "./permits.ts"
import type { Foreseen } from "./models.ts"
import { HeldReservation } from "./reservation.ts"
import type { Rested } from "./rested.ts"
import { type Answer, type Queueing, Waiter } from "./waiter.ts"
import type { Wake } from "./waker.ts"

/** A pool that is closed for longer refuses its callers: as long as the default policy tries. */
const longestPause = 600_000
/** The waits of so many callers are foreseen again, and no more often than this. */
const mostForeseen = 1_000
const foreseeMillis = 1_000
/** The other processes use all places. */
const noPlace: Law.Blocked = { millis: Infinity, dimension: undefined }
/** The dimensions in which an estimate may be wrong. */
const tokens = ["inputTokens", "outputTokens", "tokens"] as const
/** The least cost, so that a call without a charge still advances fairness. */
const leastCost = 1e-4

export interface Options {
  readonly name: string
  /** Its name without an account: pools of one kind have the same limits. */
  readonly kind: string
  readonly limits: Limits.Limits
  readonly concurrency: number
  readonly maxQueued: number
  readonly counts: Counts
  readonly clock: Clock.Clock
  /** The store that processes share; undefined where the pool is this process's own. */
  readonly sharing: Sharing | undefined
  /** The unique name of this process in the shared state. */
  readonly id: string
  /** Runs an effect in the budget's scope after so many milliseconds, unless the result is called before. */
  readonly after: (millis: number, then: Effect.Effect<void>) => () => void
  /** Resumes a caller in a later task. */
  readonly wake: Wake
  /** Called when something changed that a status shows. */
  readonly changed: () => void
  /** Receives each event, if there is an observer. */
  readonly observer: ((event: Event) => void) | undefined
  /** What is remembered of an earlier pool of its name. A store knows more. */
  readonly rested?: Rested | undefined
  /** Called when the provider has refused the credential of a call, and of each one before. */
  readonly denied?: ((pool: Pool) => void) | undefined
  /** Called when no call runs or waits any more. */
  readonly idled?: (() => void) | undefined
}

export class Pool implements Host<Waiter> {
  readonly name: string
  readonly kind: string
  readonly maxQueued: number
  readonly clock: Clock.Clock
  private readonly options: Options
  private readonly meters: Ref.Ref<Law.Pool>
  private readonly queue = new FairQueue<Waiter>()
  private readonly exchange: Exchange<Waiter> | undefined
  private permits: Permits | undefined
  private limits: Limits.Limits
  /** How the provider counts, once a client has said so. */
  private counting: Rules.Counting | undefined = undefined
  private rules: Rules.Rules
  /** The reservations that are open in this process. */
  private readonly held = new Set<Law.Ticket>()
  private knownLimits = 0
  private timer: { readonly at: number; readonly cancel: () => void } | undefined = undefined
  /** How long the first callers wait, as it was foreseen, and the others at least. */
  private foreseen:
    | { readonly at: number; readonly waits: WeakMap<Waiter, number>; readonly beyond: number }
    | undefined = undefined
  /** Whether the user has given it limits of its own. */
  private isResized = false
  /** Whether something else was heard of it than that its credential is refused. */
  private isProven = false

  constructor(options: Options) {
    this.options = options
    this.name = options.name
    this.clock = options.clock
    this.kind = options.kind
    this.maxQueued = options.maxQueued
    this.limits = options.limits
    this.counting = options.rested?.counting
    this.rules = Rules.resolve(options.limits, this.counting)
    this.meters = Ref.makeUnsafe(Law.make(this.rules, Rules.shares(options.limits), this.now()))
    this.limitTo(options.concurrency)
    const { rested, sharing } = options
    if (rested !== undefined && sharing === undefined) {
      Memory.resume(this.meters.ref.current, rested.rest, this.clockNow())
    }
    this.exchange = options.sharing?.open(this, options.id)
    options.counts.open.add(this)
  }

  get after(): Options["after"] {
    return this.options.after
  }
  /** Milliseconds of the monotonic clock: no step of the wall clock moves them. */
  private clockNow(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1e6
  }
  /** The same as the law counts them, which is as the processes do that share the pool. */
  now(): number {
    return this.exchange?.now() ?? this.clockNow()
  }
  get law(): Law.Pool {
    return this.exchange?.law ?? this.meters.ref.current
  }
  /** The law that decides at once; undefined where processes decide together. */
  private get own(): { readonly law: Law.Pool; readonly most: number } | undefined {
    return this.exchange === undefined ? { law: this.meters.ref.current, most: Infinity } : this.exchange.own
  }
  /** What it has learned up to now; undefined where that is nothing. */
  get learned(): Memory.Memory | undefined {
    return Memory.recall(this.law, this.now())
  }
  get config(): Config {
    return { rules: this.rules, shares: Rules.shares(this.limits), concurrency: this.permits?.most ?? Infinity }
  }
  get queued(): number {
    return this.queue.size
  }
  get inFlight(): number {
    return this.law.inFlight
  }
  /** The most calls in flight: the concurrency, and less where the provider was found to limit it. */
  get allowed(): number {
    return Math.min(this.places, this.law.window.size)
  }
  private get places(): number {
    return Math.min(this.permits?.most ?? Infinity, this.exchange?.most ?? Infinity)
  }

  // ---------------------------------------------------------------------------
  // Arrival
  // ---------------------------------------------------------------------------

  /** Admits an estimate at once, or lets its caller stand in the queue. */
  admit(
    estimate: Limits.Estimate,
    how: Queueing,
    counting?: Rules.Counting | undefined
  ): HeldReservation | Waiter | BudgetErrorReason {
    if (counting !== undefined && counting !== this.counting) this.countAs(counting)
    const charge = Amounts.wholeOf(estimate)
    const tooLarge = this.tooLarge(charge)
    if (tooLarge !== undefined) {
      // Others may have raised the limit: later callers go by that.
      this.exchange?.look()
      return tooLarge
    }
    if (this.queue.size === 0 && this.exchange === undefined && this.hasPlace) {
      const law = this.meters.ref.current
      const now = this.clockNow()
      if (Law.decide(law, charge, now) === undefined) {
        this.queue.forget()
        return this.hold(how.agent, estimate, Law.take(law, charge, now))
      }
    }
    return this.enqueue(estimate, charge, how)
  }

  private get hasPlace(): boolean {
    return this.permits === undefined || this.permits.free > 0
  }

  private enqueue(
    estimate: Limits.Estimate,
    charge: Amounts.Whole,
    how: Queueing
  ): HeldReservation | Waiter | BudgetErrorReason {
    const isForeseen = how.maxWait < Infinity || this.options.observer !== undefined
    const foreseen = isForeseen ? Predict.newcomer(this.scene, this.queue, charge, how) : undefined
    const refused = this.refusalOf(charge, how, foreseen)
    if (refused !== undefined) return refused
    const waiter = new Waiter(how, estimate, charge, this.costOf(charge), this.clockNow())
    this.queue.push(waiter, how.first)
    this.drain()
    if (foreseen !== undefined) this.reportWait(waiter, foreseen)
    return waiter
  }

  /** When a caller would start, and why it would be refused. Nothing changes. */
  foresee(estimate: Limits.Estimate, how: Queueing, counting = this.counting): Foreseen {
    const charge = Amounts.wholeOf(estimate, "Budget.foresee")
    const { scene } = this
    let { rules } = this
    if (counting !== this.counting && this.exchange === undefined) {
      rules = Rules.resolve(this.limits, counting)
      scene.law = Law.copy(scene.law)
      Law.resize(scene.law, rules, Rules.shares(this.limits), scene.now)
    }
    const tooLarge = this.tooLarge(charge, rules)
    const foreseen = tooLarge === undefined ? Predict.newcomer(scene, this.queue, charge, how) : undefined
    const { isLowerBound = false, millis = Infinity, obstacle } = foreseen ?? {}
    const exhausted = foreseen?.exhausted && this.quotaFor(foreseen.exhausted, charge)
    const isAtOnce = millis === 0 && exhausted === undefined && this.queue.size === 0 && this.exchange === undefined
    const refusal = tooLarge ?? (isAtOnce ? undefined : this.refusalOf(charge, how, foreseen)) ?? exhausted
    return {
      pool: this.name,
      wait: Duration.millis(exhausted === undefined ? millis : Infinity),
      binding: tooLarge?.dimension ?? exhausted?.dimension ?? obstacle,
      refusal,
      isLowerBound: isLowerBound || this.exchange !== undefined
    }
  }

  private tooLarge(charge: Amounts.Whole, rules = this.rules): EstimateTooLarge | undefined {
    const misfit = Amounts.neverFits(charge, rules)
    return misfit === undefined ? undefined : new EstimateTooLarge({ pool: this.name, ...misfit })
  }

  /** Why a caller is refused that does not go at once. */
  private refusalOf(
    charge: Amounts.Whole,
    { maxWait }: Queueing,
    foreseen: Predict.Foreseen | undefined
  ): BudgetErrorReason | undefined {
    // Others may have given back since: only the store knows.
    const refused =
      (this.exchange === undefined ? this.quotaFor(this.law, charge) : undefined) ?? this.closedFor(this.now())
    if (refused !== undefined) return refused
    if (foreseen !== undefined && foreseen.millis > maxWait) {
      return this.tooLong(Predict.dimensionOf(foreseen.obstacle), foreseen.millis, maxWait)
    }
    return this.queue.size < this.maxQueued ? undefined : new QueueFull({ pool: this.name, maxQueued: this.maxQueued })
  }

  /** A caller that is foreseen to wait longer than it may is refused before its time is over. */
  review(waiter: Waiter): void {
    if (waiter.flow === undefined) return
    const left = waiter.maxWait - this.waitedBy(waiter)
    const millis = this.leftOf(waiter)
    if (millis <= left) return
    this.refuse(waiter, this.tooLong(waiter.binding, millis, waiter.maxWait))
    this.drain()
  }

  /** How long a caller still waits, or at least so long; looked up for all of them together. */
  private leftOf(waiter: Waiter): number {
    const now = this.clockNow()
    if (this.foreseen === undefined || now - this.foreseen.at >= foreseeMillis) {
      const found = this.waiting(mostForeseen)
      const waits = new WeakMap(found.map(({ expectedMillis, waiter }) => [waiter, expectedMillis]))
      this.foreseen = { at: now, waits, beyond: found.at(-1)?.expectedMillis ?? 0 }
    }
    return this.foreseen.waits.get(waiter) ?? this.foreseen.beyond
  }

  private reportWait({ agent, binding, granted }: Waiter, { millis, obstacle }: Predict.Foreseen): void {
    const { observer } = this.options
    // With a store all wait for its answer, and only some for more.
    if (observer === undefined || granted !== undefined || (this.exchange !== undefined && millis === 0)) return
    const at = this.clock.currentTimeMillisUnsafe()
    observer({
      type: "wait",
      at,
      pool: this.name,
      agent,
      dimension: binding ?? Predict.dimensionOf(obstacle),
      until: at + Math.ceil(millis)
    })
  }

  /** Why a quota no longer holds a charge. */
  private quotaFor(law: Law.Pool, charge: Amounts.Whole): QuotaExhausted | undefined {
    for (const dimension of Amounts.dimensions) {
      const cap = law.caps[dimension]
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

  private costOf(charge: Amounts.Whole): number {
    // A caller may come while this process decides alone, and be served among all.
    const { meters } = this.exchange?.shared ?? this.law
    let most = Amounts.dominantShare(charge, this.rules)
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
    this.held.add(ticket)
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
    if (this.queue.size === 0) {
      if (this.held.size === 0) this.options.idled?.()
      return
    }
    const { own } = this
    if (own === undefined) return this.exchange!.ask()
    const next = (): Waiter | undefined => (this.hasPlace ? this.queue.peek() : undefined)
    const blocked = this.serve(
      own.law,
      () => this.now(),
      next,
      ({ charge }, now) => (own.law.inFlight < own.most ? Law.decide(own.law, charge, now) : noPlace),
      (waiter, ticket) => {
        if (ticket === undefined) this.refuse(waiter, this.exhausted(own.law, waiter.charge))
        else {
          this.exchange?.takenAlone(ticket)
          this.grant(waiter, ticket)
        }
      }
    )
    if (blocked !== undefined) this.wakeIn(blocked.millis)
  }

  /**
   * The loop: decides on the first callers in their order, until one has to wait. Returns what that one waits for. A
   * caller without a ticket is refused: a quota no longer holds its charge.
   */
  private serve(
    law: Law.Pool,
    time: () => number,
    next: () => Waiter | undefined,
    decide: (waiter: Waiter, now: number) => Law.Blocked | undefined,
    each: (waiter: Waiter, ticket: Law.Ticket | undefined) => void
  ): Law.Blocked | undefined {
    for (let waiter = next(); waiter !== undefined; waiter = next()) {
      const now = time()
      const blocked = decide(waiter, now)
      if (blocked === undefined) each(waiter, Law.take(law, waiter.charge, now))
      else if (blocked.millis === Infinity && this.quotaFor(law, waiter.charge) !== undefined) each(waiter, undefined)
      else {
        waiter.binding = blocked.dimension ?? waiter.binding
        return blocked
      }
    }
    return undefined
  }

  /** A process that goes on with its part knows only what is left of that. */
  private exhausted(law: Law.Pool, charge: Amounts.Whole): BudgetErrorReason {
    const reason = this.quotaFor(law, charge)!
    return this.exchange?.own === undefined ? reason : new StoreUnavailable({ pool: this.name, cause: reason })
  }

  private grant(waiter: Waiter, ticket: Law.Ticket): void {
    const service = this.queue.serve(waiter)
    const waited = this.waitedBy(waiter)
    const reservation = this.hold(waiter.agent, waiter.estimate, ticket, service, waited, waiter.binding)
    if (waiter.isAwaited) this.options.counts.waited(waited / 1_000)
    else this.queue.forget()
    waiter.granted = reservation
    this.answer(waiter, Effect.succeed(reservation))
  }

  // ---------------------------------------------------------------------------
  // The loop where processes decide together
  // ---------------------------------------------------------------------------

  front(): Front | undefined {
    const head = this.hasPlace ? this.queue.peek() : undefined
    return head === undefined ? undefined : this.frontOf(head)
  }
  private frontOf({ charge, cost, priority }: Waiter): Front {
    return { charge, cost, priority, weight: this.queue.weight }
  }

  plan(law: Law.Pool, now: number, decide: (front: Front, served: number) => Law.Blocked | undefined): Plan<Waiter> {
    const outcomes: Array<Outcome<Waiter>> = []
    const order = this.queue.inOrder()
    let places = this.permits?.free ?? Infinity
    const { weight } = this.queue
    let served = 0
    let last: Waiter | undefined
    const next = (): Waiter | undefined => (last = places > 0 ? (order.next().value ?? undefined) : undefined)
    const blocked = this.serve(
      law,
      () => now,
      next,
      (waiter) => decide(this.frontOf(waiter), served),
      (waiter, ticket) => {
        outcomes.push({ waiter, ticket })
        if (ticket === undefined) return
        places--
        served += waiter.cost / weight
      }
    )
    return { outcomes, served, blocked, front: last === undefined ? undefined : this.frontOf(last) }
  }

  carryOut({ ticket, waiter }: Outcome<Waiter>): boolean {
    if (waiter.flow === undefined) return false
    if (ticket === undefined) this.refuse(waiter, this.exhausted(this.law, waiter.charge))
    else this.grant(waiter, ticket)
    return true
  }

  refuseAll(cause: unknown): void {
    this.refuseEach(new StoreUnavailable({ pool: this.name, cause }))
  }

  private refuseEach(reason: BudgetErrorReason): void {
    for (const waiter of Array.from(this.queue.inOrder())) this.refuse(waiter, reason)
  }

  configure({ concurrency, rules }: Config): void {
    this.rules = rules
    this.limitTo(concurrency)
    this.checkWaiters()
  }

  /** An earlier timer stays: it looks again, and sleeps on. */
  private wakeIn(millis: number): void {
    const sleep = Math.ceil(millis)
    const at = this.now() + sleep
    if (millis === Infinity || at >= (this.timer?.at ?? Infinity)) return
    this.timer?.cancel()
    const wake = Effect.sync(() => {
      this.timer = undefined
      this.drain()
    })
    this.timer = { at, cancel: this.options.after(sleep, wake) }
  }

  // ---------------------------------------------------------------------------
  // Ends
  // ---------------------------------------------------------------------------

  /** A caller waits no longer: what it was granted meanwhile is given back. */
  cancel(waiter: Waiter): void {
    if (waiter.granted !== undefined) return this.settle(waiter.granted, Amounts.nothing, "failure")
    const wasHead = this.queue.peek() === waiter
    this.queue.remove(waiter)
    if (wasHead) this.drain()
    else this.options.changed()
  }

  /** An event of the law: it takes effect at once, and where processes share the pool for all of them. */
  private apply<A>(run: (law: Law.Pool, now: number) => A, held?: HeldReservation, used?: Amounts.Charge): A {
    if (this.exchange !== undefined) return this.exchange.apply(run, held?.ticket, used)
    return run(this.meters.ref.current, this.clockNow())
  }

  /** Ends a reservation: what it reserved is replaced by what it used. Only the first end counts. */
  settle(held: HeldReservation, used: Amounts.Charge, outcome: "success" | "failure" | "denied"): void {
    if (!this.close(held)) return
    const { isAccepted, ticket } = held
    const end = (law: Law.Pool, now: number): void => {
      if (outcome !== "success") return Law.release(law, ticket, used, now)
      if (!isAccepted) Law.accept(law, ticket)
      Law.settle(law, ticket, used, now)
    }
    this.apply(end, held, used)
    this.account(held, used, true)
    if (outcome !== "denied") this.isProven = true
    this.drain()
    if (!this.isProven) this.options.denied?.(this)
  }

  /** Ends a reservation of which nothing is known: it is kept as estimated. */
  end(held: HeldReservation, hasSucceeded: boolean): void {
    if (!this.close(held)) return
    this.isProven = true
    const { isAccepted, ticket } = held
    const keep = (law: Law.Pool): void => {
      if (hasSucceeded && !isAccepted) Law.accept(law, ticket)
      Law.keep(law, ticket)
    }
    this.apply(keep, held, ticket.charge)
    this.drain()
  }

  private close(held: HeldReservation): boolean {
    if (!held.isOpen) return false
    held.isOpen = false
    this.held.delete(held.ticket)
    this.permits?.release()
    return true
  }

  /** Agents share what is used, not what is asked for, and a call that was rejected has not had its turn. */
  private account(held: HeldReservation, used: Amounts.Charge, isServed: boolean): void {
    const { charge } = held.ticket
    const { debt, refunded } = this.options.counts
    for (const dimension of tokens) {
      const more = (used[dimension] ?? charge[dimension]) - charge[dimension]
      if (more > 0) debt[dimension] += more
      else refunded[dimension] -= more
    }
    if (held.service === undefined || !isServed) return
    const whole = { ...charge, ...used } as Amounts.Whole
    const asked = this.costOf(charge)
    const cost = Amounts.dimensions.every((each) => whole[each] === 0) ? 0 : this.costOf(whole)
    if (cost === asked) return
    this.queue.correct(held.service, cost / asked)
    this.exchange?.correct((cost - asked) / held.service.weight)
  }

  // ---------------------------------------------------------------------------
  // What the provider says
  // ---------------------------------------------------------------------------

  /**
   * A response that is no rejection: its call was accepted. What the response says of the limits, and what the call used, if
   * that is known by now: then its reservation ends.
   */
  observe(readings: Law.Readings, held?: HeldReservation, used?: Amounts.Charge): void {
    this.isProven = true
    const accepted = held?.isAccepted === false ? held.ticket : undefined
    const ended = held !== undefined && used !== undefined && this.close(held) ? held.ticket : undefined
    if (held !== undefined) held.isAccepted = true
    const learn = (law: Law.Pool, now: number): void => {
      if (accepted !== undefined) Law.accept(law, accepted)
      Law.observe(law, held?.ticket, readings, now)
      if (ended !== undefined) Law.settle(law, ended, used!, now)
    }
    this.apply(learn, held, ended === undefined ? undefined : used)
    if (ended !== undefined) this.account(held!, used!, true)
    if (this.queue.size > 0) this.repriceOnce()
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
      readonly reason: Pushback
      readonly retryAfter: number | undefined
      readonly readings: Law.Readings | undefined
      readonly used: Amounts.Charge
    }
  ): Law.Verdict {
    if (!this.close(held)) return "isolated"
    this.isProven = true
    const { reason, retryAfter, used } = failure
    const { ticket } = held
    this.options.counts.cooldowns[reason]++
    const pausedUntil = this.law.gate.until
    const verdict = this.apply<Law.Verdict>(
      reason === "overload"
        ? (law, now) => Law.overload(law, ticket, { retryAfter, used }, now)
        : (law, now) => Law.reject(law, ticket, { ...failure, isRamp: reason === "ramp" }, now),
      held,
      used
    )
    this.repriceOnce()
    // A failed probe of an outage has had its turn: another agent's call is the next.
    this.account(held, used, verdict !== "outage")
    this.drain()
    this.reportPause(pausedUntil)
    return verdict
  }

  /** Nothing is sent for a time. If that is long, waiting callers are refused. */
  pause(reason: Pushback, millis: number): void {
    this.isProven = true
    this.options.counts.cooldowns[reason]++
    const pausedUntil = this.law.gate.until
    this.apply((law, now) => Law.pause(law, reason, now + millis))
    const refusal = this.closedFor(this.now())
    if (refusal !== undefined) this.refuseEach(refusal)
    this.drain()
    this.reportPause(pausedUntil)
  }

  /** Reports that a pause has begun, or is longer than before. An observer may come back to the pool, so it is told last. */
  private reportPause(before: number): void {
    const { observer } = this.options
    const { reason, until } = this.law.gate
    const now = this.now()
    if (observer === undefined || until <= Math.max(before, now)) return
    const at = this.clock.currentTimeMillisUnsafe()
    observer({ type: "pause", at, pool: this.name, reason, until: at + Math.ceil(until - now) })
  }

  private closedFor(now: number): WaitTooLong | undefined {
    const left = this.law.gate.until - now
    return left > longestPause ? this.tooLong(undefined, left, longestPause) : undefined
  }

  // ---------------------------------------------------------------------------
  // Changes
  // ---------------------------------------------------------------------------

  /** A client says how its provider counts, where the limits do not say it. */
  private countAs(counting: Rules.Counting): void {
    const stated = Rules.resolve(this.limits)
    const rules = Rules.resolve(this.limits, counting)
    this.counting = counting
    if (Rules.sameRules(rules, stated)) return
    const config = { ...this.config, rules }
    // Others may have given the pool other limits.
    if (this.exchange?.refine(stated, config) === false) return
    if (this.exchange === undefined) Law.resize(this.law, rules, config.shares, this.now())
    this.rules = rules
    this.checkWaiters()
    this.drain()
  }

  /** The user gives the pool other limits. */
  resize(limits: Limits.Limits | undefined, concurrency: number | undefined): void {
    this.isResized = true
    this.reconfigure(limits, concurrency)
  }

  /** The same, with a new pool of its kind no different. */
  reconfigure(limits: Limits.Limits | undefined, concurrency: number | undefined): void {
    if (concurrency !== undefined) this.limitTo(concurrency)
    if (limits !== undefined) {
      this.limits = limits
      this.rules = Rules.resolve(limits, this.counting)
    }
    const { config } = this
    if (this.exchange !== undefined) this.exchange.resize(config)
    else if (limits !== undefined) Law.resize(this.law, config.rules, config.shares, this.now())
    this.checkWaiters()
    this.drain()
  }

  private limitTo(concurrency: number): void {
    if (concurrency === Infinity) this.permits = undefined
    else if (this.permits !== undefined) this.permits.resize(concurrency)
    else {
      this.permits = new Permits(Math.max(concurrency, this.held.size))
      for (let i = 0; i < this.held.size; i++) this.permits.take()
      this.permits.resize(concurrency)
    }
  }

  /** After a change of limits, computes costs again, and refuses callers that can never fit. */
  private checkWaiters(): void {
    this.queue.reprice((waiter) => this.costOf(waiter.charge))
    for (const waiter of Array.from(this.queue.inOrder())) {
      const tooLarge = Amounts.neverFits(waiter.charge, this.rules)
      if (tooLarge !== undefined) this.refuse(waiter, new EstimateTooLarge({ pool: this.name, ...tooLarge }))
    }
  }

  /** Ends a wait. No code of the caller runs in here. */
  private answer(waiter: Waiter, answer: Answer): void {
    waiter.end(answer, this.options.wake)
  }

  private refuse(waiter: Waiter, reason: BudgetErrorReason): void {
    this.queue.remove(waiter)
    this.answer(waiter, Effect.fail(new BudgetError({ reason })))
  }

  /** The part of a charge that is limited. */
  limited(charge: Amounts.Whole): Amounts.Charge {
    return Amounts.mapDimensions(charge, (amount, dimension) =>
      this.law.caps[dimension] !== undefined ||
      this.law.meters.some((each) => each.dimension === dimension && each.limit < Infinity)
        ? amount
        : undefined
    )
  }

  shutDown(): void {
    this.options.counts.open.delete(this)
    for (const waiter of Array.from(this.queue.inOrder())) {
      this.queue.remove(waiter)
      this.answer(waiter, Effect.interrupt)
    }
  }

  /**
   * Whether nobody needs it: no call runs or waits, nothing pauses it, and its limits are no others than its kind's. What it
   * learned and used is another matter, see {@link rest}; where processes share it, the store has that.
   */
  get isIdle(): boolean {
    if (this.held.size > 0 || this.queue.size > 0 || this.isResized) return false
    const { gate, inFlight } = this.law
    // Of an outage nobody knows that it is over, until a probe has shown it.
    const isPaused = this.now() < gate.until + (gate.misses > 1 ? longestPause : 0)
    return !isPaused && (this.exchange === undefined ? inFlight === 0 : this.exchange.isReached)
  }

  /** Whether no call was ever admitted. */
  get isUnused(): boolean {
    return this.law.sent === 0
  }

  /** All that must be known when it is opened again; undefined where the store knows it. */
  get rest(): Rested | undefined {
    if (this.exchange !== undefined) return undefined
    return { kind: this.kind, rest: Memory.rest(this.law, this.clockNow()), counting: this.counting }
  }

  get isShared(): boolean {
    return this.exchange !== undefined
  }

  /** Tells the other processes that this one goes. */
  get leave(): Effect.Effect<void> {
    return this.exchange?.leave ?? Effect.void
  }

  // ---------------------------------------------------------------------------
  // Status
  // ---------------------------------------------------------------------------

  /** What is known of what comes. */
  private get scene() {
    return { law: this.law, now: this.now(), most: this.places, running: this.held }
  }

  /** The first waiters in the order of service, and how long each still waits. */
  waiting(count: number): ReadonlyArray<Predict.Expected> {
    return Predict.first(this.scene, this.queue.inOrder(), count)
  }

  /** How long a caller has waited by now. */
  waitedBy(waiter: Waiter): number {
    return this.clockNow() - waiter.since
  }
}
