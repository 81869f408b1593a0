/** `floodgate lab`: the race over all scenarios, as one report and a Markdown table. */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import { AwsStudy, Document, Race, Report, Scenarios, Strategies } from "../lab/index.ts"
import { statusLine } from "./painter.ts"
import * as LimitFlags from "./limits.ts"
import * as Folder from "./folder.ts"

const flags = {
  report: Flag.String("report").pipe(
    Flag.withMetavar("<file>"),
    LimitFlags.byDefault("The report: one HTML file that opens offline", "lab-report.html")
  ),
  docs: Flag.String("docs").pipe(
    Flag.withMetavar("<folder>"),
    LimitFlags.byDefault("Folder for lab.md, and for the charts of the documents in its folder images", "docs")
  ),
  seed: Flag.Int("seed").pipe(LimitFlags.byDefault("The same seed gives the same figures", 1))
}

/** The scenario and the runs that the README shows: before and after. */
const pictured = { scenario: "incident", runs: ["fixed-retry-forever", "floodgate"] }

/** The command. */
export const labCommand = Command.make(
  "lab",
  flags,
  Effect.fnUntraced(function* ({ docs, report, seed }) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const status = yield* statusLine
    const images = path.join(docs, "images")
    // Before the race: what cannot be written must not be told after it.
    for (const folder of [path.dirname(report), images]) {
      yield* Folder.make(folder)
      yield* fs.access(folder, { writable: true })
    }
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
    yield* status("")

    const write = Effect.fnUntraced(function* (file: string, text: string) {
      yield* fs.writeFileString(file, text)
      yield* Console.log(`wrote ${file}`)
    })
    yield* write(
      report,
      Report.Html.render({
        title: "Floodgate: the lab",
        intro: Report.Html.raceIntro,
        sections: scenarios.map(Report.Html.ofScenario)
      })
    )
    yield* write(path.join(docs, "lab.md"), Document.render(races))
    const shown = scenarios.find(({ name }) => name === pictured.scenario)!
    const files = Report.Svg.ofScenario({
      ...shown,
      runs: shown.runs.filter(({ strategy }) => pictured.runs.includes(strategy))
    })
    for (const { name, text } of [...files, ...Report.Svg.ofStudy(AwsStudy.study({ seed }))]) {
      yield* write(path.join(images, name), text)
    }
  })
).pipe(
  Command.withDescription(
    "Races every strategy over every scenario in simulated time: a report with charts, and the tables of the documentation."
  )
)
