/** The strategies of the incident: fixed waits of one second and nothing shared, as in the original code. */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { LlmProvider } from "floodgate/LlmProvider"
import type { Strategy } from "../strategy.ts"

const everySecond =
  (times?: number): Strategy["client"] =>
  () =>
    Effect.map(
      LlmProvider,
      (provider) => (params) =>
        provider.create(params).pipe(
          Effect.retry({ schedule: Schedule.spaced("1 second"), times }),
          Effect.map((reply) => reply.value)
        )
    )

/** `wait_fixed(1)`, `stop_after_attempt(5)`: waits exactly one second, five attempts, no budget. */
export const fixedRetry: Strategy = {
  name: "fixed-retry",
  summary: "the incident: waits exactly 1 s after each failure, 5 attempts, nothing shared",
  settings: "@retry(wait=wait_fixed(1), stop=stop_after_attempt(5))",
  why: "It is short, and enough for a single caller.",
  client: everySecond(4)
}

/** `wait_fixed(1)` without a bound on attempts. The race stops it and reports it as not finished. */
export const fixedRetryForever: Strategy = {
  name: "fixed-retry-forever",
  summary: "waits exactly 1 s after each failure, without a limit, nothing shared",
  settings: "@retry(wait=wait_fixed(1))",
  why: "It never gives up a call.",
  client: everySecond()
}
