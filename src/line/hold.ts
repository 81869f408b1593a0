/** A call in a line, from its arrival to its end: it waits, is held, and is settled once. */
import type { Blocked } from "../admission/blocked.ts"
import { Queued, type CallOwner } from "../admission/fairQueue.ts"
import type { ChargedPort } from "../sharing/port.ts"
import type { Wake } from "./waker.ts"

/** The types of a line: its state, what a call asks for, what an admitted call has, and why one is refused. */
export interface Terms {
  readonly state: unknown
  readonly ask: unknown
  readonly grant: object
  readonly refusal: unknown
}

/** Shared by the holds of a call that waits in several lines: the first that is admitted wins. */
export interface Claim {
  isTaken: boolean
  /** The number of lines. */
  readonly queues: number
}

export class Hold<T extends Terms = Terms> extends Queued {
  /** The amount it asks for. A line may estimate it again while it waits. */
  ask: T["ask"]
  /**
   * `"waiting"` until it is decided; `"held"` from its admission until its caller resumes; then `"begun"`, and `"ended"`. The only guard
   * against settling it twice.
   */
  phase: "waiting" | "held" | "begun" | "ended" = "waiting"
  /** Its grant, and the port that has charged it. */
  grant: T["grant"] | undefined = undefined
  chargedPort: ChargedPort<T["state"]> | undefined = undefined
  /** Why it was refused. */
  refusal: T["refusal"] | undefined = undefined
  /** When it began to wait, by its line's clock; 0 if it was admitted at once. */
  since = 0
  readonly claim: Claim | undefined
  private readonly wake: Wake
  private resume: (() => void) | undefined = undefined

  constructor(queueing: CallOwner & { readonly claim?: Claim | undefined }, cost: number, ask: T["ask"], wake: Wake) {
    super(queueing, cost)
    this.claim = queueing.claim
    this.ask = ask
    this.wake = wake
  }
  /** Whether the line has charged it, and its end will settle that. */
  get isOpen(): boolean {
    return this.phase === "held" || this.phase === "begun"
  }
  /** Whether its caller sleeps. A call that is admitted before that has not waited. */
  get isAwaited(): boolean {
    return this.resume !== undefined
  }
  /** Calls `resume` in a later task when the wait ends, or now if it has ended. */
  listen(resume: () => void): void {
    if (this.phase === "waiting") this.resume = resume
    else resume()
  }
  /** Ends the wait. */
  resolve(): void {
    const { resume } = this
    if (resume !== undefined) this.wake(resume)
  }
  /** Notes what it waits for as the first of its line. */
  stopped(_by: Blocked): void {}
}
