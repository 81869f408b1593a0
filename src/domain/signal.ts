/**
 * What a response says about the limits.
 */
import type { Dimension } from "./amounts.ts"

/**
 * What a response says about one dimension.
 *
 * @category models
 * @since 0.3.0
 */
export interface DimensionSignal {
  /** The limit per minute. */
  readonly limit?: number | undefined
  /** What the provider has left, as it counts. */
  readonly remaining?: number | undefined
  /** The step that `remaining` is rounded to (Anthropic rounds tokens to the nearest thousand); 1 when exact. */
  readonly roundedTo?: number | undefined
}

/**
 * What a response says about the limits. Providers' adapters make it from headers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Signal {
  readonly dimensions: { readonly [D in Dimension]?: DimensionSignal }
}

/**
 * What a failure may mean for other calls, too; the budget judges it.
 *
 * - `"rateLimit"`: a limit was passed
 * - `"ramp"`: usage grows too fast
 * - `"overload"`: the provider failed or could not be reached; its limits are not at fault
 *
 * @category models
 * @since 0.3.0
 */
export type Pushback = "rateLimit" | "ramp" | "overload"
