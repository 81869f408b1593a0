import { assert, describe, it } from "@effect/vitest"
import { APIConnectionError, APIError } from "openai"
import * as Duration from "effect/Duration"
import * as Signals from "floodgate/Signals"

describe("Signals", () => {
  it("reads a Headers object, whatever the case of its names", () => {
    const headers = new Headers({ "Anthropic-Ratelimit-Input-Tokens-Remaining": "5000" })
    assert.strictEqual(Signals.fromHeaders(headers, 0)?.dimensions.inputTokens?.remaining, 5_000)
  })

  it("reads a record, and joins a header that came several times", () => {
    const headers = { ratelimit: ['"a";r=50;t=30', '"b";r=3;t=1'], "ratelimit-policy": undefined }
    assert.strictEqual(Signals.fromHeaders(headers, 0)?.dimensions.requests?.remaining, 50)
  })

  it("does not look up the prototype of a record", () => {
    assert.isUndefined(Signals.fromHeaders(Object.create({ "x-ratelimit-remaining-tokens": "1" }), 0))
  })

  it("takes a record with a header named get for a record", () => {
    assert.deepStrictEqual(Signals.retryAfter({ get: "x", "retry-after-ms": "1500" }, 0), Duration.millis(1_500))
  })

  it("measures a date from the response's own clock", () => {
    const headers = { date: "Tue, 24 Nov 2026 10:00:00 GMT", "retry-after": "Tue, 24 Nov 2026 10:00:20 GMT" }
    assert.deepStrictEqual(Signals.retryAfter(headers, 0), Duration.seconds(20))
  })

  describe("fromError", () => {
    it("reads what openai throws", () => {
      const headers = new Headers({ "retry-after-ms": "250", "x-ratelimit-remaining-tokens": "12" })
      const error = { code: "rate_limit_exceeded", type: "tokens", message: "Rate limit reached" }
      const limited = Signals.fromError(APIError.generate(429, { error }, undefined, headers), 0)
      assert.strictEqual(limited.reason._tag, "RateLimited")
      assert.deepStrictEqual(limited.retryAfter, Duration.millis(250))
      assert.strictEqual(limited.signal?.dimensions.tokens?.remaining, 12)

      const spent = { code: "credit_balance_exhausted", type: "insufficient_quota" }
      const over = Signals.fromError(APIError.generate(429, { error: spent }, undefined, new Headers()), 0)
      assert.deepStrictEqual([over.reason._tag, over.isRetryable], ["SpendLimited", false])

      const busy = APIError.generate(503, { error: { code: "server_is_overloaded" } }, undefined, new Headers())
      assert.strictEqual(Signals.fromError(busy, 0).pushback, "overload")
    })

    it("knows a connection that was never made", () => {
      const cause = Object.assign(new Error("connect"), { code: "ECONNREFUSED" })
      const error = Signals.fromError(new APIConnectionError({ cause }), 0)
      assert.deepStrictEqual(
        [error.reason._tag, error.isRetryable, error.usage.requests],
        ["ConnectionFailed", true, 0]
      )
    })
  })
})
