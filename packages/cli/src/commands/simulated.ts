/** The flags for how a simulated provider behaves. */
import * as Flag from "effect/cli/Flag"
import { atLeastZero, byDefault, maxMillis, number, optional } from "@floodgate/gateway/internal/flags"
import { Latency } from "floodgate/internal"
import * as Words from "floodgate/internal/words"

/** Random numbers have 32 bits, so a larger seed would equal a smaller one. */
const maxSeed = 2 ** 32 - 1

/** The seed of all random numbers. */
export const seed = number(
  "seed",
  `a whole number from 0 to ${Words.thousands(maxSeed)}`,
  (value) => Number.isSafeInteger(value) && value >= 0 && value <= maxSeed
).pipe(byDefault("Seed of all random numbers: the same seed gives the same results", 1))

/** The time of a call in addition to the usual one. */
export const latencyPerToken = atLeastZero("latency-per-token", maxMillis).pipe(
  optional(
    `Milliseconds per output token, in addition to ${Latency.usual.baseMillis} a call and ${Latency.usual.perInputTokenMillis} per input token (default: ${Latency.usual.perOutputTokenMillis})`
  )
)

/** Whether a simulated provider counts rejected requests. */
export const rejections = Flag.Literals("rejections", ["free", "charged"])

/** The rate limit headers of a simulated provider. */
export const headers = Flag.Literals("headers", ["rounded", "exact", "openai", "none", "wrong"]).pipe(
  Flag.withDescription("Rate limit headers of responses")
)
