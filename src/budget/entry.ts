/** A call in its pool, from its arrival to its end. */
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { Queued } from "../admission/fairQueue.ts"
import type * as Law from "../pacing/law.ts"
import type { ChargedPort } from "../sharing/port.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../domain/amounts.ts"
import type * as Rules from "../domain/rules.ts"
import type { BudgetError, RejectedAsTooLarge } from "./errors.ts"
import type { Claim } from "./models.ts"
import type { Wake } from "./waker.ts"

/** Checked options of how a call is queued. */
export interface Queueing {
  readonly agent: string
  readonly priority: number
  readonly weight: number
  /** Whether it goes before its agent's other calls. */
  readonly first: boolean
  /** The longest wait, in milliseconds; `Infinity` if it is not bounded. */
  readonly maxWait: number
  /** Estimates it again; undefined if nothing is known that was not known before. */
  readonly revise?: (() => Limits.Estimate | undefined) | undefined
  /** What it is charged even if its estimate is wrong; undefined if that is the whole estimate. */
  readonly certain?: Amounts.Certain | undefined
  /** Shared by the entries of a call that waits in several pools. */
  readonly claim?: Claim | undefined
}

/** How a call ended, as `settle` of a reservation takes it. */
export type SettledAs = "success" | "failure" | "denied"

/** How a wait ends. */
export type Resolution = Effect.Effect<Entry, BudgetError>

/** Called when a call begins, and with its usage if it succeeds. */
export interface EntryWatcher {
  readonly began: () => void
  readonly used: (usage: Limits.Usage) => void
}

/** The operations of a pool that a call and its holder need. */
export interface PoolOfCall {
  readonly name: string
  readonly law: Law.Pacer
  review(entry: Entry): void
  cancel(entry: Entry): void
  keep(entry: Entry, hasSucceeded: boolean): void
  settle(entry: Entry, used: Amounts.Charge, outcome: SettledAs, readings?: Law.Readings): undefined
  fail(entry: Entry, failure: Law.FailedCall): Law.Verdict
  observe(readings: Law.Readings, entry: Entry): undefined
}

export class Entry extends Queued {
  readonly pool: PoolOfCall
  readonly queueing: Queueing
  /** What it is expected to use. */
  asked: Limits.Estimate
  /** That within the limits. All of these may change while it waits. */
  estimate: Limits.Estimate
  charge: Amounts.Whole
  /** When it began to wait. This and its cost in the queue are 0 if it is admitted at once. */
  since = 0
  /** `"waiting"` in the queue; `"held"` from its admission until its caller resumes; then `"begun"`, and `"ended"`. */
  phase: "waiting" | "held" | "begun" | "ended" = "waiting"
  /** Whether the provider has accepted it. */
  isAccepted = false
  /** What it waited for last, and how long it waited. */
  binding: Limits.Dimension | undefined = undefined
  waitedMillis = 0
  /** What it was admitted with, and the port that has charged it. */
  admission: Law.Admission | undefined = undefined
  chargedPort: ChargedPort | undefined = undefined
  /** What was charged since then, because its answer has used more. */
  owed: Amounts.Whole = Amounts.nothing
  /** How the wait has ended, if it has. Its caller may not have resumed yet. */
  resolution: Resolution | undefined = undefined
  /** Why it was rejected for good; undefined if another attempt may be accepted. */
  refusal: RejectedAsTooLarge | undefined = undefined
  private resume: ((resolution: Resolution) => void) | undefined = undefined
  /** Records what the call uses. */
  watcher: EntryWatcher | undefined = undefined

  constructor(pool: PoolOfCall, queueing: Queueing, asked: Limits.Estimate, { charge, estimate }: Amounts.Fitted) {
    super(queueing, 0)
    this.asked = asked
    this.pool = pool
    this.queueing = queueing
    this.estimate = estimate
    this.charge = charge
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
      this.estimate = fits.estimate
      this.charge = fits.charge
      return true
    } catch {
      // The accounting is the caller's, and must not harm other calls of the pool.
      return false
    }
  }
  /** Fits its charge into other limits. Returns the one that it certainly exceeds, if there is one. */
  fit(rules: Rules.Rules): Amounts.Misfit | undefined {
    try {
      const { charge, estimate, misfit } = Amounts.fitted(rules, this.asked, this.queueing.certain)
      this.estimate = estimate
      this.charge = charge
      return misfit
    } catch {
      // The accounting is the caller's, and must not harm other calls of the pool.
      return undefined
    }
  }
  /** What it is certainly charged; undefined if that is not known. */
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
  /** Whether it holds a permit and a charge. */
  get isOpen(): boolean {
    return this.phase === "held" || this.phase === "begun"
  }
  /** Whether its caller sleeps. A call that is admitted before that has not waited. */
  get isAwaited(): boolean {
    return this.resume !== undefined
  }
  /** Calls `resume` when the wait ends, or now if it has ended. */
  listen(resume: (resolution: Resolution) => void): void {
    if (this.resolution === undefined) this.resume = resume
    else resume(this.resolution)
  }
  /** Ends the wait. The caller resumes in a later task. */
  resolve(resolution: Resolution, wake: Wake): void {
    const { resume } = this
    this.resolution = resolution
    if (resume !== undefined) wake(() => resume(resolution))
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
