/**
 * The signals of a response about the limits.
 */
import type { Dimension } from "./amounts.ts"

/**
 * A response's information about the limits. Providers' adapters make it from headers.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Signal {
  readonly dimensions: {
    readonly [D in Dimension]?: {
      /** The limit per minute. */
      readonly limit?: number | undefined
      /** The amount left of it, as the provider counts. */
      readonly remaining?: number | undefined
      /** The step that `remaining` is rounded to; 1 if it is exact. Anthropic rounds tokens to the nearest thousand. */
      readonly roundedTo?: number | undefined
    }
  }
  /** The long windows of a subscription by their names, such as `"5h"`, `"7d"` and, for some models only, `"7d_sonnet"`. */
  readonly windows?:
    | Readonly<
        Record<
          string,
          {
            /** The fraction that is spent, 0 to 1. */
            readonly used: number
            /** When it ends, in milliseconds since the epoch. */
            readonly resetsAt: number
            /** Whether the provider rejects calls until then. */
            readonly isRejected?: boolean | undefined
            /**
             * Parts of the names of the models that it concerns. If there are none, it concerns those in whose responses it is told.
             *
             * @default all models
             * @since 0.5.0
             */
            readonly models?: ReadonlyArray<string> | undefined
          }
        >
      >
    | undefined
}

/** The part of a signal about one dimension. */
export type DimensionSignal = NonNullable<Signal["dimensions"]["tokens"]>

/** The part of a signal about a long window. */
export type WindowSignal = NonNullable<Signal["windows"]>[string]

/**
 * A failure that may concern other calls. The budget judges whether it does.
 *
 * - `"rateLimit"`: a limit was exceeded
 * - `"ramp"`: usage grows too fast
 * - `"overload"`: the provider failed or could not be reached, whatever its limits are
 */
export type Pushback = "rateLimit" | "ramp" | "overload"
