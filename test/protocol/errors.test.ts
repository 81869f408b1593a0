import { assert, describe, it } from "@effect/vitest"
import { type Protocol, protocols } from "floodgate/protocol"
import { LlmError } from "floodgate/LlmError"
import { fromResponse } from "../../src/protocol/sdkErrors.ts"
import type { Failure } from "../../src/protocol/errors.ts"

const { anthropic, gemini, openaiChat, openaiResponses } = protocols

/** 24 Nov 2026, 12:00:00 UTC. */
const now = Date.UTC(2026, 10, 24, 12)

const failureOf = (
  protocol: Protocol,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
  secret?: string
): Failure =>
  protocol.failure(
    { status, header: (name) => headers[name], body: typeof body === "string" ? body : JSON.stringify(body) },
    { now, secret }
  )

const anthropicError = (type: string, error_code?: string) => ({
  type: "error",
  error: { type, message: "Something is wrong", details: error_code === undefined ? null : { error_code } },
  request_id: "req_1"
})
const openaiError = (type: string | null, code: string | null) => ({
  error: { message: "Something is wrong", type, param: null, code }
})
const googleError = (code: number, status: string) => ({ error: { code, message: "Something is wrong", status } })

describe("failures", () => {
  it.each<[number, string, string | undefined, Failure["reason"]]>([
    [400, "invalid_request_error", undefined, "InvalidRequest"],
    [400, "invalid_request_error", "thread_already_continued", "InvalidRequest"],
    [401, "authentication_error", undefined, "AccessDenied"],
    [402, "billing_error", "linked_organization_billing_unavailable", "SpendLimited"],
    [402, "billing_error", "linked_organization_spend_limit_reached", "SpendLimited"],
    [403, "permission_error", undefined, "AccessDenied"],
    [404, "not_found_error", undefined, "InvalidRequest"],
    [409, "conflict_error", undefined, "InvalidRequest"],
    [413, "request_too_large", undefined, "InvalidRequest"],
    [429, "rate_limit_error", undefined, "RateLimited"],
    [429, "rate_limit_error", "ramp_limit_exceeded", "RampLimited"],
    [429, "rate_limit_error", "enforced_spend_limit_reached", "SpendLimited"],
    [429, "rate_limit_error", "contract_spend_limit_reached", "SpendLimited"],
    [500, "api_error", undefined, "ServerFailed"],
    [503, "api_error", undefined, "Overloaded"],
    [503, "api_error", "cmek_key_unreachable", "ServerFailed"],
    [504, "timeout_error", undefined, "TimedOut"],
    [529, "overloaded_error", undefined, "Overloaded"],
    [529, "overloaded_error", "compaction_unavailable", "Overloaded"]
  ])("of Anthropic: %s %s %s is %s", (status, type, code, reason) => {
    assert.deepInclude(failureOf(anthropic, status, anthropicError(type, code)), {
      reason,
      status,
      code: code ?? type,
      detail: "Something is wrong"
    })
  })

  it.each<[number, string | null, string | null, Failure["reason"]]>([
    [400, "invalid_request_error", "context_length_exceeded", "InvalidRequest"],
    [401, "invalid_request_error", "invalid_api_key", "AccessDenied"],
    [403, "invalid_request_error", "unsupported_country_region_territory", "AccessDenied"],
    [413, "tokens", "rate_limit_exceeded", "InvalidRequest"],
    [422, "invalid_request_error", null, "InvalidRequest"],
    [429, "tokens", "rate_limit_exceeded", "RateLimited"],
    [429, "rate_limit_error", "slow_down", "RampLimited"],
    [503, "rate_limit_error", "slow_down", "RampLimited"],
    [429, "insufficient_quota", "insufficient_quota", "SpendLimited"],
    [429, "insufficient_quota", "credit_balance_exhausted", "SpendLimited"],
    [429, "insufficient_quota", "organization_spend_limit_exceeded", "SpendLimited"],
    [429, "insufficient_quota", "project_spend_limit_exceeded", "SpendLimited"],
    [429, "insufficient_quota", "organization_usage_limit_exceeded", "SpendLimited"],
    [429, "insufficient_quota", "of_tomorrow", "SpendLimited"],
    // LiteLLM as an upstream.
    [400, "budget_exceeded", "400", "SpendLimited"],
    [429, "budget_exceeded", "429", "SpendLimited"],
    [429, null, "resource_unavailable", "TierFull"],
    [498, null, "capacity_exceeded", "TierFull"],
    [500, "server_error", null, "ServerFailed"],
    [503, "service_unavailable_error", "server_is_overloaded", "Overloaded"]
  ])("of OpenAI and compatible services: %s %s %s is %s", (status, type, code, reason) => {
    for (const protocol of [openaiChat, openaiResponses]) {
      assert.deepInclude(failureOf(protocol, status, openaiError(type, code)), { reason, status })
    }
  })

  it.each<[number, string, Failure["reason"]]>([
    [400, "INVALID_ARGUMENT", "InvalidRequest"],
    [402, "FAILED_PRECONDITION", "SpendLimited"],
    [403, "PERMISSION_DENIED", "AccessDenied"],
    [404, "NOT_FOUND", "InvalidRequest"],
    [429, "RESOURCE_EXHAUSTED", "RateLimited"],
    [500, "INTERNAL", "ServerFailed"],
    [503, "UNAVAILABLE", "Overloaded"],
    [504, "DEADLINE_EXCEEDED", "TimedOut"]
  ])("of Google: %s %s is %s, within a stream as well", (status, name, reason) => {
    assert.deepInclude(failureOf(gemini, status, googleError(status, name)), { reason, code: name })
    assert.deepInclude(failureOf(gemini, 200, googleError(status, name)), { reason, status: 200 })
    assert.deepInclude(failureOf(gemini, 200, { error: { status: name, message: "no" } }), {
      reason: reason === "SpendLimited" ? "InvalidRequest" : reason
    })
  })

  it("of a proxy are judged by the status, and their markup is not repeated", () => {
    assert.deepInclude(failureOf(anthropic, 413, "<html>Request Entity Too Large</html>"), {
      reason: "InvalidRequest",
      detail: undefined
    })
    assert.deepInclude(failureOf(openaiChat, 502, "Bad gateway"), { reason: "ServerFailed", detail: "Bad gateway" })
    assert.deepInclude(failureOf(openaiChat, 302, ""), { reason: "InvalidRequest" })
    assert.deepInclude(failureOf(openaiChat, 418, "teapot"), { reason: "InvalidRequest" })
  })

  it("ignore the wording: Scaleway calls a limit per minute a quota", () => {
    // https://github.com/LibreChat-AI/agents/issues/358
    assert.deepInclude(failureOf(openaiChat, 429, { error: "INSUFFICIENT QUOTA" }), {
      reason: "RateLimited",
      detail: "INSUFFICIENT QUOTA"
    })
  })

  it("carry the wait, the request id, and whether a retry helps", () => {
    const headers = { "retry-after": "16", "request-id": "req_1", "x-should-retry": "false" }
    assert.deepInclude(failureOf(anthropic, 429, anthropicError("rate_limit_error"), headers), {
      retryAfterMillis: 16_000,
      requestId: "req_1",
      shouldRetry: false
    })
    assert.deepInclude(failureOf(anthropic, 429, "", { "retry-after": "86400", "x-should-retry": "true" }), {
      retryAfterMillis: 3_600_000,
      shouldRetry: undefined
    })
    assert.strictEqual(failureOf(openaiChat, 500, "", { "apim-request-id": "r" }).requestId, "r")
  })

  it("name the end of a monthly spend limit by the provider's clock", () => {
    const spent = anthropicError("rate_limit_error", "enforced_spend_limit_reached")
    assert.strictEqual(failureOf(anthropic, 429, spent).resumesAt, Date.UTC(2026, 11, 1))
    const date = "Thu, 31 Dec 2026 23:59:59 GMT"
    assert.strictEqual(failureOf(anthropic, 429, spent, { date }).resumesAt, Date.UTC(2027, 0, 1))
    assert.isUndefined(
      failureOf(anthropic, 429, anthropicError("rate_limit_error", "contract_spend_limit_reached")).resumesAt
    )
  })

  it("are spend limits if a rate limit asks to wait for days, and name the time", () => {
    const rejection = anthropicError("rate_limit_error")
    const after = (millis: number) => failureOf(anthropic, 429, rejection, { "retry-after-ms": String(millis) })
    const days = 9.5 * 86_400_000
    assert.deepInclude(after(days), { reason: "SpendLimited", resumesAt: now + days })
    assert.deepInclude(failureOf(openaiChat, 429, "", { "retry-after": "172800" }), {
      reason: "SpendLimited",
      resumesAt: now + 172_800_000
    })
    // The windows of subscriptions are 5 hours long.
    assert.deepInclude(after(5 * 3_600_000), {
      reason: "RateLimited",
      retryAfterMillis: 3_600_000,
      resumesAt: undefined
    })
    assert.deepInclude(after(6 * 3_600_000), { reason: "RateLimited" })
    assert.deepInclude(after(6 * 3_600_000 + 1), { reason: "SpendLimited" })
    // An overload is never a spend limit, however long it lasts.
    assert.deepInclude(failureOf(anthropic, 529, "", { "retry-after": "172800" }), { reason: "Overloaded" })
  })

  it("have the limits that the headers state, and never a secret", () => {
    const headers = { "x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": "0" }
    const { signal } = failureOf(openaiChat, 429, openaiError("tokens", "rate_limit_exceeded"), headers)
    assert.deepStrictEqual(signal?.dimensions.tokens, { limit: 1_000, remaining: 0, roundedTo: 1 })
    const words = "Incorrect API key sk-proj-abc_def, Bearer xyz, AIzaSyA1234567890abcdefghijklmnopqrstuv, own-secret"
    assert.strictEqual(
      failureOf(openaiChat, 401, { error: { message: words } }, {}, "own-secret").detail,
      "Incorrect API key <redacted>, <redacted> <redacted>, <redacted>"
    )
  })

  it("map to the reason of LlmError with the same name", () => {
    for (const [status, body] of [
      [400, anthropicError("invalid_request_error")],
      [429, anthropicError("rate_limit_error", "ramp_limit_exceeded")],
      [429, anthropicError("rate_limit_error", "enforced_spend_limit_reached")],
      [529, anthropicError("overloaded_error")],
      [302, ""]
    ] as const) {
      const text = JSON.stringify(body)
      const reason = fromResponse({ status, headers: { "retry-after": "16" }, body: text }, { now })
      const failure = failureOf(anthropic, status, text, { "retry-after": "16" })
      assert.deepInclude(reason, { _tag: failure.reason, status, code: failure.code, detail: failure.detail })
      assert.isString(new LlmError({ reason }).message)
    }
  })
})

describe("a window that Codex's account has spent", () => {
  const after = 13_872
  const at = now + after * 1_000
  const body = (more: object = { resets_at: at / 1_000, resets_in_seconds: after }) => ({
    error: { type: "usage_limit_reached", message: "The usage limit has been reached", plan_type: "plus", ...more }
  })
  const slot = (name: string, used: number, minutes: number, resetsAt: number) => ({
    [`x-codex-${name}-used-percent`]: String(used),
    [`x-codex-${name}-window-minutes`]: String(minutes),
    [`x-codex-${name}-reset-at`]: String(resetsAt / 1_000)
  })
  const days = now + 4 * 86_400_000
  const headers = { ...slot("primary", 100, 300, at + 1_000), ...slot("secondary", 80, 10_080, days) }

  it("is the one that begins again when the body says", () => {
    const { reason, retryAfterMillis, signal } = failureOf(openaiResponses, 429, body(), headers)
    assert.deepStrictEqual([reason, retryAfterMillis], ["RateLimited", 3_600_000])
    assert.deepStrictEqual(signal?.windows, {
      "5h": { used: 1, resetsAt: at + 1_000, isRejected: true },
      "7d": { used: 0.8, resetsAt: days }
    })
  })

  it("is a weekly one with the words and the wait of a spend limit", () => {
    const failure = failureOf(openaiResponses, 429, body({ resets_in_seconds: 4 * 86_400 }), headers)
    assert.deepInclude(failure, { reason: "SpendLimited", resumesAt: days })
    assert.deepInclude(failure.signal?.windows?.["7d"], { isRejected: true })
  })

  it("is the one that is used up if the body tells another time", () => {
    const { signal } = failureOf(openaiResponses, 429, body({ resets_in_seconds: 60 }), headers)
    assert.deepInclude(signal?.windows?.["5h"], { isRejected: true })
  })

  it.each([{ resets_at: at / 1_000 }, { resets_in_seconds: after }])("needs no header: %j", (more) =>
    assert.deepStrictEqual(failureOf(openaiResponses, 429, body(more)).signal, {
      dimensions: {},
      windows: { "usage limit": { used: 1, resetsAt: at, isRejected: true } }
    })
  )

  it("may be told within a stream", () => {
    const failure = failureOf(openaiResponses, 200, body())
    assert.strictEqual(failure.reason, "RateLimited")
    assert.isTrue(failure.signal?.windows?.["usage limit"]?.isRejected)
  })

  it.each([
    {},
    { resets_at: 1 },
    { resets_in_seconds: 0 },
    { resets_at: "soon", resets_in_seconds: -1 },
    { resets_at: 1e12 }
  ])("is a rate limit without a reset that can be believed: %j", (more) => {
    const { reason, retryAfterMillis, signal } = failureOf(openaiResponses, 429, body(more))
    assert.deepStrictEqual([reason, retryAfterMillis, signal], ["RateLimited", undefined, undefined])
  })
})
