/**
 * How long a provider works on a call, in milliseconds. `usual` is what `Forecast` and `ProviderSim` of the library assume
 * where no latency is given; a test compares them.
 */
import type * as Forecast from "floodgate/Forecast"

/** A latency that leaves nothing open. */
export interface FullLatency {
  readonly baseMillis: number
  readonly perInputTokenMillis: number
  readonly perOutputTokenMillis: number
}

/** The latency that is assumed where none is given. */
export const usual: FullLatency = { baseMillis: 500, perInputTokenMillis: 0.01, perOutputTokenMillis: 10 }

/** A latency with its gaps filled by the usual one. */
export const complete = (given: Forecast.Options["latency"] = {}): FullLatency => ({
  baseMillis: given.baseMillis ?? usual.baseMillis,
  perInputTokenMillis: given.perInputTokenMillis ?? usual.perInputTokenMillis,
  perOutputTokenMillis: given.perOutputTokenMillis ?? usual.perOutputTokenMillis
})

/** The time that one call takes. */
export const millisOf = (latency: FullLatency, call: Forecast.Call): number =>
  latency.baseMillis + latency.perInputTokenMillis * call.inputTokens + latency.perOutputTokenMillis * call.outputTokens
