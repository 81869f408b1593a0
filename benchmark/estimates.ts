/**
 * Compares Floodgate with the oracle by what it knows in advance, over prompts of varied text: `npm run -s bench -- estimates`.
 *
 *     --seeds N            seeds of each scenario (3)
 *     --hash HEX           also five further shapes, drawn from this hash, such as that of a commit
 *     --only PATTERN       only the scenarios whose name matches
 *     --each               also print one line per scenario
 *
 * Ratios are makespans over the oracle's. The provider is the lab's: rejections are charged, headers rounded.
 */
import * as Effect from "effect/Effect"
import { parseArgs } from "node:util"
import { Race, Scenario, Scenarios, Strategies } from "../packages/lab/src/internal.ts"
import * as Seeded from "../packages/lab/src/seeded.ts"

const { values: options } = parseArgs({
  options: {
    seeds: { type: "string", default: "3" },
    hash: { type: "string" },
    only: { type: "string", default: "" },
    each: { type: "boolean", default: false }
  }
})

const told = [
  ["limits and counts", "floodgate"],
  ["limits", "floodgate-estimates"],
  ["counts", "floodgate-unknown"],
  ["nothing", "floodgate-as-installed"]
] as const

/** The whole numbers that a hash stands for, eight hexadecimal digits each. */
const numbers = (hash: string): ReadonlyArray<number> =>
  (hash.match(/[0-9a-f]{8}/g) ?? []).map((digits) => Number.parseInt(digits, 16))

/**
 * A random shape: agents, calls and sizes are drawn evenly over their logarithm from ranges around those of the lab. The burst is
 * 1 to 8 s of the rate, and at least a quarter of the largest call. The work takes at least 30 s at the rate.
 */
const shapeOf = (seed: number, number: number): Scenario.Scenario => {
  const unit = Seeded.draws(seed)
  const between = (min: number, max: number): number => Math.round(min * (max / min) ** unit())
  const agents = between(4, 48)
  const calls = between(3, 20)
  const tokens = between(2_000, 40_000)
  const firstTokens = Math.max(tokens, between(2_000, 200_000))
  const outputTokens = between(50, 800)
  const work = agents * (firstTokens + (calls - 1) * tokens)
  const rate = between(Math.ceil(work / 240), Math.ceil(work / 30))
  const burst = Math.max(between(rate, 8 * rate), Math.ceil(firstTokens / 4))
  return Scenario.make({
    name: `shape-${number}`,
    agents,
    calls,
    tokens: Math.max(tokens, outputTokens + 1),
    firstTokens,
    outputTokens,
    // No call is larger than a minute's worth.
    rate: Math.max(rate, Math.ceil(firstTokens / 60)),
    burst,
    seed
  })
}

const seeds = Array.from({ length: Number(options.seeds) }, (_, index) => index + 1)
const named = Scenarios.names
  .filter((name) => new RegExp(options.only).test(name))
  .flatMap((name) => seeds.map((seed) => Scenarios.byName(name, { seed })!))
const drawn = numbers(options.hash ?? "")
  .slice(0, 5)
  .map((seed, index) => shapeOf(seed, index + 1))

const run = (scenario: Scenario.Scenario, name: string): Promise<Race.RaceResult> =>
  Effect.runPromise(
    Effect.map(
      Race.run(
        scenario,
        Strategies.all.find((one) => one.name === name)!
      ),
      ({ result }) => result
    )
  )

interface Cell {
  readonly scenario: Scenario.Scenario
  readonly ratio: number
  readonly rejections: number
  readonly lost: number
}

const measure = async (scenarios: ReadonlyArray<Scenario.Scenario>): Promise<ReadonlyMap<string, Array<Cell>>> => {
  const cells = new Map<string, Array<Cell>>(told.map(([what]) => [what, []]))
  for (const scenario of scenarios) {
    const oracle = await run(scenario, "oracle")
    const line = [`${scenario.name}/${scenario.seed}`.padEnd(26), `${oracle.makespanSeconds.toFixed(1)} s`.padStart(8)]
    for (const [what, name] of told) {
      const { failedCalls, makespanSeconds, rejections } = await run(scenario, name)
      const ratio = makespanSeconds / oracle.makespanSeconds
      cells.get(what)!.push({ scenario, ratio, rejections, lost: failedCalls })
      line.push(
        `${what} ${ratio.toFixed(3)} (${rejections})${failedCalls > 0 ? ` LOST ${failedCalls}` : ""}`.padEnd(32)
      )
    }
    if (options.each) console.log(line.join("  "))
  }
  return cells
}

const mean = (values: ReadonlyArray<number>): number => values.reduce((sum, one) => sum + one, 0) / values.length

const print = (title: string, cells: ReadonlyMap<string, ReadonlyArray<Cell>>): void => {
  console.log(
    `\n${title}\n\n| known | mean | worst | in | incident | 429s | lost |\n| --- | ---: | ---: | --- | ---: | ---: | ---: |`
  )
  for (const [what, all] of cells) {
    const worst = all.reduce((a, b) => (b.ratio > a.ratio ? b : a))
    const incident = all.filter(({ scenario }) => scenario.name === "incident").map(({ ratio }) => ratio)
    const sum = (of: (cell: Cell) => number): number => all.reduce((sum, cell) => sum + of(cell), 0)
    const figures = [
      mean(all.map(({ ratio }) => ratio)).toFixed(3),
      worst.ratio.toFixed(3),
      `${worst.scenario.name}, seed ${worst.scenario.seed}`,
      incident.length === 0 ? "-" : mean(incident).toFixed(3),
      sum(({ rejections }) => rejections),
      sum(({ lost }) => lost)
    ]
    console.log(`| ${[what, ...figures].join(" | ")} |`)
  }
}

print(`The lab, seeds 1 to ${seeds.length}`, await measure(named))
if (drawn.length > 0) print(`Five shapes of ${options.hash}`, await measure(drawn))
