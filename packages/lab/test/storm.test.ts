import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Floor, Race, Scenario, Strategies, Table } from "@floodgate/lab/internal"
import { resultOf, strategy } from "./support/race.ts"

const charged = Scenario.make({ rejections: "charged" })

describe("a scenario", () => {
  // Regression: it was built, and the process crashed for lack of memory.
  it("with more calls than fit in memory is refused by the name of the option", () => {
    assert.throws(
      () => Scenario.make({ agents: 1e9 }),
      "Scenario.make: agents: expected at most 100000, got 1000000000"
    )
    assert.throws(
      () => Scenario.make({ agents: 1_000, calls: 1_001 }),
      /Scenario.make: calls: expected at most 1000000 calls/
    )
  })
})

describe("the incident", () => {
  it("is 2.472M tokens with a floor of 37.9 s", () => {
    const tokens = Scenario.callsOf(charged).reduce((sum, call) => sum + call.inputTokens + call.outputTokens, 0)
    assert.strictEqual(tokens, 2_472_000)
    assert.strictEqual(Scenario.callsOf(charged).length, 60)
    const { binding, seconds } = Floor.floor(charged)
    assert.strictEqual(binding, "tokens")
    assert.closeTo(seconds, (2_472_000 - 200_000) / 60_000, 1e-9)
  })

  it.effect(
    "never ends with fixed retries if rejections are charged, and is reported as not finished",
    () =>
      Effect.gen(function* () {
        // Four minutes show what the lab's hour shows, with a fifteenth of the requests.
        const scenario = Scenario.make({ rejections: "charged", maxSeconds: 240 })
        const result = yield* resultOf(scenario, "fixed-retry-forever")
        assert.isFalse(result.finished)
        assert.strictEqual(result.makespanSeconds, 240)
        assert.isAtLeast(result.ratio, 5)
        assert.isAbove(result.rejections, 2_000)
        assert.isAbove(result.failedAgents, 0)
      }),
    { tags: "full" }
  )

  it.effect("loses most agents with five fixed attempts", () =>
    Effect.gen(function* () {
      const result = yield* resultOf(charged, "fixed-retry")
      assert.isTrue(result.finished)
      assert.isAtLeast(result.failedAgents, 6)
      assert.isAtLeast(result.failedCalls, result.failedAgents)
      // Regression: with one successful agent, fairness was 1.00, which looked like the best result.
      assert.isNull(result.fairness)
    })
  )

  for (const rejections of ["free", "charged"] as const) {
    const scenario = Scenario.make({ rejections })

    it.effect(
      `is over within 1.15 of the floor and the last call with the incident's fix, rejections ${rejections}`,
      () =>
        Effect.gen(function* () {
          const result = yield* resultOf(scenario, "incident-fix")
          assert.strictEqual(result.failedCalls, 0)
          const bound = 1.15 * (Floor.floor(scenario).seconds + Floor.lastCallSeconds(scenario))
          assert.isAtMost(result.makespanSeconds, bound)
        })
    )

    it.effect(`is within 1.02 of the oracle without a rejection under floodgate, rejections ${rejections}`, () =>
      Effect.gen(function* () {
        const oracle = yield* resultOf(scenario, "oracle")
        const result = yield* resultOf(scenario, "floodgate")
        assert.strictEqual(result.rejections, 0)
        assert.strictEqual(result.retries, 0)
        assert.strictEqual(result.failedCalls, 0)
        assert.strictEqual(result.tokensUsed, 2_472_000)
        assert.isAtMost(result.makespanSeconds, 1.02 * oracle.makespanSeconds)
      })
    )
  }

  it.effect(
    "gives the same bytes for the same seed",
    () =>
      Effect.gen(function* () {
        const scenario = Scenario.make({ agents: 6, seed: 7 })
        const once = JSON.stringify(yield* Race.race(scenario, Strategies.usual.slice(4)))
        const twice = JSON.stringify(yield* Race.race(scenario, Strategies.usual.slice(4)))
        assert.strictEqual(once, twice)
      }),
    { tags: "full" }
  )
})

describe("the oracle", () => {
  const scenarios: ReadonlyArray<readonly [string, Scenario.Options]> = [
    ["a bucket", {}],
    ["a sliding window", { window: "sliding", rate: 30_000 }],
    ["a fixed window", { window: "fixed", rate: 30_000 }],
    ["a limit on calls at once", { concurrency: 3 }]
  ]
  for (const [name, options] of scenarios) {
    it.effect(`is never rejected under ${name}, and not below the floor`, () =>
      Effect.gen(function* () {
        const result = yield* resultOf(Scenario.make(options), "oracle")
        assert.strictEqual(result.rejections, 0)
        assert.strictEqual(result.failedCalls, 0)
        assert.isAtLeast(result.makespanSeconds, result.floorSeconds)
      })
    )
  }
})

describe("Scenario.make", () => {
  it("names an invalid option", () => {
    assert.throws(() => Scenario.make({ agents: 0 }), "Scenario.make: agents: expected an integer >= 1, got 0")
    assert.throws(() => Scenario.make({ tokens: 200 }), "Scenario.make: tokens: expected an integer >= 201, got 200")
    assert.throws(
      () => Scenario.make({ firstTokens: 9_000_000 }),
      /Scenario\.make: firstTokens: expected at most the provider's/
    )
  })
})

describe("Floor.floor", () => {
  it("is the longest agent if the limits do not bind", () => {
    const scenario = Scenario.make({ rate: 1e9, burst: 1e9 })
    // 500 + 1,498 + 2,000 for the first call, 500 + 138 + 2,000 for each later one.
    assert.deepStrictEqual(Floor.floor(scenario), { seconds: 3.998 + 4 * 2.638, binding: "agent" })
  })

  it("is the sum of latencies divided by the concurrency if that binds", () => {
    const scenario = Scenario.make({ rate: 1e9, burst: 1e9, concurrency: 1 })
    const { binding, seconds } = Floor.floor(scenario)
    assert.strictEqual(binding, "concurrency")
    assert.closeTo(seconds, 12 * (3.998 + 4 * 2.638), 1e-9)
  })

  it("is a whole number of windows if the provider counts in windows", () => {
    const scenario = Scenario.make({ rate: 30_000, window: "sliding" })
    assert.deepStrictEqual(Floor.floor(scenario), { seconds: 60, binding: "tokens" })
  })
})

describe("Table", () => {
  it.effect("states the provider model of its figures, and what did not finish", () =>
    Effect.gen(function* () {
      const scenario = Scenario.make({ maxSeconds: 60 })
      const runs = yield* Race.race(scenario, [strategy("fixed-retry"), strategy("fixed-retry-forever")])
      const results = runs.map((run) => run.result)
      const text = Table.text(scenario, results)
      for (const room of [100, 80, 60, 1]) {
        const narrow = Table.text(scenario, results, room).split("\n")
        const from = narrow.findIndex((line) => line.startsWith("strategy"))
        const table = narrow.slice(from - 1, from + 2 + results.length)
        // Below this nothing is left that can be spared.
        const most = Math.max(room, 56)
        assert.isAtMost(Math.max(...table.map((line) => line.length)), most)
        for (const head of ["strategy", "makespan", "429s", "failed"]) assert.include(table[1], head)
        assert.isTrue(narrow.some((line) => line.startsWith("No room for: ")) === room < 100)
      }
      assert.include(text, "Provider: 60,000 tokens/s (bucket of 200,000); rejections charged")
      assert.include(text, "> 60.0")
      assert.include(text, "* ended with calls lost")
      assert.include(Table.markdown(scenario, results), "| fixed-retry-forever | 55 | &gt; 60.0 |")
    })
  )
})
