/**
 * The figures of the charts: the record of a race, reduced to what charts show. Plain JSON.
 *
 * @stability experimental
 * @since 0.1.0
 */
import { LimitWords } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import type * as Limits from "floodgate/Limits"
import { floor } from "../floor.ts"
import type { RaceResult, RaceRun } from "../race.ts"
import type { CallRecord } from "../runs.ts"
import type { Scenario } from "../scenario.ts"
import * as Scenarios from "../scenario.ts"
import { type Bar, barsOf, lanesOf } from "./bars.ts"

export { type Bar, barsOf } from "./bars.ts"

/**
 * A level at a time: what the provider has left, and what the budget believes, where there is one.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface LevelPoint {
  readonly at: number
  /** `null` where only the provider knows. */
  readonly provider: number | null
  readonly budget: number | null
}

/**
 * One strategy in one scenario.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface RunFigures {
  readonly strategy: string
  readonly bars: ReadonlyArray<Bar>
  readonly levels: ReadonlyArray<LevelPoint>
  /** Tokens that were admitted, per second, in slices of equal length. */
  readonly rates: ReadonlyArray<{ readonly from: number; readonly to: number; readonly perSecond: number }>
  /** The rate that the budget used, from each time on; empty without a budget. */
  readonly inUse: ReadonlyArray<{ readonly at: number; readonly perSecond: number }>
  /** Latencies of calls that succeeded, sorted: waits included. */
  readonly latencies: ReadonlyArray<number>
  /** The planned calls, including those that were never made because an earlier one failed. */
  readonly planned: number
  /** How many of them succeeded. */
  readonly done: number
  /** The seconds at which a run resumed an earlier one. */
  readonly resumed: ReadonlyArray<number>
}

/**
 * One scenario: its table, and the runs that are shown in detail.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface ScenarioFigures {
  readonly name: string
  readonly summary: string
  readonly provider: string
  readonly floorSeconds: number
  /** The dimension of `levels` and `rates`, and its limit per second. */
  readonly dimension: string
  readonly limitPerSecond: number
  /** All planned calls. */
  readonly calls: number
  /** The agents that are shown in detail. */
  readonly agents: ReadonlyArray<string>
  readonly results: ReadonlyArray<RaceResult>
  readonly runs: ReadonlyArray<RunFigures>
}

const secondsOf = (millis: number): number => Words.round(millis / 1_000)

/** The bound on the points of a chart. More of them cannot be seen. */
const maxPoints = 600
/** The bound on the rows of a chart of agents. */
const maxRows = 80
/** Slices of a run in which rates are measured. */
const slices = 80

/**
 * Thins points to as many as a chart can show.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const thinned = <A>(items: ReadonlyArray<A>, max = maxPoints): ReadonlyArray<A> => {
  const step = Math.max(1, Math.ceil(items.length / max))
  return step === 1 ? items : items.filter((_, index) => index % step === 0 || index === items.length - 1)
}

/**
 * Selects as many agents as a chart can show, every n-th of many. Everything that they did is shown, because gaps would look idle.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const shownAgents = (agents: ReadonlyArray<string>, max = maxRows): ReadonlyArray<string> => {
  const step = Math.ceil(agents.length / max)
  return step <= 1 ? agents : agents.filter((_, index) => index % step === 0)
}

const order: ReadonlyArray<Limits.Dimension> = ["tokens", "inputTokens", "outputTokens", "requests"]

const limitedIn = ({ limits }: Scenario): Limits.Dimension =>
  order.find((name) => limits[name] !== undefined) ?? "tokens"

/** The levels over time: each admission is a drop between two points, and between drops the level refills. */
const levelsOf = (run: RaceRun, dimension: Limits.Dimension): ReadonlyArray<LevelPoint> => {
  const readings = run.levels
  let next = 0
  let believed: number | undefined
  const points = run.log.flatMap((entry): Array<LevelPoint> => {
    const taken = entry.outcome === "accepted" ? Scenarios.amountOf(dimension, entry) : 0
    const provider = Math.round(entry.left[dimension] ?? 0)
    let asked = false
    for (; next < readings.length && readings[next]!.at <= entry.at; next++) {
      believed = readings[next]!.left[dimension]
      asked = true
    }
    const budget = believed === undefined || !asked ? null : Math.round(believed)
    const at = secondsOf(entry.at)
    const after: LevelPoint = { at, provider, budget }
    return taken === 0
      ? [after]
      : [{ at, provider: provider + taken, budget: budget === null ? null : budget + taken }, after]
  })
  return thinned(points)
}

/**
 * The amounts admitted per second, in slices of equal length.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const ratesOf = (
  admitted: ReadonlyArray<{ readonly at: number; readonly amount: number }>,
  end: number
): RunFigures["rates"] => {
  const length = Math.max(1_000, end / slices)
  const sums: Array<number> = Array.from({ length: Math.max(1, Math.ceil(end / length)) }, () => 0)
  for (const { amount, at } of admitted) {
    const slice = Math.min(sums.length - 1, Math.floor(at / length))
    sums[slice]! += amount
  }
  return sums.map((sum, index) => ({
    from: secondsOf(index * length),
    to: secondsOf((index + 1) * length),
    perSecond: Math.round(sum / (length / 1_000))
  }))
}

/**
 * The rate that a budget used over time: one point for each change.
 *
 * @stability experimental
 * @category constructors
 * @since 0.2.0
 */
export const inUseOf = (
  looks: ReadonlyArray<{ readonly at: number; readonly perSecond: number | undefined }>
): RunFigures["inUse"] => {
  const points: Array<RunFigures["inUse"][number]> = []
  for (const { at, perSecond } of looks) {
    if (perSecond === undefined || !(perSecond < Infinity)) continue
    const point = { at: secondsOf(at), perSecond: Math.round(perSecond) }
    if (points.at(-1)?.perSecond !== point.perSecond) points.push(point)
  }
  const last = looks.at(-1)
  const end = points.at(-1)
  return thinned(last === undefined || end === undefined ? points : [...points, { ...end, at: secondsOf(last.at) }])
}

/**
 * Latencies of calls that succeeded, sorted: waits included.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const latenciesOf = (
  calls: ReadonlyArray<Pick<CallRecord, "askedAt" | "endedAt" | "outcome">>
): RunFigures["latencies"] =>
  thinned(
    calls
      .filter(({ outcome }) => outcome === "ok")
      .map(({ askedAt, endedAt }) => secondsOf(endedAt! - askedAt))
      .sort((a, b) => a - b)
  )

const agentBars = ({ agents }: Scenario, { calls }: RaceRun, end: number): ReadonlyArray<Bar> => {
  const shown = new Set(shownAgents(agents.map(({ name }) => name)))
  return barsOf(
    calls.filter(({ call }) => shown.has(call.agent)),
    end
  )
}

/** One lane for each session, with its sub-agents. */
const sessionBars = ({ agents }: Scenario, run: RaceRun, end: number): ReadonlyArray<Bar> => {
  const shown = new Set(shownAgents(agents.map(({ name }) => name)))
  const sessionOf = new Map(agents.flatMap(({ calls, name }) => calls.map(({ agent }) => [agent, name] as const)))
  const own = run.calls.flatMap(({ call, ...record }) => {
    const agent = sessionOf.get(call.agent)
    return agent === undefined || !shown.has(agent) ? [] : [{ ...record, call: { agent } }]
  })
  return lanesOf(barsOf(own, end))
}

/**
 * The figures of one run.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const runFigures = (scenario: Scenario, run: RaceRun): RunFigures => {
  const dimension = limitedIn(scenario)
  const end = run.result.makespanSeconds * 1_000
  return {
    strategy: run.result.strategy,
    bars: Scenarios.isOfSessions(scenario) ? sessionBars(scenario, run, end) : agentBars(scenario, run, end),
    // Levels of several places do not fit into one line.
    levels: scenario.places === undefined ? levelsOf(run, dimension) : [],
    rates: ratesOf(
      run.log
        .filter(({ outcome }) => outcome === "accepted")
        .map((entry) => ({ at: entry.at, amount: Scenarios.amountOf(dimension, entry) })),
      end
    ),
    inUse: inUseOf(run.levels.map(({ at, perSecond }) => ({ at, perSecond: perSecond[dimension] }))),
    latencies: latenciesOf(run.calls),
    planned: Scenarios.callsOf(scenario).length,
    done: Scenarios.callsOf(scenario).length - run.result.failedCalls,
    resumed: []
  }
}

/** The lines of more runs could not be distinguished. */
const maxDetailed = 8

/** The strategies that are shown in detail if there are more than that. */
const detailed = new Set(["sdk-2", "bottleneck-tuned", "hand-written", "floodgate-as-installed", "floodgate", "oracle"])

/**
 * A strategy's part of a scenario's figures: its result, and its details if they are shown.
 *
 * @stability experimental
 * @category models
 * @since 0.4.0
 */
export interface StrategyFigures {
  readonly result: RaceResult
  readonly run: RunFigures | undefined
}

/**
 * The figures of a run, which are small enough to keep and to send. Only the usual ones of many strategies have details.
 *
 * @stability experimental
 * @category constructors
 * @since 0.4.0
 */
export const strategyFigures = (scenario: Scenario, run: RaceRun, strategies: number): StrategyFigures => ({
  result: run.result,
  run: strategies <= maxDetailed || detailed.has(run.result.strategy) ? runFigures(scenario, run) : undefined
})

/**
 * The figures of a scenario from those of its strategies.
 *
 * @stability experimental
 * @category constructors
 * @since 0.4.0
 */
export const assembled = (scenario: Scenario, parts: ReadonlyArray<StrategyFigures>): ScenarioFigures => {
  const dimension = limitedIn(scenario)
  const { amount, seconds } = LimitWords.rateOf(scenario.limits[dimension] ?? {})
  return {
    name: scenario.name,
    summary: scenario.summary,
    provider: Scenarios.modelOf(scenario),
    floorSeconds: Words.round(floor(scenario).seconds),
    dimension: LimitWords.dimensionNames[dimension],
    limitPerSecond: Words.round(amount / seconds),
    calls: Scenarios.callsOf(scenario).length,
    agents: shownAgents(scenario.agents.map(({ name }) => name)),
    results: parts.map(({ result }) => result),
    runs: parts.flatMap(({ run }) => run ?? [])
  }
}

/**
 * The figures of a scenario: all results, and the details of the usual strategies, or of all if there are few.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const scenarioFigures = (scenario: Scenario, runs: ReadonlyArray<RaceRun>): ScenarioFigures =>
  assembled(
    scenario,
    runs.map((run) => strategyFigures(scenario, run, runs.length))
  )

/** The bounds of a scenario in a page of many. */
const sketch = { agents: 12, points: 80 }

/**
 * The figures of a scenario, small enough for a page of many: some of its agents, fewer points, and no oracle in detail.
 *
 * @stability experimental
 * @category constructors
 * @since 0.4.0
 */
export const sketched = (figures: ScenarioFigures): ScenarioFigures => {
  const agents = shownAgents(figures.agents, sketch.agents)
  const shown = new Set(agents)
  return {
    ...figures,
    agents,
    runs: figures.runs
      .filter(({ strategy }) => strategy !== "oracle")
      .map((run) => ({
        ...run,
        bars: run.bars.filter(({ agent }) => shown.has(agent)),
        levels: thinned(run.levels, sketch.points),
        inUse: thinned(run.inUse, sketch.points),
        latencies: thinned(run.latencies, sketch.points)
      }))
  }
}
