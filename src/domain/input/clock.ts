/** Monotonic time, which changes of the system clock do not affect, and objects that go by the clock of their callers. */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

/** A reader of a monotonic clock, in milliseconds. */
export const monotonic =
  (clock: Clock.Clock): (() => number) =>
  () =>
    Number(clock.monotonicTimeNanosUnsafe()) / 1e6

/** Makes effects of an object that goes by the clock of its latest caller. */
export const byCallersClock =
  (object: { clock: Clock.Clock }) =>
  <A>(use: () => A): Effect.Effect<A> =>
    Effect.clockWith((clock) =>
      Effect.sync(() => {
        object.clock = clock
        return use()
      })
    )
