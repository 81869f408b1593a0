/**
 * Places: one model, called wherever a call ends first.
 *
 * A place is a provider with a credential, the model's name there, and perhaps a tier: the provider itself, a cloud, a second
 * organisation, a cheaper tier. A model may have several. A call then waits in the queue of each, as a reservation of its own, and
 * goes to the first that admits it. `LlmClient.layerPlaces`, `Floodgate.create({ places })`, the governed `fetch` and the gateway
 * take the options of this module.
 *
 * **Details**
 *
 * - `"soonest"`, the default, sends a call where it ends first: its wait and its answer, whose time is learned. Where it starts at once
 *   in several places that answer about as soon, the cheapest gets it, then the first in the list.
 * - A place that answers slowly is left out, and tried by a call now and then.
 * - `"cheapest"` sends a call to the cheapest place that is expected to answer before the deadline. It keeps enough time for a more
 *   expensive place in case the cheaper one refuses.
 * - A conversation stays where its prompt is in the cache, which is known by its content. If nothing is known of that, the calls of one
 *   `cacheKey`, or of one agent, stay at their place where the provider caches prompts. It moves only if another place ends it earlier
 *   by at least a second, and by more than the cached tokens take of the limit there.
 * - A call that continues what a provider stores goes to that place.
 * - A call that fails at one place continues at another at once, while the backoff counts for the place where it failed. That is
 *   not an attempt of the call until it has failed at every place. A stated `attempts` bounds all requests.
 * - A stream moves before its first content, and never after.
 * - A place that refuses the credential, the model or the bill is set aside for 30 seconds; then one call tries it.
 * - A place that drains takes no new calls, save those that continue what it stores.
 *
 * **Gotchas**
 *
 * Limits belong to an organisation. Two keys of one organisation are one place.
 *
 * **Example** (Two providers of one model)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 * import * as Budget from "floodgate/Budget"
 * import * as LlmClient from "floodgate/LlmClient"
 * import { ProviderSim } from "floodgate/testing"
 *
 * const limits = { requests: { perMinute: 60, burst: 2 } }
 * const live = LlmClient.layerPlaces({
 *   models: {
 *     "claude-sonnet-5": [
 *       { name: "anthropic", provider: ProviderSim.layer({ limits }), limits },
 *       { name: "bedrock", provider: ProviderSim.layer({ limits }), limits, model: "anthropic.claude-sonnet-5-v1:0" }
 *     ]
 *   }
 * }).pipe(Layer.provideMerge(Budget.layer()))
 *
 * const params = { model: "claude-sonnet-5", max_tokens: 10, messages: [{ role: "user" as const, content: "Hello" }] }
 * const program = Effect.gen(function* () {
 *   yield* Effect.all([1, 2, 3, 4].map(() => LlmClient.create(params)), { concurrency: "unbounded" })
 *   const { pools } = yield* (yield* Budget.TokenBudget).status
 *   return Object.keys(pools).sort()
 * })
 *
 * await Effect.runPromise(Effect.provide(program, live)) // => ["anthropic/sonnet-5", "bedrock/sonnet-5"]
 * ```
 *
 * @stability stable
 * @since 0.4.0
 */
import type * as Layer from "effect/Layer"
import type { LlmProvider } from "./LlmProvider.ts"
import type { Place } from "./places/parse.ts"

export type { Concurrency } from "./domain/concurrency.ts"
export type { CallPlaces, PlaceStatus } from "./places/models.ts"
export { type Place, type PlacesOptions } from "./places/parse.ts"

/**
 * A place of `LlmClient`.
 *
 * @stability stable
 * @category options
 * @since 0.4.0
 */
export interface ProviderPlace<E = never, R = never> extends Place {
  /** The provider, with its credential. */
  readonly provider: Layer.Layer<LlmProvider, E, R>
}
