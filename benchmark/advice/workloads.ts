/** Ten workloads of agents of which nothing is stated, in simulated time: followed advice against fixed numbers at once. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import type * as Limits from "floodgate/Limits"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim, Simulation } from "floodgate/testing"
import { Scenario } from "@floodgate/lab/internal"
import { countingAtOnce } from "../../test/support/atOnce.ts"
import { mulberry } from "../../test/support/random.ts"

/** One call: tokens, the seconds that the provider takes, and the pause before it. */
interface WorkloadCall {
  readonly inputTokens: number
  readonly outputTokens: number
  readonly pause: number
}

export interface Workload {
  readonly name: string
  readonly agents: ReadonlyArray<ReadonlyArray<WorkloadCall>>
  readonly limits: Limits.Limits
  readonly provider: Scenario.ProviderOptions
  /** The limit of calls in flight that clients know. */
  readonly declared?: number
}

/** The result of a run. */
export interface Ran {
  readonly seconds: number
  readonly max: number
  readonly rejected: number
  readonly lost: number
}

interface Shape {
  readonly agents?: number
  readonly calls?: number
  readonly first?: number
  readonly later?: number
  readonly growth?: number
  readonly output?: number
  /** The shortest and the longest pause, in seconds. */
  readonly pauses?: readonly [number, number]
  /** By how much sizes differ, as a part. */
  readonly spread?: number
}

const latency = { baseMillis: 500, perInputTokenMillis: 0.01, perOutputTokenMillis: 10 }
const steady = { tokens: { perSecond: 20_000, burst: 60_000 } }

const agentsOf = (shape: Shape, seed: number): Workload["agents"] => {
  const { agents = 96, calls = 8, first = 8_000, growth = 0, later = first, output = 200, pauses, spread = 0 } = shape
  const random = mulberry(seed)
  const between = (from: number, to: number) => from + (to - from) * random()
  return Array.from({ length: agents }, () => {
    const scale = between(1 - spread, 1 + spread)
    return Array.from({ length: calls }, (_, index) => ({
      inputTokens: Math.round(scale * (index === 0 ? first : later + (index - 1) * growth)),
      outputTokens: output,
      pause: index === 0 || pauses === undefined ? 0 : between(...pauses)
    }))
  })
}

const workload = (name: string, shape: Shape, conditions: Partial<Workload> = {}): ((seed: number) => Workload) => {
  return (seed) => ({ name, agents: agentsOf(shape, seed), limits: steady, provider: { latency }, ...conditions })
}

/** The workloads, for a seed. */
export const workloads: ReadonlyArray<(seed: number) => Workload> = [
  workload("short", { calls: 3 }),
  workload("growing", { first: 4_000, later: 5_500, growth: 1_500 }),
  workload("pauses 5-60 s", { first: 4_000, pauses: [5, 60] }),
  workload("pauses 2-8 s", { first: 4_000, pauses: [2, 8] }),
  workload("mixed sizes", { spread: 0.9, pauses: [0, 5] }),
  workload("12 in flight, declared", {}, { limits: {}, provider: { latency, concurrency: 12 }, declared: 12 }),
  workload("12 in flight, hidden", {}, { limits: {}, provider: { latency, concurrency: 12 } }),
  workload("burst of a minute", {}, { limits: { tokens: { perSecond: 20_000, burst: 1_200_000 } } }),
  workload("neighbour of a third", {}, { provider: { latency, neighbour: { share: 1 / 3 } } }),
  workload("large first calls", { first: 50_000, later: 5_000 })
]

/** Runs a workload. Nothing is stated about its agents. */
export const run = (
  { agents, declared, limits, provider }: Workload,
  isTold: boolean,
  concurrency: number | "advised"
): Effect.Effect<Ran> => {
  const { around, seen } = countingAtOnce()
  const scenario: Scenario.Scenario = {
    ...Scenario.make({ agents: 1 }),
    limits,
    provider,
    agents: agents.map((calls, number) => ({
      name: `agent-${number}`,
      startsAtMillis: 0,
      calls: calls.map(({ inputTokens, outputTokens }, index) => ({
        agent: `agent-${number}`,
        index,
        inputTokens,
        outputTokens,
        maxTokens: outputTokens,
        prompt: { text: "prose", charactersPerToken: 4 }
      }))
    }))
  }
  const program = Effect.gen(function* () {
    const client = yield* LlmClient.LlmClient
    const sim = yield* ProviderSim.ProviderSim
    const began = yield* Clock.currentTimeMillis
    const effectOf = ({ calls }: Scenario.ScenarioAgent, number: number) =>
      Effect.forEach(
        calls,
        (call, index) =>
          Effect.andThen(
            Effect.sleep(1_000 * agents[number]![index]!.pause),
            client.create(Scenario.paramsOf(call), { inputTokens: call.inputTokens })
          ),
        { discard: true }
      )
    const outcomes = yield* Agents.run(
      scenario.agents.map((agent, number) => ({ key: agent.name, effect: around(effectOf(agent, number)) })),
      { concurrency }
    )
    return {
      seconds: ((yield* Clock.currentTimeMillis) - began) / 1_000,
      max: seen.max,
      rejected: (yield* sim.stats).rejected,
      lost: outcomes.filter(({ exit }) => !Exit.isSuccess(exit)).length
    }
  })
  const told = isTold ? { limits } : {}
  const live = LlmClient.layerProvider().pipe(
    Layer.provideMerge(Layer.provide(Agents.layer, Budget.layer({ ...told, concurrency: declared }))),
    Layer.provideMerge(ProviderSim.layer(Scenario.providerOf(scenario)))
  )
  return Effect.map(Simulation.run(Effect.scoped(Effect.orDie(Effect.provide(program, live)))), ({ value }) => value)
}
