/**
 * The queues that people put around a client: p-queue, which counts calls, and Bottleneck, which can count tokens. Each is the
 * algorithm of the package, under simulated time, around the retries of the official SDK.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import { LlmProvider } from "floodgate/LlmProvider"
import { rateOf } from "../rate.ts"
import * as Scenario from "../scenario.ts"
import type { Strategy } from "../strategy.ts"
import { withSdkRetries } from "./peers.ts"

/** Waits until a call of so many tokens may start. Calls start in the order in which they came. */
type Admit = (tokens: number) => Effect.Effect<void>

/** Runs one waiter at a time, the first first. `millis` is how long it must wait still, or undefined where it may start. */
const inTurn = (millis: (now: number, tokens: number) => number | undefined): Effect.Effect<Admit> =>
  Effect.map(Semaphore.make(1), (turn) => {
    const start = (tokens: number): Effect.Effect<void> =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const wait = millis(now, tokens)
        return wait === undefined ? Effect.void : Effect.delay(start(tokens), wait)
      })
    return (tokens) => turn.withPermits(1)(start(tokens))
  })

/**
 * `PQueue` with `intervalCap` and `interval`: so many calls start in each interval. An interval begins with the first call after the
 * end of the last one.
 */
export const intervals = (cap: number, interval: number): Effect.Effect<Admit> => {
  let endsAt = -Infinity
  let count = 0
  return inTurn((now) => {
    if (now >= endsAt) {
      endsAt = now + interval
      count = 0
    }
    if (count >= cap) return endsAt - now
    count++
    return undefined
  })
}

/**
 * `Bottleneck` with `reservoir`, `reservoirIncreaseAmount`, `reservoirIncreaseInterval`, `reservoirIncreaseMaximum`, and the
 * tokens of a call as its `weight`: a token bucket that is filled in steps.
 */
export const reservoir = (most: number, increase: number, interval: number): Effect.Effect<Admit> => {
  let left = most
  let filledAt: number | undefined
  return inTurn((now, tokens) => {
    filledAt ??= now
    const steps = Math.floor((now - filledAt) / interval)
    left = Math.max(left, Math.min(most, left + steps * increase))
    filledAt += steps * interval
    if (left < tokens) return filledAt + interval - now
    left -= tokens
    return undefined
  })
}

const second = 1_000

/** What the provider grants of tokens, and the tokens of a call that count. */
const tokensOf = (scenario: Scenario.Scenario) => {
  const limit = scenario.limits.tokens ?? scenario.limits.inputTokens
  if (limit === undefined) return { perSecond: 1e9, burst: 1e9 }
  const { amount, seconds } = rateOf(limit)
  return { perSecond: amount / seconds, burst: limit.burst ?? amount }
}

const countsOutput = (scenario: Scenario.Scenario): boolean => scenario.limits.tokens !== undefined

/** `PQueue` with as many calls a second as the limit has room for, if all are as large as their mean. */
export const pQueue: Strategy = {
  name: "p-queue",
  summary:
    "p-queue with intervalCap: as many calls a second as fit if all had the mean size; the SDK's 2 retries inside",
  client: Effect.fnUntraced(function* (scenario) {
    const provider = yield* LlmProvider
    const calls = Scenario.callsOf(scenario)
    const tokens = calls.reduce(
      (sum, call) => sum + call.inputTokens + (countsOutput(scenario) ? call.outputTokens : 0),
      0
    )
    const cap = Math.max(1, Math.floor((tokensOf(scenario).perSecond * calls.length) / tokens))
    const admit = yield* intervals(cap, second)
    return (params) => Effect.andThen(admit(1), withSdkRetries(provider, params))
  })
}

/** `Bottleneck` as a bucket of tokens: the largest that the provider takes at once, filled every second. */
export const bottleneck: Strategy = {
  name: "bottleneck",
  summary: "Bottleneck with a reservoir of tokens that is refilled each second; the SDK's 2 retries inside",
  client: Effect.fnUntraced(function* (scenario) {
    const provider = yield* LlmProvider
    const { burst, perSecond } = tokensOf(scenario)
    const admit = yield* reservoir(burst, perSecond, second)
    return (params, call) =>
      Effect.andThen(
        admit(call.inputTokens + (countsOutput(scenario) ? params.max_tokens : 0)),
        withSdkRetries(provider, params)
      )
  })
}
