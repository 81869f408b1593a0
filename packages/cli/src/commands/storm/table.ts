/** The table of `storm all --table`, which the README shows: clients, queues and the library in seven conditions. */
import * as Effect from "effect/Effect"
import { Matrix, Report, Scenario, Scenarios, Strategies } from "@floodgate/lab/internal"
import * as Print from "@floodgate/gateway/internal/print"
import { hung } from "@floodgate/gateway/internal/text"
import * as Legend from "../legend.ts"
import { painting } from "../paint.ts"
import * as Racing from "../racing.ts"

/** The columns: scenarios, and the incident where rejected requests are free, as at a provider that does not count them. */
const columns: ReadonlyArray<readonly [column: string, scenario: string, options?: Scenario.Options]> = [
  ["incident", "incident"],
  ["rejections-free", "incident", { rejections: "free" }],
  ["neighbour", "neighbour"],
  ["outage-at-start", "outage-at-start"],
  ["random-rejections", "random-rejections"],
  ["undeclared-concurrency", "undeclared-concurrency"],
  ["sessions", "sessions"]
]

/** The rows: common clients, each rival as its best users configure it, and the library. */
const rows: ReadonlyArray<string> = [
  "sdk-2",
  "sdk-10",
  "full-jitter",
  "p-limit-tuned",
  "p-queue-tuned",
  "bottleneck-tuned",
  "effect-limiter-tuned",
  "hand-written",
  "floodgate-as-installed",
  "floodgate",
  "oracle"
]

/** The library by what it knows. */
const byKnowledge: Readonly<Record<string, string>> = {
  "floodgate-as-installed": "floodgate, told nothing",
  floodgate: "floodgate, told both"
}

/** Races the strategies and prints the table. */
export const print = Effect.gen(function* () {
  const strategies = rows.map((row) => Strategies.all.find(({ name }) => name === row)!)
  const described = new Map(Scenarios.described)
  const races: Array<Matrix.RaceResults> = []
  const meanings: Array<readonly [column: string, meaning: string]> = []
  for (const [name, scenario, options] of columns) {
    const raced = Scenarios.byName(scenario, options)!
    const runs = yield* Racing.race(raced, strategies)
    races.push({ name, planned: Scenario.callsOf(raced).length, results: runs.map(({ result }) => result) })
    meanings.push([
      name,
      options === undefined ? described.get(scenario)! : `${scenario}, and rejected requests are free`
    ])
  }
  const shown = races.map((race) => ({
    ...race,
    results: race.results.map((result) => ({ ...result, strategy: byKnowledge[result.strategy] ?? result.strategy }))
  }))
  const { stdout } = yield* Print.Room
  const width = Math.max(...meanings.map(([name]) => name.length)) + 2
  yield* Print.painted(Matrix.text(shown, stdout, yield* painting))
  yield* Print.out(
    [
      "",
      "Simulated seconds until all of the work was done, or lost calls, as in 45 of 60; beside it the 429s.",
      "Told both is the limits and the tokens of each call, as hand-written, Effect's limiter and Bottleneck are; in other tables it is floodgate, and told nothing is floodgate-as-installed.",
      "",
      Report.Verdict.ofRaces(races).text,
      "",
      ...meanings.map(([name, what]) => `${name.padEnd(width)}${hung(what, width, stdout)}`),
      ""
    ].join("\n")
  )
  yield* Legend.print(rows)
})
