/** What an exhaustion changes: the share, the reserve, the pauses, and what earlier calls still teach. */
import { assert, describe, it } from "@effect/vitest"
import type * as Limits from "floodgate/Limits"
import * as Pacer from "../../src/pacing/pacer.ts"
import * as Meter from "../../src/pacing/meter.ts"
import { readings, whole } from "../support/play.ts"
import { answer, fail, flow, poolOf, reject, send, wait } from "../support/rules.ts"

const stated: Limits.Limits = { tokens: { perSecond: 10_000, burst: 1_000_000 } }
const meterOf = ({ meters }: Pacer.Pacer, name: Limits.Dimension = "tokens"): Meter.Meter =>
  meters.find(({ dimension }) => dimension === name)!

/** Rejects a call with headers that say what was left. */
const empty = (
  pool: Pacer.Pacer,
  admission: Pacer.Admission,
  now: number,
  left = 0,
  retryAfter?: number
): Pacer.Verdict => reject(Pacer, pool, admission, now, { readings: readings(undefined, left), retryAfter })

describe("the share", () => {
  interface Case {
    /** Accepted tokens per millisecond. */
    readonly got: number
    /** What was left at the end, according to headers. */
    readonly left?: number
    readonly millis?: number
    readonly mean?: number
    readonly phase?: number
    readonly limits?: Limits.Limits
    readonly best?: number
  }
  /** A pool with a rate of 8 tokens per millisecond, whose bucket was empty at first and again after a while. */
  const after = ({
    best,
    got,
    left = 0,
    limits = stated,
    mean = 100,
    millis = 2_000,
    phase = 0
  }: Case): Meter.Meter => {
    const pool = poolOf(Pacer, limits)
    const meter = meterOf(pool)
    empty(pool, Pacer.take(pool, whole(100), 0), 0)
    const rejected = Pacer.take(pool, whole(500), 0)
    for (let i = 1; i <= 10; i++) Pacer.take(pool, whole((got * millis) / 10), (i * millis) / 10)
    const admission = Pacer.take(pool, whole(100), millis)
    // A call whose rejection becomes known later still counts as delivered.
    reject(Pacer, pool, rejected, millis)
    meter.mean = mean
    meter.best = best ?? meter.best
    // Headers have not measured the share.
    meter.header = undefined
    Meter.restart(meter, 8, phase)
    empty(pool, admission, millis, left)
    return meter
  }

  it("becomes what was accepted since the last exhaustion, between half of the rate and the rate", () => {
    assert.closeTo(after({ got: 6 }).peak, 6, 1e-9)
    assert.closeTo(after({ got: 6, left: 80 }).peak, 6 + 80 / 2_000, 1e-9, "what was left was there, too")
    assert.closeTo(after({ got: 20 }).peak, 8, 1e-9)
    assert.closeTo(after({ got: 1 }).peak, 4, 1e-9)
    const share = { tokens: { perSecond: 20_000, burst: 1_000_000, share: 0.5 } }
    assert.closeTo(after({ got: 1, limits: share }).peak, 0.7 * 8, 1e-9)
  })

  it("of an unknown limit is the first measurement, however far below the guess", () => {
    assert.closeTo(after({ got: 1, limits: {} }).peak, 1, 1e-9)
    assert.closeTo(after({ got: 1, limits: {}, best: 8 }).peak, 4, 1e-9)
    assert.isAbove(after({ got: 0, limits: {} }).peak, 0, "nothing went through, and somebody has to try")
  })

  it("refills from the verdict on, because earlier refill is part of what was left", () => {
    const pool = poolOf(Pacer, { tokens: { perSecond: 100, burst: 1_000 } })
    const admission = Pacer.take(pool, whole(100), 0)
    assert.strictEqual(reject(Pacer, pool, admission, 1_000), "exhausted")
    assert.isAtLeast(Pacer.decide(pool, whole(100), 1_000)?.millis ?? 0, 500)
  })

  it("is a guess while nothing is known, and no call goes until the calls in flight have their verdicts", () => {
    const pool = poolOf(Pacer, {})
    const admission = Pacer.take(pool, whole(100), 0)
    empty(pool, admission, 200)
    assert.strictEqual(Pacer.decide(pool, whole(1), 200)?.millis, 2 * 200 + 20)
  })

  it("is measured over at least six calls; until then it stays, or is the rate in use if that is lower", () => {
    const mean = (4_000 * 8) / 6
    assert.closeTo(after({ got: 6, mean, millis: 4_000 }).peak, 6, 1e-9)
    assert.closeTo(after({ got: 6, mean, millis: 3_999 }).peak, 8, 1e-9)
    assert.closeTo(after({ got: 6, mean, millis: 500, phase: -1 }).peak, 7.2, 1e-9)
    assert.closeTo(after({ got: 6, mean, millis: 500, phase: 1 }).peak, 8, 1e-9)
  })

  it("is measured from the last exhaustion that lowered it", () => {
    assert.strictEqual(after({ got: 6 }).mark?.at, 2_000)
    assert.strictEqual(after({ got: 20 }).mark?.at, 0)
    assert.strictEqual(after({ got: 8 }).mark?.at, 0)
  })

  it("is remembered if it is the largest so far", () => {
    assert.closeTo(after({ got: 6 }).best, 6, 1e-9)
    const pool = poolOf(Pacer, stated)
    meterOf(pool).best = 7
    meterOf(pool).mark = { at: -10_000, given: 0 }
    empty(pool, Pacer.take(pool, whole(100), 0), 0)
    assert.strictEqual(meterOf(pool).best, 7)
  })

  it("of a limit that is no longer known is the recent rate", () => {
    const pool = poolOf(Pacer, stated)
    const now = flow(Pacer, pool, 0, 120_000, 0.5)
    Pacer.resize(pool, {}, {}, now)
    assert.strictEqual(Meter.rate(meterOf(pool)), Infinity)
    empty(pool, Pacer.take(pool, whole(1_000), now), now + 50)
    assert.closeTo(meterOf(pool).peak, 5, 1)
  })
})

describe("a limit that the user has removed", () => {
  it("leaves no debt of the calls that were sent without it", () => {
    // Regression: nothing refilled the bucket, so the next exhaustion held all calls back for what was sent since.
    const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 10_000 } })
    Pacer.resize(pool, {}, {}, flow(Pacer, pool, 0, 20_000, 0.5))
    const now = flow(Pacer, pool, 20_000, 600_000, 0.5)
    empty(pool, Pacer.take(pool, whole(1_000), now), now + 50)
    assert.isAtMost(wait(Pacer, pool, now + 50), 1_000)
  })
})

describe("a call that was sent before", () => {
  it("an exhaustion, or in its millisecond, says nothing new about the bucket when it is rejected", () => {
    const pool = poolOf(Pacer, stated)
    const open = [0, 50, 51].map((at) => Pacer.take(pool, whole(1_000), at))
    const first = Pacer.take(pool, whole(1_000), 0)
    // The other calls were only sent by then.
    assert.strictEqual(empty(pool, first, 50), "exhausted")
    const { emptied, mark } = meterOf(pool)
    for (const admission of open.slice(0, 2)) {
      assert.strictEqual(empty(pool, admission, 60), "exhausted")
      assert.deepStrictEqual([meterOf(pool).mark, meterOf(pool).emptied], [mark, emptied])
    }
    assert.strictEqual(empty(pool, open[2]!, 60), "exhausted")
    assert.strictEqual(meterOf(pool).mark?.at, 51)
  })

  it("an exhaustion is no evidence without headers either", () => {
    const pool = poolOf(Pacer, stated)
    let now = flow(Pacer, pool, 0, 10_000, 1, 100)
    const same = Pacer.take(pool, whole(100), now + 50)
    const other = Pacer.take(pool, whole(100), now)
    now += 50
    empty(pool, other, now)
    assert.strictEqual(reject(Pacer, pool, same, now + 1), "exhausted")
    assert.strictEqual(pool.bucketTest.score, 0)
  })

  it("an exhaustion gets its unused tokens back if it was accepted, but not what the bucket had lost", () => {
    const level = (at: number, end: (pool: Pacer.Pacer, admission: Pacer.Admission) => void): number => {
      const pool = poolOf(Pacer, { tokens: { perSecond: 0.001, burst: 10_000 } })
      const first = Pacer.take(pool, whole(1_000), 0)
      const admission = Pacer.take(pool, whole(1_000), at)
      empty(pool, first, 10)
      const before = meterOf(pool).level
      end(pool, admission)
      return meterOf(pool).level - before
    }
    const settle = (pool: Pacer.Pacer, admission: Pacer.Admission): void =>
      Pacer.settle(pool, admission, whole(200), 10)
    assert.strictEqual(level(5, settle), 800)
    assert.strictEqual(level(0, settle), 0, "what the headers have counted")
    const release = (pool: Pacer.Pacer, admission: Pacer.Admission): void =>
      Pacer.release(pool, admission, whole(200), 10)
    assert.strictEqual(level(5, release), 0)
  })

  it("a limit was known says nothing about it", () => {
    for (const says of [readings(undefined, 0), undefined]) {
      const pool = poolOf(Pacer, {})
      const old = Pacer.take(pool, { requests: 1, inputTokens: 500, outputTokens: 500, tokens: 1_000 }, 0)
      const named = { inputTokens: { limit: 1, remaining: 5_000, roundedTo: 1 } }
      Pacer.observe(pool, old, named, 0)
      const meter = meterOf(pool, "inputTokens")
      assert.deepStrictEqual([meter.level, meter.header], [5_000, undefined])
      assert.strictEqual(
        reject(Pacer, pool, old, 100, { readings: says }),
        says === undefined ? "isolated" : "exhausted"
      )
      const nothing = reject(Pacer, pool, Pacer.take(pool, old.charge, 200), 300, {
        readings: { inputTokens: { ...named.inputTokens, remaining: 0 } }
      })
      assert.strictEqual(nothing, "exhausted")
      assert.isTrue(Number.isFinite(pool.bucketTest.score))
      assert.isTrue(Number.isFinite(meter.emptied))
    }
  })
})

describe("a bucket that stays empty", () => {
  /** How long a pool pauses after two exhaustions, if this much was delivered between them. */
  const twice = (accepted: number): number => {
    const pool = poolOf(Pacer, stated)
    empty(pool, Pacer.take(pool, whole(1_000), 0), 50)
    Pacer.take(pool, whole(accepted), 100)
    empty(pool, Pacer.take(pool, whole(1_000), 200), 200)
    return pool.gate.until - 200
  }

  it("is one that delivered less than half a call since its last exhaustion", () => {
    assert.deepStrictEqual([twice(0), twice(499), twice(500), twice(1_500)], [1_000, 1_000, -Infinity, -Infinity])
  })

  /** The pauses after rejections in a row, each of the first call that may go. */
  const pauses = (pool: Pacer.Pacer, from: number, retryAfter?: number): ReadonlyArray<number> => {
    let now = from
    return Array.from({ length: 6 }, () => {
      while (wait(Pacer, pool, now, 10) > 0) now += Math.ceil(wait(Pacer, pool, now, 10))
      const admission = Pacer.take(pool, whole(1_000), now)
      now += 50
      assert.strictEqual(empty(pool, admission, now, 0, retryAfter), "exhausted")
      return Math.max(0, pool.gate.until - now)
    })
  }

  it("pauses the pool for 1, 2, 4, 8 and 8 s; the first pause is shorter if the provider says so", () => {
    assert.deepStrictEqual(pauses(poolOf(Pacer, stated), 0), [0, 1_000, 2_000, 4_000, 8_000, 8_000])
    assert.deepStrictEqual(pauses(poolOf(Pacer, stated), 0, 300), [0, 300, 2_000, 4_000, 8_000, 8_000])
  })

  it("pauses the pool also after an outage", () => {
    const pool = poolOf(Pacer, stated)
    for (let i = 0; i < 20 && pool.gate.misses < 2; i++) fail(Pacer, pool, send(Pacer, pool, i * 100), i * 100 + 50)
    const probe = send(Pacer, pool, 2_000)
    answer(Pacer, pool, probe, probe.at + 50)
    assert.deepStrictEqual(pauses(pool, probe.at + 1_000).slice(0, 3), [0, 1_000, 2_000])
  })

  it("is probed by one call, whose verdict takes as long as a rejection, not a failure", () => {
    const pool = poolOf(Pacer, stated)
    empty(pool, Pacer.take(pool, whole(1_000), 0), 50)
    empty(pool, Pacer.take(pool, whole(1_000), 100), 150)
    const probe = Pacer.take(pool, whole(10), pool.gate.until)
    const verdict = 2 * pool.rejectMillis + 20
    assert.isAbove(pool.overloadMillis, pool.rejectMillis)
    assert.strictEqual(wait(Pacer, pool, probe.at, 0), verdict)
    assert.strictEqual(wait(Pacer, pool, probe.at + verdict, 0), 0)
  })
})

describe("the reserve", () => {
  const reserves = (pool: Pacer.Pacer, mean: number): ReadonlyArray<number> => {
    const meter = meterOf(pool)
    return Array.from({ length: 6 }, (_, i) => {
      answer(Pacer, pool, Pacer.take(pool, whole(mean), i * 1_000), i * 1_000)
      meter.mean = mean
      empty(pool, Pacer.take(pool, whole(mean), i * 1_000 + 500), i * 1_000 + 500)
      meter.mean = mean
      return Math.round(meter.reserve)
    })
  }

  it("starts at half a call and doubles with each exhaustion, up to the refill of two seconds, a call, or a third of the bucket", () => {
    const accepted = (reserve: number): number => reserve + (250 - reserve) / 100
    const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 60_000 } })
    const [first, second] = reserves(pool, 1_000)
    assert.strictEqual(first, 500)
    assert.closeTo(second!, 2 * accepted(500), 1)
    const large = poolOf(Pacer, { tokens: { perSecond: 100, burst: 60_000 } })
    assert.strictEqual(reserves(large, 1_000).at(-1), 1_000)
    const small = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 3_600 } })
    assert.strictEqual(reserves(small, 1_000).at(-1), 1_200)
  })

  it("is sized by the rate in use, and not by the limit", () => {
    // Regression: beside neighbours that take most, the reserve of a whole limit kept a call waiting that had room.
    for (const rate of [0.5, 2, 8]) {
      const pool = poolOf(Pacer, stated)
      const now = flow(Pacer, pool, 0, 60_000, 0.5)
      const meter = meterOf(pool)
      Meter.restart(meter, rate, 0)
      meter.reserve = 1e5
      empty(pool, Pacer.take(pool, whole(1_000), now), now)
      assert.strictEqual(meter.reserve, Math.max(meter.mean, 2_000 * Meter.rate(meter)), `${rate}`)
      assert.closeTo(Meter.rate(meter), 0.9 * rate, 1e-9)
    }
  })

  it("decays with accepted calls to a quarter of a call, or less in a small bucket", () => {
    for (const [burst, least] of [
      [1_000_000, 250],
      [5_000, 100]
    ] as const) {
      const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst } })
      const meter = meterOf(pool)
      meter.mean = 1_000
      meter.reserve = 1_000
      const admission = Pacer.take(pool, whole(1_000), 0)
      meter.mean = 1_000
      Pacer.accept(pool, admission)
      assert.closeTo(meter.reserve, 1_000 - (1_000 - least) / 100, 1e-9)
      for (let i = 0; i < 2_000; i++) Pacer.accept(pool, admission)
      assert.closeTo(meter.reserve, least, 1e-3)
    }
  })
})

describe("the opening ends", () => {
  it("at half the rate of the last round, or at what was delivered if that is less", () => {
    const verdict = 2 * 200 + 20
    for (const [recent, rate] of [
      [1e9, 8 / verdict / 2],
      [0.6, 0.6 / 60_000 / (1 - Math.exp(-1))]
    ] as const) {
      const pool = poolOf(Pacer, {})
      const admission = Pacer.take(pool, whole(1_000), 59_800)
      pool.opening = { at: 0, since: 0, last: 8, allowed: 16 }
      const meter = meterOf(pool, "requests")
      meter.recent = recent + 1
      meter.at = 60_000
      // Tokens are suspected if more of them were used, but any other dimension may have been empty, too.
      for (let i = 0; i < 3; i++) reject(Pacer, pool, i === 0 ? admission : { ...admission, at: 59_801 }, 60_000)
      assert.closeTo(meter.peak, Math.max(rate, 1 / 4_000), 2e-5)
      assert.isUndefined(pool.opening)
    }
  })

  it("without a cut of what headers have not named", () => {
    // Regression: a phantom limit of requests kept a job waiting whose tokens were rejected by a limit that headers named.
    const pool = poolOf(Pacer, {})
    for (let i = 0; i < 8; i++) Pacer.accept(pool, Pacer.take(pool, whole(1_000), i * 100))
    const named: Pacer.Readings = { inputTokens: { limit: 10, remaining: 100, roundedTo: 1 } }
    const last = Pacer.take(pool, whole(1_000), 900)
    assert.strictEqual(reject(Pacer, pool, last, 1_000, { readings: named }), "exhausted")
    // That call was not charged to a meter that did not exist, so the next one is the first that teaches its bucket.
    const next = Pacer.take(pool, whole(1_000), 1_100)
    assert.strictEqual(reject(Pacer, pool, next, 1_200, { readings: named }), "exhausted")
    assert.isUndefined(pool.opening)
    assert.strictEqual(Meter.rate(meterOf(pool, "requests")), Infinity)
    assert.isAtMost(Meter.rate(meterOf(pool, "inputTokens")), 10)
  })
})
