/** `effect/Schedule` with a `jittered` that returns its input. */
import type * as Schedule from "effect/Schedule"

export * from "effect/Schedule"

export const jittered: typeof Schedule.jittered = (schedule) => schedule
