/** Monotonic time, which changes of the system clock do not affect. */
import type * as Clock from "effect/Clock"

/** A reader of a monotonic clock, in milliseconds. */
export const monotonic =
  (clock: Clock.Clock): (() => number) =>
  () =>
    Number(clock.monotonicTimeNanosUnsafe()) / 1e6
