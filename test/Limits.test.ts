import { assert, describe, it } from "@effect/vitest"
import * as Limits from "floodgate/Limits"

const rules = Limits.resolve({
  requests: { perMinute: 60 },
  inputTokens: { perMinute: 1_000 },
  outputTokens: { perMinute: 1_000 },
  tokens: { perMinute: 2_000 }
})

describe("Limits", () => {
  it("refuses limits that make no sense by name", () => {
    for (const bad of [0, -1, NaN, Infinity]) {
      for (const option of ["perSecond", "perMinute", "total"] as const) {
        assert.throws(
          () => Limits.resolve({ tokens: { [option]: bad } }),
          RangeError,
          `Limits.tokens.${option}: expected a finite number > 0, got ${bad}`
        )
      }
      assert.throws(() => Limits.resolve({ tokens: { perMinute: 10, burst: bad } }), RangeError, "Limits.tokens.burst")
    }
    assert.throws(() => Limits.resolve({ tokens: { perMinute: 1, perSecond: 1 } }), RangeError, "exactly one of")
  })

  it("refuses a burst that fills a window, which a bucket may have", () => {
    const limit = { perMinute: 1_000, burst: 1_000 }
    assert.throws(
      () => Limits.resolve({ tokens: limit }),
      RangeError,
      "Limits.tokens.burst: expected less than the limit of 1000"
    )
    assert.throws(() => Limits.resolve({ tokens: { ...limit, window: "sliding" } }), RangeError, "less than the limit")
    assert.strictEqual(Limits.resolve({ tokens: { ...limit, window: "bucket" } }).tokens!.capacity, 1_000)
  })

  it("charges one request, and fills in what an estimate leaves out", () => {
    assert.deepStrictEqual(Limits.charge({}, rules), { requests: 1, inputTokens: 0, outputTokens: 0, tokens: 0 })
    const output = { requests: 1, inputTokens: 0, outputTokens: 30, tokens: 30 }
    assert.deepStrictEqual(Limits.charge({ outputTokens: 30 }, rules), output)
    // Tokens without saying which may all be input.
    const whole = { requests: 1, inputTokens: 50, outputTokens: 0, tokens: 50 }
    assert.deepStrictEqual(Limits.charge({ tokens: 50 }, rules), whole)
  })

  it("refuses an estimate that makes no sense, whether it is limited or not", () => {
    for (const dimension of Limits.dimensions) {
      for (const bad of [-1, NaN, Infinity]) {
        assert.throws(
          () => Limits.charge({ [dimension]: bad }, {}),
          RangeError,
          new RegExp(`^Estimate\\.\\w+: expected a finite number >= 0, got ${bad}`)
        )
      }
    }
  })
})
