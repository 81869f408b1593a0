/** The sequential test, which compares failures with the acceptances between them. */
import { assert, describe, it } from "@effect/vitest"
import * as Verdicts from "../../src/pacing/verdicts.ts"
import { mulberry } from "../support/random.ts"

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
