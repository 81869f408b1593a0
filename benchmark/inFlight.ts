/**
 * Limits of calls in flight that nobody has named: `npm run -s bench -- inFlight`. Each shape of `weather/inFlight.ts` must use
 * at least 0.93 of its limit, from the first call to the last, with at most 4 % of rejections that are not random.
 *
 *     --only PATTERN    only the shapes whose name matches
 *     --law NAME        a law instead of the library; a name that ends with .ts is a module that exports `make`
 *     --seeds N         seeds for each shape (3)
 */
import { parseArgs } from "node:util"
import { grid, minUsed, maxRejected } from "./weather/inFlight.ts"
import type { Scenario } from "./weather/scenario.ts"
import type { Result } from "./weather/score.ts"
import { runnerOf } from "./weather/tasks.ts"

const { values: options } = parseArgs({
  options: {
    only: { type: "string", default: "" },
    law: { type: "string", default: "library" },
    seeds: { type: "string", default: "3" }
  }
})

const run: (scenario: Scenario, seed: number) => Result = await runnerOf(options.law)
const pattern = new RegExp(options.only, "i")
const mean = (values: ReadonlyArray<number>) => values.reduce((sum, value) => sum + value, 0) / values.length
const row = (...columns: ReadonlyArray<string>) => console.log(`| ${columns.join(" | ")} |`)

row("shape", "calls", "used (worst)", "429s (worst)", "lost", "reached")
row("---", "---", "---", "---", "---", "---")
let reached = 0
const shapes = grid.filter(({ scenario }) => pattern.test(scenario.name))
for (const { scenario } of shapes) {
  const results = Array.from({ length: Number(options.seeds) }, (_, i) => run(scenario, i + 1))
  const used = results.map((result) => result.used)
  const rejected = results.map((result) => result.excess)
  const isReached = mean(used) >= minUsed && mean(rejected) <= maxRejected
  if (isReached) reached++
  row(
    scenario.name,
    mean(results.map(({ answered }) => answered)).toFixed(0),
    `${mean(used).toFixed(3)} (${Math.min(...used).toFixed(3)})`,
    `${(100 * mean(rejected)).toFixed(1)} % (${(100 * Math.max(...rejected)).toFixed(1)} %)`,
    String(results.reduce((sum, { lost }) => sum + lost, 0)),
    isReached ? "yes" : "**no**"
  )
}
row("reached", "", "", "", "", `${reached} of ${shapes.length}`)
