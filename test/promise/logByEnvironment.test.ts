import { assert, describe, it, vi } from "@effect/vitest"
import { logged, waiting } from "../support/logged.ts"

// Effect reads the environment once, so that this file has one for all of its tests.
vi.stubEnv("FLOODGATE_LOG", "1")

describe("the log of a floodgate that the environment asks for", () => {
  it("is written", async () => {
    assert.deepStrictEqual(await logged({}, true), { errors: [waiting], output: [] })
  })

  it("is off where the program says so", async () => {
    assert.deepStrictEqual(await logged({ log: false }, false), { errors: [], output: [] })
  })
})
