/** What is remembered of agents, at given times. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Agents from "floodgate/Agents"
import * as Budget from "floodgate/Budget"
import { History } from "floodgate/internal"

const small = { inputTokens: 100, outputTokens: 10 }
const large = { inputTokens: 300, outputTokens: 30 }

const remembering = (test: (history: NonNullable<Effect.Success<typeof History>>) => void) =>
  Effect.map(Effect.provide(History, Agents.layer), (history) => test(history!)).pipe(
    Effect.provide(Budget.layerUnlimited)
  )

describe("the history of agents", () => {
  it.effect("puts the calls of an agent to several pools together, the earliest first", () =>
    remembering((history) => {
      history.called("a", "one", small, 1_000, 100_000)
      history.called("b", "one", large, 3_000, 90_000)
      const like = (...pools: ReadonlyArray<string>) => history.like(pools, () => true, 120_000)
      const [first, later] = [
        { ...large, duration: 3_000 },
        { ...small, duration: 1_000 }
      ]
      // It still runs, so it is halfway.
      assert.deepStrictEqual(like("a", "b"), {
        work: { calls: 4, first, later },
        names: new Set(["one"]),
        hasEnded: false
      })
      assert.deepStrictEqual(like("a", "c")?.work, { calls: 2, first: later, later: undefined })
      assert.isUndefined(like("c"))
      assert.deepStrictEqual(
        [history.namesIn(["a"]), history.namesIn(["c", "b"]), history.namesIn(["c"])],
        [["one"], ["one"], []]
      )
    })
  )

  it.effect("takes an agent for ended once it says so, or half a minute after its last call", () =>
    remembering((history) => {
      history.ended("nobody")
      history.called("a", "one", small, 1_000, 100_000)
      const callsAt = (now: number) => {
        const { hasEnded, work } = history.like(["a"], () => true, now)!
        return [work.calls, hasEnded, history.running(["a"], 9, now)!.agents]
      }
      assert.deepStrictEqual(
        [callsAt(129_999), callsAt(130_000)],
        [
          [2, false, 1],
          [1, true, 0]
        ]
      )
      history.ended("one")
      assert.deepStrictEqual(callsAt(100_001), [1, true, 0])
      history.called("a", "one", small, 1_000, 101_000)
      assert.deepStrictEqual(callsAt(101_001), [4, false, 1])
    })
  )

  it.effect("counts the agents that run and their calls, unless one name has made more than an agent does", () =>
    remembering((history) => {
      assert.deepStrictEqual(history.running(["a"], 3, 0), { agents: 0, calls: 0 })
      for (const [agent, calls] of [
        ["one", 2],
        ["two", 3]
      ] as const) {
        for (let n = 0; n < calls; n++) history.called("a", agent, small, 1_000, 100_000 + n)
      }
      const running = (perAgent: number) => history.running(["a"], perAgent, 100_010)
      assert.deepStrictEqual([running(3), running(2)], [{ agents: 2, calls: 5 }, undefined])
    })
  )

  it.effect("knows how conversations grow once three have begun and three prompts were continued", () =>
    remembering((history) => {
      const begins = (prompt: number) => history.prompted("a", { prompt, before: undefined }, 0)
      const grows = (before: number, prompt: number) => history.prompted("a", { prompt, before }, before / 2)
      for (const prompt of [1_000, 1_100, 1_200]) begins(prompt)
      for (const before of [1_000, 2_000]) grows(before, before + 1_000)
      assert.isUndefined(history.growthIn(["b", "a"]))
      grows(3_000, 4_000)
      assert.deepStrictEqual(history.growthIn(["b", "a"]), { first: 1_100, growth: 1_000, cachedShare: 0.5, turns: 2 })
      for (let n = 0; n < 3; n++) history.prompted("b", { prompt: 100, before: 50 }, 0)
      for (const prompt of [10, 20]) history.prompted("b", { prompt, before: undefined }, 0)
      assert.strictEqual(history.growthIn(["b", "a"])!.first, 1_100)
    })
  )

  it.effect("learns the pauses of agents from their gaps, without those of calls at once and of people", () =>
    remembering((history) => {
      const call = (agent: string, askedAt: number, endsAt: number) =>
        history.called("a", agent, small, endsAt - askedAt, endsAt, askedAt)
      const pause = (isMeant: (agent: string) => boolean, now: number) => history.like(["a"], isMeant, now)?.work.pause
      call("one", 0, 1_000)
      assert.isUndefined(pause(() => true, 2_000))
      call("one", 21_000, 22_000)
      call("two", 0, 1_000)
      call("two", 41_000, 42_000)
      assert.strictEqual(
        pause(() => true, 43_000),
        30_000
      )
      // Someone comes back after five minutes, and two calls are made at once.
      call("two", 342_000, 343_000)
      call("two", 342_500, 343_500)
      assert.strictEqual(
        pause((agent) => agent === "two", 344_000),
        40_000
      )
    })
  )

  it.effect("knows the agents that may be in a pause, and takes none for ended until it is over", () =>
    remembering((history) => {
      for (const agent of ["one", "two"]) {
        history.called("a", agent, small, 1_000, 1_000, 0)
        history.called("a", agent, small, 1_000, 62_000, 61_000)
      }
      const resting = (now: number, perAgent = 3) => history.resting(["a"], perAgent, now)
      assert.deepStrictEqual([resting(62_000), resting(62_000, 2)], [2, 0])
      assert.deepStrictEqual([resting(151_999), resting(152_000)], [2, 0])
      assert.strictEqual(history.running(["a"], 3, 151_999)!.agents, 2)
      assert.strictEqual(history.running(["a"], 3, 152_000)!.agents, 0)
      history.ended("one")
      assert.strictEqual(resting(62_001), 1)
    })
  )

  it.effect("promises the same room to nobody else until the advice expires", () =>
    remembering((history) => {
      history.promise("a", { asker: "x", agents: 3, until: 100 }, 0)
      history.promise("a", { asker: "y", agents: 4, until: 200 }, 0)
      const promised = (asker: string | undefined, now: number) => history.promised("a", asker, now)
      assert.deepStrictEqual([promised(undefined, 99), promised("x", 99), promised("y", 99)], [7, 4, 3])
      assert.deepStrictEqual([promised(undefined, 100), history.promised("b", undefined, 99)], [4, 0])
      history.promise("a", { asker: "x", agents: 1, until: 150 }, 50)
      assert.strictEqual(promised(undefined, 99), 5)
    })
  )
})
