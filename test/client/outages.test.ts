import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import type { Params } from "floodgate/LlmProvider"
import { ProviderSim, Simulation } from "floodgate/testing"
import { sized, some } from "../support/size.ts"

// The model of the provider: token buckets of 6,000 requests and 6M tokens of input a minute, rounded headers, rejections
// free. An answer takes 0.4 s, an error 0.1 s, a reset half an answer, a timeout 10 s.

const limits = { requests: { perMinute: 6_000 }, inputTokens: { perMinute: 6_000_000 } }

const params: Params = {
  model: "claude-sonnet-5",
  max_tokens: 100,
  messages: [{ role: "user", content: "x".repeat(4_000) }]
}

interface Job {
  readonly agents: number
  /** Calls of each agent, one after the other. */
  readonly calls: number
  readonly faults?: ReadonlyArray<ProviderSim.Fault>
}

/** Runs agents with all defaults over a provider with faults, and returns the result of each and the time of all. */
const race = ({ agents, calls, faults = [] }: Job) =>
  Effect.gen(function* () {
    const agent = (name: string) =>
      Effect.replicateEffect(LlmClient.create(params, { agent: name }), calls, { discard: true })
    const names = Array.from({ length: agents }, (_, n) => `agent ${n}`)
    const { duration, value } = yield* Simulation.run(
      Effect.forEach(names, (name) => Effect.exit(agent(name)), { concurrency: "unbounded" })
    )
    const { stats } = yield* ProviderSim.ProviderSim
    return { exits: value, millis: Duration.toMillis(duration), stats: yield* stats }
  }).pipe(
    Effect.provide(
      LlmClient.layerProvider().pipe(
        Layer.provide(Budget.layer()),
        Layer.provideMerge(
          ProviderSim.layer({
            limits,
            faults,
            latency: { baseMillis: 400, perOutputTokenMillis: 0, rejectionMillis: 100 }
          })
        )
      )
    )
  )

describe("an outage", () => {
  const outage = (kind: ProviderSim.Fault["kind"], from: number, millis: number): ProviderSim.Fault => ({
    ...ProviderSim.outage(from, from + millis, kind),
    ...(kind === "timeout" && { afterMillis: 10_000 })
  })

  for (const [when, from, calls] of [
    ["from the very first call on", 0, 2],
    ["in the middle of the work", 5_000, 25]
  ] as const) {
    for (const kind of some(["500", "529", "refused", "cut", "timeout"] as const, 3)) {
      // A probe that is sent just before the end of the outage is known to have timed out 10 s later.
      const bar = kind === "timeout" ? 20 : 15
      it.effect(
        `${when} (${kind}) loses no agent, and delays none by more than ${bar} s beyond its end and their work`,
        () =>
          Effect.gen(function* () {
            for (const agents of sized([12], [12, 40, 80])) {
              const quiet = yield* race({ agents, calls })
              for (const seconds of sized([3, 30], [1, 3, 10, 30])) {
                const faults = [outage(kind, from, seconds * 1_000)]
                const { exits, millis } = yield* race({ agents, calls, faults })
                const what = `${seconds} s, ${agents} agents`
                assert.isTrue(exits.every(Exit.isSuccess), `lost: ${what}`)
                assert.isAtMost(millis - quiet.millis, (seconds + bar) * 1_000, what)
              }
            }
          }),
        { tags: "full" }
      )
    }
  }
})
