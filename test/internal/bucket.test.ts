import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Limits from "floodgate/Limits"
import * as Bucket from "../../src/internal/bucket.ts"

const ruleOf = (limit: Limits.Limit): Limits.Rule => Limits.resolve({ tokens: limit }).tokens!

const Limit = Schema.Literals(["second", "safe", "bucket", "sliding", "fixed"])
const limitOf = (kind: typeof Limit.Type): Limits.Limit => {
  if (kind === "second") return { perSecond: 60, burst: 200 }
  return kind === "safe" ? { perMinute: 4_000 } : { perMinute: 4_000, burst: 300, window: kind }
}

const Step = Schema.Struct({
  kind: Schema.Literals(["take", "force", "give", "wait"]),
  amount: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 3_000 })),
  wait: Schema.Literals([0, 1, 7, 999, 1_000, 1_001, 12_345, 59_999, 60_000, 3_600_000])
})

const Start = Schema.Literals([0, 12_345.678, 1e12])

describe("bucket", () => {
  it("refills up to its capacity, and pays debt first", () => {
    const rule = ruleOf({ perSecond: 1_000, burst: 500 })
    const full = Bucket.make(rule, 0, { pace: 1, headroom: 0 })
    const debtor = Bucket.take(full, 700, 0)
    assert.strictEqual(debtor.level, -200)
    assert.strictEqual(Bucket.refill(debtor, 300).level, 100)
    assert.strictEqual(Bucket.refill(debtor, 60_000).level, 500)
    assert.strictEqual(Bucket.refill(debtor, -5).level, -200)
  })

  it("never gives back above its capacity, and never takes debt away by it", () => {
    const rule = ruleOf({ perSecond: 1_000, burst: 500 })
    const bucket = Bucket.take(Bucket.make(rule, 0, { pace: 1, headroom: 0 }), 400, 0)
    assert.strictEqual(Bucket.give(bucket, 1_000, 0).level, 500)
    assert.strictEqual(Bucket.give(Bucket.take(bucket, 1_000, 0), 100, 0).level, -800)
  })

  it("keeps the headroom back, but lets a call of the whole burst in when it is full", () => {
    const rule = ruleOf({ perSecond: 1_000, burst: 1_000 })
    const full = Bucket.make(rule, 0, { pace: 1, headroom: 0.05 })
    assert.strictEqual(Bucket.waitFor(full, 1_000, 0), 0)
    const part = Bucket.take(full, 100, 0)
    assert.strictEqual(Bucket.waitFor(part, 850, 0), 0)
    assert.closeTo(Bucket.waitFor(part, 851, 0), 1, 1e-5)
    assert.closeTo(Bucket.waitFor(part, 5_000, 0), 100, 1e-5)
  })

  it("remembers in a window what a full bucket has let in as sole debtor", () => {
    // 400K a minute, burst 20K, calls of 150K: a bucket alone lets out 450K within one minute.
    const rule = ruleOf({ perMinute: 400_000, burst: 20_000, window: "sliding" })
    let bucket = Bucket.make(rule, 0, { pace: 1, headroom: 0 })
    const admitted: Array<number> = []
    for (let now = 0; now < 180_000; now += 10) {
      bucket = Bucket.refill(bucket, now)
      if (Bucket.waitFor(bucket, 150_000, now) > 0) continue
      bucket = Bucket.take(bucket, 150_000, now)
      admitted.push(now)
    }
    for (const at of admitted) {
      assert.isAtMost(admitted.filter((other) => other >= at && other < at + 60_000).length, 2)
    }
  })

  it.effect.prop(
    "says exactly how long to wait: not a millisecond too early, not one too late",
    {
      limit: Limit,
      steps: Schema.Array(Step).check(Schema.isMaxLength(30)),
      start: Start,
      pace: Schema.Literals([1, 0.7, 0.05])
    },
    ({ limit, pace, start, steps }) =>
      Effect.sync(() => {
        const rule = ruleOf(limitOf(limit))
        let bucket = Bucket.make(rule, start, { pace, headroom: 0.05 })
        let now = start
        for (const { amount, kind, wait } of steps) {
          now += wait
          bucket = Bucket.refill(bucket, now)
          const asked = Math.min(amount, rule.most)
          if (kind === "force") bucket = Bucket.take(bucket, amount, now)
          if (kind === "give") bucket = Bucket.give(bucket, amount, now)
          if (kind !== "take") continue
          const atOnce = Bucket.takeIfFits(bucket, asked, now)
          for (let rounds = 0; ; rounds++) {
            const millis = Bucket.waitFor(bucket, asked, now)
            if (millis === 0) break
            assert.isBelow(rounds, 4)
            assert.isUndefined(atOnce)
            if (millis > 1) {
              const early = now + Math.ceil(millis) - 1.001
              assert.isAbove(Bucket.waitFor(Bucket.refill(bucket, early), asked, early), 0)
            }
            now += Math.ceil(millis)
            bucket = Bucket.refill(bucket, now)
          }
          const taken = Bucket.take(bucket, asked, now)
          if (atOnce !== undefined) assert.deepStrictEqual(atOnce, taken)
          bucket = taken
        }
      }),
    { arbitrary: { runs: 300 } }
  )

  it.effect.prop(
    "never admits more than burst + rate x interval, nor more than a window holds",
    { limit: Limit, steps: Schema.Array(Step).check(Schema.isMaxLength(60)), start: Start },
    ({ limit, start, steps }) =>
      Effect.sync(() => {
        const rule = ruleOf(limitOf(limit))
        let bucket = Bucket.make(rule, start, { pace: 1, headroom: 0 })
        let now = start
        const admitted: Array<{ readonly at: number; readonly amount: number }> = []
        for (const { amount, wait } of steps) {
          now += wait
          bucket = Bucket.refill(bucket, now)
          const asked = Math.min(amount, rule.most)
          if (asked === 0 || Bucket.waitFor(bucket, asked, now) > 0) continue
          admitted.push({ at: now, amount: asked })
          bucket = Bucket.take(bucket, asked, now)
        }
        for (let i = 0; i < admitted.length; i++) {
          let sum = 0
          for (let j = i; j < admitted.length; j++) {
            const span = admitted[j]!.at - admitted[i]!.at
            // The last may be a sole debtor: it is let in when the bucket is full, whatever its size.
            const last = Math.max(0, admitted[j]!.amount - rule.capacity)
            sum += admitted[j]!.amount
            assert.isAtMost(sum - last, rule.capacity + rule.rate * span + 1e-6 * rule.capacity)
            if (rule.window !== undefined && span < rule.window.millis) {
              assert.isAtMost(sum, rule.window.max * (1 + 1e-9))
            }
          }
        }
      }),
    { arbitrary: { runs: 300 } }
  )
})
