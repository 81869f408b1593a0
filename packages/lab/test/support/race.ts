import * as Effect from "effect/Effect"
import { Race, type Scenario, Strategies } from "@floodgate/lab/internal"

export const strategy = (name: string) => Strategies.all.find((one) => one.name === name)!

const results = new Map<string, Race.RaceResult>()

/** The result of a strategy in a scenario. Races are deterministic, so each is run once. */
export const resultOf = (scenario: Scenario.Scenario, name: string): Effect.Effect<Race.RaceResult> =>
  Effect.suspend(() => {
    const key = JSON.stringify([name, scenario])
    const known = results.get(key)
    if (known !== undefined) return Effect.succeed(known)
    return Effect.map(Race.run(scenario, strategy(name)), ({ result }) => {
      results.set(key, result)
      return result
    })
  })
