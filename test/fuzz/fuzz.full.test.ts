import { describe } from "@effect/vitest"
import { headers } from "./headers.ts"
import { quick } from "./kept.ts"
import { streams } from "./streams.ts"

describe("fuzz", () => {
  headers(quick)
  streams(quick)
})
