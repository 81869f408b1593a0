import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Limits from "floodgate/Limits"
import * as Budget from "floodgate/Budget"
import * as Amounts from "../src/domain/amounts.ts"
import * as Rules from "../src/domain/rules.ts"

const rules = Rules.resolve({
  requests: { perMinute: 60 },
  inputTokens: { perMinute: 1_000 },
  outputTokens: { perMinute: 1_000 },
  tokens: { perMinute: 2_000 }
})

describe("Limits", () => {
  it("reads a limit per minute as the provider counts, or keeps it in any 60 s if that is unknown", () => {
    const limit = { tokens: { perMinute: 6_000 } }
    for (const counting of [{}, { tokens: "sliding" }, { tokens: "fixed" }] as const) {
      const { capacity, rate, window } = Rules.resolve(limit, counting).tokens!
      assert.deepStrictEqual([capacity, capacity + rate * 60_000, window?.max], [300, 6_000, 6_000])
    }
    const { capacity, rate, window } = Rules.resolve(limit, { tokens: "bucket" }).tokens!
    assert.deepStrictEqual([capacity, rate * 60_000, window], [6_000, 6_000, undefined])
    // A window that is stated holds.
    const stated = { tokens: { perMinute: 6_000, window: "sliding" } } as const
    assert.deepStrictEqual(Rules.resolve(stated, { tokens: "bucket" }), Rules.resolve(stated))
  })

  it("applies a share to a stated limit, or leaves it to the provider's headers", () => {
    const limits = { tokens: { perSecond: 1_000, share: 0.25 }, requests: { share: 0.5 } }
    const { requests, tokens } = Rules.resolve(limits)
    assert.deepStrictEqual([tokens!.capacity, tokens!.rate, tokens!.provider.rate], [250, 0.25, 1])
    assert.isUndefined(requests)
    assert.deepStrictEqual(Rules.shares(limits), { requests: 0.5 })
  })

  it("refuses a burst that fills a window, but allows it for a bucket", () => {
    const limit = { perMinute: 1_000, burst: 1_000 }
    const refused =
      "Budget.layer: limits.tokens.burst: expected less than the limit of 1000 that the window holds, got 1000"
    assert.throws(() => Budget.layer({ limits: { tokens: limit } }), RangeError, refused)
    assert.throws(() => Budget.layer({ limits: { tokens: { ...limit, window: "sliding" } } }), RangeError, refused)
    assert.strictEqual(Rules.resolve({ tokens: { ...limit, window: "bucket" } }).tokens!.capacity, 1_000)
  })

  it("charges one request, and fills in what an estimate leaves out", () => {
    assert.deepStrictEqual(Amounts.charge({}, rules), { requests: 1, inputTokens: 0, outputTokens: 0, tokens: 0 })
    const output = { requests: 1, inputTokens: 0, outputTokens: 30, tokens: 30 }
    assert.deepStrictEqual(Amounts.charge({ outputTokens: 30 }, rules), output)
    // Tokens without saying which may all be input.
    const whole = { requests: 1, inputTokens: 50, outputTokens: 0, tokens: 50 }
    assert.deepStrictEqual(Amounts.charge({ tokens: 50 }, rules), whole)
    const rest = { requests: 1, inputTokens: 35, outputTokens: 15, tokens: 50 }
    assert.deepStrictEqual(Amounts.charge({ tokens: 50, outputTokens: 15 }, rules), rest)
    assert.deepStrictEqual(Amounts.charge({ tokens: 50, inputTokens: 35 }, rules), rest)
  })

  it("reads a usage over the estimate, part by part", () => {
    const read = (estimate: Limits.Estimate, usage: Limits.Usage) => {
      const { inputTokens, outputTokens, tokens } = Amounts.used(Amounts.charge(estimate, rules), usage, estimate)
      return [inputTokens, outputTokens, tokens]
    }
    const both = { inputTokens: 100, outputTokens: 50 }
    assert.deepStrictEqual(read(both, {}), [100, 50, 150])
    assert.deepStrictEqual(read(both, { inputTokens: 90 }), [90, 50, 140])
    assert.deepStrictEqual(read(both, { tokens: 150 }), [100, 50, 150])
    assert.deepStrictEqual(read(both, { tokens: 180 }), [130, 50, 180])
    assert.deepStrictEqual(read(both, { tokens: 120 }), [100, 50, 120])
    assert.deepStrictEqual(read(both, { tokens: 40 }), [40, 40, 40])
    assert.deepStrictEqual(read(both, { tokens: 120, outputTokens: 5 }), [115, 5, 120])
    assert.deepStrictEqual(read({ tokens: 100 }, { tokens: 10 }), [10, 0, 10])
    assert.deepStrictEqual(read({ inputTokens: 100 }, { inputTokens: 10 }), [10, 0, 10])
    assert.deepStrictEqual(read({ tokens: 100 }, { tokens: NaN, inputTokens: -1 }), [100, 0, 100])
  })

  const amount = Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1e9 })))
  const estimate = Schema.Struct({ requests: amount, inputTokens: amount, outputTokens: amount, tokens: amount })
  const limited = Schema.Array(Schema.Literals(Limits.Dimension.literals))
  const some = (dimensions: ReadonlyArray<Limits.Dimension>): Rules.Rules =>
    Object.fromEntries(dimensions.map((dimension) => [dimension, rules[dimension]]))

  it.prop(
    "settles nothing for a call that used exactly its estimate",
    { estimate, limited },
    ({ estimate, limited }) => {
      const held = Amounts.charge(estimate, some(limited))
      assert.deepStrictEqual(Amounts.used(held, estimate, estimate), held)
      assert.deepStrictEqual(Amounts.used(held, held, estimate), held)
      assert.deepStrictEqual(Amounts.used(held, {}, estimate), held)
    }
  )

  it.prop("refunds everything for a call that used nothing of its estimate", { estimate, limited }, (drawn) => {
    const given = { requests: 1, ...drawn.estimate }
    const held = Amounts.charge(given, some(drawn.limited))
    const none = Object.fromEntries(Object.keys(given).map((dimension) => [dimension, 0]))
    const all = Object.fromEntries(Object.keys(held).map((dimension) => [dimension, 0]))
    assert.deepStrictEqual(Amounts.used(held, none, given), all)
    assert.deepStrictEqual(Amounts.used(held, Amounts.nothing, given), all)
  })

  it.prop("takes the stated parts of a usage unchanged", { estimate, usage: estimate }, ({ estimate, usage }) => {
    const used = Amounts.used(Amounts.charge(estimate, rules), usage, estimate)
    assert.deepStrictEqual({ ...used, ...usage }, used)
  })
})
