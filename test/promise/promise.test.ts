import { assert, describe, it } from "@effect/vitest"
import * as Floodgate from "floodgate/promise"

describe("floodgate/promise", () => {
  it("runs", async () => {
    const floodgate = Floodgate.create({ limits: { tokens: { perMinute: 200_000 } } })
    assert.strictEqual(await floodgate.run({ model: "my-model", inputTokens: 900 }, async () => "Hello"), "Hello")
    assert.match(await floodgate.metrics(), /floodgate_calls\{/)
    await floodgate.dispose()
  })
})
