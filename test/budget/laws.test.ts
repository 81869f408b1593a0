/** The laws of the budget over random histories, each judged by sums over what callers see. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Budget from "floodgate/Budget"
import { laws } from "../support/laws.ts"

describe("Budget", () => {
  for (const [name, law] of Object.entries(laws)) {
    it.effect(`${name}`, () => Effect.map(law(Budget.make), (result) => assert.isUndefined(result)))
  }
})
