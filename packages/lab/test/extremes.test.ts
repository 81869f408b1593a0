import { assert, describe, it } from "@effect/vitest"
import { largest, smallest } from "../src/extremes.ts"

describe("extremes", () => {
  it("are found among as many values as a scenario may have agents", () => {
    const values = Array.from({ length: 1_000_000 }, (_, index) => index)
    assert.strictEqual(largest(values), 999_999)
    assert.strictEqual(smallest(values), 0)
    assert.strictEqual(largest([], 0), 0)
    assert.strictEqual(smallest([]), Infinity)
  })
})
