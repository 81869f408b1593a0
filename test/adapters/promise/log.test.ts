import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import { logged, waiting } from "../../support/logged.ts"

describe("the log of a floodgate", () => {
  afterEach(() => {
    vi.unstubAllEnvs()
  })

  it("is off by default, and with an invalid variable", async () => {
    assert.deepStrictEqual(await logged({}, false), { errors: [], output: [] })
    vi.stubEnv("FLOODGATE_LOG", "perhaps")
    assert.deepStrictEqual(await logged({}, false), { errors: [], output: [] })
  })

  it("is on if the environment says so, unless the program decides", async () => {
    vi.stubEnv("FLOODGATE_LOG", "1")
    assert.deepStrictEqual(await logged({}, true), { errors: [waiting], output: [] })
    assert.deepStrictEqual(await logged({ log: false }, false), { errors: [], output: [] })
  })

  it("is written to standard error, one line for each change", async () => {
    assert.deepStrictEqual(await logged({ log: true }, true), { errors: [waiting], output: [] })
  })
})
