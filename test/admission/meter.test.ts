/** The provider's bucket as far as it is known: a curve, its integral, and what a call waits for. */
import { assert, describe, it } from "@effect/vitest"
import * as Meter from "../../src/admission/meter.ts"
import { mulberry } from "../support/random.ts"

const seeds = Array.from({ length: 200 }, (_, i) => i + 1)

/** A bucket of 1,000 a second of which a share was measured a while ago; far in debt, so that it is used all the time. */
const cutMeter = (random: () => number, isLimited = random() < 0.7): Meter.Meter => {
  const meter = Meter.make("tokens", 0, isLimited ? 1 : Infinity, isLimited ? 1_000_000 : undefined)
  meter.mean = Math.ceil(1 + 2_000 * random())
  meter.best = 0.3
  Meter.restart(meter, 0.05 + 0.9 * random(), random() < 0.5 ? -1 : 5 * random() - 1)
  meter.level = -1e8
  return meter
}

describe("meter", () => {
  it("holds the same whether it was brought up to date in one step or in many", () => {
    for (const seed of seeds) {
      const random = mulberry(seed)
      const most = random() < 0.3 ? 2 * random() : Infinity
      const once = cutMeter(random)
      const often = { ...once }
      const end = 10 * once.period * random()
      let now = 0
      while (now < end) {
        now = Math.min(end, now + 2_000 * random() ** 2)
        Meter.advance(often, now, most)
      }
      Meter.advance(once, end, most)
      assert.closeTo(often.level, once.level, 1e-6, `seed ${seed}`)
      assert.closeTo(often.phase, once.phase, 1e-9, `seed ${seed}`)
      assert.closeTo(often.recent, once.recent, 1e-9, `seed ${seed}`)
    }
  })

  it("is refilled at the rate in use", () => {
    for (const seed of seeds) {
      const meter = cutMeter(mulberry(seed))
      const before = { ...meter }
      let sum = 0
      for (let now = 5; now <= 5 * meter.period; now += 10) {
        Meter.advance(meter, now, Infinity)
        sum += 10 * Meter.rate(meter)
        Meter.advance(meter, now + 5, Infinity)
      }
      assert.closeTo((meter.level - before.level) / sum, 1, 1e-4, `seed ${seed}`)
    }
  })

  it("says to the millisecond when a charge fits", () => {
    for (const seed of seeds) {
      const random = mulberry(seed)
      const meter = cutMeter(random)
      const most = random() < 0.3 ? 2 * random() : Infinity
      // Regression: of a bucket that is more than half full, whose rate does not grow, it was said too early.
      meter.level = random() < 0.3 ? 300 + 300 * random() : -10_000 * random()
      if (meter.burst !== undefined) meter.burst = 600
      meter.reserve = random() < 0.5 ? 0 : 100 * random()
      const charge = Math.ceil(600 * random())
      const wait = Meter.wait(meter, charge, most)
      const fitsAfter = (millis: number) => {
        const then = { ...meter }
        Meter.advance(then, then.at + millis, most)
        return Meter.wait(then, charge, most) === 0
      }
      if (wait > 0) assert.isFalse(fitsAfter(wait - 1), `seed ${seed}: it fits earlier than after ${wait} ms`)
      assert.isTrue(fitsAfter(wait), `seed ${seed}: it does not fit after ${wait} ms`)
    }
  })

  it("never goes faster than the limit, and never slower than a tenth below what was measured", () => {
    for (const seed of seeds) {
      const meter = cutMeter(mulberry(seed), true)
      for (let now = 0; now < 60_000; now += 500) {
        Meter.advance(meter, now, Infinity)
        assert.isAtMost(Meter.rate(meter), 1)
        assert.isAtLeast(Meter.rate(meter), 0.9 * meter.peak - 1e-12)
      }
    }
  })

  it("starts a tenth below the measured share, is back there after one period, and stays there for a while", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    meter.mean = 100
    Meter.restart(meter, 0.5, -1)
    meter.level = -1e6
    const { period } = meter
    const after = (periods: number) => {
      const then = { ...meter }
      Meter.advance(then, periods * period, Infinity)
      return Meter.rate(then)
    }
    assert.closeTo(after(0), 0.45, 1e-9)
    assert.closeTo(after(0.5), 0.5, 0.01)
    assert.closeTo(after(1), 0.5, 1e-9)
    assert.closeTo(after(1.5), 0.5, 0.005)
    assert.closeTo(after(2), 0.53, 1e-9)
    assert.strictEqual(after(6), 1)
  })

  it("is back at the limit within 25 s from a tenth of it, whatever calls cost", () => {
    for (const mean of [0.1, 10, 1_000, 100_000]) {
      const meter = Meter.make("tokens", 0, 1, 1_000)
      meter.mean = mean
      Meter.restart(meter, 0.1, -1)
      meter.level = -1e9
      Meter.advance(meter, 25_000, Infinity)
      assert.strictEqual(Meter.rate(meter), 1, `calls of ${mean}`)
    }
  })

  it("stays in finite numbers for a week after a cut, used or not", () => {
    // Regression: the curve overflowed after a thousand periods, the level was no number any more, and nothing held back.
    for (const limit of [1, Infinity]) {
      const meter = Meter.make("tokens", 0, limit, 1_000)
      meter.mean = 1
      Meter.restart(meter, 0.5, -1)
      meter.level = 0
      for (let seconds = 1; seconds < 604_800; seconds += seconds % 7 === 0 ? 3_000 : 1) {
        Meter.advance(meter, seconds * 1_000, Infinity)
        if (Meter.wait(meter, 1_000, Infinity) === 0) Meter.take(meter, 1_000, 1e9)
      }
      assert.isTrue(Number.isFinite(meter.level))
      assert.isTrue(Number.isFinite(Meter.rate(meter)))
      meter.level = -500
      assert.isAbove(Meter.wait(meter, 1_000, Infinity), 0)
    }
  })

  it("foresees any wait, however long", () => {
    // Regression: where half a millisecond is less than the rounding of the wait, it was looked for for ever.
    const meter = Meter.make("tokens", 0, 1e-5, 1_000)
    meter.mean = 1
    Meter.restart(meter, 1e-6, -1)
    meter.level = -1e12
    assert.isAbove(Meter.wait(meter, 1_000, Infinity), 1e16)
  })

  it("does not grow while it is not used, nor beyond a bound", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    meter.mean = 100
    Meter.restart(meter, 0.5, 0)
    meter.level = 900
    Meter.advance(meter, 60_000, Infinity)
    assert.strictEqual(Meter.rate(meter), 0.5)
    meter.level = -1e6
    Meter.advance(meter, 120_000, 0)
    assert.strictEqual(Meter.rate(meter), 0.5)
    Meter.advance(meter, 180_000, Infinity)
    assert.strictEqual(Meter.rate(meter), 1)
  })

  it("lets a call in that is larger than the burst when it is full, and never holds more than that", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    assert.strictEqual(Meter.wait(meter, 20_000, Infinity), 0)
    Meter.take(meter, 20_000, 1)
    assert.closeTo(Meter.wait(meter, 20_000, Infinity), 20_000, 1e-6)
    Meter.advance(meter, 100_000, Infinity)
    assert.strictEqual(meter.level, 1_000)
  })

  it("asks nothing of a bucket of which no limit is known, and knows what went through it", () => {
    const meter = Meter.make("tokens", 0)
    for (let now = 0; now < 300_000; now += 100) {
      Meter.advance(meter, now, Infinity)
      assert.strictEqual(Meter.wait(meter, 50, Infinity), 0)
      Meter.take(meter, 50, 1 + now / 100)
    }
    assert.closeTo(Meter.recentRate(meter, meter.at), 0.5, 0.01)
  })

  it("knows the recent rate before a minute is over", () => {
    for (const seconds of [2, 10, 30]) {
      const meter = Meter.make("tokens", 5_000)
      for (let now = 0; now < seconds * 1_000; now += 10) {
        Meter.advance(meter, 5_000 + now, Infinity)
        Meter.take(meter, 5, 1)
      }
      assert.closeTo(Meter.recentRate(meter, meter.at), 0.5, 0.02, `after ${seconds} s`)
    }
  })

  it("settles: gives back what was not used, up to the burst, and owes what was used beyond the estimate", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    Meter.take(meter, 600, 1)
    Meter.settle(meter, 600, 100, true, true)
    assert.strictEqual(meter.level, 900)
    Meter.take(meter, 600, 2)
    Meter.settle(meter, 600, 2_000, true, true)
    assert.strictEqual(meter.level, -1_100)
    Meter.advance(meter, 2_000, Infinity)
    Meter.settle(meter, 600, 0, true, true)
    assert.strictEqual(meter.level, 1_000)
  })

  it("gives nothing back that the level never had, and still owes", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    Meter.take(meter, 600, 1)
    meter.level = 0
    Meter.settle(meter, 600, 100, false, false)
    assert.strictEqual(meter.level, 0)
    Meter.settle(meter, 600, 700, false, false)
    assert.strictEqual(meter.level, -100)
  })

  it("goes by a smaller limit at once, and from a share that was the whole by a larger one", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    Meter.setLimit(meter, 0.5)
    assert.strictEqual(Meter.rate(meter), 0.5)
    Meter.setLimit(meter, 2)
    assert.strictEqual(Meter.rate(meter), 2)
    Meter.restart(meter, 0.3, 0)
    Meter.setLimit(meter, 3)
    assert.strictEqual(Meter.rate(meter), 0.3)
  })

  it("bounds growth after a ramp error by 40 % a minute, and lets nothing saved up go at once", () => {
    const meter = Meter.make("tokens", 0, 1, 100_000)
    meter.mean = 10
    meter.ramp = 0.1
    meter.rampAt = 0
    meter.level = 0
    for (let minutes = 1; minutes <= 3; minutes++) {
      Meter.advance(meter, minutes * 60_000, Infinity)
      assert.closeTo(Meter.rateAt(meter, minutes * 60_000), 0.1 * 1.4 ** minutes, 1e-9)
      assert.isAtMost(meter.level, 500 * 0.1 * 1.4 ** minutes + 1e-9)
    }
    assert.strictEqual(Meter.rateAt(meter, 60 * 60_000), 1)
  })

  it("lets a call in that is larger than what growth lets go at once", () => {
    // Regression: the bucket was full by the bound of a moment ago, and so a hair short of full for ever.
    const meter = Meter.make("tokens", 0, 1, 100_000)
    meter.mean = 10
    meter.ramp = 0.1
    meter.level = 0
    for (const now of [10_000, 10_001, 10_002]) Meter.advance(meter, now, Infinity)
    assert.strictEqual(Meter.wait(meter, 5_000, Infinity), 0)
  })
})
