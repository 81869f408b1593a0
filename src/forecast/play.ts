/**
 * A forecast in steps. The caller may do something else between two steps, because a million calls take seconds.
 */
import * as Duration from "effect/Duration"
import * as Internal from "./queue.ts"
import { invalid, waitOf } from "../input/arguments.ts"
import { complete, millisOf } from "./latency.ts"
import type * as Amounts from "../limits/amounts.ts"
import type { Call, Forecast, Options, Workload } from "./models.ts"

/** Runs all steps at once. */
export const drained = <A>(steps: Internal.Steps<A>): A => {
  let step = steps.next()
  while (step.done !== true) step = steps.next()
  return step.value
}

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

const check = (isRight: boolean, option: string, expected: string, value: unknown): void => {
  if (!isRight) invalid(`Forecast.${option}`, expected, value)
}

/** Checks a positive integer. */
export const whole = (option: string, value: number): void =>
  check(Number.isSafeInteger(value) && value >= 1, option, "an integer >= 1", value)

const amount = (option: string, value: number): number => {
  check(Number.isFinite(value) && value >= 0, option, "a finite number >= 0", value)
  return value
}

/** A duration of a workload, in milliseconds. */
const spanOf = (option: string, input: Duration.Input): number => {
  const millis = Duration.toMillis(waitOf(`Forecast.${option}`, input))
  check(millis < Infinity, option, "a finite duration", input)
  return millis
}

const latencyOf = (latency: Options["latency"]): ReturnType<typeof complete> => {
  const all = complete(latency)
  for (const [name, millis] of Object.entries(all)) amount(`latency.${name}`, millis)
  return all
}

const agentsOf = (workload: Workload, latency: Options["latency"]): ReadonlyArray<Internal.Agent> => {
  const usual = latencyOf(latency)
  const callOf = (call: Call): Internal.Call => {
    const inputTokens = amount("inputTokens", call.inputTokens)
    const outputTokens = amount("outputTokens", call.outputTokens)
    const reserved = Math.max(outputTokens, amount("reservedOutputTokens", call.reservedOutputTokens ?? 0))
    return {
      estimate: { requests: 1, inputTokens, outputTokens: reserved },
      usage: { requests: 1, inputTokens, outputTokens },
      millis: call.duration === undefined ? millisOf(usual, call) : spanOf("duration", call.duration)
    }
  }
  return workload.map(({ calls, name, startsAfter = 0 }) => ({
    name,
    startsAt: spanOf("startsAfter", startsAfter),
    calls: calls.map(callOf)
  }))
}

const setupOf = (options: Options): Internal.Setup => {
  const { concurrency = Infinity, levels = {}, limits } = options
  if (concurrency !== Infinity) whole("concurrency", concurrency)
  for (const [dimension, level] of Object.entries(levels)) {
    check(level === undefined || Number.isFinite(level), `levels.${dimension}`, "a finite number", level)
  }
  return { limits, levels, concurrency }
}

/** A valid workload and its conditions. */
export interface Prepared {
  readonly agents: ReadonlyArray<Internal.Agent>
  readonly setup: Internal.Setup
}

/** Throws if the workload or an option is invalid. */
export const prepare = (workload: Workload, options: Options): Prepared => ({
  agents: agentsOf(workload, options.latency ?? {}),
  setup: setupOf(options)
})

// -----------------------------------------------------------------------------
// Figures
// -----------------------------------------------------------------------------

/** If calls wait for less than this part of the time, the agents themselves are the bottleneck. */
const hardly = 0.05

/** By the nearest rank. */
const quantile = (sorted: Float64Array, share: number): Duration.Duration =>
  Duration.millis(sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0)

const waitsOf = (served: ReadonlyArray<Internal.Served>): Forecast["waits"] => {
  const waits = Float64Array.from(served, ({ admittedAt, askedAt }) => admittedAt - askedAt).sort()
  return { p50: quantile(waits, 0.5), p95: quantile(waits, 0.95), p99: quantile(waits, 0.99) }
}

const bindingOf = ({ blocked, endsAt }: Internal.Outcome): Forecast["binding"] => {
  let binding: Forecast["binding"] = "agents"
  let longest = hardly * endsAt
  for (const [obstacle, millis] of Object.entries(blocked) as ReadonlyArray<[Internal.Obstacle, number]>) {
    if (millis > longest) {
      longest = millis
      binding = obstacle
    }
  }
  return binding
}

const usageOf = (agents: ReadonlyArray<Internal.Agent>): Amounts.Whole => {
  const sum = { requests: 0, inputTokens: 0, outputTokens: 0, tokens: 0 }
  for (const { calls } of agents) {
    for (const { usage } of calls) {
      sum.requests++
      sum.inputTokens += usage.inputTokens
      sum.outputTokens += usage.outputTokens
      sum.tokens += usage.inputTokens + usage.outputTokens
    }
  }
  return sum
}

const callOf = ({ admittedAt, agent, askedAt, endsAt }: Internal.Served): Forecast["calls"][number] => ({
  agent: agent.name,
  askedAfter: Duration.millis(askedAt),
  admittedAfter: Duration.millis(admittedAt),
  finishesAfter: Duration.millis(endsAt)
})

// -----------------------------------------------------------------------------
// The forecast
// -----------------------------------------------------------------------------

/** Predicts what a workload will take. */
export function* forecast({ agents, setup }: Prepared): Internal.Steps<Forecast> {
  const outcome = yield* Internal.play(agents, setup)
  const byAgent = Map.groupBy(outcome.served, ({ agent }) => agent)
  const blocked: { [B in Forecast["binding"]]?: Duration.Duration } = {}
  for (const [obstacle, millis] of Object.entries(outcome.blocked)) {
    blocked[obstacle as Internal.Obstacle] = Duration.millis(millis)
  }
  const forecastOf = (agent: Internal.Agent): Forecast["agents"][number] => {
    const served = byAgent.get(agent) ?? []
    // Its calls are in order.
    const finishesAfter = Duration.millis(served.at(-1)?.endsAt ?? 0)
    return { name: agent.name, finishesAfter, waits: waitsOf(served) }
  }
  return {
    duration: Duration.millis(outcome.endsAt),
    binding: bindingOf(outcome),
    blocked,
    waits: waitsOf(outcome.served),
    agents: yield* Internal.mapped(agents, forecastOf),
    calls: yield* Internal.mapped(outcome.served, callOf),
    refused: outcome.refused.map(({ agent, ...misfit }) => ({ agent: agent.name, ...misfit })),
    usage: usageOf(agents)
  }
}
