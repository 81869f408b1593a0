/** Foreseen ends and their ranges: jobs of one pool, one after the other, in simulated time. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Agents from "floodgate/Agents"
import { programOf, type Workload } from "./workloads.ts"

/** The parts of the job at whose first event the end is read. */
export const moments = { start: 0, "a tenth": 0.1, "a third": 1 / 3, "two thirds": 2 / 3 } as const
export type Moment = keyof typeof moments

/** A foreseen end and the actual one, in seconds from the moment. */
export interface ReadEnd {
  readonly moment: Moment
  /** How many jobs of the pool had ended before. */
  readonly earlier: number
  readonly foreseen: number
  readonly from: number | undefined
  readonly to: number | undefined
  readonly actual: number
  /** How long the whole job took. */
  readonly whole: number
}

/** Runs jobs of one workload, each of its own agents, and reads the end that their progress foresees. */
export const run = (
  jobs: ReadonlyArray<Workload>,
  isTold: boolean,
  concurrency: number | "unbounded" | "advised"
): Effect.Effect<ReadonlyArray<ReadEnd>> =>
  programOf(jobs, isTold, (agents, earlier) =>
    Effect.scoped(
      Effect.gen(function* () {
        const began = yield* Clock.currentTimeMillis
        const job = yield* Agents.fork(agents, { concurrency })
        const seen = new Map<Moment, { readonly at: number; readonly foreseen: Agents.Progress["foreseen"] }>()
        yield* Stream.runForEach(job.progress, ({ done, foreseen }) =>
          Effect.map(Clock.currentTimeMillis, (at) => {
            for (const moment of Object.keys(moments) as ReadonlyArray<Moment>) {
              if (done >= moments[moment] * agents.length && !seen.has(moment)) seen.set(moment, { at, foreseen })
            }
          })
        )
        yield* job.await
        const end = yield* Clock.currentTimeMillis
        yield* Effect.sleep("10 minutes")
        return [...seen].flatMap(([moment, { at, foreseen }]): ReadonlyArray<ReadEnd> => {
          const inSeconds = (each: Duration.Duration) => (Duration.toMillis(each) + began - at) / 1_000
          if (foreseen === undefined || end === at) return []
          const { range } = foreseen
          const ends = { from: range && inSeconds(range.from), to: range && inSeconds(range.to) }
          return [
            {
              moment,
              earlier,
              foreseen: inSeconds(foreseen.end),
              ...ends,
              actual: (end - at) / 1_000,
              whole: (end - began) / 1_000
            }
          ]
        })
      })
    )
  ).pipe(Effect.map((jobs) => jobs.flat()))
