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
 * Throws a `RangeError` when the workload, limits or options make no sense.
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
import { invalid, waitOf } from "./input/arguments.ts"
import type { Call, Forecast, Options, Workload } from "./forecast/models.ts"
import * as Play from "./forecast/play.ts"
import type { Steps } from "./forecast/queue.ts"
import type * as Limits from "./Limits.ts"
import * as Presets from "./Presets.ts"

export * from "./forecast/models.ts"

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

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
  Play.whole("agents", agents)
  Play.whole("calls", calls)
  if (agents * calls > mostCalls) {
    const option = agents > mostCalls ? "agents" : "calls"
    invalid(`Forecast.${option}`, `at most ${mostCalls} calls of all agents`, agents * calls)
  }
  return Array.from({ length: agents }, (_, number) => ({
    name: `agent-${number + 1}`,
    calls: Array.from({ length: calls }, (_, index) => (index === 0 ? first : later))
  }))
}

/**
 * What a workload will take.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (workload: Workload, options: Options): Forecast =>
  Play.drained(Play.forecast(Play.prepare(workload, options)))

/**
 * {@link make} as a generator that yields about once a millisecond and returns the forecast. A forecast of a million calls
 * takes seconds; a program that must stay responsive does something else between two steps.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeSteps = (workload: Workload, options: Options): Steps<Forecast> =>
  Play.forecast(Play.prepare(workload, options))

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
export const agentsThatHelp = (workload: Workload, options: Options): number =>
  Play.drained(Play.agentsThatHelp(Play.prepare(workload, options)))

/**
 * {@link agentsThatHelp} in steps, see {@link makeSteps}.
 *
 * @category questions
 * @since 0.1.0
 */
export const agentsThatHelpSteps = (workload: Workload, options: Options): Steps<number> =>
  Play.agentsThatHelp(Play.prepare(workload, options))

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
  return tiers.find(({ limits }) => Play.drained(Play.isDoneWithin(Play.prepare(workload, { ...how, limits }), most)))
}
