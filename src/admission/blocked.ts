/**
 * The reason why a call cannot be sent now.
 */
import type { Dimension } from "../domain/amounts.ts"

/** The obstacle that a call waits for: a limit, the end of another call, or the end of a pause. */
export type Obstacle = Dimension | "concurrency" | "pause"

/** How long a call waits, and for what. `millis` is `Infinity` if another event has to come first, or a quota is used up. */
export interface Blocked {
  readonly by: Obstacle
  readonly millis: number
}

/** The dimension that a call waits for, if it waits for one. */
export const dimensionOf = (by: Obstacle | undefined): Dimension | undefined =>
  by === "concurrency" || by === "pause" ? undefined : by
