/**
 * Runs the same work under each strategy: the strategy's real code, in simulated time, against `ProviderSim`.
 *
 * @stability experimental
 * @since 0.1.0
 */
import * as Words from "floodgate/internal/words"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as TestClock from "effect/testing/TestClock"
import { LlmProvider } from "floodgate/LlmProvider"
import { ProviderSim, Sessions, Simulation } from "floodgate/testing"
import { largest, smallest } from "./extremes.ts"
import { floor } from "./floor.ts"
import * as Record from "./record.ts"
import type { AgentRecord, RaceResult, RaceRun } from "./runs.ts"
import type { Scenario } from "./scenario.ts"
import * as Scenarios from "./scenario.ts"
import type { RunningPlace, StrategyClient, Strategy } from "./strategy.ts"

export type { RaceResult, RaceRun } from "./runs.ts"

type Options = {
  /** Called as the race goes on. */
  readonly progress?:
    | ((progress: {
        readonly strategy: string
        readonly seconds: number
        readonly completed: number
        readonly calls: number
      }) => Effect.Effect<void>)
    | undefined
}

// -----------------------------------------------------------------------------
// Running
// -----------------------------------------------------------------------------

/**
 * Runs one strategy. The same scenario and seed give the same run.
 *
 * @stability experimental
 * @category running
 * @since 0.1.0
 */
export const run = (scenario: Scenario, strategy: Strategy, options: Options = {}): Effect.Effect<RaceRun> => {
  const recorder = Record.make(scenario)
  const { progress } = options
  const calls = scenario.agents.reduce((sum, agent) => sum + agent.calls.length, 0)
  const agentsOf = (client: StrategyClient) =>
    Effect.fnUntraced(function* ({ calls, name, script, startsAtMillis }: Scenario["agents"][number]) {
      if (startsAtMillis > 0) yield* Effect.sleep(startsAtMillis)
      const make = (call: Scenarios.ScenarioCall) => Record.call(recorder, call)(client(Scenarios.paramsOf(call), call))
      const named = new Map(calls.map((call) => [Scenarios.nameOf(call), call]))
      const all =
        script === undefined
          ? Effect.forEach(calls, make, { discard: true })
          : Sessions.run(script, (call) => make(named.get(Scenarios.nameOf(call))!))
      const failed = yield* Effect.match(all, { onSuccess: () => false, onFailure: () => true })
      const record = recorder.agents.get(name)!
      record.failed = failed
      record.endedAt = yield* Clock.currentTimeMillis
    })

  const whole = Effect.gen(function* () {
    let client: StrategyClient | undefined
    const places = yield* Effect.forEach(Scenarios.placesOf(scenario), (place) =>
      Effect.map(
        Layer.build(Layer.fresh(ProviderSim.layer(Scenarios.providerOf(scenario, place)))),
        (context): RunningPlace => ({
          ...place,
          provider: Record.provider(recorder, Context.get(context, LlmProvider), () => client?.believes),
          sim: Context.get(context, ProviderSim.ProviderSim)
        })
      )
    )
    const { provider, sim } = places[0]!
    const services = Context.make(LlmProvider, provider).pipe(Context.add(ProviderSim.ProviderSim, sim))
    const finished = yield* Effect.gen(function* () {
      client = yield* strategy.client(scenario, places)
      const start = agentsOf(client)
      const agents = scenario.agents.map((agent) => ({ agent, effect: start(agent) }))
      yield* (
        client.run?.(agents) ??
        Effect.forEach(agents, ({ effect }) => effect, { concurrency: "unbounded", discard: true })
      )
    }).pipe(Effect.scoped, Effect.provide(services), Effect.timeoutOption(scenario.maxSeconds * 1_000))
    const stats = yield* Effect.forEach(places, ({ sim }) => sim.stats)
    const logs = yield* Effect.forEach(places, ({ sim }) => sim.log)
    return {
      result: resultOf(scenario, strategy, recorder, stats, Option.isSome(finished)),
      calls: [...recorder.calls.values()],
      agents: [...recorder.agents.values()],
      levels: recorder.levels,
      log: logs.flat().toSorted((a, b) => a.at - b.at)
    }
  }).pipe(Effect.scoped)

  return Simulation.run(whole, {
    seed: `${strategy.name}/${scenario.seed}`,
    progress:
      progress && ((seconds) => progress({ strategy: strategy.name, seconds, completed: recorder.completed, calls }))
  }).pipe(
    Effect.map(({ value }) => value),
    // Each race has its own clock, which starts at 0.
    Effect.provide(TestClock.layer({ warningDelay: "1 hour" }))
  )
}

/**
 * Runs the strategies one after the other.
 *
 * @stability experimental
 * @category running
 * @since 0.1.0
 */
export const race = (
  scenario: Scenario,
  strategies: ReadonlyArray<Strategy>,
  options?: Options
): Effect.Effect<ReadonlyArray<RaceRun>> => Effect.forEach(strategies, (strategy) => run(scenario, strategy, options))

// -----------------------------------------------------------------------------
// Figures
// -----------------------------------------------------------------------------

/**
 * The quantile of the values by nearest rank; undefined if there are none.
 *
 * @stability experimental
 * @category getters
 * @since 0.1.0
 */
export const quantile = (values: ReadonlyArray<number>, share: number): number | undefined => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]
}

const seconds = (millis: number | undefined): number | null =>
  millis === undefined ? null : Words.round(millis / 1_000)

const fairnessOf = (agents: ReadonlyArray<AgentRecord>): number | null => {
  // Measured from the agent's own start, because agents may start later than others.
  const spans = agents.map((agent) => agent.endedAt! - agent.startsAtMillis)
  const shortest = smallest(spans)
  return shortest > 0 && shortest < Infinity ? Words.round(largest(spans) / shortest) : null
}

const resultOf = (
  scenario: Scenario,
  strategy: Strategy,
  recorder: Record.RaceRecorder,
  stats: ReadonlyArray<ProviderSim.Stats>,
  finished: boolean
): RaceResult => {
  const agents = [...recorder.agents.values()]
  const calls = [...recorder.calls.values()]
  const succeeded = calls.filter((call) => call.outcome === "ok")
  const latencies = succeeded.map((call) => call.endedAt! - call.askedAt)
  const failedAgents = agents.filter((agent) => agent.failed || agent.endedAt === undefined).length
  const makespan = finished
    ? largest(
        agents.map((agent) => agent.endedAt!),
        0
      )
    : scenario.maxSeconds * 1_000
  const floorSeconds = floor(scenario).seconds
  const planned = scenario.agents.reduce((sum, agent) => sum + agent.calls.length, 0)
  return {
    strategy: strategy.name,
    makespanSeconds: Words.round(makespan / 1_000),
    floorSeconds: Words.round(floorSeconds),
    ratio: Words.round(makespan / 1_000 / floorSeconds, 4),
    rejections: stats.reduce((sum, { rejected }) => sum + rejected, 0),
    retries: calls.reduce((sum, call) => sum + Math.max(0, call.attempts.length - 1), 0),
    failedCalls: planned - succeeded.length,
    failedAgents,
    p50Seconds: seconds(quantile(latencies, 0.5)),
    p99Seconds: seconds(quantile(latencies, 0.99)),
    fairness: failedAgents > 0 ? null : fairnessOf(agents),
    meanEndSeconds: Words.round(
      agents.reduce((sum, { endedAt }) => sum + (endedAt ?? makespan), 0) / agents.length / 1_000
    ),
    tokensUsed: stats.reduce((sum, { inputTokens, outputTokens }) => sum + inputTokens + outputTokens, 0),
    finished
  }
}
