/** Pays for what a call holds before it is queued in its pool. */
import type { CallOwner } from "../admission/fairQueue.ts"
import { perDollar } from "../domain/spending/ledger.ts"
import type { Wake } from "../line/waker.ts"

export interface Paying extends CallOwner {
  /** Resumes the caller in a later task. */
  readonly wake: Wake
}

/** The smallest cost in the fair queue, in dollars. Without it, calls that cost nothing would always go first. */
const minCost = 1e-6

/** A cost in the fair queue. */
export const costIn = (units: number): number => Math.max(minCost, units / perDollar)
