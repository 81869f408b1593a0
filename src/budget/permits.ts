/**
 * Limits the calls in flight of a pool by the permits of a semaphore, which is the only count of them.
 *
 * No fiber waits on the semaphore, because `release` looks at all waiters and lets small requests overtake: calls wait in the
 * budget's own queue. The permit of a call that ends is kept for the next call, which saves running an effect in both. The
 * semaphore is only asked for a permit if none was kept.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

export class Permits {
  private readonly semaphore: Semaphore.Semaphore
  /** Permits of ended calls. */
  private spare = 0
  /** Whether the semaphore has refused a permit, until one is released. */
  private isFull = false
  /** Whether it has more calls in flight than permits, after a resize. */
  private isOver = false

  constructor(limit: number) {
    this.semaphore = Semaphore.makeUnsafe(limit)
  }

  /** Takes a permit. False if there is none. */
  take(): boolean {
    if (this.spare > 0) this.spare--
    else if (this.isFull || !Effect.runSync(this.semaphore.takeIfAvailable(1))) this.isFull = true
    return !this.isFull
  }

  release(): void {
    if (this.isOver) this.giveBack(1)
    else {
      this.spare++
      this.isFull = false
    }
  }

  /** Changes the number of permits. Calls beyond it stay in flight, and their permits vanish when they end. */
  resize(limit: number): void {
    Effect.runSync(this.semaphore.resize(limit))
    this.giveBack(this.spare)
    this.spare = 0
  }

  private giveBack(permits: number): void {
    const free = Effect.runSync(this.semaphore.release(permits))
    this.isOver = free < 0
    this.isFull = free <= 0
  }
}
