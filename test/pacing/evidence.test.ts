/** The evidence of a rejection: the calls accepted since the last one, their sizes, the random rate, and the dimension to blame. */
import { assert, describe, it } from "@effect/vitest"
import type * as Limits from "floodgate/Limits"
import * as Pacer from "../../src/pacing/pacer.ts"
import * as Meter from "../../src/pacing/meter.ts"
import * as Rules from "../../src/domain/rules.ts"
import * as Verdicts from "../../src/pacing/verdicts.ts"
import { readings, whole } from "../support/play.ts"
import { mulberry } from "../support/random.ts"
import { flow, poolOf, reject, send } from "../support/rules.ts"

const stated: Limits.Limits = { tokens: { perSecond: 10_000, burst: 1_000_000 } }
const meterOf = ({ meters }: Pacer.Pacer, name: Limits.Dimension = "tokens"): Meter.Meter =>
  meters.find(({ dimension }) => dimension === name)!

/** The scores of a rejection and of an acceptance, at one random rejection in a thousand. */
const cost = Math.log(0.3 / 0.001)
const each = Math.log((1 - 0.001) / (1 - 0.3))

const accepted = (pool: Pacer.Pacer, charge: Pacer.Admission["charge"], count: number, now = 0): void => {
  for (let i = 0; i < count; i++) Pacer.accept(pool, Pacer.take(pool, charge, now))
}
const rejected = (
  pool: Pacer.Pacer,
  charge: Pacer.Admission["charge"],
  says: Partial<Parameters<typeof Pacer.reject>[2]> = {},
  now = 0
): Pacer.Verdict => reject(Pacer, pool, Pacer.take(pool, charge, now), now, says)

/** A pool that has learned the mean charge. */
const known = (size = 100, limits = stated): Pacer.Pacer => {
  const pool = poolOf(Pacer, limits)
  accepted(pool, whole(size), 100)
  return pool
}

/** Makes the call rate so high that two rejections together raise no alarm. */
const unalarmed = (pool: Pacer.Pacer): void => {
  for (const meter of pool.meters) meter.mean = 1
}

describe("the score of a rejection", () => {
  it("rises with how unlikely it is to be random, and falls with each call accepted since the last one", () => {
    const pool = known()
    rejected(pool, whole(100))
    assert.closeTo(pool.bucketTest.score, cost, 1e-9)
    accepted(pool, whole(100), 10)
    rejected(pool, whole(100))
    assert.closeTo(pool.bucketTest.score, 2 * cost - 10 * each, 1e-9)
  })

  it("counts accepted calls by size: small ones less, large ones not more", () => {
    for (const [size, calls] of [
      [10, 1],
      [1_000, 10]
    ] as const) {
      const pool = known()
      rejected(pool, whole(100))
      accepted(pool, whole(size), 10)
      unalarmed(pool)
      rejected(pool, whole(100))
      assert.closeTo(pool.bucketTest.score, 2 * cost - calls * each, 1e-9)
    }
  })

  it("counts calls alone if they use nothing of the limit, or only output, which is counted later", () => {
    const output = (amount: number): Pacer.Admission["charge"] => ({ ...whole(0), outputTokens: amount })
    for (const [limits, small, large] of [
      [stated, whole(10), whole(0)],
      [stated, whole(0), whole(0)],
      [{ outputTokens: { perSecond: 10_000, burst: 1_000_000 } }, output(10), output(1_000)]
    ] satisfies ReadonlyArray<readonly [Limits.Limits, Pacer.Admission["charge"], Pacer.Admission["charge"]]>) {
      const pool = poolOf(Pacer, limits)
      accepted(pool, small, 100)
      rejected(pool, large)
      accepted(pool, small, 5)
      unalarmed(pool)
      rejected(pool, large)
      assert.closeTo(pool.bucketTest.score, 2 * cost - 5 * each, 1e-9)
    }
  })

  it("assumes 2 % random rejections while nothing is known, and keeps at most as many acceptances as calls may be out", () => {
    const [p, allowed] = [0.02, 4]
    const pool = poolOf(Pacer, {})
    accepted(pool, whole(100), 100)
    pool.opening = { at: 0, since: 0, last: 1, allowed }
    const old = Array.from({ length: 3 }, () => Pacer.take(pool, whole(100), 0))
    accepted(pool, whole(100), 100)
    const score = (): number => {
      rejected(pool, whole(100), {}, 0)
      for (const admission of old) reject(Pacer, pool, admission, 0)
      return pool.bucketTest.score
    }
    // The score of four rejections at once ends the opening.
    const sum = 4 * Math.log(0.3 / p) - allowed * Math.log((1 - p) / (1 - 0.3))
    assert.isAbove(sum, 6)
    assert.strictEqual(score(), 0)
    assert.isUndefined(pool.opening)
  })
})

describe("the rate of random rejections is learned", () => {
  const room: Pacer.Readings = { requests: { limit: 1, remaining: 1e6, roundedTo: 1 }, ...readings(10, 500_000) }

  it("from rejections whose headers show room, over the calls sent since the last one", () => {
    const pool = known(100, { ...stated, requests: { perSecond: 1_000, burst: 1e6 } })
    rejected(pool, whole(100), { readings: room })
    const first = Verdicts.learn(0.001, 100, true, 0.001)
    assert.closeTo(pool.random, first, 1e-12)
    accepted(pool, whole(100), 1)
    rejected(pool, whole(100), { readings: room })
    assert.closeTo(pool.random, Verdicts.learn(first, 1, true, 0.001), 1e-12, "one accepted call is enough")
    const second = pool.random
    pool.bucketTest = { ...pool.bucketTest, score: 0 }
    rejected(pool, whole(100), { readings: room })
    assert.strictEqual(pool.random, second, "the second of two in a row teaches nothing")
  })

  it("not from other rejections", () => {
    const pool = known()
    rejected(pool, whole(100))
    assert.strictEqual(pool.random, 0.001)
    accepted(pool, whole(100), 10)
    rejected(pool, whole(100), { readings: { tokens: room.tokens! } })
    assert.strictEqual(
      pool.random,
      Verdicts.learn(0.001, 10, true, 0.001),
      "room for tokens is enough if only tokens are limited"
    )
    const both = known(100, { ...stated, requests: { perSecond: 10, burst: 1_000 } })
    rejected(both, whole(100), { readings: { requests: { limit: undefined, remaining: 900, roundedTo: 1 } } })
    assert.strictEqual(both.random, Verdicts.learn(0.001, 100, true, 0.001), "all dimensions in the headers show room")
    const one = known(100, { ...stated, requests: { perSecond: 10, burst: 1_000 } })
    rejected(one, whole(100), { readings: { tokens: { limit: undefined, remaining: undefined, roundedTo: 1 } } })
    assert.strictEqual(one.random, 0.001, "headers that do not say what is left show no room")
  })

  it("from the calls sent below the measured share, each counted once in any order of their ends", () => {
    const pool = known()
    const meter = meterOf(pool)
    Object.assign(meter, { mean: 100, level: -1e6 })
    Meter.restart(meter, 5, -0.5)
    const { safe } = pool
    accepted(pool, whole(100), 10)
    const old = Pacer.take(pool, whole(100), 0)
    assert.strictEqual(pool.safe, safe + 11)
    accepted(pool, whole(100), 9)
    // Calls that are sent above it are not counted.
    meter.phase = 0.5
    accepted(pool, whole(100), 50)
    assert.strictEqual(pool.safe, safe + 20)
    meter.phase = 0
    rejected(pool, whole(100))
    const first = Verdicts.learn(0.001, 21, true, 0.001)
    assert.closeTo(pool.random, first, 1e-12)
    reject(Pacer, pool, old, 0)
    assert.strictEqual(pool.random, first, "an older one tells nothing more")
    pool.bucketTest = { ...pool.bucketTest, score: 0 }
    accepted(pool, whole(100), 5)
    rejected(pool, whole(100))
    assert.closeTo(pool.random, Verdicts.learn(first, 6, true, 0.001), 1e-12)
  })
})

describe("a call is sent below the measured share", () => {
  it("if the meter that has grown furthest is below it", () => {
    const pool = poolOf(Pacer, {
      requests: { perSecond: 10, burst: 1_000 },
      tokens: { perSecond: 10_000, burst: 1_000_000 }
    })
    const isSafe = (...phases: ReadonlyArray<number>): boolean => {
      for (const [i, meter] of pool.meters.entries()) {
        Object.assign(meter, { level: -1e6, mean: 1 })
        Meter.restart(meter, meter.limit / 2, phases[i]!)
      }
      return Pacer.take(pool, whole(1), 0).isSafe
    }
    assert.deepStrictEqual([isSafe(-0.5, -0.2), isSafe(-0.5, 0.5), isSafe(0.5, -0.5)], [true, false, false])
  })

  it("if nothing is measured only where no limit is known, and the number in flight holds calls back", () => {
    const isSafe = (limits: Limits.Limits, size: number): boolean => {
      const pool = poolOf(Pacer, limits)
      pool.window = { ...pool.window, size }
      return Pacer.take(pool, whole(1), 0).isSafe
    }
    assert.deepStrictEqual(
      [isSafe({}, 5), isSafe({}, Infinity), isSafe(stated, 5), isSafe(stated, Infinity)],
      [true, false, false, false]
    )
  })
})

describe("the threshold of an alarm", () => {
  it("is lower while more than the measured share is tried", () => {
    const verdict = (phase: number, score: number): Pacer.Verdict => {
      const pool = known(10)
      const meter = meterOf(pool)
      Object.assign(meter, { mean: 10, level: -1e6 })
      Meter.restart(meter, 5, phase)
      pool.bucketTest = { ...pool.bucketTest, seen: pool.sent, score: score - cost }
      pool.learnedFrom = 1e9
      return rejected(pool, whole(10))
    }
    // Half a call a millisecond: half a minute is 15,000 calls, three periods of a second 1,500.
    for (const [phase, calls] of [
      [-0.9, 15_000],
      [0, 15_000],
      [0.1, 1_500]
    ] as const) {
      const rate = phase < 0 ? 5 - 0.5 * 0.9 ** 3 : 5
      const least = Math.log((calls * rate) / 5)
      assert.strictEqual(verdict(phase, least - 1e-3), "isolated", `${phase}`)
      assert.strictEqual(verdict(phase, least + 1e-3), "exhausted", `${phase}`)
    }
  })
})

describe("an alarm is blamed on", () => {
  const both: Limits.Limits = {
    requests: { perSecond: 10, burst: 1_000 },
    tokens: { perSecond: 10_000, burst: 1_000_000 }
  }
  /** The dimensions that three rejections in a row slow down. */
  const slowed = (
    pool: Pacer.Pacer,
    now: number,
    size: number,
    says: Partial<Parameters<typeof Pacer.reject>[2]> = {}
  ): ReadonlyArray<string> => {
    for (let i = 0; i < 5; i++) {
      const admission = send(Pacer, pool, now, size)
      now = admission.at + 50
      if (reject(Pacer, pool, admission, now, says) === "exhausted") break
    }
    return pool.meters.filter((meter) => Meter.rate(meter) < meter.limit).map(({ dimension }) => dimension)
  }

  it("an unknown limit if no known one is nearly used up", () => {
    for (const [size, expected] of [
      [10, ["requests"]],
      [4_000, ["tokens"]]
    ] as const) {
      // 10 requests a second are known; the limit of tokens is forgotten.
      const pool = poolOf(Pacer, both)
      const now = flow(Pacer, pool, 0, 60_000, size === 10 ? 0.01 : 1, size)
      Pacer.resize(pool, Rules.resolve({ requests: both.requests }), {}, now)
      assert.deepStrictEqual(slowed(pool, now, size), expected)
    }
  })

  it("a limit whose headers show no room for the call", () => {
    const says = { readings: { tokens: { limit: undefined, remaining: 4_500, roundedTo: 1 } } }
    const pool = poolOf(Pacer, both)
    const now = flow(Pacer, pool, 0, 60_000, 1, 4_000)
    assert.deepStrictEqual(slowed(Pacer.copy(pool), now, 4_000), ["tokens"])
    assert.deepStrictEqual(slowed(Pacer.copy(pool), now, 4_000, says), ["requests"])
  })

  it("tokens even if headers that are distrusted show room", () => {
    const says = { readings: { tokens: { limit: undefined, remaining: 500_000, roundedTo: 1 } } }
    const pool = poolOf(Pacer, both)
    const now = flow(Pacer, pool, 0, 60_000, 1, 4_000)
    pool.distrustUntil = now + 60_000
    assert.deepStrictEqual(slowed(pool, now, 4_000, says), ["tokens"])
    assert.strictEqual(pool.distrustUntil, now + 60_000)
  })

  it("bursts of requests only if headers show room in all dimensions", () => {
    const room: Pacer.Readings = { requests: { limit: 0.01, remaining: 900, roundedTo: 1 }, ...readings(10, 500_000) }
    const requests = (says: Pacer.Readings): ReadonlyArray<number> => {
      const pool = poolOf(Pacer, both)
      slowed(pool, flow(Pacer, pool, 0, 60_000, 1, 4_000), 4_000, { readings: says })
      return pool.meters.map(({ mostBurst }) => mostBurst)
    }
    assert.deepStrictEqual(requests(room), [50, Infinity])
    assert.deepStrictEqual(requests({ requests: room.requests! }), [Infinity, Infinity], "then it was tokens")
  })
})

describe("a rejection is evidence of a limit of calls in flight", () => {
  it("unless no limit is known, the pool is paused, or the call was sent before an exhaustion", () => {
    const suspects = (change: (pool: Pacer.Pacer) => void): boolean => {
      const pool = known()
      change(pool)
      rejected(pool, whole(100), {}, 100)
      return pool.window.score > 0
    }
    assert.isTrue(suspects(() => {}))
    assert.isTrue(suspects((pool) => (pool.gate = { ...pool.gate, misses: 1 })))
    assert.isFalse(suspects((pool) => (pool.gate = { ...pool.gate, misses: 2 })))
    assert.isTrue(suspects((pool) => (pool.gate = { ...pool.gate, fence: 99 })))
    assert.isFalse(suspects((pool) => (pool.gate = { ...pool.gate, fence: 100 })))
    assert.isFalse(suspects((pool) => (pool.opening = { at: 0, since: 0, last: 1, allowed: 1 })))
  })

  it("with as many acceptances left over as there are calls without a verdict", () => {
    const pool = known(1_000)
    rejected(pool, whole(1_000))
    const pending = 0.01 * (2 * pool.rejectMillis + 20)
    assert.closeTo(pool.window.surplus, pending * Math.log(0.98 / 0.5), 1e-9)
  })
})

const scale = { p: 0.01, q: 0.3, pending: 10 }

/** Applies a failure to a test. Returns whether it is the first since the score was 0. */
const fail = (...[test, ...failure]: Parameters<typeof Verdicts.failed>): boolean => {
  const { isFirst, ...next } = Verdicts.failed(test, ...failure)
  Object.assign(test, next)
  return isFirst
}

/** Plays calls that each fail with this probability. Returns the alarms, and the calls until the first one. */
const calls = (count: number, rate: number, threshold: number, seed: number) => {
  const random = mulberry(seed)
  const test = Verdicts.makeTest()
  let alarms = 0
  let first: number | undefined
  for (let number = 1; number <= count; number++) {
    if (random() >= rate) continue
    fail(test, number, number - test.seen - 1, scale)
    if (test.score < threshold) continue
    alarms++
    first ??= number
    Object.assign(test, { score: 0 })
  }
  return { alarms, first: first ?? Infinity }
}

describe("verdicts", () => {
  it("raises fewer false alarms than one in the calls of its threshold", () => {
    for (const each of [100, 1_000, 10_000]) {
      const { alarms } = calls(500_000, scale.p, Verdicts.thresholdFor(each), 7)
      assert.isBelow(alarms, 500_000 / each, `one in ${each}`)
    }
  })

  it("raises an alarm within 20 calls on average at the rate that it looks for", () => {
    const threshold = Verdicts.thresholdFor(300)
    let sum = 0
    for (let seed = 1; seed <= 100; seed++) sum += calls(10_000, scale.q, threshold, seed).first
    assert.isBelow(sum / 100, 20)
  })

  it("ignores one failure among many calls, and raises an alarm after three in a row", () => {
    const test = Verdicts.makeTest()
    const threshold = Verdicts.thresholdFor(300)
    assert.isTrue(fail(test, 100, 99, scale))
    assert.isBelow(test.score, threshold)
    fail(test, 200, 99, scale)
    assert.isBelow(test.score, threshold)
    assert.isFalse(fail(test, 201, 0, scale))
    fail(test, 202, 0, scale)
    assert.isAbove(test.score, threshold)
  })

  it("scores each acceptance the same, whenever it came", () => {
    const one = Verdicts.makeTest()
    const other = Verdicts.makeTest()
    fail(one, 1, 0, scale)
    fail(other, 1_001, 0, scale)
    fail(one, 9, 7, scale)
    fail(other, 1_009, 7, scale)
    assert.strictEqual(one.score, other.score)
  })

  it("raises no alarm for random failures of one burst that arrive in another order", () => {
    // Regression: 25 random rejections of a burst that ended in the same millisecond looked like a streak.
    const threshold = Verdicts.thresholdFor(2_500)
    const numbers = Array.from({ length: 25 }, (_, i) => 100 * (i + 1))
    for (const order of [numbers, numbers.toReversed(), numbers.toSorted((a, b) => ((a * 7) % 11) - ((b * 7) % 11))]) {
      const test = Verdicts.makeTest()
      let most = 0
      for (const number of order) {
        fail(test, number, Math.max(0, number - test.seen - 1), { ...scale, pending: 2_500 })
        most = Math.max(most, test.score)
      }
      assert.isBelow(most, threshold, order.join())
    }
  })

  it("keeps no more acceptances for failures out of order than there are calls without a verdict", () => {
    const test = Verdicts.makeTest()
    fail(test, 100_000, 99_999, { ...scale, pending: 0 })
    for (const number of [5, 4, 3]) fail(test, number, 0, { ...scale, pending: 0 })
    assert.isAbove(test.score, Verdicts.thresholdFor(2_500))
  })

  it("learns the average random rate, between its minimum and a tenth", () => {
    for (const rate of [0.01, 0.05]) {
      const random = mulberry(3)
      let p = 0.001
      let sum = 0
      for (let i = 0; i < 20_000; i++) sum += p = Verdicts.learn(p, 1, random() < rate, 0.001)
      assert.closeTo(sum / 20_000 / rate, 1, 0.2)
    }
    let p = 0.001
    for (let i = 0; i < 1_000; i++) p = Verdicts.learn(p, 1, true, 0.001)
    assert.strictEqual(p, 0.1)
    assert.strictEqual(Verdicts.learn(p, 1e6, false, 0.001), 0.001)
  })

  it("learns the same from many calls at once as from one after another", () => {
    let each = 0.05
    for (let i = 0; i < 40; i++) each = Verdicts.learn(each, 1, false, 0.001)
    assert.closeTo(Verdicts.learn(0.05, 40, false, 0.001), each, 1e-12)
  })

  it("uses up left-over acceptances for failures that come out of order", () => {
    const [p, q] = [0.001, 0.3]
    const each = Math.log((1 - p) / (1 - q))
    const cost = Math.log(q / p)
    const few = Verdicts.makeTest()
    assert.isTrue(fail(few, 1_000, 999, { p, q, pending: 20 }))
    // Several calls may have the number of the last one that failed.
    fail(few, 1_000, 0, { p, q, pending: 20 })
    assert.closeTo(few.score, cost, 1e-9)
    for (const number of [998, 997]) fail(few, number, 0, { p, q, pending: 20 })
    assert.closeTo(few.score, 4 * cost - 20 * each, 1e-9, "as many as are without a verdict")
    const many = Verdicts.makeTest()
    fail(many, 1, 0, { p, q, pending: 1_000 })
    fail(many, 22, 20, { p, q, pending: 1_000 })
    assert.isFalse(fail(many, 21, 0, { p, q, pending: 1_000 }))
    assert.closeTo(many.score, 2 * cost - (20 * each - cost), 1e-9, "what no failure had to be weighed against")
  })
})
