/** The table of `storm all --table`, which the README shows: the usual strategies in six scenarios. */
import * as Effect from "effect/Effect"
import { Matrix, Report, Scenarios, Strategies } from "@floodgate/lab/internal"
import * as Print from "@floodgate/gateway/internal/print"
import { hung } from "@floodgate/gateway/internal/text"
import * as Legend from "../legend.ts"
import { painting } from "../paint.ts"
import * as Racing from "../racing.ts"

/** The scenarios of the table. */
const raced = ["incident", "neighbour", "outage-at-start", "random-rejections", "undeclared-concurrency", "sessions"]

/** Races the strategies and prints the table. */
export const print = Effect.gen(function* () {
  const races: Array<Matrix.RaceResults> = []
  for (const name of raced) {
    const runs = yield* Racing.race(Scenarios.byName(name)!, Strategies.usual)
    races.push({ name, results: runs.map(({ result }) => result) })
  }
  const { stdout } = yield* Print.Room
  const described = raced.map((name) => [name, new Map(Scenarios.described).get(name)!] as const)
  const width = Math.max(...described.map(([name]) => name.length)) + 2
  yield* Print.painted(Matrix.text(races, stdout, yield* painting))
  yield* Print.out(
    [
      "",
      "Simulated seconds until all of the work was done, or the number of lost calls; beside it the 429s.",
      "floodgate-as-installed has default settings, as in a first program. floodgate-estimates knows the limits, and floodgate-unknown the tokens of each call. floodgate, hand-written, Effect's limiter and Bottleneck know both.",
      "",
      Report.Verdict.ofRaces(races).text,
      "",
      ...described.map(([name, what]) => `${name.padEnd(width)}${hung(what, width, stdout)}`),
      ""
    ].join("\n")
  )
  yield* Legend.print(Strategies.usual.map(({ name }) => name))
})
