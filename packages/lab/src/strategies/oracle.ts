/**
 * The oracle: a queue in order of arrival that knows the usage of every call and the state of the provider, and sends each call at the
 * earliest time at which it is admitted. It is the best possible schedule in that order.
 *
 * In scenarios of sessions it asks the provider what the cache holds of each prompt. It is the best schedule in order of arrival there, too,
 * but another order may be better: a large cold prompt at the head lets everybody wait whose prompt is in the cache, and what is
 * read from the cache depends on when calls are sent. So a strategy may end before the oracle.
 */
import { LimitWords } from "floodgate/internal"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import * as Limits from "floodgate/Limits"
import { Growth } from "../growth.ts"
import type { Params } from "floodgate/LlmProvider"
import type { ScenarioCall, Scenario, ScenarioPlace } from "../scenario.ts"
import * as Scenarios from "../scenario.ts"
import type { RunningPlace, Strategy } from "../strategy.ts"

/** The amount of a limit that a call needs before it is sent, and how to predict when it is available. */
interface Need {
  readonly dimension: Limits.Dimension
  readonly amount: number
  readonly limit: Limits.Limit
}

const needsOf = ({ limits, provider }: ScenarioPlace, call: ScenarioCall, cachedTokens: number): ReadonlyArray<Need> =>
  Limits.Dimension.literals.flatMap((dimension) => {
    const limit = limits[dimension]
    if (limit === undefined) return []
    const used = {
      requests: 1,
      inputTokens: call.inputTokens - cachedTokens,
      // If output counts while it is produced, a call is admitted as long as anything is left.
      outputTokens: (provider.output ?? "live") === "live" ? 1e-3 : call.outputTokens,
      tokens: call.inputTokens + call.outputTokens
    }[dimension]
    const capacity = limit.burst ?? LimitWords.rateOf(limit).amount
    // A call larger than the bucket is admitted when the bucket is full, and leaves a debt.
    const amount = limit.window === undefined || limit.window === "bucket" ? Math.min(used, capacity) : used
    return [{ dimension, amount, limit }]
  })

/** Milliseconds until `missing` more is available, or until the next look. */
const waitMillis = ({ limit }: Need, missing: number, now: number, sent: ReadonlyArray<number>): number => {
  const { amount, seconds } = LimitWords.rateOf(limit)
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

/** A place, as the oracle knows it. */
class KnownPlace {
  readonly running: RunningPlace
  private readonly place: ScenarioPlace
  private readonly outages: ReadonlyArray<readonly [from: number, to: number]>
  private readonly growth = new Growth()
  private sent: Array<number> = []

  constructor(running: RunningPlace, { places }: Scenario, place: ScenarioPlace) {
    this.running = running
    this.place = place
    // With a single place this would gain little, because the oracle sends a call each second anyway.
    const { faults = [] } = places === undefined ? {} : place.provider
    this.outages = faults.flatMap(({ between, rate = 1 }) => (between === undefined || rate < 1 ? [] : [between]))
  }

  /** Milliseconds until a call fits, or until the next look. */
  wait(params: Params, call: ScenarioCall, now: number): Effect.Effect<number> {
    const { cache, ramp } = this.place.provider
    const outage = this.outages.find(([from, to]) => from <= now && now < to)
    if (outage !== undefined) return Effect.succeed(outage[1] - now)
    this.sent = this.sent.filter((at) => at + 60_000 > now)
    const { cached, left } = this.running.sim
    // Only a limit that leaves out what is read from a cache.
    const read = cache === "breakpoints" ? cached(params) : Effect.succeed(0)
    return Effect.zipWith(left(params.model), read, (left, read) => {
      let wait = ramp === undefined ? 0 : this.growth.waitMillis(ramp, now, call.inputTokens)
      for (const need of needsOf(this.place, call, read)) {
        const missing = need.amount - (left[need.dimension] ?? Infinity)
        if (missing > 1e-6) wait = Math.max(wait, waitMillis(need, missing, now, this.sent))
      }
      return wait
    })
  }

  /** Notes that a call is sent. */
  take({ inputTokens }: ScenarioCall, now: number): void {
    this.sent.push(now)
    this.growth.add(now, inputTokens)
  }
}

/**
 * The best possible schedule, with which the others are compared: first in, first out, with perfect knowledge, which no real program
 * has.
 *
 * @stability experimental
 * @category strategies
 * @since 0.2.0
 */
export const oracle: Strategy = {
  name: "oracle",
  summary:
    "the best possible schedule in order of arrival: knows each call's usage and each provider's state and cache in advance",
  settings: "none: no real program has this knowledge",
  why: "It shows how much better a strategy could be.",
  client: (scenario, running) =>
    Effect.gen(function* () {
      const head = yield* Semaphore.make(1)
      const slots = yield* Semaphore.make(scenario.provider.concurrency ?? Number.MAX_SAFE_INTEGER)
      const places = Scenarios.placesOf(scenario).map(
        (place, index) => new KnownPlace(running[index]!, scenario, place)
      )

      /** Waits until the call fits at a place, and takes it there. */
      const taken = Effect.fnUntraced(function* (params: Params, call: ScenarioCall) {
        while (true) {
          const now = yield* Clock.currentTimeMillis
          const waits = yield* Effect.forEach(places, (place) => place.wait(params, call, now))
          const wait = Math.min(...waits)
          const place = places[waits.indexOf(wait)]!
          if (wait === 0) {
            place.take(call, now)
            return place.running.provider
          }
          yield* Effect.sleep(wait)
        }
      })

      return (params, call) =>
        head
          .withPermits(1)(
            Effect.gen(function* () {
              yield* slots.take(1)
              const provider = yield* taken(params, call)
              // Sent before the next call in the queue reads the provider's state.
              return yield* Effect.forkChild(Effect.ensuring(provider.create(params), slots.release(1)), {
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
