/**
 * Degraded mode: what a process does while it cannot reach the store. Its callers wait, fail, or (with `"degrade"`) are
 * admitted within the process's part of the limits, which the other processes leave unused in the meantime.
 */
import * as Effect from "effect/Effect"
import * as Law from "../pacing/law.ts"
import * as Amounts from "../domain/amounts.ts"
import * as Members from "./members.ts"
import { LocalPort } from "./local.ts"
import type { StoreSettings } from "./models.ts"
import type { After, Decided, Done, Home, Port, PortOptions, QueueDecision, StateStep } from "./port.ts"
import type * as State from "./state.ts"
import * as Time from "./time.ts"

/** The interval between attempts to reach a store. */
const retryMillis = 500
/** A store that refuses writes is retried after as long as it has been unavailable, but at most after this time. */
const maxRetryMillis = 60_000

// -----------------------------------------------------------------------------
// The port in degraded mode
// -----------------------------------------------------------------------------

/**
 * Decides over a copy of the state that is made smaller by the process's part. When the store is back, everything that
 * happened meanwhile is reported to it as one observation; later events of these calls go to the shared state.
 */
export class DegradedPort implements Home {
  readonly id: string
  private readonly began: Law.Pacer
  private readonly local: LocalPort
  /** The shared port, once it has the calls of this one. */
  private shared: Home | undefined = undefined
  /** Whether the other processes no longer leave the part unused. */
  isOver = false

  constructor(id: string, whole: State.PoolState, part: State.MemberPart, now: () => number, after: After) {
    this.id = id
    const { inFlight = 0, ...member } = whole.members[id] ?? {}
    const law = () => Members.partOfLaw(whole.law, part, inFlight, now())
    const own = { ...member, inFlight: 0, held: Amounts.nothing, spent: Amounts.nothing, part: undefined }
    this.began = law()
    const config = { ...whole.config, concurrency: part.calls }
    const state: State.PoolState = {
      ...whole,
      law: law(),
      config,
      members: { [id]: own as State.PoolMember },
      degraded: { of: part.of, open: new Set() }
    }
    this.local = new LocalPort(id, state, now, after)
  }

  get state(): State.PoolState {
    return this.local.state
  }

  transact<A>(observation: StateStep<A>): A
  transact<A extends Decided>(decision: QueueDecision<A>, done: Done<A>): void
  transact<A extends Decided>(step: QueueDecision<A>, done?: Done<A>): A | void {
    const { local, shared } = this
    if (done === undefined) return (shared ?? local).transact(step as StateStep<A>)
    if (shared === undefined) local.transact(step, (answer, _, isLate) => done(answer, this, isLate))
  }

  /** Stops admitting calls. */
  stop(): void {
    this.isOver = true
    this.local.stop()
  }

  /** Calls that were admitted before degraded mode have ended. */
  ended(calls: number): void {
    if (calls > 0) this.local.transact(({ law }) => void (law.inFlight -= calls))
  }

  /** Hands over to the shared port. Returns the observation that reports what was used meanwhile. */
  report(shared: Home): StateStep<void> {
    this.stop()
    this.shared = shared
    const { began, id } = this
    const { degraded, law, members } = this.state
    const admissions = Array.from(degraded!.open)
    return (state) => {
      Members.comeBack(state, id, { began, law, member: members[id]! })
      for (const admission of admissions) Law.adopt(state.law, admission)
    }
  }
}

// -----------------------------------------------------------------------------
// The mode
// -----------------------------------------------------------------------------

/** The shared port, as degraded mode uses it. */
export interface SharedView extends Pick<Port, "id" | "transact" | "now"> {
  /** The last known state of all processes. */
  readonly known: State.PoolState
  /** The parts of this process that may be stored, one for each commit whose outcome is unknown. */
  readonly parts: ReadonlyArray<State.MemberPart | undefined>
  /** When the last commit was sent, by this process's clock. */
  readonly sentAt: number
  /** Whether an observation is not stored yet. */
  readonly isPending: (step: StateStep<void>) => boolean
  /** Asks again for the decision that callers wait for. */
  readonly askAgain: () => void
}

export class DegradedMode {
  private readonly options: PortOptions
  private readonly sharing: StoreSettings
  private readonly time: Time.Time
  private readonly shared: SharedView
  /** When the store failed first; undefined while it can be reached. */
  private since: number | undefined = undefined
  private error: unknown = undefined
  /** Kept after its time is up, because it still has to report what was used. */
  private degraded: DegradedPort | undefined = undefined
  /** The report that was made at the last return to the store, and the rest of the part at that time. */
  private last: { readonly law: Law.Pacer; readonly report: StateStep<void> } | undefined = undefined

  constructor(options: PortOptions, sharing: StoreSettings, time: Time.Time, shared: SharedView) {
    this.options = options
    this.sharing = sharing
    this.time = time
    this.shared = shared
  }

  /** Whether the store cannot be reached. */
  get isAway(): boolean {
    return this.since !== undefined
  }
  get port(): DegradedPort | undefined {
    return this.degraded
  }
  private get isDegrading(): boolean {
    return this.sharing.whenAway === "degrade"
  }

  /**
   * The store has failed. `wasRead`: it was read since the last failure. `isReadOnly`: it was read, but refused to write.
   * Returns the milliseconds until it should be tried again.
   */
  failed(error: unknown, wasRead: boolean, isReadOnly: boolean): number {
    const now = this.time.own
    const isFirst = this.since === undefined
    const { degradeMillis, patienceMillis } = this.sharing
    this.error = error
    this.since ??= now
    const startIn = Math.max(0, this.startAt() + Time.silentMargin - now)
    if (this.isDegrading && (isFirst || wasRead)) this.after(startIn, () => this.start())
    if (isFirst) {
      const patience = this.isDegrading ? this.shared.sentAt + degradeMillis - now : patienceMillis
      this.after(Math.max(0, patience), () => this.refuse())
    }
    // Commits to a read-only store are attempted rarely, because each attempt ends degraded mode, in which large calls take
    // long to fit into a part.
    const pause = Math.max(2 * startIn, Math.min(now - this.since, maxRetryMillis))
    return isReadOnly && !isFirst && this.isDegrading ? pause : retryMillis
  }

  private after(millis: number, then: () => void): void {
    this.options.after(millis, Effect.sync(then))
  }

  /** The store can be reached again. */
  succeeded(): void {
    this.since = undefined
  }

  /** Refuses the waiting callers once they can no longer be admitted in time. */
  refuse(): void {
    if (this.since === undefined) return
    const { degradeMillis, patienceMillis } = this.sharing
    const now = this.time.own
    const isHopeless = this.isDegrading
      ? this.part() === undefined || now >= this.shared.sentAt + degradeMillis
      : now >= this.since + patienceMillis
    if (!isHopeless) return
    this.degraded?.stop()
    this.options.unreachable(this.error)
  }

  /** The smallest part that may be stored for this process; undefined if perhaps none is. */
  private part(): State.MemberPart | undefined {
    const min = this.shared.parts.reduce(Members.smaller)
    if (min === undefined || min.of === 0 || min.calls === 0) return undefined
    const { last } = this
    // The others do not know yet how much of it is used.
    return last !== undefined && this.shared.isPending(last.report) ? Members.leftOf(min, last.law) : min
  }

  /** When the others leave the part unused, whichever commit was stored. */
  private startAt(): number {
    return this.shared.sentAt + (this.part()?.fromMillis ?? 0)
  }

  private start(): void {
    const part = this.part()
    const isTime = this.since !== undefined && this.time.own >= this.startAt()
    if (!isTime || this.degraded !== undefined || part === undefined) return
    const { id, known, now } = this.shared
    this.degraded = new DegradedPort(id, known, part, now, this.options.after)
    this.shared.askAgain()
  }

  /** The store has answered. Returns the observation that reports what was used, if this process was in degraded mode. */
  end(): StateStep<void> | undefined {
    const { degraded } = this
    if (degraded === undefined) return undefined
    const { law } = degraded.state
    const report = degraded.report(this.shared)
    this.degraded = undefined
    this.last = { law, report }
    return report
  }
}
