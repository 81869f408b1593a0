/**
 * Reports of races: a page with charts, and a table for a terminal.
 *
 * @stability experimental
 * @since 0.1.0
 */
import * as Figures from "../report/figures.ts"
import * as Html from "../report/html.ts"
import type { RaceRun } from "../runs.ts"
import type { Scenario } from "../scenario.ts"

export { text } from "../table.ts"

/**
 * Renders races as one HTML file that opens offline, with a section for each scenario.
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
 * import { Race, Report, Scenario, Strategies } from "@floodgate/lab"
 *
 * const scenario = Scenario.make()
 * const runs = await Effect.runPromise(Race.race(scenario, Strategies.usual))
 * writeFileSync("race.html", Report.html("The incident", [{ scenario, runs }]))
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
