/**
 * A real run as figures and as part of a report: what its agents did, and what its budget had left.
 *
 * @since 0.1.0
 */
import type * as Budget from "floodgate/Budget"
import * as Words from "../../words.ts"
import * as Limits from "floodgate/Limits"
import { largest } from "../extremes.ts"
import type * as Record from "../record.ts"
import { round } from "../round.ts"
import * as Scenarios from "../scenario.ts"
import * as Figures from "./figures.ts"
import type { Section } from "./html.ts"

/**
 * One request. Times are in milliseconds from the start of the run.
 *
 * @category models
 * @since 0.1.0
 */
export interface Attempt extends Record.Attempt {
  /** What the budget reserved for it, as far as that is known. */
  readonly charge: Limits.Charge | undefined
  /** Of one that succeeded. */
  usage: { readonly inputTokens: number; readonly outputTokens: number } | undefined
}

/**
 * One call of an agent, waits and all of its requests included.
 *
 * @category models
 * @since 0.1.0
 */
export interface Call extends Omit<Record.CallRecord, "call" | "attempts"> {
  readonly call: { readonly agent: string }
  readonly attempts: Array<Attempt>
}

/**
 * What the budget had left at a time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Look {
  readonly at: number
  readonly dimensions: Budget.PoolStatus["dimensions"]
}

/**
 * How an agent ended.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome = "done" | "failed" | "stopped"

/**
 * What a run wrote down.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recorded {
  readonly calls: ReadonlyArray<Call>
  readonly levels: ReadonlyArray<Look>
  /** By agent, of those that ended. */
  readonly outcomes: ReadonlyMap<string, Outcome>
  /** Answers of an earlier run: nothing was asked for them. */
  readonly reused: number
}

/** The dimension that came nearest to its end, tokens rather than requests; where nobody looked, what was limited. */
const tightest = ({ levels }: Recorded, limits: Limits.Limits | undefined): Limits.Dimension | undefined => {
  let least = Infinity
  let found: Limits.Dimension | undefined
  for (const { dimensions } of levels) {
    for (const dimension of Limits.dimensions) {
      const status = dimensions[dimension]
      if (status === undefined || status.level / status.capacity > least) continue
      least = status.level / status.capacity
      found = dimension
    }
  }
  return found ?? Limits.dimensions.findLast((dimension) => limits?.[dimension] !== undefined)
}

const seconds = (millis: number): string => `${(millis / 1_000).toFixed(1)} s`

const heads = [
  "agent",
  "calls",
  "429s",
  "other failures",
  "input tokens",
  "output tokens",
  "waited",
  "ended after",
  "outcome"
]

const rowOf = (
  agent: string,
  calls: ReadonlyArray<Call>,
  bars: ReadonlyArray<Figures.Bar>,
  outcome: Outcome
): ReadonlyArray<string> => {
  const attempts = calls.flatMap((call) => call.attempts)
  const count = (outcome: Attempt["outcome"]): string =>
    Words.thousands(attempts.filter((attempt) => attempt.outcome === outcome).length)
  const sum = (of: "inputTokens" | "outputTokens"): string =>
    Words.thousands(attempts.reduce((total, { usage }) => total + (usage?.[of] ?? 0), 0))
  const waited = bars.reduce((total, { from, to, what }) => (what === "waits" ? total + to - from : total), 0)
  return [
    agent,
    Words.thousands(calls.length),
    count("rejected"),
    count("failed"),
    sum("inputTokens"),
    sum("outputTokens"),
    seconds(waited * 1_000),
    seconds(
      largest(
        calls.map(({ endedAt }) => endedAt ?? 0),
        0
      )
    ),
    outcome
  ]
}

/** What the provider grants a second of a dimension: as given, else as the budget last knew it. */
const limitOf = (dimension: Limits.Dimension, { levels }: Recorded, limits: Limits.Limits | undefined): number => {
  const given = limits?.[dimension]
  if (given?.perSecond !== undefined) return given.perSecond
  if (given?.perMinute !== undefined) return given.perMinute / 60
  const last = levels.findLast(({ dimensions }) => (dimensions[dimension]?.limitPerSecond ?? Infinity) < Infinity)
  return last?.dimensions[dimension]!.limitPerSecond ?? 0
}

/** What a request took, as far as is known: what was reserved for it until it is answered, nothing if it was refused. */
const amountOf = (dimension: Limits.Dimension, { charge, outcome, usage }: Attempt): number => {
  if (usage !== undefined) return Scenarios.amountOf(dimension, usage)
  if (outcome === "rejected" || outcome === "failed") return 0
  return charge?.[dimension] ?? (dimension === "requests" ? 1 : 0)
}

const endOf = ({ endedAt }: Attempt): number => endedAt ?? 0

const figuresOf = (dimension: Limits.Dimension, { calls, levels }: Recorded): Figures.RunFigures => {
  const attempts = calls.flatMap((call) => call.attempts)
  const end = largest([...calls.map(({ askedAt, endedAt }) => endedAt ?? askedAt), ...attempts.map(endOf)], 1)
  return {
    strategy: "this run",
    bars: Figures.barsOf(calls, end),
    levels: Figures.thinned(
      levels.flatMap(({ at, dimensions }): Array<Figures.Level> => {
        const level = dimensions[dimension]?.level
        return level === undefined ? [] : [{ at: at / 1_000, provider: null, budget: Math.round(level) }]
      })
    ),
    inUse: Figures.inUseOf(levels.map(({ at, dimensions }) => ({ at, perSecond: dimensions[dimension]?.perSecond }))),
    rates: Figures.ratesOf(
      attempts.map((attempt) => ({ at: attempt.startedAt, amount: amountOf(dimension, attempt) })),
      end
    ),
    latencies: Figures.latenciesOf(calls),
    planned: calls.length,
    done: calls.filter(({ outcome }) => outcome === "ok").length
  }
}

const fromBefore = ({ calls, reused }: Recorded): ReadonlyArray<string> => {
  if (reused === 0) return []
  return calls.length === 0
    ? [`All ${Words.thousands(reused)} answers are from before: nothing was asked.`]
    : [`${Words.counted(reused, "answer is", "answers are")} from before: only the others were asked for.`]
}

/**
 * The part of a report about a run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const section = (options: {
  readonly recorded: Recorded
  readonly summary: string
  /** Who answered. */
  readonly provider: string
  /** The limits that were given; those that were not are the budget's. */
  readonly limits?: Limits.Limits | undefined
  /** All agents, in the order in which they are shown. */
  readonly agents: ReadonlyArray<string>
}): Section => {
  const { agents, limits, provider, recorded, summary } = options
  const bound = tightest(recorded, limits)
  const dimension = bound ?? "tokens"
  const run = figuresOf(dimension, recorded)
  const shown = new Set(Figures.shownAgents(agents))
  const calls = Map.groupBy(recorded.calls, ({ call }) => call.agent)
  const bars = Map.groupBy(run.bars, ({ agent }) => agent)
  return {
    figures: {
      name: "run",
      summary,
      provider,
      floorSeconds: 0,
      dimension: Scenarios.dimensionNames[dimension],
      limitPerSecond: round(limitOf(dimension, recorded, limits)),
      agents: [...shown],
      results: [],
      runs: [{ ...run, bars: run.bars.filter(({ agent }) => shown.has(agent)) }]
    },
    heads,
    rows: agents.map((agent) =>
      rowOf(agent, calls.get(agent) ?? [], bars.get(agent) ?? [], recorded.outcomes.get(agent) ?? "stopped")
    ),
    notes: [
      "Waits are for the budget, and between attempts. Tokens of a call count when it was sent.",
      ...fromBefore(recorded),
      ...(bound === undefined ? ["No limit is known: none was given, and no response named one."] : [])
    ],
    charts: ["gantt", "levels", "rate", "latency"],
    bars: ""
  }
}
