import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import type * as Limits from "floodgate/Limits"
import * as Amounts from "../../src/limits/amounts.ts"
import * as Counter from "../../src/agents/counter.ts"
import * as Rules from "../../src/limits/rules.ts"

/** The tokens that are counted for a call after it has ended. */
const tokensOf = (estimate: Limits.Estimate, usage: Limits.Usage) =>
  Counter.actual(Counter.estimated(estimate), usage, estimate).tokens

describe("counter", () => {
  const amount = Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1e9 })))
  const amounts = Schema.Struct({ requests: amount, inputTokens: amount, outputTokens: amount, tokens: amount })

  it.prop("counts the tokens that a budget keeps", { estimate: amounts, usage: amounts }, ({ estimate, usage }) => {
    const held = Amounts.charge(estimate, Rules.resolve({ tokens: { perMinute: 1_000 } }))
    assert.strictEqual(tokensOf(estimate, usage), Amounts.used(held, usage, estimate).tokens)
  })

  it("keeps the estimate where a usage is not a number of tokens", () => {
    for (const bad of [NaN, -1, Infinity]) {
      assert.strictEqual(tokensOf({ inputTokens: 100, outputTokens: 40 }, { inputTokens: bad, tokens: bad }), 140)
    }
  })

  const counter = Schema.Struct({
    tokens: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 20 })),
    calls: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 20 }))
  })

  it.prop(
    "refuses a call exactly when it would exceed the cap",
    { used: counter, asked: counter, cap: counter },
    ({ asked, cap, used }) => {
      const after = Counter.replace(used, Counter.zero, asked)
      const excess = Counter.excess(used, cap, asked)
      assert.strictEqual(excess !== undefined, after.tokens > cap.tokens || after.calls > cap.calls)
      if (excess === undefined) return
      assert.strictEqual(excess.left, Math.max(0, cap[excess.unit] - used[excess.unit]))
    }
  )
})
