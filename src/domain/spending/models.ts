/** A purse in its public form, and the purses of the context. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { Cap } from "./cap.ts"
import type { Kept } from "./ledger.ts"
import type { Status } from "./purse.ts"

/**
 * Counts the costs of calls, up to a cap.
 *
 * @category models
 * @since 0.2.0
 */
export interface Purse {
  readonly name: string
  readonly status: Effect.Effect<Status>
  /** Changes or removes the cap while calls run. What was spent still counts, and waiting calls may continue. */
  readonly resize: (cap: Cap | undefined) => Effect.Effect<void>
  /** The state to store for the next start of the process, as plain JSON. */
  readonly kept: Effect.Effect<Kept>
  /** What a governor charges; nothing else reads it. A copy of a purse pays from the same sums. */
  readonly internals: unknown
}

/** The purses that the calls of some code pay from. */
export const Purses: Context.Reference<ReadonlyArray<Purse>> = Context.Reference<ReadonlyArray<Purse>>(
  "floodgate/Spending/Purses",
  { defaultValue: () => [] }
)
