import { assert, describe, it } from "@effect/vitest"
import { logged, waiting } from "../support/logged.ts"

describe("the log of a floodgate", () => {
  it("is off", async () => {
    assert.deepStrictEqual(await logged({}, false), { errors: [], output: [] })
  })

  it("is written to standard error, a line a change", async () => {
    assert.deepStrictEqual(await logged({ log: true }, true), { errors: [waiting], output: [] })
  })
})
