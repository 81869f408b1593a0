/**
 * One pool at work: the queue of calls, their permits, and the port to what limits them.
 *
 * Whatever happens (an arrival, an end, a cancellation, a verdict) ends in `drain`, which asks the port for a decision
 * (`serve`): it lets the first calls of the queue in, in their order, until one has to wait. `served` carries it out. Nothing
 * here takes time, and no code of a caller runs here.
 */
import * as Effect from "effect/Effect"
import { dimensionOf } from "../admission/blocked.ts"
import { FairQueue } from "../admission/fairQueue.ts"
import * as Law from "../pacing/law.ts"
import * as Memory from "../pacing/memory.ts"
import * as Members from "../sharing/members.ts"
import type { QueueDecision, Done, Home, Port } from "../sharing/port.ts"
import type * as State from "../sharing/state.ts"
import { monotonic } from "../domain/input/clock.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Rules from "../domain/rules.ts"
import type { Pushback } from "../domain/signal.ts"
import { Entry, type CheckedFailure, type PoolOfCall, type Queueing, type Resolution } from "./entry.ts"
import { conclude, costOf, decide, type DecidedCall, type DecidedCalls, release } from "./decision.ts"
import { BudgetError, type BudgetErrorReason, StoreUnavailable } from "./errors.ts"
import type { Foreseen } from "./models.ts"
import * as Foresee from "./foresee.ts"
import { Reports } from "./observer.ts"
import { type PoolOptions, portOf } from "./opening.ts"
import { Permits } from "./permits.ts"
import type { Rested } from "./rested.ts"

export class Pool implements PoolOfCall {
  readonly name: string
  readonly kind: string
  readonly maxQueued: number
  private readonly clockNow: () => number
  private readonly options: PoolOptions
  private readonly port: Port
  private readonly queue = new FairQueue<Entry>()
  private readonly permits: Permits
  private readonly reports: Reports | undefined
  /** Permits that were taken for the next decision. They are taken before it, because it may be played more than once. */
  private bids = 0
  /** A call that comes while nobody waits, before it stands in the queue. */
  private arriving: Entry | undefined = undefined
  /** The head that was found to wait, until something happens. */
  private blocked: Entry | undefined = undefined
  private limits: Limits.Limits
  /** How the provider counts, once a client has said so. */
  private counting: Rules.Counting | undefined = undefined
  /** The calls of this process that are in flight. */
  private readonly running = new Set<Entry>()
  private knownLimits = 0
  private readonly reviews = new Foresee.Reviews()
  /** Whether the user has given it limits of its own. */
  private isResized = false
  /** Whether something else was heard of it than that its credential is refused. */
  private isProven = false

  constructor(options: PoolOptions) {
    this.options = options
    this.name = options.name
    this.clockNow = monotonic(options.clock)
    this.kind = options.kind
    this.maxQueued = options.maxQueued
    this.limits = options.limits
    this.counting = options.rested?.counting
    this.reports = options.observer && new Reports(options.observer, options.clock, options.name)
    this.permits = new Permits(options.concurrency)
    this.port = portOf(options, {
      configured: () => this.configured(),
      unreachable: (cause) => this.refuseAll(new StoreUnavailable({ pool: this.name, cause }))
    })
    options.counts.open.add(this)
  }

  /** Milliseconds of the clock that the law counts by: where processes share the pool, the one that they agree on. */
  now(): number {
    return this.port.now()
  }
  private get config(): State.Config {
    return this.port.state.config
  }
  get law(): Law.Pacer {
    return this.port.state.law
  }
  /** What it has learned up to now; undefined where that is nothing. */
  get learned(): Memory.Memory | undefined {
    return Memory.recall(this.law, this.now())
  }
  get queued(): number {
    return this.queue.size
  }
  get inFlight(): number {
    return this.law.inFlight
  }
  /** The most calls in flight: the concurrency, and less where the provider was found to limit it. */
  get allowed(): number {
    return Math.min(this.config.concurrency, this.law.window.size)
  }

  // ---------------------------------------------------------------------------
  // Arrival
  // ---------------------------------------------------------------------------

  /** Admits an estimate at once, refuses it, or lets it stand in the queue. */
  admit(estimate: Limits.Estimate, how: Queueing, counting?: Rules.Counting): Entry {
    if (counting !== undefined && counting !== this.counting) this.countAs(counting)
    const charge = Amounts.wholeOf(estimate)
    const entry = new Entry(this, how, estimate, charge)
    const tooLarge = Foresee.tooLarge(this.name, this.config.rules, charge)
    if (tooLarge !== undefined) {
      // Others may have raised the limit: later callers go by that.
      this.port.transact(this.serve, this.served)
      return this.refuse(entry, tooLarge)
    }
    if (this.queue.size === 0) {
      this.arriving = entry
      this.drain()
      this.arriving = undefined
    }
    if (entry.phase === "waiting") this.enqueue(entry, how)
    return entry
  }

  private enqueue(entry: Entry, how: Queueing): void {
    const { charge } = entry
    const { view } = this
    const isForeseen = how.maxWait < Infinity || this.reports !== undefined
    const foreseen = isForeseen ? Foresee.predict(view, charge, how) : undefined
    const refused = Foresee.refusal(view, charge, how, foreseen)
    if (refused !== undefined) return void this.refuse(entry, refused)
    entry.since = this.clockNow()
    entry.cost = costOf(this.port.state, charge)
    this.queue.push(entry, how.first)
    if (this.queue.peek() === this.blocked) this.options.changed()
    else this.drain()
    // Where the store decides, all wait for its answer, and only some for more.
    if (foreseen === undefined || entry.phase !== "waiting" || (!view.isWhole && foreseen.millis === 0)) return
    this.reports?.wait(entry.agent, entry.binding ?? dimensionOf(foreseen.obstacle), foreseen.millis)
  }

  /** When a caller would start, and why it would be refused. Nothing changes. */
  foresee(estimate: Limits.Estimate, how: Queueing, counting = this.counting): Foreseen {
    const charge = Amounts.wholeOf(estimate, "Budget.foresee")
    const { view } = this
    if (counting === this.counting || !view.isWhole) return Foresee.foresee(view, charge, how)
    const rules = Rules.resolve(this.limits, counting)
    const law = Law.copy(view.law)
    Law.resize(law, rules, Rules.shares(this.limits), view.now)
    return Foresee.foresee({ ...view, law, rules }, charge, how)
  }

  /** A caller that is foreseen to wait longer than it may is refused before its time is over. */
  review(entry: Entry): void {
    if (entry.flow === undefined) return
    const left = entry.maxWait - this.waitedBy(entry)
    const millis = this.reviews.left(entry, this.clockNow(), () => this.waiting(Infinity))
    if (millis <= left) return
    this.refuse(entry, Foresee.tooLong(this.name, entry.binding, millis, entry.maxWait))
    this.drain()
  }

  // ---------------------------------------------------------------------------
  // The decision
  // ---------------------------------------------------------------------------

  /** Asks for a decision on the first calls of the queue. */
  private drain(): void {
    this.options.changed()
    this.blocked = undefined
    if (this.bid()) this.port.transact(this.serve, this.served)
    else if (this.running.size === 0 && this.queue.size === 0) this.options.idled?.()
  }

  /** Takes a permit for each call that may be decided on. False if no permit is free, or no call waits. */
  private bid(): boolean {
    const wanted = Math.min(this.arriving === undefined ? this.queue.size : 1, this.port.batch)
    for (; this.bids > wanted; this.bids--) this.permits.release()
    while (this.bids < wanted && this.permits.take()) this.bids++
    return this.bids > 0
  }

  /** The decision on them. It changes the draft alone: it may be played again. */
  private readonly serve: QueueDecision<DecidedCalls> = (draft, now, max) => {
    const weight = this.arriving?.weight ?? this.queue.weight
    const { name: pool, port } = this
    return decide(draft, { pool, id: port.id, calls: this.heads(max), places: this.bids, weight }, now)
  }

  /** The first calls in the order of service. */
  private heads(max: number): Iterable<Entry> {
    if (this.arriving !== undefined) return [this.arriving]
    if (max > 1) return this.queue.inOrder()
    const head = this.queue.peek()
    return head === undefined ? [] : [head]
  }

  /** Carries a decision out. What becomes known too late, or to a caller that has left, is given back. */
  private readonly served: Done<DecidedCalls> = ({ blocked, head, outcomes }, by, isLate) => {
    let settled = 0
    for (const outcome of outcomes) if (this.carryOut(outcome, by, isLate)) settled++
    if (head !== undefined) head.binding = dimensionOf(blocked?.by) ?? head.binding
    this.blocked = head
    // Whoever would have gone too late still waits.
    if (isLate && outcomes.length > 0) this.drain()
    return settled > 0 && this.bid()
  }

  private carryOut({ entry, refusal, ticket }: DecidedCall, by: Home, isLate: boolean): boolean {
    const isWaiting = entry.phase === "waiting"
    if (ticket === undefined) {
      if (isWaiting) this.refuse(entry, refusal!)
      return isWaiting
    }
    const goes = isWaiting && !isLate
    if (goes) this.grant(entry, ticket, by)
    else by.transact((draft, now) => release(draft, by.id, ticket, now))
    return goes
  }

  private grant(entry: Entry, ticket: Law.Ticket, by: Home): void {
    const { counts } = this.options
    entry.phase = "held"
    entry.ticket = ticket
    entry.home = by
    this.bids--
    this.running.add(entry)
    counts.reservations++
    this.options.changed()
    if (entry === this.arriving) {
      this.arriving = undefined
      return this.queue.forget()
    }
    this.queue.serve(entry)
    entry.waitedMillis = this.waitedBy(entry)
    if (entry.isAwaited) counts.waited(entry.waitedMillis / 1_000)
    else this.queue.forget()
    entry.resolve(Effect.succeed(entry), this.options.wake)
  }

  // ---------------------------------------------------------------------------
  // Ends
  // ---------------------------------------------------------------------------

  /** A caller waits no longer, or never had what it was granted meanwhile: that is given back. */
  cancel(entry: Entry): void {
    if (entry.phase !== "waiting") return this.settle(entry, Amounts.nothing, "failure")
    entry.phase = "ended"
    const wasHead = this.queue.peek() === entry
    this.queue.remove(entry)
    if (wasHead) this.drain()
    else this.options.changed()
  }

  /** Ends a reservation: what it reserved is replaced by what it used. Only the first end counts. */
  settle(entry: Entry, used: Amounts.Charge, outcome: "success" | "failure" | "denied"): void {
    if (!this.close(entry)) return
    const { isAccepted } = entry
    this.conclude(entry, used, (law, ticket, now) => {
      if (outcome !== "success") return Law.release(law, ticket, used, now)
      if (!isAccepted) Law.accept(law, ticket)
      Law.settle(law, ticket, used, now)
    })
    if (outcome !== "denied") this.isProven = true
    this.drain()
    if (!this.isProven) this.options.denied?.()
  }

  /** Ends a reservation of which nothing is known: it is kept as estimated. */
  keep(entry: Entry, hasSucceeded: boolean): void {
    if (!this.close(entry)) return
    this.isProven = true
    const { charge, home, isAccepted, ticket } = entry
    home!.transact((draft) => {
      Members.end(draft, home!.id, ticket!, charge)
      if (hasSucceeded && !isAccepted) Law.accept(draft.law, ticket!)
      Law.keep(draft.law, ticket!)
    })
    this.drain()
  }

  private close(entry: Entry): boolean {
    if (!entry.isOpen) return false
    entry.phase = "ended"
    this.running.delete(entry)
    this.permits.release()
    return true
  }

  /** A call is over, and `learn` says what that teaches. */
  private conclude<A>(
    entry: Entry,
    used: Amounts.Charge,
    learn: (law: Law.Pacer, ticket: Law.Ticket, now: number) => A,
    hasServed?: (answer: A) => boolean
  ): A {
    const { charge, home } = entry
    this.options.counts.settled(charge, used)
    const [answer, part] = home!.transact((draft, now) =>
      conclude(draft, entry, used, (law, ticket) => learn(law, ticket, now), hasServed)
    )
    this.queue.correct(entry, part)
    return answer
  }

  // ---------------------------------------------------------------------------
  // What the provider says
  // ---------------------------------------------------------------------------

  /**
   * A response that is no rejection: its call was accepted. What the response says of the limits, and what the call used, if
   * that is known by now: then its reservation ends.
   */
  observe(readings: Law.Readings, entry?: Entry, used?: Amounts.Charge): void {
    this.isProven = true
    const isAccepted = entry?.isAccepted === false
    if (entry !== undefined) entry.isAccepted = true
    const learn = (law: Law.Pacer, ticket: Law.Ticket | undefined, now: number): void => {
      if (isAccepted) Law.accept(law, ticket!)
      Law.observe(law, ticket, readings, now)
    }
    if (entry !== undefined && used !== undefined && this.close(entry)) {
      this.conclude(entry, used, (law, ticket, now) => {
        learn(law, ticket, now)
        Law.settle(law, ticket, used, now)
      })
    } else (entry?.home ?? this.port).transact(({ law }, now) => learn(law, entry?.ticket, now))
    if (this.queue.size > 0) this.repriceOnce()
    this.drain()
  }

  /** Costs are parts of limits: when more limits are known than before, they are others. */
  private repriceOnce(): void {
    let known = 0
    for (const { limit } of this.law.meters) if (limit < Infinity) known++
    if (known === this.knownLimits) return
    this.knownLimits = known
    this.reprice()
  }

  private reprice(): void {
    const { state } = this.port
    this.queue.reprice(({ charge }) => costOf(state, charge))
  }

  /** The provider rejected a call, or failed. Returns what that says. */
  fail(entry: Entry, failure: CheckedFailure): Law.Verdict {
    if (!this.close(entry)) return "isolated"
    this.isProven = true
    const { reason, retryAfter, used } = failure
    this.options.counts.cooldowns[reason]++
    const pausedUntil = this.law.gate.until
    const verdict = this.conclude<Law.Verdict>(
      entry,
      used,
      reason === "overload"
        ? (law, ticket, now) => Law.overload(law, ticket, { retryAfter, used }, now)
        : (law, ticket, now) => Law.reject(law, ticket, { ...failure, isRamp: reason === "ramp" }, now),
      // A failed probe of an outage has had its turn: another agent's call is the next.
      (verdict) => verdict !== "outage"
    )
    this.repriceOnce()
    this.drain()
    this.reportPause(pausedUntil)
    return verdict
  }

  /** Nothing is sent for a time. If that is long, waiting callers are refused. */
  pause(reason: Pushback, millis: number): void {
    this.isProven = true
    this.options.counts.cooldowns[reason]++
    const pausedUntil = this.law.gate.until
    this.port.transact(({ law }, now) => Law.pause(law, reason, now + millis))
    const refusal = Foresee.pausedTooLong(this.name, this.law, this.now())
    if (refusal !== undefined) this.refuseAll(refusal)
    this.drain()
    this.reportPause(pausedUntil)
  }

  private reportPause(before: number): void {
    const { reason, until } = this.law.gate
    const now = this.now()
    if (until > Math.max(before, now)) this.reports?.pause(reason, until - now)
  }

  // ---------------------------------------------------------------------------
  // Changes
  // ---------------------------------------------------------------------------

  /** A client says how its provider counts, where the limits do not say it. */
  private countAs(counting: Rules.Counting): void {
    const before = Rules.resolve(this.limits, this.counting)
    const rules = Rules.resolve(this.limits, counting)
    this.counting = counting
    if (Rules.sameRules(rules, before)) return
    const isChanged = this.port.transact((draft, now) => {
      // Others may have given the pool other limits.
      if (!Rules.sameRules(draft.config.rules, before)) return false
      Members.configure(draft, { ...draft.config, rules }, now)
      return true
    })
    if (isChanged) this.configured()
  }

  /** The user gives the pool other limits. */
  resize(limits: Limits.Limits | undefined, concurrency: number | undefined): void {
    this.isResized = true
    this.reconfigure(limits, concurrency)
  }

  /** The same, with a new pool of its kind no different. */
  reconfigure(limits: Limits.Limits | undefined, concurrency: number | undefined): void {
    this.limits = limits ?? this.limits
    const stated = limits && { rules: Rules.resolve(limits, this.counting), shares: Rules.shares(limits) }
    this.port.transact((draft, now) => {
      if (stated !== undefined) Members.configure(draft, { ...draft.config, ...stated }, now)
      if (concurrency !== undefined) Members.allow(draft, concurrency)
    })
    this.configured()
  }

  /** Other limits hold: costs are computed again, and callers that can never fit are refused. */
  private configured(): void {
    const { concurrency, rules } = this.config
    for (; this.bids > 0; this.bids--) this.permits.release()
    this.permits.resize(concurrency)
    this.reprice()
    for (const entry of Array.from(this.queue.inOrder())) {
      const tooLarge = Foresee.tooLarge(this.name, rules, entry.charge)
      if (tooLarge !== undefined) this.refuse(entry, tooLarge)
    }
    this.drain()
  }

  private refuse(entry: Entry, reason: BudgetErrorReason): Entry {
    return this.dismiss(entry, Effect.fail(new BudgetError({ reason })))
  }

  /** Ends a wait. No code of the caller runs in here. */
  private dismiss(entry: Entry, resolution: Resolution): Entry {
    entry.phase = "ended"
    if (entry === this.arriving) this.arriving = undefined
    this.queue.remove(entry)
    entry.resolve(resolution, this.options.wake)
    return entry
  }

  private refuseAll(reason: BudgetErrorReason): void {
    for (const entry of Array.from(this.queue.inOrder())) this.refuse(entry, reason)
  }

  shutDown(): void {
    this.options.counts.open.delete(this)
    for (const entry of Array.from(this.queue.inOrder())) this.dismiss(entry, Effect.interrupt)
  }

  /**
   * Whether nobody needs it: no call runs or waits, nothing pauses it, and its limits are no others than its kind's. What it
   * learned and used is another matter, see {@link rest}; where processes share it, the store has that.
   */
  get isIdle(): boolean {
    if (this.running.size > 0 || this.queue.size > 0 || this.isResized) return false
    const { gate } = this.law
    // Of an outage nobody knows that it is over, until a probe has shown it.
    const isPaused = this.now() < gate.until + (gate.misses > 1 ? Foresee.maxPause : 0)
    return !isPaused && this.port.isStored
  }

  /** Whether no call was ever admitted. */
  get isUnused(): boolean {
    return this.law.sent === 0
  }

  /** All that must be known when it is opened again; undefined where the store knows it. */
  get rest(): Rested | undefined {
    const { rest } = this.port
    return rest && { kind: this.kind, rest, counting: this.counting }
  }

  /** Says that it is gone. */
  get leave(): Effect.Effect<void> {
    return this.port.close
  }

  // ---------------------------------------------------------------------------
  // Status
  // ---------------------------------------------------------------------------

  /** What is known of what comes. */
  private get view(): Foresee.PoolView {
    const { maxQueued, name: pool, queue, running } = this
    const { config, law } = this.port.state
    const { concurrency: maxInFlight, rules } = config
    return { pool, rules, law, now: this.now(), maxInFlight, running, queue, maxQueued, isWhole: this.port.lag === 0 }
  }

  /** The first waiters in the order of service, and how long each still waits. */
  waiting(count: number): ReadonlyArray<Foresee.ExpectedWait> {
    return Foresee.expectedWaits(this.view, count)
  }

  /** How long a caller has waited by now. */
  waitedBy(entry: Entry): number {
    return this.clockNow() - entry.since
  }
}
