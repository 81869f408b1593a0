import { assert, describe, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import * as Errors from "../../src/protocol/sdkErrors.ts"
import * as Limits from "floodgate/Limits"
import { nothing } from "../support/budget.ts"
import { sized } from "../support/size.ts"
import { LlmError } from "floodgate/LlmError"

// test/adapters/anthropic/provider.system.test.ts has what the SDK throws over real HTTP; this file has what a test server cannot cause.

const slow = '{"error":{"code":"too_fast","message":"Slow down"}}'

const thrown = (error: unknown, secret?: string) => Errors.fromThrown(error, { now: 0, secret })

/** A failed fetch as the SDK wraps it. */
const connection = (code: string) =>
  Object.assign(new Error("Connection error."), {
    name: "APIConnectionError",
    cause: Object.assign(new TypeError("fetch failed"), { cause: Object.assign(new Error(code), { code }) })
  })

describe("sdkErrors", () => {
  describe("fromThrown", () => {
    it.each([
      ["ECONNREFUSED", false],
      ["ENOTFOUND", false],
      ["EAI_AGAIN", false],
      ["ENETUNREACH", false],
      ["UND_ERR_CONNECT_TIMEOUT", false],
      ["DEPTH_ZERO_SELF_SIGNED_CERT", false],
      ["ERR_TLS_CERT_ALTNAME_INVALID", false],
      ["HOSTNAME_MISMATCH", false],
      ["EMFILE", false],
      ["ENOBUFS", false],
      ["EADDRINUSE", false],
      ["ECONNRESET", true],
      ["EPIPE", true],
      ["UND_ERR_SOCKET", true],
      ["ENOTCONN", true],
      ["ESHUTDOWN", true],
      ["ERR_SOCKET_CLOSED", true],
      ["ERR_STREAM_DESTROYED", true]
    ])("takes %s for a failed connection, sent: %s", (code, sent) => {
      const bare = Object.assign(new Error("no"), { code })
      for (const error of [connection(code), bare]) {
        assert.deepInclude(thrown(error), { _tag: "ConnectionFailed", sent, code })
      }
    })

    it("treats an SDK's failed connection as one, whatever its code", () => {
      assert.deepInclude(thrown(connection("OF_TOMORROW")), { _tag: "ConnectionFailed", sent: true })
    })

    it.each(["ETIMEDOUT", "ESOCKETTIMEDOUT", "ETIMEOUT", "ERR_SOCKET_CONNECTION_TIMEOUT"])(
      "treats %s as a timeout",
      (code) => {
        assert.deepInclude(thrown(Object.assign(new Error("no"), { code })), { _tag: "TimedOut", code })
      }
    )

    it("treats a request that was never sent as such, whatever error wraps it", () => {
      const cause = Object.assign(new Error(), { code: "ECONNREFUSED" })
      const error = Object.assign(new Error("cancelled", { cause }), { code: "ERR_HTTP2_STREAM_CANCEL" })
      assert.deepInclude(thrown(error), { _tag: "ConnectionFailed", sent: false })
    })

    it.each(["ENOENT", "EACCES", "ERR_ASSERTION", "SQLITE_CONSTRAINT", "UND_ERR_INVALID_ARG"])(
      "treats %s as a bug around the call, not as a network error",
      (code) => {
        assert.deepInclude(thrown(Object.assign(new Error("no"), { code })), { _tag: "InvalidRequest", code })
      }
    )

    it("prefers a network code to another code in front of it", () => {
      const cause = Object.assign(new Error("read"), { code: "ECONNRESET" })
      const error = Object.assign(new Error("no answer", { cause }), { code: "E_MINE" })
      assert.deepInclude(thrown(error), { _tag: "ConnectionFailed", sent: true, code: "ECONNRESET" })
    })

    it.each([
      [{ body: { error: { type: "authentication_error" } } }, "AccessDenied"],
      [{ responseBody: '{"error":{"type":"overloaded_error"}}' }, "Overloaded"],
      [{ response: { data: { error: { code: "insufficient_quota" } } } }, "SpendLimited"]
    ])("reads an answer without a status where it is found: %j", (error, tag) => {
      assert.strictEqual(thrown(error)._tag, tag)
    })

    // Regression: Groq's 413 for a request larger than the limit, which can never fit, was retried and paused all calls.
    it.each([
      [413, "InvalidRequest"],
      [401, "AccessDenied"],
      [429, "RateLimited"],
      [undefined, "RateLimited"]
    ])("leaves the code of a rate limit to the status, where there is one: %s", (status, tag) => {
      const error = { code: "rate_limit_exceeded", type: "tokens", message: "Request too large for tokens per minute" }
      assert.strictEqual(thrown({ ...(status !== undefined && { status }), error })._tag, tag)
    })

    it.each([
      ["tRPC", { data: { code: "UNAUTHORIZED", httpStatus: 401 } }],
      ["JSON-RPC", { code: -32602, data: { type: "params" } }],
      ["a schema", { data: { code: "too_short" } }],
      ["Zod", { message: '[{"code":"too_small","path":["answer"],"message":"Too small"}]' }],
      ["a service", { response: { data: { error: { code: "out_of_stock" } } } }]
    ])("takes what %s says of the user's own work for no word of the provider's", (_, fields) => {
      assert.strictEqual(thrown(Object.assign(new Error("no"), fields))._tag, "InvalidRequest")
    })

    it.each([
      [{ error: { type: "error", error: { type: "of_tomorrow" } } }, "of_tomorrow"],
      [{ error: { code: "of_tomorrow" } }, "of_tomorrow"],
      [{ body: { error: { type: "api_error" } } }, "api_error"]
    ])("takes an event of a stream for the provider's fault, whatever it is called: %j", (fields, code) => {
      assert.deepInclude(thrown(Object.assign(new Error("no"), fields)), { _tag: "ServerFailed", code })
    })

    it("assumes that a fetch that failed without a code was sent", () => {
      assert.deepInclude(thrown(Object.assign(new Error("?"), { name: "APIConnectionError" })), {
        _tag: "ConnectionFailed",
        sent: true
      })
    })

    it("treats missing credentials as not sent, and says why", () => {
      const lacks = (message: string, cause: Error) =>
        thrown(Object.assign(new Error(message), { name: "APIConnectionError", cause }))
      const nowhere = Object.assign(new Error("Could not load credentials from any providers"), {
        name: "CredentialsProviderError"
      })
      assert.deepInclude(lacks("Failed to resolve AWS credentials.", nowhere), {
        _tag: "ConnectionFailed",
        sent: false,
        detail: "Failed to resolve AWS credentials. Could not load credentials from any providers"
      })
      const revoked = Object.assign(new Error("invalid_grant"), { status: 400, code: 400 })
      assert.deepInclude(lacks("Failed to acquire Google OAuth credentials.", revoked), {
        _tag: "ConnectionFailed",
        sent: false,
        detail: "Failed to acquire Google OAuth credentials. invalid_grant"
      })
      const lost = new TypeError("Load failed")
      assert.deepInclude(lacks("Connection error.", lost), { sent: true, detail: "Connection error. Load failed" })
    })

    it("does not retry when the provider says that a retry does not help", () => {
      const failed = (status: number, said: string) =>
        new LlmError({ reason: thrown({ status, headers: new Headers({ "x-should-retry": said }) }) })
      for (const status of [408, 409, 429, 500, 529]) {
        assert.strictEqual(failed(status, "false").isRetryable, false, `${status}`)
        assert.strictEqual(failed(status, "true").isRetryable, true, `${status}`)
      }
      assert.strictEqual(failed(400, "true").isRetryable, false)
      assert.strictEqual(failed(429, "false").pushback, "rateLimit")
      assert.match(failed(529, "false").message, /the provider says that a retry does not help/)
    })

    it("reads the type of Bedrock's errors from their header", () => {
      const bedrock = (status: number, type: string) =>
        thrown({
          status,
          headers: new Headers({ "x-amzn-errortype": `${type}:http://internal.amazon.com/coral/` }),
          error: { message: "Too many tokens, please wait before trying again." }
        })
      assert.deepInclude(bedrock(429, "ThrottlingException"), { _tag: "RateLimited", code: "ThrottlingException" })
      assert.deepInclude(bedrock(429, "ModelNotReadyException"), { _tag: "Overloaded", code: "ModelNotReadyException" })
      assert.deepInclude(bedrock(400, "ServiceQuotaExceededException"), { _tag: "InvalidRequest" })
    })

    it("reads errors of the AWS SDK by their name, also in a stream, where they have no status", () => {
      // Regression: a throttled stream counted as an invalid request that was never sent.
      const aws = (name: string, httpStatusCode?: number) =>
        thrown(Object.assign(new Error("Too many tokens"), { name, $fault: "client", $metadata: { httpStatusCode } }))
      for (const [name, _tag] of [
        ["ThrottlingException", "RateLimited"],
        ["ServiceUnavailableException", "Overloaded"],
        ["InternalServerException", "ServerFailed"],
        ["ModelStreamErrorException", "ServerFailed"],
        ["ModelTimeoutException", "TimedOut"],
        ["ValidationException", "InvalidRequest"]
      ] as const) {
        assert.deepInclude(aws(name), { _tag, status: 200, code: name, detail: "Too many tokens" })
      }
      assert.deepInclude(aws("ThrottlingException", 429), { _tag: "RateLimited", status: 429 })
      assert.deepInclude(aws("ModelNotReadyException", 429), { _tag: "Overloaded", code: "ModelNotReadyException" })
      assert.deepInclude(aws("OfTomorrowException"), { _tag: "InvalidRequest" })
    })

    it.each([
      Object.assign(new Error("Request timed out."), { name: "APIConnectionTimeoutError" }),
      connection("UND_ERR_HEADERS_TIMEOUT"),
      Object.assign(new TypeError("terminated"), { cause: { code: "UND_ERR_BODY_TIMEOUT" } })
    ])("treats %s as a timeout", (error) => {
      assert.strictEqual(thrown(error)._tag, "TimedOut")
    })

    it("treats a foreign abort as a lost connection", () => {
      const error = Object.assign(new Error("Request was aborted."), { name: "APIUserAbortError" })
      assert.deepInclude(thrown(error), { _tag: "ConnectionFailed", sent: true })
    })

    // As clients threw them in November 2026, against a server of a few lines.
    it.each([
      ["the AI SDK", { statusCode: 429, responseHeaders: { "retry-after": "16" }, responseBody: slow }],
      ["Mistral", { statusCode: 429, headers: new Headers({ "retry-after": "16" }), body: slow }],
      ["axios", { status: 429, response: { headers: { "retry-after": "16" }, data: JSON.parse(slow) } }],
      ["Google", { status: 429, message: slow.replace('"code"', '"details":[{},{"retryDelay":"16s"}],"code"') }],
      [
        "AWS",
        { name: "Unknown", $response: { statusCode: 429, headers: { "retry-after": "16" } }, ...JSON.parse(slow) }
      ],
      ["got", { code: "ERR_NON_2XX", response: { statusCode: 429, headers: { "retry-after": "16" }, body: slow } }],
      ["a record", { status: 429, headers: { "retry-after": "16" }, error: JSON.parse(slow) }]
    ])("reads what %s throws", (_, error) => {
      const reason = thrown(error)
      assert.deepInclude(reason, { _tag: "RateLimited", code: "too_fast", detail: "Slow down" })
      assert.deepStrictEqual(reason.retryAfter, Duration.seconds(16))
    })

    it("recognises a successful answer that broke off or cannot be read", () => {
      const read = (cause: unknown) => thrown(Object.assign(new Error("?", { cause }), { statusCode: 200 }))
      const broken = new TypeError("terminated", { cause: Object.assign(new Error(), { code: "UND_ERR_SOCKET" }) })
      assert.deepInclude(read(broken), { _tag: "ConnectionFailed", sent: true })
      const axios = Object.assign(new Error("stream has been aborted"), { status: 200, code: "ERR_BAD_RESPONSE" })
      assert.deepInclude(thrown(axios), { _tag: "ConnectionFailed", sent: true })
      assert.strictEqual(read(new SyntaxError("{"))._tag, "MalformedResponse")
      assert.strictEqual(read(undefined)._tag, "MalformedResponse")
    })

    it("treats an error without a status and without a class name as a lost connection", () => {
      assert.deepInclude(thrown({ status: undefined, error: undefined }), { _tag: "ConnectionFailed", sent: true })
    })

    it.each(["Failed to fetch", "Load failed", "NetworkError when attempting to fetch resource.", "fetch failed"])(
      "treats %s as a lost connection",
      (message) => {
        assert.deepInclude(thrown(new TypeError(message)), { _tag: "ConnectionFailed", sent: true, detail: message })
      }
    )

    // Regression: they were retried as connections lost after sending. None of these addresses is contacted.
    it.each([
      ["http://127.0.0.1:9/", "the runtime never connects to this port"],
      ["localhost:8080/v1", "unknown scheme"],
      ["http://me:secret@127.0.0.1:4000/", "Request cannot be constructed from a URL that includes credentials"],
      ["no address", "Invalid URL"]
    ])("takes an address that fetch does not try for an invalid request: %s", async (url, says) => {
      const cause = await fetch(url).then(
        () => assert.fail(),
        (error: unknown) => error
      )
      const wrapped = Object.assign(new Error("Connection error.", { cause }), { name: "APIConnectionError" })
      for (const error of [cause, wrapped]) {
        const reason = thrown(error)
        assert.strictEqual(reason._tag, "InvalidRequest")
        assert.include(reason.detail, says)
        assert.match(reason.detail!, /; check the base URL$/)
        assert.notInclude(reason.detail, "secret")
        assert.deepStrictEqual(new LlmError({ reason }).usage, nothing)
      }
    })

    it("does not redact a short key that is part of words", () => {
      assert.strictEqual(thrown({ status: 400, error: { message: "max_tokens" } }, "x").detail, "max_tokens")
    })

    it("treats a refusal by the SDK as an invalid request that used nothing", () => {
      for (const error of [
        Object.assign(new Error("Streaming is strongly recommended"), { name: "AnthropicError" }),
        Object.assign(new TypeError("Invalid URL"), { code: "ERR_INVALID_URL" }),
        "a string",
        undefined
      ]) {
        const reason = thrown(error)
        assert.strictEqual(reason._tag, "InvalidRequest")
        assert.deepStrictEqual(new LlmError({ reason }).usage, nothing)
      }
    })

    it("recognises a spend limit within a stream, and when it ends", () => {
      const now = Date.UTC(2026, 10, 24)
      const event = (code: string) =>
        Errors.fromEvent(
          { error: { type: "rate_limit_error", message: "no", details: { error_code: code } } },
          undefined,
          { requestId: "r" },
          { now }
        )
      const reason = event("enforced_spend_limit_reached")
      assert.strictEqual(reason._tag, "SpendLimited")
      if (reason._tag === "SpendLimited") {
        assert.strictEqual(DateTime.formatIso(reason.resumesAt!), "2026-12-01T00:00:00.000Z")
      }
      assert.notStrictEqual(event("something_else")._tag, "SpendLimited")
    })

    it("reads the name of a request from any provider's header", () => {
      for (const name of ["request-id", "x-request-id", "x-amzn-requestid", "apim-request-id"]) {
        assert.strictEqual(thrown({ status: 500, headers: new Headers({ [name]: "r" }) }).requestId, "r")
      }
    })

    it("removes secrets and line breaks from the provider's message, and shortens it", () => {
      const detail = (message: string, secret?: string) =>
        thrown({ status: 400, error: { error: { message } } }, secret).detail
      assert.strictEqual(detail("key sk-ant-api03-abc_def is wrong"), "key <redacted> is wrong")
      assert.strictEqual(detail("got Authorization: Bearer abc.def"), "got Authorization: <redacted>")
      assert.strictEqual(detail("https://user:pass@host/v1 failed"), "https:<redacted>host/v1 failed")
      assert.strictEqual(detail("key plain-secret is wrong", "plain-secret"), "key <redacted> is wrong")
      assert.strictEqual(detail("key plain\nsecret is wrong", "plain\nsecret"), "key <redacted> is wrong")
      assert.strictEqual(detail("one\n  two"), "one two")
      assert.strictEqual(detail("a\u001b[2Jb\u0000c"), "a [2Jb c")
      assert.strictEqual(detail("x".repeat(1_000))?.length, 300)
      assert.isUndefined(detail("  <!doctype html>"))
    })

    it("removes secrets from the provider's names, and shortens them", () => {
      const named = (name: string) =>
        thrown(
          { status: 400, headers: new Headers({ "request-id": name }), error: { error: { code: name } } },
          "plain-secret"
        )
      for (const name of ["requestId", "code"] as const) {
        assert.strictEqual(named("req_plain-secret")[name], "req_<redacted>")
        assert.strictEqual(named("x".repeat(5_000))[name]?.length, 100)
      }
    })

    const json = Schema.Union([Schema.String, Schema.Finite, Schema.Null, Schema.Array(Schema.Finite)])
    const part = Schema.Union([json, Schema.Record(Schema.Literals(["type", "code", "message", "details"]), json)])
    const property = Schema.optional(part)
    it.prop(
      "never throws on any value",
      {
        error: Schema.Union([
          part,
          Schema.Struct({ status: property, headers: property, error: property, name: property, cause: property }),
          Schema.Struct({ status: Schema.Int, error: Schema.Struct({ error: part }) })
        ])
      },
      ({ error }) => {
        const wrapped = new LlmError({ reason: thrown(error) })
        assert.isString(wrapped.message)
        assert.isTrue(Limits.Dimension.literals.every((name) => Number.isFinite(wrapped.usage[name] ?? 0)))
        Errors.fromEvent(error, undefined, { requestId: undefined }, { now: 0 })
      },
      { arbitrary: { runs: sized(500, 5_000) } }
    )
  })
})
