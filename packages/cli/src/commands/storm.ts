/** `floodgate storm`: races strategies in one scenario, in simulated time; `storm all` in every scenario. */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import { LimitWords } from "floodgate/internal"
import { type Race, Report, Scenario, Scenarios, Strategies, type Strategy, Table } from "@floodgate/lab/internal"
import { invalidFlag, orInvalid } from "@floodgate/gateway/internal/errors"
import * as Help from "@floodgate/gateway/internal/help"
import * as Legend from "./legend.ts"
import * as Flags from "@floodgate/gateway/internal/flags"
import * as LimitFlags from "@floodgate/gateway/internal/limits"
import * as Simulated from "./simulated.ts"
import * as Output from "@floodgate/gateway/internal/output"
import * as Print from "@floodgate/gateway/internal/print"
import * as Provenance from "./provenance.ts"
import * as Racing from "./racing.ts"
import { allCommand } from "./storm/all.ts"
import * as Trace from "./trace.ts"

const names = Strategies.all.map(({ name }) => name)

const namesOf = (strategies: ReadonlyArray<Strategy.Strategy>): string => strategies.map(({ name }) => name).join(", ")

const flags = {
  scenario: Flag.Literals("scenario", Scenarios.allNames).pipe(
    Flags.optional(
      "The scenario, see SCENARIOS below; the other flags change it, and their defaults are the incident's (default: incident)"
    )
  ),
  trace: Flags.trace("Replay a trace instead: CSV of the Azure LLM inference or BurstGPT format"),
  speed: Flag.String("speed").pipe(
    Flags.optional('With --trace: times faster than recorded, or "max" for as fast as possible (default: 1)')
  ),
  agents: Flags.optionalCount("agents", "Agents", "12"),
  calls: Flags.optionalCount("calls", "Calls that each agent makes in turn", "5"),
  firstTokens: Flags.optionalCount("first-tokens", "Tokens of an agent's first call, output included", "150000"),
  tokens: Flags.optionalCount("tokens", "Tokens of each later call, output included", "14000"),
  outputTokens: Flags.optionalCount("output-tokens", "Output tokens of each call, included in its tokens", "200"),
  // The limit per minute, 60 times as high, must be at most 2^53.
  rate: Flags.number("rate", "a number from 0.001 up to 2^47", (value) => value >= 0.001 && value <= 2 ** 47).pipe(
    Flags.optional("Tokens per second that the provider allows (default: 60000)")
  ),
  burst: Flags.positive("burst").pipe(
    Flags.optional("Tokens that the provider's bucket holds; a window holds a minute's worth (default: 200000)")
  ),
  concurrency: Flags.optionalCount("concurrency", "Calls that the provider accepts at once", "no limit"),
  rejections: Simulated.rejections.pipe(
    Flags.optional(
      "Whether a rejected request counts against the limits (default: charged; free with two places and in sessions)"
    )
  ),
  headers: Simulated.headers.pipe(Flags.optional("Rate limit headers of responses (default: rounded)")),
  window: LimitFlags.window.pipe(Flags.optional("How the provider counts (default: bucket)")),
  latencyPerToken: Simulated.latencyPerToken,
  seed: Simulated.seed,
  strategy: Flag.Literals("strategy", names).pipe(
    Flag.withDescription(
      `Only this strategy, see STRATEGIES below; may be repeated (default: ${namesOf(Strategies.usual)}; with two places: ${namesOf(Strategies.ofPlaces)})`
    ),
    Flag.atLeast(0)
  ),
  report: Output.flag("report", "file").pipe(
    Flags.optional("Write a report with charts: one HTML file that opens offline")
  ),
  svg: Output.flag("svg", "folder").pipe(Flags.optional("Write the charts as SVG files")),
  json: Flags.toggle("json", "Print one JSON object: the scenario and an array of results")
}

/** The source of a workload. */
interface WorkloadSource {
  readonly scenario: Option.Option<string>
  readonly trace: Option.Option<string>
  readonly speed: Option.Option<string>
}

const invalid = invalidFlag("storm")

/** A simulation lasts at most a month, in which the last calls must also end. */
const maxDays = 29

const attempt = orInvalid("storm", "Scenario")

const traceOf = Effect.fnUntraced(function* (file: string, speed: string, options: Scenario.Options) {
  const factor = speed === "max" ? Infinity : Number(speed)
  if (!(factor > 0)) return yield* invalid("speed", 'a number > 0 or "max"', speed)
  if (factor < Infinity && options.agents !== undefined) {
    const expected = "nothing: each call of a trace is an agent of its own, but with --speed max"
    return yield* invalid("agents", expected, String(options.agents))
  }
  const trace = yield* Trace.read(file)
  const days = trace.at(-1)!.atMillis / 86_400_000
  if (days / factor > maxDays) {
    const expected = `a trace of at most ${maxDays} days: this one's last call comes ${Math.round(days)} days after its first`
    return yield* invalid("trace", `${expected}; correct its dates, or raise --speed`, file)
  }
  return Trace.scenarioOf(trace, { ...options, speed: factor })
})

/** The options that do not apply to the scenario `many`. */
const sizes: ReadonlyArray<keyof Scenario.Options> = [
  "firstTokens",
  "tokens",
  "outputTokens",
  "rate",
  "burst",
  "concurrency",
  "window",
  "latencyPerToken"
]

/** The scenario that the flags choose. A flag that does not apply to it is an error. */
const scenarioOf = Effect.fnUntraced(function* ({ scenario, speed, trace }: WorkloadSource, options: Scenario.Options) {
  const only = Effect.fnUntraced(function* (names: ReadonlyArray<keyof Scenario.Options>, of: string) {
    const stray = names.find((name) => options[name] !== undefined)
    if (stray !== undefined) return yield* invalid(stray, `nothing: ${of} has its own`, String(options[stray]))
  })
  if (Option.isSome(trace)) {
    if (Option.isSome(scenario)) return yield* invalid("scenario", "nothing: the trace is raced", scenario.value)
    yield* only([...sizes, "calls"], "a trace")
    const factor = Option.getOrElse(speed, () => "1")
    return yield* traceOf(trace.value, factor, options)
  }
  if (Option.isSome(speed)) return yield* invalid("speed", "nothing: only a trace has a speed", speed.value)
  const name = Option.getOrElse(scenario, () => "incident")
  if (name === "many") yield* only(sizes, "the scenario many")
  if ([...Scenarios.namesOfSessions, ...Scenarios.namesOfTrees].includes(name))
    yield* only([...sizes, "calls"], `the scenario ${name}`)
  return yield* attempt(() => Scenarios.byName(name, options)!)
})

/** The options that were given, by name. */
const optionsOf = (given: Readonly<Record<string, unknown>>): Scenario.Options =>
  Object.fromEntries(
    Object.entries(given).flatMap(([name, value]) => {
      const one = Option.isOption(value) ? Option.getOrUndefined(value) : value
      return one === undefined ? [] : [[name, one]]
    })
  )

/** The files to which a race is written. */
interface RaceFiles {
  readonly report: Option.Option<string>
  readonly svg: Option.Option<string>
}

const claim = Effect.fnUntraced(function* ({ report, svg }: RaceFiles) {
  if (Option.isSome(report)) yield* Output.claim(report.value, "--report")
  if (Option.isSome(svg)) yield* Output.claimOwn(svg.value, ["any.svg"], "--svg")
})

const write = Effect.fnUntraced(function* (
  { report, svg }: RaceFiles,
  scenario: Scenario.Scenario,
  runs: ReadonlyArray<Race.RaceRun>
) {
  if (Option.isNone(report) && Option.isNone(svg)) return
  const { join } = yield* Path.Path
  const figures = Report.Figures.scenarioFigures(scenario, runs)
  if (Option.isSome(report)) {
    const html = Report.Html.render({
      title: `floodgate storm: ${scenario.name}`,
      intro: Report.Html.raceIntro,
      sections: [Report.Html.ofScenario(figures)],
      provenance: yield* Provenance.of([
        ["seed", String(scenario.seed)],
        ["limits", LimitWords.limitsText(scenario.limits)],
        ["provider model", Scenario.modelOf(scenario)]
      ])
    })
    yield* Output.write(report.value, html, "--report")
  }
  if (Option.isSome(svg)) {
    for (const { name, text } of Report.Svg.ofScenario(figures)) {
      yield* Output.writeOwn(join(svg.value, name), text, "--svg")
    }
  }
})

/** The command. */
export const stormCommand = Command.make(
  "storm",
  flags,
  Effect.fnUntraced(function* ({ json, report, scenario: name, speed, strategy, svg, trace, ...given }) {
    const scenario = yield* scenarioOf({ scenario: name, trace, speed }, optionsOf(given))
    yield* claim({ report, svg })
    const chosen =
      strategy.length === 0
        ? Strategies.usualOf(scenario)
        : Strategies.all.filter(({ name }) => strategy.includes(name))
    const print = Effect.fnUntraced(function* (runs: ReadonlyArray<Race.RaceRun>) {
      const results = runs.map(({ result }) => result)
      if (json) return yield* Print.json({ scenario: Table.scenarioJson(scenario), results }, 2)
      yield* Print.out(`${Table.text(scenario, results, (yield* Print.Room).stdout)}\n`)
      yield* Legend.print(results.map(({ strategy }) => strategy))
    })
    const runs = yield* Racing.race(scenario, chosen, print)
    yield* write({ report, svg }, scenario, runs)
    yield* print(runs)
  })
).pipe(
  Command.withSubcommands([allCommand]),
  Command.withDescription(
    "Runs the same work under several strategies in simulated time: common clients and queues, Floodgate, and an oracle, which is the best possible schedule. The default is the incident: 12 agents of 5 calls, 2.472M tokens, against 60,000 tokens a second."
  ),
  Command.annotate(Help.Sections, [
    { heading: "SCENARIOS", rows: Scenarios.described },
    { heading: "STRATEGIES", rows: Strategies.all.map(({ name, summary }) => [name, summary] as const) }
  ]),
  Command.withExamples([
    { command: "floodgate storm", description: "The incident; rejected requests count" },
    { command: "floodgate storm --rejections free", description: "The incident; rejected requests are free" },
    { command: "floodgate storm --scenario outage-at-start", description: "Another scenario, see SCENARIOS" },
    {
      command: "floodgate storm --agents 40 --strategy floodgate --strategy oracle --json",
      description: "Two strategies, for a program to read"
    }
  ])
)
