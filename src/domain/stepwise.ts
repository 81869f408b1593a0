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

/** Items in one step: some thousand small objects take about a millisecond. */
const atOnce = 1_000

/** Maps many items in steps. */
export function* mapped<A, B>(items: ReadonlyArray<A>, f: (item: A, index: number) => B): Stepwise<ReadonlyArray<B>> {
  const all: Array<B> = []
  for (const item of items) {
    all.push(f(item, all.length))
    if (all.length % atOnce === 0) yield
  }
  return all
}
