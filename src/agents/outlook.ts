/** The end of a job, foreseen again with each tenth of it, and how far that was off. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Budget from "../Budget.ts"
import { type AgentHistory, History } from "../call/history.ts"
import { tenthOf } from "../call/misses.ts"
import { CurrentAgent } from "./counting.ts"
import { type JobEnd, jobEnd, type RunningJob } from "./advise.ts"
import type { Options, Progress } from "./models.ts"

type JobForeseen = NonNullable<Progress["foreseen"]>

/** The agents of a job, now. */
export interface JobNow extends RunningJob {
  readonly agents: number
  /** The calls that each running agent has made, on average. */
  readonly made: number
}

/** A forecast of the end, and when it was made. */
interface Foresight extends JobEnd {
  readonly at: number
  readonly done: number
}

/** A forecast is old after this part of the foreseen time, and no earlier than after this time. */
const oldAfter = 0.25
const shortestMillis = 1_000

export interface OutlookOptions {
  readonly operation: string
  readonly about: Options["advice"]
  readonly startedAt: number
  readonly budget: Budget.TokenBudget["Service"]
  readonly history: AgentHistory
  readonly job: Budget.NamedJob
  /** The agent that started the job, if one did. */
  readonly lead: CurrentAgent | undefined
  readonly now: () => JobNow
}

export class JobOutlook {
  private readonly options: OutlookOptions
  private latest: Foresight | undefined
  /** For each tenth, the forecasts of the earliest and of the latest end that were not guesses. */
  private readonly tenths = new Map<number, ReadonlyArray<Foresight>>()
  /** The next forecast is not made before. */
  private nextAt = -Infinity

  constructor(options: OutlookOptions) {
    this.options = options
  }

  /** The end as it is foreseen, from the start of the job; undefined if the job has ended, or nothing can be foreseen. */
  get foreseen(): Effect.Effect<JobForeseen | undefined> {
    return Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const job = this.options.now()
      if (job.waiting + job.running === 0) return Effect.undefined
      const done = this.doneOf(job)
      const look = this.isOld(done, now) ? this.look(job, done, now) : Effect.void
      return Effect.map(look, () => this.shown(now))
    })
  }

  /** The part of the job that is done: agents that have ended, and of the others the calls that they have made. */
  private doneOf({ agents, made, running, waiting }: JobNow): number {
    const { calls = Infinity } = this.latest ?? {}
    return (agents - running - waiting + running * Math.min(1, made / calls)) / agents
  }

  private isOld(done: number, now: number): boolean {
    const { latest } = this
    if (now < this.nextAt) return false
    if (latest === undefined) return true
    return tenthOf(done) !== tenthOf(latest.done) || now - latest.at >= oldAfter * latest.millis
  }

  /** Foresees the end. If that is impossible, the last forecast holds. */
  private look(job: JobNow, done: number, at: number): Effect.Effect<void> {
    this.nextAt = at + shortestMillis
    const { about, budget, history, job: owner, lead, operation } = this.options
    return jobEnd(operation, { ...about }, job).pipe(
      Effect.map((end) => {
        if (!Number.isFinite(end.millis)) return
        this.latest = { ...end, at, done }
        if (!end.isGuess) this.keep(this.latest)
      }),
      Effect.provideService(Budget.TokenBudget, budget),
      Effect.provideService(History, history),
      Effect.provideService(Budget.Job, owner),
      Effect.provideService(CurrentAgent, lead),
      Effect.ignore
    )
  }

  private keep(latest: Foresight): void {
    const tenth = tenthOf(latest.done)
    const all = [...(this.tenths.get(tenth) ?? []), latest].sort((a, b) => this.wholeOf(a) - this.wholeOf(b))
    this.tenths.set(tenth, all.length > 2 ? [all[0]!, all.at(-1)!] : all)
  }

  /** How long the job takes in all, as it was foreseen. */
  private wholeOf({ at, millis }: Foresight): number {
    return at + millis - this.options.startedAt
  }

  private shown(now: number): JobForeseen | undefined {
    const { latest, options } = this
    if (latest === undefined) return undefined
    const { done, isGuess, pool } = latest
    const whole = this.wholeOf(latest)
    // The job has not ended yet.
    const least = now - options.startedAt
    const of = (millis: number): Duration.Duration => Duration.millis(Math.round(Math.max(least, millis)))
    const factor = isGuess ? undefined : options.history.misses.factor(pool, done)
    const range = factor === undefined ? undefined : { from: of(whole / factor), to: of(whole * factor) }
    return { end: of(whole), range }
  }

  /** The job has ended as it should, so it tells how far its foreseen ends were off: in each tenth, the one that was off most. */
  ended(now: number): void {
    const { history, startedAt } = this.options
    const actual = now - startedAt
    const off = (each: Foresight): number => Math.abs(Math.log(actual / this.wholeOf(each)))
    for (const forecasts of this.tenths.values()) {
      const worst = forecasts.reduce((worst, each) => (off(each) > off(worst) ? each : worst))
      history.misses.add(worst.pool, worst.done, this.wholeOf(worst), actual)
    }
  }
}
