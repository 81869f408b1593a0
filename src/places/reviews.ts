/** Lets the calls that wait at places reconsider where, all in one go: a timer for each would cost more than the decision. Mutable. */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { harmless } from "../domain/input/callbacks.ts"
import { reviewMillis } from "./memory.ts"

/** A call that may join another queue while it waits. */
export interface Reviewed {
  reconsider(): void
}

/** The accounting of one call may throw, and must not harm the others. */
const reconsidered = harmless((call: Reviewed) => call.reconsider())

export class PlaceReviews {
  private readonly waiting = new Set<Reviewed>()
  private readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  private timer: Fiber.Fiber<void> | undefined = undefined

  constructor(fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>) {
    this.fork = fork
  }

  /** Lets a call reconsider once a second, until it is removed. */
  add(call: Reviewed): void {
    this.waiting.add(call)
    const reviewed = Effect.sync(() => this.waiting.forEach((each) => reconsidered(each)))
    this.timer ??= this.fork(Effect.forever(Effect.andThen(Effect.sleep(reviewMillis), reviewed)))
  }

  /** Without any call, nothing keeps the process alive. */
  delete(call: Reviewed): void {
    if (!this.waiting.delete(call) || this.waiting.size > 0) return
    this.timer?.interruptUnsafe()
    this.timer = undefined
  }
}
