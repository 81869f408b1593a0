import { assert, describe, it } from "@effect/vitest"
import * as Ledger from "../../src/internal/ledger.ts"

const options = { headroom: 0, ramp: undefined }

describe("ledger", () => {
  describe("observe", () => {
    it("does not count the answered call twice when it raises the level", () => {
      // A call of 15,000 tokens that was estimated at 22,000: the provider says what is left after 15,000.
      const limits = { inputTokens: { perSecond: 1, burst: 60_000 } }
      const charge = { inputTokens: 22_000 }
      const before = Ledger.make(limits, 0, options)
      const taken = Ledger.take(before, charge, 0)
      const answered = { id: 1, left: Ledger.leftOf(taken), output: 0, uncounted: 0, idle: true }
      const said = { dimensions: { inputTokens: { limit: 60, remaining: 45_000 } } }
      const observed = Ledger.observe(taken, said, answered, 0)
      const settled = Ledger.settle(observed, { id: 1, charge, takenAt: 0 } as Ledger.Held, { inputTokens: 15_000 }, 0)
      assert.strictEqual(settled.buckets.inputTokens!.level, 45_000)
    })
  })
})
