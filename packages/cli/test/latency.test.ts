import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Forecast from "floodgate/Forecast"
import * as Latency from "../src/latency.ts"

describe("the usual latency", () => {
  it("is the default of the library", () => {
    for (const call of [
      { inputTokens: 100_000, outputTokens: 0 },
      { inputTokens: 0, outputTokens: 300 }
    ]) {
      const { duration } = Forecast.make([{ name: "one", calls: [call] }], { limits: {} })
      assert.strictEqual(Duration.toMillis(duration), Latency.millisOf(Latency.usual, call))
    }
  })
})
