/** Runs the agents of a scenario of the lab in simulated time: a number at once, or as many as help. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { Scenario } from "@floodgate/lab/internal"
import * as Agents from "floodgate/Agents"
import type * as Forecast from "floodgate/Forecast"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim, Simulation } from "floodgate/testing"
import { countingAtOnce } from "../../test/support/atOnce.ts"

/** What agents of a scenario do on average. */
export const workOf = (scenario: Scenario.Scenario): Forecast.Work => {
  const mean = (calls: ReadonlyArray<Scenario.ScenarioCall>) => ({
    inputTokens: Math.round(calls.reduce((sum, { inputTokens }) => sum + inputTokens, 0) / calls.length),
    outputTokens: Math.round(calls.reduce((sum, { outputTokens }) => sum + outputTokens, 0) / calls.length)
  })
  const calls = Math.round(Scenario.callsOf(scenario).length / scenario.agents.length)
  const later = scenario.agents.flatMap(({ calls }) => calls.slice(1))
  const first = mean(scenario.agents.map(({ calls }) => calls[0]!))
  return { calls, first, later: later.length === 0 ? first : mean(later) }
}

/** When the end is foreseen: before the first call, and when a tenth and a third of the agents are done. */
export const moments = ["start", "early", "middle"] as const

/** A foreseen and an actual end, in seconds from the question. */
export interface Foreseen {
  readonly when: (typeof moments)[number]
  readonly foreseen: number
  readonly actual: number
}

export interface FanOut {
  readonly seconds: number
  /** The most agents that ran at once. */
  readonly max: number
  readonly lost: number
  readonly rejected: number
  readonly foreseen: ReadonlyArray<Foreseen>
}

/** An answer, and when it was given. */
type Answered = Omit<Foreseen, "actual"> & { readonly at: number }

const ask = (when: Answered["when"], options: Agents.AdviseOptions) =>
  Effect.gen(function* () {
    const { end } = yield* Agents.advise(options)
    const at = yield* Clock.currentTimeMillis
    return { when, foreseen: Duration.toSeconds(end!), at } satisfies Answered
  })

/** Asks when this part of the agents are done, if some have not started yet. */
const askDuring = (
  job: Agents.Job<unknown, unknown>,
  each: Forecast.Work,
  [when, part]: readonly [Answered["when"], number]
) =>
  Effect.gen(function* () {
    const { agents } = yield* Effect.repeat(job.status, {
      until: ({ agents, done }) => done >= part * agents.length,
      schedule: Schedule.spaced("1 second")
    })
    const waiting = agents.filter(({ state }) => state === "waiting").length
    const running = agents.filter(({ state }) => state === "running").length
    return waiting === 0 ? undefined : yield* ask(when, { agents: waiting, each, running })
  })

/** Runs the agents of a scenario. The client knows the limits and the token counts. */
export const fanOut = (scenario: Scenario.Scenario, concurrency: number | "advised"): Effect.Effect<FanOut> => {
  const each = workOf(scenario)
  const { around, seen } = countingAtOnce()
  const program = Effect.gen(function* () {
    const client = yield* LlmClient.LlmClient
    const sim = yield* ProviderSim.ProviderSim
    const agents = scenario.agents.map(({ calls, name }) => ({
      key: name,
      effect: around(
        Effect.forEach(calls, (call) => client.create(Scenario.paramsOf(call), { inputTokens: call.inputTokens }), {
          discard: true
        })
      )
    }))
    const began = yield* Clock.currentTimeMillis
    const isAdvised = concurrency === "advised"
    const start = isAdvised ? yield* ask("start", { agents: agents.length, each }) : undefined
    const job = yield* Agents.fork(agents, { concurrency, advice: isAdvised ? { each } : undefined })
    const later = isAdvised
      ? yield* Effect.forEach([["early", 0.1] as const, ["middle", 1 / 3] as const], (moment) =>
          Effect.forkChild(askDuring(job, each, moment))
        )
      : []
    const outcomes = yield* job.await
    const now = yield* Clock.currentTimeMillis
    const answers = later.map((fiber) => {
      const exit = fiber.pollUnsafe()
      return exit !== undefined && Exit.isSuccess(exit) ? exit.value : undefined
    })
    return {
      seconds: (now - began) / 1_000,
      max: seen.max,
      lost: outcomes.filter(({ exit }) => !Exit.isSuccess(exit)).length,
      rejected: (yield* sim.stats).rejected,
      foreseen: [start, ...answers].flatMap((answer): ReadonlyArray<Foreseen> => {
        if (answer === undefined) return []
        const { at, ...foreseen } = answer
        return [{ ...foreseen, actual: (now - at) / 1_000 }]
      })
    }
  })
  const live = LlmClient.layerProvider().pipe(
    Layer.provideMerge(
      Layer.provide(
        Agents.layer,
        Budget.layer({
          limits: scenario.limits,
          concurrency: scenario.isConcurrencyDeclared ? scenario.provider.concurrency : undefined
        })
      )
    ),
    Layer.provideMerge(ProviderSim.layer(Scenario.providerOf(scenario)))
  )
  return Effect.map(Simulation.run(Effect.scoped(Effect.orDie(Effect.provide(program, live)))), ({ value }) => value)
}
