import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Forecast from "floodgate/Forecast"
import { Race, Scenario, Scenarios, Strategies } from "@floodgate/lab/internal"
import { isFull } from "../../../test/support/size.ts"

const floodgate = Strategies.all.find(({ name }) => name === "floodgate")!

/** What the estimator reserves once it has learned: what 95 of 100 calls stay below, and 15 % more. */
const reservedOf = (scenario: Scenario.Scenario): number => {
  const outputs = Scenario.callsOf(scenario).map((call) => call.outputTokens)
  return Math.ceil(1.15 * Race.quantile(outputs, 0.95)!)
}

const workloadOf = (scenario: Scenario.Scenario): Forecast.Workload => {
  const reserved = reservedOf(scenario)
  return scenario.agents.map(({ calls, name, startsAtMillis }) => ({
    name,
    startsAfter: startsAtMillis,
    calls: calls.map(({ inputTokens, maxTokens, outputTokens }) => ({
      inputTokens,
      outputTokens,
      reservedOutputTokens: Math.min(maxTokens, reserved)
    }))
  }))
}

/** A forecast is told how long calls take. What it cannot know, that some take longer, is measured apart. */
const steady = (scenario: Scenario.Scenario): Scenario.Scenario => ({
  ...scenario,
  provider: { ...scenario.provider, latency: { ...scenario.provider.latency, noise: 0 } }
})

describe("a forecast", () => {
  const scenarios: ReadonlyArray<Scenario.Scenario> = [
    ...(isFull ? ["incident", "burst", "many"] : ["incident", "burst"]).map((name) => steady(Scenarios.byName(name)!)),
    Scenario.make({ name: "incident with 40 agents", agents: 40 }),
    Scenario.make({ name: "incident with 3 calls at once", concurrency: 3 }),
    Scenario.make({ name: "incident in any 60 s", window: "sliding", rate: 20_000 }),
    Scenario.make({ name: "incident in fixed minutes", window: "fixed", rate: 20_000 })
  ]
  for (const scenario of scenarios) {
    it.effect(
      `is near the simulation: ${scenario.name}`,
      () =>
        Effect.gen(function* () {
          const { result } = yield* Race.run(scenario, floodgate)
          const { concurrency } = scenario.provider
          const forecast = Forecast.make(workloadOf(scenario), { limits: scenario.limits, concurrency })
          const ratio = Duration.toSeconds(forecast.duration) / result.makespanSeconds
          // Windows are remembered in cells, which costs a few seconds that a forecast leaves out.
          const isWindow = scenario.limits.tokens?.window === "sliding"
          assert.isAtLeast(ratio, isWindow ? 0.92 : 0.95)
          assert.isAtMost(ratio, 1.05)
        }),
      { tags: "full" }
    )
  }

  // The same calls take 232 to 248 s, as their latencies fall: no forecast can know more than the middle.
  it.effect.runIf(isFull)("is within 5 % of the median run if latencies vary by a fifth, and within 10 % of each", () =>
    Effect.gen(function* () {
      const scenario = Scenarios.byName("many")!
      const seconds = Duration.toSeconds(Forecast.make(workloadOf(scenario), { limits: scenario.limits }).duration)
      const makespans: Array<number> = []
      for (const seed of [1, 50, 51, 52, 53]) {
        const { result } = yield* Race.run({ ...scenario, seed }, floodgate)
        makespans.push(result.makespanSeconds)
        assert.closeTo(seconds / result.makespanSeconds, 1, 0.1)
      }
      assert.closeTo(
        seconds /
          Race.quantile(
            makespans.sort((a, b) => a - b),
            0.5
          )!,
        1,
        0.05
      )
    })
  )
})
