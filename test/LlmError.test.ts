import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Limits from "floodgate/Limits"
import { nothing } from "./support/budget.ts"
import * as LlmError from "floodgate/LlmError"

const wrap = (reason: LlmError.LlmErrorReason) => new LlmError.LlmError({ reason })

const refused: Limits.Usage = { requests: 1, inputTokens: 0, outputTokens: 0, tokens: 0 }
const unanswered: Limits.Usage = { requests: 1, outputTokens: 0 }
const received = (started: boolean): NonNullable<LlmError.LlmErrorReason["received"]> => ({
  usage: { requests: 1, inputTokens: 15, outputTokens: 4 },
  text: started ? "Hel" : "",
  started
})

/** For each reason: whether to retry, what the call used, and what the budget is told. */
const table: ReadonlyArray<[LlmError.LlmErrorReason, boolean, Limits.Usage, LlmError.LlmError["pushback"]]> = [
  [new LlmError.RateLimited({ status: 429 }), true, nothing, "rateLimit"],
  [new LlmError.RampLimited({ status: 429 }), true, nothing, "ramp"],
  [new LlmError.SpendLimited({ status: 429 }), false, nothing, undefined],
  [new LlmError.Overloaded({ status: 529 }), true, refused, "overload"],
  [new LlmError.ServerFailed({ status: 500 }), true, refused, "overload"],
  [new LlmError.TimedOut({ after: Duration.minutes(10) }), true, unanswered, "overload"],
  [new LlmError.ConnectionFailed({ sent: false }), true, nothing, "overload"],
  [new LlmError.ConnectionFailed({ sent: true }), true, unanswered, "overload"],
  [new LlmError.CircuitOpen({ pool: "default" }), true, nothing, undefined],
  [new LlmError.DeadlineMissed({ wait: Duration.zero, left: Duration.zero }), false, nothing, undefined],
  [new LlmError.InvalidRequest({ status: 409 }), true, refused, undefined],
  [new LlmError.InvalidRequest({ status: 400 }), false, refused, undefined],
  [new LlmError.InvalidRequest(), false, nothing, undefined],
  [new LlmError.AccessDenied({ status: 401 }), false, refused, undefined],
  [new LlmError.InvalidRequest({ status: 413 }), false, refused, undefined],
  [new LlmError.SpendLimited({ status: 402 }), false, nothing, undefined],
  [new LlmError.MalformedResponse({ status: 200 }), false, { requests: 1 }, undefined],
  [new LlmError.StreamInterrupted({ kind: "cut", received: received(false) }), true, received(false).usage, "overload"],
  [new LlmError.StreamInterrupted({ kind: "cut", received: received(true) }), false, received(true).usage, undefined]
]

describe("LlmError", () => {
  it("says for every reason whether to retry, what the call used and what the budget must judge", () => {
    for (const [reason, retryable, usage, pushback] of table) {
      const error = wrap(reason)
      assert.strictEqual(error.isRetryable, retryable, reason.message)
      assert.deepStrictEqual(error.usage, usage, reason.message)
      assert.strictEqual(error.pushback, pushback, reason.message)
      assert.strictEqual(error.cause, reason)
      assert.notInclude(error.message, "\n")
    }
  })

  it("settles to the observed usage and does not retry once content was passed on, whatever the reason", () => {
    for (const Reason of [LlmError.Overloaded, LlmError.RateLimited, LlmError.ServerFailed, LlmError.TimedOut]) {
      assert.isTrue(wrap(new Reason({ received: received(false) })).isRetryable)
      const error = wrap(new Reason({ received: received(true) }))
      assert.isFalse(error.isRetryable)
      assert.deepStrictEqual(error.usage, received(true).usage)
      if (Reason !== LlmError.RateLimited) assert.isUndefined(error.pushback)
    }
  })

  it("names the provider's words, the request and what the client did in one line, whatever the reason", () => {
    const said = { detail: "Too steep", requestId: "req_1", retryAfter: Duration.seconds(16) }
    for (const [{ _tag, ...reason }] of table) {
      const Reason = LlmError[_tag] as new (fields: object) => LlmError.LlmErrorReason
      const error = wrap(new Reason({ ...reason, ...said })).annotate({ attempts: 5, waited: Duration.seconds(30) })
      assert.notInclude(error.message, "\n")
      assert.include(error.message, "after 5 attempts, 30s waited")
      assert.strictEqual(error.requestId, "req_1")
      assert.deepStrictEqual(error.retryAfter, said.retryAfter)
      if (_tag === "DeadlineMissed") continue
      assert.include(error.message, "(Too steep)")
      assert.include(error.message, "[req_1]")
    }
  })

  it("survives JSON encoding and decoding", () => {
    const codec = Schema.toCodecJson(LlmError.LlmError)
    const error = new LlmError.LlmError({
      reason: new LlmError.RateLimited({
        status: 429,
        retryAfter: Duration.seconds(16),
        signal: { dimensions: { inputTokens: { limit: 200_000, remaining: 0, roundedTo: 1_000 } } }
      }),
      attempts: 3
    })
    const copy = Schema.decodeUnknownSync(codec)(JSON.parse(JSON.stringify(Schema.encodeSync(codec)(error))))
    assert.isTrue(copy instanceof LlmError.LlmError)
    assert.strictEqual(copy.message, error.message)
    assert.deepStrictEqual(copy.signal, error.signal)
    assert.deepStrictEqual(copy.retryAfter, error.retryAfter)
  })

  it.effect("is caught by its reason", () =>
    Effect.gen(function* () {
      const failed: Effect.Effect<never, LlmError.LlmError> = Effect.fail(
        wrap(new LlmError.StreamInterrupted({ kind: "stalled", received: received(true) }))
      )
      const partial = yield* Effect.catchReason(failed, "LlmError", "StreamInterrupted", (reason) =>
        Effect.succeed(reason.received.text)
      )
      assert.strictEqual(partial, "Hel")
    })
  )

  it("tells durations without more digits than they need", () => {
    const error = wrap(new LlmError.Overloaded({ status: 529 }))
    for (const [millis, text] of [
      [69_540.431, "1m 10s"],
      [2_436.7, "2.4s"],
      [250.4, "250ms"],
      [5_000, "5s"],
      [59_999, "1m"],
      [7_325_000, "2h 2m"],
      [86_400_000, "1d"]
    ] as const) {
      assert.include(error.annotate({ waited: Duration.millis(millis) }).message, `(after ${text} waited)`)
    }
  })

  describe("annotate", () => {
    it("adds what the client knows, and keeps what was known", () => {
      const error = wrap(new LlmError.Overloaded({ status: 529 }))
      const once = error.annotate({ attempts: 5, waited: Duration.seconds(30) })
      const twice = once.annotate({ stoppedBy: "deadline" })
      assert.strictEqual(twice.reason, error.reason)
      assert.strictEqual(twice.attempts, 5)
      assert.strictEqual(twice.stoppedBy, "deadline")
      assert.isTrue(twice.isRetryable, "the failure is what it was")
    })
  })
})
