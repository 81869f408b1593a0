/** How long this process was stalled: a stalled process sends calls later than it counted them. */
import * as Effect from "effect/Effect"
import { monitorEventLoopDelay } from "node:perf_hooks"

/** Runs an effect; returns its result, and the longest time, in milliseconds, for which the process was stalled. */
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
