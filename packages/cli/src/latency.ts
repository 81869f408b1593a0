/**
 * How long a provider works on a call, in milliseconds. `usual` is the default latency of `Forecast` and `ProviderSim`; a test
 * compares them.
 */
import type * as Forecast from "floodgate/Forecast"

/** A latency with all of its parts. */
export interface FullLatency {
  readonly baseMillis: number
  readonly perInputTokenMillis: number
  readonly perOutputTokenMillis: number
}

/** The default latency. */
export const usual: FullLatency = { baseMillis: 500, perInputTokenMillis: 0.01, perOutputTokenMillis: 10 }

/** A latency in which the usual one replaces missing parts. */
export const complete = (given: Forecast.Options["latency"] = {}): FullLatency => ({
  baseMillis: given.baseMillis ?? usual.baseMillis,
  perInputTokenMillis: given.perInputTokenMillis ?? usual.perInputTokenMillis,
  perOutputTokenMillis: given.perOutputTokenMillis ?? usual.perOutputTokenMillis
})

/** The time that one call takes. */
export const millisOf = (latency: FullLatency, call: Forecast.Call): number =>
  latency.baseMillis + latency.perInputTokenMillis * call.inputTokens + latency.perOutputTokenMillis * call.outputTokens
