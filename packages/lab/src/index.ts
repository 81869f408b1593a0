/**
 * The lab: simulates strategies, to compare them before they cost money.
 *
 * A {@link Scenario} says what agents do and how the provider behaves; a {@link Strategy} makes their calls. {@link race} runs the same
 * work under each strategy: its real code, in simulated time, against `ProviderSim`. `table` and `html` show the results.
 *
 * **Gotchas**
 *
 * The rivals that are made with `effect/http` and `effect/persistence` use unstable modules: this package is made for `effect` `~4.1`.
 *
 * **Example** (The library beside the oracle, which knows everything in advance)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Lab from "@floodgate/lab"
 *
 * const scenario = Lab.scenario({ agents: 4, calls: 2, rate: 200_000 })
 * const strategies = Lab.strategies.filter(({ name }) => ["floodgate", "oracle"].includes(name))
 * const runs = await Effect.runPromise(Lab.race(scenario, strategies))
 *
 * Lab.table(scenario, runs).includes("oracle") // => true
 * ```
 *
 * @stability experimental
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import { Input } from "floodgate/internal"
import { hint } from "floodgate/internal/nearest"
import * as Race from "./race.ts"
import * as Figures from "./report/figures.ts"
import * as Html from "./report/html.ts"
import type { RaceRun } from "./runs.ts"
import * as Incident from "./scenario.ts"
import type { Scenario } from "./scenario.ts"
import * as Scenarios from "./scenarios.ts"
import { all, usualOf } from "./strategies/index.ts"
import type { Strategy } from "./strategy.ts"
import * as Table from "./table.ts"

export type { RaceRun } from "./runs.ts"
export type { Options, Scenario } from "./scenario.ts"
export type { Strategy } from "./strategy.ts"

const checkScenario = Input.options<Incident.Options>({
  name: Input.text,
  summary: Input.text,
  agents: Input.whole,
  calls: Input.whole,
  firstTokens: Input.whole,
  tokens: Input.whole,
  outputTokens: Input.whole,
  rate: Input.positive,
  burst: Input.positive,
  concurrency: Input.whole,
  rejections: Input.oneOf("free", "charged"),
  headers: Input.oneOf("rounded", "exact", "openai", "none", "wrong"),
  window: Input.oneOf("bucket", "sliding", "fixed"),
  latencyPerToken: Input.notNegative,
  seed: Input.notNegative,
  maxSeconds: Input.positive
})

/**
 * Makes a scenario: equal agents that all start at once, or the scenario of the lab with a name, of which options change the settings.
 * Without arguments it is the incident. `floodgate storm --help` lists the names.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` if an option is invalid, or if there is no scenario of this name.
 *
 * **Example** (The incident, and one of the lab)
 *
 * ```ts doctest
 * import * as Lab from "@floodgate/lab"
 *
 * Lab.scenario().agents.length // => 12
 * Lab.scenario("outage").name // => "outage"
 * ```
 *
 * @stability experimental
 * @category constructors
 * @since 0.5.0
 */
export const scenario: {
  (options?: Incident.Options): Scenario
  (name: string, options?: Incident.Options): Scenario
} = (given: Incident.Options | string = {}, options: Incident.Options = {}): Scenario => {
  const isNamed = typeof given === "string"
  const own = isNamed ? options : given
  Input.check("Lab.scenario", checkScenario, own)
  if (!isNamed) return Incident.make(own)
  const found = Scenarios.byName(given, own)
  return found ?? Input.wrong("Lab.scenario", `unknown scenario "${given}": ${hint(given, Scenarios.allNames)}`)
}

/**
 * All strategies: clients with their defaults, each rival as its best users configure it, the library with what it may be told, and the
 * oracle.
 *
 * @stability experimental
 * @category strategies
 * @since 0.5.0
 */
export const strategies: ReadonlyArray<Strategy> = all

type RaceOptions = NonNullable<Parameters<typeof Race.race>[2]>

const checkRace = Input.options<RaceOptions>({ progress: Input.callback })

/**
 * Runs the same work under each strategy, one after the other. The same scenario and seed give the same runs. By default it runs the
 * strategies of `floodgate storm`.
 *
 * **Example** (A strategy of your own)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Lab from "@floodgate/lab"
 * import { LlmProvider } from "floodgate/LlmProvider"
 *
 * const hopeful: Lab.Strategy = {
 *   name: "hopeful",
 *   summary: "one attempt",
 *   client: () =>
 *     Effect.map(LlmProvider, (provider) => (params) => Effect.map(provider.create(params), ({ value }) => value))
 * }
 *
 * const [run] = await Effect.runPromise(Lab.race(Lab.scenario(), [hopeful]))
 *
 * run!.result.failedCalls > 0 // => true
 * ```
 *
 * @stability experimental
 * @category running
 * @since 0.5.0
 */
export const race = (
  scenario: Scenario,
  strategies: ReadonlyArray<Strategy> = usualOf(scenario),
  options: RaceOptions = {}
): Effect.Effect<ReadonlyArray<RaceRun>> => {
  Input.check("Lab.race", checkRace, options)
  return Race.race(scenario, strategies, options)
}

/**
 * A table of runs for a terminal, with the model of the provider. Columns that do not fit are left out, and named below.
 *
 * @stability experimental
 * @category rendering
 * @since 0.5.0
 */
export const table = (scenario: Scenario, runs: ReadonlyArray<RaceRun>, columns?: number): string =>
  Table.text(
    scenario,
    runs.map(({ result }) => result),
    columns
  )

/**
 * Renders races as one HTML file that opens offline, with charts and a section for each scenario.
 *
 * **Details**
 *
 * Throws when the charting library is not installed.
 *
 * **Example** (The incident under all usual strategies)
 *
 * ```ts
 * import * as Effect from "effect/Effect"
 * import { writeFileSync } from "node:fs"
 * import * as Lab from "@floodgate/lab"
 *
 * const scenario = Lab.scenario()
 * const runs = await Effect.runPromise(Lab.race(scenario))
 * writeFileSync("race.html", Lab.html("The incident", [{ scenario, runs }]))
 * ```
 *
 * @stability experimental
 * @category rendering
 * @since 0.5.0
 */
export const html = (
  title: string,
  races: ReadonlyArray<{ readonly scenario: Scenario; readonly runs: ReadonlyArray<RaceRun> }>
): string =>
  Html.render({
    title,
    intro: Html.raceIntro,
    sections: races.map(({ runs, scenario }) => Html.ofScenario(Figures.scenarioFigures(scenario, runs)))
  })
