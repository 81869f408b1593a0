/**
 * Effect's own limiters, used as its documentation shows: a `RateLimiter` before each attempt with a schedule of retries, and
 * `HttpClient.withRateLimiter`, which also reads headers.
 *
 * Both have one limit per key and no separate burst: a token bucket that holds one minute. They get the limits that are given
 * to the client. If none are given, there is no limiter, or an unbounded one that learns from headers.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as RateLimiter from "effect/persistence/RateLimiter"
import * as Schedule from "effect/Schedule"
import { type Amounts, type Dimension, dimensionsOf, type Readings } from "./amounts.ts"
import type { Failed, MakeClient, Rejected } from "./clientEngine.ts"
import { amountsOf } from "./provider.ts"
import { binding, type Scenario } from "./scenario.ts"
import type * as Workload from "./workload.ts"

const limiterOf = Layer.build(RateLimiter.layer.pipe(Layer.provide(RateLimiter.layerStoreMemory))).pipe(
  Effect.map((context) => Context.get(context, RateLimiter.RateLimiter))
)

const schedule = Schedule.exponential("2 seconds").pipe(Schedule.jittered)
const retries = 4
const deadline = "10 minutes"
const bucket = { window: "1 minute", algorithm: "token-bucket" } as const

const toldOf = ({ limits, told }: Scenario): ReadonlyArray<readonly [dimension: Dimension, perMinute: number]> =>
  dimensionsOf(limits)
    .filter((dimension) => told[dimension] !== undefined && told[dimension] !== "nothing")
    .map((dimension) => [dimension, limits[dimension]!.perMinute])

export const rateLimiter: MakeClient = Effect.fnUntraced(function* (scenario, attempt) {
  const limiter = yield* limiterOf
  const told = toldOf(scenario)
  const admit = (amounts: Amounts) =>
    Effect.forEach(
      told,
      ([key, limit]) =>
        RateLimiter.sleep(limiter, { ...bucket, key, limit: Math.round(limit), tokens: amounts[key] ?? 0 }),
      { discard: true }
    )
  return {
    make: (call) =>
      Effect.andThen(admit(amountsOf(call)), attempt(call)).pipe(
        Effect.retry({ schedule, times: retries }),
        Effect.timeout(deadline)
      )
  }
})

export const withRateLimiter: MakeClient = Effect.fnUntraced(function* (scenario, attempt) {
  const limiter = yield* limiterOf
  const calls = new Map<string, Workload.Call>()
  let made = 0

  const { dimension } = binding(scenario)
  const limit = toldOf(scenario).find(([each]) => each === dimension)?.[1] ?? 1e12
  const callOf = (request: HttpClientRequest.HttpClientRequest) => calls.get(request.headers["x-call"]!)!

  const http = HttpClient.make((request) =>
    attempt(callOf(request)).pipe(
      Effect.map(({ readings }) => respond(request, 200, headersOf(dimension, readings))),
      Effect.catch((outcome) => respondToFailure(request, dimension, outcome))
    )
  ).pipe(
    HttpClient.withRateLimiter({
      ...bucket,
      limiter,
      limit: Math.round(limit),
      key: "provider",
      tokens: (request) => amountsOf(callOf(request))[dimension] ?? 0
    }),
    HttpClient.retryTransient({ schedule, times: retries }),
    HttpClient.filterStatusOk
  )
  return {
    make: (call) =>
      Effect.suspend(() => {
        const id = String(made++)
        calls.set(id, call)
        const request = HttpClientRequest.post("https://provider.example/calls", { headers: { "x-call": id } })
        return http
          .execute(request)
          .pipe(Effect.timeout(deadline), Effect.ensuring(Effect.sync(() => calls.delete(id))))
      })
  }
})

const respond = (request: HttpClientRequest.HttpClientRequest, status: number, headers: Record<string, string>) =>
  HttpClientResponse.fromWeb(request, new Response(null, { status, headers }))

/** Headers with the names that it reads. */
const headersOf = (dimension: Dimension, readings: Readings | undefined): Record<string, string> => {
  const reading = readings?.[dimension]
  if (reading === undefined) return {}
  const { limit, remaining } = reading
  const secondsToFull = Math.ceil(((limit - remaining) / limit) * Duration.toSeconds(bucket.window))
  return {
    "x-ratelimit-limit": String(limit),
    "x-ratelimit-remaining": String(remaining),
    "x-ratelimit-reset-after": String(secondsToFull)
  }
}

const respondToFailure = (
  request: HttpClientRequest.HttpClientRequest,
  dimension: Dimension,
  outcome: Rejected | Failed
) => {
  if (outcome.kind === "rejection") {
    const { readings, retryAfter } = outcome
    const wait: Record<string, string> = retryAfter === undefined ? {} : { "retry-after": String(retryAfter / 1000) }
    return Effect.succeed(respond(request, 429, { ...headersOf(dimension, readings), ...wait }))
  }
  const { failure } = outcome
  if (failure === "500" || failure === "529") return Effect.succeed(respond(request, Number(failure), {}))
  const reason = new HttpClientError.TransportError({ request, description: failure })
  return Effect.fail(new HttpClientError.HttpClientError({ reason }))
}
