/**
 * The port of a pool or a ledger that processes share through a store. A process applies its events to the last state that it knows, and
 * swaps in the result.
 *
 * Observations take effect at once, on this process's view of the state, and are played again on the state that is replaced.
 * Decisions take effect when the state that includes them is stored. A process sends one request for a pool at a time; events
 * in the meantime are part of the next one.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Semaphore from "effect/Semaphore"
import type { Blocked } from "../admission/blocked.ts"
import { DegradedMode, type SharedView } from "./degraded.ts"
import { DueTimer } from "./dueTimer.ts"
import { noReply, StoreError, type StoreSettings, type Stored } from "./models.ts"
import type { Decided, Done, Port, PortOptions, QueueDecision, StateStep } from "./port.ts"
import { type Draft, Replica } from "./replica.ts"
import type { Shared } from "./state.ts"
import type { PartOf, StateSpec } from "./stateSpec.ts"
import * as StoreMetrics from "./storeMetrics.ts"
import * as Time from "./time.ts"
import * as Turns from "./turns.ts"

/** After this many conflicts in a row a process pauses. */
const maxConflicts = 4

/** The decision that callers wait for. It is played with each commit until another one replaces it. */
interface AskedDecision<S> {
  readonly decision: QueueDecision<Decided, S>
  readonly done: Done<Decided, S>
}

export class SharedPort<S extends Shared> implements Port<S>, SharedView<S> {
  readonly id: string
  readonly batch = Infinity
  readonly outlives = true
  readonly spec: StateSpec<S>
  readonly options: PortOptions<S["config"]>
  readonly sharing: StoreSettings
  readonly time: Time.Time
  private readonly replica: Replica<S>
  private readonly timer: DueTimer
  private readonly degraded = new DegradedMode<S>(this)
  private readonly lock = Semaphore.makeUnsafe(1)
  private asked: AskedDecision<S> | undefined = undefined
  /** Whether a reply has arrived since the last failure. */
  private isKnown = false
  /** Whether a call waits only because of the shared limits. */
  private isWaiting = false
  private isClosed = false
  /** The number of changes of the limits that were reported. */
  private changes = 0
  /** By this process's clock: when the last commit, and the last stored commit, was sent, and when an event last happened. */
  sentAt = -Infinity
  private storedAt = -Infinity
  private activeAt = -Infinity

  constructor(spec: StateSpec<S>, options: PortOptions<S["config"]>, sharing: StoreSettings) {
    this.spec = spec
    this.options = options
    this.sharing = sharing
    this.id = options.id
    this.time = new Time.Time(options.clock)
    this.replica = new Replica(spec, options, sharing, this.time)
    this.timer = new DueTimer(this.time, options.after, this.turn, () =>
      this.degraded.isAway ? Infinity : this.storedAt + this.beatMillis()
    )
  }

  get lag(): number {
    return this.sharing.timeoutMillis
  }

  readonly now = (): number => this.time.now

  get state(): S {
    return this.degraded.port?.state ?? this.known
  }
  get current(): S {
    return this.degraded.port?.current ?? this.known
  }
  get known(): S {
    return this.replica.known
  }
  get parts(): ReadonlyArray<PartOf<S> | undefined> {
    return this.replica.parts
  }
  readonly isPending = (step: StateStep<void, S>): boolean => this.replica.isPending(step)
  readonly askAgain = (): void => {
    if (this.asked !== undefined) this.ask(this.asked)
  }

  /** The name of this in messages. */
  private get called(): string {
    return `${this.spec.noun} "${this.options.name}"`
  }

  /** The calls of this process that are in flight. */
  private get inFlight(): number {
    return this.replica.member?.inFlight ?? 0
  }

  /** Whether the store can be reached, so that it gets the events of this process. */
  get isStored(): boolean {
    return !this.degraded.isAway && this.degraded.port === undefined
  }

  // ---------------------------------------------------------------------------
  // Events
  // ---------------------------------------------------------------------------

  transact<A>(observation: StateStep<A, S>): A
  transact<A extends Decided>(decision: QueueDecision<A, S>, done: Done<A, S>): void
  transact<A extends Decided>(step: QueueDecision<A, S>, done?: Done<A, S>): A | void {
    if (done === undefined) return this.observe(step as StateStep<A, S>)
    this.ask({ decision: step, done: done as Done<Decided, S> })
  }

  /** Takes effect here at once, and for the other processes with the next commit. */
  private observe<A>(step: StateStep<A, S>): A {
    // After this process has left, its calls are no longer counted.
    if (this.replica.hasLeft) return this.replica.foresee(step)
    const { changes } = this.known
    const before = this.inFlight
    const answer = this.play(step)
    this.degraded.port?.ended(before - this.inFlight)
    const isUrgent = this.known.changes !== changes || this.spec.isUrgent(this.known, this.time.now)
    this.soon(isUrgent ? 0 : Time.flushIn(Turns.isContended(this.known, this.id), this.spec.frees(this.known)))
    return answer
  }

  private play<A>(step: StateStep<A, S>): A {
    this.activeAt = this.time.own
    return this.replica.play(step)
  }

  /** Schedules a commit for when the first waiting call can be admitted. */
  private ask(asked: AskedDecision<S>): void {
    this.asked = asked
    const { degraded } = this
    if (degraded.port?.isOver === false) return degraded.port.transact(asked.decision, asked.done)
    if (degraded.isAway) return degraded.refuse()
    this.activeAt = this.time.own
    this.isWaiting = true
    if (!this.isKnown) return this.soon(0)
    const { blocked } = this.replica.foresee((draft, now) => asked.decision(draft, now, 1))
    this.commitFor(blocked ?? { by: "pause", millis: 0 })
  }

  // ---------------------------------------------------------------------------
  // Timing
  // ---------------------------------------------------------------------------

  /** Whether nothing has happened here for a minute, and everything is stored. */
  private isIdle(): boolean {
    const isUsed = this.isWaiting || this.inFlight > 0 || this.replica.isInDoubt
    return !isUsed && this.time.own - this.activeAt > Time.idleMillis
  }

  /** How long after a commit the others count this process as silent, and it may enter degraded mode. */
  private silentAfter(): number {
    return this.isIdle() ? this.sharing.leaseMillis : Time.silentAfter(this.time.lag)
  }

  /** The longest time without a commit. */
  private beatMillis(): number {
    // Its last commit says when it counts as silent: it commits four times as often.
    if (this.sharing.whenAway === "degrade") return (this.replica.member?.part?.fromMillis ?? 0) / 4
    if (this.isWaiting) return Time.waitingBeat
    const rests = this.isIdle() && this.spec.mayStopCommitting(this.known, this.time.now)
    return rests ? Infinity : this.sharing.leaseMillis / 4
  }

  /** Schedules the next turn within this many milliseconds. A store that is away is tried at an interval of its own. */
  private soon(millis: number): void {
    if (!this.degraded.isAway) this.timer.within(millis)
  }

  private commitFor(blocked: Blocked | undefined): void {
    if (blocked !== undefined) this.soon(Time.readIn(this.known, blocked, this.spec.answerMillis(this.known)))
  }

  /** Commits what is due. */
  private readonly turn: Effect.Effect<void> = Effect.suspend(() => {
    const exchanged = Effect.flatMap(this.exchange, () => this.succeeded())
    return this.lock.withPermit(
      Effect.andThen(
        Effect.catchCause(exchanged, (cause) =>
          Effect.andThen(StoreMetrics.failed(this.spec.noun, this.options.name), this.failed(cause))
        ),
        this.reportDamage
      )
    )
  })

  private failed(cause: Cause.Cause<StoreError>): Effect.Effect<void> {
    const failure = Cause.squash(cause)
    const { degraded } = this
    const wasAway = degraded.isAway
    const wasRead = this.isKnown
    this.isKnown = false
    // A store that can be read but refuses to write, such as a replica, counts as away.
    const isReadOnly = wasRead && failure !== noReply
    this.timer.within(degraded.failed(failure instanceof StoreError ? failure.cause : failure, wasRead, isReadOnly))
    degraded.refuse()
    return wasAway ? Effect.void : Effect.logWarning(`The store of ${this.called} cannot be reached`, cause)
  }

  private succeeded(): Effect.Effect<void> {
    if (!this.degraded.isAway) return Effect.void
    this.degraded.succeeded()
    this.soon(0)
    return Effect.logInfo(`The store of ${this.called} can be reached again`)
  }

  // ---------------------------------------------------------------------------
  // Commits
  // ---------------------------------------------------------------------------

  /** Commits this process's events. If there are none, or the state is not known, it reads the state first. */
  private readonly exchange: Effect.Effect<void, StoreError> = Effect.suspend(() => {
    const draft = this.isKnown ? this.draft() : undefined
    return draft === undefined ? Effect.flatMap(this.read, () => this.commit(0)) : this.send(draft, 0)
  })

  private commit(conflicts: number): Effect.Effect<void, StoreError> {
    const draft = this.draft()
    return draft === undefined ? Effect.void : this.send(draft, conflicts)
  }

  private send(draft: Draft<S>, conflicts: number): Effect.Effect<void, StoreError> {
    const { sharing, time } = this
    const from = draft.sentAt
    this.sentAt = from
    const swap = sharing.swap(this.replica.key, this.replica.version, draft.next, this.spec.keepFor(draft.state))
    return Effect.flatMap(this.inTime(swap), (stored) => {
      const passed = time.own - from
      // A reply that comes after its timeout means that this process was suspended, so its duration says nothing about the
      // network.
      const took = passed <= sharing.timeoutMillis ? passed : 0
      time.took(took)
      this.receive(stored)
      if (stored?.version === draft.next.version) return Effect.void
      // Another process was faster.
      this.replica.lost(draft)
      if (conflicts < maxConflicts) return this.commit(conflicts + 1)
      // Too many processes commit at once. After a pause the known state is old, so it is read first.
      const pause = Effect.flatMap(Random.nextBetween(0, 2 * took), Effect.sleep)
      const again = Effect.suspend(() => this.commit(conflicts + 1))
      return Effect.andThen(pause, Effect.andThen(this.read, again))
    })
  }

  private readonly read: Effect.Effect<void, StoreError> = Effect.suspend(() =>
    Effect.map(this.inTime(this.sharing.read(this.replica.key)), (stored) => this.receive(stored))
  )

  private inTime<A>(call: Effect.Effect<A, StoreError>): Effect.Effect<A, StoreError> {
    const { timeoutMillis, whenAway } = this.sharing
    return Effect.timeoutOrElse(call, {
      duration: whenAway === "degrade" ? Math.min(timeoutMillis, Time.silentAfter(this.time.lag)) : timeoutMillis,
      orElse: () => Effect.fail(noReply)
    })
  }

  /** The last state with the events since and the calls admitted now; undefined if the others need not know any of it. */
  private draft(): Draft<S> | undefined {
    const { asked, isClosed, replica, time } = this
    if (replica.hasLeft) return undefined
    const sentAt = time.own
    const next = replica.next()
    const { member, now, state } = next
    const wasWaiting = member.head !== undefined
    const decided = asked?.decision(state, now, Infinity)
    this.isWaiting = member.head !== undefined
    this.commitFor(decided?.blocked)
    const isNews = decided?.isNews === true || wasWaiting !== this.isWaiting
    if (!isNews && !this.isDue) return undefined
    member.dueAt = now + Math.min(decided?.blocked?.millis ?? 0, Time.waitingBeat)
    return replica.sign(next, { decided, sentAt, silentAfter: this.silentAfter(), leaves: isClosed })
  }

  /** Whether a commit is due, whatever is decided. */
  private get isDue(): boolean {
    return this.replica.hasNews || this.isClosed || this.time.own >= this.storedAt + this.beatMillis() - 1
  }

  /** Adopts the stored state, which may show that a commit was stored although its reply was lost. */
  private receive(stored: Stored | undefined): void {
    const { replica, time } = this
    const found = replica.read(stored)
    this.isKnown = true
    this.comeBack()
    const since = time.replied(stored?.utc)
    if (found === undefined) return
    const done = replica.adopt(found, since)
    if (done !== undefined) this.carryOut(done)
    if (!replica.hasJoined || this.changes === replica.changes) return
    this.changes = replica.changes
    this.options.configured()
  }

  /** Reports what was used in degraded mode. */
  private comeBack(): void {
    const report = this.degraded.end()
    if (report !== undefined) this.play(report)
  }

  /** A call that is sent too late could reach the provider together with calls that were admitted after it. */
  private carryOut({ decided, sentAt, state }: Draft<S>): void {
    this.storedAt = sentAt
    const isLate = this.time.own - sentAt > state.law.lag
    if (decided !== undefined) this.asked?.done(decided, this, isLate)
  }

  /** Reports a damaged state even if it is replaced, because nothing else would show it. */
  private readonly reportDamage: Effect.Effect<void> = Effect.suspend(() => {
    const { damage, hasState } = this.replica
    if (damage === undefined) return Effect.void
    this.replica.damage = undefined
    const count = StoreMetrics.damaged(this.spec.noun, this.options.name)
    const what = `The state of ${this.called} in the store was damaged. This process replaces it with what it knows`
    return hasState ? Effect.andThen(count, Effect.logWarning(what, damage)) : count
  })

  // ---------------------------------------------------------------------------
  // The end
  // ---------------------------------------------------------------------------

  /** Leaves the pool with a last commit. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.isClosed = true
    this.timer.stop()
    if (!this.replica.mayHaveJoined || this.degraded.isAway) return Effect.void
    // If it fails, the lease of this process ends its calls.
    const last = Effect.exit(Effect.suspend(() => this.commit(0)))
    return Effect.asVoid(Effect.timeoutOption(this.lock.withPermit(last), this.sharing.timeoutMillis))
  })
}
