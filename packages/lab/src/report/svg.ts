/**
 * Renders charts as SVG files for READMEs, in light and dark.
 *
 * @stability experimental
 * @since 0.1.0
 */
import * as Plot from "@observablehq/plot"
import { parseHTML } from "linkedom"
import type { Measured } from "../awsStudy.ts"
import * as Charts from "./charts.ts"
import type { RunFigures, ScenarioFigures } from "./figures.ts"
import { variables } from "./theme.ts"

/**
 * A file: its name and its text.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface File {
  readonly name: string
  readonly text: string
}

const width = 760

/** A standalone SVG, with its namespace, its colours and its own background. */
const alone = (element: Charts.Drawn, title: string): string => {
  const svg = element.localName === "svg" ? element : element.querySelector("svg")
  if (svg === null) return ""
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg")
  svg.setAttribute("role", "img")
  svg.setAttribute("aria-label", title)
  const ground = `<style>${variables("svg")}svg{background:var(--panel)}</style>`
  // linkedom writes HTML; an SVG file is XML.
  return svg.outerHTML.replace(/^(<svg[^>]*>)/, `$1${ground}`).replaceAll("&nbsp;", "\u00A0")
}

const draw = (make: (charts: Charts.Charts, place: Charts.ChartPlace) => Charts.Drawn, title: string): string => {
  const { document } = parseHTML("<!doctype html><html><body></body></html>")
  return alone(make(Charts.make(Plot), { width, document }), title)
}

/**
 * The charts of a scenario: how long each strategy took, and each run in detail.
 *
 * @stability experimental
 * @category rendering
 * @since 0.1.0
 */
export const ofScenario = (figures: ScenarioFigures): ReadonlyArray<File> => [
  {
    name: `${figures.name}-makespan.svg`,
    text: draw((charts, place) => charts.makespan(figures, place), `${figures.name}: makespan by strategy`)
  },
  ...figures.runs.flatMap((run: RunFigures) => [
    {
      name: `${figures.name}-${run.strategy}-gantt.svg`,
      text: draw((charts, place) => charts.gantt(figures, run, place), `${figures.name}: agents under ${run.strategy}`)
    },
    {
      name: `${figures.name}-${run.strategy}-levels.svg`,
      text: draw(
        (charts, place) => charts.levels(figures, run, place),
        `${figures.name}: what is left under ${run.strategy}`
      )
    }
  ])
]

/**
 * The two charts of the AWS study.
 *
 * @stability experimental
 * @category rendering
 * @since 0.1.0
 */
export const ofStudy = (measured: ReadonlyArray<Measured>): ReadonlyArray<File> => [
  {
    name: "backoff-work.svg",
    text: draw((charts, place) => charts.study(measured, "work", place), "Writes tried, by jitter")
  },
  {
    name: "backoff-time.svg",
    text: draw((charts, place) => charts.study(measured, "millis", place), "Time until all have written, by jitter")
  }
]
