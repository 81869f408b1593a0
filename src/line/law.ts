/**
 * The law of a line, as pure steps on a draft of its state: a pool's limits, a cap in dollars, the share of a long window. A new limit
 * is a new law, and its line is written already.
 */
import type { Blocked } from "../admission/blocked.ts"
import type { Hold, Terms } from "./hold.ts"

/** A call that no wait would admit. The law has not charged anything. */
export class Refused<R> {
  readonly reason: R

  constructor(reason: R) {
    this.reason = reason
  }
}

/** A port may play each step more than once, so it changes only the draft. `id` is this process, as the state names it. */
export interface Law<T extends Terms, H extends Hold<T> = Hold<T>> {
  /** Whether others count on a call to be sent at once, so that an admission which a store confirms too late is given back. */
  readonly expires: boolean
  /**
   * Charges a call and returns its grant, or leaves the limits as they are and says why it waits or is refused. `weight` is that of all
   * agents that wait in this process.
   */
  readonly admit: (
    draft: T["state"],
    id: string,
    hold: H,
    weight: number,
    now: number
  ) => T["grant"] | Blocked | Refused<T["refusal"]>
  /** Notes the first call that still waits; undefined if none does. */
  readonly wait: (draft: T["state"], id: string, head: H | undefined, weight: number) => void
  /** Gives back what a call was charged that is not sent. */
  readonly release: (draft: T["state"], id: string, grant: T["grant"], now: number) => void
}
