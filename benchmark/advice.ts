/**
 * Measures advice in simulated time: fan-outs that follow it against every fixed number of agents at once, and foreseen ends
 * against the actual ones.
 *
 *     npm run bench -- advice                           # all
 *     npm run bench -- advice --agents 12 --study none  # a small one
 *     npm run bench -- advice --study development       # the runs with which the rules were developed
 *     npm run bench -- advice --workloads               # instead ten workloads of agents of which nothing is stated, told
 *                                                       # the limits and not; --file PATH: sessions, as of bench sessions
 *     npm run bench -- advice --ranges                  # instead foreseen ends in the progress of jobs, and their ranges
 *     npm run bench -- advice --docs                    # also draws docs/images/agents-at-once.svg
 */
import * as Effect from "effect/Effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { Scenario } from "@floodgate/lab/internal"
import { type FanOut, fanOut, type Foreseen, moments } from "./advice/fanOut.ts"
import * as Ranges from "./advice/ranges.ts"
import { heldOut, studies } from "./advice/weathers.ts"
import * as Workloads from "./advice/workloads.ts"
import { draw } from "./weather/chart.ts"

const { values } = parseArgs({
  options: {
    agents: { type: "string", multiple: true, default: ["12", "40", "104"] },
    study: { type: "string", default: "held-out" },
    workloads: { type: "boolean", default: false },
    ranges: { type: "boolean", default: false },
    file: { type: "string" },
    seed: { type: "string", default: "1" },
    docs: { type: "boolean", default: false }
  }
})

const run = (scenario: Scenario.Scenario, concurrency: number | "advised"): Promise<FanOut> =>
  Effect.runPromise(fanOut(scenario, concurrency))

const print = (...cells: ReadonlyArray<string | number>): void =>
  console.log(cells.map((cell) => String(cell).padStart(11)).join(" "))

// -----------------------------------------------------------------------------
// Agents of which nothing is stated
// -----------------------------------------------------------------------------

const grid = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96]

const compareWorkloads = async (): Promise<void> => {
  console.log(
    "Agents of which nothing is stated (96, or as many as sessions): the best number of a grid, and followed advice"
  )
  console.log(
    `${"workload".padEnd(24)}${["told", "best", "seconds", "advised", "ratio", "most", "429s", "all"].map((head) => head.padStart(9)).join("")}`
  )
  const { file } = values
  const seed = Number(values.seed)
  const workloads =
    file === undefined ? Workloads.workloads.map((make) => make(seed)) : [Workloads.recorded(file, seed - 1)]
  for (const workload of workloads) {
    for (const isTold of [true, false]) {
      const runs: Array<Workloads.Ran & { readonly atOnce: number }> = []
      for (const atOnce of grid)
        runs.push({ atOnce, ...(await Effect.runPromise(Workloads.run(workload, isTold, atOnce))) })
      const best = runs.reduce((best, each) => (each.seconds < best.seconds ? each : best))
      const { lost, max, rejected, seconds } = await Effect.runPromise(Workloads.run(workload, isTold, "advised"))
      if (lost > 0) console.log(`${workload.name}: ${lost} agents were lost`)
      const ratio = (each: { readonly seconds: number }) => (each.seconds / best.seconds).toFixed(2)
      const cells = [
        isTold ? "limits" : "nothing",
        best.atOnce,
        best.seconds.toFixed(0),
        seconds.toFixed(0),
        ratio({ seconds }),
        max
      ]
      const rest = [`${rejected}/${best.rejected}`, ratio(runs.at(-1)!)]
      console.log(workload.name.padEnd(24) + [...cells, ...rest].map((cell) => String(cell).padStart(9)).join(""))
    }
  }
}

// -----------------------------------------------------------------------------
// Ranges
// -----------------------------------------------------------------------------

/** The jobs that each pool gets, one after the other. */
const jobsOfPool = 12

const compareRanges = async (): Promise<void> => {
  const seeds = values.study === "development" ? [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] : heldOut.ranges
  console.log(
    `Ends that the progress of jobs foresees, ${jobsOfPool} jobs in each of ${seeds.length} random pools (${values.study})`
  )
  const all: Array<Ranges.ReadEnd> = []
  for (const seed of seeds) {
    for (const isTold of [true, false]) {
      for (const concurrency of ["advised", "unbounded"] as const) {
        all.push(...(await Effect.runPromise(Ranges.run(Workloads.randomJobs(seed, jobsOfPool), isTold, concurrency))))
      }
    }
  }
  print("read at", "earlier", "ends", "known", "within", "part", "factor", "width")
  const groups = { "0-1": [0, 1], "2-4": [2, 4], "5-11": [5, 11], all: [0, 11] } as const
  for (const moment of Object.keys(Ranges.moments)) {
    for (const [name, [from, to]] of Object.entries(groups)) {
      const ends = all.filter((each) => each.moment === moment && each.earlier >= from && each.earlier <= to)
      const known = ends.filter((each) => each.to !== undefined)
      const within = known.filter(({ actual, from, to }) => from! <= actual && actual <= to!)
      const median = (all: ReadonlyArray<number>): string =>
        all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)]?.toFixed(2) ?? "-"
      // From the start of the job.
      const factor = median(
        known.map(({ actual, foreseen, to, whole }) => (whole - actual + to!) / (whole - actual + foreseen))
      )
      const width = median(known.map(({ from, to, whole }) => (to! - from!) / whole))
      const part = known.length === 0 ? "-" : (within.length / known.length).toFixed(2)
      print(moment, name, ends.length, known.length, within.length, part, factor, width)
    }
  }
}

if (values.workloads || values.ranges) {
  await (values.workloads ? compareWorkloads() : compareRanges())
  process.exit(0)
}

// -----------------------------------------------------------------------------
// Every number against the advice
// -----------------------------------------------------------------------------

interface Curve {
  readonly agents: number
  readonly advised: FanOut
  /** The makespan with 1, 2, 3 ... agents at once. */
  readonly seconds: ReadonlyArray<number>
}

const curveOf = async (agents: number): Promise<Curve> => {
  const scenario = Scenario.make({ agents })
  const advised = await run(scenario, "advised")
  const seconds: Array<number> = []
  for (let atOnce = 1; atOnce <= agents; atOnce++) seconds.push((await run(scenario, atOnce)).seconds)
  return { agents, advised, seconds }
}

console.log("Calls and limits of the incident (a bucket, rejections charged, rounded headers; limits and tokens known)")
print("agents", "at once", "seconds", "best", "best number", "ratio", "429s", "lost")
const curves: Array<Curve> = []
for (const agents of values.agents.map(Number)) {
  const curve = await curveOf(agents)
  curves.push(curve)
  const best = Math.min(...curve.seconds)
  const { lost, max, rejected, seconds } = curve.advised
  const ratio = (seconds / best).toFixed(3)
  print(
    agents,
    `max ${max}`,
    seconds.toFixed(1),
    best.toFixed(1),
    curve.seconds.indexOf(best) + 1,
    ratio,
    rejected,
    lost
  )
}

// -----------------------------------------------------------------------------
// Foreseen ends
// -----------------------------------------------------------------------------

/** What happened, as a part of what was foreseen. */
const partOf = ({ actual, foreseen }: Foreseen): number => actual / foreseen

/** The smallest error that 90 % of the runs did not exceed. */
const errorOf90 = (all: ReadonlyArray<Foreseen>): number => {
  const errors = all.map((each) => Math.abs(partOf(each) - 1)).sort((a, b) => a - b)
  return errors[Math.ceil(0.9 * errors.length) - 1] ?? Number.NaN
}

if (values.study === "development" || values.study === "held-out") {
  console.log(`\nActual ends, as a part of the foreseen ones (${values.study})`)
  print("scenario", "seed", "agents", "max", ...moments, "lost")
  const all: Array<Foreseen> = []
  for (const scenario of studies[values.study]()) {
    const { foreseen, lost, max } = await run(scenario, "advised")
    all.push(...foreseen)
    const parts = moments.map((moment) => {
      const found = foreseen.find(({ when }) => when === moment)
      return found === undefined ? "-" : partOf(found).toFixed(2)
    })
    print(scenario.name.slice(0, 22), scenario.seed, scenario.agents.length, max, ...parts, lost)
  }
  for (const moment of moments) {
    const found = all.filter(({ when }) => when === moment)
    const close = found.filter((each) => Math.abs(partOf(each) - 1) <= 0.2).length
    console.log(
      `${moment}: ${close} of ${found.length} within 20 %; 90 % within ${Math.round(100 * errorOf90(found))} %`
    )
  }
}

// -----------------------------------------------------------------------------
// The picture
// -----------------------------------------------------------------------------

if (values.docs) {
  const numbers = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 40, 60, 80, 104]
  const svg = draw({
    title: "How fast a job ends, compared with the best number of agents at once",
    across: "agents at once",
    ticks: numbers.map(String),
    lines: curves.map(({ advised, agents, seconds }) => ({
      name: `${agents} agents (advised: ${advised.max})`,
      values: numbers.filter((number) => number <= agents).map((number) => Math.min(...seconds) / seconds[number - 1]!)
    }))
  })
  writeFileSync(join(import.meta.dirname, "../docs/images/agents-at-once.svg"), svg)
}
