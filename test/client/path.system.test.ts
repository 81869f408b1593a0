/** How much of the library one call runs through. A reader has to read this much to understand a call. */
import { assert, describe, it } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { join } from "node:path"
import { root } from "../support/modules.ts"

/**
 * Lower these when a call runs through less. An eighth of the functions reads the prompt part by part, and remembers its prefixes.
 * `npm run -s bench -- call --path` lists the files and functions. The line, the attempt and its settlement are files of their own.
 */
const max = { files: 60, functions: 345 }

describe("a warm LlmClient.create", () => {
  it("runs through at most so many files and functions of src, by V8's coverage", () => {
    const program = join(root, "benchmark/call.ts")
    const printed = execFileSync(process.execPath, ["--conditions=@floodgate/source", program, "--path"], {
      encoding: "utf8",
      // V8 counts the functions of compiled code that it loads from a cache less precisely.
      env: { ...process.env, NODE_COMPILE_CACHE: "" }
    })
    const { files, functions } = /path: (?<files>\d+) files, (?<functions>\d+) functions/.exec(printed)!.groups!
    assert.isAtLeast(Number(functions), 100, "the path was not measured")
    assert.isAtMost(Number(files), max.files, printed)
    assert.isAtMost(Number(functions), max.functions, printed)
  })
})
