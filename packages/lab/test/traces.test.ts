import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Scenario, Scenarios } from "@floodgate/lab/internal"
import { resultOf } from "./support/race.ts"

describe("parseTrace", () => {
  const azure =
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:03.9799600,4808,10\n"

  it("reads the Azure format, sorted by time", () => {
    const trace = Scenarios.parseTrace(azure)
    assert.isArray(trace)
    if (!("length" in trace)) return
    assert.deepStrictEqual(
      trace.map(({ inputTokens, outputTokens }) => [inputTokens, outputTokens]),
      [
        [4808, 10],
        [3180, 8]
      ]
    )
    assert.strictEqual(trace[0]!.atMillis, 0)
    assert.closeTo(trace[1]!.atMillis, 52, 0.01)
  })

  it("reads the BurstGPT format, without its failures", () => {
    const text =
      "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n5,ChatGPT,472,18,490,Conversation log\r\n45,ChatGPT,1087,0,1087,Conversation log\r\n118,GPT-4,417,276,693,Conversation log\r\n"
    assert.deepStrictEqual(Scenarios.parseTrace(text), [
      { atMillis: 0, inputTokens: 472, outputTokens: 18 },
      { atMillis: 113_000, inputTokens: 417, outputTokens: 276 }
    ])
  })

  it("names the invalid line", () => {
    assert.deepStrictEqual(Scenarios.parseTrace(`${azure}later,1,2\n`), {
      line: 4,
      problem: "expected a time and two whole numbers of tokens, got later,1,2"
    })
    for (const wrong of ["1,Infinity,2", "1,,2", "1,2,", "1,2", "1,2.5,2", "1,2,-1", "1,2,1e300", ",1,2"]) {
      assert.deepStrictEqual(Scenarios.parseTrace(`TIMESTAMP,ContextTokens,GeneratedTokens\n${wrong}\n`), {
        line: 2,
        problem: `expected a time and two whole numbers of tokens, got ${wrong}`
      })
    }
    assert.isArray(Scenarios.parseTrace("TIMESTAMP,ContextTokens,GeneratedTokens\n1,12.0,3.0\n"))
    const none = Scenarios.parseTrace("")
    assert.isTrue("problem" in none && none.problem.endsWith(", got nothing"))
    const other = Scenarios.parseTrace("a,b\n1,2\n")
    assert.isTrue("problem" in other && other.problem.startsWith("expected the columns TIMESTAMP,"))
  })
})

describe("fromTrace", () => {
  const trace = Array.from({ length: 40 }, (_, number) => ({
    atMillis: number * 500,
    inputTokens: 20_000,
    outputTokens: 50
  }))

  it("keeps the calls as recorded, but cuts those that exceed a limit", () => {
    const long = [{ atMillis: 0, inputTokens: 500_000, outputTokens: 9_000 }]
    const [call] = Scenario.callsOf(Scenarios.fromTrace(long))
    assert.deepInclude(call, { inputTokens: 400_000, outputTokens: 9_000, maxTokens: 9_000 })
    const [cut] = Scenario.callsOf(Scenarios.fromTrace(long, { outputTokensPerMinute: 5_000 }))
    assert.deepInclude(cut, { outputTokens: 5_000, maxTokens: 5_000 })
    const [short] = Scenario.callsOf(Scenarios.fromTrace(trace))
    assert.deepInclude(short, { outputTokens: 50, maxTokens: 2_048 })
  })

  it("refuses an invalid speed or number of agents", () => {
    for (const speed of [0, -1, NaN]) {
      assert.throws(
        () => Scenarios.fromTrace(trace, { speed }),
        RangeError,
        "Scenario.make: speed: expected a number > 0"
      )
    }
    for (const agents of [0, 1.5, NaN]) {
      const dealt = { agents, speed: Infinity }
      assert.throws(
        () => Scenarios.fromTrace(trace, dealt),
        RangeError,
        "Scenario.make: agents: expected an integer >= 1"
      )
    }
  })

  it.effect("keeps arrival times, or gives the calls to agents as fast as possible", () =>
    Effect.gen(function* () {
      const kept = Scenarios.fromTrace(trace)
      assert.strictEqual(kept.agents.length, 40)
      assert.strictEqual(kept.agents.at(-1)!.startsAtMillis, 19_500)
      assert.strictEqual(Scenarios.fromTrace(trace, { speed: 2 }).agents.at(-1)!.startsAtMillis, 9_750)
      const fast = Scenarios.fromTrace(trace, { speed: Infinity, agents: 8 })
      assert.strictEqual(fast.agents.length, 8)
      for (const scenario of [kept, fast]) {
        const result = yield* resultOf(scenario, "floodgate")
        assert.strictEqual(result.failedCalls, 0)
        assert.strictEqual(result.rejections, 0)
        // 800,000 input tokens, 400,000 of which are available at once.
        assert.isAtLeast(result.makespanSeconds, 60)
      }
    })
  )
})
