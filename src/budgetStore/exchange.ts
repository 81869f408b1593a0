/**
 * A pool whose state processes share. A process applies what has happened to the last state that it knows, and swaps in the
 * result.
 *
 * Everything but admission takes effect here at once, on a view of the state, and is applied again to the state that is
 * replaced. Callers are admitted when the state that includes them is stored. A process has one request under way for each
 * pool; what happens in the meantime goes into the next one.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import * as Semaphore from "effect/Semaphore"
import * as Law from "../admission/law.ts"
import * as Amounts from "../limits/amounts.ts"
import * as Rules from "../limits/rules.ts"
import * as Fleet from "./fleet.ts"
import type { Front, Host, Outcome, Plan } from "./host.ts"
import { type Settings, StoreError, type Stored } from "./models.ts"
import * as Pace from "./pace.ts"
import * as State from "./state.ts"
import * as Text from "./text.ts"

/** After this many conflicts in a row a process waits a little. */
const mostConflicts = 4
/** Of commits that may have been stored, the latest ones are remembered: where a store can only be read, there are ever more. */
const mostDoubted = 20
/** The interval between attempts to reach a store. */
const retryMillis = 500
/** A store that refuses to write is asked again after as long as it has been away, up to this. */
const longestRetryMillis = 60_000
const damagedStates = Metric.counter("floodgate_budget_damaged_states", {
  description: "States in the store that were damaged, each time that one was read",
  incremental: true
})
/** Whether the store has done what it was asked for is unknown. */
const noReply = new StoreError({ cause: new Error("no reply in time") })

interface Operation {
  /** When it happened, by this process's clock: it may not know the pool's time yet. */
  readonly at: number
  readonly run: (state: State.State, at: number) => void
}

/** A new state that this process tries to store. */
interface Draft<W> {
  readonly state: State.State
  readonly next: Stored
  readonly seq: number
  readonly operations: number
  readonly plan: Plan<W>
  /** When it was made, by this process's clock. */
  readonly sentAt: number
}

/** The law of a process that continues with its part, as it began and as it is. */
interface Alone {
  readonly began: Law.Pool
  readonly law: Law.Pool
  readonly most: number
  readonly tickets: Set<Law.Ticket>
}

export class Exchange<W> {
  private readonly host: Host<W>
  private readonly sharing: Settings
  private readonly id: string
  /** The last state that is known to be stored; `version` is undefined if there is none. It is never changed. */
  private base: { readonly version: string | undefined; readonly state: State.State }
  /** The same with everything that has happened here since. */
  private view: State.State
  /** Whether a reply has arrived since the last failure. */
  private isKnown = false
  /** Whether the base is more than what this process was started with: the store may be empty, and we know better. */
  private hasState = false
  /** Whether the store has lost something that the base has. */
  private knowsBetter = false
  private hasJoined = false
  private pending: Array<Operation> = []
  /** Commits whose outcome is unknown. At most one of them was stored. */
  private doubted: Array<Draft<W>> = []
  private readonly open = new Set<Law.Ticket>()
  private spent: Amounts.Whole = Amounts.nothing
  /** Our calls in flight according to the last commit. */
  private committed = { inFlight: 0, held: Amounts.nothing }
  private seq = 0
  private changes = 0
  private offset = 0
  private lag = Pace.firstLag
  /**
   * By this process's clock: when the last commit was sent, when the last stored commit was sent, and when something last
   * happened that the others should know.
   */
  private sentAt = -Infinity
  private storedAt = -Infinity
  /** When the last reply arrived. */
  private repliedAt = Infinity
  private activeAt = -Infinity
  /** Why a state could not be read, until that is reported. */
  private damage: unknown = undefined
  private awaySince: number | undefined = undefined
  private error: unknown = undefined
  private alone: Alone | undefined = undefined
  /** What was left of its part when this process last returned to the store, and the operation that reports it. */
  private last: { readonly law: Law.Pool; readonly report: Operation } | undefined = undefined
  private dueAt = Infinity
  private cancel: (() => void) | undefined = undefined
  private isBusy = false
  private isClosed = false
  private readonly lock = Semaphore.makeUnsafe(1)

  constructor(host: Host<W>, sharing: Settings, id: string) {
    this.host = host
    this.sharing = sharing
    this.id = id
    this.view = State.make(host.config, this.now(), id)
    this.base = { version: undefined, state: State.copy(this.view) }
  }

  /** Milliseconds of this process's monotonic clock. */
  private clockNow(): number {
    return Number(this.host.clock.monotonicTimeNanosUnsafe()) / 1e6
  }

  /** The pool's time: the same in all processes, as far as they know, and never before that of a state. */
  now(): number {
    return this.clockNow() + this.offset
  }

  /** The law as this process knows it. */
  get law(): Law.Pool {
    return this.alone?.law ?? this.view.law
  }

  /** The law of all processes, also while this one decides alone. */
  get shared(): Law.Pool {
    return this.view.law
  }

  private get hasLeft(): boolean {
    return this.base.state.owners[this.id]?.hasLeft === true
  }

  /** The law of a process that decides alone, and its most calls in flight; undefined while the store can be reached. */
  get own(): { readonly law: Law.Pool; readonly most: number } | undefined {
    return this.alone
  }

  /** The most calls in flight of all processes together. */
  get most(): number {
    return this.alone?.most ?? this.view.config.concurrency
  }

  // ---------------------------------------------------------------------------
  // Events
  // ---------------------------------------------------------------------------

  /** Applies an event: here at once, and for all processes with the next commit. `used` is given if it ends the call. */
  apply<A>(run: (law: Law.Pool, now: number) => A, ticket: Law.Ticket | undefined, used?: Amounts.Charge): A {
    const now = this.now()
    const { alone } = this
    // Since this process has left, nobody counts its calls any more.
    if (this.hasLeft) return run(State.copy(this.view).law, now)
    if (ticket !== undefined && used !== undefined) this.end(ticket, used)
    if (ticket !== undefined && alone !== undefined) {
      if (alone.tickets.has(ticket)) {
        if (used !== undefined) alone.tickets.delete(ticket)
        return run(alone.law, now)
      }
      if (used !== undefined) alone.law.inFlight--
    }
    this.record((state, at) => void run(state.law, at))
    const result = run(this.view.law, now)
    const { gate } = this.view.law
    this.soon(gate.misses > 0 || gate.until > now ? 0 : Pace.flushIn(this.view, this.id))
    return result
  }

  private end(ticket: Law.Ticket, used: Amounts.Charge): void {
    this.open.delete(ticket)
    this.spent = Fleet.plus(this.spent, Fleet.plus({ ...ticket.charge, ...used }, ticket.charge, -1))
  }

  private record(run: Operation["run"]): Operation {
    const operation = { at: this.clockNow(), run }
    this.pending.push(operation)
    this.activeAt = operation.at
    return operation
  }

  /** Plays what the state does not have yet. */
  private catchUp(state: State.State): void {
    for (const { at, run } of this.pending) run(state, at + this.offset)
  }

  /** Corrects what the fair queue was charged for a call. */
  correct(cost: number): void {
    this.record((state) => {
      const owner = state.owners[this.id]
      if (owner !== undefined) owner.tag += cost
    })
  }

  /** Sets other limits for all processes. */
  resize(config: State.Config): void {
    this.record((state, at) => Fleet.configure(state, config, at))
    Fleet.configure(this.view, config, this.now())
    this.soon(0)
  }

  /** Says how the provider counts the limits that were stated. False if others are in force. */
  refine(stated: Rules.Rules, config: State.Config): boolean {
    const isStated = (state: State.State): boolean => Rules.sameRules(state.config.rules, stated)
    this.record((state, at) => {
      if (isStated(state)) Fleet.configure(state, config, at)
    })
    if (!isStated(this.view)) return false
    Fleet.configure(this.view, config, this.now())
    return true
  }

  /** Records a call that was admitted by this process's part. */
  takenAlone(ticket: Law.Ticket): void {
    this.alone?.tickets.add(ticket)
    this.spent = Fleet.plus(this.spent, ticket.charge)
  }

  private take(ticket: Law.Ticket): void {
    this.open.add(ticket)
    this.spent = Fleet.plus(this.spent, ticket.charge)
  }

  // ---------------------------------------------------------------------------
  // Timing
  // ---------------------------------------------------------------------------

  /** Called when the queue has changed: schedules a commit for when its first caller can be admitted. */
  ask(): void {
    const front = this.host.front()
    if (front === undefined) return
    if (this.awaySince !== undefined) return this.refuse()
    this.activeAt = this.clockNow()
    if (this.isKnown) this.lookFor(this.blockedNow(front) ?? { millis: 0, dimension: undefined })
    else this.soon(0)
  }

  /** Reads the state now. */
  look(): void {
    this.activeAt = this.clockNow()
    this.soon(0)
  }

  private blockedNow(front: Front): Law.Blocked | undefined {
    const now = this.now()
    const owner = this.view.owners[this.id]
    const tag = owner === undefined ? this.view.virtual : Fleet.startTag(this.view, owner)
    const ahead = Fleet.aheadOf(this.view, this.id, { ...front, tag }, now)
    return Fleet.decide(this.view.law, front.charge, ahead, Fleet.mostInFlight(this.view, now), now)
  }

  /** Whether nothing has happened here for long, and the others know all of it. */
  private isIdle(): boolean {
    const isUsed = this.host.front() !== undefined || this.open.size > 0 || this.doubted.length > 0
    return !isUsed && this.clockNow() - this.activeAt > Pace.restMillis
  }

  /** How long after a commit the others count this process as silent, and it may go alone. */
  private silentAfter(): number {
    return this.isIdle() ? this.sharing.leaseMillis : Pace.silentAfter(this.lag)
  }

  /** The longest time without a commit. */
  private beatMillis(): number {
    // The last commit says when the others count this process as silent.
    if (this.sharing.whenAway === "degrade") return (this.view.owners[this.id]?.part?.fromMillis ?? 0) / 4
    if (this.host.front() !== undefined) return Pace.waitingBeat
    // A process that joins later takes the time from the state, so it must advance while the pool pauses.
    const rests = this.isIdle() && this.view.law.gate.until <= this.now()
    return rests ? Infinity : this.sharing.leaseMillis / 4
  }

  /** Schedules the next turn, in this many milliseconds at the latest. A store that is away is asked at its own interval. */
  private soon(millis: number): void {
    if (this.awaySince === undefined) this.wake(millis)
  }

  private wake(millis: number): void {
    const at = this.clockNow() + Math.max(0, millis)
    if (at >= this.dueAt || this.isClosed) return
    this.dueAt = at
    if (this.isBusy) return
    this.cancel?.()
    this.cancel = this.host.after(Math.max(0, millis), this.turn)
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
        const beatAt = this.awaySince === undefined ? this.storedAt + this.beatMillis() : Infinity
        const at = Math.min(this.dueAt, beatAt)
        this.isBusy = false
        this.dueAt = Infinity
        if (at < Infinity) this.wake(at - this.clockNow())
      })
    )
  })

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

  private send(draft: Draft<W>, conflicts: number): Effect.Effect<void, StoreError> {
    const { sharing } = this
    const from = draft.sentAt
    this.sentAt = from
    this.doubted = [...this.doubted.slice(1 - mostDoubted), draft]
    const swap = sharing.swap(State.keyOf(this.host.name), this.base.version, draft.next, Pace.keepFor(draft.state))
    return Effect.flatMap(this.inTime(swap), (stored) => {
      const passed = this.clockNow() - from
      // A reply that comes after its timeout says nothing about the network: the process stood still.
      const took = passed <= sharing.timeoutMillis ? passed : 0
      this.lag = Pace.lagAfter(this.lag, took)
      this.receive(stored)
      if (stored?.version === draft.next.version) return Effect.void
      // Somebody was faster.
      this.doubted = this.doubted.filter((each) => each !== draft)
      if (conflicts < mostConflicts) return this.commit(conflicts + 1)
      // Too many processes commit at once. After the pause the state is old, so it is read first.
      const pause = Effect.flatMap(Random.nextBetween(0, 2 * took), Effect.sleep)
      return Effect.andThen(
        pause,
        Effect.andThen(
          this.read,
          Effect.suspend(() => this.commit(conflicts + 1))
        )
      )
    })
  }

  private readonly read: Effect.Effect<void, StoreError> = Effect.suspend(() =>
    Effect.map(this.inTime(this.sharing.read(State.keyOf(this.host.name))), (stored) => this.receive(stored))
  )

  private inTime<A>(call: Effect.Effect<A, StoreError>): Effect.Effect<A, StoreError> {
    const { timeoutMillis, whenAway } = this.sharing
    return Effect.timeoutOrElse(call, {
      duration: whenAway === "degrade" ? Math.min(timeoutMillis, Pace.silentAfter(this.lag)) : timeoutMillis,
      orElse: () => Effect.fail(noReply)
    })
  }

  /** The last state with what has happened since, and with the callers admitted now; undefined if nothing is new. */
  private draft(): Draft<W> | undefined {
    const { host, id, sharing } = this
    if (this.hasLeft) return undefined
    const sentAt = this.clockNow()
    const state = State.copy(this.base.state)
    const now = Math.max(this.now(), state.time)
    Fleet.absorb(state, now)
    if (!this.hasJoined) Fleet.start(state, host.config, now)
    const owner = Fleet.enter(state, id, { ...sharing, ...this.committed }, now)
    this.catchUp(state)
    state.law.lag = Math.max(this.lag, ...Object.values(state.owners).map(({ lag }) => lag))
    const tag = Fleet.startTag(state, owner)
    const most = Fleet.mostInFlight(state, now)
    const plan = host.plan(state.law, now, (front, served) =>
      Fleet.decide(state.law, front.charge, Fleet.aheadOf(state, id, { ...front, tag: tag + served }, now), most, now)
    )
    this.lookFor(plan.blocked)
    const hasNews = this.pending.length > 0 || plan.outcomes.length > 0 || this.knowsBetter || this.isClosed
    const isDue = this.clockNow() >= this.storedAt + this.beatMillis() - 1
    if (!hasNews && !isDue && (owner.head === undefined) === (plan.front === undefined)) return undefined
    owner.seq = ++this.seq
    owner.at = now
    owner.dueAt = now + Math.min(plan.blocked?.millis ?? 0, Pace.waitingBeat)
    owner.lag = this.lag
    owner.tag = tag + plan.served
    const taken = plan.outcomes.flatMap(({ ticket }) => ticket ?? [])
    const held = sumOf(taken)
    owner.inFlight = this.open.size + taken.length
    owner.held = Fleet.plus(sumOf(this.open), held)
    owner.spent = Fleet.plus(this.spent, held)
    Fleet.wait(state, owner, plan.front)
    if (sharing.whenAway === "degrade") {
      owner.part = Fleet.partOf(state, owner, { from: this.silentAfter(), until: sharing.degradeMillis })
    }
    if (this.isClosed) Fleet.leave(state.law, owner)
    Fleet.count(state)
    state.time = now
    const next = { version: `${id}.${owner.seq}`, value: Text.encode(state) }
    return { state, next, seq: owner.seq, operations: this.pending.length, plan, sentAt }
  }

  private lookFor(blocked: Law.Blocked | undefined): void {
    if (blocked !== undefined) this.soon(Pace.lookIn(this.view.law, blocked))
  }

  /** Takes in what is stored now. It may show that a commit was stored whose own reply was lost. */
  private receive(stored: Stored | undefined): void {
    const isSame = stored?.version === this.base.version
    let done = this.doubted.find(({ next }) => next.version === stored?.version)
    const found = done?.state ?? (stored === undefined || isSame ? undefined : this.decode(stored.value))
    this.isKnown = true
    if (this.alone !== undefined) this.comeBack(this.alone)
    const since = Math.max(0, this.clockNow() - this.repliedAt)
    this.repliedAt = this.clockNow()
    if (isSame) return
    done ??= this.doubted.find(({ seq }) => seq === found?.owners[this.id]?.seq)
    // Where a damaged state counts more commits than we made, the others would take the next one for a loss of the store.
    this.seq = Math.max(this.seq, found?.owners[this.id]?.seq ?? 0)
    const known = done?.state ?? (this.hasState ? this.base.state : undefined)
    const own = known?.owners[this.id]
    // The store may have lost a state that we know.
    const hasAll = known === undefined || (found !== undefined && Fleet.includes(found, known))
    const age = found === done?.state ? undefined : stored?.ageMillis
    const { millis, state } = hasAll ? { state: found!, millis: age } : this.merge(known, found, age)
    if (done === undefined) Fleet.retract(state, this.id, own)
    this.base = { version: stored?.version, state }
    this.hasState = true
    this.knowsBetter = !hasAll
    // What the store has lost others may know: then a commit that was stored comes to light later.
    const seq = found?.owners[this.id]?.seq ?? 0
    this.doubted = done === undefined ? this.doubted.filter((draft) => draft.seq > seq) : []
    this.follow(state, known === undefined, millis, since)
    this.view = State.copy(state)
    if (done !== undefined) {
      this.hasJoined = true
      this.storedAt = done.sentAt
      this.pending.splice(0, done.operations)
      const { held, inFlight } = done.state.owners[this.id]!
      this.committed = { inFlight, held }
    }
    this.catchUp(this.view)
    // A call that is sent later than the pool assumes could meet other calls at the provider.
    const isLate = done !== undefined && this.clockNow() - done.sentAt > done.state.law.lag
    for (const outcome of done?.plan.outcomes ?? []) this.carryOut(outcome, isLate)
    if (this.hasJoined && this.changes !== state.changes) {
      this.changes = state.changes
      this.host.configure(state.config)
    }
  }

  /** What the store has lost, and what it has. */
  private merge(known: State.State, found: State.State | undefined, millis: number | undefined): Fleet.Aged {
    const ours = { state: known, millis: this.now() - known.time }
    return found === undefined ? ours : Fleet.merge(ours, { state: found, millis })
  }

  /**
   * Sets the pool's time by a state: it is as much later as the state is old, and no more time has passed than since the
   * state was stored and while it was on its way. A commit that came late makes a process that starts late, too: then all
   * have to be.
   */
  private follow(state: State.State, isFirst: boolean, ageMillis: number | undefined, since: number): void {
    const earliest = state.time - this.clockNow()
    const age = Math.max(0, ageMillis ?? (isFirst ? 0 : Infinity))
    const latest = earliest + age + (isFirst ? 0 : state.law.lag + this.lag)
    // The clock of Redis may have been set: more than since the last reply has not passed.
    const passed = ageMillis === undefined ? 0 : Math.min(age, since)
    // Where it was too late by more than messages take, it may not be later than need be: each process would add to it.
    this.offset = isFirst ? latest : Math.max(earliest + passed, this.offset > latest ? -Infinity : this.offset)
  }

  /** A process that knows the state replaces a damaged one, as one that is missing. */
  private decode(text: string): State.State | undefined {
    try {
      return Text.decode(text)
    } catch (error) {
      this.damage = error
      if (!this.hasState) throw error
      return undefined
    }
  }

  /** Reports a damaged state, which may have been replaced: then nothing else shows it. */
  private readonly reportDamage: Effect.Effect<void> = Effect.suspend(() => {
    const { damage, hasState, host } = this
    if (damage === undefined) return Effect.void
    this.damage = undefined
    const counted = Metric.update(Metric.withAttributes(damagedStates, { pool: host.name }), 1)
    const what = `The state of pool "${host.name}" in the store was damaged, and is replaced by what this process knows`
    return hasState ? Effect.andThen(counted, Effect.logWarning(what, damage)) : counted
  })

  /** Admits or refuses a caller. If it is gone, or would be sent too late, its charge is returned. */
  private carryOut(outcome: Outcome<W>, isLate: boolean): void {
    const { ticket } = outcome
    if (ticket === undefined) return void this.host.carryOut(outcome)
    this.take(ticket)
    if (!isLate && this.host.carryOut(outcome)) return
    this.apply((law, now) => Law.release(law, ticket, Amounts.nothing, now), ticket, Amounts.nothing)
    // A caller that would be sent too late still waits.
    if (isLate) this.soon(0)
  }

  // ---------------------------------------------------------------------------
  // When the store cannot be reached
  // ---------------------------------------------------------------------------

  private failed(cause: Cause.Cause<StoreError>): Effect.Effect<void> {
    const error = Cause.squash(cause)
    this.error = error instanceof StoreError ? error.cause : error
    const now = this.clockNow()
    const isFirst = this.awaySince === undefined
    const { degradeMillis, patienceMillis, whenAway } = this.sharing
    const wasRead = this.isKnown
    // A store that can be read and refuses to write, such as a replica, is away too.
    const isReadOnly = !isFirst && wasRead && error !== noReply
    this.isKnown = false
    this.awaySince ??= now
    const aloneIn = Math.max(0, this.aloneAt() + Pace.silentMargin - now)
    // Each attempt to commit ends the time alone, in which large calls need long to fit.
    const pause = Math.max(2 * aloneIn, Math.min(now - this.awaySince, longestRetryMillis))
    this.wake(isReadOnly && whenAway === "degrade" ? pause : retryMillis)
    const goesAlone = Effect.sync(() => this.goAlone())
    const refuses = Effect.sync(() => this.refuse())
    if (whenAway === "degrade" && (isFirst || wasRead)) this.host.after(aloneIn, goesAlone)
    if (isFirst) {
      this.host.after(Math.max(0, whenAway === "degrade" ? this.sentAt + degradeMillis - now : patienceMillis), refuses)
    }
    this.refuse()
    return isFirst ? Effect.logWarning(`The store of pool "${this.host.name}" is away`, cause) : Effect.void
  }

  private succeeded(): Effect.Effect<void> {
    if (this.awaySince === undefined) return Effect.void
    this.awaySince = undefined
    this.soon(0)
    return Effect.logInfo(`The store of pool "${this.host.name}" is back`)
  }

  /** Refuses the waiting callers if they cannot be admitted in time. */
  private refuse(): void {
    if (this.awaySince === undefined) return
    const { degradeMillis, patienceMillis, whenAway } = this.sharing
    const now = this.clockNow()
    const isHopeless =
      whenAway === "degrade"
        ? this.part() === undefined || now >= this.sentAt + degradeMillis
        : now >= this.awaySince + patienceMillis
    if (!isHopeless) return
    // It must still report what it has used by then.
    if (this.alone !== undefined) this.alone = { ...this.alone, most: 0 }
    this.host.refuseAll(this.error)
  }

  /** The least part that the store may hold for us; undefined if it may hold none. */
  private part(): State.Part | undefined {
    if (!this.hasJoined) return undefined
    let least = this.view.owners[this.id]?.part
    for (const { state } of this.doubted) least = lesser(least, state.owners[this.id]?.part)
    const { last } = this
    if (least === undefined || least.of === 0 || least.calls === 0) return undefined
    // The others do not know yet how much of it is used.
    return last !== undefined && this.pending.includes(last.report) ? Fleet.leftOf(least, last.law) : least
  }

  /** When the others leave our part unused, whichever of our commits was stored. */
  private aloneAt(): number {
    return this.sentAt + (this.part()?.fromMillis ?? 0)
  }

  /** Continues with our part. */
  private goAlone(): void {
    const part = this.part()
    const isTime = this.awaySince !== undefined && this.clockNow() >= this.aloneAt()
    if (!isTime || this.alone !== undefined || part === undefined) return
    const now = this.now()
    const make = () => Fleet.partOfLaw(this.view.law, part, this.open.size, now)
    this.alone = { began: make(), law: make(), most: part.calls, tickets: new Set() }
    this.host.drain()
  }

  /** The store can be reached again: reports what was used in the meantime. */
  private comeBack(alone: Alone): void {
    this.alone = undefined
    for (const ticket of alone.tickets) this.open.add(ticket)
    const tickets = [...alone.tickets]
    const report = this.record((state) => {
      Fleet.comeBack(state, this.id, alone)
      for (const ticket of tickets) Law.adopt(state.law, ticket)
    })
    this.last = { law: alone.law, report }
  }

  /** Whether the store answers, so that what happened here is there. */
  get isReached(): boolean {
    return this.awaySince === undefined && this.alone === undefined
  }

  /** Leaves the pool, and tells the others. */
  readonly leave: Effect.Effect<void> = Effect.suspend(() => {
    this.isClosed = true
    const isUnknown = !this.hasJoined && this.doubted.length === 0
    if (isUnknown || this.awaySince !== undefined) return Effect.void
    // An error here, or a state that cannot be read, concerns nobody any more.
    const last = Effect.exit(Effect.suspend(() => this.commit(0)))
    return Effect.asVoid(Effect.timeoutOption(this.lock.withPermit(last), this.sharing.timeoutMillis))
  })
}

/** What two parts both give, if either may be stored. */
const lesser = (one: State.Part | undefined, other: State.Part | undefined): State.Part | undefined => {
  if (one === undefined || other === undefined) return undefined
  const quotas = Amounts.mapDimensions<number, number>(one.quotas, (left, dimension) =>
    Math.min(left, other.quotas[dimension] ?? 0)
  )
  return { ...(one.of <= other.of ? one : other), calls: Math.min(one.calls, other.calls), quotas }
}

const sumOf = (tickets: Iterable<Law.Ticket>): Amounts.Whole => {
  let sum = Amounts.nothing
  for (const { charge } of tickets) sum = Fleet.plus(sum, charge)
  return sum
}
