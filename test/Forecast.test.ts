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

    describe("with pauses and sub-agents", () => {
      const call = (how: Partial<Forecast.Call> = {}): Forecast.Call => ({
        inputTokens: 1,
        outputTokens: 1,
        duration: "5 seconds",
        ...how
      })
      const endOf = (workload: Forecast.Workload, options: Partial<Forecast.Options> = {}): number =>
        seconds(Forecast.make(workload, { limits: {}, ...options }).duration)
      const agent = (calls: ReadonlyArray<Forecast.Call>, how: Partial<Forecast.Agent> = {}): Forecast.Agent => ({
        name: "a",
        calls,
        ...how
      })

      it("waits before a call, and uses no room meanwhile", () => {
        const paused = agent([call({ pause: "2 seconds" }), call({ pause: "30 seconds" })])
        assert.strictEqual(endOf([paused]), 2 + 5 + 30 + 5)
        // Two others run in the pause.
        assert.strictEqual(endOf([paused, agent([call({ pause: "10 seconds" }), call()])], { concurrency: 1 }), 42)
      })

      it("goes on when the sub-agents of a call have ended, and the pause is over", () => {
        const helped = (pause: Duration.Input, ...subAgents: ReadonlyArray<Forecast.Agent>) => [
          agent([call({ subAgents }), call({ pause })])
        ]
        const helper = agent([call(), call({ pause: "1 second" })], { name: "a/1" })
        assert.strictEqual(endOf(helped(0, helper, helper)), 5 + 11 + 5)
        assert.strictEqual(endOf(helped("20 seconds", helper)), 5 + 20 + 5)
        // One after the other where one call runs at once: 5 + 4 x 5 + 5, and the pauses of both overlap.
        assert.strictEqual(endOf(helped(0, helper, helper), { concurrency: 1 }), 30)
      })

      it("lets an agent go on while sub-agents work in the background, and ends when they have ended", () => {
        const slow = (turnsMeanwhile: number) =>
          agent([call({ duration: "100 seconds" })], { name: "a/1", turnsMeanwhile })
        const calls = (turnsMeanwhile: number) => [call({ subAgents: [slow(turnsMeanwhile)] }), call(), call()]
        assert.strictEqual(endOf([agent(calls(0))]), 5 + 100 + 10)
        assert.strictEqual(endOf([agent(calls(1))]), 5 + 100 + 5)
        assert.strictEqual(endOf([agent(calls(Infinity))]), 5 + 100)
      })

      it("counts what sub-agents use, at any depth, and says which calls were theirs", () => {
        const deep = agent([call({ inputTokens: 100 })], { name: "a/1/1" })
        const sub = agent([call({ inputTokens: 10, subAgents: [deep] })], { name: "a/1" })
        const forecast = Forecast.make([agent([call({ subAgents: [sub] })])], {
          limits: { requests: { perSecond: 1, burst: 1 } }
        })
        assert.strictEqual(forecast.usage.inputTokens, 111)
        assert.deepStrictEqual(
          forecast.calls.map(({ agent }) => agent),
          ["a", "a/1", "a/1/1"]
        )
        assert.deepStrictEqual(
          forecast.agents.map(({ finishesAfter, name }) => [name, seconds(finishesAfter)]),
          [["a", 15]]
        )
      })

      it("goes on without sub-agents whose calls are refused", () => {
        const forecast = Forecast.make(
          [agent([call({ subAgents: [agent([call({ inputTokens: 1_000 })], { name: "a/1" })] }), call()])],
          { limits: { inputTokens: { perMinute: 100 } } }
        )
        assert.deepStrictEqual(
          forecast.refused.map(({ agent }) => agent),
          ["a/1"]
        )
        assert.strictEqual(seconds(forecast.duration), 10)
      })

      it("runs as many agents at once as it is told, apart from sub-agents", () => {
        const lead = agent([call({ subAgents: [agent([call()]), agent([call()])] })])
        assert.strictEqual(endOf([lead, lead], { atOnce: 1 }), 20)
      })

      it("names what is invalid", () => {
        for (const [calls, problem] of [
          [[call({ pause: "-1 soon" as never })], /calls\[0\]\.pause/],
          [[call({ subAgents: [agent([], { turnsMeanwhile: -1 })] })], /calls\[0\]\.subAgents\[0\]\.turnsMeanwhile/]
        ] as const) {
          assert.throws(() => endOf([agent(calls)]), RangeError)
          assert.throws(() => endOf([agent(calls)]), problem)
        }
      })
    })

    it("says when each call asks for its turn, is admitted and finishes, and how long calls have waited", () => {
      const call = { inputTokens: 1, outputTokens: 1, duration: "5 seconds" as const }
      const { calls, waits } = Forecast.make(Forecast.uniform({ agents: 2, calls: 2, first: call }), {
        limits: {},
        concurrency: 1
      })
      assert.deepStrictEqual(
        calls.map(({ admittedAfter, agent, askedAfter, finishesAfter }) => [
          agent,
          ...[askedAfter, admittedAfter, finishesAfter].map(seconds)
        ]),
        [
          ["agent-1", 0, 0, 5],
          ["agent-2", 0, 5, 10],
          ["agent-1", 5, 10, 15],
          ["agent-2", 10, 15, 20]
        ]
      )
      assert.deepStrictEqual([seconds(waits.p50), seconds(waits.p99)], [5, 5])
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

    it("gives calls of one name their share by what they use, and not by what they reserve", () => {
      const served = (used: number) => {
        const agents = (name: string, outputTokens: number): Forecast.Workload =>
          Array.from({ length: 3 }, () => ({
            name,
            calls: Array.from({ length: 4 }, () => ({
              inputTokens: 0,
              outputTokens,
              reservedOutputTokens: 5_000,
              duration: 100
            }))
          }))
        const outputTokens = { perSecond: 1_000, burst: 5_000, window: "bucket" } as const
        const { calls } = Forecast.make([...agents("a", 5_000), ...agents("b", used)], { limits: { outputTokens } })
        return calls.map(({ agent }) => agent).join("")
      }
      assert.strictEqual(served(5_000), "abababababababababababab")
      // The first call of each is served before any use is known.
      assert.match(served(2_500), /^abab+(abb)+b+a+$/)
    })

    it("serves calls in turns where only their number is limited", () => {
      const { calls } = Forecast.make(
        Forecast.uniform({ agents: 3, calls: 3, first: { inputTokens: 1, outputTokens: 1 } }),
        {
          limits: {},
          concurrency: 1
        }
      )
      const turn = ["agent-1", "agent-2", "agent-3"]
      assert.deepStrictEqual(
        calls.map(({ agent }) => agent),
        [...turn, ...turn, ...turn]
      )
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

    it("plays an agent of very many calls", { tags: "full" }, () => {
      const workload = Forecast.uniform({ agents: 1, calls: 200_000, first: { inputTokens: 1, outputTokens: 1 } })
      const forecast = Forecast.make(workload, { limits: {}, latency: { baseMillis: 0, perInputTokenMillis: 1 } })
      assert.strictEqual(seconds(forecast.agents[0]!.finishesAfter), seconds(forecast.duration))
    })
  })

  describe("makeEffect", () => {
    it.effect(
      "gives the forecast of make, and lets other fibers run meanwhile",
      () =>
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
        }),
      { tags: "full" }
    )

    it.effect("lets other fibers run while thousands of agents start at once", () =>
      Effect.gen(function* () {
        const workload = Forecast.uniform({ agents: 2_000, calls: 1, first: { inputTokens: 1, outputTokens: 1 } })
        let steps = 0
        yield* Effect.forkChild(Effect.forever(Effect.sync(() => steps++)))
        yield* Forecast.makeEffect(workload, { limits: {} })
        // At most a thousand starts, admissions, ends, agents or calls are handled in one step.
        assert.isAtLeast(steps, (2_000 * 5) / 1_000 - 1)
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
