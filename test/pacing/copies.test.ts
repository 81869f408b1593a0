/** Copies of a pacer, on which steps and previews are played; the original does not change. */
import { assert, describe, it } from "@effect/vitest"
import { dimensionOf } from "../../src/admission/blocked.ts"
import * as Law from "../../src/pacing/law.ts"
import * as Memory from "../../src/pacing/memory.ts"
import * as Meter from "../../src/pacing/meter.ts"
import * as Preview from "../../src/pacing/preview.ts"
import * as Rules from "../../src/domain/rules.ts"
import { plain, play } from "../support/events.ts"
import { whole } from "../support/play.ts"
import { exhaust, flow, poolOf, send } from "../support/rules.ts"

/** Freezes a state and everything that it refers to, so that any later write throws. */
const freeze = <A>(value: A): A => {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value
  Object.freeze(value)
  for (const each of Object.values(value)) freeze(each)
  return value
}

const next = (pool: Law.Pacer): Law.Pacer => Law.copy(freeze(pool))

describe("a copy of a pacer", () => {
  it("decides as its original would, and no event of the copy changes the original", () => {
    const found = new Set<number | string>()
    for (let seed = 1; seed <= 30; seed++) {
      const trace = play(seed, plain, next)
      assert.deepStrictEqual(trace, play(seed, plain), `seed ${seed}`)
      for (const each of trace) found.add(each)
    }
    for (const verdict of ["isolated", "exhausted", "ramp", "outage"]) assert.isTrue(found.has(verdict), verdict)
  })

  it("may take over a call from another pacer without changing its original", () => {
    const limits = { outputTokens: { perMinute: 60_000, window: "sliding" } } as const
    const pool = next(Law.make(Rules.resolve(limits), Rules.shares(limits), 0))
    const smaller = Law.copy(pool)
    const admission = Law.take(smaller, whole(10), 0)
    Law.adopt(next(pool), admission)
    assert.strictEqual(pool.inFlight, 0)
  })

  it("may resume what a closed pool left without changing its original", () => {
    const limits = { tokens: { perMinute: 60_000, window: "sliding" } } as const
    const pool = Law.make(Rules.resolve(limits), Rules.shares(limits), 0)
    for (let i = 0; i < 5; i++) Law.settle(pool, Law.take(pool, whole(1_000), i * 2_000), whole(500), i * 2_000)
    const rest = freeze(Memory.rest(freeze(pool), 10_000))
    const resumed = next(Law.make(Rules.resolve(limits), Rules.shares(limits), 11_000))
    Memory.resume(resumed, { ...rest, memory: { dimensions: {}, window: 7 } }, 11_000)
    assert.strictEqual(resumed.window.size, 7)
  })
})

describe("admit", () => {
  it("is decide followed by take, in any state", () => {
    let admitted = 0
    let blocked = 0
    const compare = (pool: Law.Pacer): Law.Pacer => {
      const now = 16 + Math.max(...pool.meters.map(({ at }) => at))
      const charge = whole(640)
      const [one, other] = [Law.copy(pool), Law.copy(pool)]
      const answer = Law.admit(one, charge, now)
      assert.deepStrictEqual(answer, Law.decide(other, charge, now) ?? Law.take(other, charge, now))
      assert.deepStrictEqual(one, other)
      if ("at" in answer) admitted++
      else blocked++
      return pool
    }
    for (let seed = 1; seed <= 10; seed++) play(seed, plain, compare)
    assert.isAbove(Math.min(admitted, blocked), 500)
  })
})

const tokensOf = ({ meters }: Law.Pacer): Meter.Meter => meters.find(({ dimension }) => dimension === "tokens")!

describe("a preview", () => {
  it("does not change its pacer", () => {
    const pool = poolOf(Law, { tokens: { perMinute: 60_000 }, requests: { perSecond: 10 } })
    let now = flow(Law, pool, 0, 20_000)
    now = exhaust(Law, pool, now)
    const before = structuredClone(pool)
    const ahead = Preview.of(pool)
    for (let i = 0; i < 20; i++) now = send(Law, ahead, now).at
    assert.deepStrictEqual(pool, before)
  })

  it("goes on by the share that headers measure, and lets one grow that only rejections measure", () => {
    for (const hasHeader of [true, false]) {
      const pool = poolOf(Law, { tokens: { perSecond: 10_000, burst: 1e6 } })
      const meter = tokensOf(pool)
      meter.mean = 100
      Meter.restart(meter, 5, 0)
      meter.level = -1e9
      if (hasHeader) meter.header = { at: 0, remaining: 0, sum: 0 }
      const ahead = Preview.of(pool)
      Law.decide(ahead, whole(100), 60_000)
      assert.strictEqual(Meter.rate(tokensOf(ahead)) === 5, hasHeader)
      Law.decide(pool, whole(100), 60_000)
      assert.isAbove(Meter.rate(meter), 5, "headers that become old measure nothing")
    }
  })

  it("admits calls up to a concurrency, and names that as what others wait for", () => {
    const pool = poolOf(Law, { tokens: { perSecond: 10_000 } })
    for (let i = 0; i < 2; i++) assert.property(Preview.admit(pool, 2, whole(10), 0), "at")
    assert.deepStrictEqual(Preview.admit(pool, 2, whole(10), 0), { by: "concurrency", millis: Infinity })
    assert.strictEqual(pool.inFlight, 2)
  })

  it("waits in whole milliseconds, and never too short for its time to advance", () => {
    for (const now of [0, 1e15, 1e18]) {
      const pool = poolOf(Law, { tokens: { perSecond: 3_000 } }, now)
      Law.take(pool, whole(3_000), now)
      const blocked = Preview.admit(pool, Infinity, whole(1), now)
      assert.notProperty(blocked, "at")
      const { by, millis } = blocked as Exclude<typeof blocked, Law.Admission>
      assert.strictEqual(by, "tokens")
      assert.isAbove(now + millis, now)
      assert.strictEqual(millis, now === 1e18 ? now * Number.EPSILON : 1)
    }
  })

  it("names the quota that is used up, and nothing that a call waits for", () => {
    const pool = poolOf(Law, { tokens: { total: 100 }, requests: { perSecond: 1, burst: 1 } })
    pool.opening = undefined
    const exhaustedBy = (maxInFlight: number, tokens: number) => {
      const blocked = Preview.admit(pool, maxInFlight, whole(tokens), 0)
      return "at" in blocked ? "admitted" : Preview.exhaustedBy(blocked)
    }
    assert.strictEqual(exhaustedBy(1, 101), "tokens")
    assert.strictEqual(exhaustedBy(9, 90), "admitted")
    assert.strictEqual(exhaustedBy(9, 5), undefined, "a request refills")
    assert.strictEqual(exhaustedBy(1, 11), undefined, "a place becomes free")
    assert.strictEqual(exhaustedBy(9, 11), "tokens")
  })
})

describe("what a call waits for", () => {
  it("is a dimension, the end of another call, or the end of a pause", () => {
    const pool = poolOf(Law, { requests: { perSecond: 1, burst: 1 } })
    pool.opening = undefined
    Law.take(pool, whole(1), 0)
    assert.strictEqual(Law.decide(pool, whole(1), 0)?.by, "requests")
    pool.window = { ...pool.window, size: 1, need: 9 }
    assert.strictEqual(Law.decide(pool, whole(1), 0)?.by, "concurrency")
    pool.window = { ...pool.window, size: 2 }
    Law.pause(pool, "overload", 5_000)
    assert.deepStrictEqual(Law.decide(pool, whole(1), 0), { by: "pause", millis: 5_000 })
    assert.deepStrictEqual((["tokens", "requests", "concurrency", "pause", undefined] as const).map(dimensionOf), [
      "tokens",
      "requests",
      undefined,
      undefined,
      undefined
    ])
  })
})
