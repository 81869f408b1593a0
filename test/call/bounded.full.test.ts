/** Law 14: the accounts and agents that a process remembers are bounded, and none in use is forgotten. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Crowd from "../support/crowd.ts"
import { sized } from "../support/size.ts"

describe("a process with many accounts and agents", () => {
  it.live("keeps no more after many calls than after a few thousand, and all that have running calls", () =>
    Effect.gen(function* () {
      const of = sized(
        { accounts: 2_000, busy: 100, calls: 2_600, maxPools: 10_000, every: 1_300 },
        { accounts: 20_000, busy: 400, calls: 20_000, maxPools: 10_000, every: 5_000 }
      )
      const { failed, looks, refused } = yield* Crowd.run(of)
      assert.deepStrictEqual([failed, refused.length], [0, 0])
      for (const { lost, pools, series } of looks) {
        assert.strictEqual(lost, 0)
        // A thousand idle ones, that without an account, and for a moment those in use.
        assert.isAtMost(pools, 1_001 + of.busy)
        assert.isAtMost(series, looks[0]!.series)
      }
    })
  )

  it.live("refuses names beyond the maximum, and forgets none of the others", () =>
    Effect.gen(function* () {
      const of = { accounts: 1_000, busy: 300, calls: 1_000, maxPools: 200, every: 500 }
      const { failed, looks, refused } = yield* Crowd.run(of)
      assert.deepStrictEqual(new Set(refused), new Set(["TooManyPools"]))
      assert.strictEqual(refused.length, 100)
      assert.strictEqual(failed, 1_000)
      for (const { lost, pools } of looks) assert.deepStrictEqual([lost, pools], [0, 201])
    })
  )
})
