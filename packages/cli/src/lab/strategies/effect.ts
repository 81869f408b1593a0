/**
 * Effect's own limiters, used as their documentation shows: `persistence/RateLimiter`, and `HttpClient.withRateLimiter`.
 */
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as RateLimiter from "effect/persistence/RateLimiter"
import * as Schedule from "effect/Schedule"
import { LlmError, ServerFailed } from "floodgate/LlmError"
import { LlmProvider, type Params } from "floodgate/LlmProvider"
import { rateOf } from "../rate.ts"
import type { Scenario } from "../scenario.ts"
import type { Strategy } from "../strategy.ts"

const limiter = Effect.map(Layer.build(Layer.provide(RateLimiter.layer, RateLimiter.layerStoreMemory)), (context) =>
  Effect.provide(RateLimiter.RateLimiter, context)
).pipe(Effect.flatten)

/**
 * A token bucket in its terms, so many tokens a window: it holds `limit` and is refilled by `limit` in each window. The
 * limit on tokens is the one that is watched; it has no several dimensions.
 */
const bucketOf = ({ limits }: Scenario): { readonly limit: number; readonly window: Duration.Duration } => {
  const limit = limits.tokens ?? limits.inputTokens ?? limits.outputTokens ?? { perMinute: 1e9 }
  const { amount, seconds } = rateOf(limit)
  const burst = limit.burst ?? amount
  return { limit: burst, window: Duration.millis((burst / (amount / seconds)) * 1_000) }
}

const algorithmOf = ({ limits }: Scenario): "fixed-window" | "token-bucket" =>
  (limits.tokens ?? limits.inputTokens)?.window === "fixed" ? "fixed-window" : "token-bucket"

const tokensOf = (scenario: Scenario, counted: number, params: Params): number =>
  scenario.limits.tokens === undefined ? counted : counted + params.max_tokens

/**
 * Effect's `RateLimiter`: charged with the estimate before each call, `onExceeded: "delay"`, and a jittered backoff after
 * rejections.
 */
export const effectRateLimiter: Strategy = {
  name: "effect-rate-limiter",
  summary: "Effect's RateLimiter as a token bucket, charged with the estimate; jittered backoff, 5 attempts",
  client: (scenario) =>
    Effect.gen(function* () {
      const provider = yield* LlmProvider
      const shared = yield* limiter
      const algorithm = algorithmOf(scenario)
      return (params, call) => {
        const charged = shared
          .consume({
            ...bucketOf(scenario),
            algorithm,
            onExceeded: "delay",
            key: "anthropic",
            tokens: tokensOf(scenario, call.inputTokens, params)
          })
          .pipe(
            Effect.orDie,
            Effect.flatMap(({ delay }) => Effect.sleep(delay))
          )
        return Effect.andThen(charged, provider.create(params)).pipe(
          Effect.map((reply) => reply.value),
          Effect.retry({
            schedule: Schedule.jittered(Schedule.exponential("2 seconds")),
            times: 4,
            while: (error) => error.isRetryable
          })
        )
      }
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
 * Anthropic's limit headers are not given to it: it reads their RFC 3339 times as numbers.
 */
export const effectHttpLimiter: Strategy = {
  name: "effect-http-limiter",
  summary: "HttpClient.withRateLimiter with the limits, learning from retry-after, 429s retried for ever",
  client: (scenario) =>
    Effect.gen(function* () {
      const provider = yield* LlmProvider
      const shared = yield* limiter
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
          ...bucketOf(scenario),
          limiter: shared,
          algorithm: algorithmOf(scenario),
          key: "anthropic",
          tokens: (request) => asked.get(keyOf(request))!.tokens
        })
      )

      return (params, call) => {
        const key = `${call.agent}/${call.index}`
        asked.set(key, { params, tokens: tokensOf(scenario, call.inputTokens, params) })
        const request = HttpClientRequest.post("http://provider.invalid/v1/messages", { headers: { "x-call": key } })
        return Effect.flatMap(Effect.orDie(http.execute(request)), () => {
          const answer = asked.get(key)!.answer ?? new LlmError({ reason: new ServerFailed({ status: 500 }) })
          asked.delete(key)
          return answer instanceof LlmError ? Effect.fail(answer) : Effect.succeed(answer)
        })
      }
    })
}
