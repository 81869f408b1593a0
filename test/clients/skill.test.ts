/** The recipes of the skill for coding agents whose clients are installed here only. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { applied, inClients } from "../support/recipes.ts"

describe("the skill for coding agents", () => {
  for (const small of inClients) {
    it.live(`${small.recipe}: the call is counted by the budget`, () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* applied(small, import.meta.dirname), { seen: small.calls, counted: 1 })
      })
    )
  }
})
