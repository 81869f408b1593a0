import { describe } from "@effect/vitest"
import { commandLine } from "./commandLine.ts"
import { headers } from "./headers.ts"
import { quick } from "./kept.ts"
import { resumeFiles } from "./results.ts"
import { streams } from "./streams.ts"

describe("fuzz", () => {
  commandLine(quick)
  headers(quick)
  streams(quick)
  resumeFiles(quick)
})
