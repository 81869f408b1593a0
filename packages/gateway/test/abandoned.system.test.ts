import { it } from "@effect/vitest"
import { nothingIsHeld } from "./abandoned.ts"

for (const inEffect of [false, true]) {
  const how = inEffect ? "all through Effect" : "driven by their transport"
  it.live(`requests that are abandoned at random leave nothing: ${how}`, () => nothingIsHeld(150, 7, inEffect))
}
