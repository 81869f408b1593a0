/** Plays jobs through a `TokenBudget` in simulated time, against a provider that shares no code with Floodgate. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Budget from "floodgate/Budget"
import { Simulation } from "floodgate/testing"
import { type Job, provider, type Workload } from "./workload.ts"

export interface Told {
  /** Whether calls name their job. */
  readonly isNamed: boolean
  readonly order?: Budget.Options["order"]
  /** The size that a job is said to have. */
  readonly sizeOf?: (job: Job, index: number) => number | undefined
}

/** What became of the jobs. Times are in seconds. */
export interface Played {
  /** When each job ended, after it had come. */
  readonly ends: ReadonlyArray<number>
  /** When all had ended. */
  readonly seconds: number
  readonly rejected: number
}

/** The provider's bucket. Counts the calls that it would have rejected. */
class Bucket {
  rejected = 0
  private level = provider.burst
  private at = 0

  take(tokens: number, now: number): void {
    this.level = Math.min(provider.burst, this.level + (now - this.at) * provider.rate)
    this.at = now
    // Simulated time is whole milliseconds.
    if (tokens > this.level + provider.rate / 1_000) this.rejected++
    this.level -= tokens
  }
}

const now = Effect.map(Clock.currentTimeMillis, (millis) => millis / 1_000)

export const play = async ({ jobs }: Workload, { isNamed, order, sizeOf }: Told): Promise<Played> => {
  const bucket = new Bucket()
  const ends = jobs.map(() => 0)
  const call = Effect.fnUntraced(function* (tokens: number, options: Budget.ReserveOptions) {
    yield* Budget.withReservation(
      { tokens },
      Effect.fnUntraced(function* (reservation) {
        bucket.take(tokens, yield* now)
        yield* Effect.sleep(1_000 * provider.answer)
        yield* reservation.settle({ tokens })
      }),
      options
    )
  })
  const job = Effect.fnUntraced(function* (each: Job, index: number) {
    yield* Effect.sleep(1_000 * each.at)
    const came = yield* now
    const named = isNamed ? { name: `job ${index}`, size: sizeOf?.(each, index) } : undefined
    const agent = (calls: ReadonlyArray<number>, n: number) =>
      Effect.forEach(calls, (tokens) => call(tokens, { agent: `${index}/${n}`, job: named }), { discard: true })
    yield* Effect.forEach(each.agents, agent, { concurrency: "unbounded", discard: true })
    ends[index] = (yield* now) - came
  })
  const limit = { perSecond: provider.rate, burst: provider.burst, window: "bucket" } as const
  const all = Effect.forEach(jobs, job, { concurrency: "unbounded", discard: true })
  const live = Effect.provide(all, Budget.layer({ limits: { tokens: limit }, order }))
  const { duration } = await Effect.runPromise(Simulation.run(live, { seed: 1 }))
  return { ends, seconds: Duration.toSeconds(duration), rejected: bucket.rejected }
}
