import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { abort } from "../support/callHistory.ts"

for (const onlyEffect of [false, true]) {
  it.live(
    `10,000 calls that are aborted at random steps leave nothing held${onlyEffect ? ", through Effect" : ""}`,
    () =>
      Effect.gen(function* () {
        for (let seed = 1; seed <= 10; seed++) {
          assert.deepStrictEqual(yield* abort(1_000, seed, onlyEffect), { inFlight: 0, queued: 0 }, `seed ${seed}`)
        }
      })
  )
}
