/** Strategies for a model with several places that do not know when a call would start. All of them retry until they are done. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { LlmProvider } from "floodgate/LlmProvider"
import type { Strategy } from "../strategy.ts"
import { floodgate } from "./floodgate.ts"
import { attemptOf, isRetried, untilDone } from "./peers.ts"

/** The library at the last place. */
export const onePlace: Strategy = {
  name: "one-place",
  summary: "this library at the last place only, with its limits and the token count of each call",
  settings: "Budget.layer({ limits }); LlmClient.create(params, { agent, inputTokens })",
  why: "It shows how much a second place helps.",
  client: (scenario, places) => {
    const { limits, provider } = places.at(-1)!
    const client = floodgate.client({ ...scenario, limits, places: undefined }, places)
    return Effect.provideService(client, LlmProvider, provider)
  }
}

/** The places in turn. */
export const roundRobin: Strategy = {
  name: "round-robin",
  summary: "each request goes to the next place, and is retried after retry-after, or 0.5 s up to 8 s",
  settings: "the load balancing of most gateways with equal weights, and retries",
  why: "Most gateways do this with two deployments.",
  client: (_, places) =>
    Effect.sync(() => {
      let next = 0
      return (params) => untilDone(Effect.suspend(() => attemptOf(places[next++ % places.length]!.provider, params)))
    })
}

/** A rejected or failed request goes to the next place, as in a list of fallbacks. */
export const failover: Strategy = {
  name: "failover",
  summary: "each request goes to the first place, and to the next one when it is rejected or fails; then it is retried",
  settings: "a list of fallbacks on 429 and 5xx, and retries",
  why: "Gateways and SDKs call this a fallback.",
  client: (_, places) =>
    Effect.succeed((params) => {
      const from = (index: number): ReturnType<typeof attemptOf> =>
        index === places.length - 1
          ? attemptOf(places[index]!.provider, params)
          : Effect.catchIf(attemptOf(places[index]!.provider, params), isRetried, () => from(index + 1))
      return untilDone(from(0))
    })
}

/** A place that refused a request gets no further ones for this long. */
const coolingMillis = 5_000

/** `usage-based-routing-v2`, as LiteLLM documents it. */
export const usageBased: Strategy = {
  name: "usage-based",
  summary:
    "each request goes to the place with the fewest tokens in this minute, among those with room in their limits per minute; one that refuses is left alone for 5 s",
  settings: 'routing_strategy: "usage-based-routing-v2", tpm of each deployment (LiteLLM, by its documentation)',
  why: "LiteLLM's router uses the limits of several deployments like this.",
  client: (_, places) =>
    Effect.sync(() => {
      const states = places.map((place) => {
        const { perMinute, perSecond } = place.limits.tokens ?? place.limits.inputTokens ?? {}
        const max = perMinute ?? (perSecond === undefined ? Infinity : 60 * perSecond)
        return { provider: place.provider, max, used: 0, closedUntil: 0 }
      })
      let minute = 0
      const chosen = (now: number, tokens: number) => {
        if (Math.floor(now / 60_000) !== minute) {
          minute = Math.floor(now / 60_000)
          for (const state of states) state.used = 0
        }
        const fit = states.filter(({ closedUntil, max, used }) => closedUntil <= now && used + tokens <= max)
        return (fit.length > 0 ? fit : states).reduce((one, other) => (other.used < one.used ? other : one))
      }
      return (params, { inputTokens, maxTokens }) =>
        untilDone(
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            const state = chosen(now, inputTokens + maxTokens)
            state.used += inputTokens + maxTokens
            return Effect.tapError(attemptOf(state.provider, params), () =>
              Effect.map(Clock.currentTimeMillis, (failedAt) => {
                state.closedUntil = failedAt + coolingMillis
              })
            )
          })
        )
    })
}
