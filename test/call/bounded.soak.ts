import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import * as Crowd from "../support/crowd.ts"

// A tenth of what `npm run -s bench -- memory` measures: a million calls of 200,000 accounts.

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

const heap = Effect.promise(async () => {
  for (let i = 0; i < 3; i++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
  return process.memoryUsage().heapUsed
})

it.live("memory stays flat over 100,000 calls of 20,000 accounts, a tenth of them busy", () =>
  Effect.gen(function* () {
    const of = { accounts: 20_000, busy: 2_000, calls: 100_000, maxPools: 10_000, every: 20_000 }
    const { failed, looks, refused } = yield* Crowd.run(of, heap)
    assert.deepStrictEqual([failed, refused.length], [0, 0])
    const [, first] = looks
    for (const { heap, lost, pools } of looks.slice(1)) {
      assert.strictEqual(lost, 0)
      assert.isAtMost(pools, first!.pools * 1.05)
      assert.isAtMost(heap, first!.heap * 1.1)
    }
  })
)
