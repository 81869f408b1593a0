/**
 * What moves the queue of a pool on: it asks the store for those in front, and lets in those that are granted. How it
 * asks is the store's to say.
 */
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Blocked, Held, PoolStore, StoreUnavailable } from "../BudgetStore.ts"
import type { Entry, FairQueue, Turn } from "../internal/fairQueue.ts"
import type * as Limits from "../Limits.ts"

/**
 * How a pool asks its store. Made by `inBatches` or `atOnce`: nobody else calls it but the pool.
 *
 * @category drains
 * @since 0.1.0
 */
export type MakeDrain = <W extends Asker>(store: PoolStore, desk: Desk<W>) => Effect.Effect<Drain, never, Scope.Scope>

/** What it gives as an effect remains to be done; all of it is to be called where nothing interrupts. */
export interface Drain {
  /** Takes a charge at once if nobody waits and it fits. */
  readonly takeNow: (charge: Limits.Charge) => Held | undefined
  /** Moves the queue on as far as it goes. */
  readonly now: () => Effect.Effect<void> | undefined
  /** The time that `wakeIn` was told is over. */
  readonly timeIsUp: () => Effect.Effect<void> | undefined
  /** Settles at the store, gives the permit back, and moves the queue on. */
  readonly settle: (held: Held, used: Limits.Charge, succeeded: boolean) => Effect.Effect<void> | undefined
  /** Whether `settle` leaves nothing to be done. */
  readonly isInstant: () => boolean
  /** Callers that may stand in the queue although the store has not been heard yet. */
  readonly unasked: number
}

/** What a drain has to work with. */
export interface Desk<W extends Asker> {
  readonly queue: FairQueue<W>
  readonly permits: Permits
  /** Hears the rules from the store. */
  readonly learn: () => void
  /**
   * Brings a waiter's charge up to the rules as they are. Sends away a waiter that no longer fits, and says whether it
   * still does.
   */
  readonly recharge: (waiter: W) => boolean
  readonly grant: (turn: Turn<W>, held: Held, now: number) => void
  /** What a store that breaks answers: it counts as away. */
  readonly unavailable: (cause: unknown) => StoreUnavailable
  /** Sends away a waiter that the store can never let in, or did not answer. */
  readonly refuse: (waiter: W, refused: Refused) => void
  /** Looks again after so many milliseconds. */
  readonly wakeIn: (millis: number) => void
  /** Nobody can go now. */
  readonly idle: () => void
}

/** A waiter that the store is to be asked for. */
export interface Asker extends Entry {
  readonly charge: Limits.Charge
  state: "queued" | "asking" | "cancelled" | "done"
  /** What it waited for last. */
  binding: Limits.Dimension | undefined
  /** Ends the wait. */
  end(answer: Effect.Effect<never>): void
}

/** The calls of a pool that may be in flight. */
export interface Permits {
  /** Whether nothing bounds them. */
  readonly isUnbounded: boolean
  /** Whether every permit is taken. */
  readonly isFull: boolean
  /** Whether a call can have a permit at once. */
  readonly hasPermit: boolean
  /** Whether a call may go out now at all. */
  readonly hasRoom: boolean
  /** Takes a permit in hand if there is one. */
  readonly takePermit: Effect.Effect<boolean>
  /** Gives back what is in hand; `undefined` where that is nothing. */
  returnPermits(): Effect.Effect<unknown> | undefined
  /** A call goes out, with a permit that was in hand. */
  enter(): void
  /** A call has ended, or was not let out after all (`id` is `undefined`). Its permit is in hand then. */
  leave(id: number | undefined, succeeded: boolean): void
}

/** Why a store refuses a waiter. */
export type Refused = Exclude<Blocked, { readonly _tag: "Wait" }>
