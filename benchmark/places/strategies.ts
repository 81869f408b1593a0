/** Ways to use two places. Each is a function that makes one call. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import type { LlmError } from "floodgate/LlmError"
import { LlmProvider, type Params } from "floodgate/LlmProvider"
import type { ProviderSim } from "floodgate/testing"
import type { Shape } from "./shapes.ts"

/** A place while the job runs. */
export interface RunningPlace {
  readonly provider: LlmProvider["Service"]
  readonly sim: ProviderSim.ProviderSim["Service"]
}

export type CallOnce = (params: Params, inputTokens: number, agent: string) => Effect.Effect<unknown, unknown>

export interface PlacesStrategy {
  readonly name: string
  readonly make: (
    shape: Shape,
    places: readonly [RunningPlace, RunningPlace],
    seed: number
  ) => Effect.Effect<CallOnce, never, Scope.Scope>
}

const layerOf = ({ provider }: RunningPlace) => Layer.succeed(LlmProvider, provider)

/** The retries of SDKs, but without an end: 0.5 s, doubling up to 8 s, less a quarter at random, or the time that is asked for. */
const backoff = Schedule.exponential("500 millis").pipe(
  Schedule.modifyDelay(({ duration, input }) =>
    Effect.succeed(
      Duration.max(Duration.min(duration, Duration.seconds(8)), (input as LlmError).retryAfter ?? Duration.zero)
    )
  ),
  Schedule.jittered
)
const retried = <A>(self: Effect.Effect<A, LlmError>): Effect.Effect<A, LlmError> =>
  Effect.retry(self, { schedule: backoff, while: ({ isRetryable }) => isRetryable })

/** Floodgate at the faster place only. */
const onePlace: PlacesStrategy = {
  name: "one place (Floodgate)",
  make: ({ isTold, limits }, places) =>
    Effect.gen(function* () {
      const live = LlmClient.layerProvider().pipe(
        Layer.provide(Budget.layer(isTold ? { limits: limits[1] } : {})),
        Layer.provide(layerOf(places[1]))
      )
      const client = Context.get(yield* Layer.build(live), LlmClient.LlmClient)
      return (params, inputTokens, agent) => client.create(params, { inputTokens, agent })
    })
}

const roundRobin: PlacesStrategy = {
  name: "round robin, retries",
  make: (_, places) =>
    Effect.sync(() => {
      let next = 0
      return (params) => retried(Effect.suspend(() => places[(next++ % 2) as 0 | 1].provider.create(params)))
    })
}

/** The second place gets what the first has rejected, as a list of fallbacks does. */
const failover: PlacesStrategy = {
  name: "failover on 429, retries",
  make: (_, [first, second]) =>
    Effect.succeed((params) =>
      retried(
        Effect.catchIf(
          first.provider.create(params),
          ({ isRetryable }) => isRetryable,
          () => second.provider.create(params)
        )
      )
    )
}

/**
 * As LiteLLM documents `usage-based-routing-v2`: the place with the least tokens in this minute among those that have room for the
 * prompt, by the limits that are configured; a place that rejects a call is left alone for 5 s; retries with backoff.
 */
const usageBased: PlacesStrategy = {
  name: "usage-based routing",
  make: ({ isTold, limits }, places) =>
    Effect.sync(() => {
      const used = [0, 0]
      const cooling = [0, 0]
      let minute = 0
      const most = limits.map(({ inputTokens }) => (isTold ? inputTokens!.perSecond! * 60 : Infinity))
      const pick = (now: number, tokens: number): 0 | 1 => {
        if (Math.floor(now / 60_000) !== minute) {
          minute = Math.floor(now / 60_000)
          used.fill(0)
        }
        const fit = ([0, 1] as const).filter((index) => cooling[index]! <= now && used[index]! + tokens <= most[index]!)
        const among = fit.length > 0 ? fit : ([0, 1] as const)
        return among.reduce((one, other) => (used[other]! < used[one]! ? other : one))
      }
      return (params, tokens) =>
        retried(
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            const index = pick(now, tokens)
            used[index]! += tokens
            return Effect.tapError(places[index].provider.create(params), () =>
              Effect.map(Clock.currentTimeMillis, (now) => {
                cooling[index] = now + 5_000
              })
            )
          })
        )
    })
}

const floodgate: PlacesStrategy = {
  name: "Floodgate",
  make: ({ isTold, limits }, places) =>
    Effect.gen(function* () {
      const place = (index: 0 | 1) => ({
        name: ["a", "b"][index]!,
        provider: layerOf(places[index]),
        limits: isTold ? limits[index] : undefined
      })
      const models = { "claude-sonnet-5": [place(0), place(1)] }
      const live = LlmClient.layerPlaces({ models }).pipe(Layer.provide(Budget.layer()))
      const client = Context.get(yield* Layer.build(live), LlmClient.LlmClient)
      return (params, inputTokens, agent) => client.create(params, { inputTokens, agent })
    })
}

/** First come, first served, with perfect knowledge of both places. */
const oracle: PlacesStrategy = {
  name: "oracle over both",
  make: ({ limits, outage }, places, seed) =>
    Effect.gen(function* () {
      const head = yield* Semaphore.make(1)
      const [from, to] = outage?.(seed) ?? [0, 0]
      const isDown = (index: number, now: number): boolean => index === 0 && now >= from && now < to
      const waitAt = (index: 0 | 1, tokens: number, now: number) =>
        Effect.map(places[index].sim.left("claude-sonnet-5"), ({ inputTokens: left = 0 }) => {
          const { burst, perSecond } = limits[index].inputTokens!
          if (isDown(index, now)) return to - now
          return Math.max(0, Math.ceil(((Math.min(tokens, burst!) - left) / perSecond!) * 1_000))
        })
      const chosen = Effect.fnUntraced(function* (tokens: number) {
        while (true) {
          const now = yield* Clock.currentTimeMillis
          const [a, b] = [yield* waitAt(0, tokens, now), yield* waitAt(1, tokens, now)]
          if (Math.min(a, b) <= 0) return a <= b ? places[0] : places[1]
          yield* Effect.sleep(Math.min(a, b))
        }
      })
      return (params, tokens) =>
        retried(
          Effect.flatMap(
            head.withPermits(1)(
              Effect.flatMap(chosen(tokens), ({ provider }) =>
                Effect.forkChild(provider.create(params), { startImmediately: true })
              )
            ),
            Fiber.join
          )
        )
    })
}

export const strategies = [onePlace, roundRobin, failover, usageBased, floodgate, oracle]
