/**
 * The oracle: a queue in order of arrival that knows the usage of every call and the state of the provider, and sends each call at the
 * earliest time at which it is admitted. It is the best possible schedule in that order.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import * as Limits from "floodgate/Limits"
import { LlmProvider } from "floodgate/LlmProvider"
import { ProviderSim } from "floodgate/testing"
import { Growth } from "../growth.ts"
import { rateOf } from "../rate.ts"
import type { ScenarioCall, Scenario } from "../scenario.ts"
import type { Strategy } from "../strategy.ts"

/** The amount of a limit that a call needs before it is sent, and how to predict when it is available. */
interface Need {
  readonly dimension: Limits.Dimension
  readonly amount: number
  readonly limit: Limits.Limit
}

const needsOf = ({ limits, provider }: Scenario, call: ScenarioCall): ReadonlyArray<Need> =>
  Limits.Dimension.literals.flatMap((dimension) => {
    const limit = limits[dimension]
    if (limit === undefined) return []
    const used = {
      requests: 1,
      inputTokens: call.inputTokens,
      // If output counts while it is produced, a call is admitted as long as anything is left.
      outputTokens: (provider.output ?? "live") === "live" ? 1e-3 : call.outputTokens,
      tokens: call.inputTokens + call.outputTokens
    }[dimension]
    const capacity = limit.burst ?? rateOf(limit).amount
    // A call larger than the bucket is admitted when the bucket is full, and leaves a debt.
    const amount = limit.window === undefined || limit.window === "bucket" ? Math.min(used, capacity) : used
    return [{ dimension, amount, limit }]
  })

/** Milliseconds until `missing` more is available, or until the next look. */
const waitMillis = ({ limit }: Need, missing: number, now: number, sent: ReadonlyArray<number>): number => {
  const { amount, seconds } = rateOf(limit)
  const period = seconds * 1_000
  switch (limit.window ?? "bucket") {
    case "bucket":
      return Math.max(1, Math.ceil((missing * period) / amount - 1e-6))
    case "sliding":
      return Math.max(1, (sent.find((at) => at + period > now) ?? now - period + 1) + period - now)
    case "fixed":
      return period - (now % period)
  }
}

/**
 * First in, first out, with perfect knowledge. It cannot be built; the others are compared with it.
 */
export const oracle: Strategy = {
  name: "oracle",
  summary:
    "the yardstick: first come, first served, with advance knowledge of each call's usage and the provider's state",
  settings: "none: it is not a program that anybody could write",
  why: "It shows what is left to gain.",
  client: (scenario) =>
    Effect.gen(function* () {
      const provider = yield* LlmProvider
      const sim = yield* ProviderSim.ProviderSim
      const head = yield* Semaphore.make(1)
      const places = yield* Semaphore.make(scenario.provider.concurrency ?? Number.MAX_SAFE_INTEGER)
      const { ramp } = scenario.provider
      const growth = new Growth()
      const sent: Array<number> = []
      let expired = 0

      const fits = Effect.fnUntraced(function* (model: string, call: ScenarioCall) {
        const needs = needsOf(scenario, call)
        while (true) {
          const left = yield* sim.left(model)
          const now = yield* Clock.currentTimeMillis
          while (expired < sent.length && sent[expired]! + 60_000 <= now) expired++
          let wait = 0
          for (const need of needs) {
            const missing = need.amount - (left[need.dimension] ?? Infinity)
            if (missing > 1e-6) wait = Math.max(wait, waitMillis(need, missing, now, sent.slice(expired)))
          }
          if (ramp !== undefined) wait = Math.max(wait, growth.waitMillis(ramp, now, call.inputTokens))
          if (wait === 0) {
            sent.push(now)
            growth.add(now, call.inputTokens)
            return
          }
          yield* Effect.sleep(wait)
        }
      })

      return (params, call) =>
        head
          .withPermits(1)(
            Effect.gen(function* () {
              yield* places.take(1)
              yield* fits(params.model, call)
              // Sent before the next call in the queue reads the provider's state.
              return yield* Effect.forkChild(Effect.ensuring(provider.create(params), places.release(1)), {
                startImmediately: true
              })
            })
          )
          .pipe(
            Effect.flatMap(Fiber.join),
            Effect.map((reply) => reply.value),
            Effect.retry({ schedule: Schedule.spaced("1 second"), while: (error) => error.isRetryable })
          )
    })
}
