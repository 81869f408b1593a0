import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Forecast from "floodgate/Forecast"
import { Race, Scenario, Scenarios, Strategies } from "floodgate/lab"

const floodgate = Strategies.all.find(({ name }) => name === "floodgate")!

const workloadOf = (scenario: Scenario.Scenario): Forecast.Workload =>
  scenario.agents.map(({ calls, name, startsAtMillis }) => ({ name, startsAfter: startsAtMillis, calls }))

describe("a forecast", () => {
  const scenarios: ReadonlyArray<Scenario.Scenario> = [
    ...["incident", "burst", "many"].map((name) => Scenarios.byName(name)!),
    Scenario.make({ name: "incident with 40 agents", agents: 40 }),
    Scenario.make({ name: "incident with 3 calls at once", concurrency: 3 }),
    Scenario.make({ name: "incident in any 60 s", window: "sliding", rate: 20_000 }),
    Scenario.make({ name: "incident in fixed minutes", window: "fixed", rate: 20_000 })
  ]
  for (const scenario of scenarios) {
    it.effect(`is within 5 % of the simulation: ${scenario.name}`, () =>
      Effect.gen(function* () {
        const { result } = yield* Race.run(scenario, floodgate)
        const { concurrency } = scenario.provider
        const forecast = Forecast.make(workloadOf(scenario), { limits: scenario.limits, concurrency })
        const ratio = Duration.toSeconds(forecast.duration) / result.makespanSeconds
        assert.isAtLeast(ratio, 0.95)
        assert.isAtMost(ratio, 1.05)
      })
    )
  }
})
