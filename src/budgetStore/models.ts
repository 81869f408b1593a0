/**
 * The operations of a store, and how processes share it.
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

// -----------------------------------------------------------------------------
// The store
// -----------------------------------------------------------------------------

/**
 * A value and its version. Versions are never used twice.
 *
 * @category models
 * @since 0.2.0
 */
export interface Stored {
  readonly version: string
  readonly value: string
  /**
   * How long ago it was stored, in milliseconds, by a clock of the store. What a bucket has refilled while no process was
   * there is known from it; without it a budget's time stands still so long.
   */
  readonly ageMillis?: number | undefined
}

/**
 * What a store does. Values are texts of a few KB, keys are names of pools.
 *
 * @category models
 * @since 0.2.0
 */
export interface Store {
  /** What is stored: `undefined` where nothing is. A read that follows a swap sees it, in every process. */
  readonly read: (key: string) => Effect.Effect<Stored | undefined, StoreError>
  /**
   * Stores `next` if the version that is stored is `expected` (`undefined`: if nothing is), in one step that no other can
   * come between. Returns what is stored after that. It may be forgotten when it was not replaced for `keepMillis`.
   */
  readonly swap: (
    key: string,
    expected: string | undefined,
    next: Stored,
    keepMillis: number
  ) => Effect.Effect<Stored | undefined, StoreError>
}

/**
 * An operation of the store failed, or its outcome is unknown.
 *
 * @category errors
 * @since 0.2.0
 */
export class StoreError extends Schema.TaggedError<StoreError>("floodgate/BudgetStore/StoreError")("StoreError", {
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `The store of a budget failed: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * What a budget does while its store cannot be reached.
 *
 * - `"fail"`: a caller fails at once with `StoreUnavailable`
 * - `{ wait }`: a caller waits until the store is back, at most this long after it went away; then it fails
 * - `"degrade"`: after a second this process goes on with its part of the limits, which the others leave to it. A process
 *   that has never reached the store has no part, and fails.
 *
 * @category options
 * @since 0.1.0
 */
export type WhenAway = "fail" | "degrade" | { readonly wait: Duration.Input }

/**
 * How processes share.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * What happens while the store is away.
   *
   * @default { wait: "30 seconds" }: a restart of the server ends no job
   */
  readonly whenAway?: WhenAway | undefined
  /**
   * Under `"degrade"`: how long a process that cannot reach the store goes on, and the others keep its part for it. Then it
   * fails its callers with `StoreUnavailable`. A process that dies keeps its part so long, too.
   *
   * @default "10 minutes": longer than most outages, and as long as the default policy tries
   */
  readonly degradeFor?: Duration.Input | undefined
  /**
   * How long after its last sign of life a process is considered dead, and its calls in flight as ended.
   *
   * @default "20 seconds": longer than a garbage collection or a paused machine, shorter than a person's patience
   */
  readonly lease?: Duration.Input | undefined
  /**
   * What happens to the estimates that a dead process held.
   *
   * - `"keep"`: they count as used, because the provider may have counted them
   * - `"refund"`: they are given back
   *
   * @default "keep"
   */
  readonly lost?: "keep" | "refund" | undefined
  /**
   * After how long without a reply the store counts as away.
   *
   * @default "2 seconds"
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * The name of this process in a status.
   *
   * @default "process"
   */
  readonly name?: string | undefined
}

/** A store, and how processes share it. Times are milliseconds. */
export interface Settings extends Store {
  readonly whenAway: "fail" | "degrade" | "wait"
  readonly patienceMillis: number
  readonly degradeMillis: number
  readonly leaseMillis: number
  readonly lost: "keep" | "refund"
  readonly timeoutMillis: number
  readonly name: string
}
