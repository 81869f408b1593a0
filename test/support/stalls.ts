/** How punctual this process was: what stands still sends its calls later than it has counted them. */
import * as Effect from "effect/Effect"
import { monitorEventLoopDelay } from "node:perf_hooks"

/** Runs an effect; gives the longest time for which the process stood still meanwhile, in milliseconds. */
export const stalledMillis = <E, R>(effect: Effect.Effect<unknown, E, R>): Effect.Effect<number, E, R> =>
  Effect.suspend(() => {
    const monitor = monitorEventLoopDelay({ resolution: 5 })
    monitor.enable()
    return Effect.map(effect, () => {
      monitor.disable()
      return monitor.max / 1e6
    })
  })
