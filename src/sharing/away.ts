/**
 * What a process does while its store cannot be reached: its callers wait, fail, or are served from its part of the limits,
 * which the others leave unused meanwhile.
 */
import * as Effect from "effect/Effect"
import type * as Law from "../pacing/law.ts"
import * as Amounts from "../domain/amounts.ts"
import { Alone } from "./alone.ts"
import * as Fleet from "./fleet.ts"
import type { Settings } from "./models.ts"
import * as Pace from "./pace.ts"
import type { Port, Step } from "./port.ts"
import type { Opening } from "./sharing.ts"
import type * as State from "./state.ts"
import type { Time } from "./time.ts"

/** The interval between attempts to reach a store. */
const retryMillis = 500
/** A store that refuses to write is asked again after as long as it has been away, up to this. */
const maxRetryMillis = 60_000

/** What is known of the state of all processes. */
export interface Whole extends Port {
  readonly known: State.State
  /** The parts that the store may hold for this process; undefined where it may hold none. */
  readonly parts: ReadonlyArray<State.Part | undefined>
  /** When the last commit was sent, by this process's clock. */
  readonly sentAt: number
  /** Whether an observation is not stored yet. */
  readonly isPending: (step: Step<void>) => boolean
  /** Asks once more for the decision that calls wait for. */
  readonly askAgain: () => void
}

export class Away {
  private readonly opening: Opening
  private readonly sharing: Settings
  private readonly time: Time
  private readonly whole: Whole
  /** Since when the store has been away, and why. */
  private since: number | undefined = undefined
  private error: unknown = undefined
  private alone: Alone | undefined = undefined
  /** What was left of the part when this process last returned to the store, and the observation that reports it. */
  private last: { readonly law: Law.Pacer; readonly report: Step<void> } | undefined = undefined

  constructor(opening: Opening, sharing: Settings, time: Time, whole: Whole) {
    this.opening = opening
    this.sharing = sharing
    this.time = time
    this.whole = whole
  }

  /** Whether the store is away. */
  get isAway(): boolean {
    return this.since !== undefined
  }
  /** The port of a process that goes on with its part, also after the time for that is over. */
  get port(): Alone | undefined {
    return this.alone
  }
  private get isDegrading(): boolean {
    return this.sharing.whenAway === "degrade"
  }

  /**
   * The store has failed. `wasRead`: it could be read since the failure before. `isReadOnly`: and it refused to write. Returns
   * in how many milliseconds to ask again.
   */
  failed(error: unknown, wasRead: boolean, isReadOnly: boolean): number {
    const now = this.time.own
    const isFirst = this.since === undefined
    const { degradeMillis, patienceMillis } = this.sharing
    const { after } = this.opening
    this.error = error
    this.since ??= now
    const aloneIn = Math.max(0, this.aloneAt() + Pace.silentMargin - now)
    if (this.isDegrading && (isFirst || wasRead))
      after(
        aloneIn,
        Effect.sync(() => this.goAlone())
      )
    if (isFirst) {
      const patience = this.isDegrading ? this.whole.sentAt + degradeMillis - now : patienceMillis
      after(
        Math.max(0, patience),
        Effect.sync(() => this.refuse())
      )
    }
    // Each attempt to commit ends the time alone, in which large calls need long to fit.
    const pause = Math.max(2 * aloneIn, Math.min(now - this.since, maxRetryMillis))
    return isReadOnly && !isFirst && this.isDegrading ? pause : retryMillis
  }

  /** The store can be reached again. */
  succeeded(): void {
    this.since = undefined
  }

  /** Refuses the waiting callers if they cannot be admitted in time. */
  refuse(): void {
    if (this.since === undefined) return
    const { degradeMillis, patienceMillis } = this.sharing
    const now = this.time.own
    const isHopeless = this.isDegrading
      ? this.part() === undefined || now >= this.whole.sentAt + degradeMillis
      : now >= this.since + patienceMillis
    if (!isHopeless) return
    // It must still report what it has used by then.
    this.alone?.stop()
    this.opening.unreachable(this.error)
  }

  /** The least part that the store may hold for us; undefined if it may hold none. */
  private part(): State.Part | undefined {
    const min = this.whole.parts.reduce(lesser)
    if (min === undefined || min.of === 0 || min.calls === 0) return undefined
    const { last } = this
    // The others do not know yet how much of it is used.
    return last !== undefined && this.whole.isPending(last.report) ? Fleet.leftOf(min, last.law) : min
  }

  /** When the others leave our part unused, whichever of our commits was stored. */
  private aloneAt(): number {
    return this.whole.sentAt + (this.part()?.fromMillis ?? 0)
  }

  /** Continues with our part. */
  private goAlone(): void {
    const part = this.part()
    const isTime = this.since !== undefined && this.time.own >= this.aloneAt()
    if (!isTime || this.alone !== undefined || part === undefined) return
    const { id, known, now } = this.whole
    this.alone = new Alone(id, known, part, now, this.opening.after)
    this.whole.askAgain()
  }

  /** A reply of the store is there. What was used in the meantime, if this process was alone. */
  comeBack(): Step<void> | undefined {
    const { alone } = this
    if (alone === undefined) return undefined
    const { law } = alone.state
    const report = alone.report(this.whole)
    this.alone = undefined
    this.last = { law, report }
    return report
  }
}

/** What two parts both give, if either may be stored. */
const lesser = (one: State.Part | undefined, other: State.Part | undefined): State.Part | undefined => {
  if (one === undefined || other === undefined) return undefined
  const quotas = Amounts.mapDimensions<number, number>(one.quotas, (left, dimension) =>
    Math.min(left, other.quotas[dimension] ?? 0)
  )
  return { ...(one.of <= other.of ? one : other), calls: Math.min(one.calls, other.calls), quotas }
}
