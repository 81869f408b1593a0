/**
 * A call as its pool has it, from its arrival to its end.
 */
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as FairQueue from "../admission/fairQueue.ts"
import type * as Law from "../pacing/law.ts"
import type { Home } from "../sharing/port.ts"
import type * as Limits from "../Limits.ts"
import type * as Amounts from "../domain/amounts.ts"
import type { Pushback } from "../domain/signal.ts"
import type { BudgetError } from "./errors.ts"
import type { Wake } from "./waker.ts"

/** How a call stands in the queue, checked. */
export interface Queueing {
  readonly agent: string
  readonly priority: number
  readonly weight: number
  /** Whether it stands first among its agent's own. */
  readonly first: boolean
  /** How long it waits at most, in milliseconds; `Infinity` where nothing bounds it. */
  readonly maxWait: number
}

/** How a wait ends. */
export type Resolution = Effect.Effect<Entry, BudgetError>

/** A 429 or a failure of the provider, checked. */
export interface CheckedFailure {
  readonly reason: Pushback
  readonly retryAfter: number | undefined
  readonly readings: Law.Readings | undefined
  readonly used: Amounts.Charge
}

/** The pool of a call, as those who hold the call use it. */
export interface PoolOfCall {
  readonly name: string
  readonly law: Law.Pacer
  review(entry: Entry): void
  cancel(entry: Entry): void
  keep(entry: Entry, hasSucceeded: boolean): void
  settle(entry: Entry, used: Amounts.Charge, outcome: "success" | "failure" | "denied"): void
  fail(entry: Entry, failure: CheckedFailure): Law.Verdict
  observe(readings: Law.Readings, entry: Entry, used: Amounts.Charge | undefined): void
}

export class Entry implements FairQueue.Queued {
  readonly pool: PoolOfCall
  private readonly how: Queueing
  readonly estimate: Limits.Estimate
  readonly charge: Amounts.Whole
  /** When it began to wait, and what it costs in the queue: a call that goes at once needs neither. */
  since = 0
  cost = 0
  flow: FairQueue.Flow<this> | undefined = undefined
  previous: this | undefined = undefined
  next: this | undefined = undefined
  rank = -1
  moved = 0
  among = 0
  /**
   * `"waiting"` for its turn, `"held"` until its caller has it, `"begun"`, and `"ended"`. One that has not begun has sent
   * nothing.
   */
  phase: "waiting" | "held" | "begun" | "ended" = "waiting"
  /** Whether the provider has accepted it. */
  isAccepted = false
  /** What it waited for last, and how long it has. */
  binding: Limits.Dimension | undefined = undefined
  waitedMillis = 0
  /** What it was admitted with, and who has its charge. */
  ticket: Law.Ticket | undefined = undefined
  home: Home | undefined = undefined
  private resolution: Resolution | undefined = undefined
  private resume: ((resolution: Resolution) => void) | undefined = undefined

  constructor(pool: PoolOfCall, how: Queueing, estimate: Limits.Estimate, charge: Amounts.Whole) {
    this.pool = pool
    this.how = how
    this.estimate = estimate
    this.charge = charge
  }
  get agent(): string {
    return this.how.agent
  }
  get priority(): number {
    return this.how.priority
  }
  get weight(): number {
    return this.how.weight
  }
  get maxWait(): number {
    return this.how.maxWait
  }
  /** Whether it stood in the queue until its turn came. */
  get wasQueued(): boolean {
    return this.rank >= 0
  }
  /** Whether it holds a permit and a charge. */
  get isOpen(): boolean {
    return this.phase === "held" || this.phase === "begun"
  }
  /** How the wait has ended, if it has; its caller may not have resumed yet. */
  get resolved(): Resolution | undefined {
    return this.resolution
  }
  /** Whether its caller is asleep: one that is let in before has not waited. */
  get isAwaited(): boolean {
    return this.resume !== undefined
  }
  /** How the wait ends, now or later. */
  listen(resume: (resolution: Resolution) => void): void {
    if (this.resolution === undefined) this.resume = resume
    else resume(this.resolution)
  }
  /** Ends the wait. Its caller goes on in a later task. */
  resolve(resolution: Resolution, wake: Wake): void {
    const { resume } = this
    this.resolution = resolution
    if (resume !== undefined) wake(() => resume(resolution))
  }
  /** Its caller is gone: what still waits leaves, what it never had was not used, and of anything else nothing is known. */
  leave(exit: Exit.Exit<unknown, unknown>): void {
    if (this.phase === "begun") this.pool.keep(this, exit._tag === "Success")
    else this.pool.cancel(this)
  }
}
