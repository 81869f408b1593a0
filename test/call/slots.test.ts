/** Servers that limit only the calls in flight, by slots and sometimes a queue: DeepSeek, vLLM, Ollama. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import * as Presets from "floodgate/Presets"
import { ProviderSim, Simulation } from "floodgate/testing"
import { sized } from "../support/size.ts"

const baseMillis = 2_000

/** Agents that make one call after the other. Returns what the server saw, and the part of its slots that was used. */
const play = (
  server: ProviderSim.Options & { readonly concurrency: number },
  work: { readonly agents: number; readonly calls: number },
  budget: Budget.Options = {}
) => {
  const agents = Array.from({ length: work.agents }, (_, id) => `agent-${id}`)
  const latency = { baseMillis, perInputTokenMillis: 0, perOutputTokenMillis: 0, noise: 0.3 }
  const program = Effect.gen(function* () {
    const client = yield* LlmClient.LlmClient
    const call = (agent: string) =>
      client.create(
        { model: "llama", max_tokens: 100, messages: [{ role: "user", content: `I am ${agent}` }] },
        { agent }
      )
    yield* Effect.forEach(agents, (agent) => Effect.repeat(call(agent), { times: work.calls - 1 }), {
      concurrency: "unbounded"
    })
    const { pools } = yield* (yield* Budget.TokenBudget).status
    const { stats } = yield* ProviderSim.ProviderSim
    return { ...(yield* stats), allowed: Object.values(pools)[0]!.allowed }
  })
  const client = LlmClient.layerProvider().pipe(
    Layer.provideMerge(Budget.layer(budget)),
    Layer.provideMerge(ProviderSim.layer({ headers: "none", latency, ...server }))
  )
  return Effect.map(
    Effect.promise(() => Effect.runPromise(Simulation.run(Effect.provide(program, client)))),
    (run) => ({
      ...run.value,
      used: (run.value.completed * baseMillis) / server.concurrency / Duration.toMillis(run.duration)
    })
  )
}

describe("a server with ten slots and without a stated limit", () => {
  const work = { agents: 40, calls: sized(10, 20) }
  for (const busyStatus of [429, 503] as const) {
    for (const queue of [0, 10]) {
      it.live(
        `and a queue of ${queue} is found full by its answers with ${busyStatus}, and kept busy`,
        () =>
          Effect.gen(function* () {
            const { allowed, completed, rejected, requests, used } = yield* play(
              { concurrency: 10, queue, busyStatus },
              work
            )
            assert.strictEqual(completed, work.agents * work.calls)
            assert.closeTo(allowed, 10 + queue, 1)
            assert.isAtLeast(used, 0.93)
            assert.isAtMost(rejected / requests, 0.04)
          }),
        { tags: "full" }
      )
    }
  }

  it.live("is found full by its answers with 503 behind limits that are stated, too", () =>
    Effect.gen(function* () {
      const limits = { requests: { perMinute: 6_000 }, tokens: { perMinute: 10_000_000 } }
      const work = { agents: 30, calls: sized(10, 20) }
      const { allowed, completed, rejected, requests, used } = yield* play({ concurrency: 10, busyStatus: 503 }, work, {
        limits
      })
      assert.strictEqual(completed, work.agents * work.calls)
      assert.closeTo(allowed, 10, 1)
      assert.isAtLeast(used, 0.93)
      // All agents call at once, before anything is known, and the first failures look like an outage.
      assert.isAtMost(rejected - (work.agents - 10), 0.03 * requests)
    })
  )

  it.live("is not taken to be full if it fails at random", () =>
    Effect.gen(function* () {
      const faults = [{ kind: "500" as const, rate: 0.05 }]
      const { allowed } = yield* play({ concurrency: 100, faults }, { agents: 40, calls: sized(10, 50) })
      assert.isAtLeast(allowed, 40)
    })
  )
})

describe("the preset of", () => {
  for (const [name, preset, server, work] of [
    ["DeepSeek", Presets.deepseek.pro, { concurrency: 500 }, { agents: 510, calls: 2 }],
    ["vLLM", Presets.vllm({ maxNumSeqs: 16 }), { concurrency: 16, queue: Infinity }, { agents: 40, calls: 2 }]
  ] as const) {
    it.live(
      `${name} keeps all slots busy, queues nothing at the server, and is never rejected`,
      () =>
        Effect.gen(function* () {
          const withoutQueue = { ...server, queue: 0 }
          const { completed, peakInFlight, rejected } = yield* play(withoutQueue, work, preset)
          assert.deepStrictEqual([completed, rejected], [work.agents * work.calls, 0])
          assert.strictEqual(peakInFlight, server.concurrency)
        }),
      { tags: "full" }
    )
  }
})
