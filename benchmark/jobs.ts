/**
 * Jobs of 1 to 48 agents that share a limit, in simulated time: `npm run -s bench -- jobs`.
 *
 * Forty jobs come at random times; most have one to three agents, and a few have 48. Printed are the ends of the jobs, each counted from
 * when it came, relative to the same calls without the name of a job: the mean, the 95th percentile, the job that lost most, and the time
 * until all have ended. Then the mean and the job that lost most relative to fairness between jobs, without one fill of the bucket. The
 * first rows say what sharing by agent, by job, and in the order of ends can reach at best: work that flows like water.
 *
 *     --loads LIST    parts of the limit that all jobs need (0.7,0.9)
 *     --seeds N       (5)
 *     --json          all figures as JSON
 *     --memory        instead, what a budget keeps for 1, 100 and 10,000 jobs with one waiting call each
 */
import { parseArgs } from "node:util"
import * as Fluid from "./jobs/fluid.ts"
import { play, type Told } from "./jobs/library.ts"
import { memory } from "./jobs/memory.ts"
import { fill, type Job, randomOf, type Workload, workloadOf } from "./jobs/workload.ts"

const { values: options } = parseArgs({
  options: {
    loads: { type: "string", default: "0.7,0.9" },
    seeds: { type: "string", default: "5" },
    json: { type: "boolean", default: false },
    memory: { type: "boolean", default: false }
  }
})

/** Half of the sizes are right, a quarter too large and a quarter too small by a factor. */
const wrongBy = (factor: number) => {
  const kinds = randomOf(7)
  const factors = Array.from({ length: 40 }, () => [1, 1, factor, 1 / factor][Math.floor(4 * kinds())]!)
  return ({ tokens }: Job, index: number) => factors[index]! * tokens
}

/** One size in ten is wrong by a factor of ten: one time too large, the other too small. */
const oneInTen = ({ tokens }: Job, index: number): number =>
  index % 10 === 3 ? (index % 20 === 3 ? 10 : 0.1) * tokens : tokens

const right = ({ tokens }: Job): number => tokens

/** Name, and what is told. The first is what all are compared with, the second the default. */
const rows: ReadonlyArray<readonly [name: string, told: Told]> = [
  ["no job named: fair between agents", { isNamed: false }],
  ["jobs named: fair between jobs", { isNamed: true }],
  [`"finish", sizes right`, { isNamed: true, order: "finish", sizeOf: right }],
  [`"finish", sizes wrong by 2`, { isNamed: true, order: "finish", sizeOf: wrongBy(2) }],
  [`"finish", sizes wrong by 4`, { isNamed: true, order: "finish", sizeOf: wrongBy(4) }],
  [`"finish", one in ten wrong by 10`, { isNamed: true, order: "finish", sizeOf: oneInTen }],
  [`"finish", sizes unknown`, { isNamed: true, order: "finish" }],
  [`"finish-trusted", sizes right`, { isNamed: true, order: "finish-trusted", sizeOf: right }],
  [`"finish-trusted", sizes wrong by 2`, { isNamed: true, order: "finish-trusted", sizeOf: wrongBy(2) }]
]

/** The ends of the jobs with all seeds, one after the other, and the times until all had ended. */
interface Ends {
  readonly ends: ReadonlyArray<number>
  readonly seconds: ReadonlyArray<number>
  readonly rejected: number
}

const mean = (values: ReadonlyArray<number>): number => values.reduce((one, other) => one + other, 0) / values.length
const percentile95 = (values: ReadonlyArray<number>): number =>
  values.toSorted((one, other) => one - other)[Math.floor(0.95 * values.length)]!
const worst = (ends: ReadonlyArray<number>, of: ReadonlyArray<number>, less = 0): number =>
  Math.max(...ends.map((end, job) => (end - less) / of[job]!))

const playAll = async (workloads: ReadonlyArray<Workload>, told: Told): Promise<Ends> => {
  const played = []
  for (const workload of workloads) played.push(await play(workload, told))
  return {
    ends: played.flatMap(({ ends }) => ends),
    seconds: played.map(({ seconds }) => seconds),
    rejected: played.reduce((sum, { rejected }) => sum + rejected, 0)
  }
}

/** The figures of a row. Those of the last two columns are relative to fairness between jobs. */
const figuresOf = ({ ends, seconds }: Ends, agents: Ends, jobs: Ends) => ({
  mean: mean(ends) / mean(agents.ends),
  percentile95: percentile95(ends) / percentile95(agents.ends),
  worst: worst(ends, agents.ends),
  // The one of the seeds that differs most.
  seconds: seconds
    .map((each, seed) => each / agents.seconds[seed]!)
    .reduce((one, other) => (Math.abs(one - 1) > Math.abs(other - 1) ? one : other)),
  meanToJobs: mean(ends) / mean(jobs.ends),
  worstToJobs: worst(ends, jobs.ends, fill)
})

if (options.memory) {
  await memory()
  process.exit()
}
const all: Array<Record<string, unknown>> = []
const print = (load: string, name: string, figures: ReturnType<typeof figuresOf>): void => {
  all.push({ load: Number(load), name, ...figures })
  if (!options.json)
    console.log(`| ${[load, name, ...Object.values(figures).map((each) => each.toFixed(2))].join(" | ")} |`)
}
const ideal = (workloads: ReadonlyArray<Workload>, sharing: Fluid.Sharing): Ends => {
  const each = workloads.map((workload) => ({ workload, ends: Fluid.endsOf(workload, sharing) }))
  const seconds = each.map(({ ends, workload }) => Math.max(...ends.map((end, job) => workload.jobs[job]!.at + end)))
  return { ends: each.flatMap(({ ends }) => ends), seconds, rejected: 0 }
}

if (!options.json) {
  console.log("| load | | mean end | 95th percentile | worst job | total | mean to fair jobs | worst, less a fill |")
  console.log(`|${" --- |".repeat(8)}`)
}
for (const load of options.loads.split(",")) {
  const workloads = Array.from({ length: Number(options.seeds) }, (_, n) => workloadOf(Number(load), n + 1))
  const [idealAgents, idealJobs, idealEnds] = (["agents", "jobs", "ends"] as const).map((by) => ideal(workloads, by))
  print(load, "ideal: by job", figuresOf(idealJobs!, idealAgents!, idealJobs!))
  print(load, "ideal: by end", figuresOf(idealEnds!, idealAgents!, idealJobs!))
  let agents: Ends | undefined
  let jobs: Ends | undefined
  for (const [name, told] of rows) {
    const played = await playAll(workloads, told)
    if (played.rejected > 0) throw new Error(`${name}: ${played.rejected} calls were rejected`)
    agents ??= played
    if (told.isNamed) jobs ??= played
    print(load, name, figuresOf(played, agents, jobs ?? agents))
  }
}
if (options.json) console.log(JSON.stringify(all))
