/** `floodgate storm all`: races every strategy in every scenario, and writes one report. */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import {
  AgentsAtWork,
  AwsStudy,
  Document,
  Matrix,
  Report,
  Scenario,
  Scenarios,
  Strategies
} from "@floodgate/lab/internal"
import { Stepwise } from "floodgate/internal"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as Threads from "./threads.ts"
import * as LimitFlags from "@floodgate/gateway/internal/limits"
import * as Simulated from "../simulated.ts"
import * as Output from "@floodgate/gateway/internal/output"
import * as Print from "@floodgate/gateway/internal/print"
import { painting } from "../paint.ts"
import * as Provenance from "../provenance.ts"
import * as Racing from "../racing.ts"
import * as OwnSessions from "./sessions.ts"
import * as ReadmeTable from "./table.ts"

const flags = {
  report: Output.flag("report", "file").pipe(
    Flags.byDefault("The report: one HTML file that opens offline", "lab-report.html")
  ),
  docs: Output.flag("docs", "folder").pipe(
    Flags.optional(
      "Also write the project's documentation: lab.md and agents-at-work.md in figures, and charts as SVG files in images (default: only the report)"
    )
  ),
  sessions: Flags.sessions("Race the strategies in your own sessions instead"),
  agents: Flags.optionalCount(
    "agents",
    "With --sessions: so many sessions, by repeating those of the file",
    "those of the file"
  ),
  ...LimitFlags.flags,
  seed: Simulated.seed,
  table: Flags.toggle(
    "table",
    "Only print clients, queues and Floodgate in seven conditions as one table, in about a minute"
  ),
  explain: Flags.toggle(
    "explain",
    "Only print how each strategy is configured, and why its users would choose these settings"
  )
}

/** The configuration of each strategy, as `--explain` prints it. */
const explained = [
  ...Strategies.all.flatMap(({ name, settings = "", summary, why = "" }) => [
    name,
    `  ${summary}`,
    `  settings: ${settings}`,
    `  why:      ${why}`,
    ""
  ]),
  Strategies.about
].join("\n")

/** The scenario of the README's charts, its strategies, and the two that are shown in detail. */
const pictured = {
  scenario: "incident",
  bars: [...Strategies.reported, ...Strategies.usual].map(({ name }) => name),
  runs: ["fixed-retry-forever", "floodgate"],
  sessionBars: Strategies.usualOfSessions.map(({ name }) => name)
}

/** Runs every scenario that the tables have under all of its strategies. */
const raceAll = Effect.fnUntraced(function* (seed: number) {
  const named = Scenarios.allNames.filter((name) => !Scenarios.namesOfTrees.includes(name))
  const all = named.map((name) => Scenarios.byName(name, { seed })!)
  const jobs = all.flatMap((scenario) =>
    Strategies.of(scenario).map(({ name }): Threads.RaceJob => ({ scenario: scenario.name, seed, strategy: name }))
  )
  const parts = yield* Threads.race(jobs)
  const races = all.map((scenario) => {
    const own = parts.filter((_, index) => jobs[index]!.scenario === scenario.name)
    return { scenario, figures: Report.Figures.assembled(scenario, own) }
  })
  return {
    scenarios: races.map(({ figures }) => figures),
    races: races.map(({ figures, scenario }): Document.ScenarioRace => ({ scenario, results: figures.results }))
  }
})

/** Writes the pages of the documentation: the tables, the charts that the README shows, and the study of backoffs. */
const writeDocs = Effect.fnUntraced(function* (
  docs: string,
  {
    races,
    scenarios
  }: {
    readonly races: ReadonlyArray<Document.ScenarioRace>
    readonly scenarios: ReadonlyArray<Report.Figures.ScenarioFigures>
  },
  seed: number
) {
  const { join } = yield* Path.Path
  const isOfSessions = ({ scenario }: Document.ScenarioRace) => Scenario.isOfSessions(scenario)
  const calls = races.filter((race) => !isOfSessions(race))
  yield* Output.writeOwn(join(docs, "figures/lab.md"), Document.render(calls), "--docs")
  yield* Output.writeOwn(
    join(docs, "figures/agents-at-work.md"),
    AgentsAtWork.render(races.filter(isOfSessions)),
    "--docs"
  )
  const barsOf = (name: string, bars: ReadonlyArray<string>) => {
    const figures = scenarios.find((one) => one.name === name)!
    return { ...figures, results: figures.results.filter(({ strategy }) => bars.includes(strategy)) }
  }
  const scenario = Scenarios.byName(pictured.scenario, { seed })!
  const detailed = Strategies.all.filter(({ name }) => pictured.runs.includes(name))
  const charts = [
    ...Report.Svg.ofScenario({
      ...barsOf(pictured.scenario, pictured.bars),
      runs: (yield* Racing.race(scenario, detailed)).map((run) => Report.Figures.runFigures(scenario, run))
    }),
    ...Report.Svg.ofScenario({ ...barsOf("sessions", pictured.sessionBars), runs: [] })
  ]
  for (const { name, text } of [
    ...charts,
    ...Report.Svg.ofStudy(yield* Stepwise.yielding(AwsStudy.studySteps({ seed })))
  ]) {
    yield* Output.writeOwn(join(docs, "images", name), text, "--docs")
  }
})

/** The command. */
export const allCommand = Command.make(
  "all",
  flags,
  Effect.fnUntraced(function* ({ docs, explain, report, seed, table, ...own }) {
    if (explain) return yield* Print.out(explained)
    if (table) return yield* ReadmeTable.print
    const scenario = yield* OwnSessions.of({ ...own, docs }, seed)
    if (scenario !== undefined) return yield* OwnSessions.race(scenario, report)
    const { join } = yield* Path.Path
    yield* Output.claim(report, "--report")
    if (Option.isSome(docs)) {
      yield* Output.claimOwn(join(docs.value, "figures"), ["lab.md", "agents-at-work.md"], "--docs")
      yield* Output.claimOwn(join(docs.value, "images"), ["any.svg"], "--docs")
    }
    const raced = yield* raceAll(seed)
    yield* Output.write(
      report,
      Report.Html.render({
        title: "Floodgate: the lab",
        intro: `${Report.Html.raceIntro} The charts show some of the agents; "floodgate storm --scenario NAME --report FILE" shows all.`,
        sections: raced.scenarios.map((figures) => Report.Html.ofScenario(Report.Figures.sketched(figures))),
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
    yield* Print.painted(Matrix.text(raced.scenarios, stdout, yield* painting))
    yield* Print.out(
      [
        "",
        "Simulated seconds until all of the work was done, or the number of lost calls; beside it the 429s.",
        "",
        Report.Verdict.ofRaces(raced.scenarios).text
      ].join("\n")
    )
  })
).pipe(
  Command.withShortDescription("Races every strategy in every scenario, as a table and a report"),
  Command.withDescription(
    "Races every strategy in every scenario in simulated time, on all cores, prints the results, and writes a report with charts as one HTML file. With --sessions it races them in sessions of your own agents instead, which floodgate gateway --record has recorded, under the limits that you state. With --explain it only prints how each strategy is configured."
  ),
  Command.withExamples([
    { command: "floodgate storm all", description: "Takes a few minutes on two cores, and writes lab-report.html" },
    { command: "floodgate storm all --explain", description: "How each strategy is configured, and why" },
    {
      command: "floodgate storm all --sessions sessions.csv --input-tokens-per-minute 400000",
      description: "Your own sessions, which the gateway has recorded with --record"
    }
  ])
)
