/**
 * The calls in flight of a pool: permits of a semaphore on which no fiber ever waits.
 *
 * `Semaphore.release` looks at all of its waiters and lets small requests overtake, so the waiters stand in the budget's
 * own queue. A permit that a call gives back stays at hand for the next one, which spares both of them an effect.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

export class Permits {
  private limit: number
  private readonly semaphore: Semaphore.Semaphore
  /** Permits that were taken of the semaphore, and those of them that no call holds. */
  private taken = 0
  private atHand = 0

  constructor(limit: number) {
    this.limit = limit
    this.semaphore = Semaphore.makeUnsafe(limit)
  }

  /** The most calls in flight; `Infinity` where nothing bounds them. */
  get most(): number {
    return this.limit
  }

  get free(): number {
    return this.limit - this.taken + this.atHand
  }

  /** Takes a permit, which must be free. */
  take(): void {
    if (this.atHand > 0) {
      this.atHand--
      return
    }
    this.taken++
    Effect.runSync(this.semaphore.takeIfAvailable(1))
  }

  release(): void {
    if (this.taken <= this.limit) {
      this.atHand++
      return
    }
    this.taken--
    Effect.runSync(this.semaphore.release(1))
  }

  resize(limit: number): void {
    this.limit = limit
    Effect.runSync(this.semaphore.resize(limit))
    while (this.taken > limit && this.atHand > 0) {
      this.atHand--
      this.release()
    }
  }
}
