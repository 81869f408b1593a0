import { describe } from "@effect/vitest"
import { commandLine } from "./commandLine.ts"
import { headers } from "./headers.ts"
import { long } from "./kept.ts"
import { resumeFiles } from "./results.ts"
import { streams } from "./streams.ts"

describe("fuzz", () => {
  commandLine(long)
  headers(long)
  streams(long)
  resumeFiles(long)
})
