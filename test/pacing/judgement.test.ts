/** The effects of a rejection or a failure: on which dimension, for how long, and which call probes. */
import { assert, describe, it } from "@effect/vitest"
import type * as Limits from "floodgate/Limits"
import * as Pacer from "../../src/pacing/pacer.ts"
import * as Meter from "../../src/pacing/meter.ts"
import * as Rules from "../../src/domain/rules.ts"
import { readings, whole } from "../support/play.ts"
import { answer, exhaust, fail, flow, poolOf, reject, send, wait } from "../support/rules.ts"

const both: Limits.Limits = {
  requests: { perSecond: 10, burst: 100 },
  tokens: { perSecond: 10_000, burst: 100_000 }
}

/** The dimensions whose rate is below their limit. */
const slowed = ({ meters }: Pacer.Pacer): ReadonlyArray<string> =>
  meters.filter((meter) => Meter.rate(meter) < meter.limit).map(({ dimension }) => dimension)

describe("an exhaustion that headers do not explain slows down", () => {
  it.each([
    ["tokens, where those are nearly used", 4_000, "tokens"],
    ["requests, where those are", 100, "requests"]
  ] as const)("%s", (_, size, expected) => {
    const pool = poolOf(Pacer, both)
    exhaust(Pacer, pool, flow(Pacer, pool, 0, 20_000, 1, size))
    assert.deepStrictEqual(slowed(pool), [expected])
  })

  it("the dimension in which the rejected calls are larger than others", () => {
    const pool = poolOf(Pacer, both)
    // All requests that are allowed, and a tenth of the tokens.
    let now = flow(Pacer, pool, 0, 20_000, 1, 100)
    let verdict: Pacer.Verdict = "isolated"
    for (let i = 0; i < 20 && verdict === "isolated"; i++) {
      const admission = send(Pacer, pool, now, 5_000)
      now = admission.at + 50
      verdict = reject(Pacer, pool, admission, now)
    }
    assert.strictEqual(verdict, "exhausted")
    assert.deepStrictEqual(slowed(pool), ["tokens"])
  })

  it("the dimension for which headers show no room", () => {
    const pool = poolOf(Pacer, both)
    let now = flow(Pacer, pool, 0, 20_000, 1, 4_000)
    const { tokens } = readings(10, 90_000)
    let verdict: Pacer.Verdict = "isolated"
    for (let i = 0; i < 10 && verdict === "isolated"; i++) {
      const admission = send(Pacer, pool, now, 4_000)
      now = admission.at + 50
      verdict = reject(Pacer, pool, admission, now, { readings: { tokens: tokens! } })
    }
    assert.strictEqual(verdict, "exhausted")
    assert.deepStrictEqual(slowed(pool), ["requests"])
  })
})

describe("headers that showed room which did not exist", () => {
  /** The level after a header that says that nothing is left, this long after an exhaustion that headers denied. */
  const levelAfter = (millis: number, isDenied: boolean): number => {
    const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 100_000 } })
    let now = flow(Pacer, pool, 0, 20_000, 0.2)
    for (let i = 0; i < 20; i++) {
      const admission = send(Pacer, pool, now)
      now = admission.at + 50
      const says = { requests: { limit: 1, remaining: 1_000, roundedTo: 1 }, ...readings(10, 90_000) }
      if (reject(Pacer, pool, admission, now, isDenied ? { readings: says } : {}) === "exhausted") break
    }
    now += millis
    const admission = send(Pacer, pool, now)
    now = admission.at
    Pacer.accept(pool, admission)
    Pacer.observe(pool, admission, readings(10, 0), now)
    return pool.meters.find(({ dimension }) => dimension === "tokens")!.level
  }

  it("are distrusted for a minute", () => {
    assert.isAbove(levelAfter(50_000, true), 1_000)
    assert.isAtMost(levelAfter(70_000, true), 0)
    assert.isAtMost(levelAfter(20_000, false), 0)
  })
})

describe("a ramp error", () => {
  const ramp = { reason: "ramp" } as const

  it("pauses for the retry-after, or five seconds, once for all calls in flight", () => {
    for (const retryAfter of [3_000, undefined]) {
      const pool = poolOf(Pacer, both)
      const now = flow(Pacer, pool, 0, 20_000)
      const [one, two, three] = [send(Pacer, pool, now), send(Pacer, pool, now), send(Pacer, pool, now + 1)] as const
      assert.strictEqual(reject(Pacer, pool, one, now + 50, { ...ramp, retryAfter }), "ramp")
      const pause = retryAfter ?? 5_000
      assert.strictEqual(wait(Pacer, pool, now + 50), pause)
      assert.strictEqual(reject(Pacer, pool, two, now + 100, { ...ramp, retryAfter: 60_000 }), "ramp")
      assert.strictEqual(wait(Pacer, pool, now + 100), pause - 50)
      // Further rejections of those calls teach nothing.
      assert.strictEqual(reject(Pacer, pool, three, now + 100), "exhausted")
      assert.strictEqual(wait(Pacer, pool, now + 100), pause - 50)
    }
  })

  it("lets one call probe, then allows the tokens of the last minute, and requests as before", () => {
    const pool = poolOf(Pacer, both)
    let now = flow(Pacer, pool, 0, 60_000, 0.5)
    reject(Pacer, pool, send(Pacer, pool, now), now + 50, { ...ramp, retryAfter: 3_000 })
    now += 3_050
    const probe = send(Pacer, pool, now, 100)
    assert.strictEqual(probe.at, now)
    assert.isAbove(wait(Pacer, pool, now, 100), 0, "another one waits for its verdict")
    answer(Pacer, pool, probe, now + 10)
    assert.strictEqual(wait(Pacer, pool, now + 10, 100), 0)
    const [requests, tokens] = ["requests", "tokens"].map((name) =>
      pool.meters.find(({ dimension }) => dimension === name)!
    )
    assert.strictEqual(requests!.ramp, Infinity)
    assert.isTrue(tokens!.ramp > 4 && tokens!.ramp < 5.5, `${tokens!.ramp} where 5 were sent a millisecond`)
    // At least 80 % of that, however little was sent before the next ramp error.
    const later = now + 300_000
    const known = tokens!.ramp
    reject(Pacer, pool, send(Pacer, pool, later), later + 50, { ...ramp, retryAfter: 0 })
    assert.isAtLeast(tokens!.ramp, 0.8 * known)
    assert.isAtMost(tokens!.ramp, tokens!.limit)
  })

  it("allows no burst of saved-up refill", () => {
    const pool = poolOf(Pacer, both)
    const now = flow(Pacer, pool, 0, 60_000, 0.5)
    reject(Pacer, pool, send(Pacer, pool, now), now + 50, { ...ramp, retryAfter: 0 })
    assert.isAtLeast(wait(Pacer, pool, now + 51, 100), 10)
  })
})

describe("an outage", () => {
  /** A pool whose calls failed until the law found an outage. */
  const away = (millis = 50) => {
    const pool = poolOf(Pacer, both)
    let now = flow(Pacer, pool, 0, 20_000)
    const old = send(Pacer, pool, now)
    for (let i = 0; i < 20; i++) {
      const admission = send(Pacer, pool, now)
      now = admission.at + millis
      if (fail(Pacer, pool, admission, now) === "outage") return { pool, now, old }
    }
    return assert.fail("twenty failures in a row are an outage")
  }

  it("ends when a call is accepted, and one failure after it starts no new one", () => {
    const { now, pool } = away()
    const probe = send(Pacer, pool, now)
    assert.isAtLeast(probe.at, now + 1_000)
    answer(Pacer, pool, probe, probe.at + 50)
    const later = flow(Pacer, pool, probe.at + 50, 10_000)
    assert.strictEqual(fail(Pacer, pool, send(Pacer, pool, later), later + 50), "isolated")
    assert.strictEqual(wait(Pacer, pool, later + 51), 0)
  })

  it("is probed by one call, by the next one if that is inconclusive, and never by calls sent before", () => {
    const { now, old, pool } = away()
    const probe = send(Pacer, pool, now)
    assert.isAbove(wait(Pacer, pool, probe.at), 0)
    Pacer.release(pool, old, {}, probe.at)
    assert.isAbove(wait(Pacer, pool, probe.at), 0, "the end of a call from before tells nothing")
    Pacer.release(pool, probe, {}, probe.at)
    assert.strictEqual(wait(Pacer, pool, probe.at), 0, "nobody knows what became of the one that was to find out")
  })

  it("waits for the verdict on a probe as long as failures take", () => {
    const quick = away(50)
    const slow = away(5_000)
    const waits = [quick, slow].map(({ now, pool }) => {
      const probe = send(Pacer, pool, now)
      return wait(Pacer, pool, probe.at)
    })
    assert.isAbove(waits[1]!, 2 * waits[0]!)
  })
})

describe("refill up to an event counts before the event", () => {
  const tokens = { perSecond: 10_000, burst: 10_000 }
  const levels = (pool: Pacer.Pacer): ReadonlyArray<number> => [
    pool.caps.tokens!.level,
    pool.meters.find(({ dimension }) => dimension === "tokens")!.level
  ]
  const ends: ReadonlyArray<
    readonly [string, (pool: Pacer.Pacer, admission: Pacer.Admission, used: { readonly tokens: number }) => unknown]
  > = [
    ["that was accepted", (pool, admission, used) => Pacer.settle(pool, admission, used, 1_000)],
    ["that told nothing", (pool, admission, used) => Pacer.release(pool, admission, used, 1_000)],
    ["that failed", (pool, admission, used) => Pacer.overload(pool, admission, { used, retryAfter: undefined }, 1_000)]
  ]

  for (const [name, end] of ends) {
    it(`when a call used more than it asked for, ${name}`, () => {
      const pool = poolOf(Pacer, { tokens })
      const admission = Pacer.take(pool, whole(5_000), 0)
      end(pool, admission, { tokens: 8_000 })
      assert.deepStrictEqual(levels(pool), [7_000, 7_000])
    })
  }

  it("when an answer that has begun used more than its call asked for", () => {
    const pool = poolOf(Pacer, { tokens })
    const admission = Pacer.take(pool, whole(5_000), 0)
    Pacer.owe(pool, admission, { tokens: 3_000 }, 1_000)
    assert.deepStrictEqual(levels(pool), [7_000, 7_000])
    assert.strictEqual(pool.inFlight, 1)
  })

  it("when a call is taken without a decision", () => {
    const pool = poolOf(Pacer, { tokens })
    Pacer.take(pool, whole(5_000), 0)
    Pacer.take(pool, whole(5_000), 1_000)
    assert.deepStrictEqual(levels(pool), [5_000, 5_000])
  })
})

describe("an answer that has begun and used more than its call asked for", () => {
  it("owes nothing in a dimension that was named after it was sent", () => {
    const pool = poolOf(Pacer, {})
    const admission = Pacer.take(pool, whole(100), 0)
    Pacer.observe(pool, undefined, { outputTokens: { limit: 10, remaining: 5_000, roundedTo: 1 } }, 0)
    const level = () => pool.meters.find(({ dimension }) => dimension === "outputTokens")!.level
    Pacer.owe(pool, admission, { outputTokens: 1_000 }, 0)
    assert.strictEqual(level(), 5_000)
    Pacer.owe(pool, Pacer.take(pool, whole(100), 0), { outputTokens: 1_000 }, 0)
    assert.strictEqual(level(), 4_000)
  })

  it("owes nothing in a dimension of which it used no more", () => {
    const pool = poolOf(Pacer, both)
    const admission = Pacer.take(pool, whole(100), 0)
    Pacer.owe(pool, admission, { tokens: 1_000 }, 0)
    const levels = pool.meters.map(({ dimension, level }) => [dimension, level])
    assert.deepStrictEqual(Object.fromEntries(levels), { requests: 99, tokens: 98_900 })
  })
})

describe("the durations of calls", () => {
  // After a store has lost a pool, another machine may give it another time.
  const mean = (at: number): ReadonlyArray<number> => {
    const pool = poolOf(Pacer, { tokens: { total: 100 } })
    const used = whole(0)
    const take = () => Pacer.take(pool, whole(1), 1e9)
    Pacer.settle(pool, take(), used, at)
    Pacer.reject(pool, take(), { reason: "rateLimit", used, readings: undefined, retryAfter: undefined }, at)
    Pacer.overload(pool, take(), { used, retryAfter: undefined }, at)
    return [pool.answerMillis, pool.rejectMillis, pool.overloadMillis]
  }

  it("count up to an hour; longer and negative ones are ignored", () => {
    const before = mean(1e9 - 1)
    assert.deepStrictEqual(mean(1e9 + 3_600_001), before)
    for (const [n, millis] of mean(1e9 + 3_600_000).entries()) assert.isAbove(millis, before[n]!)
    for (const [n, millis] of mean(1e9).entries()) assert.isBelow(millis, before[n]!)
  })
})

describe("a resize", () => {
  const resize = (pool: Pacer.Pacer, to: Limits.Limits, now: number): void =>
    Pacer.resize(pool, Rules.resolve(to), Rules.shares(to), now)

  it("changes a quota by the difference", () => {
    const pool = poolOf(Pacer, { tokens: { total: 100 } })
    Pacer.take(pool, whole(50), 0)
    resize(pool, { tokens: { total: 200 } }, 1_000)
    assert.strictEqual(wait(Pacer, pool, 1_000, 150), 0)
    assert.strictEqual(wait(Pacer, pool, 1_000, 151), Infinity)
    resize(pool, { tokens: { total: 80 } }, 2_000)
    assert.strictEqual(wait(Pacer, pool, 2_000, 30), 0)
    assert.strictEqual(wait(Pacer, pool, 2_000, 31), Infinity)
  })

  it("from a quota to a rate begins with a full bucket, and back with the whole quota", () => {
    const pool = poolOf(Pacer, { tokens: { total: 100 } })
    Pacer.take(pool, whole(90), 0)
    resize(pool, { tokens: { perSecond: 1, burst: 50 } }, 0)
    assert.strictEqual(pool.caps.tokens!.level, 50)
    Pacer.take(pool, whole(50), 0)
    resize(pool, { tokens: { total: 80 } }, 0)
    assert.strictEqual(pool.caps.tokens!.level, 80)
  })

  it("of one dimension keeps what headers taught about another one with a share", () => {
    const share = { requests: { share: 0.5 } }
    const pool = poolOf(Pacer, share)
    const admission = Pacer.take(pool, whole(1), 0)
    Pacer.observe(pool, admission, { requests: { limit: 1, remaining: 1_000, roundedTo: 1 } }, 100)
    const { level, rule } = pool.caps.requests!
    resize(pool, { ...share, tokens: { total: 200 } }, 100)
    assert.deepStrictEqual(pool.caps.requests && [pool.caps.requests.level, pool.caps.requests.rule], [level, rule])
    resize(pool, { requests: { share: 0.4 } }, 100)
    assert.isUndefined(pool.caps.requests)
  })

  it("to a larger burst allows that burst once it has refilled", () => {
    const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 10_000 } })
    send(Pacer, pool, 0, 1)
    resize(pool, { tokens: { perSecond: 10_000, burst: 100_000 } }, 10)
    const calls = [40_000, 40_000].map((size) => send(Pacer, pool, 60_000, size))
    assert.deepStrictEqual(
      calls.map(({ at }) => at),
      [60_000, 60_000]
    )
  })
})

describe("a call that does not fit", () => {
  it("waits for the dimension that binds", () => {
    const pool = poolOf(Pacer, both)
    for (let i = 0; i < 100; i++) Pacer.take(pool, whole(0), 0)
    assert.strictEqual(Pacer.decide(pool, whole(10), 0)?.by, "requests")
    const other = poolOf(Pacer, both)
    Pacer.take(other, whole(100_000), 0)
    assert.strictEqual(Pacer.decide(other, whole(10), 0)?.by, "tokens")
  })
})

// -----------------------------------------------------------------------------
// Large calls whose room nobody knows
// -----------------------------------------------------------------------------

const small = 100
const large = 10_000
const perMinute = 60_000

/** Makes a call each 100 ms for a minute. Returns when that was. */
const flowOf = (pool: Pacer.Pacer, from: number, tokens = small): number => {
  for (let now = from; now < from + perMinute; now += 100) {
    const admission = Pacer.take(pool, whole(tokens), now)
    Pacer.accept(pool, admission)
    Pacer.settle(pool, admission, whole(tokens), now + 50)
  }
  return from + perMinute
}

/** A pool that has made a small call each 100 ms for a minute, and when that was. */
const busy = (limits: Limits.Limits = {}): readonly [Pacer.Pacer, number] => {
  const pool = poolOf(Pacer, limits)
  flowOf(pool, 0)
  // It has been open for longer than the rounds of a new pool take.
  pool.opening = undefined
  return [pool, perMinute]
}

const rejectAt = (pool: Pacer.Pacer, now: number, tokens: number, shown?: Pacer.Readings): Pacer.Verdict =>
  Pacer.reject(
    pool,
    Pacer.take(pool, whole(tokens), now - 20),
    { reason: "rateLimit", retryAfter: undefined, readings: shown, used: whole(0) },
    now
  )

/** How long a call waits if no other is sent; 0 if it may be sent. */
const waitOf = (pool: Pacer.Pacer, tokens: number, now: number): number => {
  const copy = Pacer.copy(pool)
  for (let at = now, looks = 0; ; looks++) {
    const blocked = Pacer.decide(copy, whole(tokens), at)
    if (blocked === undefined) return at - now
    assert.isBelow(looks, 200, "it is blocked for no time")
    at += Math.ceil(blocked.millis)
  }
}

describe("a large call that was rejected twice", () => {
  /** Rejected twice, so that the rate is known, and no pause holds calls back. */
  const rejectedTwice = () => {
    const [pool, from] = busy()
    rejectAt(pool, from + 20, large)
    assert.strictEqual(rejectAt(pool, from + 2_000, large), "exhausted")
    return [pool, from + 2_000] as const
  }

  it("is sent once as much has been refilled as it needs", () => {
    const [pool, now] = rejectedTwice()
    const rate = small / 100
    const wait = waitOf(pool, large, now)
    assert.isAtLeast(wait, large / rate)
    assert.isAtMost(wait, (1.1 * large) / rate)
    assert.strictEqual(waitOf(pool, large, now + wait), 0)
  })

  it("is left its room by all that are less than half as large, until it or one about as large is sent", () => {
    const [pool, now] = rejectedTwice()
    const then = now + waitOf(pool, large, now)
    assert.isTrue(Pacer.isKeptFor(pool, whole(large / 2), then))
    assert.isFalse(Pacer.isKeptFor(pool, whole(large / 2 - 1), then))
    // There is room for ten of the small ones.
    assert.isAbove(waitOf(pool, small, then - 1_000), 0)
    assert.isAbove(waitOf(pool, large / 2 - 1, then - 1_000), 0)
    Pacer.take(pool, whole(large / 2), then - 1_000)
    assert.strictEqual(waitOf(pool, small, then - 1_000), 0)
    assert.isFalse(Pacer.isKeptFor(pool, whole(large), then - 1_000))
  })

  it("keeps its room when smaller ones are sent", () => {
    const [pool, now] = rejectedTwice()
    Pacer.take(pool, whole(small), now + 1)
    assert.isTrue(Pacer.isKeptFor(pool, whole(large), now + 1))
  })

  it("stops the growth of the rate while its room is kept, unless the limit is known", () => {
    const [pool, now] = rejectedTwice()
    const meter = pool.meters.find(({ dimension }) => dimension === "tokens")!
    // All that is refilled is used.
    meter.level = -1e9
    const phaseAt = (at: number): number => {
      const copy = Pacer.copy(pool)
      Pacer.decide(copy, whole(1), at)
      return copy.meters.find(({ dimension }) => dimension === "tokens")!.phase
    }
    assert.strictEqual(phaseAt(now + 119_999), 0)
    assert.isAbove(phaseAt(now + 120_000), 0)
    meter.limit = 10
    assert.isAbove(phaseAt(now + 4_000), 0)
  })

  it("needs a bucket that holds it, however many smaller calls were sent since", () => {
    const [pool, now] = rejectedTwice()
    flowOf(pool, now)
    assert.strictEqual(Meter.burst(pool.meters.find(({ dimension }) => dimension === "tokens")!), large)
  })

  it("holds up nobody once the bucket is full, nor for more than two minutes", () => {
    const [pool, now] = rejectedTwice()
    const then = now + waitOf(pool, large, now)
    assert.isAtMost(waitOf(pool, small, then), 1_000)
    const until = now + 120_000
    assert.isTrue(Pacer.isKeptFor(pool, whole(large), until - 1))
    assert.isFalse(Pacer.isKeptFor(pool, whole(large), until))
  })

  it("waits a minute in which nothing is sent, if it is rejected once more", () => {
    const [pool, now] = rejectedTwice()
    const then = now + waitOf(pool, large, now)
    assert.strictEqual(rejectAt(pool, then + 20, large), "exhausted")
    assert.closeTo(waitOf(pool, large, then + 20), 60_000, 500)
  })

  it("is refilled at no more than what was delivered in the last minute, and what it needs", () => {
    // Regression: at what had been delivered when it was rejected first, and in the first second of a pool that is a full bucket.
    const pool = poolOf(Pacer, {})
    for (let i = 0; i < 20; i++) answer(Pacer, pool, Pacer.take(pool, whole(small), i), i)
    rejectAt(pool, 1_000, large)
    for (let i = 0; i < 3; i++) rejectAt(pool, 1_100 + 100 * i, small)
    const meter = pool.meters.find(({ dimension }) => dimension === "tokens")!
    assert.isAbove(Meter.rate(meter), 0.5)
    const then = flowOf(pool, 2_000, 1)
    assert.strictEqual(rejectAt(pool, then, large), "exhausted")
    // An average over about a minute: a pool that is a minute old weighs what it has sent by 1 / (1 - 1 / e).
    const most = (20 * small + 600 + large) / perMinute / (1 - 1 / Math.E)
    assert.isAtMost(Meter.rate(meter), most)
    assert.isAtLeast(waitOf(pool, large, then), large / most)
  })

  it("waits only for what is missing, if headers name the limit and what is left", () => {
    const [pool, from] = busy()
    const shown = readings(1, large - 100)
    assert.strictEqual(rejectAt(pool, from + 20, large, shown), "exhausted")
    assert.strictEqual(rejectAt(pool, from + 2_000, large, shown), "exhausted")
    assert.isBelow(waitOf(pool, large, from + 2_000), 2_000)
  })

  it("is another one if it is less than half as large", () => {
    const [pool, from] = busy()
    rejectAt(pool, from + 20, large)
    assert.strictEqual(rejectAt(pool, from + 2_000, large / 2 - 1), "isolated")
    assert.strictEqual(rejectAt(pool, from + 4_000, large / 2 - 1), "exhausted")
  })

  it("is forgotten once one about as large is accepted", () => {
    const [pool, now] = rejectedTwice()
    const then = now + waitOf(pool, large, now)
    Pacer.accept(pool, Pacer.take(pool, whole(large), then))
    assert.isUndefined(pool.meters.find(({ dimension }) => dimension === "tokens")!.lacked)
  })
})

describe("a large call that was rejected four times", () => {
  const hour = 3_600_000
  /** For the sizes from nine tenths of it on no room is kept: no bucket holds them. */
  const least = 0.9 * large

  const rejectedFourTimes = () => {
    const [pool, from] = busy()
    let now = from
    for (let times = 0; times < 4; times++) {
      now += 100_000
      rejectAt(pool, now, large)
      assert.strictEqual(Pacer.isKeptFor(pool, whole(large), now), times < 3)
    }
    return [pool, now] as const
  }
  /** Whether room is kept for a call once it was rejected. */
  const isKept = (pool: Pacer.Pacer, tokens: number, now: number): boolean => {
    const copy = Pacer.copy(pool)
    rejectAt(copy, now, tokens)
    return Pacer.isKeptFor(copy, whole(tokens), now)
  }

  it("is kept no room for an hour, nor is one of at least nine tenths its size", () => {
    const [pool, now] = rejectedFourTimes()
    assert.deepStrictEqual(
      [2 * large, large, least, least - 1].map((tokens) => isKept(pool, tokens, now + 1)),
      [false, false, false, true]
    )
    assert.isFalse(isKept(pool, large, now + hour - 1))
    assert.isTrue(isKept(pool, large, now + hour))
  })

  it("is kept room again once one of nine tenths its size is accepted, but not for a smaller one", () => {
    const [pool, now] = rejectedFourTimes()
    for (const [tokens, isAgain] of [
      [least - 1, false],
      [least, true]
    ] as const) {
      Pacer.accept(pool, Pacer.take(pool, whole(tokens), now + 1_000))
      assert.strictEqual(isKept(pool, large, now + 1_100), isAgain)
    }
  })
})

describe("no room is kept", () => {
  const isKept = (tokens: number, limits?: Limits.Limits, shown?: Pacer.Readings): boolean => {
    const [pool, from] = busy(limits)
    rejectAt(pool, from + 20, tokens, shown)
    return Pacer.isKeptFor(pool, whole(tokens), from + 20)
  }

  it("for a call of the usual size, which the rate alone makes room for", () => {
    assert.isTrue(isKept(5 * small))
    assert.isFalse(isKept(4 * small))
  })

  it("if the user states the limit, and so the bucket", () => {
    assert.isFalse(isKept(large, { tokens: { perMinute } }))
  })

  it("for what the answer may have, which is counted when it is produced", () => {
    const [pool, from] = busy()
    const of = (outputTokens: number) => ({ ...whole(small), outputTokens })
    const first = Pacer.take(pool, of(small), from)
    Pacer.accept(pool, first)
    Pacer.observe(pool, first, { outputTokens: { limit: 1, remaining: large, roundedTo: 1 } }, from + 10)
    const second = Pacer.take(pool, of(large), from + 20)
    reject(Pacer, pool, second, from + 40)
    assert.isFalse(Pacer.isKeptFor(pool, of(large), from + 40))
  })

  it("if headers show that the bucket had room", () => {
    assert.isTrue(isKept(large, {}, readings(1, large - 1)))
    assert.isFalse(isKept(large, {}, readings(1, large)))
  })
})

describe("while nothing is known, a rejection", () => {
  /** What holds the next call back after three answers, then so many calls at once, and the rejection of the first. */
  const waitWith = (calls: number, inFlightLimit = Infinity): readonly [wait: number, rejectMillis: number] => {
    const pool = poolOf(Pacer, {})
    for (const at of [0, 100, 200]) answer(Pacer, pool, Pacer.take(pool, whole(small), at), at + 100)
    pool.window = { ...pool.window, size: inFlightLimit }
    const [first] = Array.from({ length: calls }, () => Pacer.take(pool, whole(small), 300))
    assert.strictEqual(reject(Pacer, pool, first!, 400), "isolated")
    return [wait(Pacer, pool, 400, small), pool.rejectMillis]
  }

  it("holds calls back until the next verdict is due, if others are under way", () => {
    for (const calls of [2, 3]) {
      const [wait, rejectMillis] = waitWith(calls)
      assert.strictEqual(wait, rejectMillis)
    }
  })

  it("holds none back if no other is under way, or if the limit of calls in flight is known", () => {
    assert.strictEqual(waitWith(1)[0], 0)
    assert.strictEqual(waitWith(3, 10)[0], 0)
  })
})

describe("an empty bucket", () => {
  it("ends a limit of calls in flight that was claimed and refuted", () => {
    const pool = poolOf(Pacer, both)
    const now = flow(Pacer, pool, 0, 20_000, 1, 4_000)
    pool.window = { ...pool.window, size: 50, refutedAt: now }
    exhaust(Pacer, pool, now)
    assert.strictEqual(pool.window.size, Infinity)
  })
})

describe("the end of the opening", () => {
  /** What a busy pool may send for each second after its last round had so many calls. */
  const rateAfter = (last: number, inFlightLimit = Infinity) => {
    const [pool, from] = busy()
    pool.opening = { at: from, since: 0, last, allowed: last }
    pool.window = { ...pool.window, size: inFlightLimit }
    for (let at = from + 20; rejectAt(pool, at, small) !== "exhausted"; at += 100) assert.isBelow(at, from + 1_000)
    const meter = pool.meters.find(({ dimension }) => dimension === "tokens")!
    return { rate: Meter.rate(meter), perVerdict: small / (2 * pool.rejectMillis + 20) }
  }

  it("halves the rate of the last round, and is no faster than what was delivered", () => {
    for (const last of [1, 3]) {
      const { perVerdict, rate } = rateAfter(last)
      assert.closeTo(rate, (last * perVerdict) / 2, 1e-9)
    }
    assert.closeTo(rateAfter(1_000).rate, small / 100, 0.02)
  })

  it("is as fast as what was delivered in a full window, whose rounds say nothing of a rate", () => {
    assert.closeTo(rateAfter(1, 10).rate, small / 100, 0.02)
  })
})

describe("a second exhaustion in a row", () => {
  it("does not leave more in the bucket than the first", () => {
    const pool = poolOf(Pacer)
    const reserve = () => pool.meters.map((meter) => meter.reserve)
    const now = exhaust(Pacer, pool, 0)
    const before = reserve()
    exhaust(Pacer, pool, now)
    assert.strictEqual(pool.gate.misses, 2)
    assert.deepStrictEqual(reserve(), before)
  })
})
