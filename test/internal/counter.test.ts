import { assert, describe, it } from "@effect/vitest"
import * as Counter from "../../src/internal/counter.ts"
import type * as Limits from "floodgate/Limits"

/** What is counted in the end of a call with an estimate, and of its usage. */
const settled = (estimate: Limits.Estimate, usage: Limits.Usage) => {
  const counter = Counter.make("a", {}, () => {})
  const share = Counter.take([counter], estimate)
  if (share._tag !== "Taken") return assert.fail("refused")
  const held = Counter.used(counter).tokens
  share.settle(usage)
  return { held, used: Counter.used(counter).tokens }
}

describe("counter", () => {
  it("keeps the estimate of what a usage does not say, part by part", () => {
    const split = { inputTokens: 100, outputTokens: 40 }
    assert.deepStrictEqual(settled(split, {}), { held: 140, used: 140 })
    assert.deepStrictEqual(settled(split, { outputTokens: 5 }), { held: 140, used: 105 })
    assert.deepStrictEqual(settled(split, { inputTokens: 90 }), { held: 140, used: 130 })
    assert.deepStrictEqual(settled(split, { inputTokens: 90, outputTokens: 5 }), { held: 140, used: 95 })
    assert.deepStrictEqual(settled(split, { tokens: 7, inputTokens: 90 }), { held: 140, used: 7 })
    // Of tokens that were asked for as one number, what is not output is input.
    assert.deepStrictEqual(settled({ tokens: 140, outputTokens: 40 }, { outputTokens: 5 }), { held: 140, used: 105 })
    assert.deepStrictEqual(settled({ tokens: 140 }, { inputTokens: 90 }), { held: 140, used: 90 })
    assert.deepStrictEqual(settled({ inputTokens: 100 }, { outputTokens: 5 }), { held: 100, used: 105 })
    assert.deepStrictEqual(settled({ outputTokens: 40 }, { inputTokens: 90 }), { held: 40, used: 130 })
  })

  it("takes figures that make no sense for not said", () => {
    for (const bad of [NaN, -1, Infinity]) {
      assert.strictEqual(settled({ inputTokens: 100, outputTokens: 40 }, { inputTokens: bad, tokens: bad }).used, 140)
    }
  })
})
