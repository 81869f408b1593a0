import { assert, describe, it } from "@effect/vitest"
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
})
