/** Writes the tables of docs/figures/weather.md between its markers, and the chart. */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Chart from "./chart.ts"
import * as Laws from "./laws.ts"
import * as Sweep from "./sweep.ts"
import type { Done } from "./tasks.ts"

const folder = join(import.meta.dirname, "../../docs")
const page = join(folder, "figures/weather.md")

/** Replaces the text between `<!-- name -->` and `<!-- /name -->`. */
export const writeTable = (name: string, table: string): void => {
  const text = readFileSync(page, "utf8")
  const [start, end] = [`<!-- ${name} -->`, `<!-- /${name} -->`]
  const [from, to] = [text.indexOf(start), text.indexOf(end)]
  if (from === -1 || to < from) throw new Error(`docs/figures/weather.md has no ${start} followed by ${end}`)
  writeFileSync(page, `${text.slice(0, from + start.length)}\n${table}\n${text.slice(to)}`)
}

export const writeChart = (laws: ReadonlyArray<string>, done: ReadonlyArray<Done>): void => {
  const usedBy = (law: string, weather: string) => {
    const runs = done.filter(({ task }) => task.law === law && task.weather === weather)
    return runs.reduce((sum, { result }) => sum + Math.min(1, result.used), 0) / runs.length
  }
  const svg = Chart.draw({
    title: "Used part of the limit: 600 calls a minute, answers after 2 s, headers",
    across: "share of calls that are rejected for no reason",
    ticks: Sweep.parts.map((part) => `${part * 100} %`),
    lines: laws.map((law) => ({
      name: Laws.titleOf(law),
      values: Sweep.weathers.map(({ scenario }) => usedBy(law, scenario.name))
    }))
  })
  writeFileSync(join(folder, "images/weather-random.svg"), svg)
}
