/** One run, as it is handed to a worker: a law in a weather with a seed. */
import { cells } from "./cells.ts"
import * as Engine from "./engine.ts"
import * as Laws from "./laws.ts"
import * as Random from "./random.ts"
import type { Scenario } from "./scenario.ts"
import { rivals } from "./rivals.ts"
import type { Result, Yardsticks } from "./score.ts"

export interface Task {
  readonly law: string
  /** The name of a weather of a cell; without it the weather is random. */
  readonly weather: string | undefined
  readonly seed: number
}
export interface Done {
  readonly task: Task
  readonly result: Result
  /** Where agents have a number of calls each. */
  readonly yardsticks: Yardsticks | undefined
  /** Real time. */
  readonly millis: number
}

const named = new Map<string, Scenario>()
for (const weather of cells.flatMap(({ weathers }) => weathers)) {
  if (named.has(weather.name)) throw new Error(`two weathers are called "${weather.name}"`)
  named.set(weather.name, weather)
}

export const scenarioOf = ({ seed, weather }: Task): Scenario => {
  if (weather === undefined) return Random.make(seed)
  const scenario = named.get(weather)
  if (scenario === undefined) throw new Error(`no weather is called "${weather}"`)
  return scenario
}

export const perform = async (task: Task): Promise<Done> => {
  const makeLaw = await Laws.load(task.law)
  const scenario = scenarioOf(task)
  const start = performance.now()
  const result = Engine.run(scenario, task.seed, makeLaw)
  const millis = performance.now() - start
  return { task, result, yardsticks: yardsticksOf(scenario, task.seed), millis }
}

const yardsticksOf = (scenario: Scenario, seed: number): Yardsticks | undefined => {
  if (scenario.work.kind !== "jobs") return undefined
  const makespan = (law: string) => Engine.run(scenario, seed, rivals[law]!).makespan!
  return { oracle: makespan("oracle"), noLimits: makespan("patient") }
}
