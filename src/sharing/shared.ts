/**
 * The port of a pool that processes share: a store. A process applies what has happened to the last state that it knows, and
 * swaps in the result.
 *
 * Observations take effect here at once, on a view of the state, and are played again on the state that is replaced. Decisions
 * take effect when the state that includes them is stored. A process has one request under way for each pool; what happens in
 * the meantime goes into the next one.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Ref from "effect/Ref"
import * as MutableRef from "effect/MutableRef"
import * as Semaphore from "effect/Semaphore"
import type { Blocked } from "../admission/blocked.ts"
import * as Amounts from "../domain/amounts.ts"
import { DegradedMode, type SharedView } from "./degraded.ts"
import * as Members from "./members.ts"
import * as StoreLoss from "./storeLoss.ts"
import { type StoreSettings, StoreError, type Stored } from "./models.ts"
import type { Decided, QueueDecision, Done, Port, PortOptions, StateStep } from "./port.ts"
import * as State from "./state.ts"
import * as Text from "./text.ts"
import * as Time from "./time.ts"

/** After this many conflicts in a row a process waits a little. */
const mostConflicts = 4
/** Of commits that may have been stored, the latest ones are remembered: where a store can only be read, there are ever more. */
const mostDoubted = 20
const damagedStates = Metric.counter("floodgate_budget_damaged_states", {
  description: "States in the store that were damaged, each time that one was read",
  incremental: true
})
/** Whether the store has done what it was asked for is unknown. */
const noReply = new StoreError({ cause: new Error("no reply in time") })

interface PendingStep {
  /** When it happened, by this process's clock: it may not know the pool's time yet. */
  readonly at: number
  readonly step: StateStep<unknown>
}

/** The decision that callers wait for. It stands until it is replaced, and is played with each commit. */
interface AskedDecision {
  readonly decision: QueueDecision<Decided>
  readonly done: Done<Decided>
}

/** A new state that this process tries to store. */
interface Draft {
  readonly state: State.PoolState
  readonly next: Stored
  readonly seq: number
  readonly operations: number
  readonly decided: Decided | undefined
  /** When it was made, by this process's clock. */
  readonly sentAt: number
}

export class SharedPort implements Port, SharedView {
  readonly id: string
  readonly batch = Infinity
  private readonly opening: PortOptions
  private readonly sharing: StoreSettings
  private readonly time: Time.Time
  /** The last state that is known to be stored, which is never changed. `version` is undefined if none is stored. */
  private base: { readonly version: string | undefined; readonly state: State.PoolState }
  /** The same with everything that has happened here since. */
  private readonly view: Ref.Ref<State.PoolState>
  /** Whether a reply has arrived since the last failure. */
  private isKnown = false
  /** Whether the base is more than what this process was started with: the store may be empty, and we know better. */
  private hasState = false
  /** Whether the store has lost something that the base has. */
  private knowsBetter = false
  private hasJoined = false
  private pending: Array<PendingStep> = []
  private asked: AskedDecision | undefined = undefined
  /** Whether a call waits for the decision, which could go as far as its process is concerned. */
  private isWaiting = false
  /** Commits whose outcome is unknown. At most one of them was stored. */
  private doubted: Array<Draft> = []
  /** This process as of its last commit. */
  private committed: State.Member | undefined = undefined
  private seq = 0
  private changes = 0
  /**
   * By this process's clock: when the last commit was sent, when the last stored commit was sent, and when something last
   * happened that the others should know.
   */
  sentAt = -Infinity
  private storedAt = -Infinity
  private activeAt = -Infinity
  /** Why a state could not be read, until that is reported. */
  private damage: unknown = undefined
  private readonly degraded: DegradedMode
  private dueAt = Infinity
  private cancel: (() => void) | undefined = undefined
  private isBusy = false
  private isClosed = false
  private readonly lock = Semaphore.makeUnsafe(1)

  constructor(opening: PortOptions, sharing: StoreSettings) {
    this.opening = opening
    this.sharing = sharing
    this.id = opening.id
    this.time = new Time.Time(opening.clock)
    const state = State.make(opening.config, this.time.now, this.id)
    this.view = Ref.makeUnsafe(state)
    this.base = { version: undefined, state }
    this.degraded = new DegradedMode(opening, sharing, this.time, this)
  }

  get lag(): number {
    return this.sharing.timeoutMillis
  }

  readonly now = (): number => this.time.now

  get state(): State.PoolState {
    return this.degraded.port?.state ?? this.known
  }

  get known(): State.PoolState {
    return Ref.getUnsafe(this.view)
  }
  get parts(): ReadonlyArray<State.MemberPart | undefined> {
    if (!this.hasJoined) return [undefined]
    return [this.member?.part, ...this.doubted.map(({ state }) => state.members[this.id]?.part)]
  }
  readonly isPending = (step: StateStep<void>): boolean => this.pending.some((each) => each.step === step)
  readonly askAgain = (): void => {
    if (this.asked !== undefined) this.ask(this.asked)
  }

  private get member(): State.Member | undefined {
    return this.known.members[this.id]
  }

  /** The calls of this process that are in flight. */
  private get inFlight(): number {
    return this.member?.inFlight ?? 0
  }

  private get hasLeft(): boolean {
    return this.base.state.members[this.id]?.hasLeft === true
  }

  /** Whether the store answers, so that what happened here is there. */
  get isStored(): boolean {
    return !this.degraded.isAway && this.degraded.port === undefined
  }

  readonly rest = undefined

  // ---------------------------------------------------------------------------
  // Events
  // ---------------------------------------------------------------------------

  transact<A>(observation: StateStep<A>): A
  transact<A extends Decided>(decision: QueueDecision<A>, done: Done<A>): void
  transact<A extends Decided>(step: QueueDecision<A>, done?: Done<A>): A | void {
    if (done === undefined) return this.observe(step as StateStep<A>)
    this.ask({ decision: step, done: done as Done<Decided> })
  }

  /** Plays a step on the view. */
  private show<A>(step: StateStep<A>): A {
    const draft = State.copy(this.known)
    const answer = step(draft, this.time.now)
    MutableRef.set(this.view.ref, draft)
    return answer
  }

  /** An observation takes effect here at once, and for all processes with the next commit. */
  private observe<A>(step: StateStep<A>): A {
    // Since this process has left, nobody counts its calls any more.
    if (this.hasLeft) return step(State.copy(this.known), this.time.now)
    this.record(step)
    const { changes } = this.known
    const before = this.inFlight
    const answer = this.show(step)
    this.degraded.port?.ended(before - this.inFlight)
    const { gate } = this.known.law
    const isUrgent = gate.misses > 0 || gate.until > this.time.now || this.known.changes !== changes
    this.soon(isUrgent ? 0 : Time.flushIn(this.known, this.id))
    return answer
  }

  private record(step: StateStep<unknown>): void {
    this.activeAt = this.time.own
    this.pending.push({ at: this.activeAt, step })
  }

  /** Plays what the state does not have yet. */
  private catchUp(state: State.PoolState): void {
    for (const { at, step } of this.pending) step(state, this.time.at(at))
  }

  /** Calls wait for a decision: schedules a commit for when the first of them can be admitted. */
  private ask(asked: AskedDecision): void {
    this.asked = asked
    const { degraded } = this
    if (degraded.port?.isOver === false) return degraded.port.transact(asked.decision, asked.done)
    if (degraded.isAway) return degraded.refuse()
    this.activeAt = this.time.own
    this.isWaiting = true
    if (!this.isKnown) return this.soon(0)
    const { blocked = { by: "pause", millis: 0 } } = asked.decision(State.copy(this.known), this.time.now, 1)
    this.lookFor(blocked)
  }

  // ---------------------------------------------------------------------------
  // Timing
  // ---------------------------------------------------------------------------

  /** Whether nothing has happened here for long, and the others know all of it. */
  private isIdle(): boolean {
    const isUsed = this.isWaiting || this.inFlight > 0 || this.doubted.length > 0
    return !isUsed && this.time.own - this.activeAt > Time.idleMillis
  }

  /** How long after a commit the others count this process as silent, and it may go alone. */
  private silentAfter(): number {
    return this.isIdle() ? this.sharing.leaseMillis : Time.silentAfter(this.time.lag)
  }

  /** The longest time without a commit. */
  private beatMillis(): number {
    // The last commit says when the others count this process as silent.
    if (this.sharing.whenAway === "degrade") return (this.member?.part?.fromMillis ?? 0) / 4
    if (this.isWaiting) return Time.waitingBeat
    // A process that joins later takes the time from the state, so it must advance while the pool pauses.
    const rests = this.isIdle() && this.known.law.gate.until <= this.time.now
    return rests ? Infinity : this.sharing.leaseMillis / 4
  }

  /** Schedules the next turn, in this many milliseconds at the latest. A store that is away is asked at its own interval. */
  private soon(millis: number): void {
    if (!this.degraded.isAway) this.wake(millis)
  }

  private lookFor(blocked: Blocked | undefined): void {
    if (blocked !== undefined) this.soon(Time.readIn(this.known.law, blocked))
  }

  private wake(millis: number): void {
    const at = this.time.own + Math.max(0, millis)
    if (at >= this.dueAt || this.isClosed) return
    this.dueAt = at
    if (this.isBusy) return
    this.cancel?.()
    this.cancel = this.opening.after(Math.max(0, millis), this.turn)
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
          Effect.catchCause(exchanged, (cause) => this.failed(cause)),
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
    // A store that can be read and refuses to write, such as a replica, is away too.
    const isReadOnly = wasRead && failure !== noReply
    this.wake(degraded.failed(failure instanceof StoreError ? failure.cause : failure, wasRead, isReadOnly))
    degraded.refuse()
    return wasAway ? Effect.void : Effect.logWarning(`The store of pool "${this.opening.name}" is away`, cause)
  }

  private succeeded(): Effect.Effect<void> {
    if (!this.degraded.isAway) return Effect.void
    this.degraded.succeeded()
    this.soon(0)
    return Effect.logInfo(`The store of pool "${this.opening.name}" is back`)
  }

  // ---------------------------------------------------------------------------
  // The exchange
  // ---------------------------------------------------------------------------

  /** Reads the state if it is not known; then commits what has happened, again as long as other processes are faster. */
  private readonly exchange: Effect.Effect<void, StoreError> = Effect.suspend(() => {
    if (!this.isKnown) return Effect.flatMap(this.read, () => this.commit(0))
    const draft = this.draft()
    // There is nothing to commit, so the state is read.
    return draft === undefined ? Effect.flatMap(this.read, () => this.commit(0)) : this.send(draft, 0)
  })

  private commit(conflicts: number): Effect.Effect<void, StoreError> {
    const draft = this.draft()
    return draft === undefined ? Effect.void : this.send(draft, conflicts)
  }

  private send(draft: Draft, conflicts: number): Effect.Effect<void, StoreError> {
    const { sharing, time } = this
    const from = draft.sentAt
    this.sentAt = from
    this.doubted = [...this.doubted.slice(1 - mostDoubted), draft]
    const swap = sharing.swap(State.keyOf(this.opening.name), this.base.version, draft.next, Time.keepFor(draft.state))
    return Effect.flatMap(this.inTime(swap), (stored) => {
      const passed = time.own - from
      // A reply that comes after its timeout says nothing about the network: the process stood still.
      const took = passed <= sharing.timeoutMillis ? passed : 0
      time.took(took)
      this.receive(stored)
      if (stored?.version === draft.next.version) return Effect.void
      // Somebody was faster.
      this.doubted = this.doubted.filter((each) => each !== draft)
      if (conflicts < mostConflicts) return this.commit(conflicts + 1)
      // Too many processes commit at once. After the pause the state is old, so it is read first.
      const pause = Effect.flatMap(Random.nextBetween(0, 2 * took), Effect.sleep)
      const again = Effect.suspend(() => this.commit(conflicts + 1))
      return Effect.andThen(pause, Effect.andThen(this.read, again))
    })
  }

  private readonly read: Effect.Effect<void, StoreError> = Effect.suspend(() =>
    Effect.map(this.inTime(this.sharing.read(State.keyOf(this.opening.name))), (stored) => this.receive(stored))
  )

  private inTime<A>(call: Effect.Effect<A, StoreError>): Effect.Effect<A, StoreError> {
    const { timeoutMillis, whenAway } = this.sharing
    return Effect.timeoutOrElse(call, {
      duration: whenAway === "degrade" ? Math.min(timeoutMillis, Time.silentAfter(this.time.lag)) : timeoutMillis,
      orElse: () => Effect.fail(noReply)
    })
  }

  /** The last state with what has happened since, and with the calls admitted now; undefined if nothing is new. */
  private draft(): Draft | undefined {
    if (this.hasLeft) return undefined
    const { asked, id, time } = this
    const sentAt = time.own
    const state = State.copy(this.base.state)
    const now = Math.max(time.now, state.time)
    const member = this.enter(state, now)
    const wasWaiting = member.head !== undefined
    const decided = asked?.decision(state, now, Infinity)
    this.isWaiting = member.head !== undefined
    this.lookFor(decided?.blocked)
    const isNews = decided?.isNews === true || wasWaiting !== this.isWaiting
    if (!isNews && !this.isDue) return undefined
    member.dueAt = now + Math.min(decided?.blocked?.millis ?? 0, Time.waitingBeat)
    this.sign(state, member, now)
    const next = { version: `${id}.${member.seq}`, value: Text.encode(state) }
    return { state, next, seq: member.seq, operations: this.pending.length, decided, sentAt }
  }

  /** Whether the others have to hear of this process, whatever is decided. */
  private get isDue(): boolean {
    const hasNews = this.pending.length > 0 || this.knowsBetter || this.isClosed
    return hasNews || this.time.own >= this.storedAt + this.beatMillis() - 1
  }

  /** Brings a state up to now, with this process in it and what has happened here. */
  private enter(state: State.PoolState, now: number): State.Member {
    const { id, sharing, time } = this
    Members.absorb(state, now)
    if (!this.hasJoined) Members.start(state, this.opening.config, now)
    const member = Members.enter(state, id, { ...nobody, ...sharing, ...this.committed }, now)
    this.catchUp(state)
    state.law.lag = Math.max(time.lag, ...Object.values(state.members).map(({ lag }) => lag))
    return member
  }

  /** What a state says of the process that commits it. */
  private sign(state: State.PoolState, member: State.Member, now: number): void {
    const { sharing, time } = this
    member.seq = ++this.seq
    member.at = now
    member.lag = time.lag
    if (sharing.whenAway === "degrade") {
      member.part = Members.partOf(state, member, { from: this.silentAfter(), until: sharing.degradeMillis })
    }
    if (this.isClosed) Members.leave(state.law, member)
    Members.count(state)
    state.time = now
  }

  /** Takes in what is stored now. It may show that a commit was stored whose own reply was lost. */
  private receive(stored: Stored | undefined): void {
    const isSame = stored?.version === this.base.version
    const sent = this.doubted.find(({ next }) => next.version === stored?.version)
    const found = sent?.state ?? (isSame ? undefined : this.decode(stored))
    this.isKnown = true
    this.comeBack()
    const since = this.time.replied()
    if (isSame) return
    const done = this.take(stored, found, sent, since)
    const view = State.copy(this.base.state)
    this.catchUp(view)
    MutableRef.set(this.view.ref, view)
    if (done !== undefined) this.carryOut(done)
    this.noticeChanges(this.base.state.changes)
  }

  /** Another state than before is stored. Returns the commit of this process that it shows to be stored. */
  private take(
    stored: Stored | undefined,
    found: State.PoolState | undefined,
    sent: Draft | undefined,
    since: number
  ): Draft | undefined {
    const seq = found?.members[this.id]?.seq ?? 0
    const done = sent ?? this.doubted.find((draft) => draft.seq === seq)
    // Where a damaged state counts more commits than we made, the others would take the next one for a loss of the store.
    this.seq = Math.max(this.seq, seq)
    this.rebase(stored, found, done?.state, since)
    // What the store has lost others may know: then a commit that was stored comes to light later.
    this.doubted = done === undefined ? this.doubted.filter((draft) => draft.seq > seq) : []
    if (done !== undefined) this.joined(done)
    return done
  }

  private noticeChanges(changes: number): void {
    if (!this.hasJoined || this.changes === changes) return
    this.changes = changes
    this.opening.configured()
  }

  /** What was used alone. */
  private comeBack(): void {
    const report = this.degraded.end()
    if (report === undefined) return
    this.record(report)
    this.show(report)
  }

  /** The next draft begins with what is stored, and what only this process knows. */
  private rebase(
    stored: Stored | undefined,
    found: State.PoolState | undefined,
    done: State.PoolState | undefined,
    since: number
  ): void {
    const known = done ?? (this.hasState ? this.base.state : undefined)
    const ageMillis = found === done ? undefined : stored?.ageMillis
    // The store may have lost a state that we know.
    const hasAll = known === undefined || StoreLoss.includes(found, known)
    const { millis, state } = hasAll ? { state: found!, millis: ageMillis } : this.merge(known, found, ageMillis)
    if (done === undefined) Members.retract(state, this.id, known?.members[this.id])
    this.base = { version: stored?.version, state }
    this.hasState = true
    this.knowsBetter = !hasAll
    this.time.follow(state, known === undefined, millis, since)
  }

  /** What the store has lost, and what it has. */
  private merge(
    known: State.PoolState,
    found: State.PoolState | undefined,
    millis: number | undefined
  ): StoreLoss.Aged {
    const ours = { state: State.copy(known), millis: this.time.now - known.time }
    return found === undefined ? ours : StoreLoss.merge(ours, { state: found, millis })
  }

  /** A commit is stored. */
  private joined({ operations, sentAt, state }: Draft): void {
    this.hasJoined = true
    this.storedAt = sentAt
    this.pending.splice(0, operations)
    this.committed = state.members[this.id]
  }

  /** A call that is sent later than the pool assumes could meet other calls at the provider. */
  private carryOut({ decided, sentAt, state }: Draft): void {
    const isLate = this.time.own - sentAt > state.law.lag
    if (decided !== undefined) this.asked?.done(decided, this, isLate)
  }

  /** A process that knows the state replaces a damaged one, as one that is missing. */
  private decode(stored: Stored | undefined): State.PoolState | undefined {
    try {
      return stored && Text.decode(stored.value)
    } catch (error) {
      this.damage = error
      if (!this.hasState) throw error
      return undefined
    }
  }

  /** Reports a damaged state, which may have been replaced: then nothing else shows it. */
  private readonly reportDamage: Effect.Effect<void> = Effect.suspend(() => {
    const { damage, hasState } = this
    const { name } = this.opening
    if (damage === undefined) return Effect.void
    this.damage = undefined
    const counted = Metric.update(Metric.withAttributes(damagedStates, { pool: name }), 1)
    const what = `The state of pool "${name}" in the store was damaged, and is replaced by what this process knows`
    return hasState ? Effect.andThen(counted, Effect.logWarning(what, damage)) : counted
  })

  // ---------------------------------------------------------------------------
  // The end
  // ---------------------------------------------------------------------------

  /** Leaves the pool, and tells the others. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.isClosed = true
    const isUnknown = !this.hasJoined && this.doubted.length === 0
    if (isUnknown || this.degraded.isAway) return Effect.void
    // An error here, or a state that cannot be read, concerns nobody any more.
    const last = Effect.exit(Effect.suspend(() => this.commit(0)))
    return Effect.asVoid(Effect.timeoutOption(this.lock.withPermit(last), this.sharing.timeoutMillis))
  })
}

/** A process that has not committed yet. */
const nobody = { inFlight: 0, held: Amounts.nothing, spent: Amounts.nothing }
