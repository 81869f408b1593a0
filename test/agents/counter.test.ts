import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import type * as Limits from "floodgate/Limits"
import * as Amounts from "../../src/limits/amounts.ts"
import * as Counter from "../../src/agents/counter.ts"
import * as Rules from "../../src/limits/rules.ts"

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
  const amount = Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1e9 })))
  const amounts = Schema.Struct({ requests: amount, inputTokens: amount, outputTokens: amount, tokens: amount })

  it.prop("counts the tokens that a budget keeps", { estimate: amounts, usage: amounts }, ({ estimate, usage }) => {
    const held = Amounts.charge(estimate, Rules.resolve({ tokens: { perMinute: 1_000 } }))
    assert.strictEqual(settled(estimate, usage).used, Amounts.used(held, usage, estimate).tokens)
  })

  it("takes figures that make no sense for not said", () => {
    for (const bad of [NaN, -1, Infinity]) {
      assert.strictEqual(settled({ inputTokens: 100, outputTokens: 40 }, { inputTokens: bad, tokens: bad }).used, 140)
    }
  })
})
