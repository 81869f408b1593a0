/**
 * Renders a report as one HTML file that opens offline. The page contains its figures and draws its charts from them.
 *
 * @stability experimental
 * @since 0.1.0
 */
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import * as Words from "floodgate/internal/words"
import * as Matrix from "../matrix.ts"
import * as Strategies from "../strategies/index.ts"
import * as Table from "../table.ts"
import { escapeHtml } from "./escape.ts"
import type { RunFigures, ScenarioFigures } from "./figures.ts"
import * as Packed from "./packed.ts"
import { script } from "./pageScript.ts"
import { style } from "./style.ts"
import * as Verdict from "./verdict.ts"

/**
 * The names of the charts that a section can show, see `Charts`.
 *
 * @stability experimental
 * @category options
 * @since 0.1.0
 */
export type Chart = "makespan" | "gantt" | "levels" | "rate" | "latency"

/**
 * A section of a report: a summary, a table and charts.
 *
 * @stability experimental
 * @category options
 * @since 0.1.0
 */
export interface ReportSection {
  readonly figures: ScenarioFigures
  readonly verdict: Verdict.Headline
  readonly heads: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<string>>
  /** Explanations of the first cells of rows, by their text. */
  readonly explained?: ReadonlyMap<string, string> | undefined
  readonly notes: ReadonlyArray<string>
  /** The charts of the section. Empty ones are left out. */
  readonly charts: ReadonlyArray<Chart>
  /** Explains the bars of the first chart, as HTML. */
  readonly bars: string
}

/**
 * The content of a report.
 *
 * @stability experimental
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly title: string
  /** One sentence below the title. */
  readonly intro: string
  readonly sections: ReadonlyArray<ReportSection>
  /** The summary of the whole report. @default that of the only section */
  readonly verdict?: Verdict.Headline | undefined
  /** When and how the report was made. @default none */
  readonly provenance?: ReadonlyArray<readonly [name: string, value: string]> | undefined
  /** The scenarios that are shown on one screen, before their sections. @default none */
  readonly matrix?: ReadonlyArray<Matrix.RaceResults> | undefined
}

/** The browser builds of the charting library, from where it is installed. */
const libraries = (): ReadonlyArray<string> => {
  const here = createRequire(import.meta.url)
  const plot = dirname(dirname(here.resolve("@observablehq/plot")))
  const d3 = dirname(dirname(createRequire(join(plot, "package.json")).resolve("d3")))
  return [join(d3, "dist/d3.min.js"), join(plot, "dist/plot.umd.min.js")].map((file) => readFileSync(file, "utf8"))
}

/** The text of a script element, which must not contain the end of one. */
const inScript = (text: string): string => text.replaceAll("</script", "<\\/script")

const json = (value: unknown): string =>
  JSON.stringify(value).replaceAll("<", "\\u003c").replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029")

// -----------------------------------------------------------------------------
// The head
// -----------------------------------------------------------------------------

const verdictOf = ({ text }: Verdict.Headline): string =>
  text === "" ? "" : `<p class="verdict">${escapeHtml(text)}</p>`

const tilesOf = ({ tiles }: Verdict.Headline): string =>
  tiles.length === 0
    ? ""
    : `<ul class="tiles">${tiles
        .map(
          ({ label, tone, value }) =>
            `<li${tone === undefined ? "" : ` class="${tone}"`}><b>${escapeHtml(value)}</b><span>${escapeHtml(label.replaceAll(/(?<=\d)-(?=\d)/g, "\u2011"))}</span></li>`
        )
        .join("")}</ul>`

const factsOf = (provenance: Options["provenance"] = [], isOpen: boolean): string =>
  provenance.length === 0
    ? ""
    : `<details class="facts"${isOpen ? " open" : ""}><summary>How this was made</summary><dl>${provenance
        .map(([name, value]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`)
        .join("")}</dl></details>`

const summaries: ReadonlyMap<string, string> = new Map(Strategies.all.map(({ name, summary }) => [name, summary]))

/** The head of a row: its name, and its explanation if there is one. */
const rowHead = (name: string, explained: ReadonlyMap<string, string> | undefined): string => {
  const why = explained?.get(name)
  return `<th scope="row">${escapeHtml(name)}${why === undefined ? "" : `<span class="why">${escapeHtml(why)}</span>`}</th>`
}

/** The explanations below a table, always or only on a narrow screen, where rows have no room for them. */
const whysOf = (
  names: ReadonlyArray<string>,
  explained: ReadonlyMap<string, string> | undefined,
  isAlways: boolean
): string => {
  const known = names.flatMap((name) => {
    const why = explained?.get(name)
    return why === undefined ? [] : [`<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(why)}</dd>`]
  })
  return known.length === 0
    ? ""
    : `<details class="whys${isAlways ? " always" : ""}"><summary>What they do</summary><dl>${known.join("")}</dl></details>`
}

const usual = new Set(Strategies.usual.map(({ name }) => name))

const isUs = (name: string): string => (usual.has(name) && name.startsWith("floodgate") ? ' class="us"' : "")

/** The class of a cell: calls were lost, or it is as fast as the oracle. */
const toneOf = ({ kind, ratio = Infinity }: Matrix.MatrixCell): string => {
  if (kind !== "done") return ' class="lost"'
  return ratio <= 1.05 ? ' class="near"' : ""
}

const matrixCell = (cell: Matrix.MatrixCell): string =>
  `<td${toneOf(cell)}>${escapeHtml(cell.text)}<small>${Words.thousands(cell.rejections)}</small></td>`

const matrixTable = (races: ReadonlyArray<Matrix.RaceResults>, label: string): string =>
  `<div class="scroll" role="region" aria-label="${label}" tabindex="0"><table class="matrix"><thead><tr><th scope="col">strategy</th>${races
    .map(
      ({ name }) =>
        `<th scope="col"><a href="#${escapeHtml(name)}">${escapeHtml(name).replaceAll("-", "-<wbr>")}</a></th>`
    )
    .join("")}</tr></thead>
<tbody>${Matrix.rowsOf(races)
    .map(
      ({ cells, strategy }) =>
        `<tr${isUs(strategy)}>${rowHead(strategy, undefined)}${cells.map(matrixCell).join("")}</tr>`
    )
    .join("\n")}</tbody></table></div>`

/** The configuration of each strategy. */
const settingsOf = (names: ReadonlyArray<string>): string =>
  `<details class="whys always"><summary>How each is configured, and why</summary><dl>${Strategies.all
    .filter(({ name }) => names.includes(name))
    .map(
      ({ name, settings = "", summary, why = "" }) =>
        `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(summary)}.<br><code>${escapeHtml(settings)}</code><br>${escapeHtml(why)}</dd>`
    )
    .join("")}</dl><p class="muted">${escapeHtml(Strategies.about)}</p></details>`

const routers = new Set(Strategies.routers.map(({ name }) => name))

/** The usual strategies of scenarios, and all of them below. */
const tablesOf = (races: ReadonlyArray<Matrix.RaceResults>, label: string): string => {
  const few = races.map(({ name, results }) => ({
    name,
    results: results.filter(({ strategy }) => usual.has(strategy) || routers.has(strategy))
  }))
  const count = races[0]!.results.length
  if (few[0]!.results.length === count) return matrixTable(races, label)
  return `${matrixTable(few, label)}
<details class="whys always"><summary>All ${count} strategies</summary>${matrixTable(races, `${label} and strategies`)}</details>`
}

/** All scenarios on one screen, those with several places in a table of their own. */
const matrixOf = (races: Options["matrix"] = []): string => {
  if (races.length === 0) return ""
  const [one, ...others] = Matrix.tablesOf(races)
  const names = races.flatMap(({ results }) => results.map(({ strategy }) => strategy))
  return `<section id="all">
<h2>All scenarios</h2>
<p class="muted">Simulated seconds until all of the work was done (green: at most 5 % more than the oracle), or how many calls were lost; below it the 429s.</p>
${tablesOf(one!, "Table: all scenarios")}
${others.map((table) => tablesOf(table, "Table: scenarios with two places")).join("\n")}
${settingsOf(names)}
</section>`
}

// -----------------------------------------------------------------------------
// Sections
// -----------------------------------------------------------------------------

const key = (color: string, text: string, kind = ""): string =>
  `<span class="key"><i class="${kind}" style="background:var(${color})"></i>${escapeHtml(text)}</span>`

const figure = (chart: string, index: number, title: string, caption: string, wide = false): string =>
  // For screen readers a chart is an image with a name; its figures are in the table.
  `<figure${wide ? ' class="wide"' : ""}><h3>${title}</h3><div role="img" aria-label="${title}" data-chart="${chart}" data-scenario="${index}"></div>` +
  `<figcaption>${caption}</figcaption></figure>`

const row = (
  [name = "", ...cells]: ReadonlyArray<string>,
  explained: ReadonlyMap<string, string> | undefined
): string =>
  `<tr${isUs(name)}>${rowHead(name, explained)}${cells
    .map((cell) => `<td${/[*>]|never/.test(cell) ? ' class="bad"' : ""}>${escapeHtml(cell)}</td>`)
    .join("")}</tr>`

const sentence = (text: string): string => `${escapeHtml(text.slice(0, 1).toUpperCase() + text.slice(1))}.`

/** Whether each chart would show anything. */
const hasShapes = ({ floorSeconds, results, runs }: ScenarioFigures): Readonly<Record<Chart, boolean>> => ({
  // A single bar is only useful beside the floor.
  makespan: results.length > (floorSeconds > 0 ? 0 : 1),
  gantt: runs.some(({ bars }) => bars.length > 0),
  // A line needs two levels, and an unused budget has nothing to show.
  levels: runs.some(({ bars, levels }) => bars.length > 0 && levels.length > 1),
  rate: runs.some(({ rates }) => rates.some(({ perSecond }) => perSecond > 0)),
  latency: runs.some(({ latencies }) => latencies.length > 0)
})

/** A session is one bar, whatever its sub-agents do at the same time. */
const ganttTitle = (runs: ReadonlyArray<RunFigures>): string =>
  runs.some(({ bars }) => bars.some(({ what }) => what === "pauses"))
    ? "Sessions, each as one bar with its waits"
    : "Agents and their calls"

/** The keys of the chart of agents, only for colours that it has. */
const ganttKeys = (runs: ReadonlyArray<RunFigures>): string => {
  const shown = new Set(runs.flatMap(({ bars }) => bars.map(({ what }) => what)))
  return [
    key("--c1", "running"),
    ...(shown.has("waits") ? [key("--wait", "waiting")] : []),
    ...(shown.has("pauses") ? [key("--line", "pausing for tools", "line")] : []),
    ...(shown.has("rejected") ? [key("--bad", "429", "dot")] : []),
    ...(shown.has("failed") ? [key("--bad", "failed")] : []),
    ...(shown.has("earlier") ? [key("--early", "answered in an earlier run, waits included")] : [])
  ].join("")
}

/** The keys of the chart of levels. */
const levelKeys = (runs: ReadonlyArray<RunFigures>): string => {
  const levels = runs.flatMap((run) => run.levels)
  const known = levels.some(({ provider }) => provider !== null) ? key("--c1", "at the provider", "line") : ""
  const believed = levels.some(({ budget }) => budget !== null) ? key("--c2", "in the budget", "line") : ""
  return `${known}${believed}`
}

/** The place of each chart of a section, with its title and text. */
const places = (
  { bars, figures }: ReportSection,
  charts: ReadonlyArray<Chart>,
  index: number
): Readonly<Record<Chart, () => string>> => {
  const { dimension, limitPerSecond, runs } = figures
  const lines = runs
    .filter(({ latencies }) => latencies.length > 0)
    .map(({ strategy }, line) => key(`--c${(line % 8) + 1}`, strategy, "line"))
    .join("")
  const limit = limitPerSecond > 0 ? key("--bad", "limit", "line") : ""
  const used = runs.some(({ inUse }) => inUse.length > 0) ? key("--c2", "rate in use by the budget", "line") : ""
  return {
    makespan: () => figure("makespan", index, "How long it takes", bars, true),
    gantt: () => figure("gantt", index, ganttTitle(runs), ganttKeys(runs), true),
    levels: () => figure("levels", index, `What is left: ${escapeHtml(dimension)}`, levelKeys(runs)),
    rate: () =>
      figure(
        "rate",
        index,
        "Admitted a second",
        `${key("--c1", `${dimension} admitted`)}${limit}${used}`,
        !charts.includes("levels")
      ),
    latency: () =>
      figure("latency", index, runs.length < 2 ? "Latency of calls" : "Latency of calls, all in detail", lines, true)
  }
}

/** Lets the reader choose which of several runs is shown in detail. */
const choice = ({ figures: { runs } }: ReportSection, index: number): string => {
  if (runs.length < 2) return ""
  const chosen = Math.max(
    0,
    runs.findIndex(({ strategy }) => strategy === "floodgate")
  )
  const options = runs.map(
    ({ strategy }, run) => `<option value="${run}"${run === chosen ? " selected" : ""}>${escapeHtml(strategy)}</option>`
  )
  return `<p class="choose"><label>In detail: <select data-scenario="${index}">${options.join("")}</select></label></p>`
}

/** The figures of a section as tables, for readers who cannot read charts. */
const figuresOf = ({ figures: { runs } }: ReportSection, charts: ReadonlyArray<Chart>, index: number): string => {
  const kinds = [
    ["results", "the table above"],
    ...(charts.includes("gantt") ? [["calls", "agents and their calls"] as const] : []),
    ...(charts.includes("levels") ? [["left", "what is left"] as const] : []),
    ...(charts.includes("rate") ? [["rates", "admitted a second"] as const] : []),
    ...(charts.includes("latency") ? [["latencies", "latencies"] as const] : [])
  ] as const
  const of = runs.length < 2 ? "" : ", of the run that is shown in detail"
  const options = kinds.map(([kind, name]) => `<option value="${kind}">${name}${kind === "results" ? "" : of}</option>`)
  return `<details class="figures" data-figures="${index}"><summary>Figures as a table, and as CSV</summary>
<p><label>Figures: <select>${options.join("")}</select></label> <a href="#" download>Download as CSV</a> <span class="muted count"></span></p>
<div class="scroll" role="region" aria-label="Figures" tabindex="0"><table></table></div></details>`
}

/** In longer tables, explanations are below the table and not in its rows. */
const maxExplained = 10

/** A section in the page, folded if there are many. */
const framed = ({ figures, verdict }: ReportSection, isFolded: boolean, content: string): string => {
  const name = escapeHtml(figures.name)
  return isFolded
    ? `<details class="scenario" id="${name}"><summary><h2>${name}</h2> <span class="muted">${escapeHtml(verdict.text)}</span></summary>
${content}
</details>`
    : `<section id="${name}">
<h2>${name}</h2>
${content}
</section>`
}

const part = (section: ReportSection, index: number, isOnly: boolean, isFolded: boolean): string => {
  const { figures, heads, notes, rows, verdict } = section
  // Explanations within a long table would make it several screens long.
  const isLong = rows.length > maxExplained
  const some = hasShapes(figures)
  const charts = section.charts.filter((chart) => some[chart])
  const place = places(section, charts, index)
  const overall = charts.includes("makespan") ? `<div class="grid">${place.makespan()}</div>` : ""
  const detail = charts.filter((chart) => chart !== "makespan").map((chart) => place[chart]())
  return framed(
    section,
    isFolded,
    `<p>${sentence(figures.summary)}<br><span class="muted">Provider: ${escapeHtml(figures.provider)}.</span></p>
${isOnly || isFolded ? "" : verdictOf(verdict)}
<div class="scroll" role="region" aria-label="Table: ${escapeHtml(figures.name)}" tabindex="0"><table><thead><tr>${heads.map((head) => `<th scope="col">${escapeHtml(head)}</th>`).join("")}</tr></thead>
<tbody>${rows.map((cells) => row(cells, isLong ? undefined : section.explained)).join("\n")}</tbody></table></div>
<p class="muted">${notes.map(escapeHtml).join(" ")}</p>
${
  isFolded
    ? ""
    : whysOf(
        rows.map(([name = ""]) => name),
        section.explained,
        isLong
      )
}
${overall}
${choice(section, index)}
<div class="grid">${detail.join("\n")}</div>
${figuresOf(section, charts, index)}`
  )
}

/**
 * The part of a report about one scenario.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const ofScenario = (figures: ScenarioFigures): ReportSection => ({
  figures,
  verdict: Verdict.ofRace(figures),
  heads: Table.heads,
  rows: figures.results.map(Table.cells),
  explained: summaries,
  notes: ["Simulated seconds; latency includes waits.", ...Table.notesOf(figures.results).map((note) => `${note}.`)],
  charts: ["makespan", "gantt", "levels", "rate", "latency"],
  bars: `${key("--good", "floodgate")}${key("--c1", "done")}${key("--bad", "not done, or calls lost", "hollow")}${
    figures.floorSeconds > 0 &&
    figures.results.some(({ makespanSeconds }) => makespanSeconds > 6 * figures.floorSeconds)
      ? " Bars that are marked // are cut at six floors."
      : ""
  }`
})

/**
 * The intro of a race's report.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const raceIntro =
  "The same calls under each strategy, against a simulated provider. Every figure belongs to the provider model that stands above it."

/**
 * The report as HTML: one file, with the charting library, the figures and the drawing in it.
 *
 * **Details**
 *
 * Throws when the charting library is not installed.
 *
 * @stability experimental
 * @category rendering
 * @since 0.1.0
 */
export const render = ({ intro, matrix, provenance, sections, title, verdict }: Options): string => {
  const names = sections.map(({ figures }) => escapeHtml(figures.name))
  const links = names.map((name) => `<a href="#${name}">${name}</a>`)
  const isOnly = sections.length === 1
  // A page that begins with a table of all scenarios folds their sections.
  const isFolded = matrix !== undefined
  const whole = verdict ?? (isOnly ? sections[0]!.verdict : { text: "", tiles: [] })
  const data: Packed.PageData = {
    figures: sections.map(({ figures }) => Packed.pack(figures)),
    tables: sections.map(({ heads, rows }) => ({ heads, rows }))
  }
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<link rel="icon" href="data:,">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
<header>
<h1>${escapeHtml(title)}</h1>
${verdictOf(whole)}
${tilesOf(whole)}
<p class="muted">${escapeHtml(intro)}</p>
${factsOf(provenance, !isFolded)}
</header>
${matrixOf(matrix)}
${isOnly || isFolded ? "" : `<nav aria-label="Scenarios">${links.join("")}</nav>`}
${sections.map((section, index) => part(section, index, isOnly && verdict === undefined, isFolded)).join("\n")}
</main>
<script type="application/json" id="figures">${json(data)}</script>
${libraries()
  .map((text) => `<script>${inScript(text)}</script>`)
  .join("\n")}
<script type="module">${inScript(script)}</script>
</body>
</html>
`
}
