/** Long computations as generators, so that the program can do something else between two steps. */
import * as Effect from "effect/Effect"

/** A computation in steps of about a millisecond. */
export type Stepwise<A> = Generator<undefined, A, undefined>

/** Runs all steps at once. */
export const drained = <A>(steps: Stepwise<A>): A => {
  let step = steps.next()
  while (step.done !== true) step = steps.next()
  return step.value
}

/** Runs all steps and yields between them, so that other fibers run and an interruption takes effect. */
export const yielding: <A>(steps: Stepwise<A>) => Effect.Effect<A> = Effect.fnUntraced(function* (steps) {
  let step = steps.next()
  while (step.done !== true) {
    yield* Effect.yieldNow
    step = steps.next()
  }
  return step.value
})
