/**
 * The calls in flight of a pool: permits of a semaphore, whose answer decides. Nothing else counts them.
 *
 * No fiber waits on it: `Semaphore.release` looks at all of its waiters and lets small requests overtake, so the waiters
 * stand in the budget's own queue. A permit that an ended call leaves is handed to the next one, which spares both of them an
 * effect. The semaphore is asked only if no call has left one.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

export class Permits {
  private readonly semaphore: Semaphore.Semaphore
  /** Permits that ended calls have left. */
  private spare = 0
  /** The semaphore's last answer, until a permit is returned: it has none, or fewer than none. */
  private isFull = false
  private isOver = false

  constructor(limit: number) {
    this.semaphore = Semaphore.makeUnsafe(limit)
  }

  /** Takes a permit, if there is one. */
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

  /** Other permits than before. Calls that are in flight beyond them stay, and their permits go when they end. */
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
