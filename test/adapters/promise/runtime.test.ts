import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import * as Budget from "floodgate/Budget"
import * as Floodgate from "floodgate/promise"

describe("an old runtime", () => {
  afterEach(() => {
    vi.unstubAllGlobals()
  })

  it("is refused in one sentence when a floodgate or a budget is made", () => {
    const says = "Floodgate needs Node 22.19 or newer; this is Node 20.11.1: https://nodejs.org"
    vi.stubGlobal("process", { versions: { node: "20.11.1" } })
    assert.throws(() => Floodgate.create(), says)
    assert.throws(() => Budget.make(), says)
    vi.stubGlobal("process", { versions: { node: "22.18.0" } })
    assert.throws(() => Floodgate.create(), "this is Node 22.18.0")
  })

  it("is not refused if it is new enough, or not Node", () => {
    for (const versions of [
      { node: "22.19.0" },
      { node: "24.0.0" },
      { node: "20.11.1", bun: "1.3.0" },
      { node: "20.11.1", deno: "2.6.0" },
      {}
    ]) {
      vi.stubGlobal("process", { versions })
      assert.doesNotThrow(() => Budget.make())
    }
  })
})
