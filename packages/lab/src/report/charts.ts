/**
 * Draws the charts of a report with Observable Plot, in a page that opens offline and as SVG files.
 *
 * @stability experimental
 * @since 0.1.0
 */
import type * as ObservablePlot from "@observablehq/plot"
import { compact, percent, seconds, thousands } from "floodgate/internal/words"
import type { Measured } from "../awsStudy.ts"
import type { RunFigures, ScenarioFigures } from "./figures.ts"

/**
 * The place of a chart.
 *
 * @stability experimental
 * @category options
 * @since 0.1.0
 */
export interface ChartPlace {
  readonly width: number
  /** The document that creates the elements, outside of a browser. */
  readonly document?: object | undefined
}

/**
 * The element of a chart. Its type is stated here, because the sources are compiled without the types of a browser.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface Drawn {
  readonly localName: string
  readonly outerHTML: string
  readonly querySelector: (selector: string) => Drawn | null
  readonly setAttribute: (name: string, value: string) => void
}

/** The parts that all charts share: a copy of Plot, and the style of numbers, colours and axes. */
const kitOf = (library: object) => {
  const Plot = library as typeof ObservablePlot
  const palette = [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `var(--c${number})`)
  const narrow = (place: ChartPlace): boolean => place.width < 520
  /** Room for the names of the axes beside the numbers. */
  const room = { marginTop: 30, marginBottom: 42 }
  const along = { label: "seconds", labelOffset: 38, zero: true }
  /** Text over lines and bars has an outline in the colour of the panel. */
  const halo = { stroke: "var(--panel)", strokeWidth: 9, strokeLinejoin: "round" as const }
  /** The tooltip of a mark, only in a page. */
  const tipOf = <A>(place: ChartPlace, title: (datum: A) => string) =>
    place.document === undefined
      ? { title, tip: { fill: "var(--paper)", stroke: "var(--line)", lineHeight: 1.3, fontSize: 12 } }
      : {}
  const base = (place: ChartPlace) => ({
    width: place.width,
    document: place.document as never,
    style: { background: "transparent", color: "var(--ink)", fontFamily: "system-ui, sans-serif", fontSize: "12px" }
  })
  const draw = (options: ObservablePlot.PlotOptions): Drawn => Plot.plot(options) as unknown as Drawn
  return { Plot, palette, narrow, room, along, halo, tipOf, base, draw }
}

type Kit = ReturnType<typeof kitOf>

type ResultRow = ScenarioFigures["results"][number]

/** The bar of a strategy, and its label. */
const barsOf = ({ narrow }: Kit, { calls, floorSeconds, results }: ScenarioFigures, place: ChartPlace) => {
  const longest = Math.max(...results.map((result) => result.makespanSeconds))
  const max = floorSeconds > 0 ? Math.min(longest, 6 * floorSeconds) : longest
  const done = (result: ResultRow): boolean => result.finished && result.failedCalls === 0
  const end = (result: ResultRow): number => Math.min(result.makespanSeconds, max)
  const label = (result: ResultRow): string => {
    const time = seconds(result.makespanSeconds)
    if (done(result)) return time
    const missing = `${thousands(result.failedCalls)} ${result.finished ? "lost" : "open"}`
    if (narrow(place)) return `${missing}, ${time}`
    return `${missing} of ${thousands(calls)}, ${result.finished ? "ended after" : "stopped after"} ${time}`
  }
  const color = (result: ResultRow): string => {
    if (!done(result)) return "var(--bad)"
    return result.strategy === "floodgate" ? "var(--good)" : "var(--c1)"
  }
  /** A label is within its bar if there is no room beside it. */
  const inside = (result: ResultRow): boolean => end(result) > (narrow(place) ? 0.45 : 0.6) * max
  return { max, done, end, label, color, inside }
}

/** The line of the floor, if there is one. */
const floorMarks = ({ Plot }: Kit, floorSeconds: number) => {
  const floor = floorSeconds > 0 ? [floorSeconds] : []
  return [
    Plot.ruleX(floor, { stroke: "var(--ink)", strokeDasharray: "3,3" }),
    Plot.text(floor, {
      x: (value: number) => value,
      text: (value: number) => `floor ${seconds(value)}`,
      frameAnchor: "top",
      dy: -14,
      fill: "var(--muted)"
    })
  ]
}

/**
 * The time of each strategy, against the floor. The bar is hollow if calls were lost, because that time cannot be compared. Bars longer
 * than six floors are cut, with a mark.
 */
const makespan = (kit: Kit, figures: ScenarioFigures, place: ChartPlace): Drawn => {
  const { floorSeconds, results } = figures
  const { Plot, narrow, room, along, halo, tipOf, base, draw } = kit
  const { color, done, end, inside, label, max } = barsOf(kit, figures, place)
  const text = (inner: boolean, full: boolean) =>
    Plot.text(
      results.filter((result) => inside(result) === inner && (inner ? done(result) === full : full)),
      {
        y: "strategy",
        x: end,
        text: label,
        textAnchor: inner ? "end" : "start",
        dx: inner ? -6 : 6,
        fill: inner && full ? "var(--on)" : "var(--ink)",
        ...(inner ? {} : halo)
      }
    )
  const bar = {
    y: "strategy",
    x: end,
    rx: 2,
    insetTop: 2,
    insetBottom: 2,
    ...tipOf(
      place,
      (result: ResultRow) =>
        `${result.strategy}: ${label(result)}\n${thousands(result.rejections)} 429s, ${thousands(result.retries)} retries`
    )
  }
  return draw({
    ...base(place),
    height: 66 + 24 * results.length,
    marginLeft: narrow(place) ? 138 : 150,
    marginRight: 16,
    marginTop: 20,
    marginBottom: room.marginBottom,
    x: {
      domain: [0, max],
      label: along.label,
      labelOffset: along.labelOffset,
      ticks: narrow(place) ? 4 : 8,
      nice: false
    },
    y: { domain: results.map((result) => result.strategy), label: null, tickSize: 0 },
    marks: [
      Plot.barX(results.filter(done), { ...bar, fill: color }),
      Plot.barX(
        results.filter((result) => !done(result)),
        { ...bar, fill: color, fillOpacity: 0.12, stroke: color, strokeDasharray: "4,3" }
      ),
      // Where a bar is cut.
      Plot.text(
        results.filter((result) => result.makespanSeconds > max),
        {
          y: "strategy",
          x: max,
          dx: 2,
          text: () => "//",
          fontSize: 20,
          fontWeight: "bold",
          fill: "var(--panel)",
          stroke: "var(--ink)",
          strokeWidth: 1
        }
      ),
      ...floorMarks(kit, floorSeconds),
      text(true, true),
      text(true, false),
      text(false, true)
    ]
  })
}

/** The levels of the provider, and those that the budget assumes. */
const levels = (kit: Kit, { dimension }: ScenarioFigures, { levels }: RunFigures, place: ChartPlace): Drawn => {
  const { Plot, room, along, tipOf, base, draw } = kit
  const known = levels.filter((level) => level.provider !== null)
  const believed = levels.filter((level) => level.budget !== null)
  const tip = tipOf(place, ({ at, budget, provider }: (typeof levels)[number]) =>
    [
      `after ${seconds(at)}`,
      ...(provider === null ? [] : [`${thousands(provider)} at the provider`]),
      ...(budget === null ? [] : [`${thousands(budget)} in the budget`])
    ].join("\n")
  )
  return draw({
    ...base(place),
    ...room,
    height: 242,
    marginLeft: 52,
    x: { ...along, nice: false },
    y: { label: `${dimension} left`, tickFormat: compact, ticks: 5, grid: true },
    marks: [
      Plot.ruleY([0], { stroke: "var(--line)" }),
      Plot.areaY(known, { x: "at", y1: 0, y2: "provider", fill: "var(--c1)", fillOpacity: 0.18 }),
      Plot.lineY(known, { x: "at", y: "provider", stroke: "var(--c1)", strokeWidth: 1.5, ...tip }),
      Plot.lineY(believed, {
        x: "at",
        y: "budget",
        stroke: "var(--c2)",
        strokeWidth: 1.5,
        strokeDasharray: "4,3",
        ...(known.length === 0 ? tip : {})
      })
    ]
  })
}

/** The admitted tokens per second, against the limit and the rate of the budget. */
const rate = (
  kit: Kit,
  { dimension, limitPerSecond }: ScenarioFigures,
  { inUse, rates }: RunFigures,
  place: ChartPlace
): Drawn => {
  const { Plot, room, along, halo, tipOf, base, draw } = kit
  return draw({
    ...base(place),
    ...room,
    height: 242,
    marginLeft: 52,
    x: along,
    y: { label: `${dimension} admitted a second`, tickFormat: compact, ticks: 5, grid: true, zero: true },
    marks: [
      Plot.rectY(rates, {
        x1: "from",
        x2: "to",
        y: "perSecond",
        fill: "var(--c1)",
        insetLeft: 0.5,
        insetRight: 0.5,
        ...tipOf(
          place,
          ({ from, perSecond, to }: (typeof rates)[number]) =>
            `${seconds(from)} to ${seconds(to)}\n${thousands(perSecond)} ${dimension} a second`
        )
      }),
      Plot.ruleY([0], { stroke: "var(--line)" }),
      Plot.ruleY(limitPerSecond > 0 ? [limitPerSecond] : [], { stroke: "var(--bad)", strokeDasharray: "4,3" }),
      Plot.text(limitPerSecond > 0 ? [limitPerSecond] : [], {
        y: (value: number) => value,
        text: (value: number) => `limit ${compact(value)}/s`,
        frameAnchor: "right",
        textAnchor: "end",
        dy: -8,
        fill: "var(--bad)",
        ...halo
      }),
      Plot.lineY(inUse, { x: "at", y: "perSecond", stroke: "var(--c2)", strokeWidth: 1.5, curve: "step-after" })
    ]
  })
}

/** Draws when each agent waited, ran and was rejected. */
const gantt = (kit: Kit, { agents }: ScenarioFigures, { bars, resumed }: RunFigures, place: ChartPlace): Drawn => {
  const { Plot, room, along, tipOf, base, draw } = kit
  type Bar = (typeof bars)[number]
  const of = (what: string) => bars.filter((bar) => bar.what === what)
  const does: Record<Bar["what"], string> = {
    waits: "waits",
    runs: "call runs",
    failed: "request fails",
    rejected: "429",
    earlier: "call of an earlier run, waits included",
    pauses: "pauses for its tools"
  }
  const tip = tipOf(place, ({ agent, from, to, what }: Bar) => {
    const when = what === "rejected" ? `after ${seconds(from)}` : `${seconds(from)} to ${seconds(to)}`
    return `${agent}: ${does[what]}\n${when}`
  })
  const few = agents.length <= 24
  /** Names need more room than bars, so not every one of many agents is named. */
  const named = few ? agents : agents.filter((_, index) => index % 3 === 0)
  const inset = few ? 3 : 0.5
  const bar = (what: Bar["what"], look: ObservablePlot.BarXOptions) =>
    Plot.barX(of(what), { y: "agent", x1: "from", x2: "to", insetTop: inset, insetBottom: inset, ...look, ...tip })
  return draw({
    ...base(place),
    marginTop: resumed.length === 0 ? 10 : 20,
    marginBottom: room.marginBottom,
    height: (resumed.length === 0 ? 52 : 62) + agents.length * (few ? 18 : 5),
    marginLeft: Math.max(70, 10 + 7 * Math.max(...named.map((agent) => Math.min(agent.length, 20)))),
    x: along,
    y: { domain: agents, label: null, tickSize: 0, ticks: named },
    marks: [
      Plot.ruleY(of("pauses"), { y: "agent", x1: "from", x2: "to", stroke: "var(--line)", ...tip }),
      // A pause is a line, from which waits must differ.
      bar("waits", {
        fill: "var(--wait)",
        ...(of("pauses").length === 0 ? { insetTop: inset * 2, insetBottom: inset * 2 } : {})
      }),
      bar("earlier", { fill: "var(--early)" }),
      bar("runs", { fill: "var(--c1)", rx: few ? 2 : 0 }),
      bar("failed", { fill: "var(--bad)" }),
      Plot.dot(of("rejected"), {
        y: "agent",
        x: "from",
        r: few ? 2.5 : 1.2,
        fill: "var(--bad)",
        fillOpacity: 0.8,
        ...tip
      }),
      Plot.ruleX(resumed, { stroke: "var(--ink)", strokeDasharray: "2,3" }),
      Plot.text(resumed, {
        x: (at: number) => at,
        text: () => "resumed",
        frameAnchor: "top",
        textAnchor: "start",
        dx: 4,
        dy: -10,
        fill: "var(--muted)"
      })
    ]
  })
}

/** The share of calls that were done within a time, including waits. */
const latency = (kit: Kit, { runs }: ScenarioFigures, place: ChartPlace): Drawn => {
  const { Plot, palette, narrow, room, along, tipOf, base, draw } = kit
  /** A logarithmic axis has no zero. */
  const minSeconds = 0.01
  const some = runs.filter((run) => run.latencies.length > 0)
  const longest = Math.max(...some.map((run) => run.latencies.at(-1)!))
  const shortest = Math.min(...some.map((run) => Math.max(minSeconds, run.latencies[0]!)))
  // Whole decades, so that the axis starts and ends at round numbers.
  const domain = [10 ** Math.floor(Math.log10(shortest)), 10 ** Math.ceil(Math.log10(longest * 1.001))]
  // The line of the library is solid. Each line that is drawn over it has wider gaps than the one before, so that lines that
  // coincide all stay visible.
  const drawn = some.toSorted((a, b) => Number(b.strategy === "floodgate") - Number(a.strategy === "floodgate"))
  const unit = drawn.length > 5 ? 4 : 6
  const period = unit * drawn.length
  const points = ({ done, latencies, planned }: RunFigures) => {
    const line = latencies.map((seconds, index) => ({
      seconds: Math.max(minSeconds, seconds),
      share: (((index + 1) / latencies.length) * done) / planned
    }))
    // A line that does not reach the top continues to the right: the missing part was never done.
    return done < planned ? [...line, { ...line.at(-1)!, seconds: domain[1]! }] : line
  }
  return draw({
    ...base(place),
    ...room,
    height: 262,
    marginLeft: 44,
    marginRight: 16,
    x: {
      type: "log",
      domain,
      label: narrow(place) ? "latency in seconds (log scale)" : "latency in seconds (log scale), waits included",
      labelOffset: along.labelOffset,
      tickFormat: compact,
      ticks: narrow(place) ? 3 : 6,
      grid: true
    },
    y: { label: "% of all calls done", percent: true, grid: true, domain: [0, 100] },
    marks: drawn.map((run, index) =>
      Plot.lineY(points(run), {
        x: "seconds",
        y: "share",
        stroke: palette[some.indexOf(run) % palette.length]!,
        strokeWidth: 1.8,
        ...(index > 0 && { strokeDasharray: `${period - unit * index},${unit * index}` }),
        curve: "step-after",
        ...tipOf(
          place,
          ({ seconds: at, share }: ReturnType<typeof points>[number]) =>
            `${run.strategy}\n${percent(share, 0)} of all calls within ${seconds(at)}`
        )
      })
    )
  })
}

/** The AWS study: work or time by the number of clients, a line for each jitter. */
const study = (kit: Kit, measured: ReadonlyArray<Measured>, of: "work" | "millis", place: ChartPlace): Drawn => {
  const { Plot, palette, room, along, base, draw } = kit
  const jitters = [...new Set(measured.map((one) => one.jitter))]
  const shown = of === "millis" ? measured.filter((one) => one.jitter !== "none") : measured
  const last = Math.max(...measured.map((one) => one.clients))
  const ends = shown.filter((one) => one.clients === last).toSorted((a, b) => a[of] - b[of])
  const range = Math.max(...shown.map((one) => one[of]))
  // Labels keep a distance from each other, even if the lines do not.
  let lowest = -Infinity
  const labels = ends.map((one) => {
    lowest = Math.max(one[of], lowest + range * 0.055)
    return { ...one, at: lowest }
  })
  return draw({
    ...base(place),
    ...room,
    height: 342,
    marginLeft: 56,
    marginRight: 96,
    x: { label: "clients", labelOffset: along.labelOffset, domain: [10, last] },
    y: {
      label: of === "work" ? "writes tried by all" : "seconds until all have written",
      grid: true,
      tickFormat: of === "work" ? compact : (value: number) => `${value / 1_000}`
    },
    color: { domain: jitters, range: palette },
    marks: [
      Plot.ruleY([0], { stroke: "var(--line)" }),
      Plot.lineY(shown, { x: "clients", y: of, stroke: "jitter", strokeWidth: 1.8 }),
      Plot.text(labels, { x: "clients", y: "at", text: "jitter", fill: "jitter", textAnchor: "start", dx: 6 })
    ]
  })
}

/**
 * The charts by name.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export type Charts = ReturnType<typeof make>

/**
 * Makes the charts with a copy of Plot. Its types are not named here, because projects that check their libraries would check them too.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const make = (library: object) => {
  const kit = kitOf(library)
  return {
    palette: kit.palette,
    makespan: (figures: ScenarioFigures, place: ChartPlace) => makespan(kit, figures, place),
    levels: (figures: ScenarioFigures, run: RunFigures, place: ChartPlace) => levels(kit, figures, run, place),
    rate: (figures: ScenarioFigures, run: RunFigures, place: ChartPlace) => rate(kit, figures, run, place),
    gantt: (figures: ScenarioFigures, run: RunFigures, place: ChartPlace) => gantt(kit, figures, run, place),
    latency: (figures: ScenarioFigures, place: ChartPlace) => latency(kit, figures, place),
    study: (measured: ReadonlyArray<Measured>, of: "work" | "millis", place: ChartPlace) =>
      study(kit, measured, of, place)
  }
}
