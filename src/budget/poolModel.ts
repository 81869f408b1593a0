/** What a pool is to the rest of the budget, and who waits in it. */
import type * as Effect from "effect/Effect"
import type { Held, Pause, Snapshot, StoreUnavailable } from "../BudgetStore.ts"
import type { Asker } from "../budgetStore/drain.ts"
import type { Flow, Turn } from "../internal/fairQueue.ts"
import * as Limits from "../Limits.ts"
import type { BudgetError } from "./errors.ts"
import type { HeldReservation } from "./reservation.ts"

/** What a call costs its agent. It is never quite free: one that takes nothing of any limit still takes its turn. */
export const costOf = (charge: Limits.Charge, rules: Limits.Rules): number =>
  Math.max(1e-4, Limits.dominantShare(charge, rules))

/** A waiter, and what it waits for. */
export class Waiter implements Asker {
  readonly pool: Pool
  private readonly who: WaiterOptions
  /** By `rules`, too. */
  cost: number
  readonly estimate: Limits.Estimate
  /** What the estimate takes by `rules`; made anew when they change. */
  charge: Limits.Charge
  rules: Limits.Rules
  readonly since: number
  state: Asker["state"] = "queued"
  binding: Limits.Dimension | undefined = undefined
  /** Set when granted, until its holder has it. */
  reservation: HeldReservation | undefined = undefined
  private resume: ((answer: Answer) => void) | undefined = undefined
  private answer: Answer | undefined = undefined
  flow: Flow<this> | undefined = undefined
  previous: this | undefined = undefined
  next: this | undefined = undefined

  constructor(pool: Pool, estimate: Limits.Estimate, charge: Limits.Charge, who: WaiterOptions, since: number) {
    this.pool = pool
    this.who = who
    this.rules = pool.rules()
    this.cost = costOf(charge, this.rules)
    this.estimate = estimate
    this.charge = charge
    this.since = since
  }
  get agent(): string {
    return this.who.agent
  }
  get priority(): number {
    return this.who.priority
  }
  get weight(): number {
    return this.who.weight
  }
  /**
   * Whether the caller listens already. If it is admitted by the drain that its own arrival caused, it has not waited.
   */
  get isAwaited(): boolean {
    return this.resume !== undefined
  }
  /** How the wait ended, now or later. It can be heard once. */
  listen(resume: (answer: Answer) => void): void {
    if (this.answer === undefined) this.resume = resume
    else resume(this.answer)
  }
  /** Ends the wait. A reservation refers to its waiter, and must not keep the fiber that waited and what that gave. */
  end(answer: Answer): void {
    const { resume } = this
    this.state = "done"
    this.resume = undefined
    if (resume === undefined) this.answer = answer
    else resume(answer)
  }
}

/** How a wait ends. */
export type Answer = Effect.Effect<HeldReservation, BudgetError>

/** Where a waiter that comes will stand. */
export interface Newcomer {
  readonly agent: string
  readonly priority: number
  readonly first: boolean
}

export interface WaiterOptions extends Newcomer {
  readonly weight: number
}

/** What a waiter that would come now must expect. */
export interface Prediction {
  readonly millis: number
  readonly dimension: Limits.Dimension | undefined
}

/** The waiters, how long they have waited, and what they must expect. */
export interface Waiting extends Prediction {
  readonly waiter: Waiter
  readonly waitedMillis: number
}

export interface Pool {
  readonly name: string
  readonly rules: () => Limits.Rules
  readonly queued: () => number
  /** Whether `settle` leaves nothing to be done. */
  readonly isInstant: () => boolean
  /** As many may wait. */
  readonly maxQueued: number
  /** Callers that may stand in the queue although the store has not been heard yet. */
  readonly unasked: number
  readonly inFlight: () => number
  /** Calls that may be in flight now: the concurrency, less while a cooldown is probed. */
  readonly allowed: () => number
  /** Takes the charge at once if nobody waits and it fits. */
  readonly takeNow: (charge: Limits.Charge) => Held | undefined
  readonly admit: (estimate: Limits.Estimate, charge: Limits.Charge, options: WaiterOptions) => Waiter
  /** Moves the queue on; gives what remains to be done. To be called where nothing interrupts. */
  readonly drainNow: () => Effect.Effect<void> | undefined
  /** Gives everything back; what remains to be done then. To be called where nothing interrupts. */
  readonly cancel: (waiter: Waiter) => Effect.Effect<void> | undefined
  /**
   * Settles; gives what remains to be done. To be called once, where nothing interrupts. With the turn that it was
   * granted in, its agent's account is corrected to what was used.
   */
  readonly settle: (
    held: Held,
    used: Limits.Charge,
    succeeded: boolean,
    turn?: Turn<Waiter>
  ) => Effect.Effect<void> | undefined
  readonly observe: (signal: Limits.Signal, answered: Held | undefined) => Effect.Effect<void>
  /**
   * Hears from the store which rules hold now: what the pool is configured to, if no process has been told of limits for an
   * hour. What a header taught may be wrong, and a pool that refuses every call hears no better.
   */
  readonly doubt: Effect.Effect<void>
  readonly pause: (pause: Pause, rejected: Held | undefined) => Effect.Effect<void>
  /** Runs an effect whose steps belong together: what one of them frees is given to nobody before the last. */
  readonly together: (self: Effect.Effect<void>) => Effect.Effect<void>
  readonly resize: (options: {
    limits: Limits.Limits | undefined
    concurrency: number | undefined
  }) => Effect.Effect<void>
  readonly snapshot: Effect.Effect<Snapshot, StoreUnavailable>
  readonly predict: (charge: Limits.Charge, who: Newcomer, snapshot: Snapshot) => Prediction
  /** The first waiters in the order of service, at most `count`. */
  readonly waiting: (count: number, snapshot: Snapshot) => ReadonlyArray<Waiting>
}
