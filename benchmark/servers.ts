/**
 * Servers that queue and never reject, such as vLLM, Ollama and llama.cpp: `npm run -s bench -- servers`. In each scenario, what the
 * best fixed number of calls in flight reaches, which is chosen afterwards, and what others do without knowing it: no limiter, the
 * server's own `--max-num-seqs`, Vegas, Gradient2 and AIMD, and Floodgate, told nothing or to measure. Virtual time and the batches of the
 * simulated provider.
 *
 *     --only PATTERN     only the scenarios whose name matches
 *     --by PATTERN       only the contenders whose name matches
 *     --seeds N          seeds of each scenario (5)
 *     --first N          the first seed (11)
 *     --json             a line of JSON for each run instead of the table
 */
import { parseArgs } from "node:util"
import { library } from "./servers/library.ts"
import { type MakeClient, play, type Result } from "./servers/play.ts"
import { fixed, rivals } from "./servers/rivals.ts"
import { type Scenario, scenarios } from "./servers/scenarios.ts"

const { values: options } = parseArgs({
  options: {
    only: { type: "string", default: "" },
    by: { type: "string", default: "" },
    seeds: { type: "string", default: "5" },
    first: { type: "string", default: "11" },
    json: { type: "boolean", default: false }
  }
})
const seeds = Array.from({ length: Number(options.seeds) }, (_, i) => Number(options.first) + i)
const pattern = new RegExp(options.only, "i")
const by = new RegExp(options.by, "i")

const contenders: { readonly [name: string]: (scenario: Scenario) => MakeClient } = {
  "no limiter": () => fixed(Infinity),
  "max-num-seqs": ({ server }) => fixed(server.concurrency),
  ...Object.fromEntries(Object.entries(rivals).map(([name, rival]) => [name, () => rival])),
  "told nothing": () => library({}),
  measured: () => library({ concurrency: "measured" })
}

/** Fixed numbers around that at which the server is full, as parts of it. */
const parts = [0.5, 0.625, 0.75, 0.875, 1, 1.125, 1.25, 1.5, 2, 3]

const numbersOf = ({ agents, burst = 1, full }: Scenario): ReadonlyArray<number> => {
  const numbers = new Set(parts.map((part) => Math.max(1, Math.round(part * full))))
  return [...numbers].filter((number) => number < agents * burst)
}

// -----------------------------------------------------------------------------
// Runs
// -----------------------------------------------------------------------------

const mean = (results: ReadonlyArray<Result>): Result => {
  const of = (field: keyof Result) => results.reduce((sum, result) => sum + result[field], 0) / results.length
  return {
    tokensPerSecond: of("tokensPerSecond"),
    p95: of("p95"),
    answered: of("answered"),
    lost: of("lost"),
    share: of("share")
  }
}

const all = (scenario: Scenario, name: string, client: MakeClient): Result => {
  const results = seeds.map((seed) => {
    const result = play(scenario, client, seed)
    if (options.json) console.log(JSON.stringify({ scenario: scenario.name, by: name, seed, ...result }))
    return result
  })
  return mean(results)
}

/** The best fixed number of all processes together. */
const bestOf = (scenario: Scenario): { readonly number: number; readonly result: Result } => {
  const { processes = 1 } = scenario
  let number = Infinity
  let result = all(scenario, "fixed Infinity", fixed(Infinity))
  for (const each of numbersOf(scenario)) {
    const next = all(scenario, `fixed ${each}`, fixed(Math.max(1, Math.round(each / processes))))
    if (next.tokensPerSecond > 1.002 * result.tokensPerSecond) {
      number = each
      result = next
    }
  }
  return { number, result }
}

// -----------------------------------------------------------------------------
// The table
// -----------------------------------------------------------------------------

const row = (...columns: ReadonlyArray<string>): void => {
  if (!options.json) console.log(`| ${columns.join(" | ")} |`)
}

/** What is said of a result beside its tokens. */
const restOf = ({ processes = 1, timeout }: Scenario, { answered, lost, p95, share }: Result): string => {
  const lostPart = timeout === undefined ? "" : `, ${((100 * lost) / (answered + lost)).toFixed(1)} %`
  const sharePart = processes === 1 ? "" : `, ${share.toFixed(2)}`
  return `, ${p95.toFixed(0)} s${lostPart}${sharePart}`
}

const chosen = Object.entries(contenders).filter(([name]) => by.test(name))
const names = chosen.map(([name]) => name)

if (!options.json) {
  console.log(
    "Tokens/s (as a part of the best fixed number's), p95, lost calls if there is a timeout, and the least share"
  )
  console.log("of a process if there are several.\n")
}
row("scenario", "best fixed number", ...names)
row("---", ...Array<string>(names.length + 1).fill("---"))
for (const scenario of scenarios.filter(({ name }) => pattern.test(name))) {
  const { number, result: best } = bestOf(scenario)
  const cells = chosen.map(([name, contender]) => {
    const result = all(scenario, name, contender(scenario))
    return `${(result.tokensPerSecond / best.tokensPerSecond).toFixed(2)}${restOf(scenario, result)}`
  })
  const bestNumber = number === Infinity ? "none" : String(number)
  row(scenario.name, `${bestNumber}: ${best.tokensPerSecond.toFixed(0)}${restOf(scenario, best)}`, ...cells)
}
