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
import * as Ref from "effect/Ref"
import * as Semaphore from "effect/Semaphore"
import type { Blocked } from "../admission/blocked.ts"
import { DegradedMode, type SharedView } from "./degraded.ts"
import { type StateSpec, type MemberOf, membersOf, type PartOf } from "./stateSpec.ts"
import * as StoreLoss from "./storeLoss.ts"
import { type StoreSettings, StoreError, type Stored } from "./models.ts"
import type { Decided, Done, Port, PortOptions, QueueDecision, StateStep } from "./port.ts"
import { Damaged, TooNew } from "./readers.ts"
import * as Processes from "./processes.ts"
import type { Shared } from "./state.ts"
import * as StoreMetrics from "./storeMetrics.ts"
import * as Time from "./time.ts"
import * as Turns from "./turns.ts"

/** After this many conflicts in a row a process pauses. */
const maxConflicts = 4
/**
 * How many of the latest commits of unknown outcome are remembered. Without a bound, a read-only store would add more and more.
 */
const maxDoubted = 20
/** After a timeout it is unknown whether the store has performed the operation. */
const noReply = new StoreError({ cause: new Error("no reply in time") })

interface PendingStep<S> {
  /** When it happened, by this process's clock, because the pool's time may not be known yet. */
  readonly at: number
  readonly step: StateStep<unknown, S>
}

/** The decision that callers wait for. It is played with each commit until another one replaces it. */
interface AskedDecision<S> {
  readonly decision: QueueDecision<Decided, S>
  readonly done: Done<Decided, S>
}

/** A new state that this process tries to store. */
interface Draft<S> {
  readonly state: S
  readonly next: Stored
  readonly seq: number
  /** How many pending steps it includes. */
  readonly steps: number
  readonly decided: Decided | undefined
  /** When it was made, by this process's clock. */
  readonly sentAt: number
}

export class SharedPort<S extends Shared> implements Port<S>, SharedView<S> {
  readonly id: string
  readonly batch = Infinity
  readonly spec: StateSpec<S>
  readonly options: PortOptions<S["config"]>
  readonly sharing: StoreSettings
  readonly time: Time.Time
  /** The last state that is known to be stored. `version` is undefined if there is none. */
  private base: { readonly version: string | undefined; readonly state: S }
  /** That state with all events of this process since. */
  private readonly view: Ref.Ref<S>
  /** Whether a reply has arrived since the last failure. */
  private isKnown = false
  /** Whether the base came from the store. If the store loses it, this process can restore it. */
  private hasState = false
  /** Whether the base has something that the store has lost. */
  private knowsBetter = false
  private pending: Array<PendingStep<S>> = []
  private asked: AskedDecision<S> | undefined = undefined
  /** Whether a call waits only because of the shared limits. */
  private isWaiting = false
  /** Commits whose outcome is unknown. At most one of them is stored. */
  private doubted: Array<Draft<S>> = []
  /** This process as of its last commit that is known to be stored; undefined until it has joined. */
  private committed: MemberOf<S> | undefined = undefined
  private seq = 0
  private changes = 0
  /** By this process's clock: when the last commit, and the last stored commit, was sent, and when an event last happened. */
  sentAt = -Infinity
  private storedAt = -Infinity
  private activeAt = -Infinity
  /** Why a state could not be read, until it is reported. */
  private damage: unknown = undefined
  private readonly degraded = new DegradedMode<S>(this)
  private dueAt = Infinity
  private cancel: (() => void) | undefined = undefined
  private isBusy = false
  private isClosed = false
  private readonly lock = Semaphore.makeUnsafe(1)

  constructor(spec: StateSpec<S>, options: PortOptions<S["config"]>, sharing: StoreSettings) {
    this.spec = spec
    this.options = options
    this.sharing = sharing
    this.id = options.id
    this.time = new Time.Time(options.clock)
    const state = spec.make(options.config, this.time.now, this.id)
    this.view = Ref.makeUnsafe(state)
    this.base = { version: undefined, state }
  }

  get lag(): number {
    return this.sharing.timeoutMillis
  }

  readonly now = (): number => this.time.now

  get state(): S {
    return this.degraded.port?.state ?? this.known
  }

  /** The name of this in messages. */
  private get called(): string {
    return `${this.spec.noun} "${this.options.name}"`
  }
  private get key(): string {
    return this.spec.keyOf(this.options.name)
  }
  get known(): S {
    return Ref.getUnsafe(this.view)
  }
  get parts(): ReadonlyArray<PartOf<S> | undefined> {
    if (this.committed === undefined) return [undefined]
    return [this.known, ...this.doubted.map(({ state }) => state)].map((state) => membersOf(state)[this.id]?.part)
  }
  readonly isPending = (step: StateStep<void, S>): boolean => this.pending.some((each) => each.step === step)
  readonly askAgain = (): void => {
    if (this.asked !== undefined) this.ask(this.asked)
  }

  private get member(): MemberOf<S> | undefined {
    return membersOf(this.known)[this.id]
  }

  /** The calls of this process that are in flight. */
  private get inFlight(): number {
    return this.member?.inFlight ?? 0
  }

  private get hasLeft(): boolean {
    return this.base.state.members[this.id]?.hasLeft === true
  }

  /** Whether the store can be reached, so that it gets the events of this process. */
  get isStored(): boolean {
    return !this.degraded.isAway && this.degraded.port === undefined
  }

  readonly outlives = true

  // ---------------------------------------------------------------------------
  // Events
  // ---------------------------------------------------------------------------

  transact<A>(observation: StateStep<A, S>): A
  transact<A extends Decided>(decision: QueueDecision<A, S>, done: Done<A, S>): void
  transact<A extends Decided>(step: QueueDecision<A, S>, done?: Done<A, S>): A | void {
    if (done === undefined) return this.observe(step as StateStep<A, S>)
    this.ask({ decision: step, done: done as Done<Decided, S> })
  }

  private playOnView<A>(step: StateStep<A, S>): A {
    const draft = this.spec.copy(this.known)
    const answer = step(draft, this.time.now)
    Effect.runFork(Ref.set(this.view, draft))
    return answer
  }

  /** Takes effect here at once, and for the other processes with the next commit. */
  private observe<A>(step: StateStep<A, S>): A {
    // After this process has left, its calls are no longer counted.
    if (this.hasLeft) return step(this.spec.copy(this.known), this.time.now)
    this.record(step)
    const { changes } = this.known
    const before = this.inFlight
    const answer = this.playOnView(step)
    this.degraded.port?.ended(before - this.inFlight)
    const isUrgent = this.known.changes !== changes || this.spec.isUrgent(this.known, this.time.now)
    this.soon(isUrgent ? 0 : Time.flushIn(Turns.isContended(this.known, this.id), this.spec.frees(this.known)))
    return answer
  }

  private record(step: StateStep<unknown, S>): void {
    this.activeAt = this.time.own
    this.pending.push({ at: this.activeAt, step })
  }

  /** Plays the pending steps on a state that does not have them. */
  private catchUp(state: S): void {
    for (const { at, step } of this.pending) step(state, this.time.at(at))
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
    const { blocked = { by: "pause", millis: 0 } } = asked.decision(this.spec.copy(this.known), this.time.now, 1)
    this.commitFor(blocked)
  }

  // ---------------------------------------------------------------------------
  // Timing
  // ---------------------------------------------------------------------------

  /** Whether nothing has happened here for a minute, and everything is stored. */
  private isIdle(): boolean {
    const isUsed = this.isWaiting || this.inFlight > 0 || this.doubted.length > 0
    return !isUsed && this.time.own - this.activeAt > Time.idleMillis
  }

  /** How long after a commit the others count this process as silent, and it may enter degraded mode. */
  private silentAfter(): number {
    return this.isIdle() ? this.sharing.leaseMillis : Time.silentAfter(this.time.lag)
  }

  /** The longest time without a commit. */
  private beatMillis(): number {
    // Its last commit says when it counts as silent: it commits four times as often.
    if (this.sharing.whenAway === "degrade") return (this.member?.part?.fromMillis ?? 0) / 4
    if (this.isWaiting) return Time.waitingBeat
    const rests = this.isIdle() && this.spec.mayStopCommitting(this.known, this.time.now)
    return rests ? Infinity : this.sharing.leaseMillis / 4
  }

  /** Schedules the next turn within this many milliseconds. A store that is away is tried at an interval of its own. */
  private soon(millis: number): void {
    if (!this.degraded.isAway) this.wake(millis)
  }

  private commitFor(blocked: Blocked | undefined): void {
    if (blocked !== undefined) this.soon(Time.readIn(this.known, blocked, this.spec.answerMillis(this.known)))
  }

  private wake(millis: number): void {
    const at = this.time.own + Math.max(0, millis)
    if (at >= this.dueAt || this.isClosed) return
    this.dueAt = at
    if (this.isBusy) return
    this.cancel?.()
    this.cancel = this.options.after(Math.max(0, millis), this.turn)
  }

  /** Commits what is due, and schedules the next turn. */
  private readonly turn: Effect.Effect<void> = Effect.suspend(() => {
    this.isBusy = true
    this.dueAt = Infinity
    this.cancel = undefined
    const exchanged = Effect.flatMap(this.exchange, () => this.succeeded())
    return Effect.ensuring(
      this.lock.withPermit(
        Effect.andThen(
          Effect.catchCause(exchanged, (cause) =>
            Effect.andThen(StoreMetrics.failed(this.spec.noun, this.options.name), this.failed(cause))
          ),
          this.reportDamage
        )
      ),
      Effect.sync(() => {
        const beatAt = this.degraded.isAway ? Infinity : this.storedAt + this.beatMillis()
        const at = Math.min(this.dueAt, beatAt)
        this.isBusy = false
        this.dueAt = Infinity
        if (at < Infinity) this.wake(at - this.time.own)
      })
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
    this.wake(degraded.failed(failure instanceof StoreError ? failure.cause : failure, wasRead, isReadOnly))
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
    this.doubted = [...this.doubted.slice(1 - maxDoubted), draft]
    const swap = sharing.swap(this.key, this.base.version, draft.next, this.spec.keepFor(draft.state))
    return Effect.flatMap(this.inTime(swap), (stored) => {
      const passed = time.own - from
      // A reply that comes after its timeout means that this process was suspended, so its duration says nothing about the
      // network.
      const took = passed <= sharing.timeoutMillis ? passed : 0
      time.took(took)
      this.receive(stored)
      if (stored?.version === draft.next.version) return Effect.void
      // Another process was faster.
      this.doubted = this.doubted.filter((each) => each !== draft)
      if (conflicts < maxConflicts) return this.commit(conflicts + 1)
      // Too many processes commit at once. After a pause the known state is old, so it is read first.
      const pause = Effect.flatMap(Random.nextBetween(0, 2 * took), Effect.sleep)
      const again = Effect.suspend(() => this.commit(conflicts + 1))
      return Effect.andThen(pause, Effect.andThen(this.read, again))
    })
  }

  private readonly read: Effect.Effect<void, StoreError> = Effect.suspend(() =>
    Effect.map(this.inTime(this.sharing.read(this.key)), (stored) => this.receive(stored))
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
    if (this.hasLeft) return undefined
    const { asked, id, time } = this
    const sentAt = time.own
    const state = this.spec.copy(this.base.state)
    const now = Math.max(time.now, state.time)
    const member = this.enter(state, now)
    const wasWaiting = member.head !== undefined
    const decided = asked?.decision(state, now, Infinity)
    this.isWaiting = member.head !== undefined
    this.commitFor(decided?.blocked)
    const isNews = decided?.isNews === true || wasWaiting !== this.isWaiting
    if (!isNews && !this.isDue) return undefined
    member.dueAt = now + Math.min(decided?.blocked?.millis ?? 0, Time.waitingBeat)
    this.sign(state, member, now)
    const next = { version: `${id}.${member.seq}`, value: this.spec.encode(state) }
    return { state, next, seq: member.seq, steps: this.pending.length, decided, sentAt }
  }

  /** Whether a commit is due, whatever is decided. */
  private get isDue(): boolean {
    const hasNews = this.pending.length > 0 || this.knowsBetter || this.isClosed
    return hasNews || this.time.own >= this.storedAt + this.beatMillis() - 1
  }

  /** Brings a state up to now, with this process and its events in it. */
  private enter(state: S, now: number): MemberOf<S> {
    const { committed, id, spec, options, sharing, time } = this
    Processes.absorb(spec, state, time.utc, now)
    // If processes start with different configurations, that of the last one holds.
    if (committed === undefined && JSON.stringify(state.started) !== JSON.stringify(options.config)) {
      state.started = options.config
      spec.configure(state, options.config, now)
    }
    const member = Processes.enter(spec, state, id, sharing, committed, now)
    state.law.lag = Math.max(time.lag, ...Object.values(state.members).map(({ lag }) => lag))
    this.catchUp(state)
    return member
  }

  /** Updates this process's entry in the state that it commits. */
  private sign(state: S, member: MemberOf<S>, now: number): void {
    const { spec, sharing, time } = this
    member.seq = ++this.seq
    member.at = now
    member.lag = time.lag
    if (sharing.whenAway === "degrade") {
      member.part = spec.partOf(state, member, { fromMillis: this.silentAfter(), untilMillis: sharing.degradeMillis })
    }
    if (this.isClosed) Processes.leave(spec, state, member)
    spec.complete(state)
    state.time = now
  }

  /** Adopts the stored state, which may show that a commit was stored although its reply was lost. */
  private receive(stored: Stored | undefined): void {
    const isSame = stored?.version === this.base.version
    const sent = this.doubted.find(({ next }) => next.version === stored?.version)
    const found = sent?.state ?? (isSame ? undefined : this.decode(stored))
    this.isKnown = true
    this.comeBack()
    const since = this.time.replied(stored?.utc)
    if (isSame) return
    const done = this.take(stored, found, sent, since)
    const view = this.spec.copy(this.base.state)
    this.catchUp(view)
    Effect.runFork(Ref.set(this.view, view))
    if (done !== undefined) this.carryOut(done)
    const { changes } = this.base.state
    if (this.committed === undefined || this.changes === changes) return
    this.changes = changes
    this.options.configured()
  }

  /** Adopts a new state. Returns the commit of this process that is stored in it, if any. */
  private take(
    stored: Stored | undefined,
    found: S | undefined,
    sent: Draft<S> | undefined,
    since: number
  ): Draft<S> | undefined {
    const seq = found?.members[this.id]?.seq ?? 0
    const done = sent ?? this.doubted.find((draft) => draft.seq === seq)
    // A damaged state may count more commits than this process made. The next one must not look older than it.
    this.seq = Math.max(this.seq, seq)
    this.rebase(stored, found, done?.state, since)
    // If the store has lost a commit, another process may restore it later.
    this.doubted = done === undefined ? this.doubted.filter((draft) => draft.seq > seq) : []
    if (done !== undefined) this.stored(done)
    return done
  }

  /** Reports what was used in degraded mode. */
  private comeBack(): void {
    const report = this.degraded.end()
    if (report === undefined) return
    this.record(report)
    this.playOnView(report)
  }

  /** Makes what is stored, and what only this process knows, the base of the next draft. */
  private rebase(stored: Stored | undefined, found: S | undefined, done: S | undefined, since: number): void {
    const known = done ?? (this.hasState ? this.base.state : undefined)
    const ageMillis = found === done ? undefined : stored?.ageMillis
    const hasAll = known === undefined || StoreLoss.includes(found, known)
    const { millis, state } = hasAll ? { state: found!, millis: ageMillis } : this.merge(known, found, ageMillis)
    if (done === undefined) Processes.retract(this.spec, state, this.id, known && membersOf(known)[this.id])
    this.base = { version: stored?.version, state }
    this.hasState = true
    this.knowsBetter = !hasAll
    this.time.follow(state, known === undefined, millis, since)
  }

  /** Merges what the store has with what it has lost. */
  private merge(known: S, found: S | undefined, millis: number | undefined): StoreLoss.Aged<S> {
    const ours = { state: this.spec.copy(known), millis: this.time.now - known.time }
    if (found !== undefined) return StoreLoss.merge(this.spec, ours, { state: found, millis })
    this.spec.lost(ours.state)
    return ours
  }

  private stored({ sentAt, state, steps }: Draft<S>): void {
    this.storedAt = sentAt
    this.pending.splice(0, steps)
    this.committed = membersOf(state)[this.id]
  }

  /** A call that is sent too late could reach the provider together with calls that were admitted after it. */
  private carryOut({ decided, sentAt, state }: Draft<S>): void {
    const isLate = this.time.own - sentAt > state.law.lag
    if (decided !== undefined) this.asked?.done(decided, this, isLate)
  }

  /** A process that knows the state treats a damaged one as missing, and replaces it. */
  private decode(stored: Stored | undefined): S | undefined {
    try {
      return stored && this.spec.decode(stored.value)
    } catch (error) {
      if (error instanceof TooNew) throw error
      if (error instanceof Damaged) error.key = this.key
      this.damage = error
      if (!this.hasState) throw error
      return undefined
    }
  }

  /** Reports a damaged state even if it is replaced, because nothing else would show it. */
  private readonly reportDamage: Effect.Effect<void> = Effect.suspend(() => {
    const { damage, hasState } = this
    if (damage === undefined) return Effect.void
    this.damage = undefined
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
    const isUnknown = this.committed === undefined && this.doubted.length === 0
    if (isUnknown || this.degraded.isAway) return Effect.void
    // If it fails, the lease of this process ends its calls.
    const last = Effect.exit(Effect.suspend(() => this.commit(0)))
    return Effect.asVoid(Effect.timeoutOption(this.lock.withPermit(last), this.sharing.timeoutMillis))
  })
}
