/** A strategy that a good engineer writes in an afternoon, with the provider's limits and the tokens of each call. */
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import type { LlmError } from "floodgate/LlmError"
import { LlmProvider, type Params } from "floodgate/LlmProvider"
import type { Scenario, ScenarioCall } from "../scenario.ts"
import type { Strategy } from "../strategy.ts"
import { countsOutput, tokensOf, usedOf } from "./limitOf.ts"
import { attemptOf, tenAttempts } from "./peers.ts"

/**
 * A token bucket in order of arrival. It takes back tokens that a call did not use, and a rejection closes it for all callers until
 * `retry-after` is over.
 */
const makeBucket = (perSecond: number, burst: number, used: (message: Message) => number) => {
  const turn = Semaphore.makeUnsafe(1)
  let level = burst
  let filledAt = 0
  let closedUntil = 0
  const fill = (now: number): void => {
    level = Math.min(burst, level + ((now - filledAt) * perSecond) / 1_000)
    filledAt = now
  }
  const enter = (tokens: number): Effect.Effect<void> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      fill(now)
      const missing = Math.max(0, Math.min(tokens, burst) - level)
      const millis = Math.max(closedUntil - now, Math.ceil((missing / perSecond) * 1_000 - 1e-6))
      if (millis > 0) return Effect.delay(enter(tokens), millis)
      level -= tokens
      return Effect.void
    })
  return (tokens: number, attempt: Effect.Effect<Message, LlmError>): Effect.Effect<Message, LlmError> =>
    Effect.andThen(turn.withPermits(1)(enter(tokens)), attempt).pipe(
      Effect.tap((message) =>
        Effect.sync(() => {
          level = Math.min(burst, level + tokens - used(message))
        })
      ),
      Effect.tapError(({ retryAfter, status }) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          if (status === 429 && retryAfter !== undefined) {
            closedUntil = Math.max(closedUntil, now + Duration.toMillis(retryAfter))
          }
        })
      )
    )
}

/** The client of a bucket with the limits of a scenario. A call takes its tokens of input, and those of output if they count. */
export const bucketClient = (
  inputOf: (scenario: Scenario, call: ScenarioCall) => number,
  outputOf: (params: Params, call: ScenarioCall) => number
): Strategy["client"] =>
  Effect.fnUntraced(function* (scenario) {
    const provider = yield* LlmProvider
    const { burst, perSecond } = tokensOf(scenario)
    const countsAll = countsOutput(scenario)
    const run = makeBucket(perSecond, burst, usedOf(scenario))
    return (params, call) => {
      const tokens = inputOf(scenario, call) + (countsAll ? outputOf(params, call) : 0)
      return tenAttempts(run(tokens, attemptOf(provider, params)))
    }
  })

/** A token bucket, improved by what its users learned in a first week of 429s. */
export const handWritten: Strategy = {
  name: "hand-written",
  summary:
    "a token bucket charged for each attempt and corrected by the usage; a 429 closes it until retry-after; 10 attempts with full jitter",
  settings:
    "tenAttempts(() => bucket.run(tokens, () => client.messages.create(params, { maxRetries: 0 }))), with 40 lines of bucket",
  why: "A good engineer who knows the limits and counts tokens would write this.",
  client: bucketClient(
    (_, call) => call.inputTokens,
    (params) => params.max_tokens
  )
}
