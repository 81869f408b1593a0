/**
 * Limits the calls in flight of a pool by the permits of a semaphore, which is the only count of them.
 *
 * No fiber waits on the semaphore, because `release` looks at all waiters and lets small requests overtake: calls wait in the
 * budget's own queue. A permit that an ended call leaves is handed to the call that waits next. If none waits, one permit at most
 * stays in hand for the next call to arrive, and the others go back.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

/** Runs an effect that never waits. `Effect.runSync` would make a scheduler for it, which costs three times as much. */
const run = <A>(effect: Effect.Effect<A>): A | undefined => {
  const exit = Effect.runFork(effect).pollUnsafe()
  return exit?._tag === "Success" ? exit.value : undefined
}

export class Permits {
  private readonly semaphore: Semaphore.Semaphore
  private readonly taking: Effect.Effect<boolean>
  /** Permits that were taken for the next decision. They are taken before it, because it may be played more than once. */
  inHand = 0
  /** Whether more permits are out than there are, after a resize. */
  private isOver = false

  constructor(limit: number) {
    this.semaphore = Semaphore.makeUnsafe(limit)
    this.taking = this.semaphore.takeIfAvailable(1)
  }

  /** Takes a permit for each of the next calls, as long as there are any, and gives back what is too much in hand. */
  take(calls: number): void {
    const kept = Math.max(1, calls)
    if (this.inHand > kept) this.giveBack(this.inHand - kept)
    while (this.inHand < calls && run(this.taking) === true) this.inHand++
  }

  /** Keeps the permit of an ended call in hand, until {@link take} hands it to a call that waits or gives it back. */
  release(): void {
    this.inHand++
    if (this.isOver) this.giveBack(1)
  }

  /** Changes the number of permits. Calls beyond it stay in flight, and their permits vanish when they end. */
  resize(limit: number): void {
    run(this.semaphore.resize(limit))
    this.giveBack(this.inHand)
  }

  private giveBack(permits: number): void {
    this.inHand -= permits
    this.isOver = run(this.semaphore.release(permits))! < 0
  }
}
