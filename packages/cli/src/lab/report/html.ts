/**
 * A report as one HTML file that opens offline: its charts are drawn in the page, from the figures that are in it.
 *
 * @since 0.1.0
 */
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import * as Table from "../table.ts"
import * as Charts from "./charts.ts"
import type { ScenarioFigures } from "./figures.ts"
import { variables } from "./theme.ts"

/**
 * The names of the charts that a section can show, see `Charts`.
 *
 * @category options
 * @since 0.1.0
 */
export type Chart = "makespan" | "gantt" | "levels" | "rate" | "latency"

/**
 * A part of a report: a table, and charts of its figures.
 *
 * @category options
 * @since 0.1.0
 */
export interface Section {
  readonly figures: ScenarioFigures
  readonly heads: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<string>>
  readonly notes: ReadonlyArray<string>
  /** Those in which there is nothing to see are left out. */
  readonly charts: ReadonlyArray<Chart>
  /** What the bars of the first chart are, in words. */
  readonly bars: string
}

/**
 * What a report shows.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly title: string
  /** One sentence below the title. */
  readonly intro: string
  readonly sections: ReadonlyArray<Section>
}

const escape = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;")

/** The browser builds of the charting library, from where it is installed. */
const libraries = (): ReadonlyArray<string> => {
  const here = createRequire(import.meta.url)
  const plot = dirname(dirname(here.resolve("@observablehq/plot")))
  const d3 = dirname(dirname(createRequire(join(plot, "package.json")).resolve("d3")))
  return [join(d3, "dist/d3.min.js"), join(plot, "dist/plot.umd.min.js")].map((file) => readFileSync(file, "utf8"))
}

/** A script in a page must not hold the end of a script. */
const script = (text: string): string => `<script>${text.replaceAll("</script", "<\\/script")}</script>`

const json = (value: unknown): string =>
  JSON.stringify(value).replaceAll("<", "\\u003c").replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029")

const style = `
:root{color-scheme:light dark}
${variables(":root")}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:26px;line-height:1.2;margin:8px 0 4px}
h2{font-size:20px;margin:48px 0 4px;padding-top:16px;border-top:1px solid var(--line)}
h3{font-size:14px;margin:0 0 6px;font-weight:600}
p{margin:4px 0 12px}
.muted{color:var(--muted)}
nav{display:flex;flex-wrap:wrap;gap:6px 14px;margin:12px 0}
a{color:var(--c1)}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch;background:linear-gradient(270deg,var(--paper) 40%,transparent) right/48px 100% no-repeat local,linear-gradient(270deg,var(--wait),transparent) right/20px 100% no-repeat scroll}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px;width:100%;white-space:nowrap}
th,td{padding:4px 10px;text-align:right;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
th{color:var(--muted);font-weight:600}
tr.us td{font-weight:600}
td.bad{color:var(--bad)}
figure{margin:0;min-width:0;background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:14px}
figure>div{min-height:60px}
figcaption{color:var(--muted);font-size:12.5px;margin-top:6px}
.grid{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px;margin:16px 0}
.wide{grid-column:1/-1}
@media (max-width:760px){.grid{grid-template-columns:minmax(0,1fr)}main{padding:12px 12px 48px}figure{padding:10px}}
label{font-size:13px;color:var(--muted)}
select{font:inherit;font-size:14px;color:var(--ink);background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:3px 6px;margin-left:6px}
.key{display:inline-flex;align-items:center;vertical-align:middle;gap:5px;margin-right:12px;white-space:nowrap}
.key i{width:12px;height:12px;border-radius:2px;display:inline-block}
.key i.line{height:3px}
.key i.dot{width:8px;height:8px;border-radius:50%}
svg{display:block;max-width:100%;overflow:visible}
details{margin-top:8px}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:11px;max-height:240px;overflow:auto}
@media print{.choose,details{display:none}figure{break-inside:avoid}.key i{print-color-adjust:exact}.scroll{overflow:visible;background:none}table{font-size:9px;white-space:normal}th,td{padding:3px 4px}}
`

const key = (color: string, text: string, kind = ""): string =>
  `<span class="key"><i class="${kind}" style="background:var(${color})"></i>${escape(text)}</span>`

const figure = (chart: string, index: number, title: string, caption: string, wide = false): string =>
  // To those who cannot see it, a chart is a picture with a name: its figures are in the table, not in a hundred ticks.
  `<figure${wide ? ' class="wide"' : ""}><h3>${title}</h3><div role="img" aria-label="${title}" data-chart="${chart}" data-scenario="${index}"></div>` +
  `<figcaption>${caption}</figcaption></figure>`

const row = (cells: ReadonlyArray<string>): string =>
  `<tr${cells[0] === "floodgate" ? ' class="us"' : ""}>${cells
    .map((cell, index) => `<td${index === 1 && /[*>]|never/.test(cell) ? ' class="bad"' : ""}>${escape(cell)}</td>`)
    .join("")}</tr>`

const sentence = (text: string): string => `${escape(text.slice(0, 1).toUpperCase() + text.slice(1))}.`

/** Whether there is something to see in each chart. */
const hasShapes = ({ results, runs }: ScenarioFigures): Readonly<Record<Chart, boolean>> => ({
  makespan: results.length > 0,
  gantt: runs.some(({ bars }) => bars.length > 0),
  // One level is no line.
  levels: runs.some(({ levels }) => levels.length > 1),
  rate: runs.some(({ rates }) => rates.some(({ perSecond }) => perSecond > 0)),
  latency: runs.some(({ latencies }) => latencies.length > 0)
})

/** The place of each chart of a section, with what it says. */
const places = (
  { bars, figures }: Section,
  charts: ReadonlyArray<Chart>,
  index: number
): Readonly<Record<Chart, () => string>> => {
  const lines = figures.runs
    .filter(({ latencies }) => latencies.length > 0)
    .map(({ strategy }, line) => key(`--c${(line % 5) + 1}`, strategy, "line"))
    .join("")
  const known = figures.runs.some(({ levels }) => levels.some(({ provider }) => provider !== null))
  const running = `${key("--c1", "running")}${key("--wait", "waiting")}${key("--bad", "429", "dot")}${key("--bad", "failed")}`
  const left = `${known ? key("--c1", "at the provider", "line") : ""}${key("--c2", "in the budget", "line")}`
  const limit = figures.limitPerSecond > 0 ? key("--bad", "limit", "line") : ""
  const admitted = `${key("--c1", `${figures.dimension} admitted`)}${limit}`
  return {
    makespan: () => figure("makespan", index, "How long it takes", bars, true),
    gantt: () => figure("gantt", index, "Agents and their calls", running, true),
    levels: () => figure("levels", index, `What is left: ${escape(figures.dimension)}`, left),
    rate: () => figure("rate", index, "Admitted a second", admitted, !charts.includes("levels")),
    latency: () => figure("latency", index, "Latency of calls, all that are shown in detail", lines, true)
  }
}

/** Lets the reader choose which run is shown in detail, where there are several. */
const choice = ({ figures: { runs } }: Section, index: number): string => {
  if (runs.length < 2) return ""
  const chosen = Math.max(
    0,
    runs.findIndex(({ strategy }) => strategy === "floodgate")
  )
  const options = runs.map(
    ({ strategy }, run) => `<option value="${run}"${run === chosen ? " selected" : ""}>${escape(strategy)}</option>`
  )
  return `<p class="choose"><label>In detail: <select data-scenario="${index}">${options.join("")}</select></label></p>`
}

const part = (section: Section, index: number): string => {
  const { figures, heads, notes, rows } = section
  const some = hasShapes(figures)
  const charts = section.charts.filter((chart) => some[chart])
  const place = places(section, charts, index)
  const overall = charts.includes("makespan") ? `<div class="grid">${place.makespan()}</div>` : ""
  const detail = charts.filter((chart) => chart !== "makespan").map((chart) => place[chart]())
  return `<section id="${escape(figures.name)}">
<h2>${escape(figures.name)}</h2>
<p>${sentence(figures.summary)}<br><span class="muted">Provider: ${escape(figures.provider)}.</span></p>
<div class="scroll" role="region" aria-label="Table: ${escape(figures.name)}" tabindex="0"><table><thead><tr>${heads.map((head) => `<th scope="col">${escape(head)}</th>`).join("")}</tr></thead>
<tbody>${rows.map(row).join("\n")}</tbody></table></div>
<p class="muted">${notes.map(escape).join(" ")}</p>
${overall}
${choice(section, index)}
<div class="grid">${detail.join("\n")}</div>
<details><summary>Figures behind the charts</summary><pre data-figures="${index}"></pre></details>
</section>`
}

/**
 * The part of a report about one scenario.
 *
 * @category constructors
 * @since 0.1.0
 */
export const ofScenario = (figures: ScenarioFigures): Section => ({
  figures,
  heads: Table.heads,
  rows: figures.results.map(Table.cells),
  notes: ["Simulated seconds; latency includes waits.", ...Table.notesOf(figures.results).map((note) => `${note}.`)],
  charts: ["makespan", "gantt", "levels", "rate", "latency"],
  bars: `${key("--good", "floodgate")}${key("--c1", "done")}${key("--bad", "not done, or calls failed")} Bars beyond six floors are cut.`
})

/**
 * What stands below the title of a race's report.
 *
 * @category constructors
 * @since 0.1.0
 */
export const raceIntro =
  "The same calls under each strategy, against a simulated provider. Every figure belongs to the provider model that stands above it."

/** Draws every chart into its place, and again when the place or the choice changes. */
const client = `
const report = JSON.parse(document.getElementById("figures").textContent)
const charts = makeCharts(Plot)
const chosen = report.figures.map((s) => Math.max(0, s.runs.findIndex((r) => r.strategy === "floodgate")))
const draw = (place) => {
  const width = Math.floor(place.clientWidth)
  if (width < 40) return
  const index = Number(place.dataset.scenario)
  const figures = report.figures[index]
  const run = figures.runs[chosen[index]]
  const name = place.dataset.chart
  const element = name === "makespan" || name === "latency"
    ? charts[name](figures, { width })
    : run === undefined ? undefined : charts[name](figures, run, { width })
  if (element !== undefined) place.replaceChildren(element)
  place.dataset.width = String(width)
}
const places = [...document.querySelectorAll("[data-chart]")]
for (const place of places) draw(place)
const resized = new ResizeObserver((entries) => {
  for (const { target } of entries) if (target.dataset.width !== String(Math.floor(target.clientWidth))) draw(target)
})
for (const place of places) resized.observe(place)
for (const select of document.querySelectorAll("select[data-scenario]")) {
  select.addEventListener("change", () => {
    chosen[Number(select.dataset.scenario)] = Number(select.value)
    for (const place of places) if (place.dataset.scenario === select.dataset.scenario) draw(place)
  })
}
for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", () => {
    const pre = details.querySelector("pre")
    if (details.open && pre.textContent === "") pre.textContent = JSON.stringify(report.figures[Number(pre.dataset.figures)])
  })
}
document.documentElement.dataset.drawn = "true"
`

/**
 * The report as HTML: one file, with the charting library, the figures and the drawing in it.
 *
 * **Details**
 *
 * Throws when the charting library is not installed.
 *
 * @category rendering
 * @since 0.1.0
 */
export const render = ({ intro, sections, title }: Options): string => {
  const names = sections.map(({ figures }) => escape(figures.name))
  const links = names.map((name) => `<a href="#${name}">${name}</a>`)
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<link rel="icon" href="data:,">
<title>${escape(title)}</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escape(title)}</h1>
<p class="muted">${escape(intro)}</p>
${sections.length > 1 ? `<nav>${links.join("")}</nav>` : ""}
${sections.map(part).join("\n")}
</main>
<script type="application/json" id="figures">${json({ figures: sections.map(({ figures }) => figures) })}</script>
${libraries().map(script).join("\n")}
${script(`const makeCharts = ${Charts.make.toString()};${client}`)}
</body>
</html>
`
}
