/** Passes what a pool has learned to another pool. */
import { assert, describe, it } from "@effect/vitest"
import type * as Limits from "floodgate/Limits"
import * as Cap from "../../src/admission/cap.ts"
import * as Pacer from "../../src/pacing/pacer.ts"
import * as Memory from "../../src/pacing/memory.ts"
import * as Meter from "../../src/pacing/meter.ts"
import { readings, whole } from "../support/play.ts"
import * as Amounts from "../../src/domain/amounts.ts"
import * as Rules from "../../src/domain/rules.ts"
import { mulberry } from "../support/random.ts"
import { answer, exhaust, flow, poolOf, reject, send, wait } from "../support/rules.ts"

const stated: Limits.Limits = { tokens: { perSecond: 10_000, burst: 10_000 } }
const meterOf = ({ meters }: Pacer.Pacer, name: Limits.Dimension = "tokens"): Meter.Meter =>
  meters.find(({ dimension }) => dimension === name)!

/** A pool whose rate was cut to a part of its limit, and the time. */
const cut = (limits: Limits.Limits) => {
  const pool = poolOf(Pacer, limits)
  let now = flow(Pacer, pool, 0, 20_000, 0.5)
  for (let i = 0; i < 4; i++) now = exhaust(Pacer, pool, flow(Pacer, pool, now, 5_000, 0.5))
  return { pool, now }
}

const given = (memory: Memory.LearnedLimits | undefined, limits: Limits.Limits, elapsed = 0, now = 0): Pacer.Pacer => {
  const pool = poolOf(Pacer, limits, now)
  Memory.restore(pool, memory!, elapsed, now)
  return pool
}

describe("what a pool has learned", () => {
  it("is nothing at first, and nothing if it only knows the user's limits", () => {
    assert.isUndefined(Memory.recall(poolOf(Pacer, {}), 0))
    const pool = poolOf(Pacer, stated)
    assert.isUndefined(Memory.recall(pool, flow(Pacer, pool, 0, 5_000)))
  })

  it("is the measured rate within the user's limit, not that limit", () => {
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
    // A rate above a lower limit says nothing.
    const small = given(memory, { tokens: { perSecond: 100, burst: 1_000 } })
    assert.strictEqual(Meter.rate(meterOf(small)), 0.1)
  })

  it("is a measured rate without a limit, with which another pool need not begin with single calls", () => {
    const { now, pool } = cut({})
    const memory = Memory.recall(pool, now)!
    assert.isUndefined(memory.dimensions.tokens!.limit)
    const next = given(memory, {})
    assert.closeTo(Meter.rate(meterOf(next)), Meter.rateAt(meterOf(pool), now), 1e-9)
    assert.isUndefined(next.opening)
    const requests: Memory.LearnedLimits = { dimensions: { requests: memory.dimensions.requests! }, window: undefined }
    assert.isDefined(given(requests, {}).opening, "of tokens nothing is known")
    // Also in a pool without a meter for that dimension.
    const other = given({ dimensions: { inputTokens: memory.dimensions.tokens! }, window: undefined }, {})
    assert.closeTo(Meter.rate(meterOf(other, "inputTokens")), memory.dimensions.tokens!.rate!, 1e-9)
    assert.lengthOf(next.meters, pool.meters.length)
  })

  it("is of a bucket what headers have shown, and not what a rejection suggested", () => {
    // Regression: nothing corrected what a rejection had suggested to an earlier pool.
    const pool = poolOf(Pacer, {})
    const says = (left: number): Pacer.Readings => ({
      ...readings(10, left),
      requests: { limit: 1e6, remaining: 1e9, roundedTo: 1 }
    })
    Pacer.observe(pool, undefined, says(30_000), 0)
    reject(Pacer, pool, Pacer.take(pool, whole(70_000), 0), 50, { readings: says(30_000) })
    assert.isAtLeast(wait(Pacer, pool, 50, 70_000), 4_000)
    const next = given(Memory.recall(pool, 50), {}, 60_000)
    Pacer.observe(next, send(Pacer, next, 0, 100), says(29_900), 10)
    assert.isAtMost(wait(Pacer, next, 10, 70_000), 100)
  })

  it("is the limit that headers named, also under a quota", () => {
    const quota = { tokens: { total: 1e9 } }
    const pool = poolOf(Pacer, quota)
    Pacer.observe(pool, undefined, readings(10, 50_000), 0)
    assert.strictEqual(meterOf(given(Memory.recall(pool, 10), quota)).limit, 10)
  })

  it("is the limit that headers named, whose bucket refills meanwhile", () => {
    const pool = poolOf(Pacer, {})
    const admission = send(Pacer, pool, 0, 1_000)
    Pacer.observe(
      pool,
      admission,
      { ...readings(10, 50_000), requests: { limit: 1, remaining: 100, roundedTo: 1 } },
      10
    )
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

  it("is only the mean charge if no more is known, which limits nothing", () => {
    const mean = { limit: undefined, burst: undefined, rate: undefined, level: 0, mean: 700 }
    const pool = given({ dimensions: { tokens: mean }, window: undefined }, {})
    assert.isDefined(pool.opening)
    assert.strictEqual(meterOf(pool).mean, 700)
    // Headers about requests and all tokens are enough, whatever else was learned.
    const other = given({ dimensions: { inputTokens: mean }, window: undefined }, {})
    const reading = { limit: 10, remaining: 1_000, roundedTo: 1 }
    Pacer.observe(other, undefined, { requests: reading, tokens: reading }, 0)
    assert.isUndefined(other.opening)
    // Later measurements begin with a number.
    Pacer.observe(pool, undefined, readings(10, 50_000), 0)
    assert.closeTo(meterOf(pool).level, 50_000, 1_000)
    const level = meterOf(given({ dimensions: { tokens: mean }, window: undefined }, {})).level
    assert.isFalse(Number.isNaN(level))
  })

  it("is the number of calls that may be in flight", () => {
    const pool = poolOf(Pacer, stated)
    pool.window = { ...pool.window, size: 7 }
    const memory = Memory.recall(pool, 0)!
    const next = given(memory, stated)
    for (let i = 0; i < 7; i++) {
      assert.isUndefined(Pacer.decide(next, { tokens: 1 }, 0))
      send(Pacer, next, 0, 1)
    }
    assert.isAbove(Pacer.decide(next, { tokens: 1 }, 0)?.millis ?? 0, 0)
    assert.strictEqual(next.window.high, 7)
    assert.strictEqual(given({ ...memory, window: undefined }, stated).window.size, Infinity)
  })
})

describe("a pool that is closed and opened again", () => {
  const kinds: ReadonlyArray<Limits.Limits> = [
    { tokens: { perSecond: 10_000, burst: 10_000 } },
    { tokens: { perMinute: 600_000, window: "sliding" }, requests: { perMinute: 600, window: "bucket" } },
    { tokens: { perMinute: 600_000 }, requests: { perSecond: 20 } },
    { tokens: { total: 400_000 } },
    { tokens: { perMinute: 600_000, window: "fixed", burst: 100_000 } },
    {}
  ]

  /** A pool after random calls, some of which are rejected, and the time. */
  const used = (limits: Limits.Limits, seed: number) => {
    const random = mulberry(seed)
    const pool = poolOf(Pacer, limits)
    let now = 0
    const exhausts = Object.keys(limits).length === 0 || random() < 0.3
    if (exhausts) now = exhaust(Pacer, pool, flow(Pacer, pool, now, 5_000, 0.5))
    for (let calls = 5 + 60 * random(); calls > 0; calls--) {
      const tokens = Math.ceil(5_000 * random())
      const charge = { requests: 1, inputTokens: 0, outputTokens: 0, tokens }
      const blocked = Pacer.decide(pool, charge, now)
      if (blocked === undefined) {
        const admission = Pacer.take(pool, charge, now)
        Pacer.accept(pool, admission)
        Pacer.settle(pool, admission, { tokens: random() < 0.1 ? 3 * tokens : tokens * random() }, now)
      } else if (blocked.millis === Infinity) break
      now += Math.min(2_000, blocked?.millis ?? 400 * random())
    }
    // A pool is closed only after its pause is over and a probe was accepted.
    now = answered(pool, Math.max(now, pool.gate.until))
    return { exhausts, now, pool, random }
  }
  const answered = (pool: Pacer.Pacer, from: number): number => {
    const blocked = Pacer.decide(pool, Amounts.whole({ tokens: 1 }), from)
    if (blocked?.millis === Infinity) return from
    const admission = send(Pacer, pool, from, 1)
    answer(Pacer, pool, admission, admission.at + 1)
    return admission.at + 1
  }

  const waitOf = (pool: Pacer.Pacer, tokens: number, now: number): number =>
    Pacer.decide(Pacer.copy(pool), { requests: 1, inputTokens: 0, outputTokens: 0, tokens }, now)?.millis ?? 0

  /** Milliseconds until a call is admitted by the user's limit alone. */
  const waitOfCap = (pool: Pacer.Pacer, tokens: number, now: number): number => {
    const { tokens: cap } = Pacer.copy(pool).caps
    if (cap === undefined) return 0
    Cap.advance(cap, now)
    return Cap.wait(cap, tokens)
  }

  it("admits no more than if it had stayed open", () => {
    for (const [kind, limits] of kinds.entries()) {
      for (let seed = 1; seed <= 40; seed++) {
        const { exhausts, now, pool, random } = used(limits, seed)
        // A pool that probes is not closed.
        if (pool.gate.misses > 1) continue
        const rest = Memory.snapshot(pool, now)
        const later = now + 70_000 * random() ** 2
        const back = poolOf(Pacer, limits, later)
        Memory.resume(back, rest, later)
        for (const tokens of [1, 2_000, 10_000, 90_000]) {
          const name = `limits ${kind}, seed ${seed}, ${tokens} tokens after ${later - now} ms`
          const isAtLeast = (of: typeof waitOf) =>
            assert.isAtLeast(of(back, tokens, later), of(pool, tokens, later) * (1 - 1e-6) - 1e-3, name)
          isAtLeast(waitOfCap)
          // What rejections have taught is kept in a few numbers, so only approximately.
          if (!exhausts) isAtLeast(waitOf)
        }
      }
    }
  })

  it("owes nothing once a new pool would admit no more", () => {
    for (const [kind, limits] of kinds.entries()) {
      for (let seed = 1; seed <= 40; seed++) {
        const { now, pool } = used(limits, seed)
        const { memory, until } = Memory.snapshot(pool, now)
        const isQuota = limits.tokens?.total !== undefined
        assert.strictEqual(until === Infinity, isQuota, `limits ${kind}, seed ${seed}`)
        if (isQuota || memory !== undefined) continue
        assert.isAtMost(until - now, 62_000)
        for (const tokens of [1, 2_000, 10_000, 90_000]) {
          const name = `limits ${kind}, seed ${seed}, ${tokens} tokens`
          const fresh = waitOf(poolOf(Pacer, limits, until), tokens, until)
          assert.closeTo(waitOf(pool, tokens, until), fresh, 1e-3, name)
        }
      }
    }
  })

  it("leaves nothing to remember if nothing was used and nothing was learned", () => {
    const nothing = { at: 1_000, until: 1_000, memory: undefined, levels: {}, used: {} }
    for (const limits of kinds) assert.deepStrictEqual(Memory.snapshot(poolOf(Pacer, limits), 1_000), nothing)
  })

  it("waits for the provider's bucket if headers showed it empty, though the user's limit is full", () => {
    const pool = poolOf(Pacer, stated)
    const admission = send(Pacer, pool, 0, 100)
    Pacer.observe(pool, admission, readings(10, 2_000), 100)
    answer(Pacer, pool, admission, 100)
    const rest = Memory.snapshot(pool, 100)
    assert.isUndefined(rest.memory, "the limit is the user's own")
    const back = poolOf(Pacer, stated, 200)
    Memory.resume(back, rest, 200)
    assert.strictEqual(waitOfCap(back, 10_000, 200), 0)
    assert.isAbove(waitOf(pool, 10_000, 200), 500)
    assert.closeTo(waitOf(back, 10_000, 200), waitOf(pool, 10_000, 200), 1e-6)
  })

  it("counts the calls before as one, which ended long ago and is not of the opening", () => {
    const back = poolOf(Pacer, {}, 100)
    Memory.resume(back, Memory.snapshot(poolOf(Pacer, {}), 0), 100)
    const { earlier, number } = send(Pacer, back, 100)
    assert.deepStrictEqual({ earlier, number }, { earlier: 1, number: 2 })
    const fresh = poolOf(Pacer, {}, 100)
    for (const pool of [fresh, fresh, back]) send(Pacer, pool, 100)
    const { since, ...opening } = back.opening!
    assert.deepStrictEqual({ ...opening, since: since - 1 }, fresh.opening)
    assert.isUndefined(poolOf(Pacer, stated).opening)
    const known = poolOf(Pacer, stated, 100)
    Memory.resume(known, Memory.snapshot(poolOf(Pacer, stated), 0), 100)
    assert.isUndefined(known.opening, "with known limits it has none")
  })

  it("has used as much of its quota if it is opened again under another one", () => {
    const pool = poolOf(Pacer, { tokens: { total: 400 } })
    answer(Pacer, pool, send(Pacer, pool, 0, 300), 100)
    const back = poolOf(Pacer, { tokens: { total: 1_000 } }, 200)
    Memory.resume(back, Memory.snapshot(pool, 100), 200)
    assert.deepStrictEqual([waitOfCap(back, 700, 200), waitOfCap(back, 701, 200)], [0, Infinity])
  })

  it("is not full under other limits that it is given", () => {
    const pool = poolOf(Pacer, stated)
    const admission = Pacer.take(pool, Amounts.whole({ tokens: 10_000 }), 0)
    Pacer.accept(pool, admission)
    Pacer.settle(pool, admission, admission.charge, 0)
    const back = poolOf(Pacer, stated, 100)
    Memory.resume(back, Memory.snapshot(pool, 0), 100)
    const more: Limits.Limits = { tokens: { perSecond: 20_000, burst: 20_000 } }
    Pacer.resize(back, Rules.resolve(more), {}, 100)
    assert.closeTo(waitOf(back, 10_000, 100), (10_000 - 1_000) / 20, 1)
  })
})
