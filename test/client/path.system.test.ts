/** How much of the library one call runs through. A reader has to read this much to understand a call. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { join } from "node:path"
import { root } from "../support/modules.ts"

/**
 * Lower these when a call runs through less. An eighth of the functions reads the prompt part by part, and remembers its prefixes.
 * Nine of them read whether an earlier answer bounds the cost of the prompt, which is known only once the prompt is read.
 * `npm run -s bench -- call --path` lists the files and functions, and counts the calls of functions and those from another file.
 */
const max = { files: 59, functions: 352, calls: 660, handOvers: 363 }

describe("a warm LlmClient.create", () => {
  it("runs through at most so much of src, by V8's coverage", () => {
    const program = join(root, "benchmark/call.ts")
    const printed = execFileSync(process.execPath, ["--conditions=@floodgate/source", program, "--path"], {
      encoding: "utf8",
      // V8 counts the functions of compiled code that it loads from a cache less precisely.
      env: { ...process.env, NODE_COMPILE_CACHE: "" }
    })
    const read = (what: string): number => Number(new RegExp(`([\\d.]+) ${what}`).exec(printed)![1])
    assert.isAtLeast(read("functions"), 100, "the path was not measured")
    assert.isAtLeast(read("hand-overs"), 50, "hand-overs were not counted")
    assert.isAtMost(read("files"), max.files, printed)
    assert.isAtMost(read("functions"), max.functions, printed)
    assert.isAtMost(read("calls"), max.calls, printed)
    assert.isAtMost(read("hand-overs"), max.handOvers, printed)
  })
})
