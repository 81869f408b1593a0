/** Measured concurrency in front of simulated servers that queue any number of calls. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Budget from "floodgate/Budget"
import * as LlmClient from "floodgate/LlmClient"
import { ProviderSim, Simulation } from "floodgate/testing"

const warmupSeconds = 60
const seconds = 240

interface Work {
  readonly agents: number
  readonly timeout?: "1 minute"
  readonly isStreamed?: boolean
  readonly seed?: number
}

/** Output tokens a second that agents get which call without a pause, once the first minute is over. */
const play = (
  concurrency: Budget.Concurrency,
  server: ProviderSim.Options,
  { agents, isStreamed = false, seed = 1, timeout }: Work
) => {
  let tokens = 0
  const agent = (name: string) =>
    Effect.gen(function* () {
      yield* Effect.sleep(20 * Number(name))
      const started = yield* Effect.clockWith((clock) => Effect.succeed(clock.currentTimeMillisUnsafe()))
      for (let now = started; now < seconds * 1_000;) {
        const params = {
          model: "llama",
          max_tokens: 2_000,
          messages: [{ role: "user" as const, content: name.padEnd(9_000) }]
        }
        const options = { agent: name, timeout }
        const whole = Effect.map(LlmClient.create(params, options), ({ usage }) => usage.output_tokens)
        const streamed = Stream.runFold(
          LlmClient.stream(params, options),
          () => 0,
          (sum, event) => (event.type === "message_delta" ? event.usage.output_tokens : sum)
        )
        const made = yield* Effect.orElseSucceed(isStreamed ? streamed : whole, () => 0)
        now = yield* Effect.clockWith((clock) => Effect.succeed(clock.currentTimeMillisUnsafe()))
        if (now > warmupSeconds * 1_000 && now < seconds * 1_000) tokens += made
      }
    })
  const program = Effect.gen(function* () {
    const all = Effect.forEach(
      Array.from({ length: agents }, (_, n) => `${n}`),
      agent,
      { concurrency: "unbounded" }
    )
    yield* Effect.timeoutOption(all, seconds * 1_000)
  })
  const live = LlmClient.layerProvider().pipe(
    Layer.provideMerge(Budget.layer({ concurrency })),
    Layer.provideMerge(ProviderSim.layer({ seed, ...server }))
  )
  return Effect.map(Simulation.run(Effect.provide(program, live), { seed }), () => tokens / (seconds - warmupSeconds))
}

/** The quantile of a standard normal distribution, to about 0.01. */
const normal = (part: number): number => 4.91 * (part ** 0.14 - (1 - part) ** 0.14)

const vllm = (concurrency: number, memoryTokens?: number): ProviderSim.Options => ({
  server: { kind: "vllm", perSequenceMillis: 0.35, memoryTokens },
  concurrency,
  latency: { baseMillis: 0, perInputTokenMillis: 0.02, perOutputTokenMillis: 18 },
  outputTokens: (_, random) => Math.round(Math.min(2_000, Math.max(20, 350 * Math.exp(0.6 * normal(random)))))
})

describe("measured concurrency", () => {
  for (const [name, server, work] of [
    ["a batch of 64 and 200 agents", vllm(64), { agents: 200 }],
    ["a batch of 64, 400 agents and timeouts of a minute", vllm(64), { agents: 400, timeout: "1 minute" }],
    ["memory for about 50 and 200 agents", vllm(256, 130_000), { agents: 200 }],
    [
      "memory for about 50, 400 agents and timeouts of a minute",
      vllm(256, 130_000),
      { agents: 400, timeout: "1 minute" }
    ]
  ] as const) {
    it.live(
      `gives as many tokens as the best number for ${name}`,
      () =>
        Effect.gen(function* () {
          for (const seed of [1, 2]) {
            let best = 0
            for (const fixed of [48, 64, 80]) {
              const perSecond = yield* play(fixed, server, { ...work, seed })
              best = Math.max(best, perSecond)
            }
            for (const isStreamed of seed === 1 ? [true, false] : [false]) {
              const perSecond = yield* play("measured", server, { ...work, seed, isStreamed })
              assert.isAtLeast(perSecond, 0.97 * best)
            }
          }
        }),
      { timeout: 600_000 }
    )
  }
})
