/**
 * A running pool: a line whose law is the provider's limits, with the permits of this process, and what responses teach.
 *
 * Every event (an arrival, an end, a cancellation, a verdict) ends in `drain`, in which the line decides.
 */
import * as Effect from "effect/Effect"
import { dimensionOf } from "../admission/blocked.ts"
import { FairQueue } from "../admission/fairQueue.ts"
import { Line, type LineEvents } from "../line/line.ts"
import * as Pacer from "../pacing/pacer.ts"
import type { MeasuredStatus } from "../pacing/measured.ts"
import * as Memory from "../pacing/memory.ts"
import * as Members from "../sharing/members.ts"
import type { After, Port } from "../sharing/port.ts"
import type * as State from "../sharing/state.ts"
import { monotonic } from "../domain/input/clock.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import type { InFlightLimit } from "../domain/concurrency.ts"
import * as Rules from "../domain/rules.ts"
import type { Pushback } from "../domain/signal.ts"
import { Entry, type PoolOfCall, type PoolTerms, type Queueing, type SettledAs } from "./entry.ts"
import { conclude, costOf, lawOf, type Learn } from "./decision.ts"
import { type BudgetErrorReason, EstimateTooLarge, StoreUnavailable } from "./errors.ts"
import type { Foreseen } from "./models.ts"
import * as Foresee from "./foresee.ts"
import { Heads } from "./heads.ts"
import { Measuring } from "./measuring.ts"
import { type JobSize, JobSizes } from "./jobSizes.ts"
import { reportsOf } from "./observer.ts"
import { type PoolOptions, portOf } from "./opening.ts"
import { Oversize } from "./oversize.ts"
import { Permits } from "./permits.ts"
import type { ClosedPool } from "./closedPools.ts"

/** The part of the service that stays in fair order, if jobs go by their ends: not all of it, because sizes may be wrong. */
const fairParts = { fair: undefined, finish: 1 / 3, "finish-trusted": 0 }

export class Pool implements PoolOfCall, LineEvents<Entry> {
  readonly name: string
  readonly kind: string
  readonly options: PoolOptions
  private readonly clockNow: () => number
  private readonly port: Port
  private readonly queue: FairQueue<Entry>
  private readonly permits: Permits
  /** Measures how many calls may be in flight, if that was asked for. */
  private measuring: Measuring | undefined
  private readonly line: Line<PoolTerms, Entry>
  private readonly first: Heads
  /** The sizes of jobs, once one was stated. */
  private sizes: JobSizes | undefined = undefined
  private readonly reports: ReturnType<typeof reportsOf> | undefined
  private limits: Limits.Limits
  /** How the provider counts limits without a window, once a client has said so. */
  private counting: Rules.Counting | undefined = undefined
  /** The calls of this process that are in flight. */
  private readonly running = new Set<Entry>()
  private knownLimits = 0
  /** The sizes that full buckets have rejected, if they have. */
  private oversize: Oversize | undefined = undefined
  private readonly reviews = new Foresee.Reviews()
  /** Whether the provider has ever answered other than by refusing the credential. */
  private isProven = false

  constructor(options: PoolOptions) {
    this.options = options
    this.name = options.name
    this.kind = options.kind
    this.clockNow = monotonic(options.clock)
    this.limits = options.limits
    this.counting = options.earlier?.counting
    this.reports = options.observer && reportsOf(options.observer, options.clock, options.name)
    this.queue = new FairQueue(fairParts[options.order ?? "fair"])
    this.first = new Heads(this.queue)
    this.measuring = options.concurrency.isMeasured ? this.measure() : undefined
    this.permits = new Permits(Math.min(options.concurrency.max, this.measuring?.limit ?? Infinity))
    // What is known of a call may end while it sleeps: a prefix in the provider's cache expires.
    const again = Effect.sync(() => this.deciding(this.line.next))
    const after: After = (millis, wake) => options.after(millis, Effect.andThen(again, wake))
    this.port = portOf(
      { ...options, after },
      {
        configured: () => this.configured(),
        unreachable: (cause, failingFor) =>
          this.line.clear(new StoreUnavailable({ pool: this.name, cause, failingFor }))
      }
    )
    this.line = new Line(this.port, lawOf(options.name), this, this.queue, this.permits)
    options.counts.join(this)
  }

  /** Milliseconds of the law's clock. If processes share the pool, they agree on it. */
  now(): number {
    return this.port.now()
  }
  private get config(): State.Config {
    return this.port.current.config
  }
  /** For a look that ends before the next step. */
  get law(): Pacer.Pacer {
    return this.port.current.law
  }
  /** The limits that it has learned; undefined if there are none. */
  get learned(): Memory.LearnedLimits | undefined {
    return Memory.recall(this.law, this.now())
  }
  get queued(): number {
    return this.queue.size
  }
  get inFlight(): number {
    return this.law.inFlight
  }
  /** The limit of calls in flight: the concurrency, or less if the provider was found to limit it. */
  get allowed(): number {
    return Math.min(this.maxInFlight, this.law.window.size)
  }
  /** The concurrency, or less by what this process has measured for its own calls. */
  private get maxInFlight(): number {
    const others = this.law.inFlight - this.running.size
    return Math.min(this.config.concurrency, others + (this.measuring?.limit ?? Infinity))
  }
  /** The measured limit; undefined if it is not measured. */
  get measured(): MeasuredStatus | undefined {
    return this.measuring?.status(this.running.size, this.config.concurrency)
  }

  // ---------------------------------------------------------------------------
  // Arrival
  // ---------------------------------------------------------------------------

  /** Admits a call at once, refuses it, or queues it. */
  admit(estimate: Limits.Estimate, queueing: Queueing, counting?: Rules.Counting): Entry {
    if (counting !== undefined && counting !== this.counting) this.countAs(counting)
    const fits = Amounts.fitted(this.config.rules, estimate, queueing.certain)
    const entry = new Entry(this, queueing, estimate, fits, this.options.wake)
    entry.jobSize = this.sizeOf(queueing)
    if (fits.misfit !== undefined) {
      // Another process may have raised the limit. The next decision reads that, so that later callers are admitted.
      this.port.transact(() => undefined)
      return this.refuse(entry, new EstimateTooLarge({ pool: this.name, ...fits.misfit }))
    }
    const tooLarge = this.oversize?.refusal(this.law, estimate, this.now())
    if (tooLarge !== undefined) return this.refuse(entry, tooLarge)
    if (this.queue.size === 0) this.options.changed()
    this.line.arrive(entry)
    if (entry.phase === "waiting") this.enqueue(entry, queueing)
    return entry
  }

  private sizeOf({ caller, job, jobSize }: Queueing): JobSize | undefined {
    if (job === undefined || (jobSize === undefined && this.sizes === undefined)) return undefined
    return (this.sizes ??= new JobSizes()).of(caller, job, jobSize)
  }

  private enqueue(entry: Entry, queueing: Queueing): void {
    const { charge } = entry
    const { view } = this
    const isForeseen = queueing.maxWait < Infinity || this.reports !== undefined
    const foreseen = isForeseen ? Foresee.predict(view, charge, queueing) : undefined
    const refused = Foresee.refusal(view, charge, queueing, foreseen)
    if (refused !== undefined) return void this.refuse(entry, refused)
    entry.since = this.clockNow()
    entry.cost = costOf(this.port.current, charge)
    this.options.changed()
    this.first.queued(entry, this.law, this.now())
    this.line.join(entry, queueing.first)
    // With a store, every call waits for its reply. Only longer waits are reported.
    if (foreseen === undefined || entry.phase !== "waiting" || (!view.isWhole && foreseen.millis === 0)) return
    this.reports?.wait(entry.agent, entry.binding ?? dimensionOf(foreseen.obstacle), foreseen.millis)
  }

  /** Foresees when a call would start, and why it would be refused. */
  foresee(estimate: Limits.Estimate, queueing: Queueing, counting = this.counting): Foreseen {
    const { view } = this
    if (counting === this.counting || !view.isWhole) return Foresee.foresee(view, estimate, queueing)
    const rules = Rules.resolve(this.limits, counting)
    const law = Pacer.copy(view.law)
    Pacer.resize(law, rules, Rules.shares(this.limits), view.now)
    return Foresee.foresee({ ...view, law, rules }, estimate, queueing)
  }

  /** The current state of the pool, to play ahead. */
  get view(): Foresee.PoolView {
    const { name: pool, queue, running } = this
    const { maxQueued } = this.options
    const { config, law } = this.port.state
    const { maxInFlight } = this
    const { rules } = config
    const cost = (charge: Amounts.Whole): number => costOf(this.port.state, charge)
    const isWhole = this.port.lag === 0
    const sizeOf = (queueing: Queueing) => this.sizeOf(queueing)
    return { pool, rules, law, now: this.now(), maxInFlight, running, queue, maxQueued, costOf: cost, sizeOf, isWhole }
  }

  /** Refuses a waiting call if it is now expected to wait longer than it may. */
  review(entry: Entry): void {
    if (entry.flow === undefined) return
    const left = entry.queueing.maxWait - this.waitedBy(entry)
    const millis = this.reviews.remainingWait(entry, this.clockNow(), () => this.waiting(Infinity))
    if (millis <= left) return
    this.refuse(entry, Foresee.tooLong(this.name, entry.binding, millis, entry.queueing.maxWait))
    this.drain()
  }

  // ---------------------------------------------------------------------------
  // The decision
  // ---------------------------------------------------------------------------

  /** Decides on the first calls of the queue. */
  private drain(): void {
    this.options.changed()
    this.line.decide()
    this.noteIdle()
  }

  private noteIdle(): void {
    if (this.running.size === 0 && this.queue.size === 0) this.options.idled?.()
  }

  /** Estimates calls again that are decided on next. Not in the decision, because an accounting of a caller may run. */
  deciding(next: ReadonlyArray<Entry>): void {
    for (const entry of next) if (entry.revise(this.config.rules)) entry.cost = costOf(this.port.current, entry.charge)
  }

  /** The first calls in the order of service. */
  heads(max: number): Iterable<Entry> {
    return this.first.of(max, this.law, this.now())
  }

  /** Notes that a call was admitted. */
  granted(entry: Entry): void {
    const { counts } = this.options
    this.running.add(entry)
    entry.measured = this.measuring?.sent()
    counts.reservations++
    this.options.changed()
    if (entry.jobSize !== undefined) entry.jobSize.used += entry.charge.tokens
    if (!entry.wasQueued) return
    entry.waitedMillis = this.waitedBy(entry)
    if (entry.isAwaited) counts.waited(entry.waitedMillis / 1_000)
  }

  // ---------------------------------------------------------------------------
  // Ends
  // ---------------------------------------------------------------------------

  /** Removes a call that waits, or refunds one that was admitted before its caller could resume. */
  cancel(entry: Entry): void {
    if (entry.phase !== "waiting") return this.settle(entry, Amounts.nothing, "failure")
    this.options.changed()
    this.line.leave(entry)
    this.noteIdle()
  }

  /**
   * Ends a reservation and replaces its charge by the actual usage, once the law has learned what the response says. Only the first end
   * counts.
   */
  settle(entry: Entry, used: Amounts.Charge, outcome: SettledAs, readings?: Pacer.Readings): undefined {
    const isAccepted = entry.isAccepted || (outcome !== "success" && readings === undefined)
    const isEnded = this.end(entry, used, outcome === "success", (law, admission, rest, now) => {
      if (!isAccepted) Pacer.accept(law, admission)
      if (readings !== undefined) Pacer.observe(law, admission, readings, now)
      if (outcome === "success") Pacer.settle(law, admission, rest, now)
      else Pacer.release(law, admission, rest, now)
      return true
    })
    if (!isEnded) return readings && this.observe(readings, entry)
    if (outcome === "success") this.oversize?.accept(entry.asked)
    if (outcome !== "denied" || readings !== undefined) this.isProven = true
    if (readings !== undefined) this.repriceOnce()
    this.drain()
    if (!this.isProven) this.options.denied?.()
  }

  /** Ends a reservation of unknown usage: it counts as estimated. */
  keep(entry: Entry, hasSucceeded: boolean): void {
    const { charge, isAccepted, owed } = entry
    if (!hasSucceeded) entry.lose()
    const isEnded = this.end(entry, Amounts.plus(charge, owed), hasSucceeded, (law, admission) => {
      if (hasSucceeded && !isAccepted) Pacer.accept(law, admission)
      Pacer.keep(law, admission)
      return false
    })
    if (!isEnded) return
    this.isProven = true
    this.drain()
  }

  /** Ends a call in the state, where `learn` updates the law. False if it had ended. */
  private end(entry: Entry, used: Amounts.Charge, isAnswered: boolean, learn: Learn): boolean {
    const { charge, isOpen, jobSize } = entry
    if (jobSize !== undefined && isOpen) jobSize.used += (used.tokens ?? charge.tokens) - charge.tokens
    if (!this.line.end(entry, (draft, _, now) => conclude(draft, entry, used, learn, now))) return false
    if (entry.measured !== undefined) {
      entry.measured.ended(isAnswered, this.running.size)
      this.permit()
    }
    this.running.delete(entry)
    this.options.counts.settled(charge, used)
    return true
  }

  // ---------------------------------------------------------------------------
  // Responses
  // ---------------------------------------------------------------------------

  /** Learns from a response that is not a rejection. Its call, if that is known, still runs or has ended. */
  observe(readings: Pacer.Readings, entry?: Entry): undefined {
    this.isProven = true
    const isNews = entry?.isAccepted === false
    if (entry !== undefined) entry.isAccepted = true
    const port = entry?.chargedPort ?? this.port
    port.transact(({ law }, now) => {
      if (isNews) Pacer.accept(law, entry!.grant!)
      Pacer.observe(law, entry?.grant, readings, now)
    })
    this.repriceOnce()
    this.drain()
  }

  /** Costs are fractions of limits, so they are computed again when another limit becomes known. */
  private repriceOnce(): void {
    if (this.queue.size === 0) return
    let known = 0
    for (const { limit } of this.law.meters) if (limit < Infinity) known++
    if (known === this.knownLimits) return
    this.knownLimits = known
    this.reprice()
  }

  private reprice(): void {
    const { current } = this.port
    this.queue.reprice(({ charge }) => costOf(current, charge))
  }

  /** Ends a call that the provider rejected or failed, and judges the failure. */
  fail(entry: Entry, failure: Pacer.FailedCall): Pacer.Verdict {
    if (!entry.isOpen) return "isolated"
    this.isProven = true
    const { reason, used } = failure
    const judge = reason === "overload" ? Pacer.overload : Pacer.reject
    this.options.counts.cooldowns[reason]++
    const pausedUntil = this.law.gate.until
    if (reason === "rateLimit") {
      entry.rejection = (this.oversize ??= new Oversize(this.name)).reject(
        this.law,
        entry,
        failure.readings,
        this.now()
      )
    }
    let verdict: Pacer.Verdict = "isolated"
    if (reason === "overload") entry.lose()
    this.end(entry, used, false, (law, admission, rest, now) => {
      verdict = judge(law, admission, { ...failure, used: rest }, now)
      // A failed probe uses up its agent's turn, so that another agent makes the next probe.
      return verdict !== "outage"
    })
    this.repriceOnce()
    this.drain()
    this.reportPause(pausedUntil)
    return entry.rejection === undefined ? verdict : "impossible"
  }

  /** Pauses the pool. Waiting callers are refused if the pause is long. */
  pause(reason: Pushback, millis: number): void {
    this.isProven = true
    this.options.counts.cooldowns[reason]++
    const pausedUntil = this.law.gate.until
    this.port.transact(({ law }, now) => Pacer.pause(law, reason, now + millis))
    const refusal = Foresee.pausedTooLong(this.name, this.law, this.now())
    if (refusal !== undefined) this.line.clear(refusal)
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

  /** Applies how a client's provider counts limits that are written without a window. */
  private countAs(counting: Rules.Counting): void {
    const before = Rules.resolve(this.limits, this.counting)
    const rules = Rules.resolve(this.limits, counting)
    this.counting = counting
    if (Rules.sameRules(rules, before)) return
    const isChanged = this.port.transact((draft, now) => {
      // Another process may have changed the limits.
      if (!Rules.sameRules(draft.config.rules, before)) return false
      Members.configure(draft, { ...draft.config, rules }, now)
      return true
    })
    if (isChanged) this.configured()
  }

  /** Changes the limits for the user. */
  resize(limits: Limits.Limits | undefined, concurrency: InFlightLimit | undefined): void {
    this.limits = limits ?? this.limits
    if (concurrency !== undefined) {
      this.measuring = concurrency.isMeasured ? (this.measuring ?? this.measure()) : undefined
    }
    const stated = limits && { rules: Rules.resolve(limits, this.counting), shares: Rules.shares(limits) }
    this.port.transact((draft, now) => {
      if (stated !== undefined) Members.configure(draft, { ...draft.config, ...stated }, now)
      if (concurrency !== undefined) Members.allow(draft, concurrency.max)
    })
    this.configured()
  }

  /** After a change of limits: computes costs again, and refuses callers that can never fit. */
  private configured(): void {
    const { rules } = this.config
    this.permit()
    for (const entry of Array.from(this.queue.inOrder())) {
      // It may have waited for a limit that is gone.
      entry.binding = undefined
      const misfit = entry.fit(rules)
      if (misfit !== undefined) this.refuse(entry, new EstimateTooLarge({ pool: this.name, ...misfit }))
    }
    this.reprice()
    this.drain()
  }

  private measure(): Measuring {
    this.options.counts.measure()
    return new Measuring(this.clockNow, () => {
      this.permit()
      this.drain()
    })
  }

  /** Permits as many calls in flight as the concurrency and the measured limit do. */
  private permit(): void {
    this.permits.resize(Math.min(this.config.concurrency, this.measuring?.limit ?? Infinity))
  }

  private refuse(entry: Entry, reason: BudgetErrorReason): Entry {
    this.line.refuse(entry, reason)
    return entry
  }

  shutDown(): void {
    this.options.counts.leave(this)
    this.line.clear()
  }

  /**
   * Whether the pool can be closed: no call runs or waits, and it does not pause. What it learned and used is remembered by
   * {@link closedPool}, or by the store.
   */
  get isIdle(): boolean {
    if (this.running.size > 0 || this.queue.size > 0) return false
    const { gate } = this.law
    // An outage may outlast its pause: only a probe shows that it is over.
    const isPaused = this.now() < gate.until + (gate.misses > 1 ? Foresee.maxPause : 0)
    return !isPaused && this.port.isStored
  }

  /** Whether no call was ever sent. */
  get isUnused(): boolean {
    return this.law.sent === 0
  }

  /** The memory to keep until it is opened again; undefined if the store remembers it. */
  get closedPool(): ClosedPool | undefined {
    if (this.port.outlives) return undefined
    return { kind: this.kind, snapshot: Memory.snapshot(this.law, this.now()), counting: this.counting }
  }

  /** Tells the other processes that this one has left the pool. */
  get leave(): Effect.Effect<void> {
    return this.port.close
  }

  // ---------------------------------------------------------------------------
  // Status
  // ---------------------------------------------------------------------------

  /** The first waiting calls in the order of service, and their expected waits. */
  waiting(count: number): ReadonlyArray<Foresee.ExpectedWait> {
    return Foresee.expectedWaits(this.view, count)
  }

  /** How long a call has waited so far. */
  waitedBy(entry: Entry): number {
    return this.clockNow() - entry.since
  }
}
