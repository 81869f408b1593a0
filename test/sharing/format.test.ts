/** The form in which a state is stored. Processes of 0.3 share pools with those of this version, so both must read both. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import * as State from "../../src/sharing/state.ts"
import * as Text from "../../src/sharing/text.ts"

/** A state that 0.3.0 has stored: two processes with calls in flight, a waiting call, a sliding window and a quota. */
const stored = JSON.parse(readFileSync(new URL("state-0.3.json", import.meta.url), "utf8"))

describe("A stored state", () => {
  it("is under the same key as in 0.3", () => {
    assert.strictEqual(State.keyOf("default"), "11:default")
  })

  it("is read as 0.3 wrote it, and written so that 0.3 reads it", () => {
    // 0.3 ignores properties that it does not know.
    const { law, ...rest } = JSON.parse(Text.encode(Text.decode(JSON.stringify(stored))))
    const { refused, ...known } = law
    assert.deepStrictEqual({ ...rest, law: known }, stored)
    assert.strictEqual(refused, 0)
  })

  it("puts no process into degraded mode, whatever it holds", () => {
    const degraded = { of: 1e-9, open: [] }
    assert.isUndefined(Text.decode(JSON.stringify({ ...stored, degraded })).degraded)
  })
})
