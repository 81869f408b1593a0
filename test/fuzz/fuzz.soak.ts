import { describe } from "@effect/vitest"
import { headers } from "./headers.ts"
import { long } from "./kept.ts"
import { streams } from "./streams.ts"

describe("fuzz", () => {
  headers(long)
  streams(long)
})
