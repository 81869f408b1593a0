/** Ways to interrupt a fiber at any one of its steps. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"

/** Makes a fiber yield once, at the step with this number. Counts the steps of all fibers, or only those of one. */
class YieldAt extends Scheduler.MixedScheduler {
  private steps = 0
  private readonly step: number
  private readonly only: number | undefined
  constructor(step: number, only: number | undefined) {
    super()
    this.step = step
    this.only = only
  }
  override shouldYield({ id }: Fiber.Fiber<unknown, unknown>): boolean {
    return (this.only === undefined || this.only === id) && ++this.steps === this.step
  }
}

/** Starts an effect and interrupts it at the step with this number: of its fibers, or of the one that it is started in. */
export const interruptAt = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  step: number,
  of: "its fibers" | "its first fiber" = "its fibers"
): Effect.Effect<void, never, R> =>
  Effect.gen(function* () {
    const scheduled = Effect.withFiber<A, E, R>(({ id }) => {
      const scheduler = new YieldAt(step, of === "its first fiber" ? id : undefined)
      return Effect.provideService(self, Scheduler.Scheduler, scheduler)
    })
    yield* Fiber.interrupt(yield* Effect.forkChild(scheduled, { startImmediately: true }))
  })
