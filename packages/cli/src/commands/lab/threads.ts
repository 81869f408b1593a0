/** The races of the lab, spread over the cores. Each is the same wherever it runs, so that their order decides nothing. */
import * as Effect from "effect/Effect"
import { availableParallelism } from "node:os"
import { Worker } from "node:worker_threads"
import type { Report } from "../../lab/index.ts"
import { statusLine } from "../painter.ts"

/** A race: a scenario and a strategy by name. */
export interface RaceJob {
  readonly scenario: string
  readonly seed: number
  readonly strategy: string
}

type Figures = Report.Figures.StrategyFigures

/** Compiled or not, the worker stands beside this file. The sources need the condition under which they find each other. */
const isSource = import.meta.url.endsWith(".ts")
const file = new URL(isSource ? "./worker.ts" : "./worker.js", import.meta.url)
const execArgv = isSource ? ["--conditions=@floodgate/source"] : []

const thread = Effect.acquireRelease(
  Effect.sync(() => new Worker(file, { execArgv })),
  (worker) => Effect.promise(() => worker.terminate())
)

/** What a thread makes of a job. */
const ask = (worker: Worker, job: RaceJob): Effect.Effect<Figures> =>
  Effect.callback<Figures>((resume) => {
    const end = (effect: Effect.Effect<Figures>): void => {
      worker.off("message", answered).off("error", failed)
      resume(effect)
    }
    const answered = (figures: Figures): void => end(Effect.succeed(figures))
    const failed = (error: unknown): void => end(Effect.die(error))
    worker.on("message", answered).on("error", failed)
    worker.postMessage(job, [])
  })

/** It has no end in most scenarios, and takes longer than all others together: the other threads work meanwhile. */
const longest = "fixed-retry-forever"

/** Runs races on all cores: what is made of each, in their order. */
export const race = Effect.fnUntraced(function* (jobs: ReadonlyArray<RaceJob>) {
  const status = yield* statusLine
  const waiting = jobs.toSorted((a, b) => Number(b.strategy === longest) - Number(a.strategy === longest))
  const done = new Map<RaceJob, Figures>()
  const work = Effect.scoped(
    Effect.gen(function* () {
      const worker = yield* thread
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
