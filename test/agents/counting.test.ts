import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import type * as Limits from "floodgate/Limits"
import * as Amounts from "../../src/domain/amounts.ts"
import * as Counter from "../../src/agents/counter.ts"
import * as Rules from "../../src/domain/rules.ts"
import * as Work from "../../src/agents/work.ts"

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

const agents = (works: ReadonlyArray<number>): Work.Remaining => works.reduce(Work.add, Work.none)

describe("work", () => {
  const amount = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 }))

  it.prop(
    "gives the agents a mean weight of 1, in proportion to what each has left",
    { works: Schema.NonEmptyArray(amount), used: amount },
    ({ used, works: [first, ...others] }) => {
      const left = Work.left(first, used)
      const remaining = Work.update(agents([first, ...others]), first, left)
      const weights = [left, ...others].map((each) => Work.weight(remaining, each))
      const sum = weights.reduce((total, weight) => total + weight, 0)
      assert.closeTo(sum / weights.length, 1, 1e-9)
      weights.forEach((weight, index) => {
        assert.closeTo(weight * left, weights[0]! * [left, ...others][index]!, 1e-6)
      })
    }
  )

  it("keeps a tenth of an agent's weight when it uses more than it stated", () => {
    assert.strictEqual(Work.left(1_000, 900), 100)
    assert.strictEqual(Work.left(1_000, 5_000), 100)
  })

  it("shares among the others what an agent leaves when it ends", () => {
    const both = agents([300, 100])
    assert.strictEqual(Work.weight(both, 300), 1.5)
    assert.strictEqual(Work.weight(Work.remove(both, 300), 100), 1)
  })

  it("keeps weights within the bounds of a budget", () => {
    const remaining = agents([1, ...Array.from({ length: 5_000 }, () => 1e9)])
    assert.strictEqual(Work.weight(remaining, 1), 0.001)
    assert.strictEqual(Work.weight({ tokens: 1, agents: 5_000 }, 1e9), 1_000)
  })
})
