/**
 * Makes a section of a report from a real run: what its agents did, and the levels of its budget.
 *
 * @stability experimental
 * @since 0.1.0
 */
import type * as Budget from "floodgate/Budget"
import { LimitWords } from "floodgate/internal"
import * as Words from "floodgate/internal/words"
import * as Limits from "floodgate/Limits"
import { largest } from "../extremes.ts"
import type * as Record from "../record.ts"
import * as Scenarios from "../scenario.ts"
import * as Figures from "./figures.ts"
import type { ReportSection } from "./html.ts"
import * as Verdict from "./verdict.ts"

// -----------------------------------------------------------------------------
// Models
// -----------------------------------------------------------------------------

/**
 * Tokens of an answer.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface AnswerTokens {
  readonly inputTokens: number
  readonly outputTokens: number
}

/**
 * One request. Times are in milliseconds from the start of the run.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface RunAttempt extends Record.RunningAttempt {
  /** The reservation, if it is known. */
  readonly charge: Limits.Usage | undefined
  /** The usage, if it succeeded. */
  usage: AnswerTokens | undefined
}

/**
 * One call of an agent, with its waits and all of its requests.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface RunCall extends Omit<Record.RunningCall, "call" | "attempts"> {
  readonly call: { readonly agent: string }
  readonly attempts: Array<RunAttempt>
}

/**
 * An answer of an earlier run, which this one resumes.
 *
 * @stability experimental
 * @category models
 * @since 0.2.0
 */
export interface Earlier {
  readonly agent: string
  readonly usage: AnswerTokens
  /** When the call was made and answered, in milliseconds since the epoch, if that is known. */
  readonly when: { readonly asked: number; readonly answered: number } | undefined
}

/**
 * The levels of the budget at a time.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface LevelSample {
  readonly at: number
  readonly dimensions: Budget.PoolStatus["dimensions"]
}

/**
 * The outcome of an agent.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export type AgentOutcome = "done" | "failed" | "stopped"

/**
 * The record of a run.
 *
 * @stability experimental
 * @category models
 * @since 0.1.0
 */
export interface RunRecord {
  readonly calls: ReadonlyArray<RunCall>
  readonly levels: ReadonlyArray<LevelSample>
  /** The outcomes of the agents that have ended. */
  readonly outcomes: ReadonlyMap<string, AgentOutcome>
  /** Answers of earlier runs, for which no call was made. */
  readonly earlier: ReadonlyArray<Earlier>
}

// -----------------------------------------------------------------------------
// The time of the whole job
// -----------------------------------------------------------------------------

/** A longer time without a call is the time between two runs. */
const maxGap = 5_000

/** Maps the time of earlier runs to the axis of the whole job, without the time between two runs. */
interface TimeAxis {
  /** Milliseconds of all earlier runs together. */
  readonly millis: number
  /** The starts of later runs, in milliseconds of the axis. */
  readonly resumed: ReadonlyArray<number>
  readonly calls: ReadonlyArray<{ readonly agent: string; readonly from: number; readonly to: number }>
}

const beforeOf = (earlier: ReadonlyArray<Earlier>): TimeAxis => {
  const known = earlier.flatMap(({ agent, when }) =>
    when === undefined ? [] : [{ agent, from: when.asked, to: Math.max(when.asked, when.answered) }]
  )
  known.sort((a, b) => a.from - b.from)
  const resumed: Array<number> = []
  const calls: Array<TimeAxis["calls"][number]> = []
  let end = -Infinity
  let cut = 0
  for (const { agent, from, to } of known) {
    if (from - end > maxGap) {
      if (end > -Infinity) resumed.push(end - cut)
      // The next run starts on the axis where the one before ended.
      cut = end === -Infinity ? from : cut + from - end
    }
    end = Math.max(end, to)
    calls.push({ agent, from: from - cut, to: to - cut })
  }
  const millis = known.length === 0 ? 0 : end - cut
  return { millis, resumed: known.length === 0 ? [] : [...resumed, millis], calls }
}

// -----------------------------------------------------------------------------
// Figures
// -----------------------------------------------------------------------------

/** The dimension with the lowest level, tokens rather than requests; without samples, a limited one. */
const tightest = ({ levels }: RunRecord, limits: Limits.Limits | undefined): Limits.Dimension | undefined => {
  let min = Infinity
  let found: Limits.Dimension | undefined
  for (const { dimensions } of levels) {
    for (const dimension of Limits.Dimension.literals) {
      const status = dimensions[dimension]
      if (status === undefined || status.level / status.capacity > min) continue
      min = status.level / status.capacity
      found = dimension
    }
  }
  return found ?? Limits.Dimension.literals.findLast((dimension) => limits?.[dimension] !== undefined)
}

/** The limit per second of a dimension: as given, or as the budget last knew it, or 0 if it is unknown. */
const limitOf = (dimension: Limits.Dimension, { levels }: RunRecord, limits: Limits.Limits | undefined): number => {
  const given = limits?.[dimension]
  if (given?.perSecond !== undefined) return given.perSecond
  if (given?.perMinute !== undefined) return given.perMinute / 60
  const last = levels.findLast(({ dimensions }) => (dimensions[dimension]?.limitPerSecond ?? Infinity) < Infinity)
  return last?.dimensions[dimension]!.limitPerSecond ?? 0
}

/** The amount of a request: its reservation until it is answered, its usage after that, nothing if it was refused. */
const amountOf = (dimension: Limits.Dimension, { charge, outcome, usage }: RunAttempt): number => {
  if (usage !== undefined) return Scenarios.amountOf(dimension, usage)
  if (outcome === "rejected" || outcome === "failed") return 0
  return charge?.[dimension] ?? (dimension === "requests" ? 1 : 0)
}

const endOf = ({ endedAt }: RunAttempt): number => endedAt ?? 0

/** The end of the last call or request of this run. */
const lastOf = (calls: ReadonlyArray<RunCall>): number =>
  largest(
    [
      ...calls.map(({ askedAt, endedAt }) => endedAt ?? askedAt),
      ...calls.flatMap(({ attempts }) => attempts).map(endOf)
    ],
    1
  )

/**
 * The lower bound on the time of these calls: their usage without the burst, divided by the known limits, or the requests of the longest
 * agent one after the other.
 */
const floorOf = ({ calls, levels }: RunRecord, limits: Limits.Limits | undefined): number => {
  const attempts = calls.flatMap((call) => call.attempts)
  let floor = 0
  for (const dimension of Limits.Dimension.literals) {
    const limit = limitOf(dimension, { calls, levels, outcomes: new Map(), earlier: [] }, limits)
    const capacity = levels.at(-1)?.dimensions[dimension]?.capacity
    if (!(limit > 0) || capacity === undefined) continue
    const used = attempts.reduce((sum, attempt) => sum + amountOf(dimension, attempt), 0)
    floor = Math.max(floor, (used - capacity) / limit)
  }
  const busy = new Map<string, number>()
  for (const { attempts, call } of calls) {
    const millis = attempts.reduce(
      (sum, { endedAt, outcome, startedAt }) => (outcome === "ok" ? sum + endedAt! - startedAt : sum),
      0
    )
    busy.set(call.agent, (busy.get(call.agent) ?? 0) + millis)
  }
  return Math.max(floor, largest([...busy.values()], 0) / 1_000)
}

const figuresOf = (
  dimension: Limits.Dimension,
  { calls, levels }: RunRecord,
  before: TimeAxis,
  planned: number,
  done: number
): Figures.RunFigures => {
  const attempts = calls.flatMap((call) => call.attempts)
  const end = lastOf(calls)
  const offset = Words.round(before.millis / 1_000)
  const later = (seconds: number): number => Words.round(seconds + offset)
  const own = Figures.barsOf(calls, end).map((bar) => ({ ...bar, from: later(bar.from), to: later(bar.to) }))
  const earlier = before.calls.map(({ agent, from, to }): Figures.Bar => ({
    agent,
    from: Words.round(from / 1_000),
    to: Words.round(to / 1_000),
    what: "earlier"
  }))
  return {
    strategy: "this run",
    bars: [...earlier, ...own],
    levels: Figures.thinned(
      levels.flatMap(({ at, dimensions }): Array<Figures.LevelPoint> => {
        const level = dimensions[dimension]?.level
        return level === undefined ? [] : [{ at: later(at / 1_000), provider: null, budget: Math.round(level) }]
      })
    ),
    inUse: Figures.inUseOf(
      levels.map(({ at, dimensions }) => ({ at: at + before.millis, perSecond: dimensions[dimension]?.perSecond }))
    ),
    rates: Figures.ratesOf(
      attempts.map((attempt) => ({ at: attempt.startedAt, amount: amountOf(dimension, attempt) })),
      end
    ).map(({ from, perSecond, to }) => ({ from: later(from), to: later(to), perSecond })),
    latencies: Figures.latenciesOf([
      ...calls,
      ...before.calls.map(({ from, to }) => ({ askedAt: from, endedAt: to, outcome: "ok" as const }))
    ]),
    planned,
    done,
    resumed: before.resumed.map((millis) => Words.round(millis / 1_000))
  }
}

// -----------------------------------------------------------------------------
// The table
// -----------------------------------------------------------------------------

const seconds = (millis: number): string => Words.seconds(millis / 1_000)

const heads = [
  "agent",
  "outcome",
  "answers",
  "429s",
  "other failures",
  "input tokens",
  "output tokens",
  "waited",
  "ended after"
]

/** The calls and bars of one agent. */
interface AgentParts {
  readonly calls: ReadonlyArray<RunCall>
  readonly earlier: ReadonlyArray<Earlier>
  readonly bars: ReadonlyArray<Figures.Bar>
}

const sumOf = (of: keyof AnswerTokens, calls: ReadonlyArray<RunCall>, earlier: ReadonlyArray<Earlier>): number =>
  calls.reduce((sum, { attempts }) => attempts.reduce((total, { usage }) => total + (usage?.[of] ?? 0), sum), 0) +
  earlier.reduce((sum, { usage }) => sum + usage[of], 0)

/** The milliseconds that agents waited in this run. */
const waitedOf = (bars: ReadonlyArray<Figures.Bar>): number =>
  1_000 * bars.reduce((total, { from, to, what }) => (what === "waits" ? total + to - from : total), 0)

const rowOf = (
  agent: string,
  { bars, calls, earlier }: AgentParts,
  outcome: AgentOutcome,
  before: number
): ReadonlyArray<string> => {
  const attempts = calls.flatMap((call) => call.attempts)
  const count = (outcome: RunAttempt["outcome"]): string =>
    Words.thousands(attempts.filter((attempt) => attempt.outcome === outcome).length)
  const answered = calls.filter(({ outcome }) => outcome === "ok").length
  const again = earlier.length === 0 ? "" : ` (${Words.thousands(earlier.length)} before)`
  const ended = calls.map(({ endedAt }) => endedAt ?? 0)
  return [
    agent,
    outcome,
    `${Words.thousands(answered + earlier.length)}${again}`,
    count("rejected"),
    count("failed"),
    Words.thousands(sumOf("inputTokens", calls, earlier)),
    Words.thousands(sumOf("outputTokens", calls, earlier)),
    seconds(waitedOf(bars)),
    ended.length === 0 ? "-" : seconds(before + largest(ended, 0))
  ]
}

// -----------------------------------------------------------------------------
// The verdict
// -----------------------------------------------------------------------------

const span = (millis: number): string => Words.span(millis / 1_000)

const verdictOf = (
  recorded: RunRecord,
  figures: Figures.ScenarioFigures,
  {
    before,
    cost,
    end,
    waited
  }: {
    readonly before: TimeAxis
    readonly cost: Verdict.Tile | undefined
    readonly end: number
    readonly waited: number
  }
): Verdict.Headline => {
  const { calls, earlier, outcomes } = recorded
  const [run] = figures.runs
  const { done, planned } = run!
  const rejected = calls.reduce(
    (sum, { attempts }) => sum + attempts.filter(({ outcome }) => outcome === "rejected").length,
    0
  )
  const ended = [...outcomes.values()]
  const failed = ended.filter((outcome) => outcome === "failed").length
  const answered = `${Words.thousands(done)} of ${Words.counted(planned, "call")} answered`
  const of429 = `with ${Verdict.rejections(rejected)}`
  const ofThem = `${Words.thousands(earlier.length)} of them in earlier runs`
  const how = () => {
    if (earlier.length === 0) return ` in ${span(end)}, ${of429}`
    return calls.length === 0 ? ", all of them in earlier runs" : `, ${ofThem}; this one took ${span(end)}, ${of429}`
  }
  const text = () => {
    if (done === planned) return `Done: all ${Words.counted(planned, "call")} answered${how()}.`
    const why = failed > 0 ? `Incomplete: ${Words.counted(failed, "agent")} failed` : "Stopped"
    return `${why}; ${answered}${how()}.`
  }
  const whole = before.millis + end
  const floor = `at best ${Words.seconds(figures.floorSeconds)}`
  return {
    text: text(),
    tiles: [
      Verdict.answeredTile(done, planned),
      {
        value: calls.length === 0 ? "-" : span(end),
        label: before.millis > 0 ? `this run; ${span(whole)} in all, with those before` : floor
      },
      Verdict.rejectionsTile(rejected),
      { value: span(waited), label: "waited by all agents together" },
      Verdict.tokensTile(
        sumOf("inputTokens", calls, earlier) + sumOf("outputTokens", calls, earlier),
        earlier.length === 0 ? "tokens used" : "tokens used, earlier runs included"
      ),
      ...(cost === undefined ? [] : [cost])
    ]
  }
}

const fromBefore = ({ calls, earlier }: RunRecord, before: TimeAxis): ReadonlyArray<string> => {
  if (earlier.length === 0) return []
  const unknown = earlier.length - before.calls.length
  return [
    calls.length === 0
      ? `All ${Words.thousands(earlier.length)} answers come from earlier runs; nothing was sent.`
      : `${Words.counted(earlier.length, "answer comes", "answers come")} from earlier runs. 429s, failures and waits are those of this run.`,
    ...(before.calls.length > 0 ? ["The time between runs is left out."] : []),
    ...(unknown > 0 ? [`It is not known when ${Words.thousands(unknown)} of them came.`] : [])
  ]
}

// -----------------------------------------------------------------------------
// The section
// -----------------------------------------------------------------------------

/**
 * The part of a report about a run.
 *
 * @stability experimental
 * @category constructors
 * @since 0.1.0
 */
export const section = (options: {
  readonly recorded: RunRecord
  readonly summary: string
  /** The provider, in words. */
  readonly provider: string
  /** The given limits. Others are those of the budget. */
  readonly limits?: Limits.Limits | undefined
  /** All agents, in the order in which they are shown. */
  readonly agents: ReadonlyArray<string>
  /** The planned calls of the job. @default those that were made or answered */
  readonly planned?: number | undefined
  /** The cost of this run. @default unknown */
  readonly cost?: Verdict.Tile | undefined
}): ReportSection => {
  const { agents, limits, provider, recorded, summary } = options
  const bound = tightest(recorded, limits)
  const dimension = bound ?? "tokens"
  const before = beforeOf(recorded.earlier)
  const done = recorded.calls.filter(({ outcome }) => outcome === "ok").length + recorded.earlier.length
  const planned = options.planned ?? recorded.calls.length + recorded.earlier.length
  const run = figuresOf(dimension, recorded, before, planned, done)
  const shown = new Set(Figures.shownAgents(agents))
  const calls = Map.groupBy(recorded.calls, ({ call }) => call.agent)
  const earlier = Map.groupBy(recorded.earlier, ({ agent }) => agent)
  const bars = Map.groupBy(run.bars, ({ agent }) => agent)
  const figures: Figures.ScenarioFigures = {
    name: "run",
    summary,
    provider,
    floorSeconds: Words.round(floorOf(recorded, limits)),
    dimension: LimitWords.dimensionNames[dimension],
    limitPerSecond: Words.round(limitOf(dimension, recorded, limits)),
    calls: planned,
    agents: [...shown],
    results: [],
    runs: [{ ...run, bars: run.bars.filter(({ agent }) => shown.has(agent)) }]
  }
  const end = recorded.calls.length === 0 ? 0 : lastOf(recorded.calls)
  return {
    figures,
    verdict: verdictOf(recorded, figures, { before, cost: options.cost, end, waited: waitedOf(run.bars) }),
    heads,
    rows: agents.map((agent) =>
      rowOf(
        agent,
        { calls: calls.get(agent) ?? [], earlier: earlier.get(agent) ?? [], bars: bars.get(agent) ?? [] },
        recorded.outcomes.get(agent) ?? "stopped",
        before.millis
      )
    ),
    notes: [
      "Waited: for the limits, and between attempts. The tokens of a call are shown at the time it was sent.",
      ...fromBefore(recorded, before),
      ...(bound === undefined ? ["No limit is known: none was given, and no response named one."] : [])
    ],
    charts: ["gantt", "levels", "rate", "latency"],
    bars: ""
  }
}
