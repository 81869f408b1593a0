import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Race, Scenarios } from "@floodgate/lab/internal"
import * as Threads from "../../src/commands/storm/threads.ts"
import { strategy } from "../../../lab/test/support/race.ts"

describe("the threads of the lab", () => {
  it.effect("give the same results as a single thread, in the order of the jobs", () =>
    Effect.gen(function* () {
      const jobs = ["floodgate-as-installed", "sdk-2"].map((strategy) => ({
        scenario: "incident",
        seed: 2,
        strategy
      }))
      const scenario = Scenarios.byName("incident", { seed: 2 })!
      const alone = yield* Effect.forEach(jobs, (job) => Race.run(scenario, strategy(job.strategy)))
      const parts = yield* Threads.race(jobs)
      assert.deepStrictEqual(
        parts.map(({ result }) => result),
        alone.map(({ result }) => result)
      )
    }).pipe(Effect.provide(NodeServices.layer))
  )

  it.effect("play sessions of the user's own again and again with the same result", () =>
    Effect.gen(function* () {
      const turn = { pauseMillis: 1_000, inputTokens: 4_000, cachedTokens: 3_000, outputTokens: 50, subAgents: [] }
      const lead = { path: "0", turns: [turn, turn, turn] }
      const own: Scenarios.SessionsOptions = {
        sessions: ["a", "b", "c"].map((name) => ({ name, lead })),
        limits: { inputTokens: { perMinute: 4_000, burst: 10_000 } }
      }
      const scenario = Scenarios.fromSessions(own)
      const names = ["floodgate-as-installed", "sdk-2"]
      const alone = yield* Effect.forEach(names, (name) => Race.run(scenario, strategy(name)))
      const again = [...names, ...names, ...names]
      const parts = yield* Threads.race(
        again.map((strategy) => ({ scenario: scenario.name, seed: 1, strategy })),
        own
      )
      assert.deepStrictEqual(
        parts.map(({ result }) => result),
        [...alone, ...alone, ...alone].map(({ result }) => result)
      )
    }).pipe(Effect.provide(NodeServices.layer))
  )

  it.effect("fail with the error of a race", () =>
    Effect.gen(function* () {
      const cause = yield* Effect.flip(Effect.sandbox(Threads.race([{ scenario: "none", seed: 1, strategy: "sdk-2" }])))
      assert.include(String(cause), "TypeError")
    }).pipe(Effect.provide(NodeServices.layer))
  )
})
