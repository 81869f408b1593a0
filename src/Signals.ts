/**
 * Reads what a provider's response says about its limits, for code that calls a provider in its own way.
 *
 * `LlmClient`, `floodgate/anthropic` and `floodgate/ai` do this by themselves. Whoever runs another client under
 * {@link Governor.run} gives the signal back with the outcome: the budget then follows what the provider counts.
 *
 * **Details**
 *
 * Understood are the headers of Anthropic, of OpenAI and compatible servers (`6m0s`, `20ms`, seconds, epochs), and the
 * IETF draft. Values come from outside, so they are bounded: what is absurd is as good as absent.
 *
 * **Example** (The headers of an OpenAI response)
 *
 * ```ts doctest
 * import * as Signals from "floodgate/Signals"
 *
 * const headers = new Headers({
 *   "x-ratelimit-limit-tokens": "150000",
 *   "x-ratelimit-remaining-tokens": "149984",
 *   "x-ratelimit-reset-tokens": "6m0s"
 * })
 *
 * const signal = Signals.fromHeaders(headers, 0)
 * signal?.dimensions.tokens // => { limit: 150_000, remaining: 149_984, roundedTo: 1, resetMillis: 360_000 }
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Internal from "./internal/headers.ts"
import type * as Limits from "./Limits.ts"

/**
 * The headers of a response: a `Headers` object, or a record with names in lower case, as Node and `effect/http` have
 * them.
 *
 * @category models
 * @since 0.1.0
 */
export type Source =
  | { readonly get: (name: string) => string | null | undefined }
  | Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

const isGettable = (source: Source): source is { readonly get: Internal.Get } => typeof source.get === "function"

const getterOf = (source: Source): Internal.Get => {
  if (isGettable(source)) return (name) => source.get(name)
  return (name) => {
    const value = Object.hasOwn(source, name) ? source[name] : undefined
    return typeof value === "object" ? value.join(", ") : value
  }
}

/**
 * What the headers say about the limits; undefined when they say nothing usable. `now` is in milliseconds since the
 * epoch; resets are measured from the response's own `date` where it has one.
 *
 * **Example** (A record of headers, as `effect/http` has them)
 *
 * ```ts doctest
 * import * as Signals from "floodgate/Signals"
 *
 * const signal = Signals.fromHeaders({ "anthropic-ratelimit-requests-remaining": "12" }, 0)
 *
 * signal?.dimensions.requests?.remaining // => 12
 * Signals.fromHeaders({ "content-type": "text/plain" }, 0) // => undefined
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromHeaders = (headers: Source, now: number): Limits.Signal | undefined =>
  Internal.signal(getterOf(headers), now)

/**
 * How long the response asks to wait: `retry-after-ms`, or `retry-after` as seconds or as a date; at most an hour.
 * Undefined when it does not say, or says nonsense.
 *
 * **Example** (Seconds)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Signals from "floodgate/Signals"
 *
 * Signals.retryAfter({ "retry-after": "16" }, 0) // => Duration.seconds(16)
 * Signals.retryAfter({}, 0) // => undefined
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const retryAfter = (headers: Source, now: number): Duration.Duration | undefined => {
  const millis = Internal.retryAfterMillis(getterOf(headers), now)
  return millis === undefined ? undefined : Duration.millis(millis)
}
