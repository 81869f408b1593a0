import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Forecast from "floodgate/Forecast"

const seconds = (duration: Duration.Duration): number => Duration.toSeconds(duration)

const incident = Forecast.uniform({
  agents: 12,
  calls: 5,
  first: { inputTokens: 149_800, outputTokens: 200 },
  later: { inputTokens: 13_800, outputTokens: 200 }
})
const limits = { tokens: { perSecond: 60_000, burst: 200_000 } }

describe("Forecast", () => {
  describe("make", () => {
    it("takes one call for as long as the provider works on it", () => {
      const one = Forecast.uniform({ agents: 1, calls: 1, first: { inputTokens: 1_000, outputTokens: 100 } })
      const forecast = Forecast.make(one, { limits: {} })
      // 500 ms, 10 for the input, 1,000 for the output.
      assert.strictEqual(Duration.toMillis(forecast.duration), 1_510)
      assert.strictEqual(forecast.binding, "agents")
      assert.deepStrictEqual(forecast.usage, { requests: 1, inputTokens: 1_000, outputTokens: 100, tokens: 1_100 })
    })

    it("finds that tokens bind in the incident, and is not below its floor", () => {
      const forecast = Forecast.make(incident, { limits })
      assert.strictEqual(forecast.binding, "tokens")
      assert.isAtLeast(seconds(forecast.duration), (2_472_000 - 200_000) / 60_000)
      assert.isAtMost(seconds(forecast.duration), 42)
      assert.strictEqual(forecast.calls.length, 60)
      assert.strictEqual(forecast.agents.length, 12)
    })

    it("names the dimension that binds of several", () => {
      const several = {
        requests: { perMinute: 6_000 },
        inputTokens: { perMinute: 60_000_000, window: "bucket" as const },
        outputTokens: { perMinute: 2_000, burst: 1_000, window: "bucket" as const }
      }
      assert.strictEqual(Forecast.make(incident, { limits: several }).binding, "outputTokens")
    })

    it("finds that the concurrency binds where it does", () => {
      const forecast = Forecast.make(incident, { limits: {}, concurrency: 2 })
      assert.strictEqual(forecast.binding, "concurrency")
      // 12 x (3.998 + 4 x 2.638) s of work, two at a time.
      assert.closeTo(seconds(forecast.duration), (12 * (3.998 + 4 * 2.638)) / 2, 3)
    })

    it("waits for agents that start later, and for calls that say how long they take", () => {
      const workload = [
        {
          name: "late",
          startsAfter: "10 seconds" as const,
          calls: [{ inputTokens: 1, outputTokens: 1, duration: "5 seconds" as const }]
        }
      ]
      const forecast = Forecast.make(workload, { limits: {} })
      assert.strictEqual(seconds(forecast.duration), 15)
      assert.strictEqual(seconds(forecast.agents[0]!.finishesAfter), 15)
      assert.strictEqual(seconds(forecast.waits.p99), 0)
    })

    it("refuses what never fits at once, and continues with the other agents", () => {
      const workload = [
        ...Forecast.uniform({ agents: 1, calls: 3, first: { inputTokens: 90_000, outputTokens: 1 } }),
        { name: "small", calls: [{ inputTokens: 100, outputTokens: 1 }] }
      ]
      const forecast = Forecast.make(workload, { limits: { inputTokens: { perMinute: 60_000, window: "bucket" } } })
      assert.deepStrictEqual(forecast.refused, [
        { agent: "agent-1", dimension: "inputTokens", asked: 90_000, limit: 60_000 }
      ])
      assert.strictEqual(forecast.calls.length, 1)
    })

    it("stops where a quota is used up", () => {
      const workload = Forecast.uniform({ agents: 1, calls: 5, first: { inputTokens: 400, outputTokens: 0 } })
      const forecast = Forecast.make(workload, { limits: { tokens: { total: 1_000 } } })
      assert.strictEqual(forecast.calls.length, 2)
      assert.deepStrictEqual(forecast.refused, [{ agent: "agent-1", dimension: "tokens", asked: 400, limit: 200 }])
    })

    it("starts from what is left of the limits, debt included", () => {
      const one = [{ name: "a", calls: [{ inputTokens: 60_000, outputTokens: 0, duration: "1 second" as const }] }]
      const after = (tokens: number) => seconds(Forecast.make(one, { limits, levels: { tokens } }).duration)
      assert.strictEqual(after(60_000), 1)
      assert.strictEqual(after(0), 2)
      assert.strictEqual(after(-60_000), 3)
      assert.strictEqual(after(1e9), 1)
      assert.throws(() => after(Number.NaN), "Forecast.make: levels.tokens: expected a finite number, got NaN")
    })

    it("ends even after aeons, when adding a second changes nothing", () => {
      const call = { inputTokens: 60_000, outputTokens: 0 }
      const workload = [{ name: "a", calls: [call, call, call, call, call] }]
      const forecast = Forecast.make(workload, { limits, levels: { tokens: -1e30 } })
      assert.closeTo(seconds(forecast.duration), 1e30 / 60_000, 1e15)
      assert.strictEqual(forecast.calls.length, 5)
    })

    // A million agents of a million calls used to end in a crash of the process, a latency of NaN never.
    it("refuses workloads that are too large to play, and invalid times", () => {
      const first = { inputTokens: 1, outputTokens: 1 }
      const uniform = (agents: number, calls: number) => () => Forecast.uniform({ agents, calls, first })
      assert.throws(
        uniform(1e12, 1),
        "Forecast.uniform: agents: expected at most 1000000 calls of all agents, got 1000000000000"
      )
      assert.throws(
        uniform(1_001, 1_000),
        "Forecast.uniform: calls: expected at most 1000000 calls of all agents, got 1001000"
      )
      assert.throws(uniform(2.5, 1), "Forecast.uniform: agents: expected an integer >= 1, got 2.5")
      assert.throws(uniform(1, Infinity), "Forecast.uniform: calls: expected an integer >= 1, got Infinity")
      assert.throws(
        () => Forecast.make([{ name: "a", calls: [{ ...first, duration: "Infinity" }] }], { limits }),
        'Forecast.make: workload[0].calls[0].duration: expected a finite duration, got "Infinity"'
      )
      // Regression: the error named Budget.reserve and no call.
      assert.throws(
        () => Forecast.make([{ name: "a", calls: [{ ...first, inputTokens: 1e300 }] }], { limits }),
        "Forecast.make: workload[0].calls[0].inputTokens: expected a number from 0 up to 2^53, got 1e+300"
      )
    })

    it("plays an agent of very many calls", () => {
      const workload = Forecast.uniform({ agents: 1, calls: 200_000, first: { inputTokens: 1, outputTokens: 1 } })
      const forecast = Forecast.make(workload, { limits: {}, latency: { baseMillis: 0, perInputTokenMillis: 1 } })
      assert.strictEqual(seconds(forecast.agents[0]!.finishesAfter), seconds(forecast.duration))
    })
  })

  describe("makeEffect", () => {
    it.effect("gives the forecast of make, and lets other fibers run meanwhile", () =>
      Effect.gen(function* () {
        const workload = Forecast.uniform({ agents: 10, calls: 500, first: { inputTokens: 100, outputTokens: 10 } })
        let steps = 0
        const other = yield* Effect.forkChild(
          Effect.forever(
            Effect.andThen(
              Effect.yieldNow,
              Effect.sync(() => steps++)
            )
          )
        )
        const forecast = yield* Forecast.makeEffect(workload, { limits })
        assert.isAbove(steps, 1)
        assert.deepStrictEqual(forecast, Forecast.make(workload, { limits }))
        yield* Fiber.interrupt(other)
      })
    )

    it.effect("fails with a defect for invalid options", () =>
      Effect.gen(function* () {
        const cause = yield* Effect.flip(Effect.sandbox(Forecast.makeEffect([], { limits: {}, concurrency: 0 })))
        assert.match(String(Cause.squash(cause)), /^RangeError: Forecast.makeEffect: concurrency: expected/)
      })
    )
  })
})
