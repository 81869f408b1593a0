/** `floodgate lab`: the race over all scenarios, as one report and a Markdown table. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Path from "effect/Path"
import { AwsStudy, Document, Race, Report, Scenarios, Strategies } from "../lab/index.ts"
import { statusLine } from "./painter.ts"
import * as LimitFlags from "./limits.ts"
import * as Output from "./output.ts"

const flags = {
  report: Output.flag("report", "file").pipe(
    LimitFlags.byDefault("The report: one HTML file that opens offline", "lab-report.html")
  ),
  docs: Output.flag("docs", "folder").pipe(
    LimitFlags.byDefault("Folder for lab.md, and for the charts of the documents in its folder images", "docs")
  ),
  seed: LimitFlags.seed
}

/** The scenario and the runs that the README shows: before and after. */
const pictured = { scenario: "incident", runs: ["fixed-retry-forever", "floodgate"] }

/** Runs every scenario under every strategy, and says on the way how far it is. */
const raceAll = Effect.fnUntraced(function* (seed: number) {
  const status = yield* statusLine
  const scenarios: Array<Report.Figures.ScenarioFigures> = []
  const races: Array<Document.Raced> = []
  for (const name of Scenarios.names) {
    const scenario = Scenarios.byName(name, { seed })!
    const runs: Array<Race.Run> = []
    for (const strategy of Strategies.all) {
      yield* status(`${name}: ${strategy.name} (${runs.length + 1} of ${Strategies.all.length})`)
      runs.push(yield* Race.run(scenario, strategy))
    }
    scenarios.push(Report.Figures.scenarioFigures(scenario, runs))
    races.push({ scenario, results: runs.map(({ result }) => result) })
  }
  return { scenarios, races }
}, Effect.scoped)

/** The command. */
export const labCommand = Command.make(
  "lab",
  flags,
  Effect.fnUntraced(function* ({ docs, report, seed }) {
    const path = yield* Path.Path
    const images = path.join(docs, "images")
    yield* Output.claim(report, "--report")
    yield* Output.claim(path.join(docs, "lab.md"), "--docs")
    yield* Output.claim(path.join(images, "any.svg"), "--docs", images)
    const { races, scenarios } = yield* raceAll(seed)
    yield* Output.write(
      report,
      Report.Html.render({
        title: "Floodgate: the lab",
        intro: Report.Html.raceIntro,
        sections: scenarios.map(Report.Html.ofScenario)
      }),
      "--report"
    )
    yield* Output.write(path.join(docs, "lab.md"), Document.render(races), "--docs")
    const shown = scenarios.find(({ name }) => name === pictured.scenario)!
    const files = Report.Svg.ofScenario({
      ...shown,
      runs: shown.runs.filter(({ strategy }) => pictured.runs.includes(strategy))
    })
    for (const { name, text } of [...files, ...Report.Svg.ofStudy(AwsStudy.study({ seed }))]) {
      yield* Output.write(path.join(images, name), text, "--docs")
    }
  })
).pipe(
  Command.withDescription(
    "Races every strategy over every scenario in simulated time: a report with charts, and the tables of the documentation."
  )
)
