/** A call in its pool, from its arrival to its end. */
import type * as Exit from "effect/Exit"
import { type Blocked, dimensionOf } from "../admission/blocked.ts"
import type { CallOwner } from "../admission/fairQueue.ts"
import type { Claim } from "../line/hold.ts"
import { Hold } from "../line/hold.ts"
import type { Wake } from "../line/waker.ts"
import type * as Pacer from "../pacing/pacer.ts"
import type { PoolState } from "../sharing/state.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import type * as Rules from "../domain/rules.ts"
import type { BudgetErrorReason, RejectedAsTooLarge } from "./errors.ts"
import type { MeasuredCall } from "./measuring.ts"
import { type JobSize, leftOf } from "./jobSizes.ts"

/** Checked options of how a call is queued. */
export interface Queueing extends CallOwner {
  /** Whether it goes before its agent's other calls. */
  readonly first: boolean
  /** The longest wait, in milliseconds; `Infinity` if it is not bounded. */
  readonly maxWait: number
  /** Estimates it again; undefined if nothing is known that was not known before. */
  readonly revise?: (() => Limits.Estimate | undefined) | undefined
  /** The part of its charge that holds even if its estimate is wrong; undefined if that is the whole estimate. */
  readonly certain?: Amounts.Certain | undefined
  /** Shared by the entries of a call that waits in several pools. */
  readonly claim?: Claim | undefined
}

/** The end of a call, as `settle` of a reservation takes it. */
export type SettledAs = "success" | "failure" | "denied"

/** The types of a pool's line. What a call asks for is its estimate, within the limits. */
export interface PoolTerms {
  readonly state: PoolState
  readonly ask: Pick<Amounts.Fitted, "charge" | "estimate">
  readonly grant: Pacer.Admission
  readonly refusal: BudgetErrorReason
}

/** Called when a call begins, and with its usage if it succeeds. */
export interface EntryWatcher {
  readonly began: () => void
  readonly used: (usage: Limits.Usage) => void
}

/** The operations of a pool that a call and its holder need. */
export interface PoolOfCall {
  readonly name: string
  readonly law: Pacer.Pacer
  review(entry: Entry): void
  cancel(entry: Entry): void
  keep(entry: Entry, hasSucceeded: boolean): void
  settle(entry: Entry, used: Amounts.Charge, outcome: SettledAs, readings?: Pacer.Readings): undefined
  fail(entry: Entry, failure: Pacer.FailedCall): Pacer.Verdict
  observe(readings: Pacer.Readings, entry: Entry): undefined
}

export class Entry extends Hold<PoolTerms> {
  readonly pool: PoolOfCall
  readonly queueing: Queueing
  /** Its estimate. It may exceed the limits, and change while it waits. */
  asked: Limits.Estimate
  /** Whether the provider has accepted it. */
  isAccepted = false
  /** The limit that it waited for last, and how long it waited. */
  binding: Limits.Dimension | undefined = undefined
  waitedMillis = 0
  /** The amount charged since its admission, because its answer has used more. */
  owed: Amounts.Whole = Amounts.nothing
  /** Why it was rejected for good; undefined if another attempt may be accepted. */
  rejection: RejectedAsTooLarge | undefined = undefined
  /** Its times, if its pool measures how many calls may be in flight. */
  measured: MeasuredCall | undefined = undefined
  /** The size of its job, if a call has stated it. */
  jobSize: JobSize | undefined = undefined
  /** Records what the call uses. */
  watcher: EntryWatcher | undefined = undefined

  constructor(pool: PoolOfCall, queueing: Queueing, asked: Limits.Estimate, fits: Amounts.Fitted, wake: Wake) {
    super(queueing, 0, fits, wake)
    this.asked = asked
    this.pool = pool
    this.queueing = queueing
  }
  /** Its estimate within the limits, and the charge for that. */
  get estimate(): Limits.Estimate {
    return this.ask.estimate
  }
  get charge(): Amounts.Whole {
    return this.ask.charge
  }
  override get left(): number | undefined {
    return leftOf(this.jobSize, this.charge, this.cost)
  }
  /**
   * Estimates it again; returns whether anything changed. An estimate that cannot fit is ignored, because it would end a call that
   * was admissible when it arrived.
   */
  revise(rules: Rules.Rules): boolean {
    try {
      const asked = this.queueing.revise?.()
      if (asked === undefined) return false
      const fits = Amounts.fitted(rules, asked, this.queueing.certain)
      if (fits.misfit !== undefined) return false
      this.asked = asked
      this.ask = fits
      return true
    } catch {
      // The accounting is the caller's, and must not harm other calls of the pool.
      return false
    }
  }
  /** Fits its charge into other limits. Returns the one that it certainly exceeds, if there is one. */
  fit(rules: Rules.Rules): Amounts.Misfit | undefined {
    try {
      const fits = Amounts.fitted(rules, this.asked, this.queueing.certain)
      this.ask = fits
      return fits.misfit
    } catch {
      // The accounting is the caller's, and must not harm other calls of the pool.
      return undefined
    }
  }
  /** The part of its charge that is certain; undefined if that is not known. */
  get certain(): Amounts.Whole | undefined {
    try {
      const certain = this.queueing.certain?.(true)
      return certain && Amounts.whole(certain)
    } catch {
      // As above: what follows from a rejection must not depend on whether the accounting throws.
      return undefined
    }
  }
  /** Whether it stood in the queue until its turn came. */
  get wasQueued(): boolean {
    return this.rank >= 0
  }
  override stopped({ by }: Blocked): void {
    this.binding = dimensionOf(by) ?? this.binding
  }
  /** Its caller has stopped waiting for its answer, or the provider has failed. */
  lose(): void {
    if (this.measured !== undefined) this.measured.isLost = true
  }
  /** Its caller has resumed, and holds its reservation from now on. */
  begin(): void {
    if (this.phase !== "held") return
    this.phase = "begun"
    this.watcher?.began()
  }
  /** The scope of its caller has closed. A call that has not begun has sent nothing; otherwise its usage is unknown. */
  leave(exit: Exit.Exit<unknown, unknown>): void {
    if (this.phase === "begun") this.pool.keep(this, exit._tag === "Success")
    else this.pool.cancel(this)
  }
}
