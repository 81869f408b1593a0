/** Ways to interrupt a fiber at any one of its steps. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"

/** Makes a fiber yield once, at the step with this number. */
class YieldAt extends Scheduler.MixedScheduler {
  private steps = 0
  private readonly step: number
  constructor(step: number) {
    super()
    this.step = step
  }
  override shouldYield(): boolean {
    return ++this.steps === this.step
  }
}

/** Starts an effect and interrupts it at the step with this number. */
export const interruptAt = <A, E, R>(self: Effect.Effect<A, E, R>, step: number): Effect.Effect<void, never, R> =>
  Effect.gen(function* () {
    const scheduled = Effect.provideService(self, Scheduler.Scheduler, new YieldAt(step))
    yield* Fiber.interrupt(yield* Effect.forkChild(scheduled, { startImmediately: true }))
  })
