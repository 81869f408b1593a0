/** The control law: the effects of rejections, failures and headers, and the calls that they concern. */
import { assert, describe, it } from "@effect/vitest"
import * as Limits from "floodgate/Limits"
import * as Amounts from "../../src/domain/amounts.ts"
import * as Rules from "../../src/domain/rules.ts"
import * as Pacer from "../../src/pacing/pacer.ts"
import * as Meter from "../../src/pacing/meter.ts"
import { play, readings, whole } from "../support/play.ts"
import { mulberry } from "../support/random.ts"
import { answer, exhaust, fail, flow, poolOf, rateOf, reject, rules, send, wait } from "../support/rules.ts"

const tokens = 1_000
const meterOf = (pool: Pacer.Pacer, dimension: Limits.Dimension) =>
  pool.meters.find((meter) => meter.dimension === dimension)

/** Headers about requests and tokens, so that all limits are known. */
const headers = (limit: number, remaining: number): Pacer.Readings => ({
  requests: { limit: 1e6, remaining: 1e9, roundedTo: 1 },
  ...readings(limit, remaining)
})

describe("law", () => {
  for (const [name, rule] of Object.entries(rules)) {
    // Those of isolated rejections play hours.
    const tags = name.startsWith("isolated") ? "full" : []
    it(`${name}`, { tags }, () => assert.isUndefined(rule(Pacer)))
  }

  describe("a rejection", () => {
    it("is judged by evidence, with one false alarm expected in the calls of half a minute", () => {
      // At 300 calls in half a minute one rejection is enough; at 3,000 it takes two in a row.
      for (const [size, verdicts] of [
        [2_000, ["exhausted"]],
        [100, ["isolated", "exhausted"]]
      ] satisfies ReadonlyArray<readonly [number, ReadonlyArray<Pacer.Verdict>]>) {
        const pool = poolOf(Pacer)
        const now = flow(Pacer, pool, 0, 10_000, 1, size)
        const found = verdicts.map(() => reject(Pacer, pool, send(Pacer, pool, now, size), now + 50))
        assert.deepStrictEqual(found, verdicts)
      }
    })

    it("takes more evidence if headers show room for the call", () => {
      // Regression: two rejections in a row were enough where headers said that the bucket was nearly full.
      const room = headers(10, 90_000)
      for (const [says, verdicts] of [
        [undefined, ["exhausted"]],
        [room, ["isolated", "isolated", "exhausted"]]
      ] satisfies ReadonlyArray<readonly [Pacer.Readings | undefined, ReadonlyArray<Pacer.Verdict>]>) {
        const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 100_000 } })
        const now = flow(Pacer, pool, 0, 10_000, 1, 2_000)
        const found = verdicts.map(() =>
          reject(Pacer, pool, send(Pacer, pool, now, 2_000), now + 50, { readings: says })
        )
        assert.deepStrictEqual(found, verdicts)
      }
    })

    it("belongs to a known exhaustion if its call was sent before that", () => {
      const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 100_000 } })
      let now = flow(Pacer, pool, 0, 10_000)
      const open = Array.from({ length: 20 }, () => send(Pacer, pool, now))
      now = exhaust(Pacer, pool, now)
      const rate = rateOf(Pacer, pool, now)
      // Regression: each of twelve calls in flight together slowed the pool down.
      for (const admission of open) assert.strictEqual(reject(Pacer, pool, admission, now + 10), "exhausted")
      assert.closeTo(rateOf(Pacer, pool, now + 10), rate, 0.1)
    })

    it("refunds its tokens, or keeps what the provider charges for it", () => {
      for (const [used, level] of [
        [Amounts.nothing, 10_000],
        [whole(300), 9_700]
      ] as const) {
        const pool = poolOf(Pacer, { tokens: { perSecond: 0.001, burst: 10_000 } })
        reject(Pacer, pool, send(Pacer, pool, 0), 50, { used })
        assert.closeTo(pool.caps.tokens!.level, level, 1)
      }
    })

    it("of a call that is larger than the provider's limit says that the call is impossible", () => {
      const pool = poolOf(Pacer, {})
      Pacer.observe(pool, undefined, headers(1, 60_000), 0)
      for (const [size, verdict] of [
        [100_000, "impossible"],
        [80_000, "exhausted"]
      ] as const) {
        const copy = structuredClone(pool)
        assert.strictEqual(
          reject(Pacer, copy, send(Pacer, copy, 0, size), 50, { readings: headers(1, 50_000) }),
          verdict
        )
      }
    })

    it("pauses the pool in a blackout for the retry-after at first, but not for a whole hour", () => {
      for (const [retryAfter, pause] of [
        [300, 300],
        [undefined, 1_000],
        [3_600_000, 1_100]
      ] as const) {
        const pool = poolOf(Pacer)
        let now = exhaust(Pacer, pool, flow(Pacer, pool, 0, 10_000))
        const admission = send(Pacer, pool, now)
        now = admission.at + 50
        assert.strictEqual(
          reject(Pacer, pool, admission, now, { retryAfter, readings: readings(undefined, 0) }),
          "exhausted"
        )
        assert.closeTo(wait(Pacer, pool, now, 1), pause, 0.2 * pause, `${retryAfter}`)
      }
    })
  })

  describe("headers", () => {
    it("of a call sent before that of the last header are ignored", () => {
      const pool = poolOf(Pacer, {})
      Pacer.observe(pool, undefined, headers(10, 10_000), 0)
      const [first, second] = [send(Pacer, pool, 0), send(Pacer, pool, 10)]
      Pacer.observe(pool, second, headers(10, 8_000), 100)
      Pacer.observe(pool, first, headers(10, 0), 110)
      assert.strictEqual(wait(Pacer, pool, 110), 0)
    })

    it("remove a debt of our own counting at once", () => {
      const pool = poolOf(Pacer, {})
      Pacer.observe(pool, undefined, headers(10, 10_000), 0)
      const admission = send(Pacer, pool, 0)
      Pacer.accept(pool, admission)
      Pacer.settle(pool, admission, whole(60_000), 100)
      assert.isAbove(wait(Pacer, pool, 100), 4_000)
      const next = send(Pacer, pool, 100, 0)
      Pacer.observe(pool, next, headers(10, 9_000), 200)
      assert.strictEqual(wait(Pacer, pool, 200), 0)
    })

    it("that show nothing left leave a debt, because a bucket in debt shows the same", () => {
      // Regression: after a call larger than the bucket, every other call was sent, and rejected, before the debt was paid.
      for (const roundedTo of [1, 1_000]) {
        const pool = poolOf(Pacer, {})
        Pacer.observe(pool, undefined, headers(10, 10_000), 0)
        // The bucket is taken to hold the refill of three seconds.
        const large = Pacer.take(pool, whole(70_000), 0)
        Pacer.observe(pool, large, readings(10, 0, roundedTo), 1_000)
        assert.closeTo(wait(Pacer, pool, 1_000, 1), 5_000, 5, `${roundedTo}`)
      }
    })

    describe("that show less than a rejected call needs, which is larger than all they ever showed,", () => {
      // The bucket is taken to hold the refill of three seconds: 30,000.
      const rejected = (
        remaining: number,
        retryAfter?: number,
        charge = 70_000,
        limits: Limits.Limits = {}
      ): Pacer.Pacer => {
        const pool = poolOf(Pacer, limits)
        Pacer.observe(pool, undefined, headers(10, 10_000), 0)
        const large = Pacer.take(pool, whole(charge), 0)
        reject(Pacer, pool, large, 50, { readings: headers(10, remaining), retryAfter })
        return pool
      }

      it("let it wait until it has refilled", () => {
        // Regression: it was sent whenever the bucket held as much as headers had shown, and rejected each time.
        assert.isAtLeast(wait(Pacer, rejected(10_000), 50, 70_000), 6_000)
      })

      it("let it wait for hardly longer than the provider asks for", () => {
        const millis = wait(Pacer, rejected(10_000, 3_000), 50, 70_000)
        assert.isAtLeast(millis, 3_000)
        assert.isAtMost(millis, 5_000)
      })

      it("let it wait until it has refilled, also under a quota, which says nothing of the bucket", () => {
        const quota = { tokens: { total: 1e9 } }
        assert.isAtLeast(wait(Pacer, rejected(10_000, undefined, 70_000, quota), 50, 70_000), 6_000)
      })

      it("let all calls wait for at most three times what the bucket has ever shown", () => {
        // Regression: a provider that rejects calls larger than the full bucket cost the other calls a third of the limit.
        assert.isAtMost(wait(Pacer, rejected(10_000, undefined, 500_000), 50, 500_000), 9_000)
      })

      it("say nothing of the bucket if nothing is left, because a debt shows the same", () => {
        assert.isAtMost(wait(Pacer, rejected(0), 50, 70_000), 3_500)
      })

      it("let it wait for less again if the bucket does not fill up that far", () => {
        const pool = rejected(10_000)
        const small = send(Pacer, pool, 9_000, 100)
        Pacer.observe(pool, small, headers(10, 29_900), 9_010)
        assert.isAtMost(wait(Pacer, pool, 9_010, 70_000), 100)
      })
    })

    it("of output say nothing of the bucket if a rejected call may produce more", () => {
      const says: Pacer.Readings = {
        requests: { limit: 1e6, remaining: 1e9, roundedTo: 1 },
        inputTokens: { limit: 1e6, remaining: 1e9, roundedTo: 1 },
        outputTokens: { limit: 10, remaining: 30_000, roundedTo: 1 }
      }
      const pool = poolOf(Pacer, {})
      Pacer.observe(pool, undefined, says, 0)
      const charge: Amounts.Whole = { requests: 1, inputTokens: 100, outputTokens: 70_000, tokens: 70_100 }
      reject(Pacer, pool, Pacer.take(pool, charge, 0), 50, { readings: says })
      assert.isUndefined(Pacer.decide(pool, charge, 50))
    })

    it("that name a lower limit describe a smaller bucket, also under a quota", () => {
      for (const limits of [{}, { tokens: { total: 1e9 } }]) {
        const pool = poolOf(Pacer, limits)
        Pacer.observe(pool, undefined, headers(10, 50_000), 0)
        Pacer.observe(pool, undefined, headers(1, 5_000), 0)
        assert.strictEqual(Meter.burst(meterOf(pool, "tokens")!), 5_000)
      }
    })

    it("teach limits that stay when a quota changes", () => {
      const quota = (total: number): Limits.Limits => ({ tokens: { total } })
      const pool = poolOf(Pacer, quota(1e9))
      Pacer.observe(pool, undefined, headers(10, 50_000), 0)
      Pacer.resize(pool, Rules.resolve(quota(2e9)), {}, 0)
      assert.strictEqual(meterOf(pool, "tokens")!.limit, 10)
    })

    it("leave the burst as the user states it, also if a larger call is rejected", () => {
      const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 30_000 } })
      const large = Pacer.take(pool, whole(70_000), 0)
      reject(Pacer, pool, large, 50, { readings: headers(10, 20_000) })
      assert.isAtMost(wait(Pacer, pool, 50, 70_000), 1_200)
    })

    it("that show nothing left remove a debt that no call was large enough to leave", () => {
      const pool = poolOf(Pacer)
      const calls = [0, 0].map((now) => Pacer.take(pool, whole(10_000), now))
      assert.strictEqual(meterOf(pool, "tokens")!.level, -10_000)
      Pacer.observe(pool, calls[1], readings(10, 0), 0)
      assert.strictEqual(meterOf(pool, "tokens")!.level, 0)
    })

    it("that show nothing left empty a bucket, however large its calls are", () => {
      const pool = poolOf(Pacer)
      const large = Pacer.take(pool, whole(15_000), 0)
      Pacer.settle(pool, large, whole(5_000), 0)
      const next = Pacer.take(pool, whole(1), 10)
      assert.isAbove(meterOf(pool, "tokens")!.level, 1_000)
      Pacer.observe(pool, next, readings(10, 0), 10)
      assert.strictEqual(meterOf(pool, "tokens")!.level, 0)
    })

    it("that show nothing left also lower a level that a later large call has left below 0", () => {
      // Regression: what others had used was ignored, so the debt was taken to be 30,001 instead of 40,000.
      const pool = poolOf(Pacer, {})
      Pacer.observe(pool, undefined, headers(10, 10_000), 0)
      const small = Pacer.take(pool, whole(1), 0)
      Pacer.take(pool, whole(40_000), 0)
      assert.strictEqual(meterOf(pool, "tokens")!.level, -30_001)
      Pacer.observe(pool, small, readings(10, 0), 0)
      assert.strictEqual(meterOf(pool, "tokens")!.level, -40_000)
    })

    it("count exactly, or to half a rounding step if they are rounded", () => {
      for (const [roundedTo, level] of [
        [1, 4_000],
        [1_000, 3_500]
      ] as const) {
        const pool = poolOf(Pacer)
        const admission = send(Pacer, pool, 0)
        Pacer.observe(pool, admission, readings(10, 4_000, roundedTo), 0)
        assert.strictEqual(meterOf(pool, "tokens")!.level, level)
      }
    })

    it("already count the calls sent before theirs, so nothing of those is refunded", () => {
      const pool = poolOf(Pacer)
      const before = Pacer.take(pool, whole(tokens), 0)
      const admission = Pacer.take(pool, whole(tokens), 10)
      Pacer.observe(pool, admission, readings(10, 4_000), 10)
      Pacer.settle(pool, before, Amounts.nothing, 10)
      assert.strictEqual(meterOf(pool, "tokens")!.level, 4_000)
    })

    it("allow a burst of the requests they show, until such a burst is rejected", () => {
      const pool = poolOf(Pacer, { tokens: { perMinute: 60_000_000, window: "bucket" } })
      const tokens = { limit: 1_000, remaining: 1e6, roundedTo: 1 }
      const readings: Pacer.Readings = { requests: { limit: 0.01, remaining: 600, roundedTo: 1 }, tokens }
      Pacer.observe(pool, undefined, readings, 0)
      assert.strictEqual(Meter.burst(meterOf(pool, "requests")!), 600)
      const admissions = Array.from({ length: 200 }, () => Pacer.take(pool, whole(100), 0))
      for (const admission of admissions.slice(0, 60)) {
        Pacer.accept(pool, admission)
        Pacer.observe(pool, admission, readings, 100)
        Pacer.settle(pool, admission, whole(100), 100)
      }
      for (const admission of admissions.slice(60)) {
        Pacer.reject(
          pool,
          admission,
          { reason: "rateLimit", retryAfter: undefined, readings, used: Amounts.nothing },
          100
        )
      }
      assert.strictEqual(Meter.burst(meterOf(pool, "requests")!), 50)
    })

    it("end the opening once they cover everything that is limited", () => {
      const reading = { limit: 10, remaining: 1_000, roundedTo: 1 }
      for (const [says, isOver] of [
        [{ requests: reading }, false],
        [{ tokens: reading }, false],
        [{ requests: reading, tokens: reading }, true],
        [{ requests: reading, inputTokens: reading }, true],
        [{ requests: reading, outputTokens: reading }, false]
      ] satisfies ReadonlyArray<readonly [Pacer.Readings, boolean]>) {
        const pool = poolOf(Pacer, {})
        Pacer.observe(pool, undefined, says, 0)
        assert.strictEqual(pool.opening === undefined, isOver, JSON.stringify(says))
      }
    })

    it("of output say what is left before calls in flight have spent theirs", () => {
      const pool = poolOf(Pacer, { outputTokens: { perSecond: 1_000, burst: 10_000 } })
      const output = (amount: number): Amounts.Whole => ({
        requests: 1,
        inputTokens: 0,
        outputTokens: amount,
        tokens: 0
      })
      const meter = meterOf(pool, "outputTokens")!
      const [kept, admission] = [Pacer.take(pool, output(2_000), 0), Pacer.take(pool, output(3_000), 0)]
      const says = (remaining: number): Pacer.Readings => ({ outputTokens: { limit: 1, remaining, roundedTo: 1 } })
      Pacer.observe(pool, admission, says(4_000), 0)
      assert.deepStrictEqual([meter.level, meter.held, meter.sum], [4_000, 5_000, 0])
      // Higher levels apply gradually, less what the calls in flight may spend: 0.2 of (10,000 - 5,000 - 4,000).
      Pacer.observe(pool, admission, says(10_000), 0)
      assert.closeTo(meter.level, 4_200, 1e-6)
      Pacer.keep(pool, kept)
      assert.deepStrictEqual([meter.held, meter.sum], [3_000, 2_000])
    })

    it("teach an unstated limit, and later changes of it", () => {
      const pool = poolOf(Pacer, {})
      Pacer.observe(pool, undefined, headers(10, 10_000), 0)
      assert.closeTo(rateOf(Pacer, pool, 100), 10, 0.2)
      Pacer.observe(pool, undefined, headers(2, 10_000), 200)
      assert.closeTo(rateOf(Pacer, pool, 300), 2, 0.1)
      Pacer.observe(pool, undefined, headers(20, 10_000), 400)
      assert.closeTo(rateOf(Pacer, pool, 500), 20, 0.5)
    })

    it("about requests are no evidence about tokens", () => {
      // Regression: any headers counted as room, so that an empty bucket of tokens looked like random rejections.
      const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, burst: 10_000 } })
      const requests = { requests: { limit: 1, remaining: 1_000, roundedTo: 1 } }
      let now = flow(Pacer, pool, 0, 10_000)
      const verdicts = Array.from({ length: 3 }, () => {
        const admission = send(Pacer, pool, now)
        now = admission.at + 50
        return reject(Pacer, pool, admission, now, { readings: requests })
      })
      assert.include(verdicts, "exhausted")
      assert.isBelow(Meter.rate(meterOf(pool, "tokens")!), 10)
      assert.strictEqual(Meter.rate(meterOf(pool, "requests")!), 1)
    })
  })

  describe("a share", () => {
    it("is its part of the limit that headers name, and of that only", () => {
      const pool = Pacer.make({}, { tokens: 0.25 }, 0)
      Pacer.observe(pool, undefined, headers(10, 10_000), 0)
      let now = 0
      let sum = 0
      while (now < 60_000) {
        const admission = send(Pacer, pool, now)
        now = admission.at
        sum += tokens
        Pacer.accept(pool, admission)
        Pacer.observe(pool, admission, headers(10, 10_000), now)
        Pacer.settle(pool, admission, admission.charge, now)
      }
      assert.closeTo(sum / now, 2.5, 0.1)
    })

    it("of a stated limit is a cap", () => {
      const pool = poolOf(Pacer, { tokens: { perSecond: 10_000, share: 0.3 } })
      assert.closeTo(rateOf(Pacer, pool, 0, 5_000), 3, 0.05)
    })
  })

  describe("an overload", () => {
    it("of a call sent before an outage was found says nothing new", () => {
      const pool = poolOf(Pacer)
      const open = Array.from({ length: 8 }, () => send(Pacer, pool, 0))
      const verdicts = open.map((admission) => fail(Pacer, pool, admission, 100))
      assert.strictEqual(verdicts[7], "outage")
      assert.closeTo(wait(Pacer, pool, 100), 1_000, 1)
    })

    it("pauses for the retry-after if that is longer, up to a minute", () => {
      for (const [retryAfter, pause] of [
        [7_000, 7_000],
        [3_600_000, 60_000]
      ] as const) {
        const pool = poolOf(Pacer)
        const open = Array.from({ length: 8 }, () => send(Pacer, pool, 0))
        for (const admission of open) fail(Pacer, pool, admission, 100, retryAfter)
        assert.strictEqual(wait(Pacer, pool, 100), pause)
      }
    })

    it("of a probe that can move to another place pauses for three seconds at most, and of another one for ten", () => {
      for (const [canMove, longest] of [
        [true, 3_000],
        [false, 10_000]
      ] as const) {
        const pool = poolOf(Pacer)
        const open = Array.from({ length: 8 }, () => send(Pacer, pool, 0))
        const failure = { retryAfter: undefined, used: {}, canMove }
        for (const admission of open) Pacer.overload(pool, admission, failure, 100)
        const pauses = [wait(Pacer, pool, 100)]
        for (let now = 100; pauses.length < 7;) {
          const probe = send(Pacer, pool, now)
          now = probe.at + 50
          Pacer.overload(pool, probe, failure, now)
          pauses.push(wait(Pacer, pool, now))
        }
        const expected = [1_000, 2_000, 3_000, 5_000, 7_000, 10_000, 10_000].map((each) => Math.min(each, longest))
        pauses.forEach((pause, index) => assert.closeTo(pause, expected[index]!, 1))
      }
    })

    it("does not come for twice the usual time: then two calls go out, then four, then all", () => {
      const pool = poolOf(Pacer)
      const open = Array.from({ length: 8 }, () => send(Pacer, pool, 0))
      for (const admission of open) fail(Pacer, pool, admission, 100)
      let now = 1_100
      const times = Array.from({ length: 20 }, () => (now = send(Pacer, pool, now, 10).at))
      const groups = [...new Set(times)].map((time) => times.filter((each) => each === time).length)
      assert.deepStrictEqual(groups, [1, 2, 4, 13])
    })

    it("of a probe is awaited for twice the usual time, to the millisecond", () => {
      const pool = poolOf(Pacer)
      const open = Array.from({ length: 8 }, () => send(Pacer, pool, 0))
      for (const admission of open) fail(Pacer, pool, admission, 100)
      const { at } = send(Pacer, pool, 100)
      const silence = 2 * pool.overloadMillis + 20
      assert.isAbove(silence, 2 * pool.rejectMillis + 20)
      assert.strictEqual(wait(Pacer, pool, at + silence - 1, 10), 1)
      assert.strictEqual(wait(Pacer, pool, at + silence, 10), 0)
    })

    it("of one of several probes lets one call out again", () => {
      const pool = poolOf(Pacer)
      const open = Array.from({ length: 8 }, () => send(Pacer, pool, 0))
      for (const admission of open) fail(Pacer, pool, admission, 100)
      const first = send(Pacer, pool, 100, 10)
      const second = send(Pacer, pool, first.at, 10)
      assert.isAbove(second.at, first.at)
      assert.strictEqual(fail(Pacer, pool, second, second.at + 50), "outage")
      const probe = send(Pacer, pool, second.at + 50, 10)
      assert.isAbove(wait(Pacer, pool, probe.at, 10), 0)
    })

    it("keeps its reason if the user pauses the pool meanwhile", () => {
      const pool = poolOf(Pacer)
      Pacer.pause(pool, "ramp", 1_000)
      assert.strictEqual(pool.gate.reason, "ramp")
      for (const admission of Array.from({ length: 8 }, () => Pacer.take(pool, whole(tokens), 0)))
        fail(Pacer, pool, admission, 100)
      Pacer.pause(pool, "rateLimit", 5_000)
      assert.strictEqual(pool.gate.reason, "overload")
    })

    it("is over when the provider rejects a call", () => {
      const pool = poolOf(Pacer)
      const open = Array.from({ length: 8 }, () => send(Pacer, pool, 0))
      for (const admission of open) fail(Pacer, pool, admission, 100)
      const probe = send(Pacer, pool, 100)
      reject(Pacer, pool, probe, probe.at + 50)
      assert.strictEqual(wait(Pacer, pool, probe.at + 50, 0), 0)
    })
  })

  it("keeps a pause of the user, however the calls in flight end", () => {
    // Regression: the second exhaustion in a row, and an outage, ended a pause of a minute after a second.
    const ends = [
      (pool: Pacer.Pacer, admission: Pacer.Admission) => fail(Pacer, pool, admission, 200),
      (pool: Pacer.Pacer, admission: Pacer.Admission) =>
        reject(Pacer, pool, admission, 200, { readings: readings(undefined, 0) }),
      (pool: Pacer.Pacer, admission: Pacer.Admission) =>
        reject(Pacer, pool, admission, 200, { reason: "ramp", retryAfter: 100 }),
      (pool: Pacer.Pacer, admission: Pacer.Admission) => answer(Pacer, pool, admission, 200)
    ]
    for (const end of ends) {
      const pool = poolOf(Pacer)
      reject(Pacer, pool, send(Pacer, pool, 0), 50, { readings: readings(undefined, 0) })
      let now = 50
      const open = Array.from({ length: 8 }, () => {
        const admission = Pacer.take(pool, whole(tokens), (now += 1))
        return admission
      })
      Pacer.pause(pool, "rateLimit", 60_000)
      for (const admission of open) end(pool, admission)
      assert.strictEqual(wait(Pacer, pool, 200, 0), 59_800)
    }
  })

  it("settles at the time of the settlement, not of the last decision", () => {
    // Regression: the refill of an idle hour, which the full bucket could not hold, paid a later debt.
    const pool = poolOf(Pacer, { tokens: { perSecond: 1_000, burst: 1_000 } })
    const admission = send(Pacer, pool, 0)
    Pacer.accept(pool, admission)
    Pacer.settle(pool, admission, whole(tokens + 700), 3_600_000)
    assert.strictEqual(pool.caps.tokens!.level, 300)
  })

  it("learns how long answers take", () => {
    const pool = poolOf(Pacer)
    for (let now = 0; now < 60_000; now += 1_000)
      Pacer.settle(pool, Pacer.take(pool, whole(1), now), whole(1), now + 500)
    assert.closeTo(pool.answerMillis, 500, 5)
  })

  it("takes over a call from another pacer as if it were sent now", () => {
    const limits = { outputTokens: { perSecond: 1_000, burst: 10_000 } }
    const [whole, part] = [poolOf(Pacer, limits), poolOf(Pacer, limits)]
    const charge = { requests: 1, inputTokens: 0, outputTokens: 500, tokens: 0 }
    for (let i = 0; i < 3; i++) Pacer.keep(whole, Pacer.take(whole, charge, 0))
    whole.safe = 2
    whole.refused = 5
    whole.window = { ...whole.window, crowded: 3 }
    whole.block = { ...whole.block, before: 1 }
    const admission = Pacer.take(part, charge, 0)
    Pacer.adopt(whole, admission)
    assert.deepStrictEqual([whole.inFlight, whole.sent], [1, 4])
    const { crowded, earlier, number, refused, safe } = admission
    assert.deepStrictEqual(
      { crowded, earlier, number, refused, safe },
      { crowded: 3, earlier: 1, number: 4, refused: 5, safe: 2 }
    )
    const meter = meterOf(whole, "outputTokens")!
    assert.strictEqual(meter.held, 500)
    assert.deepStrictEqual(admission.sums.slice(0, 2), [1_500, 0])
    Pacer.settle(whole, admission, { ...charge, outputTokens: 200 }, 0)
    assert.deepStrictEqual([whole.inFlight, meter.held, meter.sum], [0, 0, 1_700])
  })

  it("admits a call at the moment at which the in-flight window grows", () => {
    const pool = poolOf(Pacer)
    pool.window = { ...pool.window, size: 2, need: 2 }
    for (let i = 0; i < 2; i++) Pacer.take(pool, whole(10), 0)
    pool.window = { ...pool.window, full: 2 }
    const verdict = 2 * pool.rejectMillis + 20
    assert.strictEqual(wait(Pacer, pool, 0, 10), verdict)
    assert.strictEqual(wait(Pacer, pool, verdict - 1, 10), 1)
    assert.strictEqual(wait(Pacer, pool, verdict, 10), 0)
    Pacer.take(pool, whole(10), verdict)
    assert.strictEqual(wait(Pacer, pool, verdict, 10), verdict, "until the verdict on that one is known")
  })

  describe("a release", () => {
    it("of a call that was not sent refunds everything and teaches nothing", () => {
      const pool = poolOf(Pacer, { tokens: { perSecond: 0.001, burst: 1_000 } })
      for (let i = 0; i < 100; i++) Pacer.release(pool, send(Pacer, pool, 0), Amounts.nothing, 0)
      assert.strictEqual(pool.inFlight, 0)
      assert.strictEqual(wait(Pacer, pool, 0), 0)
    })

    it("of a probe makes room for another one", () => {
      const pool = poolOf(Pacer)
      const open = Array.from({ length: 8 }, () => send(Pacer, pool, 0))
      for (const admission of open) fail(Pacer, pool, admission, 100)
      const probe = send(Pacer, pool, 100)
      assert.isAbove(wait(Pacer, pool, probe.at), 0)
      Pacer.release(pool, probe, Amounts.nothing, probe.at)
      assert.strictEqual(wait(Pacer, pool, probe.at), 0)
    })
  })

  describe("a resize", () => {
    it("limits a new dimension, also for the calls in flight", () => {
      const pool = poolOf(Pacer, { requests: { perSecond: 10, burst: 10 } })
      const before = Array.from({ length: 5 }, () => Pacer.take(pool, whole(tokens), 0))
      Pacer.resize(pool, Rules.resolve({ tokens: { perSecond: 1_000, burst: 3_000 } }), {}, 0)
      for (const admission of before) answer(Pacer, pool, admission, 0)
      let now = 0
      for (let i = 0; i < 3; i++) now = send(Pacer, pool, now).at
      assert.isAtMost(now, 10)
      assert.closeTo(wait(Pacer, pool, now), 1_000, 100)
    })

    it("that drops a limit ends it, unless headers have named one", () => {
      // Regression: the user's former limit stayed as if it were the provider's.
      const stated = { tokens: { perSecond: 1_000, burst: 1_000 } }
      const pool = poolOf(Pacer, stated)
      send(Pacer, pool, 0)
      Pacer.resize(pool, {}, {}, 0)
      for (let i = 0; i < 10; i++) assert.strictEqual(send(Pacer, pool, 0).at, 0)
      const named = poolOf(Pacer, stated)
      Pacer.observe(named, send(Pacer, named, 0), readings(1, 500), 0)
      Pacer.resize(named, {}, {}, 0)
      assert.isAbove(wait(Pacer, named, 0), 0)
    })

    it("leaves a pool full that has sent nothing, and makes no room in another one", () => {
      // Regression: a full small bucket became a large one that was almost empty. A client that says how its provider counts
      // makes such a change with the first call.
      const limits = { tokens: { perMinute: 600_000 } }
      const [assumed, counted] = [Rules.resolve(limits), Rules.resolve(limits, { tokens: "bucket" })]
      const pool = Pacer.make(assumed, {}, 0)
      Pacer.resize(pool, counted, {}, 0)
      for (let i = 0; i < 600; i++) assert.strictEqual(send(Pacer, pool, 0).at, 0)
      for (const rules of [assumed, counted, assumed, counted]) {
        Pacer.resize(pool, rules, {}, 0)
        assert.closeTo(wait(Pacer, pool, 0), 100, 10)
      }
    })

    it("counts refill up to then by the old limits", () => {
      const pool = poolOf(Pacer, { tokens: { perSecond: 1_000, burst: 10_000 } })
      Pacer.take(pool, whole(10_000), 0)
      Pacer.resize(pool, Rules.resolve({ tokens: { perSecond: 5_000, burst: 10_000 } }), {}, 2_000)
      assert.closeTo(pool.caps.tokens!.level, 2_000, 1)
      assert.closeTo(meterOf(pool, "tokens")!.level, 2_000, 1)
    })

    it("keeps what was learned about dimensions that are not stated", () => {
      const pool = poolOf(Pacer, {})
      Pacer.observe(pool, undefined, headers(10, 10_000), 0)
      Pacer.resize(pool, Rules.resolve({ requests: { perSecond: 1_000, burst: 1_000 } }), {}, 0)
      assert.closeTo(rateOf(Pacer, pool, 100), 10, 0.2)
    })
  })

  it("charges a dimension that is added later only for later calls", () => {
    const pool = poolOf(Pacer, { requests: { perSecond: 100, burst: 100 } })
    const open = Array.from({ length: 5 }, () => Pacer.take(pool, { ...whole(10), outputTokens: 50 }, 0))
    Pacer.observe(pool, undefined, { outputTokens: { limit: 1, remaining: 500, roundedTo: 1 } }, 0)
    const spent = { ...whole(0), outputTokens: 100, tokens: 100 }
    for (const [i, admission] of open.entries()) {
      if (i % 2 === 0) Pacer.settle(pool, admission, spent, 10)
      else Pacer.keep(pool, admission)
    }
    const meter = meterOf(pool, "outputTokens")!
    assert.deepStrictEqual([meter.held, meter.sum], [0, 0])
    assert.strictEqual(pool.inFlight, 0)
  })

  describe("while no limit is known", () => {
    it("learns nothing about a dimension that no call has used", () => {
      // Regression: its rate became 0 and later its level NaN, so that headers could no longer limit it.
      for (const isRamp of [false, true]) {
        const pool = poolOf(Pacer, {})
        let now = 0
        for (let i = 0; i < 40; i++) {
          const admission = send(Pacer, pool, now, 0)
          now = admission.at + 50
          if (i < 30) answer(Pacer, pool, admission, now)
          else reject(Pacer, pool, admission, now, { reason: isRamp && i === 39 ? "ramp" : "rateLimit" })
        }
        now += 600_000
        for (let i = 0; i < 5; i++) now = send(Pacer, pool, now).at
        Pacer.observe(pool, send(Pacer, pool, now), headers(1, 100), now)
        now = send(Pacer, pool, now).at
        assert.closeTo(wait(Pacer, pool, now), 1_000, 50)
      }
    })

    it("makes progress although the provider's bucket is empty at first", () => {
      // Regression: nothing was delivered, so the rate became 0, and no call ever went again.
      const share = (now: number) => (now < 10_000 ? 0 : 1)
      const weather = { rate: 10, burst: 10_000, level: 0, share }
      const { lost, used } = play(Pacer, { weather, callers: 20, millis: 240_000, seed: 1 })
      assert.deepStrictEqual(lost, [])
      assert.isAtLeast(used, 0.59)
    })

    it("delivers all that is refilled if a bucket holds only a few calls, with at most two rejections for each", () => {
      // Regression: four of five calls were rejected. The rate grew several times between two calls, and was measured over a single one.
      const perMinute = 25_000
      for (const [callers, least] of [
        [1, 0.2],
        [20, 0.7]
      ] as const) {
        for (const seed of [1, 2]) {
          const weather = { rate: perMinute / 60_000, burst: perMinute }
          const size = (random: () => number) => Math.ceil((least + (0.9 - least) * random()) * perMinute)
          const { lost, rejected, used } = play(Pacer, { weather, callers, millis: 3_600_000, seed, size })
          assert.deepStrictEqual(lost, [])
          assert.isAtLeast(used, 0.9)
          assert.isAtMost(rejected, 2 / 3)
        }
      }
    })
  })

  it("is copied so that later events do not change the copy", () => {
    const outage = { from: 20_000, to: 30_000 }
    const weather = { rate: 10, burst: 10_000, random: 0.05, broken: 0.05, concurrency: 5, outage, hasHeaders: true }
    const each: ReadonlyArray<Limits.Limits> = [
      {},
      { tokens: { perSecond: 10_000, burst: 50_000 }, outputTokens: { total: 1e9 } },
      { tokens: { perMinute: 600_000, window: "sliding" }, requests: { perMinute: 600, window: "sliding" } }
    ]
    for (const limits of each) {
      const copies: Array<readonly [copy: Pacer.Pacer, text: string]> = []
      const step = (pool: Pacer.Pacer) => void copies.push([Pacer.copy(pool), JSON.stringify(pool)])
      play(Pacer, { weather, limits, callers: 20, millis: 60_000, seed: 1, step })
      assert.isAbove(new Set(copies.map(([, text]) => text)).size, 50)
      for (const [copy, text] of copies) assert.strictEqual(JSON.stringify(copy), text)
    }
  })

  it("keeps all numbers finite, whatever happens in any order", { tags: "full" }, () => {
    const isFinitely = (value: unknown): boolean =>
      typeof value === "number"
        ? !Number.isNaN(value)
        : typeof value !== "object" || value === null || Object.values(value).every(isFinitely)
    for (let seed = 1; seed <= 150; seed++) {
      const random = mulberry(seed)
      const pick = <A>(of: ReadonlyArray<A>): A => of[Math.floor(random() * of.length)]!
      const limitsOf = (): Limits.Limits =>
        Object.fromEntries(
          Limits.Dimension.literals
            .filter(() => random() < 0.3)
            .map((dimension) => [
              dimension,
              pick([{ perMinute: 60_000 }, { perSecond: 1_000 }, { perSecond: 10, burst: 5_000 }, { share: 0.5 }])
            ])
        )
      const stated = limitsOf()
      const pool = Pacer.make(Rules.resolve(stated), Rules.shares(stated), 0)
      const open: Array<Pacer.Admission> = []
      let now = 0
      const says = (): Pacer.Readings =>
        Object.fromEntries(
          Limits.Dimension.literals
            .filter(() => random() < 0.5)
            .map((dimension) => [
              dimension,
              {
                limit: pick([undefined, 0.001, 1, 1e6]),
                remaining: pick([undefined, 0, 10, 1e4, 1e12]),
                roundedTo: pick([1, 1_000])
              }
            ])
        )
      for (let step = 0; step < 300; step++) {
        now += pick([0, 0, 1, 50, 1_000, 1]) * random()
        if (random() < 0.01) now += 3_600_000
        const size = pick([0, 0, 1, 100, 5_000])
        const charge: Amounts.Whole = {
          requests: 1,
          inputTokens: size,
          outputTokens: pick([0, size]),
          tokens: 2 * size
        }
        if (random() < 0.6 && Pacer.decide(pool, charge, now) === undefined) open.push(Pacer.take(pool, charge, now))
        if (random() < 0.05) {
          const next = limitsOf()
          Pacer.resize(pool, Rules.resolve(next), Rules.shares(next), now)
        }
        if (open.length === 0 || random() < 0.4) continue
        const [admission] = open.splice(Math.floor(random() * open.length), 1) as [Pacer.Admission]
        const used = pick([Amounts.nothing, admission.charge, { tokens: 700 }])
        switch (pick(["answer", "answer", "keep", "release", "reject", "reject", "ramp", "overload"] as const)) {
          case "answer": {
            Pacer.accept(pool, admission)
            if (random() < 0.5) Pacer.observe(pool, admission, says(), now)
            Pacer.settle(pool, admission, used, now)
            break
          }
          case "keep": {
            Pacer.keep(pool, admission)
            break
          }
          case "release": {
            Pacer.release(pool, admission, used, now)
            break
          }
          case "reject":
          case "ramp": {
            const reason = random() < 0.1 ? "ramp" : "rateLimit"
            reject(Pacer, pool, admission, now, {
              reason,
              used,
              readings: pick([undefined, says()]),
              retryAfter: pick([undefined, 10, 60_000])
            })
            break
          }
          case "overload":
            fail(Pacer, pool, admission, now, pick([undefined, 10, 60_000]))
        }
        assert.isTrue(isFinitely(pool), `seed ${seed}, step ${step}: ${JSON.stringify(pool)}`)
      }
      assert.strictEqual(pool.inFlight, open.length, `seed ${seed}`)
    }
  })

  it("never blocks for ever while nothing is in flight and no quota is used up", () => {
    // Liveness: after anything that a provider does, calls go out again.
    for (let seed = 1; seed <= 30; seed++) {
      const outage = seed % 3 === 0 ? { from: 20_000, to: 40_000 } : undefined
      const weather = {
        rate: 10,
        burst: 10_000,
        random: 0.05,
        broken: 0.05,
        concurrency: 5,
        outage,
        hasHeaders: seed % 2 === 0
      }
      const share = (now: number) => (now > 60_000 && now < 90_000 ? 0 : 1)
      const { sent } = play(Pacer, {
        weather: { ...weather, share },
        limits: seed % 2 === 0 ? {} : { tokens: { perSecond: 10_000 } },
        callers: 30,
        millis: 180_000,
        seed
      })
      assert.isAbove(
        sent.filter(({ at, outcome }) => at > 120_000 && outcome.kind === "accepted").length,
        20,
        `seed ${seed}`
      )
    }
  })
})
