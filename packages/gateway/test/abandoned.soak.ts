import { it } from "@effect/vitest"
import { nothingIsHeld } from "./abandoned.ts"

for (const inEffect of [false, true]) {
  const how = inEffect ? "all through Effect" : "driven by their transport"
  it.live(
    `10,000 requests that are abandoned at random leave nothing: ${how}`,
    () => nothingIsHeld(10_000, 7, inEffect),
    900_000
  )
}
