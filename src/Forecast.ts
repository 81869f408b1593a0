/**
 * `Forecast` predicts how long a workload takes under given limits, before it runs.
 *
 * Three things decide how long a fan-out takes: how much of each limit it uses, how long its longest agent takes alone, and how
 * many calls may run at once. A forecast plays the workload through the queue and the limits of a budget, without a clock. It
 * says how long the workload takes, which limit binds, and how long calls wait.
 *
 * **Details**
 *
 * A forecast needs the sizes of the calls and how long the provider works on them. It assumes that nobody else uses the limits,
 * that nothing fails, and that latencies do not vary. With the right figures it is within 5 % of the simulation in every
 * scenario of the lab without faults (a bucket, rejections charged). If latencies vary by a fifth, it is within 5 % of the
 * median run, and about one run in ten takes 5 to 10 % longer, because the slow calls of an agent come last.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` if the workload, limits or options are invalid.
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
 * @stability unstable
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { checkUniform, forecast, prepare } from "./budget/forecast/forecast.ts"
import type { Forecast, Options, Work, Workload } from "./budget/forecast/models.ts"
import { callsOf } from "./budget/forecast/work.ts"
import { check } from "./domain/input/checks.ts"
import { drained, yielding } from "./domain/stepwise.ts"

export type { Agent, Call, Forecast, LiveOptions, Options, Work, Workload } from "./budget/forecast/models.ts"

// -----------------------------------------------------------------------------
// Constructors
// -----------------------------------------------------------------------------

/**
 * A workload of identical agents. It may have up to a million calls; a forecast of that many takes a few seconds.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` if `agents` or `calls` is not a whole number above 0, or if there are more than a million calls.
 *
 * **Example** (Three agents of two calls)
 *
 * ```ts doctest
 * import * as Forecast from "floodgate/Forecast"
 *
 * const workload = Forecast.uniform({ agents: 3, calls: 2, first: { inputTokens: 10_000, outputTokens: 500 } })
 *
 * workload.map(({ calls, name }) => [name, calls.length]) // => [["agent-1", 2], ["agent-2", 2], ["agent-3", 2]]
 * ```
 *
 * **Example** (Conversations that grow by 2,000 tokens a call, where only uncached input counts)
 *
 * ```ts doctest
 * import * as Forecast from "floodgate/Forecast"
 *
 * const [agent] = Forecast.uniform({
 *   agents: 1,
 *   calls: 3,
 *   first: { inputTokens: 10_000, outputTokens: 500 },
 *   growth: 2_000,
 *   cachedShare: 1
 * })
 *
 * agent!.calls.map(({ cacheReadTokens = 0, inputTokens }) => [inputTokens, cacheReadTokens]) // => [[10_000, 0], [2_000, 10_000], [2_000, 12_000]]
 * ```
 *
 * @stability unstable
 * @category constructors
 * @since 0.1.0
 */
export const uniform = (options: Work & { readonly agents: number }): Workload => {
  check("Forecast.uniform", checkUniform, options)
  const calls = callsOf(options)
  return Array.from({ length: options.agents }, (_, number) => ({ name: `agent-${number + 1}`, calls: [...calls] }))
}

/**
 * Predicts how long a workload takes, which limit binds, and how long calls wait.
 *
 * **Example** (See which limit calls wait for)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Forecast from "floodgate/Forecast"
 *
 * const workload = Forecast.uniform({ agents: 10, calls: 1, first: { inputTokens: 1_000, outputTokens: 100 } })
 *
 * const { binding, duration, usage } = Forecast.make(workload, { limits: { requests: { perSecond: 1, burst: 1 } } })
 *
 * binding // => "requests"
 * usage.requests // => 10
 * Duration.toSeconds(duration) > 9 // => true
 * ```
 *
 * @stability unstable
 * @category constructors
 * @since 0.1.0
 */
export const make = (workload: Workload, options: Options): Forecast =>
  drained(forecast(prepare("Forecast.make", workload, options)))

/**
 * {@link make} as an Effect, which lets other fibers run about once a millisecond. A forecast of a million calls takes seconds;
 * {@link make} would block the program for that time.
 *
 * **Gotchas**
 *
 * An invalid workload, limit or option is a defect: a `RangeError`.
 *
 * **Example** (With a timeout)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Forecast from "floodgate/Forecast"
 *
 * const workload = Forecast.uniform({ agents: 10, calls: 1, first: { inputTokens: 1_000, outputTokens: 100 } })
 *
 * const forecast = Effect.timeout(Forecast.makeEffect(workload, { limits: {} }), "10 seconds")
 *
 * const { calls } = await Effect.runPromise(forecast)
 *
 * calls.length // => 10
 * ```
 *
 * @stability unstable
 * @category constructors
 * @since 0.4.0
 */
export const makeEffect = (workload: Workload, options: Options): Effect.Effect<Forecast> =>
  Effect.suspend(() => yielding(forecast(prepare("Forecast.makeEffect", workload, options))))
