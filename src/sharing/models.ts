/** The operations of a store, and the options of sharing one. */
import * as Input from "../domain/input/checks.ts"
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

// -----------------------------------------------------------------------------
// The store
// -----------------------------------------------------------------------------

/**
 * A value and its version. Versions are never used twice.
 *
 * @stability unstable
 * @category models
 * @since 0.2.0
 */
export interface Stored {
  readonly version: string
  readonly value: string
  /**
   * How long ago it was stored, in milliseconds, by the store's clock. It tells a budget how much its buckets have refilled
   * while no process was running. Without it, the budget's time stands still in the meantime.
   */
  readonly ageMillis?: number | undefined
  /**
   * The time of the reply by the store's clock, in milliseconds since the epoch. Caps in dollars per day follow it. Without it,
   * they follow the clocks of the processes.
   */
  readonly utc?: number | undefined
}

/**
 * The operations of a store. Values are texts of a few KB, keys are names of pools and ledgers.
 *
 * @stability unstable
 * @category models
 * @since 0.2.0
 */
export interface Store {
  /** Returns the stored value, or `undefined` if there is none. A read after a swap sees its value, in every process. */
  readonly read: (key: string) => Effect.Effect<Stored | undefined, StoreError>
  /**
   * Stores `next` if the stored version is `expected` (`undefined`: if nothing is stored), atomically. Returns what is stored
   * afterwards. The store may delete a value that was not replaced for `keepMillis`.
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
 * @stability unstable
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

/** After a timeout it is unknown whether the store has performed the operation. */
export const noReply = new StoreError({ cause: new Error("no reply in time") })

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * The behaviour of a budget while its store cannot be reached.
 *
 * - `"fail"`: callers fail at once with `StoreUnavailable`
 * - `{ wait }`: callers wait until the store can be reached again, and fail if that takes longer than this
 * - `"degrade"`: after a second this process continues with its part of the limits, which the others leave unused. Callers of
 *   a process that has never reached the store fail, because it has no part.
 *
 * @category options
 * @since 0.1.0
 */
type WhenAway = "fail" | "degrade" | { readonly wait: Duration.Input }

/**
 * The options of a budget that processes share.
 *
 * @stability unstable
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * The behaviour while the store cannot be reached.
   *
   * @default { wait: "30 seconds" }: long enough for a restart of the server
   */
  readonly whenAway?: WhenAway | undefined
  /**
   * With `"degrade"`: how long a process that cannot reach the store continues with its part of the limits. After that, its
   * callers fail with `StoreUnavailable`. The other processes leave the part unused for as long, even if the process has died.
   *
   * @default "10 minutes": longer than most outages, and as long as the default policy tries
   */
  readonly degradeFor?: Duration.Input | undefined
  /**
   * How long after its last commit a process is considered dead. Then its calls in flight count as ended.
   *
   * @default "20 seconds": longer than a garbage collection or a paused machine, shorter than a person's patience
   */
  readonly lease?: Duration.Input | undefined
  /**
   * The treatment of the reservations of a dead process.
   *
   * - `"keep"`: they count as used, because the provider may have counted them
   * - `"refund"`: they are refunded
   *
   * @default "keep"
   */
  readonly lost?: "keep" | "refund" | undefined
  /**
   * How long an operation of the store may take before the store counts as unreachable.
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

/** The longest lease, and the longest degraded mode. */
export const maxMillis = 86_400_000
/** The longest timeout of an operation. */
const maxTimeout = 3_600_000

const spanUpTo = (max: number): Input.Check =>
  Input.duration(
    `a duration > 0 of at most ${Duration.format(Duration.millis(max))}`,
    (millis) => millis > 0 && millis <= max
  )

const waits = Input.options<{ readonly wait: Duration.Input }>({ wait: spanUpTo(maxMillis) }, "wait")

/** A check for each option. */
export const checks: Input.Checks<Options> = {
  whenAway: (value) => (typeof value === "object" ? waits(value) : Input.oneOf("fail", "degrade")(value)),
  degradeFor: spanUpTo(maxMillis),
  lease: spanUpTo(maxMillis),
  lost: Input.oneOf("keep", "refund"),
  timeout: spanUpTo(maxTimeout),
  name: Input.text
}

/** A store with its checked options. Durations are milliseconds. */
export interface StoreSettings extends Store {
  readonly whenAway: "fail" | "degrade" | "wait"
  readonly patienceMillis: number
  readonly degradeMillis: number
  readonly leaseMillis: number
  readonly lost: "keep" | "refund"
  readonly timeoutMillis: number
  readonly name: string
}
