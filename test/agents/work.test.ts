import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import * as Work from "../../src/agents/work.ts"

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
