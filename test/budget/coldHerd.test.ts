/** A herd: after a pause that is longer than the provider's cache lives, the prompts of many agents are cold at once. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import type { Limits } from "floodgate/Limits"
import { ProviderSim, Simulation } from "floodgate/testing"

const perMinute = 200_000
const agents = 24
/** Every agent's system prompt, in tokens. All of them together take more than two minutes of the limit. */
const prefix = 20_000
const pauseMillis = 600_000

const limits = { inputTokens: { perMinute, window: "bucket" } } as const

/** An agent's call, most of which its last call had, too. */
const ask = (agent: string, turn: number) =>
  LlmClient.create(
    {
      model: "claude-sonnet-5",
      max_tokens: 200,
      system: [
        {
          type: "text",
          text: `${agent} ${"x".repeat(4 * prefix)}`,
          cache_control: { type: "ephemeral" }
        }
      ],
      messages: [{ role: "user", content: `${turn} ${"y".repeat(400)}` }]
    },
    { agent }
  )

/** The longest of an agent's waits, in seconds, while it calls every few seconds and its prompt stays in the cache. */
const warm = Effect.gen(function* () {
  let longest = 0
  for (let turn = 100; turn < 115; turn++) {
    const from = yield* Clock.currentTimeMillis
    yield* ask("warm", turn)
    longest = Math.max(longest, ((yield* Clock.currentTimeMillis) - from) / 1_000)
    yield* Effect.sleep(3_000)
  }
  return longest
})

/** Two turns of each agent, then the pause, then two more, beside an agent that makes no pause. */
const play = (told: Limits | undefined) => {
  const herd = Effect.gen(function* () {
    const sim = yield* ProviderSim.ProviderSim
    const calls = (turns: ReadonlyArray<number>) =>
      Effect.forEach(
        Array.from({ length: agents }, (_, i) => `agent-${i}`),
        (agent) => Effect.forEach(turns, (turn) => ask(agent, turn), { discard: true }),
        { concurrency: "unbounded", discard: true }
      )
    yield* calls([1, 2])
    yield* Effect.sleep(pauseMillis)
    const before = yield* sim.stats
    yield* ask("warm", 99)
    yield* Effect.sleep(5_000)
    const from = yield* Clock.currentTimeMillis
    const beside = yield* Effect.forkChild(Effect.andThen(Effect.sleep(500), warm))
    yield* calls([3, 4])
    const seconds = ((yield* Clock.currentTimeMillis) - from) / 1_000
    const after = yield* sim.stats
    const longest = yield* Fiber.join(beside)
    return { seconds, longest, rejected: after.rejected - before.rejected, requests: after.requests - before.requests }
  })
  const client = LlmClient.layerProvider().pipe(
    Layer.provide(Budget.layer(told === undefined ? {} : { limits: told })),
    Layer.provideMerge(
      ProviderSim.layer({
        limits,
        cache: "breakpoints",
        outputTokens: 100,
        latency: { baseMillis: 2_000, rejectionMillis: 200, noise: 0.3 }
      })
    )
  )
  return Effect.map(Simulation.run(Effect.provide(herd, client)), ({ value }) => value)
}

describe("A herd that is cold at once", () => {
  for (const [name, told] of [
    ["told its limits", limits],
    ["told nothing", undefined]
  ] as const) {
    it.effect(`makes no storm, loses nothing and holds up nobody who is warm: ${name}`, () =>
      // A lost call fails the herd.
      Effect.map(play(told), ({ longest, rejected, requests, seconds }) => {
        // It waits for one cold call, and for its answer.
        assert.isAtMost(longest, (2 * 60 * prefix) / perMinute)
        const needed = (60 * (agents * prefix - perMinute)) / perMinute
        assert.isAtLeast(seconds, needed)
        assert.isAtMost(seconds, 1.5 * needed)
        assert.isAtMost(rejected / requests, 0.05, `${rejected} of ${requests}`)
      })
    )
  }
})
