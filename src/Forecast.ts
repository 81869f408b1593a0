/**
 * `Forecast`: what a workload will take under given limits, before it runs.
 *
 * A fan-out's time is decided by three things: what it uses of each limit, how long its longest agent takes alone, and
 * how many calls may run at once. A forecast plays the workload through the budget's own queue and buckets, without a
 * clock and in milliseconds, and says how long it takes, what binds, how long calls will wait, how many agents still
 * help, and which tier of limits is enough.
 *
 * **Details**
 *
 * It knows what it is told: sizes of calls and how long the provider works on them. It assumes that nobody else uses
 * the limits, that nothing fails and that latencies do not vary. With the right figures it is within 5 % of the
 * simulation in every scenario of the lab (a bucket, rejections charged) that has no other hindrance. Where latencies vary by a fifth, it is within
 * 5 % of the median run; about one run of ten takes 5 to 10 % longer, because an agent has its slow calls last.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when limits or options make no sense.
 *
 * **Example** (the incident, before it happens)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Forecast from "floodgate/Forecast"
 *
 * const workload = Forecast.uniform({
 *   agents: 12,
 *   calls: 5,
 *   first: { inputTokens: 149_800, outputTokens: 200 },
 *   later: { inputTokens: 13_800, outputTokens: 200 }
 * })
 *
 * const forecast = Forecast.make(workload, { limits: { tokens: { perSecond: 60_000, burst: 200_000 } } })
 *
 * forecast.binding // => "tokens"
 * Math.round(Duration.toSeconds(forecast.duration)) // => 42
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Internal from "./internal/forecast.ts"
import { invalid, onlyKnown, waitOf } from "./internal/invalid.ts"
import * as InternalLatency from "./internal/latency.ts"
import { nearestRank } from "./internal/nearestRank.ts"
import type * as Limits from "./Limits.ts"
import * as Presets from "./Presets.ts"

// -----------------------------------------------------------------------------
// Workloads
// -----------------------------------------------------------------------------

/**
 * One call: what it will use, and how long the provider works on it where that is known.
 *
 * @category models
 * @since 0.1.0
 */
export interface Call {
  readonly inputTokens: number
  readonly outputTokens: number
  /**
   * Output tokens that are reserved until it is known what the call used: the estimator's 95th percentile, or
   * `max_tokens` where the provider counts that.
   *
   * @default outputTokens
   */
  readonly reservedOutputTokens?: number | undefined
  /** @default from the tokens, see {@link Latency} */
  readonly duration?: Duration.Input | undefined
}

/**
 * One agent, which makes its calls one after the other.
 *
 * @category models
 * @since 0.1.0
 */
export interface Agent {
  readonly name: string
  /** @default at once */
  readonly startsAfter?: Duration.Input | undefined
  readonly calls: ReadonlyArray<Call>
}

/**
 * What is to be done.
 *
 * @category models
 * @since 0.1.0
 */
export type Workload = ReadonlyArray<Agent>

/** A forecast of more calls takes minutes, and says no more than one of a tenth of them. */
const mostCalls = 1_000_000

/**
 * A workload of agents that are all alike. It has at most a million calls, which take some seconds to play through.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when `agents` or `calls` is no whole number above zero, or both together are more.
 *
 * @category constructors
 * @since 0.1.0
 */
export const uniform = (options: {
  readonly agents: number
  /** Calls of each agent. */
  readonly calls: number
  readonly first: Call
  /** @default as the first */
  readonly later?: Call | undefined
}): Workload => {
  const { agents, calls, first, later = first } = options
  whole("agents", agents)
  whole("calls", calls)
  if (agents * calls > mostCalls) {
    const option = agents > mostCalls ? "agents" : "calls"
    invalid(`Forecast.${option}`, `at most ${mostCalls} calls of all agents`, agents * calls)
  }
  return Array.from({ length: agents }, (_, number) => ({
    name: `agent-${number + 1}`,
    calls: Array.from({ length: calls }, (_, index) => (index === 0 ? first : later))
  }))
}

// -----------------------------------------------------------------------------
// Options
// -----------------------------------------------------------------------------

/**
 * How long a provider works on a call, in milliseconds. Measure yours: it decides how many agents still help.
 *
 * @category options
 * @since 0.1.0
 */
export interface Latency {
  /** @default 500 */
  readonly baseMillis?: number | undefined
  /** @default 0.01: 100,000 tokens are read in a second */
  readonly perInputTokenMillis?: number | undefined
  /** @default 10: 100 tokens are written in a second */
  readonly perOutputTokenMillis?: number | undefined
}

/**
 * What a workload runs under.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly limits: Limits.Limits
  /** Calls in flight at once. @default Infinity */
  readonly concurrency?: number | undefined
  /**
   * The part of each burst that the budget keeps back.
   *
   * @default 0.003: what is left of the budget's 5 % once the provider's headers have confirmed its view
   */
  readonly headroom?: number | undefined
  readonly latency?: Latency | undefined
  /**
   * What is left of each limit at the start, as `status` of a budget says: for the time that is left of what is under way.
   * Less than nothing is debt.
   *
   * @default all of it
   */
  readonly levels?: Limits.Charge | undefined
}

// -----------------------------------------------------------------------------
// Forecasts
// -----------------------------------------------------------------------------

/**
 * Waits in the queue: half, 95 and 99 of 100 calls wait no longer.
 *
 * @category models
 * @since 0.1.0
 */
export interface Waits {
  readonly p50: Duration.Duration
  readonly p95: Duration.Duration
  readonly p99: Duration.Duration
}

/**
 * One agent's part of a forecast.
 *
 * @category models
 * @since 0.1.0
 */
export interface AgentForecast {
  readonly name: string
  /** When it is done, from the start of all. */
  readonly finishesAfter: Duration.Duration
  readonly waits: Waits
}

/**
 * One call as it is expected to go, from the start of all.
 *
 * @category models
 * @since 0.1.0
 */
export interface CallForecast {
  readonly agent: string
  readonly askedAfter: Duration.Duration
  readonly admittedAfter: Duration.Duration
  readonly finishesAfter: Duration.Duration
}

/**
 * A call that will never be admitted, because it is larger than a limit or a quota is used up by then. Its agent stops.
 *
 * @category models
 * @since 0.1.0
 */
export interface Refused extends Limits.Misfit {
  readonly agent: string
}

/**
 * What binds: the dimension that calls wait for most, `"concurrency"`, or `"agents"` where hardly anybody waits and the
 * longest agent decides.
 *
 * @category models
 * @since 0.1.0
 */
export type Binding = Limits.Dimension | "concurrency" | "agents"

/**
 * What a workload will take.
 *
 * @category models
 * @since 0.1.0
 */
export interface Forecast {
  readonly duration: Duration.Duration
  readonly binding: Binding
  /** For what somebody waits, and how long. */
  readonly blocked: { readonly [B in Binding]?: Duration.Duration }
  readonly waits: Waits
  readonly agents: ReadonlyArray<AgentForecast>
  readonly calls: ReadonlyArray<CallForecast>
  readonly refused: ReadonlyArray<Refused>
  /** What all calls use together. */
  readonly usage: Limits.Whole
}

/** If calls wait for less than this part of the time, the agents themselves take that long. */
const hardly = 0.05

const atLeast = (option: string, value: number, least: number): void => {
  if (!(value >= least)) invalid(`Forecast.${option}`, `a number >= ${least}`, value)
}

const whole = (option: string, value: number): void => {
  if (!(Number.isSafeInteger(value) && value >= 1)) invalid(`Forecast.${option}`, "an integer >= 1", value)
}

/** A span of a workload, in milliseconds. */
const span = (option: string, millis: number): number => {
  if (!(millis >= 0 && millis < Infinity)) invalid(`Forecast.${option}`, "a finite time >= 0", `${millis} ms`)
  return millis
}

const agentsOf = (workload: Workload, latency: Latency): ReadonlyArray<Internal.Agent> => {
  onlyKnown("Forecast.latency", latency, { baseMillis: true, perInputTokenMillis: true, perOutputTokenMillis: true })
  const usual = InternalLatency.complete(latency)
  const millis = (call: Call): number =>
    call.duration === undefined
      ? InternalLatency.millisOf(usual, call)
      : Duration.toMillis(waitOf("Forecast.duration", call.duration))
  return workload.map(({ calls, name, startsAfter }) => ({
    name,
    startsAt:
      startsAfter === undefined
        ? 0
        : span("startsAfter", Duration.toMillis(waitOf("Forecast.startsAfter", startsAfter))),
    calls: calls.map((call) => {
      const { inputTokens, outputTokens, reservedOutputTokens = 0 } = call
      atLeast("reservedOutputTokens", reservedOutputTokens, 0)
      return {
        estimate: { requests: 1, inputTokens, outputTokens: Math.max(outputTokens, reservedOutputTokens) },
        usage: { requests: 1, inputTokens, outputTokens },
        millis: span("latency", millis(call))
      }
    })
  }))
}

const setupOf = (options: Options): Internal.Setup => {
  onlyKnown("Forecast", options, { limits: true, concurrency: true, headroom: true, latency: true, levels: true })
  const { concurrency = Infinity, headroom = 0.003, levels = {}, limits } = options
  atLeast("concurrency", concurrency, 1)
  if (!(headroom >= 0 && headroom <= 0.5)) invalid("Forecast.headroom", "a number from 0 to 0.5", headroom)
  onlyKnown("Forecast.levels", levels, { requests: true, inputTokens: true, outputTokens: true, tokens: true })
  for (const [dimension, level] of Object.entries(levels)) {
    if (!Number.isFinite(level)) invalid(`Forecast.levels.${dimension}`, "a finite number", level)
  }
  return { limits, levels, concurrency, headroom }
}

const quantile = (sorted: ReadonlyArray<number>, share: number): Duration.Duration =>
  Duration.millis(nearestRank(sorted, share) ?? 0)

const waitsOf = (served: ReadonlyArray<Internal.Served>): Waits => {
  const waits = served.map(({ admittedAt, askedAt }) => admittedAt - askedAt).sort((a, b) => a - b)
  return { p50: quantile(waits, 0.5), p95: quantile(waits, 0.95), p99: quantile(waits, 0.99) }
}

const bindingOf = ({ blocked, endsAt }: Internal.Outcome): Binding => {
  let binding: Binding = "agents"
  let longest = hardly * endsAt
  for (const [obstacle, millis] of Object.entries(blocked) as ReadonlyArray<[Internal.Obstacle, number]>) {
    if (millis > longest) {
      longest = millis
      binding = obstacle
    }
  }
  return binding
}

const usageOf = (workload: Workload): Forecast["usage"] => {
  const sum = { requests: 0, inputTokens: 0, outputTokens: 0, tokens: 0 }
  for (const { calls } of workload) {
    for (const { inputTokens, outputTokens } of calls) {
      sum.requests++
      sum.inputTokens += inputTokens
      sum.outputTokens += outputTokens
      sum.tokens += inputTokens + outputTokens
    }
  }
  return sum
}

/**
 * What a workload will take.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (workload: Workload, options: Options): Forecast => {
  const agents = agentsOf(workload, options.latency ?? {})
  const outcome = Internal.play(agents, setupOf(options))
  const byAgent = Map.groupBy(outcome.served, ({ agent }) => agent)
  const blocked: { [B in Binding]?: Duration.Duration } = {}
  for (const [obstacle, millis] of Object.entries(outcome.blocked)) {
    blocked[obstacle as Internal.Obstacle] = Duration.millis(millis)
  }
  return {
    duration: Duration.millis(outcome.endsAt),
    binding: bindingOf(outcome),
    blocked,
    waits: waitsOf(outcome.served),
    agents: agents.map((agent) => {
      const served = byAgent.get(agent) ?? []
      return {
        name: agent.name,
        // Its calls come one after the other.
        finishesAfter: Duration.millis(served.at(-1)?.endsAt ?? 0),
        waits: waitsOf(served)
      }
    }),
    calls: outcome.served.map(({ admittedAt, agent, askedAt, endsAt }) => ({
      agent: agent.name,
      askedAfter: Duration.millis(askedAt),
      admittedAfter: Duration.millis(admittedAt),
      finishesAfter: Duration.millis(endsAt)
    })),
    refused: outcome.refused.map(({ agent, ...misfit }) => ({ agent: agent.name, ...misfit })),
    usage: usageOf(workload)
  }
}

// -----------------------------------------------------------------------------
// Questions
// -----------------------------------------------------------------------------

/**
 * How many calls at once still help: the fewest with which the workload takes at most 2 % longer than with all.
 *
 * **Details**
 *
 * More agents than this wait for each other's tokens. Found by halving, so a few forecasts are made.
 *
 * **Example** (twelve agents, of which hardly more than one can work at a time at first)
 *
 * ```ts doctest
 * import * as Forecast from "floodgate/Forecast"
 *
 * const workload = Forecast.uniform({ agents: 12, calls: 5, first: { inputTokens: 20_000, outputTokens: 100 } })
 *
 * const few = Forecast.agentsThatHelp(workload, { limits: { inputTokens: { perMinute: 400_000, burst: 40_000 } } })
 *
 * few < 4 // => true
 * ```
 *
 * @category questions
 * @since 0.1.0
 */
export const agentsThatHelp = (workload: Workload, options: Options): number => {
  const agents = agentsOf(workload, options.latency ?? {})
  const setup = setupOf(options)
  const most = Math.max(1, Math.min(workload.length, setup.concurrency))
  const search = Internal.agentsThatHelp(most, (concurrency) => Internal.play(agents, { ...setup, concurrency }).endsAt)
  let step = search.next()
  while (step.done !== true) step = search.next()
  return step.value
}

/**
 * A set of limits that can be had, by name.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tier {
  readonly name: string
  readonly limits: Limits.Limits
}

/**
 * Anthropic's usage tiers for its Opus, Sonnet and Haiku models, the smallest first.
 *
 * The figures are those of {@link Presets.anthropic}, with their date and source.
 *
 * @category tiers
 * @since 0.1.0
 */
export const anthropicTiers: ReadonlyArray<Tier> = [
  { name: "Start", limits: Presets.anthropic.start.pools["sonnet-5"]! },
  { name: "Build", limits: Presets.anthropic.build.pools["sonnet-5"]! },
  { name: "Scale", limits: Presets.anthropic.scale.pools["sonnet-5"]! }
]

/**
 * The first of the tiers with which the workload is done within the deadline, or `undefined` where none is enough. List
 * the cheapest first.
 *
 * **Example** (which tier reads 30M tokens in five minutes)
 *
 * ```ts doctest
 * import * as Forecast from "floodgate/Forecast"
 *
 * const workload = Forecast.uniform({ agents: 100, calls: 10, first: { inputTokens: 30_000, outputTokens: 200 } })
 *
 * Forecast.cheapest(workload, { tiers: Forecast.anthropicTiers, deadline: "5 minutes" })?.name // => "Scale"
 * ```
 *
 * @category questions
 * @since 0.1.0
 */
export const cheapest = (
  workload: Workload,
  options: Omit<Options, "limits"> & { readonly tiers: ReadonlyArray<Tier>; readonly deadline: Duration.Input }
): Tier | undefined => {
  const { deadline, tiers, ...how } = options
  const most = Duration.toMillis(waitOf("Forecast.deadline", deadline))
  const agents = agentsOf(workload, how.latency ?? {})
  return tiers.find(({ limits }) => {
    const { endsAt, refused } = Internal.play(agents, setupOf({ ...how, limits }))
    return refused.length === 0 && endsAt <= most
  })
}
