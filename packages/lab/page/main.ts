/**
 * Draws every chart of a report into its place, and again when the place or the choice changes. Shows figures as tables and offers them
 * as CSV.
 */
import * as Charts from "../src/report/charts.ts"
import type { RunFigures } from "../src/report/figures.ts"
import { type PageData, unpack } from "../src/report/packed.ts"

/** The charting library, which the report has in a script of its own. */
declare const Plot: object

const { figures: packed, tables: results }: PageData = JSON.parse(document.getElementById("figures")!.textContent)
const figures = packed.map(unpack)
const charts = Charts.make(Plot)

/** The run of each scenario that is shown in detail. */
const chosen = figures.map(({ runs }) =>
  Math.max(
    0,
    runs.findIndex(({ strategy }) => strategy === "floodgate")
  )
)
const runOf = (scenario: number): RunFigures | undefined => figures[scenario]!.runs[chosen[scenario]!]

const all = <E extends HTMLElement>(selector: string, inside: ParentNode = document): ReadonlyArray<E> => [
  ...inside.querySelectorAll<E>(selector)
]

// -----------------------------------------------------------------------------
// Charts
// -----------------------------------------------------------------------------

const drawn = (place: HTMLElement, width: number): Charts.Drawn | undefined => {
  const scenario = Number(place.dataset["scenario"])
  const run = runOf(scenario)
  const name = place.dataset["chart"] as "makespan" | "latency" | "levels" | "rate" | "gantt"
  if (name === "makespan" || name === "latency") return charts[name](figures[scenario]!, { width })
  return run === undefined ? undefined : charts[name](figures[scenario]!, run, { width })
}

const draw = (place: HTMLElement): void => {
  const width = Math.floor(place.clientWidth)
  if (width < 40 || place.closest("details:not([open])") !== null) return
  const element = drawn(place, width)
  if (element instanceof Element) place.replaceChildren(element)
  place.dataset["width"] = `${width}`
}

const places = all("[data-chart]")
for (const place of places) draw(place)
const isStale = ({ clientWidth, dataset }: HTMLElement): boolean => dataset["width"] !== `${Math.floor(clientWidth)}`
const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) if (target instanceof HTMLElement && isStale(target)) draw(target)
})
for (const place of places) resized.observe(place)
for (const details of all("details.scenario")) {
  details.addEventListener("toggle", () => {
    for (const place of all("[data-chart]", details)) draw(place)
  })
}

// -----------------------------------------------------------------------------
// Figures as tables
// -----------------------------------------------------------------------------

type Cell = string | number | null | undefined

interface Table {
  readonly heads: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<Cell>>
}

/** The tables of a run. */
const tables: Readonly<Record<string, (run: RunFigures) => Table>> = {
  calls: ({ bars }) => ({
    heads: ["agent", "what", "from (s)", "to (s)"],
    rows: bars.map(({ agent, from, to, what }) => [agent, what, from, to])
  }),
  left: ({ levels }) => ({
    heads: ["at (s)", "at the provider", "in the budget"],
    rows: levels.map(({ at, budget, provider }) => [at, provider, budget])
  }),
  rates: ({ rates }) => ({
    heads: ["from (s)", "to (s)", "admitted a second"],
    rows: rates.map(({ from, perSecond, to }) => [from, to, perSecond])
  }),
  latencies: ({ latencies }) => ({ heads: ["latency (s)"], rows: latencies.map((seconds) => [seconds]) })
}

const maxRows = 500

const csvOf = ({ heads, rows }: Table): string => {
  const quoted = (cell: string): string => (/[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell)
  return [heads, ...rows].map((row) => `${row.map((cell) => quoted(`${cell ?? ""}`)).join(",")}\n`).join("")
}

const rowOf = (tag: "th" | "td", cells: ReadonlyArray<Cell>): HTMLElement => {
  const row = document.createElement("tr")
  for (const cell of cells) {
    const element = document.createElement(tag)
    element.textContent = `${cell ?? ""}`
    row.append(element)
  }
  return row
}

const tabulate = (details: HTMLElement): void => {
  const scenario = Number(details.dataset["figures"])
  const kind = details.querySelector("select")!.value
  const run = runOf(scenario)
  const of = tables[kind]
  const table = of === undefined || run === undefined ? results[scenario]! : of(run)
  const rows = table.rows.slice(0, maxRows).map((row) => rowOf("td", row))
  details.querySelector("table")!.replaceChildren(rowOf("th", table.heads), ...rows)
  const count = table.rows.length
  details.querySelector(".count")!.textContent =
    count > maxRows ? `The first ${maxRows} of ${count} rows; the file has all.` : ""
  const link = details.querySelector("a")!
  URL.revokeObjectURL(link.href)
  link.href = URL.createObjectURL(new Blob([csvOf(table)], { type: "text/csv" }))
  const whose = of === undefined || run === undefined ? [] : [run.strategy]
  link.download = `${[figures[scenario]!.name, ...whose, kind].join("-").replaceAll(" ", "-")}.csv`
}

for (const details of all<HTMLDetailsElement>("details.figures")) {
  details.addEventListener("toggle", () => {
    if (details.open) tabulate(details)
  })
  details.querySelector("select")!.addEventListener("change", () => tabulate(details))
}

// -----------------------------------------------------------------------------
// What the reader chooses
// -----------------------------------------------------------------------------

for (const select of all<HTMLSelectElement>("select[data-scenario]")) {
  const { scenario } = select.dataset
  select.addEventListener("change", () => {
    chosen[Number(scenario)] = Number(select.value)
    for (const place of places) if (place.dataset["scenario"] === scenario) draw(place)
    for (const details of all(`details.figures[open][data-figures="${scenario}"]`)) tabulate(details)
  })
}

/** Opens the scenario that the address names. */
const unfold = (): void => {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)))
  if (!(named instanceof HTMLDetailsElement)) return
  named.open = true
  named.scrollIntoView()
}
addEventListener("hashchange", unfold)
unfold()
document.documentElement.dataset["drawn"] = "true"
