import { it } from "@effect/vitest"
import { nothingIsLeft } from "./brokenOff.ts"

it.live("ten thousand streams that are broken off at random leave nothing", () => nothingIsLeft(10_000, 11), 600_000)
