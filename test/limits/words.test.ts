import { assert, describe, it } from "@effect/vitest"
import * as Words from "../../src/limits/words.ts"

describe("words", () => {
  it("counts one as one, and separates thousands", () => {
    assert.strictEqual(Words.counted(1, "request"), "1 request")
    assert.strictEqual(Words.counted(0, "request"), "0 requests")
    assert.strictEqual(Words.counted(1_234_567, "token"), "1,234,567 tokens")
    assert.strictEqual(Words.counted(1, "caller waits", "callers wait"), "1 caller waits")
    assert.strictEqual(Words.counted(2, "caller waits", "callers wait"), "2 callers wait")
    assert.strictEqual(Words.counted(0.5, "request"), "0.5 requests")
  })
})
