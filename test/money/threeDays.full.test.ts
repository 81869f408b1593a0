/** Three days of a subscription: two programs that know nothing of each other, a person beside them, and a restart. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Budget from "floodgate/Budget"
import type * as Estimator from "floodgate/Estimator"
import * as Governor from "floodgate/Governor"
import { LlmProvider } from "floodgate/LlmProvider"
import * as Spending from "floodgate/Spending"
import { ProviderSim } from "floodgate/testing"

const model = "claude-sonnet-5"
const share = 0.7
/** The part of the window of 5 hours that a call costs: three cents of ten dollars. */
const part = 0.003
const tokens = 3_000
/** The part of each window that the person spends, evenly over its length. */
const person = 0.1
const restartAfter = 31 * 60
const minutes = 72 * 60

describe("three days of a subscription", () => {
  it.effect(
    "use the share of every window, exceed it by a call of each program, and lose nothing in a restart",
    () =>
      Effect.gen(function* () {
        const sim = yield* ProviderSim.ProviderSim
        const provider = yield* LlmProvider
        const starts: Array<number> = []
        const answered: Array<number> = []
        const open = Array.from({ length: 20_000 }, (_, task) => task)
        const call = (task: number) =>
          Effect.flatMap(Governor.Governor, (governor) =>
            governor.run({ model, bytes: 10, maxTokens: tokens, account: "key" }, (ticket) =>
              Effect.gen(function* () {
                const { windows } = yield* sim.stats
                starts.push(windows["5h"]!.used)
                const params = { model, max_tokens: tokens, messages: [{ role: "user" as const, content: "Hi" }] }
                const { signal, value } = yield* provider.stream(params)
                if (signal !== undefined) yield* ticket.observeLimits(signal)
                yield* Stream.runDrain(value)
                answered.push(task)
                return { value: task, actual: { inputTokens: 1, outputTokens: tokens } }
              }).pipe(Effect.scoped)
            )
          )
        /** An agent takes one task after another. One that is interrupted goes back. */
        const agent = Effect.forever(
          Effect.suspend(() => {
            const task = open.shift()!
            return Effect.onInterrupt(call(task), () => Effect.sync(() => open.push(task)))
          })
        )
        const program = (learned?: Estimator.Learned) =>
          Effect.gen(function* () {
            const windows = { "5h": { share }, "7d": { share: 0.9 } }
            const context = yield* Layer.build(
              Governor.layer({ windows, learned }).pipe(Layer.provide(Budget.layerUnlimited))
            )
            const agents = Effect.forEach(Array.from({ length: 20 }), () => agent, {
              concurrency: "unbounded",
              discard: true
            }).pipe(Spending.waitForReset(() => {}))
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
        const { ended } = (yield* sim.stats).windows["5h"]!
        assert.isAtLeast(ended.length, 13)
        for (const used of ended) assert.isAtLeast(used - person, share * 0.95)
        assert.isAtMost(Math.max(...starts), share + 0.01 + 2 * part)
        assert.strictEqual(new Set(answered).size, answered.length)
        assert.strictEqual(answered.length + open.length, 20_000)
      }).pipe(
        Effect.scoped,
        Effect.provide(
          ProviderSim.layer({
            windows: { "5h": { dollars: 10 }, "7d": { dollars: 200 } },
            outputTokens: ({ max_tokens }) => max_tokens,
            latency: { baseMillis: 20_000, perInputTokenMillis: 0, perOutputTokenMillis: 0 },
            neighbour: { share: person }
          })
        )
      ),
    120_000
  )
})
