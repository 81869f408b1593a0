import { describe } from "@effect/vitest"
import { long } from "../../../../test/fuzz/kept.ts"
import { commandLine } from "./commandLine.ts"
import { resumeFiles } from "./results.ts"

describe("fuzz", () => {
  commandLine(long)
  resumeFiles(long)
})
