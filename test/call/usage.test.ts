import { assert, describe, it } from "@effect/vitest"
import * as Usage from "../../src/call/usage.ts"
import * as Accounting from "floodgate/Accounting"
import type * as Limits from "floodgate/Limits"

const rejection = (dimensions: Limits.Signal["dimensions"]): Limits.Signal => ({ dimensions })

describe("usage", () => {
  it("separates the prompt of an estimate from the output that is reserved with it", () => {
    const expected = { inputTokens: 600, cachedTokens: 100, outputTokens: 50 }
    const promptOf = (accounting: Accounting.Accounting, maxTokens: number | undefined) =>
      Usage.promptOf({
        accounting,
        estimate: accounting.estimate({ ...expected, maxTokens }),
        known: { maxTokens }
      })
    for (const accounting of [Accounting.azure, Accounting.bedrockMantle, Accounting.openai]) {
      assert.deepStrictEqual([promptOf(accounting, 4_096), promptOf(accounting, undefined)], [700, 700])
    }
    assert.strictEqual(promptOf(Accounting.anthropic, 4_096), 600)
  })

  it("finds the limit with the smallest share of what is needed left", () => {
    const hit = (signal: Limits.Signal | undefined, estimate: Limits.Estimate) => Usage.limitHit(signal, estimate)
    assert.isUndefined(hit(undefined, { tokens: 100 }))
    assert.strictEqual(hit(rejection({ tokens: { remaining: 50 } }), { tokens: 100 }), "tokens")
    assert.strictEqual(hit(rejection({ tokens: { remaining: 50 } }), { inputTokens: 30, outputTokens: 30 }), "tokens")
    assert.isUndefined(hit(rejection({ tokens: { remaining: 60 } }), { inputTokens: 30, outputTokens: 30 }))
    assert.isUndefined(hit(rejection({ tokens: { remaining: 30 } }), { inputTokens: 30 }))
    assert.strictEqual(hit(rejection({ tokens: { remaining: 29 } }), { outputTokens: 30 }), "tokens")
    // A limit that the call takes nothing from is hit only if nothing is left of it.
    assert.isUndefined(hit(rejection({ inputTokens: { remaining: 1 } }), { outputTokens: 30 }))
    assert.strictEqual(hit(rejection({ inputTokens: { remaining: 0 } }), { outputTokens: 30 }), "inputTokens")
    const both = rejection({ inputTokens: { remaining: 50 }, requests: { remaining: 0 } })
    assert.strictEqual(hit(both, { inputTokens: 100 }), "requests")
  })
})
