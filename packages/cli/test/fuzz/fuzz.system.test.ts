import { describe } from "@effect/vitest"
import { quick } from "../../../../test/fuzz/kept.ts"
import { commandLine } from "./commandLine.ts"
import { resumeFiles } from "./results.ts"

describe("fuzz", () => {
  commandLine(quick)
  resumeFiles(quick)
})
