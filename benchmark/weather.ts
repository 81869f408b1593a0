/**
 * Runs admission laws in simulated provider weather: `npm run -s bench -- weather`.
 *
 *     --cells PATTERN      only the cells whose name matches, without regard to case
 *     --random FROM..TO    random weathers instead of the cells; seeds above 1,000,000 are held out: never tune with them
 *     --law NAME,NAME      which laws; a name that ends with .ts is a module that exports `make`
 *     --law-file PATH      another law, from a module; without --law the only one
 *     --seeds N            seeds for each weather of a cell (3)
 *     --parallel N         threads (the number of cores)
 *     --each               also print one line per run
 *     --features           for random weathers, mean scores by feature
 *     --hash               a hash of all events for each weather instead of tables, to compare two commits
 *     --json               all results as JSON instead of tables
 *     --docs               writes the tables and the chart of docs/figures/weather.md: cells, a hundred held-out seeds, a sweep
 */
import { availableParallelism } from "node:os"
import { parseArgs } from "node:util"
import { cells } from "./weather/cells.ts"
import * as Docs from "./weather/docs.ts"
import { runAll } from "./weather/pool.ts"
import { heldOutFrom } from "./weather/random.ts"
import * as Sweep from "./weather/sweep.ts"
import * as Table from "./weather/table.ts"
import { hasDied, hasEnded, type Task } from "./weather/tasks.ts"

const { values: options } = parseArgs({
  options: {
    cells: { type: "string", default: "" },
    random: { type: "string" },
    law: { type: "string" },
    "law-file": { type: "string", multiple: true, default: [] },
    seeds: { type: "string", default: "3" },
    parallel: { type: "string", default: String(availableParallelism()) },
    each: { type: "boolean", default: false },
    features: { type: "boolean", default: false },
    hash: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    docs: { type: "boolean", default: false }
  }
})

const usual = ["library", "retry-after", "aimd", "aws", "oracle"]
const everyLaw = ["library", "aimd", "aws", "sre", "effect-rate-limiter", "effect-http", "sdk", "sdk-10", "oracle"]
const files = options["law-file"]
const lawsOr = (otherwise: ReadonlyArray<string>) => [
  ...(options.law?.split(",") ?? (files.length > 0 ? [] : otherwise)),
  ...files
]

const upTo = (n: number, from = 1) => Array.from({ length: n }, (_, i) => from + i)
const seedsOf = (range: string): ReadonlyArray<number> => {
  const [from, to = from] = range.split("..").map(Number)
  if (!(Number.isInteger(from) && Number.isInteger(to) && from! <= to!)) {
    throw new Error(`--random: expected FROM..TO, got ${range}`)
  }
  return upTo(to! - from! + 1, from)
}

type Run = Omit<Task, "law">
const ofWeathers = (weathers: ReadonlyArray<string>): ReadonlyArray<Run> =>
  weathers.flatMap((weather) => upTo(Number(options.seeds)).map((seed) => ({ weather, seed })))
const ofSeeds = (seeds: ReadonlyArray<number>): ReadonlyArray<Run> =>
  seeds.map((seed) => ({ weather: undefined, seed }))

/** Runs all laws in all weathers, and reports the runs that died. */
const runLaws = async (laws: ReadonlyArray<string>, runs: ReadonlyArray<Run>) => {
  const tasks = laws.flatMap((law) => runs.map((run): Task => ({ law, ...run })))
  const start = performance.now()
  const progress = (done: number) => {
    if (!process.stderr.isTTY) return
    process.stderr.write(`\r${done} of ${tasks.length} runs${done === tasks.length ? "\n" : ""}`)
  }
  const ended = await runAll(tasks, Number(options.parallel), progress)
  for (const { error, task } of ended.filter(hasDied)) {
    console.error(`died: ${task.law}, ${task.weather ?? "random"}, seed ${task.seed}: ${error}`)
    process.exitCode = 1
  }
  return { ended, done: ended.filter(hasEnded), seconds: (performance.now() - start) / 1000 }
}

const pattern = new RegExp(options.cells, "i")
const wanted = cells.filter(({ name }) => pattern.test(name))
const weathersOf = wanted.flatMap((cell) => cell.weathers.map(({ name }) => name))

if (options.docs) {
  const laws = lawsOr(usual)
  const inCells = await runLaws(laws, ofWeathers(weathersOf))
  Docs.writeTable("cells", Table.ofCells(wanted, laws, inCells.ended))
  const lines = lawsOr(everyLaw.filter((law) => !law.startsWith("sdk")))
  const swept = await runLaws(lines, ofWeathers(Sweep.weathers.map(({ scenario }) => scenario.name)))
  Docs.writeChart(lines, swept.done)
  const all = lawsOr(everyLaw)
  const judged = await runLaws(
    all,
    ofSeeds(options.random === undefined ? upTo(100, heldOutFrom) : seedsOf(options.random))
  )
  Docs.writeTable("random", Table.ofRandom(all, judged.done))
} else {
  const laws = lawsOr(usual)
  const runs = options.random === undefined ? ofWeathers(weathersOf) : ofSeeds(seedsOf(options.random))
  const ran = await runLaws(laws, runs)
  const table = options.random === undefined ? Table.ofCells(wanted, laws, ran.ended) : Table.ofRandom(laws, ran.done)
  if (options.json) console.log(JSON.stringify(ran.ended))
  else if (options.hash) console.log(Table.ofEvents(ran.done))
  else {
    if (options.each) console.log(`${Table.ofRuns(ran.done)}\n`)
    if (options.features && options.random !== undefined) console.log(`${Table.ofFeatures(laws, ran.done)}\n`)
    console.log(`${table}\n\n${ran.done.length} runs in ${ran.seconds.toFixed(0)} s`)
  }
}
