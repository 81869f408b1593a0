import { assert, describe, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Signals from "floodgate/Signals"
import type { LimitFigures } from "../../src/testing/engine.ts"
import * as Simulated from "../../src/testing/headers.ts"

const wall = { epochMillis: 1_764_000_000_250, scale: 1 }
const figures: LimitFigures = {
  requests: { limit: 1_000, left: 998.4, fullMillis: 96 },
  inputTokens: { limit: 2_000_000, left: 1_499_501, fullMillis: 15_015 },
  outputTokens: { limit: 400_000, left: -25, fullMillis: 60_004 }
}

describe("simulated headers", () => {
  it("are spelled as Anthropic's", () => {
    assert.deepStrictEqual(Simulated.rateLimits("rounded", figures, wall), {
      "anthropic-ratelimit-requests-limit": "1000",
      "anthropic-ratelimit-requests-remaining": "998",
      "anthropic-ratelimit-requests-reset": DateTime.formatIso(DateTime.makeUnsafe(1_764_000_001_000)).replace(
        ".000",
        ""
      ),
      "anthropic-ratelimit-input-tokens-limit": "2000000",
      "anthropic-ratelimit-input-tokens-remaining": "1500000",
      "anthropic-ratelimit-input-tokens-reset": "2025-11-24T16:00:16Z",
      "anthropic-ratelimit-output-tokens-limit": "400000",
      "anthropic-ratelimit-output-tokens-remaining": "0",
      "anthropic-ratelimit-output-tokens-reset": "2025-11-24T16:01:01Z",
      "anthropic-ratelimit-tokens-limit": "2400000",
      "anthropic-ratelimit-tokens-remaining": "1500000",
      "anthropic-ratelimit-tokens-reset": "2025-11-24T16:00:16Z"
    })
  })

  it("are read by the library as the simulation's signal", () => {
    for (const mode of ["rounded", "openai", "none"] as const) {
      const told = Simulated.signal(mode, figures, [], wall)
      assert.deepStrictEqual(Signals.fromHeaders(Simulated.rateLimits(mode, figures, wall)), told, mode)
    }
  })

  it("ask to wait in whole seconds, rounded up, or in fractions if time is scaled", () => {
    assert.deepStrictEqual(Simulated.retryAfter("rounded", 15_001, wall), { "retry-after": "16" })
    assert.deepStrictEqual(Simulated.retryAfter("rounded", 15_000, wall), { "retry-after": "15" })
    assert.deepStrictEqual(Simulated.retryAfter("exact", 250, wall), { "retry-after": "0.25", "retry-after-ms": "250" })
    assert.deepStrictEqual(Simulated.retryAfter("rounded", 15_000, { ...wall, scale: 60 }), {
      "retry-after": "0.25",
      "retry-after-ms": "250"
    })
    assert.deepStrictEqual(Simulated.retryAfter("none", 250, wall), {})
    assert.deepStrictEqual(Simulated.retryAfter("wrong", 90_000, wall), { "retry-after": "1" })
    assert.deepStrictEqual(Simulated.retryAfter("rounded", undefined, wall), {})
  })

  it("state limits per minute of the caller's time", () => {
    const headers = Simulated.rateLimits("rounded", figures, { ...wall, scale: 10 })
    assert.strictEqual(headers["anthropic-ratelimit-requests-limit"], "10000")
    assert.strictEqual(headers["anthropic-ratelimit-input-tokens-reset"], "2025-11-24T16:00:02Z")
  })
})
