/** One run, as it is handed to a worker: a law in a weather with a seed. */
import { cells } from "./cells.ts"
import * as Engine from "./engine.ts"
import * as Laws from "./laws.ts"
import * as Random from "./random.ts"
import type { Scenario } from "./scenario.ts"
import type { Result } from "./score.ts"

export interface Task {
  readonly law: string
  /** The name of a weather of a cell; without it the weather is random. */
  readonly weather: string | undefined
  readonly seed: number
}
export interface Done {
  readonly task: Task
  readonly result: Result
  /** Real time. */
  readonly millis: number
}

const named = new Map(cells.flatMap(({ weathers }) => weathers.map((each) => [each.name, each] as const)))

export const scenarioOf = ({ seed, weather }: Task): Scenario => {
  if (weather === undefined) return Random.make(seed)
  const scenario = named.get(weather)
  if (scenario === undefined) throw new Error(`no weather is called "${weather}"`)
  return scenario
}

export const perform = async (task: Task): Promise<Done> => {
  const makeLaw = await Laws.load(task.law)
  const start = performance.now()
  const result = Engine.run(scenarioOf(task), task.seed, makeLaw)
  return { task, result, millis: performance.now() - start }
}
