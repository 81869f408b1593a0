/** How punctual this process was: what stands still sends its calls later than it has counted them. */
import * as Effect from "effect/Effect"
import { monitorEventLoopDelay } from "node:perf_hooks"

/** Runs an effect; gives what it gave, and the longest time for which the process stood still meanwhile, in milliseconds. */
export const withStalls = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<readonly [value: A, stalledMillis: number], E, R> =>
  Effect.suspend(() => {
    const monitor = monitorEventLoopDelay({ resolution: 5 })
    monitor.enable()
    return Effect.map(effect, (value) => {
      monitor.disable()
      return [value, monitor.max / 1e6] as const
    })
  })
