/**
 * Degraded mode: what a process does while it cannot reach the store. Its callers wait, fail, or (with `"degrade"`) are
 * admitted within the process's part of the limits, which the other processes leave unused in the meantime.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { StateSpec, PartOf } from "./stateSpec.ts"
import { LocalPort } from "./local.ts"
import type { StoreSettings } from "./models.ts"
import type { After, Decided, Done, ChargedPort, Port, PortOptions, QueueDecision, StateStep } from "./port.ts"
import * as Processes from "./processes.ts"
import type { Shared } from "./state.ts"
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
export class DegradedPort<S extends Shared> extends LocalPort<S> {
  private readonly spec: StateSpec<S>
  private readonly began: S
  /** The shared port, once it has the calls of this one. */
  private shared: ChargedPort<S> | undefined = undefined
  /** Whether the other processes no longer leave the part unused. */
  isOver = false

  constructor(spec: StateSpec<S>, id: string, began: S, now: () => number, after: After) {
    super(spec.copy, id, began, now, after)
    this.spec = spec
    this.began = began
  }

  override transact<A>(observation: StateStep<A, S>): A
  override transact<A extends Decided>(decision: QueueDecision<A, S>, done: Done<A, S>): void
  override transact<A extends Decided>(step: QueueDecision<A, S>, done?: Done<A, S>): A | void {
    const { shared } = this
    if (done === undefined)
      return shared === undefined ? super.transact(step as StateStep<A, S>) : shared.transact(step as StateStep<A, S>)
    if (shared === undefined) super.transact(step, done)
  }

  /** Stops admitting calls. */
  override stop(): void {
    this.isOver = true
    super.stop()
  }

  /** Calls that were admitted before degraded mode have ended. */
  ended(calls: number): void {
    if (calls > 0) this.transact((draft) => this.spec.ended(draft, calls))
  }

  /** Hands over to the shared port. Returns the observation that reports what was used meanwhile. */
  report(shared: ChargedPort<S>): StateStep<void, S> {
    this.stop()
    this.shared = shared
    const { began, id, spec, state: ended } = this
    return (state) => Processes.comeBack(spec, state, id, began, ended)
  }
}

// -----------------------------------------------------------------------------
// The mode
// -----------------------------------------------------------------------------

/** The shared port, as degraded mode uses it. */
export interface SharedView<S extends Shared> extends Pick<Port<S>, "id" | "transact" | "now"> {
  readonly spec: StateSpec<S>
  readonly options: Pick<PortOptions, "after" | "unreachable">
  readonly sharing: StoreSettings
  readonly time: Time.Time
  /** The last known state of all processes. */
  readonly known: S
  /** The parts of this process that may be stored, one for each commit whose outcome is unknown. */
  readonly parts: ReadonlyArray<PartOf<S> | undefined>
  /** When the last commit was sent, by this process's clock. */
  readonly sentAt: number
  /** Whether an observation is not stored yet. */
  readonly isPending: (step: StateStep<void, S>) => boolean
  /** Asks again for the decision that callers wait for. */
  readonly askAgain: () => void
}

export class DegradedMode<S extends Shared> {
  private readonly shared: SharedView<S>
  /** When the store failed first; undefined while it can be reached. */
  private since: number | undefined = undefined
  private error: unknown = undefined
  /** Kept after its time is up, because it still has to report what was used. */
  private degraded: DegradedPort<S> | undefined = undefined
  /** The report that was made at the last return to the store, and the rest of the part at that time. */
  private last: { readonly state: S; readonly report: StateStep<void, S> } | undefined = undefined

  constructor(shared: SharedView<S>) {
    this.shared = shared
  }

  /** Whether the store cannot be reached. */
  get isAway(): boolean {
    return this.since !== undefined
  }
  get port(): DegradedPort<S> | undefined {
    return this.degraded
  }
  private get isDegrading(): boolean {
    return this.shared.sharing.whenAway === "degrade"
  }

  /**
   * The store has failed. `wasRead`: it was read since the last failure. `isReadOnly`: it was read, but refused to write.
   * Returns the milliseconds until it should be tried again.
   */
  failed(error: unknown, wasRead: boolean, isReadOnly: boolean): number {
    const now = this.shared.time.own
    const isFirst = this.since === undefined
    const { degradeMillis, patienceMillis } = this.shared.sharing
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
    this.shared.options.after(millis, Effect.sync(then))
  }

  /** The store can be reached again. */
  succeeded(): void {
    this.since = undefined
  }

  /** Refuses the waiting callers once they can no longer be admitted in time. */
  refuse(): void {
    if (this.since === undefined) return
    const { degradeMillis, patienceMillis } = this.shared.sharing
    const now = this.shared.time.own
    const isHopeless = this.isDegrading
      ? this.part() === undefined || now >= this.shared.sentAt + degradeMillis
      : now >= this.since + patienceMillis
    if (!isHopeless) return
    this.degraded?.stop()
    this.shared.options.unreachable(this.error, Duration.millis(now - this.since))
  }

  /** The smallest part that may be stored for this process; undefined if perhaps none is. */
  private part(): PartOf<S> | undefined {
    const { last } = this
    const { spec, parts } = this.shared
    if (!parts.every((part) => part !== undefined)) return undefined
    const min = parts.reduce(spec.smaller)
    if (spec.isEmpty(min)) return undefined
    // The others do not know yet how much of it is used.
    return last !== undefined && this.shared.isPending(last.report) ? spec.leftOf(min, last.state) : min
  }

  /** The time from which the others leave the part unused, whichever commit was stored. */
  private startAt(): number {
    return this.shared.sentAt + (this.part()?.fromMillis ?? 0)
  }

  private start(): void {
    const part = this.part()
    const isTime = this.since !== undefined && this.shared.time.own >= this.startAt()
    if (!isTime || this.degraded !== undefined || part === undefined) return
    const { id, spec, known, now, options } = this.shared
    this.degraded = new DegradedPort(spec, id, spec.alone(known, id, part, now()), now, options.after)
    this.shared.askAgain()
  }

  /** The store has answered. Returns the observation that reports what was used, if this process was in degraded mode. */
  end(): StateStep<void, S> | undefined {
    const { degraded } = this
    if (degraded === undefined) return undefined
    const { state } = degraded
    const report = degraded.report(this.shared)
    this.degraded = undefined
    this.last = { state, report }
    return report
  }
}
