/** Aborted calls leave no permit and no place in the queue taken. `aborts.soak.ts` aborts 10,000. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { abort } from "../support/callHistory.ts"

describe("calls that are aborted at random steps", () => {
  for (const onlyEffect of [false, true]) {
    it.live(`leave nothing held${onlyEffect ? ", through Effect" : ""}`, () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* abort(400, 1, onlyEffect), { inFlight: 0, queued: 0 })
      })
    )
  }
})
