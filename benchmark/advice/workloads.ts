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
import { read, workloadOf } from "../sessions/trace.ts"
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

/** Recorded sessions of coding agents: their lead agents, with the pauses that were recorded up to ten seconds. */
export const recorded = (file: string, offset: number): Workload => {
  const limit = { perMinute: 2_000_000, burst: 0.2, scale: 16 }
  const choice = { count: 60, offset, lifetime: Infinity, countsAll: false, ...limit }
  const { burst, perMinute, sessions } = workloadOf(read(file), choice)
  return {
    name: "real sessions",
    agents: sessions.map((turns) =>
      turns
        .filter(({ path }) => path === "0")
        .map(({ output, pause, prompt, shared }, index) => ({
          inputTokens: index === 0 ? prompt : prompt - shared,
          outputTokens: output,
          pause: index === 0 ? 0 : pause
        }))
    ),
    limits: { tokens: { perMinute, burst } },
    provider: { latency: { ...latency, perOutputTokenMillis: 15 * limit.scale } }
  }
}

/**
 * Jobs that one pool gets one after the other: of a random kind, under random limits, with neighbours, rejections and answers that vary.
 * Each has its own agents, whose number and sizes differ by up to two thirds.
 */
export const randomJobs = (seed: number, count: number): ReadonlyArray<Workload> => {
  const random = mulberry(seed)
  const between = (from: number, to: number) => from + (to - from) * random()
  const whole = (from: number, to: number) => Math.round(between(from, to))
  const rate = whole(10_000, 60_000)
  const longest = random() < 0.5 ? 0 : between(2, 40)
  const shape: Shape = {
    calls: whole(3, 10),
    first: whole(2_000, 20_000),
    growth: random() < 0.5 ? 0 : whole(200, 2_000),
    output: whole(100, 600),
    pauses: [longest / 8, longest],
    spread: between(0, 0.7)
  }
  const burst = whole(2, 20)
  const noise = between(0, 0.3)
  const limits = { tokens: { perSecond: rate, burst: burst * rate } }
  const neighbour = random() < 0.5 ? undefined : { share: between(0.05, 0.3) }
  const faults = [{ kind: "429", rate: between(0, 0.02) } as const, { kind: "529", rate: between(0, 0.01) } as const]
  const provider = { latency: { ...latency, noise }, faults, ...(neighbour && { neighbour }) }
  return Array.from({ length: count }, (_, job) => {
    const size = between(0.6, 1.66)
    const own = { ...shape, agents: whole(20, 90), first: Math.round(size * shape.first!) }
    return { name: `random-${seed}`, agents: agentsOf(own, 1_000 * seed + job), limits, provider }
  })
}

/** The scenario of workloads that follow each other at one provider. Agents of different workloads have different names. */
const scenarioOf = (workloads: ReadonlyArray<Workload>): Scenario.Scenario => {
  const { limits, provider } = workloads[0]!
  return {
    ...Scenario.make({ agents: 1 }),
    limits,
    provider,
    agents: workloads.flatMap(({ agents }, job) =>
      agents.map((calls, number) => ({
        name: `agent-${job}-${number}`,
        startsAtMillis: 0,
        calls: calls.map(({ inputTokens, outputTokens }, index) => ({
          agent: `agent-${job}-${number}`,
          index,
          inputTokens,
          outputTokens,
          maxTokens: outputTokens,
          prompt: { text: "prose", charactersPerToken: 4 } as const
        }))
      }))
    )
  }
}

type NamedAgent = Agents.Agent<void, unknown, never>

/** Runs something with the agents of each workload, one after the other. Nothing is stated about them. */
export const programOf = <A>(
  workloads: ReadonlyArray<Workload>,
  isTold: boolean,
  use: (
    agents: ReadonlyArray<NamedAgent>,
    job: number
  ) => Effect.Effect<A, never, Agents.Meter | Budget.TokenBudget | ProviderSim.ProviderSim>
): Effect.Effect<ReadonlyArray<A>> => {
  const scenario = scenarioOf(workloads)
  const { declared, limits } = workloads[0]!
  const program = Effect.gen(function* () {
    const client = yield* LlmClient.LlmClient
    const effectOf = ({ calls }: Scenario.ScenarioAgent, pauses: ReadonlyArray<WorkloadCall>) =>
      Effect.forEach(
        calls,
        (call, index) =>
          Effect.andThen(
            Effect.sleep(1_000 * pauses[index]!.pause),
            client.create(Scenario.paramsOf(call), { inputTokens: call.inputTokens })
          ),
        { discard: true }
      )
    let first = 0
    return yield* Effect.forEach(workloads, ({ agents }, job) => {
      const own = scenario.agents.slice(first, (first += agents.length))
      return use(
        own.map((agent, number) => ({ key: agent.name, effect: effectOf(agent, agents[number]!) })),
        job
      )
    })
  })
  const told = isTold ? { limits } : {}
  const live = LlmClient.layerProvider().pipe(
    Layer.provideMerge(Layer.provide(Agents.layer, Budget.layer({ ...told, concurrency: declared }))),
    Layer.provideMerge(ProviderSim.layer(Scenario.providerOf(scenario)))
  )
  return Effect.map(Simulation.run(Effect.orDie(Effect.provide(program, live))), ({ value }) => value)
}

/** Runs a workload. Nothing is stated about its agents. */
export const run = (workload: Workload, isTold: boolean, concurrency: number | "advised"): Effect.Effect<Ran> =>
  programOf([workload], isTold, (agents) =>
    Effect.gen(function* () {
      const { around, seen } = countingAtOnce()
      const sim = yield* ProviderSim.ProviderSim
      const began = yield* Clock.currentTimeMillis
      const outcomes = yield* Agents.run(
        agents.map(({ effect, key }) => ({ key, effect: around(effect) })),
        { concurrency }
      )
      return {
        seconds: ((yield* Clock.currentTimeMillis) - began) / 1_000,
        max: seen.max,
        rejected: (yield* sim.stats).rejected,
        lost: outcomes.filter(({ exit }) => !Exit.isSuccess(exit)).length
      }
    })
  ).pipe(Effect.map(([ran]) => ran!))
