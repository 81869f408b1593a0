/** Computations that take long are generators, so that a program may do something else between two of their steps. */
import * as Effect from "effect/Effect"

/** A computation in steps. */
export type Stepwise<A> = Generator<undefined, A, undefined>

/** All steps at once. */
export const drained = <A>(steps: Stepwise<A>): A => {
  let step = steps.next()
  while (step.done !== true) step = steps.next()
  return step.value
}

/** All steps; between two of them the fiber lets go, so that Ctrl-C takes effect. */
export const finished = Effect.fnUntraced(function* <A>(steps: Stepwise<A>): Effect.fn.Return<A> {
  let step = steps.next()
  while (step.done !== true) {
    yield* Effect.yieldNow
    step = steps.next()
  }
  return step.value
})
