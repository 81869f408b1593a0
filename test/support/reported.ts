/** Uncaught errors, which would end a Node process, collected for a test. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Scheduler from "effect/Scheduler"

/**
 * Runs an effect and collects what the tasks of its scheduler throw. As in Effect's own scheduler, a task that throws
 * prevents the rest of its batch.
 */
export const reported = <A, E, R>(self: (errors: ReadonlyArray<unknown>) => Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const errors: Array<unknown> = []
    const scheduler = new Scheduler.MixedScheduler("async", (run) => {
      const immediate = setImmediate(() => {
        try {
          run()
        } catch (error) {
          errors.push(error)
        }
      })
      return () => clearImmediate(immediate)
    })
    return Effect.provideService(self(errors), Scheduler.Scheduler, scheduler)
  })

/** Runs everything that is due. */
export const settled = Effect.replicateEffect(Effect.yieldNow, 10, { discard: true })

/** Thrown by careless code. */
export class Harm extends Error {}

/** Runs an effect in its own fiber, whose observer throws. */
export const careless = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.context<R>(), (context) =>
    Effect.runCallbackWith(context)(effect, {
      onExit: () => {
        throw new Harm()
      }
    })
  )

/** Asserts that this many observers threw and were reported, and nothing else was. */
export const harmed = (errors: ReadonlyArray<unknown>, times: number) =>
  Effect.map(settled, () => {
    assert.strictEqual(errors.length, times)
    assert.isTrue(errors.every((error) => error instanceof Harm))
  })
