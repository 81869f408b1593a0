/**
 * Runs an effect in simulated time, as fast as it goes.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import * as TestClock from "effect/testing/TestClock"

/**
 * How a simulation is run.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Decides every random number that the effect draws. */
  readonly seed: string | number
  /** Called between strides of simulated time, with the seconds that have passed. */
  readonly progress?: ((seconds: number) => Effect.Effect<void>) | undefined
}

/** Sleepers are woken in order within a stride, whatever its length; between two strides it is seen whether all is done. */
const strideSeconds = 10
/** A month without an end is a mistake of the caller. */
const longestSeconds = 2_600_000

/**
 * Runs an effect under a `TestClock` of its own until it ends. Dies if that takes more than a month: bound what may not end
 * with `Effect.timeout`.
 *
 * **Details**
 *
 * Simulated time starts at 0. Between two sleepers no time passes in reality, so an hour takes as long as its events
 * take. The same seed gives the same run.
 *
 * @category running
 * @since 0.1.0
 */
export const simulate = <A, E, R>(self: Effect.Effect<A, E, R>, { progress, seed }: Options): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(Random.withSeed(self, seed))
    let seconds = 0
    while (true) {
      const exit = fiber.pollUnsafe()
      if (exit !== undefined) return Exit.isSuccess(exit) ? exit.value : yield* Effect.failCause(exit.cause)
      if (seconds >= longestSeconds) return yield* Effect.die(new Error("simulate: expected an end within a month"))
      yield* TestClock.adjust(strideSeconds * 1_000)
      seconds += strideSeconds
      if (progress !== undefined) yield* progress(seconds)
    }
  }).pipe(
    // A woken fiber may compute for longer than the second after which TestClock would warn and go on without it.
    Effect.provide(TestClock.layer({ warningDelay: "1 hour" }))
  )
