/**
 * A caller that stands in a pool's queue.
 */
import type * as Effect from "effect/Effect"
import type { Entry, Flow } from "../admission/fairQueue.ts"
import type * as Limits from "../Limits.ts"
import type * as Amounts from "../limits/amounts.ts"
import type { BudgetError } from "./errors.ts"
import type { HeldReservation } from "./reservation.ts"
import type { Wake } from "./waker.ts"

/** How a caller stands in the queue, checked. */
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
export type Answer = Effect.Effect<HeldReservation, BudgetError>

export class Waiter implements Entry {
  private readonly how: Queueing
  readonly estimate: Limits.Estimate
  readonly charge: Amounts.Whole
  readonly since: number
  cost: number
  /** What it waited for last. */
  binding: Limits.Dimension | undefined = undefined
  flow: Flow<this> | undefined = undefined
  previous: this | undefined = undefined
  next: this | undefined = undefined
  /** What it was granted, until its caller has it. */
  granted: HeldReservation | undefined = undefined
  private resume: ((answer: Answer) => void) | undefined = undefined
  private answer: Answer | undefined = undefined

  constructor(how: Queueing, estimate: Limits.Estimate, charge: Amounts.Whole, cost: number, since: number) {
    this.how = how
    this.estimate = estimate
    this.charge = charge
    this.cost = cost
    this.since = since
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
  /** How the wait ended, if it has; its caller may not have resumed yet. */
  get ended(): Answer | undefined {
    return this.answer
  }
  /** Whether its caller is asleep: one that is let in before has not waited. */
  get isAwaited(): boolean {
    return this.resume !== undefined
  }
  /** How the wait ends, now or later. */
  listen(resume: (answer: Answer) => void): void {
    if (this.answer === undefined) this.resume = resume
    else resume(this.answer)
  }
  /** Ends the wait. The caller goes on in a later task. */
  end(answer: Answer, wake: Wake): void {
    const { resume } = this
    this.answer = answer
    if (resume !== undefined) wake(() => resume(answer))
  }
}
