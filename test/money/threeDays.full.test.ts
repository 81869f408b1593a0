/**
 * Three days of a subscription, as its headers describe it: two programs of 20 agents that know nothing of each other, a person beside
 * them, and a restart.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import type * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import { LlmProvider } from "floodgate/LlmProvider"
import * as Prices from "floodgate/Prices"
import * as Spending from "floodgate/Spending"
import { ProviderSim } from "floodgate/testing"

const tokens = 3_000
/** The part of each window that the person spends, evenly over its length. */
const person = 0.1
const restartAfter = 31 * 60
const minutes = 72 * 60
const tasks = 40_000

interface Plan {
  readonly what: string
  readonly windows: NonNullable<ProviderSim.Options["windows"]>
  readonly shares: NonNullable<Governor.Options["windows"]>
  /** The models of the agents; two of them use the last one. */
  readonly models: ReadonlyArray<string>
  readonly headers?: ProviderSim.Options["headers"]
  /** How long a call takes. */
  readonly callMinutes?: number
  /** The windows that are used up to their shares. */
  readonly used: ReadonlyArray<string>
  /** The model that no window holds back. */
  readonly free?: string
  /** Whether a share of a window is stated that no response tells. */
  readonly warns?: boolean
}

const plans: ReadonlyArray<Plan> = [
  {
    what: "5 hours and 7 days",
    windows: { "5h": { dollars: 10 }, "7d": { dollars: 200 } },
    shares: { "5h": { share: 0.7 }, "7d": { share: 0.9 } },
    models: ["claude-sonnet-5"],
    used: ["5h"]
  },
  {
    what: "a window of one model",
    windows: { "5h": { dollars: 1_000 }, "7d": { dollars: 3_000 }, "7d_sonnet": { dollars: 350 } },
    shares: { "5h": { share: 0.7 }, "7d": { share: 0.9 }, "7d_sonnet": { share: 0.7 } },
    models: ["claude-sonnet-5", "claude-haiku-4-5"],
    callMinutes: 9,
    used: ["7d_sonnet"],
    free: "claude-haiku-4-5"
  },
  {
    what: "no window of 5 hours",
    windows: { "7d": { dollars: 500 } },
    shares: { "5h": { share: 0.7 }, "7d": { share: 0.6 } },
    models: ["claude-sonnet-5"],
    callMinutes: 9,
    used: ["7d"],
    warns: true
  },
  {
    what: "Codex's two slots",
    windows: { "5h": { dollars: 10 }, "7d": { dollars: 120 } },
    shares: { "5h": { share: 0.7 }, "7d": { share: 0.5 } },
    models: ["gpt-5.4"],
    headers: "openai",
    used: ["5h", "7d"]
  },
  {
    what: "Codex's weekly window in its first slot",
    windows: { "7d": { dollars: 500 } },
    shares: { "7d": { share: 0.6 } },
    models: ["gpt-5.4"],
    callMinutes: 9,
    headers: "openai",
    used: ["7d"]
  }
]

describe("three days of a subscription", () => {
  it.effect.each(plans.map((plan) => [plan.what, plan] as const))(
    "use the share of every window, exceed it by a call of each program, and lose nothing in a restart: %s",
    ([, { callMinutes = 1, free, headers, models, shares, used, warns = false, windows }]) =>
      Effect.gen(function* () {
        const sim = yield* ProviderSim.ProviderSim
        const provider = yield* LlmProvider
        /** The fullest that each window was at a start of a call that counts towards it. */
        const starts: Record<string, number> = {}
        /** The part of each window that was spent at the last answer, also by the person. */
        const fills: Record<string, number> = {}
        const answered: Array<number> = []
        const last: Record<string, number> = {}
        const warnings: Array<string> = []
        const logger = Logger.make(({ logLevel, message }) => {
          if (logLevel === "Warn") warnings.push(String(message))
        })
        const open = Array.from({ length: tasks }, (_, task) => task)
        const concerns = (name: string, model: string) => !name.includes("_") || model.includes(name.split("_")[1]!)
        const call = (task: number, model: string) =>
          Effect.flatMap(Governor.Governor, (governor) =>
            governor.run({ model, bytes: 10, maxTokens: tokens, account: "key" }, (ticket) =>
              Effect.gen(function* () {
                const { windows } = yield* sim.stats
                for (const [name, { used }] of Object.entries(windows)) {
                  if (concerns(name, model)) starts[name] = Math.max(starts[name] ?? 0, used)
                }
                const params = { model, max_tokens: tokens, messages: [{ role: "user" as const, content: "Hi" }] }
                const { signal, value } = yield* provider.stream(params)
                if (signal !== undefined) yield* ticket.observeLimits(signal)
                yield* Stream.runDrain(value)
                answered.push(task)
                for (const [name, { used }] of Object.entries((yield* sim.stats).windows)) {
                  if (concerns(name, model)) fills[name] = used
                }
                last[model] = (yield* Clock.currentTimeMillis) / 60_000
                return { value: task, actual: { inputTokens: 1, outputTokens: tokens } }
              }).pipe(Effect.scoped)
            )
          )
        /** An agent takes one task after another. One that is interrupted goes back. */
        const agent = (model: string) =>
          Effect.forever(
            Effect.suspend(() => {
              const task = open.shift()!
              return Effect.onInterrupt(call(task, model), () => Effect.sync(() => open.push(task)))
            })
          )
        const program = (learned?: Estimator.Learned) =>
          Effect.gen(function* () {
            const context = yield* Layer.build(
              Governor.layer({ windows: shares, learned }).pipe(
                Layer.provide(Budget.layerUnlimited),
                Layer.provide(Logger.layer([logger]))
              )
            )
            const agents = Effect.forEach(
              Array.from({ length: 20 }),
              (_, n) => agent(models[n < 2 ? models.length - 1 : 0]!),
              {
                concurrency: "unbounded",
                discard: true
              }
            ).pipe(Spending.waitForReset(() => {}))
            const running = yield* Effect.forkChild(Effect.provideContext(agents, context))
            const learnt = Effect.flatMap(Governor.Governor, (governor) => governor.learned)
            return { running, learned: Effect.provideContext(learnt, context) }
          })
        const first = [yield* program(), yield* program()]
        for (let minute = 0; minute < restartAfter; minute++) yield* TestClock.adjust("1 minute")
        const second: Array<(typeof first)[number]> = []
        for (const { learned, running } of first) {
          yield* Fiber.interrupt(running)
          second.push(yield* program(yield* learned))
        }
        for (let minute = restartAfter; minute < minutes; minute++) yield* TestClock.adjust("1 minute")
        for (const { running } of second) yield* Fiber.interrupt(running)
        const stats = yield* sim.stats
        for (const [name, { dollars }] of Object.entries(windows)) {
          const { share } = shares[name]!
          const model = models.find((model) => concerns(name, model))!
          const part = ((Prices.find(model)!.output / 1e6) * tokens) / dollars
          assert.isAtMost(starts[name]!, share + 0.01 + 2 * part, name)
          if (!used.includes(name)) continue
          const all = stats.windows[name]!
          // From the ninth window on the week's is the one that is used.
          const ended = all.ended.slice(0, used.length > 1 ? 8 : all.ended.length)
          if (name === "5h") assert.isAtLeast(ended.length, 8)
          for (const fill of ended) assert.isAtLeast(fill - person, share * 0.95, name)
          if (ended.length === 0) assert.isAtLeast(fills[name]!, share * 0.95, name)
        }
        if (free !== undefined) assert.isAtLeast(last[free]!, minutes - 2 * callMinutes)
        assert.strictEqual(new Set(answered).size, answered.length)
        assert.strictEqual(answered.length + open.length, tasks)
        assert.strictEqual(stats.rejected, 0)
        assert.strictEqual(warnings.length, warns ? 4 : 0)
        for (const message of warnings) assert.match(message, /window "5h".*this account has "7d"/)
      }).pipe(
        Effect.scoped,
        Effect.provide(
          ProviderSim.layer({
            windows,
            headers,
            outputTokens: ({ max_tokens }) => max_tokens,
            latency: { baseMillis: callMinutes * 60_000, perInputTokenMillis: 0, perOutputTokenMillis: 0 },
            neighbour: { share: person }
          })
        )
      ),
    120_000
  )
})
