/**
 * The fix of the incident report: full-jitter backoff, and one token bucket for all agents. As in the original code, estimates are
 * never corrected, and a 429 of one call does not affect others.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import type { LlmError } from "floodgate/LlmError"
import { LlmProvider } from "floodgate/LlmProvider"
import type { Scenario } from "../scenario.ts"
import type { Strategy } from "../strategy.ts"

/**
 * Exponential backoff with full jitter: a random part of 2 s, 4 s, 8 s ... up to a minute, five attempts, only after
 * rate limits.
 */
const backoff = Schedule.exponential("2 seconds").pipe(
  Schedule.modifyDelay(({ duration }) =>
    Effect.map(Random.next, (random) => Duration.times(Duration.min(duration, Duration.minutes(1)), random))
  )
)

const isRateLimit = ({ reason }: LlmError): boolean => reason._tag === "RateLimited" || reason._tag === "RampLimited"

/**
 * A token bucket in order of arrival: a call that does not fit sleeps until it does, and later calls wait behind it.
 */
const makeBucket = (perSecond: number, burst: number) =>
  Effect.gen(function* () {
    const lock = yield* Semaphore.make(1)
    let level = burst
    let updated = yield* Clock.currentTimeMillis
    const refill = Effect.map(Clock.currentTimeMillis, (now) => {
      level = Math.min(burst, level + ((now - updated) * perSecond) / 1_000)
      updated = now
    })
    return (tokens: number) =>
      lock.withPermits(1)(
        Effect.gen(function* () {
          yield* refill
          if (level < Math.min(tokens, burst)) {
            yield* Effect.sleep(Math.ceil(((Math.min(tokens, burst) - level) / perSecond) * 1_000))
            yield* refill
          }
          level -= tokens
        })
      )
  })

/** The rate and the burst of its only limit, as in the incident report. */
const limitOf = ({ limits }: Scenario): { readonly rate: number; readonly burst: number } => {
  const limit = limits.tokens ?? limits.inputTokens ?? limits.outputTokens ?? {}
  if (limit.perSecond !== undefined) return { rate: limit.perSecond, burst: limit.burst ?? limit.perSecond }
  // The report read 4M a minute as a burst of a twentieth, 200,000, and the rest as 60,000 a second.
  const perMinute = limit.perMinute ?? Infinity
  const bucket = limit.window === undefined || limit.window === "bucket"
  const burst = limit.burst ?? (bucket ? perMinute : perMinute / 20)
  return { rate: bucket ? perMinute / 60 : (perMinute - burst) / 60, burst }
}

/** The incident report's fix. */
export const incidentFix: Strategy = {
  name: "incident-fix",
  summary: "the incident's fix: one bucket, charged before each attempt and never corrected; full jitter, 5 attempts",
  settings:
    "await bucket.consume(countTokens(messages) + max_tokens), for each of 5 attempts; sleep(random() * min(60 s, 2 s * 2 ** n)) after a 429",
  why: "The authors of the incident wrote this after it.",
  client: (scenario) =>
    Effect.gen(function* () {
      const provider = yield* LlmProvider
      const { burst, rate } = limitOf(scenario)
      const consume = yield* makeBucket(rate, burst)
      return (params) =>
        Effect.gen(function* () {
          const { max_tokens, messages, model, system, tools } = params
          const counted = yield* provider.countTokens({
            model,
            messages,
            ...(system !== undefined && { system }),
            ...(tools !== undefined && { tools })
          })
          yield* consume(scenario.limits.inputTokens === undefined ? counted.value + max_tokens : counted.value)
          return (yield* provider.create(params)).value
        }).pipe(Effect.retry({ schedule: backoff, times: 4, while: isRateLimit }))
    })
}
