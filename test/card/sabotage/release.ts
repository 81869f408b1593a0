/** `effect/Semaphore` with a `release` that keeps the permits. */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

export * from "effect/Semaphore"

const keeping = (semaphore: Semaphore.Semaphore): Semaphore.Semaphore => {
  const release = semaphore.release.bind(semaphore)
  return Object.assign(semaphore, { release: () => release(0) })
}

export const makeUnsafe: typeof Semaphore.makeUnsafe = (permits) => keeping(Semaphore.makeUnsafe(permits))
export const make: typeof Semaphore.make = (permits) => Effect.map(Semaphore.make(permits), keeping)
