/** The status of dimensions: the tighter of the user's limit and the provider's. */
import { assert, describe, it } from "@effect/vitest"
import type * as Limits from "floodgate/Limits"
import * as Law from "../../src/pacing/law.ts"
import { dimensionsOf } from "../../src/pacing/status.ts"
import * as Rules from "../../src/domain/rules.ts"

const charge = { requests: 1, inputTokens: 0, outputTokens: 0, tokens: 600 }

/** The user's limit and one that headers name, per second. */
const pool = (stated: Limits.Limits, learned: { readonly limit: number; readonly remaining: number } | undefined) => {
  const law = Law.make(Rules.resolve(stated), {}, 0)
  if (learned !== undefined) {
    const { limit, remaining } = learned
    Law.observe(law, undefined, { tokens: { limit: limit / 1_000, remaining, roundedTo: 1 } }, 0)
  }
  return law
}

describe("status", () => {
  it("shows the user's limit and its level at a time", () => {
    const law = pool({ tokens: { perSecond: 100, burst: 1_000 } }, undefined)
    Law.take(law, charge, 0)
    const status = { capacity: 1_000, perSecond: 100, limitPerSecond: 100 }
    assert.deepStrictEqual(dimensionsOf(law, 0), { tokens: { level: 400, ...status } })
    assert.deepStrictEqual(dimensionsOf(law, 1_000), { tokens: { level: 500, ...status } })
    assert.deepStrictEqual(dimensionsOf(law, 0), { tokens: { level: 400, ...status } }, "to say it changes nothing")
  })

  it("shows a limit that headers named if the user states none, and nothing if it is unknown", () => {
    assert.deepStrictEqual(dimensionsOf(pool({}, undefined), 0), {})
    const law = pool({}, { limit: 50, remaining: 800 })
    const status = { capacity: 800, perSecond: 50, limitPerSecond: 50 }
    assert.deepStrictEqual(dimensionsOf(law, 0), { tokens: { level: 800, ...status } })
    Law.take(law, charge, 0)
    assert.deepStrictEqual(dimensionsOf(law, 2_000), { tokens: { level: 300, ...status } })
  })

  it("shows the tighter of both, number by number", () => {
    const slow = pool({ tokens: { perSecond: 100, burst: 1_000 } }, { limit: 50, remaining: 800 })
    assert.deepStrictEqual(dimensionsOf(slow, 0), {
      tokens: { level: 1_000, capacity: 1_000, perSecond: 50, limitPerSecond: 50 }
    })
    const used = pool({ tokens: { perSecond: 100, burst: 1_000 } }, undefined)
    Law.observe(used, Law.take(used, charge, 0), { tokens: { limit: 0.1, remaining: 200, roundedTo: 1 } }, 0)
    assert.strictEqual(dimensionsOf(used, 0).tokens?.level, 200)
    const small = pool({ tokens: { perSecond: 10, burst: 500 } }, { limit: 50, remaining: 800 })
    assert.deepStrictEqual(dimensionsOf(small, 0), {
      tokens: { level: 500, capacity: 500, perSecond: 10, limitPerSecond: 10 }
    })
  })

  it("shows what is left of a quota, at a rate of 0", () => {
    const law = pool({ tokens: { total: 5_000 } }, undefined)
    Law.take(law, charge, 0)
    assert.deepStrictEqual(dimensionsOf(law, 60_000), {
      tokens: { level: 4_400, capacity: 5_000, perSecond: 0, limitPerSecond: 0 }
    })
  })
})
