/**
 * A pool whose state processes share: what happens is played on the last state that is known, and put in its place.
 *
 * Everything but admission takes effect here at once, on a view of the state, and is played again on the state that is
 * replaced. Callers go when the state with them in it is stored. A process has one request under way for each pool;
 * whatever happens meanwhile goes with the next.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Semaphore from "effect/Semaphore"
import * as Law from "../admission/law.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import * as Rules from "../limits/rules.ts"
import * as Fleet from "./fleet.ts"
import { type Settings, StoreError, type Stored } from "./models.ts"
import * as State from "./state.ts"

/** What has happened goes out after this time: at the latest, where somebody waits, and where one waits for a place. */
const flushMillis = 500
const flushContended = 250
const flushPlaces = 10
/** Who waits for another process's call to end looks this often while an answer lasts, within bounds; others do sometimes. */
const looksPerAnswer = 4
const shortestLook = 5
const longestLook = 250
const refundLook = 500
/** A process that waits commits so often, so that others know that it lives. */
const waitingBeat = 1_000
/** Under `"degrade"` a process is silent, and goes on alone, after this time, or eight commits; it commits four times as often. */
const silentMillis = 1_000
const silentCommits = 8
/** A process that other processes are faster than so often waits a bit. */
const mostConflicts = 4
/** What clocks and the network may differ by, when a process goes on alone. */
const silentMargin = 100
/** A process that does nothing commits no more after this time: what it has spent has been refilled. */
const restMillis = 60_000
/** Attempts to reach a store that is away. */
const retryMillis = 500
/** A state is kept so long where nobody uses it: for any debt and window to be over, and with a quota for a month. */
const keepMillis = 3_600_000
const keepQuotaMillis = 30 * 86_400_000
/** How long a commit took lately at the most: at first, how much more is reckoned with, and how fast that is forgotten. */
const firstLag = 10
const lagMargin = 1.5
const lagDecay = 0.02

/** One caller at the front of the queue, and the weight of all that wait. */
export interface Front extends State.Head {
  readonly cost: number
}

/** Who goes, in order, and what the first that does not waits for. */
export interface Plan<W> {
  readonly outcomes: ReadonlyArray<Outcome<W>>
  /** By how much those who go move the process's tag on. */
  readonly served: number
  readonly blocked: Law.Blocked | undefined
  /** The first that waits then. */
  readonly front: Front | undefined
}

/** What becomes of a caller. */
export interface Outcome<W> {
  readonly waiter: W
  /** Its admission; or nothing, where it is refused. */
  readonly ticket: Law.Ticket | undefined
}

/** What the exchange asks of its pool. */
export interface Host<W> {
  readonly name: string
  readonly config: State.Config
  readonly clock: Clock.Clock
  readonly front: () => Front | undefined
  /** Who may go now by a law, which it changes. `decide` says what one waits for, when the tag has moved on by so much. */
  readonly plan: (
    law: Law.Pool,
    now: number,
    decide: (front: Front, served: number) => Law.Blocked | undefined
  ) => Plan<W>
  /** Lets a caller go, or refuses it. Gives false where it waits no longer. */
  readonly carryOut: (outcome: Outcome<W>) => boolean
  /** Refuses all that wait, because the store is away. */
  readonly refuseAll: (cause: unknown) => void
  readonly configure: (config: State.Config) => void
  readonly drain: () => void
  readonly after: (millis: number, then: Effect.Effect<void>) => void
}

interface Operation {
  readonly at: number
  readonly run: (state: State.State, at: number) => void
}

/** A state that may take the place of the last one known. */
interface Draft<W> {
  readonly state: State.State
  readonly next: Stored
  readonly seq: number
  readonly operations: number
  readonly plan: Plan<W>
  /** When it was made: by the pool's time, and by this process's clock. */
  readonly at: number
  readonly sentAt: number
}

/** A process that goes on with its part, and the part as it began. */
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
  /** The last state that was stored, as far as we know; `version` is undefined where nothing is. It is never changed. */
  private base: { readonly version: string | undefined; readonly state: State.State }
  /** The same, with all that has happened here since. */
  private view: State.State
  /** Whether a reply is younger than the last failure. */
  private isKnown = false
  private hasJoined = false
  private pending: Array<Operation> = []
  /** Commits of which nobody knows whether they were stored: one at the most was. */
  private doubted: Array<Draft<W>> = []
  private readonly open = new Set<Law.Ticket>()
  private spent: Amounts.Whole = Amounts.nothing
  /** What the last commit says of our calls in flight. */
  private committed = { inFlight: 0, held: Amounts.nothing }
  private seq = 0
  private changes = 0
  private offset = 0
  private lag = firstLag
  /**
   * By this process's clock: when the last commit was sent, when the last one that was stored was, and when something
   * happened last that others may want to know.
   */
  private sentAt = -Infinity
  private storedAt = -Infinity
  private activeAt = -Infinity
  private awaySince: number | undefined = undefined
  private error: unknown = undefined
  private alone: Alone | undefined = undefined
  /** What this process had left of its part when it came back last, and the operation that tells the others. */
  private last: { readonly law: Law.Pool; readonly told: Operation } | undefined = undefined
  private dueAt = Infinity
  private timers = 0
  private isBusy = false
  private isClosed = false
  private readonly lock = Semaphore.makeUnsafe(1)

  constructor(host: Host<W>, sharing: Settings, id: string) {
    this.host = host
    this.sharing = sharing
    this.id = id
    this.view = State.make(host.config, this.now())
    this.base = { version: undefined, state: State.copy(this.view) }
  }

  /** Milliseconds of this process's monotonic clock. */
  private clockNow(): number {
    return Number(this.host.clock.monotonicTimeNanosUnsafe()) / 1e6
  }

  /** The pool's time: that of the process whose time is furthest, and it never stands back behind a state. */
  now(): number {
    return this.clockNow() + this.offset
  }

  /** The law as far as it is known here. */
  get law(): Law.Pool {
    return this.alone?.law ?? this.view.law
  }

  /** The law by which this process decides alone, and the calls that it may have in flight. */
  get own(): { readonly law: Law.Pool; readonly most: number } | undefined {
    return this.alone
  }

  /** The calls in flight that all processes together may have. */
  get most(): number {
    return this.alone?.most ?? this.view.config.concurrency
  }

  // ---------------------------------------------------------------------------
  // What happens
  // ---------------------------------------------------------------------------

  /** Something happens: at once here, and with the next commit everywhere. `used` where it ends the call. */
  apply<A>(run: (law: Law.Pool, now: number) => A, ticket: Law.Ticket | undefined, used?: Limits.Charge): A {
    const now = this.now()
    const { alone } = this
    if (ticket !== undefined && used !== undefined) this.end(ticket, used)
    if (ticket !== undefined && alone !== undefined) {
      if (alone.tickets.has(ticket)) {
        if (used !== undefined) alone.tickets.delete(ticket)
        return run(alone.law, now)
      }
      if (used !== undefined) alone.law.inFlight--
    }
    this.record((state, at) => void run(state.law, at), now)
    const result = run(this.view.law, now)
    const { gate } = this.view.law
    this.soon(gate.misses > 0 || gate.until > now ? 0 : this.flushIn())
    return result
  }

  private end(ticket: Law.Ticket, used: Limits.Charge): void {
    this.open.delete(ticket)
    this.spent = Fleet.plus(this.spent, Fleet.plus({ ...ticket.charge, ...used }, ticket.charge, -1))
  }

  private record(run: Operation["run"], at: number): Operation {
    const operation = { at, run }
    this.pending.push(operation)
    this.activeAt = this.clockNow()
    return operation
  }

  /** The queue was charged for a call that has used so much more, or less. */
  correct(cost: number): void {
    this.record((state) => {
      const owner = state.owners[this.id]
      if (owner !== undefined) owner.tag += cost
    }, this.now())
  }

  /** Somebody has set other limits: they hold for all processes. */
  resize(config: State.Config): void {
    this.record((state, at) => Fleet.configure(state, config, at), this.now())
    Fleet.configure(this.view, config, this.now())
    this.soon(0)
  }

  /** A caller goes by this process's part. */
  takenAlone(ticket: Law.Ticket): void {
    this.alone?.tickets.add(ticket)
    this.spent = Fleet.plus(this.spent, ticket.charge)
  }

  private take(ticket: Law.Ticket): void {
    this.open.add(ticket)
    this.spent = Fleet.plus(this.spent, ticket.charge)
  }

  // ---------------------------------------------------------------------------
  // When
  // ---------------------------------------------------------------------------

  /** The queue has changed: asks for its first caller, when it may go. */
  ask(): void {
    const front = this.host.front()
    if (front === undefined) return
    if (this.awaySince !== undefined) return this.refuse()
    this.activeAt = this.clockNow()
    if (this.isKnown) this.lookFor(this.blockedNow(front) ?? { millis: 0, dimension: undefined })
    else this.soon(0)
  }

  /** Looks for news. */
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

  private lookIn({ millis }: Law.Blocked): number {
    const { answerMillis, inFlight } = this.view.law
    const look = Math.max(shortestLook, answerMillis / (looksPerAnswer * Math.max(1, inFlight)))
    return millis === Infinity ? Math.min(look, longestLook) : Math.min(Math.ceil(millis), refundLook)
  }

  private flushIn(): number {
    if (!Fleet.isContended(this.view, this.id)) return flushMillis
    return Math.min(this.view.config.concurrency, this.view.law.window.size) < Infinity ? flushPlaces : flushContended
  }

  private get silent(): number {
    return Math.max(silentMillis, silentCommits * this.lag)
  }

  /** The longest time without a commit. */
  private beatMillis(): number {
    if (this.sharing.whenAway === "degrade") return this.silent / 4
    if (this.host.front() !== undefined) return waitingBeat
    const isIdle = this.open.size === 0 && this.clockNow() - this.activeAt > restMillis
    // Who joins later takes the time from the state: while the pool pauses, somebody has to tell it.
    const rests = isIdle && this.view.law.gate.until <= this.now()
    return rests ? Infinity : this.sharing.leaseMillis / 4
  }

  /** The next turn is in so many milliseconds at the latest. */
  private soon(millis: number): void {
    const at = this.clockNow() + Math.max(0, millis)
    if (at >= this.dueAt || this.isClosed) return
    this.dueAt = at
    if (this.isBusy) return
    const timer = ++this.timers
    this.host.after(
      Math.max(0, millis),
      Effect.suspend(() => (timer === this.timers ? this.turn : Effect.void))
    )
  }

  /** What is due goes out, and the next turn is set. */
  private readonly turn: Effect.Effect<void> = Effect.suspend(() => {
    this.isBusy = true
    this.dueAt = Infinity
    const isBack = Effect.logInfo(`The store of pool "${this.host.name}" is back`)
    const exchanged = this.awaySince === undefined ? this.exchange : Effect.andThen(this.exchange, isBack)
    return Effect.ensuring(
      this.lock.withPermit(Effect.catchCause(exchanged, (cause) => this.failed(cause))),
      Effect.sync(() => {
        const beatAt = this.awaySince === undefined ? this.storedAt + this.beatMillis() : Infinity
        const at = Math.min(this.dueAt, beatAt)
        this.isBusy = false
        this.dueAt = Infinity
        if (at < Infinity) this.soon(at - this.clockNow())
      })
    )
  })

  // ---------------------------------------------------------------------------
  // The exchange
  // ---------------------------------------------------------------------------

  /** Reads where the state is not known; then commits what there is to say, as often as another process is faster. */
  private readonly exchange: Effect.Effect<void, StoreError> = Effect.suspend(() => {
    if (!this.isKnown) return Effect.flatMap(this.read, () => this.commit(0))
    const draft = this.draft()
    // Nothing to say: it is time to look.
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
    this.doubted.push(draft)
    const swap = sharing.swap(State.keyOf(this.host.name), this.base.version, draft.next, keepOf(draft.state))
    return Effect.flatMap(this.inTime(swap), (stored) => {
      const took = this.clockNow() - from
      this.lag = Math.max(lagMargin * took, this.lag * (1 - lagDecay))
      this.receive(stored)
      if (stored?.version === draft.next.version) {
        return Effect.void
      }
      if (conflicts < mostConflicts) return this.commit(conflicts + 1)
      // Too many come at once. Whoever waits has an old state then, and looks first.
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
      duration: whenAway === "degrade" ? Math.min(timeoutMillis, this.silent) : timeoutMillis,
      orElse: () => Effect.fail(new StoreError({ cause: new Error("no reply in time") }))
    })
  }

  /** The last state with all that has happened since, and with who goes now; nothing, where that says nothing new. */
  private draft(): Draft<W> | undefined {
    const { host, id, sharing } = this
    const sentAt = this.clockNow()
    const state = State.copy(this.base.state)
    const now = Math.max(this.now(), state.time)
    Fleet.absorb(state, now)
    if (!this.hasJoined) Fleet.start(state, host.config, now)
    const owner = Fleet.enter(state, id, { ...sharing, ...this.committed }, now)
    for (const { at, run } of this.pending) run(state, at)
    state.law.lag = Math.max(this.lag, ...Object.values(state.owners).map(({ lag }) => lag))
    const tag = Fleet.startTag(state, owner)
    const most = Fleet.mostInFlight(state, now)
    const plan = host.plan(state.law, now, (front, served) =>
      Fleet.decide(state.law, front.charge, Fleet.aheadOf(state, id, { ...front, tag: tag + served }, now), most, now)
    )
    this.lookFor(plan.blocked)
    const hasNews = this.pending.length > 0 || plan.outcomes.length > 0 || this.isClosed
    const isDue = this.clockNow() >= this.storedAt + this.beatMillis() - 1
    if (!hasNews && !isDue && (owner.head === undefined) === (plan.front === undefined)) return undefined
    owner.seq = ++this.seq
    owner.at = now
    owner.dueAt = now + Math.min(plan.blocked?.millis ?? 0, waitingBeat)
    owner.lag = this.lag
    owner.tag = tag + plan.served
    const taken = plan.outcomes.flatMap(({ ticket }) => ticket ?? [])
    const held = sumOf(taken)
    owner.inFlight = this.open.size + taken.length
    owner.held = Fleet.plus(sumOf(this.open), held)
    owner.spent = Fleet.plus(this.spent, held)
    Fleet.wait(state, owner, plan.front)
    if (sharing.whenAway === "degrade") {
      owner.part = Fleet.partOf(state, owner, { from: this.silent, until: sharing.degradeMillis })
    }
    if (this.isClosed) Fleet.leave(state.law, owner)
    Fleet.count(state)
    state.time = now
    const next = { version: `${id}.${owner.seq}`, value: State.encode(state) }
    return { state, next, seq: owner.seq, operations: this.pending.length, plan, at: now, sentAt }
  }

  private lookFor(blocked: Law.Blocked | undefined): void {
    if (blocked !== undefined) this.soon(this.lookIn(blocked))
  }

  /** A reply: what is stored now. It may tell that a commit was stored whose own reply was lost. */
  private receive(stored: Stored | undefined): void {
    this.isKnown = true
    if (this.awaySince !== undefined) this.comeBack()
    if (stored?.version === this.base.version) return
    let done = this.doubted.find(({ next }) => next.version === stored?.version)
    const found = done?.state ?? (stored === undefined ? undefined : this.decode(stored.value))
    done ??= this.doubted.find(({ seq }) => seq === found?.owners[this.id]?.seq)
    const known = done?.state ?? (this.base.version === undefined ? undefined : this.base.state)
    // The store may have lost what we know.
    const hasAll = known === undefined || (found !== undefined && Fleet.includes(found, known))
    const state = hasAll ? found! : Fleet.merge(known, found)
    this.base = { version: stored?.version, state }
    this.doubted = []
    const age = known === undefined ? Math.max(0, stored?.ageMillis ?? 0) : 0
    const offset = state.time + age - this.clockNow()
    this.offset = known === undefined ? offset : Math.max(this.offset, offset)
    this.view = State.copy(state)
    if (done !== undefined) {
      this.hasJoined = true
      this.storedAt = done.sentAt
      this.pending.splice(0, done.operations)
      const { held, inFlight } = done.state.owners[this.id]!
      this.committed = { inFlight, held }
    }
    for (const { at, run } of this.pending) run(this.view, at)
    // A call that goes out later than the pool reckons with would come upon others at the provider.
    const isLate = done !== undefined && this.now() - done.at > done.state.law.lag
    for (const outcome of done?.plan.outcomes ?? []) this.carryOut(outcome, isLate)
    if (this.hasJoined && this.changes !== state.changes) {
      this.changes = state.changes
      this.host.configure(state.config)
    }
  }

  /** A state that is damaged is replaced, as one that is gone, by a process that knows better. */
  private decode(text: string): State.State | undefined {
    try {
      return State.decode(text)
    } catch (error) {
      if (this.base.version === undefined) throw error
      return undefined
    }
  }

  /** A caller goes. What one was granted that is gone meanwhile, or would go too late, is given back. */
  private carryOut(outcome: Outcome<W>, isLate: boolean): void {
    const { ticket } = outcome
    if (ticket === undefined) return void this.host.carryOut(outcome)
    this.take(ticket)
    if (!isLate && this.host.carryOut(outcome)) return
    this.apply((law, now) => Law.release(law, ticket, Amounts.nothing, now), ticket, Amounts.nothing)
    // Who was granted too late still waits.
    if (isLate) this.soon(0)
  }

  // ---------------------------------------------------------------------------
  // When the store is away
  // ---------------------------------------------------------------------------

  private failed(cause: Cause.Cause<StoreError>): Effect.Effect<void> {
    if (Cause.hasInterruptsOnly(cause)) return Effect.void
    const error = Cause.squash(cause)
    this.error = error instanceof StoreError ? error.cause : error
    this.isKnown = false
    this.soon(retryMillis)
    if (this.awaySince !== undefined) {
      this.refuse()
      return Effect.void
    }
    this.awaySince = this.clockNow()
    this.refuse()
    const { degradeMillis, patienceMillis, whenAway } = this.sharing
    if (whenAway === "wait")
      this.host.after(
        patienceMillis,
        Effect.sync(() => this.refuse())
      )
    if (whenAway === "degrade") {
      const sent = this.sentAt - this.clockNow()
      this.host.after(
        Math.max(0, sent + (this.part()?.fromMillis ?? 0) + silentMargin),
        Effect.sync(() => this.goAlone())
      )
      this.host.after(
        Math.max(0, sent + degradeMillis),
        Effect.sync(() => this.refuse())
      )
    }
    return Effect.logWarning(`The store of pool "${this.host.name}" is away`, cause)
  }

  /** Refuses those who wait, where nothing will let them go in time. */
  private refuse(): void {
    if (this.awaySince === undefined) return
    const { degradeMillis, patienceMillis, whenAway } = this.sharing
    const now = this.clockNow()
    const isHopeless =
      whenAway === "degrade"
        ? this.part() === undefined || now >= this.sentAt + degradeMillis
        : now >= this.awaySince + patienceMillis
    if (!isHopeless) return
    // What it has used by then it still has to tell.
    if (this.alone !== undefined) this.alone = { ...this.alone, most: 0 }
    this.host.refuseAll(this.error)
  }

  /** The least part that the store may hold for us; none, where it may hold nothing. */
  private part(): State.Part | undefined {
    if (!this.hasJoined) return undefined
    let least = this.view.owners[this.id]?.part
    for (const { state } of this.doubted) least = lesser(least, state.owners[this.id]?.part)
    const { last } = this
    if (least === undefined || least.of === 0 || least.calls === 0) return undefined
    // The others do not know yet what is used up of it.
    return last !== undefined && this.pending.includes(last.told) ? Fleet.leftOf(least, last.law) : least
  }

  /** From now on the others leave our part to us. */
  private goAlone(): void {
    const part = this.part()
    if (this.awaySince === undefined || this.alone !== undefined || part === undefined) return
    const now = this.now()
    const make = () => Fleet.partOfLaw(this.view.law, part, this.open.size, now)
    this.alone = { began: make(), law: make(), most: part.calls, tickets: new Set() }
    this.host.drain()
  }

  private comeBack(): void {
    this.awaySince = undefined
    const { alone } = this
    if (alone === undefined) return
    this.alone = undefined
    for (const ticket of alone.tickets) this.open.add(ticket)
    const tickets = [...alone.tickets]
    const told = this.record((state) => {
      Fleet.comeBack(state, this.id, alone)
      for (const ticket of tickets) Law.adopt(state.law, ticket)
    }, this.now())
    this.last = { law: alone.law, told }
  }

  /** Nothing is asked any more, and the others are told. */
  readonly leave: Effect.Effect<void> = Effect.suspend(() => {
    this.isClosed = true
    if (!this.hasJoined || this.awaySince !== undefined) return Effect.void
    // What fails here, by an error or by a state that cannot be read, is nobody's business any more.
    const last = Effect.exit(Effect.suspend(() => this.commit(0)))
    return Effect.asVoid(Effect.timeoutOption(this.lock.withPermit(last), this.sharing.timeoutMillis))
  })
}

/** Of two parts of which nobody knows which one holds, what both give. */
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

const keepOf = ({ config }: State.State): number => (Rules.hasQuota(config.rules) ? keepQuotaMillis : keepMillis)
