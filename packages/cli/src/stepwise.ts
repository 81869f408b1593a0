/** Long computations as generators, so that the program can do something else between two steps. */
import * as Effect from "effect/Effect"

/** A computation in steps. */
export type Stepwise<A> = Generator<undefined, A, undefined>

/** Runs all steps at once. */
export const drained = <A>(steps: Stepwise<A>): A => {
  let step = steps.next()
  while (step.done !== true) step = steps.next()
  return step.value
}

/** Runs all steps and yields between them, so that Ctrl-C takes effect. */
export const finished = Effect.fnUntraced(function* <A>(steps: Stepwise<A>): Effect.fn.Return<A> {
  let step = steps.next()
  while (step.done !== true) {
    yield* Effect.yieldNow
    step = steps.next()
  }
  return step.value
})
