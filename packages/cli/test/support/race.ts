import * as Effect from "effect/Effect"
import { Race, type Scenario, Strategies } from "@floodgate/cli/lab"

export const strategy = (name: string) => Strategies.all.find((one) => one.name === name)!

/** What comes of a strategy in a scenario. */
export const resultOf = (scenario: Scenario.Scenario, name: string) =>
  Effect.map(Race.run(scenario, strategy(name)), (run) => run.result)
