/**
 * One job over two places: `npm run -s bench -- places`. The lab's scenarios with two places, over several seeds: how long the job takes
 * compared with the best possible order, how many requests are rejected, and how many calls are lost. Then what conversations read from
 * caches, and what the policy `"cheapest"` costs. Virtual time and the simulated provider.
 *
 *     --seeds N    (3)
 */
import * as Effect from "effect/Effect"
import { Race, Scenarios, Strategies } from "@floodgate/lab/internal"
import { parseArgs } from "node:util"
import { cacheReadShare } from "./places/conversations.ts"
import { flex } from "./places/flex.ts"

const { values: options } = parseArgs({ options: { seeds: { type: "string", default: "3" } } })
const seeds = Array.from({ length: Number(options.seeds) }, (_, n) => n + 1)

const mean = <A>(values: ReadonlyArray<A>, of: (value: A) => number): number =>
  values.reduce((sum, value) => sum + of(value), 0) / values.length

/** The results of a strategy with each seed. */
const raced = (name: string, strategy: (typeof Strategies.ofPlaces)[number]): Promise<ReadonlyArray<Race.RaceRun>> =>
  Effect.runPromise(Effect.forEach(seeds, (seed) => Race.run(Scenarios.byName(name, { seed })!, strategy)))

console.log("| scenario | strategy | makespan | to the oracle | 429s | lost |")
console.log("| --- | --- | ---: | ---: | ---: | ---: |")
for (const name of Scenarios.namesOfPlaces) {
  const results: Array<ReadonlyArray<Race.RaceRun>> = []
  for (const strategy of Strategies.ofPlaces) results.push(await raced(name, strategy))
  const secondsOf = (runs: ReadonlyArray<Race.RaceRun>): number => mean(runs, ({ result }) => result.makespanSeconds)
  const best = secondsOf(results.at(-1)!)
  for (const [index, { name: strategy }] of Strategies.ofPlaces.entries()) {
    const runs = results[index]!
    const rejected = mean(runs, ({ log, result }) => result.rejections / log.length)
    const lost = runs.reduce((sum, { result }) => sum + result.failedCalls, 0)
    const cells = [
      `${secondsOf(runs).toFixed(1)} s`,
      (secondsOf(runs) / best).toFixed(3),
      `${(100 * rejected).toFixed(1)} %`
    ]
    console.log(`| ${name} | \`${strategy}\` | ${cells.join(" | ")} | ${lost} |`)
  }
}

console.log("\n| 40 conversations of 20 turns | read from caches |")
console.log("| --- | ---: |")
for (const rates of [[10_000], [5_000, 5_000], [2_000, 8_000]]) {
  const shares = await Promise.all(seeds.map((seed) => cacheReadShare(rates, seed)))
  const share = mean(shares, (each) => each)
  console.log(`| ${rates.map((rate) => `${rate}/s`).join(" and ")} | ${(100 * share).toFixed(1)} % |`)
}

console.log("\n| flex tier, 30 % refused | cost to standard | at the standard tier | deadlines missed |")
console.log("| --- | ---: | ---: | ---: |")
for (const isStreamed of [true, false]) {
  for (const seed of seeds) {
    const { cost, missed, standard } = await flex(seed, isStreamed)
    const what = isStreamed ? "streams" : "whole answers"
    console.log(`| ${what}, seed ${seed} | ${cost.toFixed(3)} | ${standard} of 400 | ${missed} |`)
  }
}
