/** The provider's bucket: the curve of its rate, the integral of that, and how long a call waits. */
import { assert, describe, it } from "@effect/vitest"
import * as Meter from "../../src/pacing/meter.ts"
import { mulberry } from "../support/random.ts"

const seeds = Array.from({ length: 200 }, (_, i) => i + 1)

/** A bucket of 1,000 a second whose share was measured a while ago; so far in debt that it is always used. */
const cutMeter = (random: () => number, isLimited = random() < 0.7): Meter.Meter => {
  const meter = Meter.make("tokens", 0, isLimited ? 1 : Infinity, isLimited ? 1_000_000 : undefined)
  meter.mean = Math.ceil(1 + 2_000 * random())
  meter.best = 0.3
  Meter.restart(meter, 0.05 + 0.9 * random(), random() < 0.5 ? -1 : 5 * random() - 1)
  meter.level = -1e8
  return meter
}

/** A bucket of 1,000 a second with a burst of 10,000 and a measured share. */
const measured = (share = 0.5, limit = 1): Meter.Meter => {
  const meter = Meter.make("tokens", 0, limit, 10_000 * limit)
  meter.mean = 100 * limit
  Meter.restart(meter, share * limit, 0)
  return meter
}

describe("meter", () => {
  it("does not depend on the unit of charges", () => {
    for (const seed of seeds.slice(0, 80)) {
      for (const unit of [1 / 1_024, 4_096]) {
        const of = (unit: number): ReadonlyArray<number> => {
          const random = mulberry(seed)
          const isLimited = random() < 0.7
          const meter = Meter.make("tokens", 0, isLimited ? unit : Infinity, random() < 0.5 ? undefined : 5_000 * unit)
          const trace: Array<number> = []
          for (let step = 1; step <= 30; step++) {
            const charge = unit * Math.ceil(1_000 * random())
            Meter.advance(meter, meter.at + 2_000 * random() ** 4, random() < 0.1 ? 0 : Infinity)
            trace.push(
              Meter.wait(meter, charge, Infinity, random() < 0.3 ? 50 : 0),
              Meter.rateAt(meter, meter.at) / unit
            )
            Meter.take(meter, charge, step)
            if (random() < 0.2) Meter.restart(meter, unit * random(), random() < 0.5 ? -1 : 0)
            if (random() < 0.3) Meter.settle(meter, charge, 0.3 * charge, true, true)
            if (random() < 0.05) Meter.setLimit(meter, unit * (0.2 + random()))
            if (random() < 0.05) Meter.pin(meter, meter.at)
            if (random() < 0.02) Object.assign(meter, { ramp: Meter.recentRate(meter, meter.at), rampAt: meter.at })
            trace.push(meter.period, Meter.recentRate(meter, meter.at) / unit)
            if (meter.peak < Infinity) trace.push(meter.level / unit)
          }
          return trace
        }
        const [one, other] = [of(1), of(unit)]
        const differs = (value: number, i: number): boolean =>
          value !== other[i] && !(Math.abs(value - other[i]!) <= 1 + 1e-6 * Math.abs(value))
        assert.strictEqual(one.findIndex(differs), -1, `seed ${seed}`)
      }
    }
  })

  it("admits a charge that the level covers up to a billionth, and keeps the reserve back", () => {
    const billion = 1e9
    const meter = Meter.make("tokens", 0, 1, 2 * billion)
    for (const [level, fits] of [
      [billion, true],
      [billion - 1, true],
      [billion - 2, false]
    ] as const) {
      meter.level = level
      assert.strictEqual(Meter.wait(meter, billion, Infinity) === 0, fits, `${level}`)
    }
    meter.level = billion
    meter.reserve = 500
    assert.closeTo(Meter.wait(meter, billion, Infinity), 500, 1)
    meter.reserve = 0
    assert.strictEqual(Meter.wait(meter, 0, Infinity), 0)
  })

  it("keeps back the refill of the lag, or the reserve if that is more", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    meter.level = 500
    assert.strictEqual(Meter.wait(meter, 450, Infinity, 50), 0)
    assert.closeTo(Meter.wait(meter, 500, Infinity, 50), 50, 1e-6)
    meter.reserve = 80
    assert.closeTo(Meter.wait(meter, 500, Infinity, 50), 80, 1e-6)
  })

  it("holds the largest charge if its burst is unknown", () => {
    const meter = Meter.make("tokens", 0, 1)
    assert.strictEqual(meter.level, 3_000)
    Meter.setLimit(meter, 1)
    assert.strictEqual(Meter.burst(meter), 3_000)
    Meter.take(meter, 10_000, 1)
    Meter.take(meter, 100, 2)
    assert.closeTo(Meter.burst(meter), 10_000, 11)
    Meter.advance(meter, 60_000, Infinity)
    assert.closeTo(meter.level, 10_000, 11)
    // A share refills less.
    const part = Meter.make("tokens", 0, 1)
    Meter.restart(part, 0.5, 0)
    assert.strictEqual(Meter.burst(part), 1_500)
  })

  it("holds less once its share or its limit is lower", () => {
    const meter = Meter.make("tokens", 0, 1)
    meter.level = 3_000
    Meter.restart(meter, 0.5, 0)
    assert.strictEqual(meter.level, 1_500)
    const other = Meter.make("tokens", 0, 1)
    other.level = 3_000
    Meter.setLimit(other, 0.5)
    assert.strictEqual(other.level, 1_500)
  })

  it("has a period of the geometric mean of a minute and the gap between calls, from 1 to 4 s", () => {
    for (const [mean, period] of [
      [1, 1_000],
      [100, Math.sqrt(100 * 60_000)],
      [100_000, 4_000]
    ] as const) {
      const meter = Meter.make("tokens", 0, 2, 1_000)
      meter.mean = 2 * mean
      Meter.restart(meter, 2, 0)
      assert.closeTo(meter.period, period, 1e-9)
    }
  })

  it("has a period of at least the gap between calls, up to a minute, if no limit is known", () => {
    for (const [gap, period] of [
      [100, Math.sqrt(100 * 60_000)],
      [4_000, 4_000],
      [20_000, 20_000],
      [100_000, 60_000]
    ] as const) {
      const meter = Meter.make("tokens", 0)
      meter.mean = 2 * gap
      Meter.restart(meter, 2, 0)
      assert.closeTo(meter.period, period, 1e-9)
    }
  })

  it("slows down for a limit below its share, and not for one above it", () => {
    const meter = measured(0.5)
    Meter.setLimit(meter, 0.3)
    assert.strictEqual(Meter.rate(meter), 0.3)
    // The share was the whole limit, so a higher limit is used at once.
    Meter.setLimit(meter, 0.6)
    assert.strictEqual(Meter.rate(meter), 0.6)
  })

  it("forgets the share that headers measured on average if its limit changes, and only then", () => {
    const meter = measured()
    Meter.measure(meter, 0.25, 60_000)
    const { lasting } = meter
    Meter.setLimit(meter, meter.limit)
    assert.strictEqual(meter.lasting, lasting)
    Meter.setLimit(meter, 2 * meter.limit)
    assert.isUndefined(meter.lasting)
  })

  it("keeps its measured share when its limit is forgotten, but not its burst", () => {
    const meter = measured(0.5)
    meter.level = 100
    Meter.forget(meter)
    assert.strictEqual(Meter.rate(meter), 0.5)
    assert.deepStrictEqual([meter.burst, meter.limit, meter.level], [undefined, Infinity, 100])
  })

  it("holds nothing back once the limit is forgotten that was all of its share", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    meter.mean = 100
    // Soon after a cut, below the limit.
    Meter.restart(meter, 1, -1)
    Meter.forget(meter)
    assert.strictEqual(Meter.rate(meter), Infinity)
    assert.strictEqual(Meter.wait(meter, 1e9, Infinity), 0)
  })

  it("says what the bucket lacks to be full, which is nothing while its limit is unknown", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    Meter.take(meter, 600, 1)
    assert.deepStrictEqual([Meter.missing(meter, 0), Meter.missing(meter, 200)], [600, 400])
    assert.strictEqual(Meter.missing(meter, 5_000), 0)
    const unknown = Meter.make("tokens", 0)
    Meter.take(unknown, 600, 1)
    assert.strictEqual(Meter.missing(unknown, 200), 0)
  })

  it("counts usage as delivered", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    Meter.take(meter, 600, 1)
    Meter.settle(meter, 600, 200, true, true)
    assert.closeTo(Meter.recentRate(meter, 60_000), 200 / 60_000 / (1 - Math.exp(-1)), 1e-9)
    Meter.settle(meter, 500, 0, true, true)
    assert.strictEqual(Meter.recentRate(meter, 60_000), 0)
  })

  it("says exactly when a charge fits while its rate does not grow", () => {
    const meter = measured(0.3)
    meter.level = 0
    assert.closeTo(Meter.wait(meter, 1_000, 0), 1_000 / 0.3, 1e-6, "headers measure the share")
    Object.assign(meter, { ramp: 0.1, rampAt: 0, mean: 5_000 })
    assert.closeTo(Meter.wait(meter, 1_000, Infinity), 10_000, 1e-6, "the provider bounds growth")
  })

  it("waits for the growth that the provider allows, even if its share is the whole limit", () => {
    const meter = Meter.make("tokens", 0, 1, 100_000)
    Object.assign(meter, { ramp: 0.1, mean: 5_000, level: 0 })
    assert.closeTo(Meter.wait(meter, 1_000, Infinity), 10_000, 1e-6)
  })

  it("is refilled by no more than its limit, however long it has grown", () => {
    const meter = measured(0.9)
    meter.level = -1e6
    Meter.advance(meter, 60_000, Infinity)
    assert.isAtMost(meter.level, -1e6 + 60_000)
    assert.isAtLeast(meter.level, -1e6 + 0.9 * 60_000)
  })

  it("grows while it is at most half full", () => {
    const meter = measured()
    for (const [level, isUsed] of [
      [5_000, true],
      [5_001, false]
    ] as const) {
      assert.strictEqual(Meter.isUsed({ ...meter, level }), isUsed)
    }
  })

  it("does not go back in time", () => {
    const meter = measured()
    Meter.take(meter, 2_000, 1)
    Meter.advance(meter, 1_000, Infinity)
    const before = { ...meter }
    Meter.advance(meter, 500, Infinity)
    assert.deepStrictEqual(meter, before)
  })

  it("knows the mean charge and, for a while, the largest", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    for (let call = 1; call <= 10; call++) Meter.take(meter, 50, call)
    assert.strictEqual(meter.mean, 50)
    for (let call = 11; call <= 1_000; call++) Meter.take(meter, 150, call)
    assert.closeTo(meter.mean, 150, 1e-3)
    Meter.take(meter, 1e6, 1_001)
    assert.strictEqual(meter.largest, 1e6)
    for (let call = 1_002; call <= 2_000; call++) Meter.take(meter, 150, call)
    assert.closeTo(meter.largest, 1e6 * 0.999 ** 999, 1)
  })

  it("separates rejected charges from all charges sent", () => {
    const meter = Meter.make("tokens", 0, 1, 10_000)
    for (let i = 1; i <= 3; i++) Meter.take(meter, 100, i)
    Meter.settle(meter, 100, 30, true, true)
    assert.deepStrictEqual([meter.sum, meter.rejected], [230, 0])
    Meter.settle(meter, 100, 0, true, false)
    assert.deepStrictEqual([meter.sum, meter.rejected], [130, 100])
    // A provider may charge for a rejection.
    Meter.settle(meter, 100, 40, true, false)
    assert.deepStrictEqual([meter.sum, meter.rejected], [70, 160])
  })

  it("continues at the recent rate, or at one call per period, if no limit is known", () => {
    const meter = Meter.make("tokens", 0)
    Meter.pin(meter, 1_000)
    assert.strictEqual(Meter.rate(meter), Infinity, "nothing went through it")
    Meter.take(meter, 4_000, 1)
    const much = { ...meter, recent: 600_000 }
    Meter.pin(much, 60_000)
    assert.closeTo(Meter.rate(much), 10 / (1 - Math.exp(-1)), 1e-9)
    const little = { ...meter, recent: 0 }
    Meter.pin(little, 60_000)
    assert.strictEqual(Meter.rate(little), 1)
    Meter.pin(much, 600_000)
    assert.closeTo(Meter.rate(much), 10 / (1 - Math.exp(-1)), 1e-9, "what is known stays")
  })

  it("admits a mean call while growth is bounded, however low the bound is", () => {
    const meter = measured()
    Object.assign(meter, { ramp: 0.01, rampAt: 0, level: 0 })
    assert.strictEqual(Meter.burst(meter), 100)
    meter.mean = 0.5
    assert.strictEqual(Meter.burst(meter), 1)
    // It refills no more than that.
    Meter.advance(meter, 100, Infinity)
    assert.closeTo(meter.level, 1, 1e-3)
    Meter.advance(meter, 60_000, Infinity)
    assert.isAtMost(meter.level, 10)
  })

  it("has the same level after one long step and after many short ones", () => {
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

  it("is refilled at the rate in use", { tags: "full" }, () => {
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
      // Regression: for a bucket that is more than half full, whose rate does not grow, the wait was too short.
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

  it("never exceeds the limit, and never falls more than a tenth below the measured share", { tags: "full" }, () => {
    for (const seed of seeds) {
      const meter = cutMeter(mulberry(seed), true)
      for (let now = 0; now < 60_000; now += 500) {
        Meter.advance(meter, now, Infinity)
        assert.isAtMost(Meter.rate(meter), 1)
        assert.isAtLeast(Meter.rate(meter), 0.9 * meter.peak - 1e-12)
      }
    }
  })

  it("starts a tenth below the measured share, returns to it after one period, and stays there for a while", () => {
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

  it("grows from a tenth of the limit back to it within 25 s, whatever calls cost", () => {
    for (const mean of [0.1, 10, 1_000, 100_000]) {
      const meter = Meter.make("tokens", 0, 1, 1_000)
      meter.mean = mean
      Meter.restart(meter, 0.1, -1)
      meter.level = -1e9
      Meter.advance(meter, 25_000, Infinity)
      assert.strictEqual(Meter.rate(meter), 1, `calls of ${mean}`)
    }
  })

  it("keeps its numbers finite for a week after a cut, used or not", () => {
    // Regression: the curve overflowed after a thousand periods, the level became NaN, and nothing was held back.
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

  it("computes any wait, however long", () => {
    // Regression: the search never ended if half a millisecond was below the rounding of the wait.
    const meter = Meter.make("tokens", 0, 1e-5, 1_000)
    meter.mean = 1
    Meter.restart(meter, 1e-6, -1)
    meter.level = -1e12
    assert.isAbove(Meter.wait(meter, 1_000, Infinity), 1e16)
  })

  it("does not grow while it is unused, nor beyond a bound", () => {
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

  it("admits a call that is larger than the burst when it is full, and never holds more than the burst", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    assert.strictEqual(Meter.wait(meter, 20_000, Infinity), 0)
    Meter.take(meter, 20_000, 1)
    assert.closeTo(Meter.wait(meter, 20_000, Infinity), 20_000, 1e-6)
    Meter.advance(meter, 100_000, Infinity)
    assert.strictEqual(meter.level, 1_000)
  })

  it("holds nothing back while its limit is unknown, and counts what is delivered", () => {
    const meter = Meter.make("tokens", 0)
    for (let now = 0; now < 300_000; now += 100) {
      Meter.advance(meter, now, Infinity)
      assert.strictEqual(Meter.wait(meter, 50, Infinity), 0)
      Meter.take(meter, 50, 1 + now / 100)
    }
    assert.closeTo(Meter.recentRate(meter, meter.at), 0.5, 0.01)
  })

  it("knows the recent rate within the first minute", () => {
    for (const seconds of [2, 10, 30]) {
      const meter = Meter.make("tokens", 5_000)
      for (let now = 0; now < seconds * 1_000; now += 10) {
        Meter.advance(meter, 5_000 + now, Infinity)
        Meter.take(meter, 5, 1)
      }
      assert.closeTo(Meter.recentRate(meter, meter.at), 0.5, 0.02, `after ${seconds} s`)
    }
  })

  it("refunds unused charges up to the burst, and owes usage beyond the estimate", () => {
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

  it("refunds nothing if the level was set since, and still owes usage beyond the estimate", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    Meter.take(meter, 600, 1)
    meter.level = 0
    Meter.settle(meter, 600, 100, false, false)
    assert.strictEqual(meter.level, 0)
    Meter.settle(meter, 600, 700, false, false)
    assert.strictEqual(meter.level, -100)
  })

  it("follows a lower limit at once, and a higher one if its share was the whole limit", () => {
    const meter = Meter.make("tokens", 0, 1, 1_000)
    Meter.setLimit(meter, 0.5)
    assert.strictEqual(Meter.rate(meter), 0.5)
    Meter.setLimit(meter, 2)
    assert.strictEqual(Meter.rate(meter), 2)
    Meter.restart(meter, 0.3, 0)
    Meter.setLimit(meter, 3)
    assert.strictEqual(Meter.rate(meter), 0.3)
  })

  it("bounds growth after a ramp error by 40 % a minute, and allows no burst of saved-up refill", () => {
    const meter = Meter.make("tokens", 0, 1, 100_000)
    meter.mean = 10
    meter.ramp = 0.1
    meter.rampAt = 0
    meter.level = 0
    for (let minutes = 1; minutes <= 3; minutes++) {
      Meter.advance(meter, minutes * 60_000, Infinity)
      assert.closeTo(Meter.rateAt(meter, minutes * 60_000), 0.1 * 1.4 ** minutes, 1e-9)
      assert.isAtMost(meter.level, 100 * 0.1 * 1.4 ** minutes + 1e-9)
    }
    assert.strictEqual(Meter.rateAt(meter, 60 * 60_000), 1)
  })

  it("admits a call that is larger than the burst that bounded growth allows", () => {
    // Regression: the bucket was full by an earlier bound, and so never quite full by the current one.
    const meter = Meter.make("tokens", 0, 1, 100_000)
    meter.mean = 10
    meter.ramp = 0.1
    meter.level = 0
    for (const now of [10_000, 10_001, 10_002]) Meter.advance(meter, now, Infinity)
    assert.strictEqual(Meter.wait(meter, 5_000, Infinity), 0)
  })
})

describe("a bucket that holds more than headers have shown", () => {
  /** Headers showed a burst of 1,000. */
  const shown = (reserve = 0): Meter.Meter => ({ ...Meter.make("tokens", 0, 1, 1_000), reserve })

  it("holds the charge that was rejected and the reserve, but at most three times what headers have shown", () => {
    const meter = shown(50)
    Meter.widen(meter, 1_500)
    assert.deepStrictEqual([Meter.burst(meter), Meter.shownBurst(meter)], [1_550, 1_000])
    // The reserve has grown since the first rejection.
    meter.reserve = 100
    Meter.widen(meter, 1_500)
    assert.strictEqual(Meter.burst(meter), 1_600)
    Meter.widen(meter, 10_000)
    assert.deepStrictEqual([Meter.burst(meter), Meter.shownBurst(meter)], [3_000, 1_000])
    meter.most = 1_200
    Meter.widen(meter, 10_000)
    assert.deepStrictEqual([Meter.burst(meter), Meter.shownBurst(meter)], [3_600, 1_200])
  })

  it("is not learned from a charge that fits into what headers have shown", () => {
    const meter = shown(50)
    for (const charge of [500, 1_000]) Meter.widen(meter, charge)
    assert.deepStrictEqual(meter, shown(50))
  })

  it("holds less if headers deny it, but never less than they have shown", () => {
    const meter = shown()
    Meter.narrow(meter, 200)
    assert.strictEqual(Meter.burst(meter), 1_000)
    Meter.widen(meter, 2_000)
    Meter.narrow(meter, 200)
    assert.strictEqual(Meter.burst(meter), 1_800)
    meter.most = 1_200
    Meter.narrow(meter, 5_000)
    assert.strictEqual(Meter.burst(meter), 1_200)
  })

  it("is not found while headers have shown nothing", () => {
    const meter = Meter.make("tokens", 0, 1)
    Meter.widen(meter, 50_000)
    Meter.narrow(meter, 100)
    assert.deepStrictEqual(meter, Meter.make("tokens", 0, 1))
  })
})
