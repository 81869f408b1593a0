import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import { logged, waiting } from "../../support/logged.ts"

describe("the log of a floodgate", () => {
  afterEach(() => {
    vi.unstubAllEnvs()
  })

  it("is off, also by a variable that says nothing", async () => {
    assert.deepStrictEqual(await logged({}, false), { errors: [], output: [] })
    vi.stubEnv("FLOODGATE_LOG", "perhaps")
    assert.deepStrictEqual(await logged({}, false), { errors: [], output: [] })
  })

  it("is written if the environment asks for it, unless the program decides", async () => {
    vi.stubEnv("FLOODGATE_LOG", "1")
    assert.deepStrictEqual(await logged({}, true), { errors: [waiting], output: [] })
    assert.deepStrictEqual(await logged({ log: false }, false), { errors: [], output: [] })
  })

  it("is written to standard error, a line a change", async () => {
    assert.deepStrictEqual(await logged({ log: true }, true), { errors: [waiting], output: [] })
  })
})
