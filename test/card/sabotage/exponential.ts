/** `effect/Schedule` with a constant `exponential`. */
import * as Schedule from "effect/Schedule"

export * from "effect/Schedule"

export const exponential: typeof Schedule.exponential = (base) => Schedule.exponential(base, 1)
