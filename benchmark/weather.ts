/**
 * Laws of admission in the weather that providers have: `npm run -s bench -- weather`.
 *
 *     --cells PATTERN      only the cells whose name matches, without regard to case
 *     --random FROM..TO    random weathers instead of the cells; seeds above 1,000,000 are for judging, not for tuning
 *     --law NAME,NAME      which laws; a name that ends with .ts is a module that exports `make`
 *     --law-file PATH      one more law, from a module
 *     --seeds N            seeds of each weather of a cell (3)
 *     --parallel N         threads (the number of cores)
 *     --each               one line a run, too
 *     --json               all results as JSON instead of tables
 */
import { availableParallelism } from "node:os"
import { parseArgs } from "node:util"
import { cells } from "./weather/cells.ts"
import { runAll } from "./weather/pool.ts"
import * as Table from "./weather/table.ts"
import { hasDied, hasEnded, type Task } from "./weather/tasks.ts"

const { values: options } = parseArgs({
  options: {
    cells: { type: "string", default: "" },
    random: { type: "string" },
    law: { type: "string", default: "retry-after,aimd,aws,sre,oracle" },
    "law-file": { type: "string", multiple: true, default: [] },
    seeds: { type: "string", default: "3" },
    parallel: { type: "string", default: String(availableParallelism()) },
    each: { type: "boolean", default: false },
    json: { type: "boolean", default: false }
  }
})

const isGiven = (option: string) => process.argv.some((arg) => arg === option || arg.startsWith(`${option}=`))
const named = isGiven("--law-file") && !isGiven("--law") ? [] : options.law.split(",")
const laws = [...named, ...options["law-file"]]
const pattern = new RegExp(options.cells, "i")
const wanted = options.random === undefined ? cells.filter(({ name }) => pattern.test(name)) : []

const seedsOf = (range: string): ReadonlyArray<number> => {
  const [from, to = from] = range.split("..").map(Number)
  if (!(Number.isInteger(from) && Number.isInteger(to) && from! <= to!)) {
    throw new Error(`--random: expected FROM..TO, got ${range}`)
  }
  return Array.from({ length: to! - from! + 1 }, (_, i) => from! + i)
}
const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1)

const weathers = wanted.flatMap((cell) => cell.weathers.map(({ name }) => name))
const runs: ReadonlyArray<Omit<Task, "law">> =
  options.random === undefined
    ? weathers.flatMap((weather) => upTo(Number(options.seeds)).map((seed) => ({ weather, seed })))
    : seedsOf(options.random).map((seed) => ({ weather: undefined, seed }))
const tasks = laws.flatMap((law) => runs.map((run): Task => ({ law, ...run })))

const progress = (done: number) => {
  if (process.stderr.isTTY)
    process.stderr.write(`\r${done} of ${tasks.length} runs${done === tasks.length ? "\n" : ""}`)
}
const start = performance.now()
const ended = await runAll(tasks, Number(options.parallel), progress)
const died = ended.filter(hasDied)
const done = ended.filter(hasEnded)

if (options.json) console.log(JSON.stringify(ended))
else {
  if (options.each) console.log(`${Table.ofRuns(done)}\n`)
  console.log(options.random === undefined ? Table.ofCells(wanted, laws, ended) : Table.ofRandom(laws, done))
  console.log(`\n${tasks.length} runs in ${((performance.now() - start) / 1000).toFixed(0)} s`)
}
for (const { error, task } of died)
  console.error(`died: ${task.law}, ${task.weather ?? "random"}, seed ${task.seed}: ${error}`)
process.exitCode = died.length === 0 ? 0 : 1
