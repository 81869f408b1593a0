/** What a pool has learned, given to another one. */
import { assert, describe, it } from "@effect/vitest"
import type * as Limits from "floodgate/Limits"
import * as Law from "../../src/admission/law.ts"
import * as Memory from "../../src/admission/memory.ts"
import * as Meter from "../../src/admission/meter.ts"
import { readings } from "../support/play.ts"
import { exhaust, flow, poolOf, send } from "../support/rules.ts"

const stated: Limits.Limits = { tokens: { perSecond: 10_000, burst: 10_000 } }
const meterOf = ({ meters }: Law.Pool, name: Limits.Dimension = "tokens"): Meter.Meter =>
  meters.find(({ dimension }) => dimension === name)!

/** A pool that was cut to a part of its limit, and the time. */
const cut = (limits: Limits.Limits) => {
  const pool = poolOf(Law, limits)
  let now = flow(Law, pool, 0, 20_000, 0.5)
  for (let i = 0; i < 4; i++) now = exhaust(Law, pool, flow(Law, pool, now, 5_000, 0.5))
  return { pool, now }
}

const given = (memory: Memory.Memory | undefined, limits: Limits.Limits, elapsed = 0, now = 0): Law.Pool => {
  const pool = poolOf(Law, limits, now)
  Memory.restore(pool, memory!, elapsed, now)
  return pool
}

describe("what a pool has learned", () => {
  it("is nothing at first, and where it only knows what the user states", () => {
    assert.isUndefined(Memory.recall(poolOf(Law, {}), 0))
    const pool = poolOf(Law, stated)
    assert.isUndefined(Memory.recall(pool, flow(Law, pool, 0, 5_000)))
  })

  it("is the rate that was measured of the user's limit, and not the limit", () => {
    const { now, pool } = cut(stated)
    const memory = Memory.recall(pool, now)!
    assert.isUndefined(memory.dimensions.tokens!.limit)
    const rate = Meter.rateAt(meterOf(pool), now)
    assert.isBelow(rate, 10)
    assert.strictEqual(memory.dimensions.tokens!.rate, rate)
    const next = given(memory, stated)
    assert.closeTo(Meter.rate(meterOf(next)), rate, 1e-9)
    assert.strictEqual(meterOf(next).limit, 10)
    assert.strictEqual(meterOf(next).mean, meterOf(pool).mean)
    // A rate above a smaller limit says nothing.
    const small = given(memory, { tokens: { perSecond: 100, burst: 1_000 } })
    assert.strictEqual(Meter.rate(meterOf(small)), 0.1)
  })

  it("is what was measured where nobody names a limit: another one need not begin with single calls", () => {
    const { now, pool } = cut({})
    const memory = Memory.recall(pool, now)!
    assert.isUndefined(memory.dimensions.tokens!.limit)
    const next = given(memory, {})
    assert.closeTo(Meter.rate(meterOf(next)), Meter.rateAt(meterOf(pool), now), 1e-9)
    assert.isUndefined(next.opening)
    const requests: Memory.Memory = { dimensions: { requests: memory.dimensions.requests! }, window: undefined }
    assert.isDefined(given(requests, {}).opening, "of tokens nothing is known")
    // In a pool without a meter of its own for that dimension, too.
    const other = given({ dimensions: { inputTokens: memory.dimensions.tokens! }, window: undefined }, {})
    assert.closeTo(Meter.rate(meterOf(other, "inputTokens")), memory.dimensions.tokens!.rate!, 1e-9)
    assert.lengthOf(next.meters, pool.meters.length)
  })

  it("is the limit that headers named, and what is refilled of it since", () => {
    const pool = poolOf(Law, {})
    const ticket = send(Law, pool, 0, 1_000)
    Law.observe(pool, ticket, { ...readings(10, 50_000), requests: { limit: 1, remaining: 100, roundedTo: 1 } }, 10)
    const memory = Memory.recall(pool, 10)!
    assert.strictEqual(memory.dimensions.tokens!.limit, 10)
    assert.isUndefined(memory.dimensions.tokens!.rate)
    const level = { ...memory.dimensions.tokens!, level: 10_000 }
    const used = { ...memory, dimensions: { ...memory.dimensions, tokens: level } }
    assert.closeTo(meterOf(given(used, {}, 2_000)).level, 10_000 + 20_000, 1e-6)
    assert.closeTo(meterOf(given(used, {}, 60_000)).level, 50_000, 1_000)
    assert.strictEqual(meterOf(given(used, stated)).limit, 10, "the user's own limit stays")
    assert.strictEqual(given(used, { tokens: { perSecond: 100 } }).caps.tokens!.rule.rate, 0.1)
    assert.strictEqual(meterOf(given(used, { tokens: { perSecond: 100 } })).limit, 0.1)
  })

  it("is a mean charge alone, where no more is known, which limits nothing", () => {
    const mean = { limit: undefined, burst: undefined, rate: undefined, level: 0, mean: 700 }
    const pool = given({ dimensions: { tokens: mean }, window: undefined }, {})
    assert.isDefined(pool.opening)
    assert.strictEqual(meterOf(pool).mean, 700)
    // Headers of requests and of all tokens tell enough, whatever else was there.
    const other = given({ dimensions: { inputTokens: mean }, window: undefined }, {})
    const reading = { limit: 10, remaining: 1_000, roundedTo: 1 }
    Law.observe(other, undefined, { requests: reading, tokens: reading }, 0)
    assert.isUndefined(other.opening)
    // What is learned next has a number to begin with.
    Law.observe(pool, undefined, readings(10, 50_000), 0)
    assert.closeTo(meterOf(pool).level, 50_000, 1_000)
    const level = meterOf(given({ dimensions: { tokens: mean }, window: undefined }, {})).level
    assert.isFalse(Number.isNaN(level))
  })

  it("is how many calls may be in flight", () => {
    const pool = poolOf(Law, stated)
    pool.window.size = 7
    const memory = Memory.recall(pool, 0)!
    const next = given(memory, stated)
    for (let i = 0; i < 7; i++) {
      assert.isUndefined(Law.decide(next, { tokens: 1 }, 0))
      send(Law, next, 0, 1)
    }
    assert.isAbove(Law.decide(next, { tokens: 1 }, 0)?.millis ?? 0, 0)
    assert.strictEqual(next.window.high, 7)
    assert.strictEqual(given({ ...memory, window: undefined }, stated).window.size, Infinity)
  })
})
