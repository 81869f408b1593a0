/**
 * A forecast as figures and as part of a report: one run per set of limits.
 *
 * @stability experimental
 * @since 0.1.0
 */
import { LimitWords } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import * as Duration from "effect/Duration"
import type * as Forecast from "floodgate/Forecast"
import type * as Limits from "floodgate/Limits"
import * as Figures from "./figures.ts"
import type { ReportSection } from "./html.ts"
import type { Headline } from "./verdict.ts"

/**
 * A forecast under the limits of a tier.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface LimitsForecast {
  readonly tier: string
  readonly limits: Limits.Limits
  readonly forecast: Forecast.Forecast
}

const secondsOf = (duration: Duration.Duration): number => Words.round(Duration.toSeconds(duration))

/** With more calls than this, the bars of single calls would be narrower than a point. */
const maxCalls = 4_000

/** Merges the calls of an agent into two bars: all of their waits, then all of their runs. */
const barsOf = (agent: string, calls: Forecast.Forecast["calls"]): ReadonlyArray<Figures.Bar> => {
  const ran = calls.reduce((sum, call) => sum + secondsOf(call.finishesAfter) - secondsOf(call.admittedAfter), 0)
  const from = secondsOf(calls[0]!.askedAfter)
  const to = secondsOf(calls.at(-1)!.finishesAfter)
  const admitted = Words.round(to - ran)
  const runs: Figures.Bar = { agent, from: admitted, to, what: "runs" }
  return admitted > from ? [{ agent, from, to: admitted, what: "waits" }, runs] : [runs]
}

/** The bars of the shown agents. */
const ganttOf = ({ agents, calls }: Forecast.Forecast): ReadonlyArray<Figures.Bar> => {
  const shown = new Set(Figures.shownAgents(agents.map(({ name }) => name)))
  const theirs = calls.filter(({ agent }) => shown.has(agent))
  const step = Math.ceil(theirs.length / maxCalls)
  return [...Map.groupBy(theirs, ({ agent }) => agent)].flatMap(([agent, calls]) =>
    Array.from({ length: Math.ceil(calls.length / step) }, (_, index) =>
      barsOf(agent, calls.slice(index * step, (index + 1) * step))
    ).flat()
  )
}

const runOf = ({ forecast, tier }: LimitsForecast): Figures.RunFigures => {
  const latencies = forecast.calls.map(({ askedAfter, finishesAfter }) =>
    Words.round(secondsOf(finishesAfter) - secondsOf(askedAfter))
  )
  return {
    strategy: tier,
    bars: ganttOf(forecast),
    levels: [],
    rates: [],
    inUse: [],
    latencies: Figures.thinned(latencies.sort((a, b) => a - b)),
    planned: forecast.usage.requests,
    done: forecast.calls.length,
    resumed: []
  }
}

/**
 * The part of a report about forecasts of one workload.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const section = (options: {
  readonly summary: string
  /** The summary. */
  readonly verdict: Headline
  readonly answers: ReadonlyArray<LimitsForecast>
  readonly heads: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<string>>
  readonly notes: ReadonlyArray<string>
}): ReportSection => {
  const { answers, heads, notes, rows, summary, verdict } = options
  const done = answers.filter(({ forecast }) => forecast.refused.length === 0)
  const figures: Figures.ScenarioFigures = {
    name: "forecast",
    summary,
    provider: answers.map(({ limits, tier }) => `${tier}: ${LimitWords.limitsText(limits)}`).join(". "),
    floorSeconds: 0,
    dimension: "tokens",
    limitPerSecond: 0,
    calls: answers[0]?.forecast.usage.requests ?? 0,
    agents: Figures.shownAgents(answers[0]?.forecast.agents.map(({ name }) => name) ?? []),
    // A workload that is never done has no bar.
    results: done.map(({ forecast, tier }) => ({
      strategy: tier,
      makespanSeconds: secondsOf(forecast.duration),
      floorSeconds: 0,
      ratio: 1,
      rejections: 0,
      retries: 0,
      failedCalls: 0,
      failedAgents: 0,
      p50Seconds: null,
      p99Seconds: null,
      fairness: null,
      meanEndSeconds: null,
      tokensUsed: forecast.usage.tokens,
      finished: true
    })),
    runs: answers.filter(({ forecast }) => forecast.calls.length > 0).map(runOf)
  }
  return {
    figures,
    verdict,
    heads,
    rows,
    notes: ["A forecast: nobody else uses the limits, and nothing fails.", ...notes],
    charts: ["makespan", "gantt", "latency"],
    bars: "From the first call to the end of the last agent."
  }
}
