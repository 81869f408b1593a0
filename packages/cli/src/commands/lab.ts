/** `floodgate lab`: the race over all scenarios, as one report. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import { AwsStudy, Document, Matrix, Report, Scenarios, Strategies } from "../lab/index.ts"
import { finished } from "../stepwise.ts"
import * as Flags from "./flags.ts"
import * as LimitFlags from "./limits.ts"
import * as Output from "./output.ts"
import * as Print from "./print.ts"
import * as Provenance from "./provenance.ts"
import * as Racing from "./racing.ts"

const flags = {
  report: Output.flag("report", "file").pipe(
    Flags.byDefault("The report: one HTML file that opens offline", "lab-report.html")
  ),
  docs: Output.flag("docs", "folder").pipe(
    Flags.optional(
      "Also write the project's documentation: lab.md, and charts as SVG files in images (default: only the report)"
    )
  ),
  seed: LimitFlags.seed
}

/** The charts of the README: a scenario, its strategies, and the two that are shown in detail. */
const pictured = {
  scenario: "incident",
  bars: [...Strategies.reported, ...Strategies.usual].map(({ name }) => name),
  runs: ["fixed-retry-forever", "floodgate"]
}

/** Runs every scenario under every strategy. */
const raceAll = Effect.fnUntraced(function* (seed: number) {
  const scenarios: Array<Report.Figures.ScenarioFigures> = []
  const races: Array<Document.Raced> = []
  for (const name of Scenarios.names) {
    const scenario = Scenarios.byName(name, { seed })!
    const runs = yield* Racing.race(scenario, Strategies.all)
    scenarios.push(Report.Figures.scenarioFigures(scenario, runs))
    races.push({ scenario, results: runs.map(({ result }) => result) })
  }
  return { scenarios, races }
})

/** Writes the pages of the documentation: the tables, the charts that the README shows, and the study of backoffs. */
const writeDocs = Effect.fnUntraced(function* (
  docs: string,
  {
    races,
    scenarios
  }: {
    readonly races: ReadonlyArray<Document.Raced>
    readonly scenarios: ReadonlyArray<Report.Figures.ScenarioFigures>
  },
  seed: number
) {
  const { join } = yield* Path.Path
  yield* Output.writeOwn(join(docs, "lab.md"), Document.render(races), "--docs")
  const shown = scenarios.find(({ name }) => name === pictured.scenario)!
  const charts = Report.Svg.ofScenario({
    ...shown,
    results: shown.results.filter(({ strategy }) => pictured.bars.includes(strategy)),
    runs: shown.runs.filter(({ strategy }) => pictured.runs.includes(strategy))
  })
  for (const { name, text } of [...charts, ...Report.Svg.ofStudy(yield* finished(AwsStudy.studySteps({ seed })))]) {
    yield* Output.writeOwn(join(docs, "images", name), text, "--docs")
  }
})

/** The command. */
export const labCommand = Command.make(
  "lab",
  flags,
  Effect.fnUntraced(function* ({ docs, report, seed }) {
    const { join } = yield* Path.Path
    yield* Output.claim(report, "--report")
    if (Option.isSome(docs)) {
      yield* Output.claimOwn(docs.value, ["lab.md"], "--docs")
      yield* Output.claimOwn(join(docs.value, "images"), ["any.svg"], "--docs")
    }
    const raced = yield* raceAll(seed)
    yield* Output.write(
      report,
      Report.Html.render({
        title: "Floodgate: the lab",
        intro: Report.Html.raceIntro,
        sections: raced.scenarios.map(Report.Html.ofScenario),
        verdict: Report.Verdict.ofRaces(raced.scenarios),
        matrix: raced.scenarios,
        provenance: yield* Provenance.of([
          ["seed", String(seed)],
          ["limits and provider model", "stand above the table of each scenario"]
        ])
      }),
      "--report"
    )
    if (Option.isSome(docs)) yield* writeDocs(docs.value, raced, seed)
    const { stdout } = yield* Print.Room
    yield* Print.out(
      [
        Report.Verdict.ofRaces(raced.scenarios).text,
        "",
        Matrix.text(raced.scenarios, stdout),
        "",
        "Simulated seconds until all of the work was done, or calls that were lost."
      ].join("\n")
    )
  })
).pipe(
  Command.withDescription(
    "Races every strategy in every scenario in simulated time, prints the results, and writes a report with charts as one HTML file."
  ),
  Command.withShortDescription("Every strategy in every scenario, as a table and a report")
)
