/** Absurd states in a store: every number of a state with every absurd value, two thousand in all. */
import { assert, describe, it } from "@effect/vitest"
import * as Absurd from "./absurd.ts"

describe("an absurd state", () => {
  it("stops no process for longer than it is stored, whichever number it has", () => {
    const wrong: Array<string> = []
    for (let from = 0; from < Absurd.poisons.length; from += 20) {
      wrong.push(...Absurd.outcome(Absurd.poisons.slice(from, from + 20)))
    }
    assert.deepStrictEqual(wrong, [])
  })
})
