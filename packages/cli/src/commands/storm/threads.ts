/** Runs the races of the lab on all cores. Races are deterministic, so neither thread nor order changes a result. */
import * as Effect from "effect/Effect"
import { availableParallelism } from "node:os"
import { Worker } from "node:worker_threads"
import type { Report, Scenarios } from "@floodgate/lab/internal"
import { statusLine } from "../painter.ts"

/** A race: a scenario and a strategy by name. */
export interface RaceJob {
  readonly scenario: string
  readonly seed: number
  readonly strategy: string
}

type RaceFigures = Report.Figures.StrategyFigures

/** The worker is beside this file, compiled or not. Sources need the condition that resolves the library to its sources. */
const isSource = import.meta.url.endsWith(".ts")
const file = new URL(isSource ? "./worker.ts" : "./worker.js", import.meta.url)
const execArgv = isSource ? ["--conditions=@floodgate/source"] : []

const thread = (own: Scenarios.SessionsOptions | undefined) =>
  Effect.acquireRelease(
    Effect.sync(() => new Worker(file, { execArgv, workerData: own })),
    (worker) => Effect.promise(() => worker.terminate())
  )

/** Sends a job to a thread and waits for its result. */
const ask = (worker: Worker, job: RaceJob): Effect.Effect<RaceFigures> =>
  Effect.callback<RaceFigures>((resume) => {
    const end = (effect: Effect.Effect<RaceFigures>): void => {
      worker.off("message", answered).off("error", failed)
      resume(effect)
    }
    const answered = (figures: RaceFigures): void => end(Effect.succeed(figures))
    const failed = (error: unknown): void => end(Effect.die(error))
    worker.on("message", answered).on("error", failed)
    worker.postMessage(job, [])
  })

/** Starts first, because it takes longer than all others together. */
const slowest = "fixed-retry-forever"

/**
 * Runs races on all cores, and returns their results in the order of the jobs. With sessions of the user's own, they are the scenario of
 * all jobs, and each thread writes their requests once.
 */
export const race = Effect.fnUntraced(function* (jobs: ReadonlyArray<RaceJob>, own?: Scenarios.SessionsOptions) {
  const status = yield* statusLine
  const waiting = jobs.toSorted((a, b) => Number(b.strategy === slowest) - Number(a.strategy === slowest))
  const done = new Map<RaceJob, RaceFigures>()
  const work = Effect.scoped(
    Effect.gen(function* () {
      const worker = yield* thread(own)
      for (let job = waiting.shift(); job !== undefined; job = waiting.shift()) {
        yield* status(`${job.scenario}, ${job.strategy} (${done.size} of ${jobs.length} races done)`)
        done.set(job, yield* ask(worker, job))
      }
    })
  )
  yield* Effect.all(
    Array.from({ length: availableParallelism() }, () => work),
    { concurrency: "unbounded" }
  )
  return jobs.map((job) => done.get(job)!)
}, Effect.scoped)
