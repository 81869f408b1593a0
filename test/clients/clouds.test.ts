/** Bedrock and Vertex AI as places of `LlmClient`; see clouds.ts. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { join } from "node:path"

describe("clouds as places", () => {
  it("answer whole and in streams by the names of the model there, and take each other's calls", () => {
    const file = join(import.meta.dirname, "clouds.ts")
    const printed = execFileSync(process.execPath, ["--conditions=@floodgate/source", file], { encoding: "utf8" })
    const { streamed, streamedMoved, whole, wholeMoved } = JSON.parse(printed)
    for (const { bedrock, pools, text, vertex } of [whole, streamed]) {
      assert.isAbove(text.length, 5)
      assert.deepStrictEqual([bedrock, vertex], [["anthropic.claude-sonnet-5-v1:0"], []])
      assert.deepStrictEqual(pools, ["bedrock/sonnet-5", "vertex/sonnet-5"])
    }
    for (const { bedrock, text, vertex } of [wholeMoved, streamedMoved]) {
      assert.isAbove(text.length, 5)
      assert.deepStrictEqual([bedrock.length, vertex], [1, ["claude-sonnet-5@20260901"]])
    }
  })
})
