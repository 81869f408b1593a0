import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Estimating from "../../src/domain/estimating.ts"

const amount = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 100_000 }))

describe("token ratios", () => {
  describe("push", () => {
    it.prop(
      "keeps the last 256 values, in both orders",
      { values: Schema.Array(amount), fill: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 300 })) },
      ({ fill, values }) => {
        // Equal values too: they must leave one by one. Adding 0 makes -0 equal to it.
        const all = [...Array.from({ length: fill }, (_, n) => n % 7), ...values.map((value) => value + 0)]
        const recent = Estimating.recent([])
        for (const value of all) Estimating.push(recent, value)
        const { sorted, sum } = Estimating.recent(all)
        assert.deepStrictEqual(recent.sorted, sorted)
        assert.approximately(recent.sum, sum, 1e-3)
        assert.deepStrictEqual(recent.values, all.slice(-Estimating.size))
      },
      { arbitrary: { runs: 200 } }
    )
  })

  describe("quantile", () => {
    const upTo = (n: number) => Estimating.recent(Array.from({ length: n }, (_, index) => index + 1))

    it("takes the rank that leaves the promised share of gaps below it", () => {
      assert.strictEqual(Estimating.quantile(upTo(19), 0.95), 19)
      assert.strictEqual(Estimating.quantile(upTo(39), 0.95), 38)
      assert.strictEqual(Estimating.quantile(upTo(256), 0.95), 245)
      assert.strictEqual(Estimating.quantile(upTo(256), 0.99), 255)
    })

    it("is the largest value when there are too few, and 0 when there is none", () => {
      assert.strictEqual(Estimating.quantile(upTo(5), 0.95), 5)
      assert.strictEqual(Estimating.quantile(upTo(0), 0.95), 0)
    })
  })
})
