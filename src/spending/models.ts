/** A purse as its users have it, and who pays for the calls of some code. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { Cap } from "./cap.ts"
import type { Kept } from "./ledger.ts"
import type { Status } from "./purse.ts"

/**
 * Counts what calls cost, up to a cap.
 *
 * @category models
 * @since 0.2.0
 */
export interface Purse {
  readonly name: string
  readonly status: Effect.Effect<{ readonly [K in keyof Status]: Status[K] }>
  /** Changes the cap, or takes it away, while calls run: what was spent stays spent, and calls that wait may go on. */
  readonly resize: (cap: Cap | undefined) => Effect.Effect<void>
  /** What it has to know when its process starts again, as plain JSON. */
  readonly kept: Effect.Effect<{ readonly [K in keyof Kept]: Kept[K] }>
}

/** The purses that the calls of some code pay from. */
export const Purses: Context.Reference<ReadonlyArray<Purse>> = Context.Reference<ReadonlyArray<Purse>>(
  "floodgate/Spending/Purses",
  { defaultValue: () => [] }
)
