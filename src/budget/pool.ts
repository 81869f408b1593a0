/**
 * One pool at work: the queue of calls, their permits, and the port to what limits them.
 *
 * Whatever happens (an arrival, an end, a cancellation, a verdict) ends in {@link Pool.drain}, which asks the port for a
 * decision. {@link Pool.serve} is the decision: it lets the first calls of the queue in, in their order, until one has to wait.
 * {@link Pool.served} carries it out. Nothing here takes time, and no code of a caller runs here.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { FairQueue } from "../admission/fairQueue.ts"
import * as Law from "../admission/law.ts"
import * as Memory from "../admission/memory.ts"
import * as Fleet from "../budgetStore/fleet.ts"
import { Local } from "../budgetStore/local.ts"
import type { After, Decided, Decision, Done, Port } from "../budgetStore/port.ts"
import type { Sharing } from "../budgetStore/sharing.ts"
import * as State from "../budgetStore/state.ts"
import type { Event } from "../Events.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import * as Rules from "../limits/rules.ts"
import type { Pushback } from "../limits/signal.ts"
import { type Answer, Entry, type Queueing } from "./entry.ts"
import {
  BudgetError,
  type BudgetErrorReason,
  EstimateTooLarge,
  QueueFull,
  QuotaExhausted,
  StoreUnavailable,
  WaitTooLong
} from "./errors.ts"
import type { Counts } from "./metrics.ts"
import type { Foreseen } from "./models.ts"
import { Permits } from "./permits.ts"
import * as Predict from "./predict.ts"
import type { Rested } from "./rested.ts"
import type { Wake } from "./waker.ts"

/** A pool that is closed for longer refuses its callers: as long as the default policy tries. */
const longestPause = 600_000
/** The waits of so many callers are foreseen again, and no more often than this. */
const mostForeseen = 1_000
const foreseeMillis = 1_000
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
  readonly after: After
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

/** What becomes of a call that was decided on. */
interface Outcome {
  readonly entry: Entry
  readonly ticket: Law.Ticket | undefined
  /** Why it is refused, if it is. */
  readonly refusal: BudgetErrorReason | undefined
}

interface Plan extends Decided {
  readonly outcomes: ReadonlyArray<Outcome>
  /** The first call that has to wait. */
  readonly head: Entry | undefined
}

export class Pool {
  readonly name: string
  readonly kind: string
  readonly maxQueued: number
  readonly clock: Clock.Clock
  private readonly options: Options
  private readonly port: Port
  private readonly queue = new FairQueue<Entry>()
  private readonly permits: Permits
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
  /** How long the first callers wait, as it was foreseen, and the others at least. */
  private foreseen:
    | { readonly at: number; readonly waits: WeakMap<Entry, number>; readonly beyond: number }
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
    this.permits = new Permits(options.concurrency)
    this.port = this.open(options)
    options.counts.open.add(this)
  }

  private open({ after, clock, concurrency, id, limits, name, rested, sharing }: Options): Port {
    const config = { rules: Rules.resolve(limits, this.counting), shares: Rules.shares(limits), concurrency }
    const configured = () => this.configured()
    const unreachable = (cause: unknown) => this.refuseAll(new StoreUnavailable({ pool: this.name, cause }))
    if (sharing !== undefined) return sharing.open({ name, id, config, clock, after, configured, unreachable })
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
    const state = State.make(config, now(), id)
    if (rested !== undefined) Memory.resume(state.law, rested.rest, now())
    return new Local(id, state, now, after)
  }

  /** Milliseconds of the clock that the law counts by: where processes share the pool, the one that they agree on. */
  now(): number {
    return this.port.now()
  }
  /** Milliseconds of the monotonic clock: no step of the wall clock moves them. */
  private clockNow(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1e6
  }
  private get config(): State.Config {
    return this.port.state.config
  }
  get law(): Law.Pool {
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
    const entry = new Entry(this, how, estimate, charge, costOf(this.port.state, charge), this.clockNow())
    const tooLarge = this.tooLarge(charge)
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
    const isForeseen = how.maxWait < Infinity || this.options.observer !== undefined
    const foreseen = isForeseen ? Predict.newcomer(this.scene, this.queue, charge, how) : undefined
    const refused = this.refusalOf(charge, how, foreseen)
    if (refused !== undefined) return void this.refuse(entry, refused)
    this.queue.push(entry, how.first)
    if (this.queue.peek() === this.blocked) this.options.changed()
    else this.drain()
    if (foreseen !== undefined) this.reportWait(entry, foreseen)
  }

  /** When a caller would start, and why it would be refused. Nothing changes. */
  foresee(estimate: Limits.Estimate, how: Queueing, counting = this.counting): Foreseen {
    const charge = Amounts.wholeOf(estimate, "Budget.foresee")
    const { scene } = this
    let { rules } = this.config
    if (counting !== this.counting && this.port.lag === 0) {
      rules = Rules.resolve(this.limits, counting)
      scene.law = Law.copy(scene.law)
      Law.resize(scene.law, rules, Rules.shares(this.limits), scene.now)
    }
    const tooLarge = this.tooLarge(charge, rules)
    const foreseen = tooLarge === undefined ? Predict.newcomer(scene, this.queue, charge, how) : undefined
    const { isLowerBound = false, millis = Infinity, obstacle } = foreseen ?? {}
    const exhausted = foreseen?.exhausted && quotaFor(this.name, foreseen.exhausted, charge)
    const isAtOnce = millis === 0 && exhausted === undefined && this.queue.size === 0 && this.port.lag === 0
    const refusal = tooLarge ?? (isAtOnce ? undefined : this.refusalOf(charge, how, foreseen)) ?? exhausted
    return {
      pool: this.name,
      wait: Duration.millis(exhausted === undefined ? millis : Infinity),
      binding: tooLarge?.dimension ?? exhausted?.dimension ?? obstacle,
      refusal,
      // Of the calls that wait in other processes only the first are known.
      isLowerBound: isLowerBound || this.port.lag > 0
    }
  }

  private tooLarge(charge: Amounts.Whole, rules = this.config.rules): EstimateTooLarge | undefined {
    const misfit = Amounts.neverFits(charge, rules)
    return misfit && new EstimateTooLarge({ pool: this.name, ...misfit })
  }

  /** Why a caller is refused that does not go at once. */
  private refusalOf(
    charge: Amounts.Whole,
    { maxWait }: Queueing,
    foreseen: Predict.Foreseen | undefined
  ): BudgetErrorReason | undefined {
    // Where the store decides, others may have given back since.
    const exhausted = this.port.lag === 0 ? quotaFor(this.name, this.law, charge) : undefined
    const refused = exhausted ?? this.closedFor(this.now())
    if (refused !== undefined) return refused
    if (foreseen !== undefined && foreseen.millis > maxWait) {
      return this.tooLong(Predict.dimensionOf(foreseen.obstacle), foreseen.millis, maxWait)
    }
    return this.queue.size < this.maxQueued ? undefined : new QueueFull({ pool: this.name, maxQueued: this.maxQueued })
  }

  /** A caller that is foreseen to wait longer than it may is refused before its time is over. */
  review(entry: Entry): void {
    if (entry.flow === undefined) return
    const left = entry.maxWait - this.waitedBy(entry)
    const millis = this.leftOf(entry)
    if (millis <= left) return
    this.refuse(entry, this.tooLong(entry.binding, millis, entry.maxWait))
    this.drain()
  }

  /** How long a caller still waits, or at least so long; looked up for all of them together. */
  private leftOf(entry: Entry): number {
    const now = this.clockNow()
    if (this.foreseen === undefined || now - this.foreseen.at >= foreseeMillis) {
      const found = this.waiting(mostForeseen)
      const waits = new WeakMap(found.map(({ expectedMillis, waiter }) => [waiter, expectedMillis]))
      this.foreseen = { at: now, waits, beyond: found.at(-1)?.expectedMillis ?? 0 }
    }
    return this.foreseen.waits.get(entry) ?? this.foreseen.beyond
  }

  private reportWait({ agent, binding, phase }: Entry, { millis, obstacle }: Predict.Foreseen): void {
    const { observer } = this.options
    // Where the store decides, all wait for its answer, and only some for more.
    if (observer === undefined || phase !== "waiting" || (this.port.lag > 0 && millis === 0)) return
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

  tooLong(dimension: Limits.Dimension | undefined, millis: number, maxWait: number): WaitTooLong {
    const wait = Duration.millis(Math.ceil(Math.max(millis, maxWait)))
    return new WaitTooLong({ pool: this.name, dimension, wait, maxWait: Duration.millis(maxWait) })
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

  /** Takes a permit for each call that may be decided on. False if there is none, or nobody waits. */
  private bid(): boolean {
    const wanted = Math.min(this.arriving === undefined ? this.queue.size : 1, this.port.batch)
    for (; this.bids > wanted; this.bids--) this.permits.release()
    while (this.bids < wanted && this.permits.take()) this.bids++
    return this.bids > 0
  }

  /** Lets the first calls in, in their order, until one has to wait. It changes the draft alone: it may be played again. */
  private readonly serve: Decision<Plan> = (draft, now, max) => {
    const { id } = this.port
    const weight = this.arriving?.weight ?? this.queue.weight
    const outcomes: Array<Outcome> = []
    let places = this.bids
    let head: Entry | undefined
    let blocked: Law.Blocked | undefined
    for (const entry of this.heads(max)) {
      if (places === 0) break
      const { charge, cost, priority } = entry
      const answer = Fleet.admit(draft, id, { charge, cost, priority, weight }, now)
      if ("at" in answer) {
        places--
        outcomes.push({ entry, ticket: answer, refusal: undefined })
        continue
      }
      const refusal = answer.millis === Infinity ? this.exhausted(draft, charge) : undefined
      if (refusal !== undefined) {
        outcomes.push({ entry, ticket: undefined, refusal })
        continue
      }
      blocked = answer
      head = entry
      break
    }
    Fleet.wait(draft, id, head && { priority: head.priority, charge: head.charge, weight })
    return { outcomes, blocked, head, isNews: outcomes.length > 0 }
  }

  /** The first calls in the order of service. */
  private heads(max: number): Iterable<Entry> {
    if (this.arriving !== undefined) return [this.arriving]
    if (max > 1) return this.queue.inOrder()
    const head = this.queue.peek()
    return head === undefined ? [] : [head]
  }

  /** Why a quota no longer holds a charge. A process that goes on with its part knows only what is left of that. */
  private exhausted({ alone, law }: State.State, charge: Amounts.Whole): BudgetErrorReason | undefined {
    const reason = quotaFor(this.name, law, charge)
    return reason === undefined || alone === undefined
      ? reason
      : new StoreUnavailable({ pool: this.name, cause: reason })
  }

  /** Carries a decision out. What becomes known too late, or to a caller that has left, is given back. */
  private readonly served: Done<Plan> = ({ blocked, head, outcomes }, by, isLate) => {
    let settled = 0
    for (const { entry, refusal, ticket } of outcomes) {
      const isWaiting = entry.phase === "waiting"
      if (isWaiting && !(isLate && ticket !== undefined)) {
        settled++
        if (ticket === undefined) this.refuse(entry, refusal!)
        else this.grant(entry, ticket, by)
      } else if (ticket !== undefined) by.transact((draft, now) => release(draft, by.id, ticket, now))
    }
    if (head !== undefined && blocked !== undefined) {
      head.binding = blocked.dimension ?? head.binding
      this.blocked = head
    }
    // Whoever would have gone too late still waits.
    if (isLate && outcomes.length > 0) this.drain()
    return settled > 0 && this.bid()
  }

  private grant(entry: Entry, ticket: Law.Ticket, by: Port): void {
    const { counts } = this.options
    entry.phase = "held"
    entry.ticket = ticket
    entry.home = by
    this.bids--
    this.running.add(entry)
    counts.reservations++
    if (entry === this.arriving) this.arriving = undefined
    else {
      entry.service = this.queue.serve(entry)
      entry.waitedMillis = this.waitedBy(entry)
    }
    if (entry.isAwaited) counts.waited(entry.waitedMillis / 1_000)
    else this.queue.forget()
    this.options.changed()
    this.answer(entry, Effect.succeed(entry))
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
    if (!this.isProven) this.options.denied?.(this)
  }

  /** Ends a reservation of which nothing is known: it is kept as estimated. */
  keep(entry: Entry, hasSucceeded: boolean): void {
    if (!this.close(entry)) return
    this.isProven = true
    const { charge, home, isAccepted, ticket } = entry
    home!.transact((draft) => {
      Fleet.end(draft, home!.id, ticket!, charge)
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

  /**
   * A call is over, and `learn` says what that teaches. Agents share what is used, not what is asked for, and a call that was
   * rejected has not had its turn: where `hasServed` says so, its agent's turn is corrected.
   */
  private conclude<A>(
    { charge, home, service, ticket }: Entry,
    used: Amounts.Charge,
    learn: (law: Law.Pool, ticket: Law.Ticket, now: number) => A,
    hasServed: (answer: A) => boolean = () => true
  ): A {
    const { counts } = this.options
    for (const dimension of tokens) {
      const more = (used[dimension] ?? charge[dimension]) - charge[dimension]
      if (more > 0) counts.debt[dimension] += more
      else counts.refunded[dimension] -= more
    }
    const [answer, part] = home!.transact((draft, now): readonly [A, number] => {
      Fleet.end(draft, home!.id, ticket!, used)
      const answer = learn(draft.law, ticket!, now)
      if (service === undefined || !hasServed(answer)) return [answer, 1]
      const asked = costOf(draft, charge)
      const cost = costUsed(draft, { ...charge, ...used })
      Fleet.correct(draft, home!.id, (cost - asked) / service.weight)
      return [answer, cost / asked]
    })
    if (service !== undefined) this.queue.correct(service, part)
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
    const learn = (law: Law.Pool, ticket: Law.Ticket | undefined, now: number): void => {
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
  fail(
    entry: Entry,
    failure: {
      readonly reason: Pushback
      readonly retryAfter: number | undefined
      readonly readings: Law.Readings | undefined
      readonly used: Amounts.Charge
    }
  ): Law.Verdict {
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
    const refusal = this.closedFor(this.now())
    if (refusal !== undefined) this.refuseAll(refusal)
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
    const before = Rules.resolve(this.limits, this.counting)
    const rules = Rules.resolve(this.limits, counting)
    this.counting = counting
    if (Rules.sameRules(rules, before)) return
    const isChanged = this.port.transact((draft, now) => {
      // Others may have given the pool other limits.
      if (!Rules.sameRules(draft.config.rules, before)) return false
      Fleet.configure(draft, { ...draft.config, rules }, now)
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
      if (stated !== undefined) Fleet.configure(draft, { ...draft.config, ...stated }, now)
      if (concurrency !== undefined) Fleet.allow(draft, concurrency)
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
      const tooLarge = Amounts.neverFits(entry.charge, rules)
      if (tooLarge !== undefined) this.refuse(entry, new EstimateTooLarge({ pool: this.name, ...tooLarge }))
    }
    this.drain()
  }

  /** Ends a wait. No code of the caller runs in here. */
  private answer(entry: Entry, answer: Answer): void {
    entry.end(answer, this.options.wake)
  }

  private refuse(entry: Entry, reason: BudgetErrorReason): Entry {
    return this.dismiss(entry, Effect.fail(new BudgetError({ reason })))
  }

  private dismiss(entry: Entry, answer: Answer): Entry {
    entry.phase = "ended"
    if (entry === this.arriving) this.arriving = undefined
    this.queue.remove(entry)
    this.answer(entry, answer)
    return entry
  }

  private refuseAll(reason: BudgetErrorReason): void {
    for (const entry of Array.from(this.queue.inOrder())) this.refuse(entry, reason)
  }

  /** The part of a charge that is limited. */
  limited(charge: Amounts.Whole): Amounts.Charge {
    const { caps, meters } = this.law
    return Amounts.mapDimensions(charge, (amount, dimension) =>
      caps[dimension] !== undefined || meters.some((each) => each.dimension === dimension && each.limit < Infinity)
        ? amount
        : undefined
    )
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
    const isPaused = this.now() < gate.until + (gate.misses > 1 ? longestPause : 0)
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
  private get scene() {
    const { config, law } = this.port.state
    return { law, now: this.now(), most: config.concurrency, running: this.running }
  }

  /** The first waiters in the order of service, and how long each still waits. */
  waiting(count: number): ReadonlyArray<Predict.Expected> {
    return Predict.first(this.scene, this.queue, count)
  }

  /** How long a caller has waited by now. */
  waitedBy(entry: Entry): number {
    return this.clockNow() - entry.since
  }
}

/** A call that was admitted will not go. */
const release = (draft: State.State, id: string, ticket: Law.Ticket, now: number): void => {
  Fleet.end(draft, id, ticket, Amounts.nothing)
  Law.release(draft.law, ticket, Amounts.nothing, now)
}

/** What a charge costs in the fair queue: the largest part of a limit that it takes. */
const costOf = ({ alone, config, law }: State.State, charge: Amounts.Whole): number => {
  let most = Amounts.dominantShare(charge, config.rules)
  // A caller may come while this process decides alone, and be served among all.
  const minute = 60_000 / (alone?.of ?? 1)
  for (const { dimension, limit } of law.meters) {
    if (limit < Infinity && limit > 0) most = Math.max(most, charge[dimension] / (limit * minute))
  }
  return Math.max(leastCost, most)
}

const costUsed = (state: State.State, used: Amounts.Whole): number =>
  Amounts.dimensions.every((each) => used[each] === 0) ? 0 : costOf(state, used)

/** Why a quota no longer holds a charge. */
const quotaFor = (pool: string, law: Law.Pool, charge: Amounts.Whole): QuotaExhausted | undefined => {
  for (const dimension of Amounts.dimensions) {
    const cap = law.caps[dimension]
    const asked = charge[dimension]
    if (cap?.rule.quota !== true || asked <= cap.level * (1 + 1e-9)) continue
    return new QuotaExhausted({ pool, dimension, asked, left: Math.max(0, cap.level) })
  }
  return undefined
}
