import { assert, describe, it } from "@effect/vitest"
import type * as Budget from "floodgate/Budget"
import * as View from "../../../src/commands/run/view.ts"

const status: Budget.BudgetStatus = {
  pools: {
    default: {
      dimensions: { inputTokens: { level: 50_000, capacity: 200_000, perSecond: 45_000, limitPerSecond: 60_000 } },
      known: [],
      inFlight: 3,
      allowed: 10,
      queued: 1,
      waiting: [
        {
          agent: "agent-02",
          job: "floodgate run",
          caller: undefined,
          priority: 0,
          charge: { inputTokens: 150_000 },
          waitedMillis: 3_000,
          expectedMillis: 2_000,
          dimension: "inputTokens"
        }
      ],
      pause: { reason: "rateLimit", leftMillis: 9_000 },
      binding: "inputTokens"
    }
  }
}

const around = { columns: 80, rows: 24, seconds: 12, status, left: 110 }

const names = Array.from({ length: 12 }, (_, n) => `agent-${(n + 1).toString().padStart(2, "0")}`)

const start = (agents: ReadonlyArray<string>, calls: number) =>
  View.start(new Map(agents.map((agent) => [agent, 1_000])), calls)

const answered = (agent: string, step: string, reused = false) => ({
  event: "answered" as const,
  agent,
  step,
  reused,
  inputTokens: 150_000,
  outputTokens: 200,
  seconds: 2
})

describe("view", () => {
  it("shows each agent, each limit and a sum, in 80 columns", () => {
    const events = [
      { event: "asked", agent: "agent-01", step: "read" },
      answered("agent-01", "read"),
      { event: "asked", agent: "agent-02", step: "extract" },
      {
        event: "ended",
        agent: "agent-03",
        how: "failed",
        failure: "the provider is overloaded; wait before the next attempt, please"
      }
    ] as const
    const state = events.reduce((state, event) => View.step(state, event, 0), start([...names, "orchestrator"], 61))
    const lines = View.draw(state, around)
    assert.strictEqual(lines.length, 16)
    assert.strictEqual(lines[0], "agent-01     ████░░░░░░░░░░░░░░░░ 1/5    150K  read")
    assert.strictEqual(lines[1], "agent-02     ░░░░░░░░░░░░░░░░░░░░ 0/5       0  extract, waits 0:03 for input")
    assert.match(lines[2]!, /^agent-03 .* failed: the provider is ov.*…$/)
    assert.strictEqual(lines[13], "input        █████░░░░░░░░░░░░░░░ 50K of 200K free, refills 45K of 60K/s")
    assert.strictEqual(lines[14], "calls        3 of 10 in flight, 1 waiting, paused by the provider for 0:09")
    assert.strictEqual(lines[15], "0:12  1 of 61 calls, 150,200 tokens, about 1:50 left")
    for (const line of lines) assert.isBelow(line.length, 80)
  })

  it("shows a rate, a limit on calls in flight and a pause only if there is one", () => {
    const { default: pool } = status.pools
    const more = {
      dimensions: { inputTokens: { level: 50_000, capacity: 200_000, perSecond: 60_000, limitPerSecond: 60_000 } },
      allowed: Infinity,
      pause: undefined
    }
    const draw = (pools: Budget.BudgetStatus["pools"]) =>
      View.draw(start(names, 61), { ...around, status: { pools } }).slice(-3, -1)
    assert.deepStrictEqual(draw({ default: { ...pool!, ...more } }), [
      "input        █████░░░░░░░░░░░░░░░ 50K of 200K free, refills 60K/s",
      "calls        3 in flight, 1 waiting"
    ])
    const pause = { reason: "overload", leftMillis: 4_000 } as const
    assert.deepStrictEqual(draw({ default: { ...pool!, ...more, pause } }).slice(1), [
      "calls        3 in flight, 1 waiting, the provider fails, tried again in 0:04"
    ])
  })

  it("shows activity and remaining work even in 40 columns", () => {
    const state = View.step(start(names.slice(0, 2), 11), answered("agent-01", "extract"), 3)
    const lines = View.draw(state, { ...around, columns: 40 })
    assert.strictEqual(lines[0], "agent-01     █░░░ 1/5    150K  extract")
    assert.strictEqual(lines.at(-1), "0:12  1/11, about 1:50 left")
    for (const line of lines) assert.isBelow(line.length, 40)
  })

  it("shows the running agents if there are more agents than rows", () => {
    const many = Array.from({ length: 100 }, (_, n) => `agent-${n}`)
    const ended = { event: "ended", agent: "agent-0", how: "done", failure: undefined } as const
    const state = View.step(start(many, 501), ended, 12)
    const lines = View.draw(state, around)
    assert.isBelow(lines.length, 24)
    assert.isTrue(lines.some((line) => /^and 82 more agents$/.test(line)))
    assert.isFalse(lines.some((line) => line.startsWith("agent-0 ")))
  })

  it("shows the remaining time once it is known, always within 80 columns", () => {
    const six = names.slice(0, 6).reduce((state, name) => View.step(state, answered(name, "read"), 2), start(names, 61))
    assert.strictEqual(View.total(six, 12, 110, 79), "0:12  6 of 61 calls, 901,200 tokens, about 1:50 left")
    assert.strictEqual(
      View.total(six, 12, undefined, 79),
      "0:12  6 of 61 calls, 901,200 tokens, learning the time left"
    )
    const pause = { event: "paused", until: "2026-11-30T00:00:00.000Z", seconds: 60, reason: "a cap" } as const
    const paused = View.step(six, pause, 10)
    assert.match(View.total(paused, 12, 110, 79), /, paused until 2026-11-30T00:00:00\.000Z$/)
    assert.match(View.total(paused, 70, 110, 79), /, about 1:50 left$/)
    const late = { ...six, calls: 5_001, answered: 4_321, reused: 1_234, tokens: 123_456_789 }
    const line = "61:01  4,321 of 5,001 calls (1,234 from before), 123,456,789 tokens"
    assert.strictEqual(View.total(late, 3_661, 754, 99), `${line}, about 12:34 left`)
    const shorter = "61:01  4,321 of 5,001 calls, 123,456,789 tokens, about 12:34 left"
    assert.strictEqual(View.draw(late, { ...around, seconds: 3_661, left: 754 }).at(-1), shorter)
    assert.strictEqual(View.total(late, 3_661, 754, 39), "61:01  4321/5001, about 12:34 left")
    assert.strictEqual(View.total({ ...late, answered: 5_001 }, 3_661, 0, 79), line.replace("4,321", "5,001"))
  })

  it("forecasts from unfinished agents, and from how long their calls have been running", () => {
    const events = [
      { event: "asked", agent: "agent-01", step: "read" },
      { event: "admitted", agent: "agent-01", step: "read", charge: { inputTokens: 160_000 } },
      answered("agent-01", "read"),
      { event: "asked", agent: "agent-01", step: "extract" },
      { event: "admitted", agent: "agent-01", step: "extract", charge: { inputTokens: 500 } },
      { event: "ended", agent: "agent-02", how: "failed", failure: "no" }
    ] as const
    const shown = (count: number) =>
      events.slice(0, count).reduce((state, event, at) => View.step(state, event, at), start(names.slice(0, 3), 16))
    const [first, other] = View.ahead(shown(6), 7)
    assert.deepStrictEqual(first, {
      name: "agent-01",
      bytes: 1_000,
      done: 1,
      out: { seconds: 3, charge: { inputTokens: 500 } }
    })
    assert.deepStrictEqual(other, { name: "agent-03", bytes: 1_000, done: 0, out: undefined })
    // The call took a second at the provider. The second in the queue before does not count.
    assert.deepStrictEqual(shown(6).learned.get("read"), [{ inputTokens: 150_000, outputTokens: 200, duration: 1_000 }])
    const failed = View.step(shown(6), { event: "failed", agent: "agent-01", step: "extract" }, 6)
    assert.isUndefined(View.ahead(failed, 7)[0]!.out)
  })

  it("has one plain line for an answer, and for earlier results", () => {
    const event = answered("agent-01", "read")
    const state = View.step(start(names, 61), event, 61)
    assert.strictEqual(View.plain(state, event, 61), "1:01  1/61  agent-01  read  150,200 tokens, 2.0 s")
    assert.strictEqual(
      View.plain(state, answered("agent-01", "read", true), 61),
      "1:01  1/61  agent-01  read  from before"
    )
  })

  it("shows no remaining time once it is stopped", () => {
    const ended = { event: "ended", agent: "agent-01", how: "stopped", failure: undefined } as const
    const state = View.step(start(names, 61), ended, 12)
    assert.strictEqual(View.total(state, 12, 4, 80), "0:12  0 of 61 calls, 0 tokens")
  })

  it("copies nothing for an event: thousands of agents start at once", () => {
    const before = start(names, 61)
    assert.strictEqual(View.step(before, answered("agent-01", "read"), 1).rows, before.rows)
  })
})
