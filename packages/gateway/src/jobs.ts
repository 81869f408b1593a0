/** The figures of jobs: what they use, what they cost, and how they wait. A job is known by its caller and its name. */
import type * as Context from "effect/Context"
import type * as Metric from "effect/Metric"
import { Amounts, Lru } from "floodgate/internal"
import type { Bill, Payer } from "./callers.ts"
import type { JobActivity, OtherJobs, RequestOutcome } from "./page/status.ts"
import type { JobSeat } from "./trees.ts"
import { bounded, counterOf, type Mutable } from "./series.ts"

type JobFigures = Mutable<JobActivity>

/** More than the page shows. Those without open calls that were used least recently are summed. */
const maxJobs = 1_000
/** Names come from callers. */
const maxCounted = 100
const longestName = 200

/** The counters of one job. */
interface JobSeries {
  readonly tokens: Metric.Counter<number>
  readonly dollars: Metric.Counter<number>
  readonly waited: Metric.Counter<number>
}

const seriesOf = (job: string): JobSeries => ({
  tokens: counterOf("floodgate_gateway_job_tokens", "Tokens of calls, by job", { job }),
  dollars: counterOf("floodgate_gateway_job_dollars", "What calls cost in dollars, by job", { job }),
  waited: counterOf("floodgate_gateway_job_waited_seconds", "Seconds from arrival to the last attempt, by job", { job })
})

const unused = {
  waiting: 0,
  running: 0,
  calls: 0,
  inferredAgents: 0,
  refused: 0,
  failed: 0,
  waitedMillis: 0,
  inputTokens: 0,
  outputTokens: 0,
  dollars: 0,
  unpriced: 0
}

/** The figures that are added up. */
const summed = Object.keys(unused) as ReadonlyArray<keyof typeof unused>

/** An open call of a job. It is mutable. */
export interface JobCall {
  /** An attempt is sent. */
  readonly sent: () => void
  readonly ended: (outcome: RequestOutcome) => void
}

/** The jobs of one gateway. It is mutable. */
export class Jobs {
  private readonly known = new Lru.Registry<string, JobFigures>(
    ({ running, waiting }) => running + waiting === 0,
    (job) => this.addTo(this.forgotten, job)
  )
  private readonly forgotten: Mutable<OtherJobs> = { jobs: 0, ...unused }
  private readonly series = new Map<string, JobSeries>()
  private readonly inferred = counterOf(
    "floodgate_gateway_agents_inferred",
    "Agents that conversations show, of calls that name none",
    {}
  )
  private readonly otherSeries = seriesOf("other jobs")
  private readonly context: Context.Context<never>
  private readonly now: () => number

  constructor(context: Context.Context<never>, now: () => number) {
    this.context = context
    this.now = now
  }

  private addTo(sum: Mutable<OtherJobs>, job: JobFigures): void {
    sum.jobs++
    for (const figure of summed) sum[figure] += job[figure]
  }

  private job({ job, key }: Pick<Payer, "job" | "key">): JobFigures {
    const name = job.slice(0, longestName)
    const made = (): JobFigures => ({ name, caller: key, ...unused, lastAt: 0 })
    const found = Lru.useOrMake(this.known, JSON.stringify([key, job]), maxJobs, made)
    found.lastAt = this.now()
    return found
  }

  private seriesOf(name: string): JobSeries {
    return bounded(this.series, name, maxCounted, () => seriesOf(name)) ?? this.otherSeries
  }

  /** A call has arrived, of an agent in a capped job if it has a seat there. */
  open(owner: Pick<Payer, "job" | "key">, seat?: Pick<JobSeat, "waited">): JobCall {
    const job = this.job(owner)
    const at = this.now()
    let sentAt: number | undefined
    job.waiting++
    return {
      sent: () => {
        if (sentAt === undefined) {
          job.waiting--
          job.running++
        }
        sentAt = this.now()
      },
      ended: (outcome) => {
        if (sentAt === undefined) job.waiting--
        else job.running--
        job.lastAt = this.now()
        const waited = (sentAt ?? job.lastAt) - at
        job.waitedMillis += waited
        if (sentAt !== undefined) seat?.waited(waited)
        this.seriesOf(job.name).waited.updateUnsafe(waited / 1_000, this.context)
        if (outcome === "answered") job.calls++
        else if (outcome === "refused" || outcome === "failed") job[outcome]++
      }
    }
  }

  /** Counts what a call has used and cost. Of a stream that its caller has left, that comes after its end. */
  billed(payer: Payer, { actual, dollars, turn }: Bill): void {
    const job = this.job(payer)
    if (turn !== undefined && turn === payer.shows) {
      job.inferredAgents++
      this.inferred.updateUnsafe(1, this.context)
    }
    const prompt = Amounts.promptTokens(actual)
    job.inputTokens += prompt
    job.outputTokens += actual.outputTokens
    if (dollars === undefined) job.unpriced++
    else job.dollars += dollars
    const series = this.seriesOf(job.name)
    series.tokens.updateUnsafe(prompt + actual.outputTokens, this.context)
    series.dollars.updateUnsafe(dollars ?? 0, this.context)
  }

  /** The jobs, those with open calls first, then the most recently active; and the sum of all others. */
  busiest(count: number): { readonly jobs: ReadonlyArray<JobActivity>; readonly otherJobs: OtherJobs } {
    const open = (job: JobActivity): number => Math.min(1, job.running + job.waiting)
    const all = [...this.known.values()].sort((one, other) => open(other) - open(one) || other.lastAt - one.lastAt)
    const otherJobs = { ...this.forgotten }
    for (const job of all.slice(count)) this.addTo(otherJobs, job)
    return { jobs: all.slice(0, count).map((job) => ({ ...job })), otherJobs }
  }
}
