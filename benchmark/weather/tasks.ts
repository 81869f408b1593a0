/** One run, as a worker gets it: a law in a weather with a seed. */
import { cells } from "./cells.ts"
import type { MakeClient } from "./clientEngine.ts"
import * as Engine from "./engine.ts"
import * as Laws from "./laws.ts"
import * as Random from "./random.ts"
import type { Scenario } from "./scenario.ts"
import { rivals } from "./rivals.ts"
import type { Result, Yardsticks } from "./score.ts"
import * as Sweep from "./sweep.ts"

export interface Task {
  readonly law: string
  /** The name of a weather from the cells or the sweep; without it the weather is random. */
  readonly weather: string | undefined
  readonly seed: number
}
export interface Done extends Measured {
  readonly task: Task
}
/** A run that died of a defect or of an unknown option. */
export interface Died {
  readonly task: Task
  readonly error: string
}
export const hasDied = (run: Done | Died): run is Died => "error" in run
export const hasEnded = (run: Done | Died): run is Done => "result" in run

interface Measured {
  readonly result: Result
  /** For agents with a number of calls each. */
  readonly yardsticks: Yardsticks | undefined
  /** Real time. */
  readonly millis: number
}

const named = new Map<string, Scenario>()
for (const weather of [
  ...cells.flatMap(({ weathers }) => weathers),
  ...Sweep.weathers.map(({ scenario }) => scenario)
]) {
  if (named.has(weather.name)) throw new Error(`two weathers are called "${weather.name}"`)
  named.set(weather.name, weather)
}

export const scenarioOf = ({ seed, weather }: Task): Scenario => {
  if (weather === undefined) return Random.make(seed)
  const scenario = named.get(weather)
  if (scenario === undefined) throw new Error(`unknown weather "${weather}"`)
  return scenario
}

export const perform = async (task: Task): Promise<Done | Died> => {
  try {
    return { task, ...(await measure(task)) }
  } catch (error) {
    return { task, error: error instanceof Error ? error.message : String(error) }
  }
}

const measure = async (task: Task): Promise<Measured> => {
  const run = await runnerOf(task.law)
  const scenario = scenarioOf(task)
  const start = performance.now()
  const result = run(scenario, task.seed)
  const millis = performance.now() - start
  return { result, yardsticks: yardsticksOf(scenario, task.seed), millis }
}

/** Clients made of effects are loaded, with their engine, only when they are needed. */
const clients: { readonly [name: string]: () => Promise<MakeClient> } = {
  library: async () => (await import("./library.ts")).makeClient,
  "library-x4": async () => (await import("./library.ts")).makeFleet,
  "effect-rate-limiter": async () => (await import("./effectClients.ts")).rateLimiter,
  "effect-http": async () => (await import("./effectClients.ts")).withRateLimiter
}

/** Returns the function that runs a law or a client in a scenario. */
export const runnerOf = async (law: string): Promise<(scenario: Scenario, seed: number) => Result> => {
  const client = clients[law]
  if (client !== undefined) {
    const [{ run }, makeClient] = await Promise.all([import("./clientEngine.ts"), client()])
    return (scenario, seed) => run(scenario, seed, makeClient)
  }
  const makeLaw = await Laws.load(law)
  return (scenario, seed) => Engine.run(scenario, seed, makeLaw)
}

const yardsticksOf = (scenario: Scenario, seed: number): Yardsticks | undefined => {
  if (scenario.work.kind !== "jobs") return undefined
  const makespan = (law: string) => Engine.run(scenario, seed, rivals[law]!).makespan!
  return { oracle: makespan("oracle"), noLimits: makespan("patient") }
}
