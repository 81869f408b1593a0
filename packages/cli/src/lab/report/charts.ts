/**
 * The charts of a report, drawn by Observable Plot: in a page that opens offline, and as SVG files.
 *
 * @since 0.1.0
 */
import type * as ObservablePlot from "@observablehq/plot"
import type { Measured } from "../awsStudy.ts"
import type { RunFigures, ScenarioFigures } from "./figures.ts"

/**
 * Where a chart is drawn.
 *
 * @category options
 * @since 0.1.0
 */
export interface Place {
  readonly width: number
  /** The document that makes the elements, outside of a browser. */
  readonly document?: object | undefined
}

/**
 * What a chart is made of, as far as a report must know: the library runs without the types of a browser.
 *
 * @category models
 * @since 0.1.0
 */
export interface Drawn {
  readonly localName: string
  readonly outerHTML: string
  readonly querySelector: (selector: string) => Drawn | null
  readonly setAttribute: (name: string, value: string) => void
}

/**
 * The charts by name.
 *
 * @category models
 * @since 0.1.0
 */
export type Charts = ReturnType<typeof make>

/**
 * Makes the charts with a copy of Plot. Its types are not named here: those who check their libraries would check it too.
 *
 * **Gotchas**
 *
 * A page gets this function as its text: it uses nothing but its argument, and the CSS variables `--ink`, `--muted`,
 * `--line`, `--good`, `--bad`, `--wait`, `--c1` to `--c5`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (library: object) => {
  const Plot = library as typeof ObservablePlot
  const palette = ["var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)"]
  const count = (value: number): string => value.toLocaleString("en-US")
  const short = (value: number): string => {
    const figures = (scale: number): string => `${Number((value / scale).toPrecision(3))}`
    if (Math.abs(value) >= 1e6) return `${figures(1e6)}M`
    return Math.abs(value) >= 1e3 ? `${figures(1e3)}K` : figures(1)
  }
  const seconds = (value: number): string => `${value < 1_000 ? value.toFixed(1) : count(Math.round(value))} s`
  const narrow = (place: Place): boolean => place.width < 520
  /** Room for the names of the axes beside the numbers. */
  const room = { marginTop: 30, marginBottom: 42 }
  const along = { label: "seconds", labelOffset: 38, zero: true }
  /** Text over lines and bars stands on the colour of the panel. */
  const halo = { stroke: "var(--panel)", strokeWidth: 9, strokeLinejoin: "round" as const }
  const base = (place: Place) => ({
    width: place.width,
    document: place.document as never,
    style: { background: "transparent", color: "var(--ink)", fontFamily: "system-ui, sans-serif", fontSize: "12px" }
  })
  const plot = (options: ObservablePlot.PlotOptions): Drawn => Plot.plot(options) as unknown as Drawn

  /** How long each strategy took, against the floor. Bars that are longer than six floors are cut. */
  const makespan = ({ floorSeconds, results }: ScenarioFigures, place: Place): Drawn => {
    const longest = Math.max(...results.map((result) => result.makespanSeconds))
    const most = floorSeconds > 0 ? Math.min(longest, 6 * floorSeconds) : longest
    const done = (result: (typeof results)[number]): boolean => result.finished && result.failedCalls === 0
    const label = (result: (typeof results)[number]): string => {
      const cut = result.finished ? "" : "> "
      const time = `${cut}${seconds(result.makespanSeconds)}`
      if (result.failedCalls === 0) return time
      const failed = count(result.failedCalls)
      return narrow(place) ? `${time} (${failed} ✗)` : `${time}, ${failed} calls not done`
    }
    const color = (result: (typeof results)[number]): string => {
      if (!done(result)) return "var(--bad)"
      return result.strategy === "floodgate" ? "var(--good)" : "var(--c1)"
    }
    const inside = (result: (typeof results)[number]): boolean => Math.min(result.makespanSeconds, most) > 0.55 * most
    const text = (inner: boolean) =>
      Plot.text(
        results.filter((result) => inside(result) === inner),
        {
          y: "strategy",
          x: (result: (typeof results)[number]) => Math.min(result.makespanSeconds, most),
          text: label,
          textAnchor: inner ? "end" : "start",
          dx: inner ? -6 : 6,
          fill: inner ? "var(--on)" : "var(--ink)",
          ...(inner ? {} : halo)
        }
      )
    return plot({
      ...base(place),
      height: 40 + 24 * results.length,
      marginLeft: narrow(place) ? 138 : 150,
      marginRight: 16,
      marginTop: 20,
      marginBottom: 20,
      x: { domain: [0, most], axis: null },
      y: { domain: results.map((result) => result.strategy), label: null, tickSize: 0 },
      marks: [
        Plot.barX(results, {
          y: "strategy",
          x: (result: (typeof results)[number]) => Math.min(result.makespanSeconds, most),
          fill: color,
          fillOpacity: (result: (typeof results)[number]) => (done(result) ? 1 : 0.75),
          rx: 2,
          insetTop: 2,
          insetBottom: 2
        }),
        Plot.ruleX(floorSeconds > 0 ? [floorSeconds] : [], { stroke: "var(--ink)", strokeDasharray: "3,3" }),
        Plot.text(floorSeconds > 0 ? [floorSeconds] : [], {
          x: (value: number) => value,
          text: (value: number) => `floor ${seconds(value)}`,
          frameAnchor: "top",
          dy: -14,
          fill: "var(--muted)"
        }),
        text(true),
        text(false)
      ]
    })
  }

  /** What is left: as the provider has it, and as the budget believes. */
  const levels = ({ dimension }: ScenarioFigures, { levels }: RunFigures, place: Place): Drawn => {
    const known = levels.filter((level) => level.provider !== null)
    return plot({
      ...base(place),
      ...room,
      height: 242,
      marginLeft: 52,
      x: { ...along, nice: false },
      y: { label: `${dimension} left`, tickFormat: short, ticks: 5, grid: true },
      marks: [
        Plot.ruleY([0], { stroke: "var(--line)" }),
        Plot.areaY(known, { x: "at", y1: 0, y2: "provider", fill: "var(--c1)", fillOpacity: 0.18 }),
        Plot.lineY(known, { x: "at", y: "provider", stroke: "var(--c1)", strokeWidth: 1.5 }),
        Plot.lineY(
          levels.filter((level) => level.budget !== null),
          { x: "at", y: "budget", stroke: "var(--c2)", strokeWidth: 1.5, strokeDasharray: "4,3" }
        )
      ]
    })
  }

  /** What was admitted per second, against the limit and the rate that the budget used. */
  const rate = ({ dimension, limitPerSecond }: ScenarioFigures, { inUse, rates }: RunFigures, place: Place): Drawn =>
    plot({
      ...base(place),
      ...room,
      height: 242,
      marginLeft: 52,
      x: along,
      y: { label: `${dimension} admitted a second`, tickFormat: short, ticks: 5, grid: true, zero: true },
      marks: [
        Plot.rectY(rates, { x1: "from", x2: "to", y: "perSecond", fill: "var(--c1)", insetLeft: 0.5, insetRight: 0.5 }),
        Plot.ruleY([0], { stroke: "var(--line)" }),
        Plot.ruleY(limitPerSecond > 0 ? [limitPerSecond] : [], { stroke: "var(--bad)", strokeDasharray: "4,3" }),
        Plot.text(limitPerSecond > 0 ? [limitPerSecond] : [], {
          y: (value: number) => value,
          text: (value: number) => `limit ${short(value)}/s`,
          frameAnchor: "right",
          textAnchor: "end",
          dy: -8,
          fill: "var(--bad)",
          ...halo
        }),
        Plot.lineY(inUse, { x: "at", y: "perSecond", stroke: "var(--c2)", strokeWidth: 1.5, curve: "step-after" })
      ]
    })

  /** When each agent waited, ran and was rejected. */
  const gantt = ({ agents }: ScenarioFigures, { bars }: RunFigures, place: Place): Drawn => {
    const of = (what: string) => bars.filter((bar) => bar.what === what)
    const few = agents.length <= 24
    /** Names need more room than bars: of many agents not all are named. */
    const named = few ? agents : agents.filter((_, index) => index % 3 === 0)
    const inset = few ? 3 : 0.5
    return plot({
      ...base(place),
      marginTop: 10,
      marginBottom: room.marginBottom,
      height: 52 + agents.length * (few ? 18 : 5),
      marginLeft: Math.max(70, 10 + 7 * Math.max(...named.map((agent) => Math.min(agent.length, 20)))),
      x: along,
      y: { domain: agents, label: null, tickSize: 0, ticks: named },
      marks: [
        Plot.barX(of("waits"), {
          y: "agent",
          x1: "from",
          x2: "to",
          fill: "var(--wait)",
          insetTop: inset * 2,
          insetBottom: inset * 2
        }),
        Plot.barX(of("runs"), {
          y: "agent",
          x1: "from",
          x2: "to",
          fill: "var(--c1)",
          insetTop: inset,
          insetBottom: inset,
          rx: few ? 2 : 0
        }),
        Plot.barX(of("failed"), {
          y: "agent",
          x1: "from",
          x2: "to",
          fill: "var(--bad)",
          insetTop: inset,
          insetBottom: inset
        }),
        Plot.dot(of("rejected"), { y: "agent", x: "from", r: few ? 2.5 : 1.2, fill: "var(--bad)", fillOpacity: 0.8 })
      ]
    })
  }

  /** How large a part of all calls was done within which time, waits included. */
  const latency = ({ runs }: ScenarioFigures, place: Place): Drawn => {
    const some = runs.filter((run) => run.latencies.length > 0)
    const longest = Math.max(...some.map((run) => run.latencies.at(-1)!))
    // The line of the library is whole; those that are drawn over it have gaps, the last most, so that where several take
    // as long each of them is seen.
    const drawn = some.toSorted((a, b) => Number(b.strategy === "floodgate") - Number(a.strategy === "floodgate"))
    const period = 6 * drawn.length
    const points = ({ done, latencies, planned }: RunFigures) => {
      const line = latencies.map((seconds, index) => ({
        seconds: Math.max(0.01, seconds),
        share: (((index + 1) / latencies.length) * done) / planned
      }))
      // What was never done is what the line lacks to the top: it goes on to the right.
      return done < planned ? [...line, { ...line.at(-1)!, seconds: Math.max(0.01, longest) }] : line
    }
    return plot({
      ...base(place),
      ...room,
      height: 262,
      marginLeft: 44,
      marginRight: 16,
      x: {
        type: "log",
        label: "latency in seconds, waits included",
        labelOffset: along.labelOffset,
        tickFormat: short,
        ticks: narrow(place) ? 3 : 6
      },
      y: { label: "% of all calls done", percent: true, grid: true, domain: [0, 100] },
      marks: drawn.map((run, index) =>
        Plot.lineY(points(run), {
          x: "seconds",
          y: "share",
          stroke: palette[some.indexOf(run) % palette.length]!,
          strokeWidth: 1.8,
          ...(index > 0 && { strokeDasharray: `${period - 6 * index},${6 * index}` }),
          curve: "step-after"
        })
      )
    })
  }

  /** The AWS study: work or time by the number of clients, a line for each jitter. */
  const study = (measured: ReadonlyArray<Measured>, of: "work" | "millis", place: Place): Drawn => {
    const jitters = [...new Set(measured.map((one) => one.jitter))]
    const shown = of === "millis" ? measured.filter((one) => one.jitter !== "none") : measured
    const last = Math.max(...measured.map((one) => one.clients))
    const ends = shown.filter((one) => one.clients === last).toSorted((a, b) => a[of] - b[of])
    const range = Math.max(...shown.map((one) => one[of]))
    // Labels keep their distance, whatever the lines do.
    let lowest = -Infinity
    const labels = ends.map((one) => {
      lowest = Math.max(one[of], lowest + range * 0.055)
      return { ...one, at: lowest }
    })
    return plot({
      ...base(place),
      ...room,
      height: 342,
      marginLeft: 56,
      marginRight: 96,
      x: { label: "clients", labelOffset: along.labelOffset, domain: [10, last] },
      y: {
        label: of === "work" ? "writes tried by all" : "seconds until all have written",
        grid: true,
        tickFormat: of === "work" ? short : (value: number) => `${value / 1_000}`
      },
      color: { domain: jitters, range: palette },
      marks: [
        Plot.ruleY([0], { stroke: "var(--line)" }),
        Plot.lineY(shown, { x: "clients", y: of, stroke: "jitter", strokeWidth: 1.8 }),
        Plot.text(labels, { x: "clients", y: "at", text: "jitter", fill: "jitter", textAnchor: "start", dx: 6 })
      ]
    })
  }

  return { makespan, levels, rate, gantt, latency, study, palette }
}
