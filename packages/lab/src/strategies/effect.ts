/**
 * Strategies with Effect's own limiters, used as in their documentation: `persistence/RateLimiter` and `HttpClient.withRateLimiter`.
 */
import { LimitWords } from "floodgate/internal"
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as RateLimiter from "effect/persistence/RateLimiter"
import * as Schedule from "effect/Schedule"
import type * as Limits from "floodgate/Limits"
import { LlmError, ServerFailed } from "floodgate/LlmError"
import { LlmProvider, type Params } from "floodgate/LlmProvider"
import type { ScenarioCall, Scenario } from "../scenario.ts"
import type { Strategy } from "../strategy.ts"
import { attemptOf, tenAttempts } from "./peers.ts"

const limiter = Effect.map(Layer.build(Layer.provide(RateLimiter.layer, RateLimiter.layerStoreMemory)), (context) =>
  Effect.provide(RateLimiter.RateLimiter, context)
).pipe(Effect.flatten)

/** A limit in the options of a `RateLimiter`. */
interface LimiterRule {
  readonly key: string
  readonly limit: number
  readonly window: Duration.Duration
  readonly algorithm: "fixed-window" | "token-bucket"
}

/**
 * A limit as a `RateLimiter` takes it, in tokens per window: its token bucket holds `limit` tokens and refills by `limit` per
 * window, so a smaller burst is expressed by a shorter window.
 */
const ruleOf = (key: string, limit: Limits.Limit): LimiterRule => {
  const { amount, seconds } = LimitWords.rateOf(limit)
  const burst = limit.burst ?? amount
  return {
    key,
    limit: burst,
    window: Duration.millis((burst / (amount / seconds)) * 1_000),
    algorithm: limit.window === "fixed" ? "fixed-window" : "token-bucket"
  }
}

/** The amount of a call that is known in advance. Output is not, so a limit on output alone is left to the provider. */
const chargedOf = (dimension: Limits.Dimension, params: Params, inputTokens: number): number =>
  ({ requests: 1, inputTokens, outputTokens: 0, tokens: inputTokens + params.max_tokens })[dimension]

/** The dimensions whose amounts are known before a call. */
const charged = ["requests", "inputTokens", "tokens"] as const

/** Admits a call by Effect's `RateLimiter`, with a key for each limited dimension that is charged with the estimate. */
const admission = Effect.fnUntraced(function* ({ limits }: Scenario) {
  const shared = yield* limiter
  const rules = charged.flatMap((dimension) => {
    const limit = limits[dimension]
    return limit === undefined ? [] : [{ dimension, rule: ruleOf(dimension, limit) }]
  })
  return (params: Params, call: ScenarioCall): Effect.Effect<void> =>
    Effect.orDie(
      Effect.forEach(
        rules,
        ({ dimension, rule }) =>
          RateLimiter.sleep(shared, { ...rule, tokens: chargedOf(dimension, params, call.inputTokens) }),
        { discard: true }
      )
    )
})

const settings =
  'const sleep = limiter.sleep({ key: "tokens", limit: burst, window: burst / rate, algorithm: "token-bucket", tokens })'

/** Effect's `RateLimiter`, charged before each attempt, and a jittered backoff after failures. */
export const effectRateLimiter: Strategy = {
  name: "effect-rate-limiter",
  summary: "Effect's RateLimiter with the provider's limits, charged before each attempt; jittered backoff, 5 attempts",
  settings: `${settings}; Effect.andThen(sleep, call).pipe(Effect.retry({ schedule: Schedule.jittered(Schedule.exponential("2 seconds")), times: 4 }))`,
  why: "Effect's documentation combines the two like this.",
  client: Effect.fnUntraced(function* (scenario) {
    const provider = yield* LlmProvider
    const admitted = yield* admission(scenario)
    return (params, call) =>
      Effect.andThen(admitted(params, call), provider.create(params)).pipe(
        Effect.map((reply) => reply.value),
        Effect.retry({
          schedule: Schedule.jittered(Schedule.exponential("2 seconds")),
          times: 4,
          while: (error) => error.isRetryable
        })
      )
  })
}

/** Effect's `RateLimiter`, charged before each attempt, and ten attempts with full jitter. */
export const effectRateLimiterTuned: Strategy = {
  name: "effect-limiter-tuned",
  summary: "Effect's RateLimiter with the provider's limits, charged before each attempt; 10 attempts with full jitter",
  settings: `${settings}; tenAttempts(Effect.andThen(sleep, call))`,
  why: "Full jitter spreads retries further than Schedule.jittered, and ten attempts last longer than five.",
  client: Effect.fnUntraced(function* (scenario) {
    const provider = yield* LlmProvider
    const admitted = yield* admission(scenario)
    return (params, call) => tenAttempts(Effect.andThen(admitted(params, call), attemptOf(provider, params)))
  })
}

const headersOf = (error: LlmError): Record<string, string> =>
  error.retryAfter === undefined ? {} : { "retry-after": `${Duration.toSeconds(error.retryAfter)}` }

/**
 * Effect's `HttpClient.withRateLimiter` around the request, with the limits as options, reading `retry-after`. It
 * retries 429s without an end.
 *
 * **Details**
 *
 * It does not get Anthropic's limit headers, because it would read their RFC 3339 times as numbers.
 */
export const effectHttpLimiter: Strategy = {
  name: "effect-http-limiter",
  summary:
    "Effect's HttpClient.withRateLimiter with the limit on tokens; reads retry-after, and retries 429s without a limit",
  settings: 'HttpClient.withRateLimiter({ limiter, key: "tokens", limit, window, algorithm: "token-bucket", tokens })',
  why: "It is Effect's limiter for HTTP clients, and retries by itself.",
  client: (scenario) =>
    Effect.gen(function* () {
      const provider = yield* LlmProvider
      const shared = yield* limiter
      const { limits } = scenario
      const dimension = limits.tokens === undefined ? "inputTokens" : "tokens"
      const rule = ruleOf("anthropic", limits[dimension] ?? { perMinute: 1e9 })
      const asked = new Map<string, { readonly params: Params; readonly tokens: number; answer?: Message | LlmError }>()
      const keyOf = (request: HttpClientRequest.HttpClientRequest): string => request.headers["x-call"] ?? ""

      const http = HttpClient.make((request) => {
        const one = asked.get(keyOf(request))!
        return Effect.match(provider.create(one.params), {
          onSuccess: ({ value }) => {
            one.answer = value
            return HttpClientResponse.fromWeb(request, new Response("{}"))
          },
          onFailure: (error) => {
            one.answer = error
            return HttpClientResponse.fromWeb(
              request,
              new Response("{}", { status: error.status ?? 500, headers: headersOf(error) })
            )
          }
        })
      }).pipe(
        HttpClient.withRateLimiter({
          ...rule,
          limiter: shared,
          tokens: (request) => asked.get(keyOf(request))!.tokens
        })
      )

      return (params, call) => {
        const key = `${call.agent}/${call.index}`
        asked.set(key, { params, tokens: chargedOf(dimension, params, call.inputTokens) })
        const request = HttpClientRequest.post("http://provider.invalid/v1/messages", { headers: { "x-call": key } })
        return Effect.flatMap(Effect.orDie(http.execute(request)), () => {
          const answer = asked.get(key)!.answer ?? new LlmError({ reason: new ServerFailed({ status: 500 }) })
          asked.delete(key)
          return answer instanceof LlmError ? Effect.fail(answer) : Effect.succeed(answer)
        })
      }
    })
}
