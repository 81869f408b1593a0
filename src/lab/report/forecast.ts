/**
 * A forecast as figures and as part of a report: one run per set of limits.
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import type * as Forecast from "../../Forecast.ts"
import type * as Limits from "../../Limits.ts"
import { round } from "../round.ts"
import * as Scenarios from "../scenario.ts"
import type { RunFigures, ScenarioFigures } from "./figures.ts"
import type { Section } from "./html.ts"

/**
 * A forecast under the limits of a tier.
 *
 * @category models
 * @since 0.1.0
 */
export interface Answer {
  readonly tier: string
  readonly limits: Limits.Limits
  readonly forecast: Forecast.Forecast
}

const secondsOf = (duration: Duration.Duration): number => round(Duration.toSeconds(duration))

/** A chart shows no more calls than this; what lies between them nobody sees. */
const mostCalls = 4_000

const runOf = ({ forecast, tier }: Answer): RunFigures => {
  const step = Math.ceil(forecast.calls.length / mostCalls)
  const calls = forecast.calls.filter((_, index) => index % step === 0)
  return {
    strategy: tier,
    bars: calls.flatMap(({ admittedAfter, agent, askedAfter, finishesAfter }) => {
      const [asked, admitted, finished] = [askedAfter, admittedAfter, finishesAfter].map(secondsOf) as [
        number,
        number,
        number
      ]
      const runs = { agent, from: admitted, to: finished, what: "runs" as const }
      return admitted > asked ? [{ agent, from: asked, to: admitted, what: "waits" as const }, runs] : [runs]
    }),
    levels: [],
    rates: [],
    latencies: calls
      .map(({ askedAfter, finishesAfter }) => secondsOf(finishesAfter) - secondsOf(askedAfter))
      .sort((a, b) => a - b),
    planned: forecast.usage.requests,
    done: forecast.calls.length
  }
}

/**
 * The part of a report about forecasts of one workload.
 *
 * @category constructors
 * @since 0.1.0
 */
export const section = (options: {
  readonly summary: string
  readonly answers: ReadonlyArray<Answer>
  readonly heads: ReadonlyArray<string>
  readonly rows: ReadonlyArray<ReadonlyArray<string>>
  readonly notes: ReadonlyArray<string>
}): Section => {
  const { answers, heads, notes, rows, summary } = options
  const done = answers.filter(({ forecast }) => forecast.refused.length === 0)
  const figures: ScenarioFigures = {
    name: "forecast",
    summary,
    provider: answers.map(({ limits, tier }) => `${tier}: ${Scenarios.limitsText(limits)}`).join(". "),
    floorSeconds: 0,
    dimension: "tokens",
    limitPerSecond: 0,
    agents: answers[0]?.forecast.agents.map(({ name }) => name) ?? [],
    // What is never done takes no time that a bar could show.
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
      tokensUsed: forecast.usage.tokens,
      finished: true
    })),
    runs: answers.filter(({ forecast }) => forecast.calls.length > 0).map(runOf)
  }
  return {
    figures,
    heads,
    rows,
    notes: ["A forecast: nobody else uses the limits, and nothing fails.", ...notes],
    charts: ["makespan", "gantt", "latency"],
    bars: "From the first call to the end of the last agent."
  }
}
