/** `effect/Semaphore` with a `takeIfAvailable` that always answers true. */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

export * from "effect/Semaphore"

const agreeing = (semaphore: Semaphore.Semaphore): Semaphore.Semaphore => {
  const take = semaphore.takeIfAvailable.bind(semaphore)
  return Object.assign(semaphore, { takeIfAvailable: (permits: number) => Effect.as(take(permits), true) })
}

export const makeUnsafe: typeof Semaphore.makeUnsafe = (permits) => agreeing(Semaphore.makeUnsafe(permits))
export const make: typeof Semaphore.make = (permits) => Effect.map(Semaphore.make(permits), agreeing)
