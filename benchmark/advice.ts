/**
 * Measures advice in simulated time: fan-outs that follow it against every fixed number of agents at once, and foreseen ends
 * against the actual ones.
 *
 *     npm run bench -- advice                       # all
 *     npm run bench -- advice --agents 12 --seeds 1 # a small one
 *     npm run bench -- advice --docs                # also draws docs/images/agents-at-once.svg
 */
import * as Effect from "effect/Effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { Scenario } from "@floodgate/cli/lab"
import { type FanOut, fanOut } from "./advice/fanOut.ts"
import { labScenarios, randomWeather } from "./advice/weathers.ts"
import { draw } from "./weather/chart.ts"

const { values } = parseArgs({
  options: {
    agents: { type: "string", multiple: true, default: ["12", "40", "104"] },
    seeds: { type: "string", default: "1" },
    docs: { type: "boolean", default: false }
  }
})

const run = (scenario: Scenario.Scenario, concurrency: number | "advised"): Promise<FanOut> =>
  Effect.runPromise(fanOut(scenario, concurrency))

const print = (...cells: ReadonlyArray<string | number>): void =>
  console.log(cells.map((cell) => String(cell).padStart(11)).join(" "))

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

console.log("Calls and limits of the incident (a bucket, rejections charged, rounded headers; limits and tokens told)")
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

console.log("\nForeseen ends, as a part of what happened")
print("scenario", "seed", "at start", "in middle", "lost")
const parts: { readonly [When in "start" | "middle"]: Array<number> } = { start: [], middle: [] }
const foresee = async (scenario: Scenario.Scenario): Promise<void> => {
  const { foreseen, lost } = await run(scenario, "advised")
  const partOf = (when: "start" | "middle"): string => {
    const found = foreseen.find((each) => each.when === when)
    if (found === undefined) return "-"
    const part = found.foreseen / found.actual
    parts[when].push(part)
    return part.toFixed(2)
  }
  print(scenario.name.slice(0, 22), scenario.seed, partOf("start"), partOf("middle"), lost)
}
for (let seed = 1; seed <= Number(values.seeds); seed++) for (const each of labScenarios(seed)) await foresee(each)
for (let seed = 1; seed <= 10; seed++) await foresee(randomWeather(seed))
for (const [when, found] of Object.entries(parts)) {
  const close = found.filter((part) => Math.abs(part - 1) <= 0.2).length
  console.log(`${when}: ${close} of ${found.length} within 20 %`)
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
