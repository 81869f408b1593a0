/**
 * How accurate `foresee` is: `npm run -s bench -- foreseen`. Before each call it predicts the wait, which is then compared with
 * the real one. Only steady weathers count, in which the provider's limits, its other users and the limits given to the client
 * do not change.
 *
 *     --cells PATTERN      only the cells whose name matches, without regard to case
 *     --seeds N            seeds of each weather (1)
 *     --docs               writes the table of docs/figures/weather.md
 *
 * Only waits above a second count, in weathers with at most 600 calls a minute; faster ones give the same result.
 */
import { parseArgs } from "node:util"
import { cells } from "./weather/cells.ts"
import * as ClientEngine from "./weather/clientEngine.ts"
import * as Docs from "./weather/docs.ts"
import { type Look, makeForeseeing } from "./weather/library.ts"
import { binding, type Scenario } from "./weather/scenario.ts"
import * as Table from "./weather/table.ts"

const { values: options } = parseArgs({
  options: {
    cells: { type: "string", default: "" },
    seeds: { type: "string", default: "1" },
    docs: { type: "boolean", default: false }
  }
})

const isSteady = (scenario: Scenario): boolean =>
  [scenario.outages, scenario.changes, scenario.retold].every(({ length }) => length === 0) &&
  scenario.acceleration === undefined &&
  scenario.backFrom === undefined &&
  scenario.neighbours.every(({ kind }) => kind === "constant") &&
  Object.values(scenario.told).some((told) => told !== "nothing") &&
  binding(scenario).perMinute <= 600

const minMillis = 1_000

/** The relative errors in a weather, negative if the wait was longer than foreseen. */
const errorsOf = (weather: Scenario, seed: number): ReadonlyArray<number> => {
  const looks: Array<Look> = []
  ClientEngine.run(weather, seed, makeForeseeing(looks))
  const long = looks.filter(({ waited }) => waited > minMillis)
  return long.map(({ foreseen, waited }) => (foreseen - waited) / waited)
}

const pattern = new RegExp(options.cells, "i")
const seeds = Array.from({ length: Number(options.seeds) }, (_, i) => i + 1)
const measured = cells
  .filter(({ name }) => pattern.test(name))
  .map(({ name, weathers }) => ({
    name,
    errors: weathers.filter(isSteady).flatMap((weather) => seeds.flatMap((seed) => errorsOf(weather, seed)))
  }))
  .filter(({ errors }) => errors.length > 0)

const table = Table.ofForeseen(measured)
if (options.docs) Docs.writeTable("foreseen", table)
else console.log(table)
