/** A thread of the lab: runs each race that it receives. */
import * as Effect from "effect/Effect"
import { parentPort, workerData } from "node:worker_threads"
import { Race, Report, Scenarios, Strategies } from "@floodgate/lab/internal"
import type { RaceJob } from "./threads.ts"

// A race may create a hundred thousand errors that nobody prints, and their stacks took a fifth of its time.
Error.stackTraceLimit = 0

/** The scenario of the user's own sessions, which is that of all jobs. */
const own = workerData === undefined ? undefined : Scenarios.fromSessions(workerData as Scenarios.SessionsOptions)

const run = async ({ scenario: name, seed, strategy: wanted }: RaceJob): Promise<Report.Figures.StrategyFigures> => {
  const scenario = own ?? Scenarios.byName(name, { seed })!
  const strategies = Strategies.of(scenario)
  const strategy = strategies.find(({ name }) => name === wanted)!
  return Report.Figures.strategyFigures(
    scenario,
    await Effect.runPromise(Race.run(scenario, strategy)),
    strategies.length
  )
}

parentPort!.on("message", (job: RaceJob) => void run(job).then((figures) => parentPort!.postMessage(figures, [])))
