/**
 * Where calls end first, if places are slow, fail or differ: `npm run -s bench -- placesEnds`. How long a job takes to the best order
 * that is known (`places/ends/oracle.ts`), which share of requests is rejected, and what the policy "cheapest" costs. Virtual time and a
 * provider of its own, with buckets that charge accepted calls only, and no headers. `told` says whether the limits of tokens are stated.
 *
 *     --seeds N          (5)
 *     --cells PATTERN    only the cells whose name matches
 *     --processes N      governors over a store that they share (1)
 */
import { parseArgs } from "node:util"
import { type Cell, cells, deadlines, tiers } from "./places/ends/cells.ts"
import { run, type Run } from "./places/ends/job.ts"
import { cheapest, oracle } from "./places/ends/oracle.ts"

const { values: options } = parseArgs({
  options: {
    seeds: { type: "string", default: "5" },
    cells: { type: "string", default: "" },
    processes: { type: "string", default: "1" }
  }
})
const seeds = Array.from({ length: Number(options.seeds) }, (_, n) => n + 1)
const processes = Number(options.processes)
const pattern = new RegExp(options.cells)

const mean = <A>(values: ReadonlyArray<A>, of: (value: A) => number): number =>
  values.reduce((sum, value) => sum + of(value), 0) / values.length

/** The makespans of a cell to the oracle's, and what was rejected. */
const judged = async (cell: Cell, isTold: boolean) => {
  const runs: Array<Run & { readonly ratio: number }> = []
  for (const seed of seeds) {
    const ran = await run(cell, seed, { isTold, processes })
    runs.push({ ...ran, ratio: ran.millis / oracle(cell, seed) })
  }
  const ratio = mean(runs, (each) => each.ratio)
  const bad = mean(runs, ({ lost, twice }) => lost + twice)
  const rejected = `${(100 * mean(runs, ({ rejected, sent }) => rejected / sent)).toFixed(1)} %`
  const worst = Math.max(...runs.map((each) => each.ratio))
  const present = mean(runs, ({ millis }) => millis) / mean(seeds, (seed) => oracle(cell, seed, false))
  const cells = [`${ratio.toFixed(2)} (${worst.toFixed(2)})${ratio > cell.target ? " *" : ""}`, present.toFixed(2)]
  return [...cells, rejected, String(bad)]
}

console.log(
  "| cell | target | told: to the oracle (worst) | without foresight | 429s | lost or twice | untold | without foresight | 429s | lost or twice |"
)
console.log("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
for (const cell of cells.filter(({ name }) => pattern.test(name))) {
  const row = [...(await judged(cell, true)), ...(await judged(cell, false))]
  console.log(`| ${cell.name} | ${cell.target} | ${row.join(" | ")} |`)
}

if (pattern.test("tiers") && processes === 1) {
  console.log("\n| deadline | told: price | best | late | best | untold: price | late |")
  console.log("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
  for (const seconds of deadlines) {
    const within = 1_000 * seconds
    const best = seeds.map((seed) => cheapest(tiers, seed, within))
    const runs = async (isTold: boolean) => {
      const all: Array<Run> = []
      for (const seed of seeds) all.push(await run({ places: tiers, timeout: undefined }, seed, { isTold, within }))
      return all
    }
    const [told, untold] = [await runs(true), await runs(false)]
    const cost = (all: ReadonlyArray<{ readonly cost: number }>) => mean(all, ({ cost }) => cost).toFixed(3)
    const late = (all: ReadonlyArray<{ readonly late: number }>) => mean(all, ({ late }) => late).toFixed(1)
    const row = [cost(told), cost(best), late(told), late(best), cost(untold), late(untold)]
    console.log(`| ${seconds} s | ${row.join(" | ")} |`)
  }
}
