/** What holds calls back: several limits, rounds of the opening, the in-flight window, pauses, probes and outages. */
import { assert, describe, it } from "@effect/vitest"
import type * as Limits from "floodgate/Limits"
import * as Pacer from "../../src/pacing/pacer.ts"
import * as Meter from "../../src/pacing/meter.ts"
import * as Verdicts from "../../src/pacing/verdicts.ts"
import { readings, whole } from "../support/play.ts"
import { answer, fail, flow, poolOf, reject, send, wait } from "../support/rules.ts"

const stated: Limits.Limits = { tokens: { perSecond: 10_000, burst: 1_000_000 } }
const meterOf = ({ meters }: Pacer.Pacer, name: Limits.Dimension = "tokens"): Meter.Meter =>
  meters.find(({ dimension }) => dimension === name)!

/** Sends all calls that may go at one instant. Returns their number. */
const goAt = (pool: Pacer.Pacer, now: number, max = 20): number => {
  let count = 0
  for (; count < max && wait(Pacer, pool, now, 10) === 0; count++) Pacer.take(pool, whole(10), now)
  return count
}

describe("if several limits bind", () => {
  const limit = { perSecond: 1_000 }
  const all = (amount: number): Pacer.Admission["charge"] => ({
    requests: amount,
    inputTokens: 0,
    outputTokens: 0,
    tokens: amount
  })

  it("the one with the longest wait is named, whether the user states it or it was learned", () => {
    for (const [level, by] of [
      [-900, "tokens"],
      [99, "requests"]
    ] as const) {
      const pool = poolOf(Pacer, { requests: { perSecond: 10, burst: 1 }, tokens: { perSecond: 10_000 } })
      Pacer.take(pool, whole(0), 0)
      Meter.restart(meterOf(pool), 1, 0)
      meterOf(pool).level = level
      assert.strictEqual(Pacer.decide(pool, whole(100), 0)?.by, by)
    }
  })

  it("the first one is named if they bind equally long", () => {
    for (const share of [1, 0.5]) {
      const pool = poolOf(Pacer, { requests: { ...limit, share }, tokens: { ...limit, share } })
      // If we have a share, the provider's own limit does not bind.
      Pacer.take(pool, all(1_000 * share), 0)
      const blocked = Pacer.decide(pool, all(100), 0)
      assert.deepStrictEqual([blocked?.by, Math.ceil(blocked!.millis)], ["requests", share === 1 ? 100 : 200])
    }
  })
})

describe("a limit of which a call uses nothing", () => {
  it("does not hold the call back", () => {
    const pool = poolOf(Pacer, { inputTokens: { perSecond: 1_000 }, tokens: { total: 100 } })
    Pacer.take(pool, whole(100), 0)
    assert.isUndefined(Pacer.decide(pool, { requests: 1 }, 0))
  })

  it("does not change if no usage of it is reported", () => {
    const pool = poolOf(Pacer, { tokens: { perSecond: 0.001, burst: 1_000 } })
    const levels = (): ReadonlyArray<number> => [pool.caps.tokens!.level, meterOf(pool).level]
    const admission = Pacer.take(pool, whole(400), 0)
    Pacer.settle(pool, admission, { requests: 1 }, 0)
    assert.deepStrictEqual(levels(), [600, 600])
  })
})

describe("the opening", () => {
  const verdict = 2 * 200 + 20

  it("starts the next round to the millisecond, with twice as many calls if the last one was used up", () => {
    const pool = poolOf(Pacer, {})
    Pacer.take(pool, whole(10), 0)
    assert.strictEqual(wait(Pacer, pool, 0), verdict)
    assert.strictEqual(wait(Pacer, pool, verdict), 0)
    Pacer.take(pool, whole(10), verdict)
    assert.strictEqual(wait(Pacer, pool, verdict), verdict / 2)
  })

  it("allows as many calls again after a round that was not used up", () => {
    const pool = poolOf(Pacer, {})
    Pacer.take(pool, whole(10), 0)
    assert.strictEqual(wait(Pacer, pool, verdict), 0)
    // Two calls might have been sent, and none was.
    assert.strictEqual(wait(Pacer, pool, 2 * verdict), 0)
    Pacer.take(pool, whole(10), 2 * verdict)
    assert.strictEqual(wait(Pacer, pool, 2 * verdict), verdict / 2)
  })
})

describe("the rounds of the opening", () => {
  it("have twice as many calls as the one before up to 16, and then a quarter more", () => {
    const pool = poolOf(Pacer, {})
    const sizes = new Set<number>()
    let now = 0
    while (sizes.size < 8) {
      now = send(Pacer, pool, now, 10).at
      sizes.add(pool.opening!.allowed)
    }
    assert.deepStrictEqual([...sizes], [1, 2, 4, 8, 16, 20, 25, 31.25])
  })

  it("end once headers have named the limits and a round is not filled, unless a pause has kept it from being filled", () => {
    const endsAfter = (calls: number, isNamed: boolean, pausedUntil: number): boolean => {
      const pool = poolOf(Pacer, {})
      pool.opening = { at: 1_000, since: 0, last: 2, allowed: 4, isNamed }
      for (let i = 0; i < calls; i++) Pacer.take(pool, whole(10), 1_000)
      Pacer.pause(pool, "rateLimit", pausedUntil)
      assert.strictEqual(wait(Pacer, pool, 2_000, 10), 0)
      return pool.opening === undefined
    }
    assert.isTrue(endsAfter(3, true, -Infinity))
    assert.isFalse(endsAfter(4, true, -Infinity), "it is filled")
    assert.isFalse(endsAfter(3, false, -Infinity), "no limit is known")
    assert.isFalse(endsAfter(3, true, 1_001), "calls were held back")
    assert.isTrue(endsAfter(3, true, 1_000), "the pause was over when the round began")
  })
})

describe("a window of calls in flight", () => {
  it("does not grow unless it is full", () => {
    const pool = poolOf(Pacer, stated)
    Object.assign(pool.window, { size: 5, need: 1, full: 3 })
    for (let i = 0; i < 2; i++) Pacer.take(pool, whole(10), 0)
    for (const now of [0, 1_000, 2_000]) assert.strictEqual(wait(Pacer, pool, now, 10), 0)
    assert.strictEqual(pool.window.size, 5)
  })
})

describe("a admission counts the calls sent so long before it that they would have failed", () => {
  it("some of those older than the time to a failure, and all older than twice that time", () => {
    const pool = poolOf(Pacer, stated)
    const { overloadMillis } = pool
    const times: Array<number> = []
    for (let now = 0; now < 10_000; now += 10) {
      const { earlier } = Pacer.take(pool, whole(10), now)
      const olderThan = (millis: number): number => times.filter((at) => at < now - millis).length
      assert.isAtMost(earlier, olderThan(overloadMillis))
      assert.isAtLeast(earlier, olderThan(2 * overloadMillis + 20))
      times.push(now)
    }
  })
})

describe("an outage", () => {
  /** A pool that has just found an outage, and the calls sent before and at that time. */
  const away = (size = 1_000) => {
    const pool = poolOf(Pacer, stated)
    const now = flow(Pacer, pool, 0, 20_000, 1, size)
    // No acceptances are left over.
    pool.failedUpTo = 1e9
    const open = [now, now + 100, now + 101].map((at) => Pacer.take(pool, whole(size), at))
    for (const admission of Array.from({ length: 8 }, () => Pacer.take(pool, whole(size), now))) {
      if (fail(Pacer, pool, admission, now + 100) === "outage") break
    }
    assert.isAtLeast(pool.gate.misses, 2)
    return { pool, open, now: now + 100 }
  }

  it("takes two failures in a row, or three at a thousand calls a second, and never one", () => {
    for (const [size, failures] of [
      [100_000, 2],
      [1_000, 2],
      [10, 3]
    ] as const) {
      const pool = poolOf(Pacer, stated)
      const now = flow(Pacer, pool, 0, 20_000, 1, size)
      // No acceptances are left over.
      const admissions = Array.from({ length: 5 }, () => Pacer.take(pool, whole(size), now))
      pool.failedUpTo = 1e9
      const verdicts = admissions.map((admission) => fail(Pacer, pool, admission, now + 100))
      assert.strictEqual(verdicts.indexOf("outage") + 1, failures, `${size}`)
    }
  })

  it("is not found if two calls of one burst fail after many accepted calls", () => {
    const pool = poolOf(Pacer, stated)
    const now = flow(Pacer, pool, 0, 20_000, 1, 1_000)
    const admissions = [1, 2].map(() => Pacer.take(pool, whole(1_000), now))
    assert.deepStrictEqual(
      admissions.map((admission) => fail(Pacer, pool, admission, now + 100)),
      ["isolated", "isolated"]
    )
  })

  it("is told from random overloads, whose rate is learned over the calls accepted between them", () => {
    const pool = poolOf(Pacer, stated)
    const now = flow(Pacer, pool, 0, 20_000, 1, 1_000)
    const [one, two] = [1, 2].map(() => Pacer.take(pool, whole(1_000), now)) as [Pacer.Admission, Pacer.Admission]
    fail(Pacer, pool, one, now + 100)
    assert.isAbove(one.earlier, 100)
    // One in two hundred is below the lowest random rate; one in a few is above it.
    assert.strictEqual(pool.randomOverload, Verdicts.learn(0.01, one.earlier + 1, true, 0.01))
    const learned = pool.randomOverload
    fail(Pacer, pool, two, now + 100)
    assert.strictEqual(pool.randomOverload, learned, "of two in a row nobody knows")
    const few = poolOf(Pacer, stated)
    for (const at of [0, 1_001]) Pacer.take(few, whole(10), at)
    const failed = Pacer.take(few, whole(10), 2_002)
    assert.strictEqual(failed.earlier, 1)
    fail(Pacer, few, failed, 2_100)
    assert.strictEqual(few.randomOverload, Verdicts.learn(0.01, 2, true, 0.01))
  })

  it("leaves no evidence behind: the next failure is judged as the first one", () => {
    const { now, pool } = away()
    const probe = send(Pacer, pool, now)
    answer(Pacer, pool, probe, probe.at + 50)
    assert.strictEqual(fail(Pacer, pool, send(Pacer, pool, probe.at + 50), probe.at + 100), "isolated")
  })

  it("is not changed by calls that were sent before it was found, or in that millisecond", () => {
    const { now, open, pool } = away()
    const { misses, until } = pool.gate
    const unchanged = (): void => assert.deepStrictEqual([pool.gate.misses, pool.gate.until], [misses, until])
    const [before, same, later] = open as [Pacer.Admission, Pacer.Admission, Pacer.Admission]
    for (const admission of [before, same]) {
      const copy = Pacer.copy(pool)
      assert.strictEqual(fail(Pacer, copy, admission, now + 10), "outage")
      assert.deepStrictEqual([copy.gate.misses, copy.gate.until], [misses, until])
      Pacer.accept(pool, admission)
      unchanged()
      reject(Pacer, Pacer.copy(pool), admission, now + 10)
      unchanged()
    }
    const rejected = Pacer.copy(pool)
    reject(Pacer, rejected, same, now + 10)
    assert.strictEqual(rejected.gate.misses, misses)
    const failed = Pacer.copy(pool)
    fail(Pacer, failed, later, now + 10)
    assert.isAbove(failed.gate.misses, misses)
    Pacer.accept(pool, later)
    assert.strictEqual(pool.gate.misses, 0)
  })

  it("ends when the provider rejects a probe", () => {
    const { now, pool } = away(100)
    const probe = send(Pacer, pool, now, 100)
    assert.strictEqual(reject(Pacer, pool, probe, probe.at + 50), "isolated")
    assert.strictEqual(goAt(pool, probe.at + 50), 20)
  })

  it("is probed by two calls once one has been silent for twice the time to a failure", () => {
    const { now, pool } = away()
    const { at } = send(Pacer, pool, now)
    const silence = 2 * pool.overloadMillis + 20
    assert.strictEqual(goAt(pool, at + silence - 1), 0)
    assert.strictEqual(goAt(pool, at + silence), 2)
  })

  it("is probed again for each inconclusive probe, but not for one that was given up before", () => {
    const { now, open, pool } = away()
    const first = send(Pacer, pool, now)
    const silence = 2 * pool.overloadMillis + 20
    assert.strictEqual(wait(Pacer, pool, first.at + silence, 10), 0)
    // The round of one probe is over: two may go, not three.
    Pacer.release(pool, first, {}, first.at + silence)
    assert.strictEqual(goAt(pool, first.at + silence), 2)
    for (const admission of open.slice(0, 2)) Pacer.release(pool, admission, {}, first.at + silence)
    assert.strictEqual(goAt(pool, first.at + silence), 0)
  })
})

describe("the mean time", () => {
  it("to a rejection and to a failure is learned", () => {
    for (const millis of [20, 3_000]) {
      const pool = poolOf(Pacer, stated)
      for (let i = 0; i < 60; i++) {
        Pacer.overload(
          pool,
          Pacer.take(pool, whole(10), i * 10_000),
          { retryAfter: undefined, used: {} },
          i * 10_000 + millis
        )
        pool.gate = { ...pool.gate, misses: 0 }
        reject(Pacer, pool, Pacer.take(pool, whole(10), i * 10_000), i * 10_000 + millis)
        pool.gate = { ...pool.gate, misses: 0 }
      }
      assert.closeTo(pool.rejectMillis, millis, 2)
      assert.closeTo(pool.overloadMillis, millis, 2)
    }
  })
})

describe("a ramp error", () => {
  it("counts once: nothing is learned from calls sent before it, or in its millisecond", () => {
    const pool = poolOf(Pacer, stated)
    const now = flow(Pacer, pool, 0, 20_000, 1, 100)
    const [one, same, third, fourth] = Array.from({ length: 4 }, () => Pacer.take(pool, whole(100), now)) as [
      Pacer.Admission,
      Pacer.Admission,
      Pacer.Admission,
      Pacer.Admission
    ]
    const ramp = { reason: "ramp" as const, retryAfter: 3_000 }
    reject(Pacer, pool, one, now, ramp)
    const { until } = pool.gate
    assert.strictEqual(reject(Pacer, pool, same, now + 10, { ...ramp, retryAfter: 60_000 }), "ramp")
    assert.strictEqual(pool.gate.until, until)
    assert.strictEqual(reject(Pacer, pool, third, now + 10), "exhausted")
    assert.strictEqual(pool.bucketTest.score, 0)
    assert.strictEqual(reject(Pacer, pool, fourth, now + 10, { readings: readings(undefined, 0) }), "exhausted")
    assert.isUndefined(meterOf(pool).mark, "the bucket was not empty")
    assert.strictEqual(pool.gate.until, until)
  })
})

describe("a call that is taken over from another pacer", () => {
  it("holds only output, which is counted when the call ends", () => {
    const limits: Limits.Limits = { ...stated, outputTokens: { perSecond: 1_000, burst: 10_000 } }
    const [large, small] = [poolOf(Pacer, limits), poolOf(Pacer, limits)]
    Pacer.adopt(large, Pacer.take(small, { ...whole(700), outputTokens: 500 }, 0))
    assert.deepStrictEqual([meterOf(large).held, meterOf(large, "outputTokens").held], [0, 500])
  })
})

describe("the share of output that headers measure", () => {
  it("is measured by what was spent, not by what calls in flight may still spend", () => {
    const pool = poolOf(Pacer, { outputTokens: { perSecond: 10_000, burst: 1_000_000 } })
    const output = (amount: number): Pacer.Admission["charge"] => ({ ...whole(0), outputTokens: amount })
    const says = (remaining: number): Pacer.Readings => ({ outputTokens: { limit: 10, remaining, roundedTo: 1 } })
    Pacer.observe(pool, Pacer.take(pool, output(0), 0), says(100_000), 0)
    meterOf(pool, "outputTokens").most = 1_000_000
    Pacer.keep(pool, Pacer.take(pool, output(3_000), 0))
    const admission = Pacer.take(pool, output(900), 2_000)
    Pacer.observe(pool, admission, says(100_000 - 3_000 + 8_000), 2_000)
    assert.closeTo(Meter.rate(meterOf(pool, "outputTokens")), 10 + 0.4 * (4 - 10), 1e-9)
  })
})
