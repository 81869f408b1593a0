/**
 * Strategies that only retry: each caller on its own, with nothing shared. Each is the algorithm of the package that it names, in
 * simulated time; a test compares those of the SDK with the package.
 */
import type { Message } from "@anthropic-ai/sdk/resources/messages/messages"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type { LlmError } from "floodgate/LlmError"
import { LlmProvider, type Params } from "floodgate/LlmProvider"
import type { Strategy } from "../strategy.ts"

/** Whether the SDKs retry a failure: 408, 409, 429, every status from 500 up, and connections that broke or timed out. */
export const isRetried = (error: LlmError): boolean => {
  const { status } = error
  if (status !== undefined) return status === 408 || status === 409 || status === 429 || status >= 500
  return error.reason._tag === "ConnectionFailed" || error.reason._tag === "TimedOut"
}

const retryAfterMillis = (error: LlmError): number | undefined =>
  error.retryAfter === undefined ? undefined : Duration.toMillis(error.retryAfter)

/** Retries an attempt. `wait` returns the milliseconds before retry `n`, counted from 0. */
const retrying = (
  attempt: Effect.Effect<Message, LlmError>,
  retries: number,
  wait: (error: LlmError, n: number) => Effect.Effect<number>
): Effect.Effect<Message, LlmError> => {
  const from = (n: number): Effect.Effect<Message, LlmError> =>
    Effect.catch(attempt, (error) =>
      n < retries && isRetried(error)
        ? Effect.flatMap(wait(error, n), (millis) => Effect.delay(from(n + 1), millis))
        : Effect.fail(error)
    )
  return from(0)
}

/** Sends one request and returns its answer. */
export const attemptOf = (provider: LlmProvider["Service"], params: Params): Effect.Effect<Message, LlmError> =>
  Effect.map(provider.create(params), (reply) => reply.value)

/**
 * `retryRequest` of @anthropic-ai/sdk 1.13: `retry-after` exactly and without jitter, else 0.5 s doubled up
 * to 8 s, less up to a quarter.
 */
const sdkWait = (error: LlmError, n: number): Effect.Effect<number> => {
  const asked = retryAfterMillis(error)
  if (asked !== undefined && asked > 0 && asked <= 0x7f_ff_ff_ff) return Effect.succeed(asked)
  return Effect.map(Random.next, (random) => Math.min(0.5 * 2 ** n, 8) * (1 - random * 0.25) * 1_000)
}

/** A call with the official SDK's two retries. */
export const withSdkRetries = (provider: LlmProvider["Service"], params: Params): Effect.Effect<Message, LlmError> =>
  retrying(attemptOf(provider, params), 2, sdkWait)

/** Full jitter: a random part of 2 s, 4 s ... 60 s. */
const fullJitterWait = (_: LlmError, n: number): Effect.Effect<number> =>
  Effect.map(Random.next, (random) => random * Math.min(60_000, 2_000 * 2 ** n))

/** Ten attempts with full jitter from 2 s up to 60 s, as the best users of a limiter configure them. */
export const tenAttempts = (attempt: Effect.Effect<Message, LlmError>): Effect.Effect<Message, LlmError> =>
  retrying(attempt, 9, fullJitterWait)

/** Retries without an end: after 0.5 s doubled up to 8 s, or after `retry-after` if that is longer, times 0.8 to 1.2. */
export const untilDone = (attempt: Effect.Effect<Message, LlmError>): Effect.Effect<Message, LlmError> =>
  retrying(attempt, Infinity, (error, n) =>
    Effect.map(
      Random.next,
      (random) => (0.8 + 0.4 * random) * Math.max(retryAfterMillis(error) ?? 0, Math.min(8_000, 500 * 2 ** n))
    )
  )

/** Makes a strategy that only retries. */
const retries = (
  described: Pick<Strategy, "name" | "summary" | "settings" | "why">,
  times: number,
  wait: (error: LlmError, n: number) => Effect.Effect<number>
): Strategy => ({
  ...described,
  client: () => Effect.map(LlmProvider, (provider) => (params) => retrying(attemptOf(provider, params), times, wait))
})

/** The official SDK with its default of two retries. */
export const sdk2 = retries(
  {
    name: "sdk-2",
    summary: "@anthropic-ai/sdk with its defaults: 2 retries, each exactly after retry-after",
    settings: "new Anthropic()",
    why: "It is the default."
  },
  2,
  sdkWait
)

/** The official SDK with `maxRetries: 10`, the usual advice. */
export const sdk10 = retries(
  {
    name: "sdk-10",
    summary: "@anthropic-ai/sdk with maxRetries: 10, each exactly after retry-after",
    settings: "new Anthropic({ maxRetries: 10 })",
    why: "It is the usual advice when calls fail with 429."
  },
  10,
  sdkWait
)

/**
 * The AI SDK's `generateText` (ai 7): two retries, 2 s doubled, no jitter, `retry-after` where it is below a minute.
 */
export const aiSdk = retries(
  {
    name: "ai-sdk",
    summary:
      "AI SDK's generateText with its defaults: 2 retries, after retry-after if it is below a minute, else 2 s and 4 s",
    settings: "generateText({ model, prompt })",
    why: "It is the default."
  },
  2,
  (error, n) => {
    const backoff = 2_000 * 2 ** n
    const asked = retryAfterMillis(error)
    return Effect.succeed(asked !== undefined && (asked < 60_000 || asked < backoff) ? asked : backoff)
  }
)

/** Full jitter alone: a random part of 2 s, 4 s ... 60 s, ten attempts, nothing shared, `retry-after` not read. */
export const fullJitter = retries(
  {
    name: "full-jitter",
    summary: "any client with its own retries off; 10 attempts with full jitter from 2 s to 60 s, nothing shared",
    settings: "tenAttempts(() => client.messages.create(params, { maxRetries: 0 }))",
    why: "AWS's study of backoff recommends it, and most engineers write it around an SDK or the AI SDK."
  },
  9,
  fullJitterWait
)

/** Waits exactly as long as `retry-after` says, or 2 s, with ten attempts. */
export const retryAfter = retries(
  {
    name: "retry-after",
    summary: "retries exactly after retry-after, 10 attempts, nothing shared",
    settings: "on a 429: await sleep(retryAfter), at most 9 times",
    why: "The provider says when to come back."
  },
  9,
  (error) => Effect.succeed(retryAfterMillis(error) ?? 2_000)
)

/** Exponential backoff as Effect offers it: 2 s doubled, `Schedule.jittered` (0.8 to 1.2), ten attempts. */
export const jittered: Strategy = {
  name: "effect-jittered",
  summary: "Effect's Schedule.exponential from 2 s with Schedule.jittered, 10 attempts, nothing shared",
  settings: 'Effect.retry({ schedule: Schedule.jittered(Schedule.exponential("2 seconds")), times: 9 })',
  why: "Effect's documentation shows it.",
  client: () =>
    Effect.map(
      LlmProvider,
      (provider) => (params) =>
        attemptOf(provider, params).pipe(
          Effect.retry({
            schedule: Schedule.jittered(Schedule.exponential("2 seconds")),
            times: 9,
            while: isRetried
          })
        )
    )
}
