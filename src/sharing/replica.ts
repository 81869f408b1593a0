/**
 * A process's copy of a shared state: the last state that is known to be stored, the events of this process since, and its commits of
 * which nobody knows whether they were stored. It makes the next commit, and adopts what the store has. It does no I/O.
 */
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import { type StateSpec, type MemberOf, membersOf, type PartOf } from "./stateSpec.ts"
import * as StoreLoss from "./storeLoss.ts"
import type { StoreSettings, Stored } from "./models.ts"
import type { Decided, PortOptions, StateStep } from "./port.ts"
import { Damaged, TooNew } from "./readers.ts"
import * as Processes from "./processes.ts"
import type { Shared } from "./state.ts"
import type * as Time from "./time.ts"

/** How many of the latest commits of unknown outcome are remembered. Without a bound, a read-only store would add more and more. */
const maxDoubted = 20

interface PendingStep<S> {
  /** When it happened, by this process's clock, because the pool's time may not be known yet. */
  readonly at: number
  readonly step: StateStep<unknown, S>
}

/** A state that is about to be committed: the last one that is known to be stored, with this process and its events in it. */
interface NextState<S extends Shared> {
  readonly state: S
  readonly member: MemberOf<S>
  readonly now: number
}

/** A commit: a new state that this process tries to store. */
export interface Draft<S> {
  readonly state: S
  readonly next: Stored
  readonly seq: number
  /** How many pending steps it includes. */
  readonly steps: number
  readonly decided: Decided | undefined
  /** When it was made, by this process's clock. */
  readonly sentAt: number
}

/** A state that was read from the store, and is not the base. */
interface ReadState<S> {
  readonly stored: Stored | undefined
  /** Undefined if it has no state, or one that nobody can read. */
  readonly state: S | undefined
  /** The commit of this process that is stored, as its version tells. */
  readonly sent: Draft<S> | undefined
}

export class Replica<S extends Shared> {
  private readonly id: string
  private readonly spec: StateSpec<S>
  readonly key: string
  private readonly config: S["config"]
  private readonly sharing: StoreSettings
  private readonly time: Time.Time
  /** The last state that this process knows to be stored, with its version in the store; undefined until the store has one. */
  private base: { readonly version: string | undefined; readonly state: S }
  /** That state with all events of this process since. */
  private readonly view: Ref.Ref<S>
  /** Whether the base came from the store. If the store loses it, this process can restore it. */
  hasState = false
  /** Whether the base has something that the store has lost. */
  private knowsBetter = false
  private pending: Array<PendingStep<S>> = []
  /** Commits whose outcome is unknown. At most one of them is stored. */
  private doubted: Array<Draft<S>> = []
  /** This process as of its last commit that is known to be stored; undefined until it has joined. */
  private committed: MemberOf<S> | undefined = undefined
  private seq = 0
  /** Why a state could not be read, until it is reported. */
  damage: unknown = undefined

  constructor(spec: StateSpec<S>, options: PortOptions<S["config"]>, sharing: StoreSettings, time: Time.Time) {
    this.spec = spec
    this.id = options.id
    this.key = spec.keyOf(options.name)
    this.config = options.config
    this.sharing = sharing
    this.time = time
    const state = spec.make(options.config, time.now, this.id)
    this.view = Ref.makeUnsafe(state)
    this.base = { version: undefined, state }
  }

  // ---------------------------------------------------------------------------
  // What is known
  // ---------------------------------------------------------------------------

  /** The last state that is known, with all events of this process. */
  get known(): S {
    return Ref.getUnsafe(this.view)
  }

  get version(): string | undefined {
    return this.base.version
  }

  /** This process in the known state. */
  get member(): MemberOf<S> | undefined {
    return membersOf(this.known)[this.id]
  }

  /** Whether a commit of this process is known to be stored, and may be. */
  get hasJoined(): boolean {
    return this.committed !== undefined
  }
  get mayHaveJoined(): boolean {
    return this.hasJoined || this.isInDoubt
  }

  /** Whether this process has left, so that its calls are no longer counted. */
  get hasLeft(): boolean {
    return this.base.state.members[this.id]?.hasLeft === true
  }

  /** Whether it is unknown if the last commits were stored. */
  get isInDoubt(): boolean {
    return this.doubted.length > 0
  }

  /** Whether it knows something that the store may not have. */
  get hasNews(): boolean {
    return this.pending.length > 0 || this.knowsBetter
  }

  /** The number of changes of the limits in the base. */
  get changes(): number {
    return this.base.state.changes
  }

  /** The parts of this process that may be stored, one for each commit whose outcome is unknown. */
  get parts(): ReadonlyArray<PartOf<S> | undefined> {
    if (this.committed === undefined) return [undefined]
    return [this.known, ...this.doubted.map(({ state }) => state)].map((state) => membersOf(state)[this.id]?.part)
  }

  /** Whether a step is not stored yet. */
  isPending(step: StateStep<void, S>): boolean {
    return this.pending.some((each) => each.step === step)
  }

  // ---------------------------------------------------------------------------
  // Events
  // ---------------------------------------------------------------------------

  /** Plays a step on a copy of the known state, which stays as it is. */
  foresee<A>(step: StateStep<A, S>): A {
    return step(this.spec.copy(this.known), this.time.now)
  }

  /** Plays a step on the known state, and keeps it for the next commit. */
  play<A>(step: StateStep<A, S>): A {
    this.pending.push({ at: this.time.own, step })
    const draft = this.spec.copy(this.known)
    const answer = step(draft, this.time.now)
    Effect.runFork(Ref.set(this.view, draft))
    return answer
  }

  /** Plays the pending steps on a state that does not have them. */
  private catchUp(state: S): void {
    for (const { at, step } of this.pending) step(state, this.time.at(at))
  }

  // ---------------------------------------------------------------------------
  // The next commit
  // ---------------------------------------------------------------------------

  /** The state of the next commit, before anything is decided. */
  next(): NextState<S> {
    const { committed, config, id, spec, sharing, time } = this
    const state = spec.copy(this.base.state)
    const now = Math.max(time.now, state.time)
    Processes.absorb(spec, state, time.utc, now)
    // If processes start with different configurations, that of the last one holds.
    if (committed === undefined && JSON.stringify(state.started) !== JSON.stringify(config)) {
      state.started = config
      spec.configure(state, config, now)
    }
    const member = Processes.enter(spec, state, id, sharing, committed, now)
    state.law.lag = Math.max(time.lag, ...Object.values(state.members).map(({ lag }) => lag))
    this.catchUp(state)
    return { state, member, now }
  }

  /**
   * Signs the state of the next commit, which is in doubt from now on. The others count this process as silent `silentAfter` milliseconds
   * later.
   */
  sign(
    { member, now, state }: NextState<S>,
    {
      silentAfter,
      leaves,
      ...decision
    }: Pick<Draft<S>, "decided" | "sentAt"> & { readonly silentAfter: number; readonly leaves: boolean }
  ): Draft<S> {
    const { spec, sharing } = this
    member.seq = ++this.seq
    member.at = now
    member.lag = this.time.lag
    if (sharing.whenAway === "degrade") {
      member.part = spec.partOf(state, member, { fromMillis: silentAfter, untilMillis: sharing.degradeMillis })
    }
    if (leaves) Processes.leave(spec, state, member)
    spec.complete(state)
    state.time = now
    const next = { version: `${this.id}.${member.seq}`, value: spec.encode(state) }
    const draft = { state, next, seq: member.seq, steps: this.pending.length, ...decision }
    this.doubted = [...this.doubted.slice(1 - maxDoubted), draft]
    return draft
  }

  /** A commit was not stored, because another process was faster. */
  lost(draft: Draft<S>): void {
    this.doubted = this.doubted.filter((each) => each !== draft)
  }

  // ---------------------------------------------------------------------------
  // What the store has
  // ---------------------------------------------------------------------------

  /** Reads what the store has; undefined if that is the base. Its own commit shows that it was stored although its reply was lost. */
  read(stored: Stored | undefined): ReadState<S> | undefined {
    if (stored?.version === this.base.version) return undefined
    const sent = this.doubted.find(({ next }) => next.version === stored?.version)
    return { stored, state: sent === undefined ? this.decode(stored) : sent.state, sent }
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

  /**
   * Adopts what the store has, `since` milliseconds after the reply before. Returns the commit of this process that is stored in it, if
   * any.
   */
  adopt(found: ReadState<S>, since: number): Draft<S> | undefined {
    const { sent, state } = found
    const seq = state?.members[this.id]?.seq ?? 0
    const done = sent ?? this.doubted.find((draft) => draft.seq === seq)
    // A damaged state may count more commits than this process made. The next one must not look older than it.
    this.seq = Math.max(this.seq, seq)
    this.rebase(found, done?.state, since)
    // If the store has lost a commit, another process may restore it later.
    this.doubted = done === undefined ? this.doubted.filter((draft) => draft.seq > seq) : []
    if (done !== undefined) {
      this.pending.splice(0, done.steps)
      this.committed = membersOf(done.state)[this.id]
    }
    const view = this.spec.copy(this.base.state)
    this.catchUp(view)
    Effect.runFork(Ref.set(this.view, view))
    return done
  }

  /** Makes what is stored, and what only this process knows, the base of the next commit. */
  private rebase({ state: found, stored }: ReadState<S>, done: S | undefined, since: number): void {
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
}
