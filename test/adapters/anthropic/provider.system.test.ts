import Sdk from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { inspect } from "node:util"
import type * as Http from "node:http"
import * as TestClock from "effect/testing/TestClock"
import type * as Limits from "floodgate/Limits"
import { nothing } from "../../support/budget.ts"
import type { LlmError, LlmErrorReason } from "floodgate/LlmError"
import { LlmProvider, type Params } from "floodgate/LlmProvider"
import * as Anthropic from "floodgate/providers/Anthropic"
import { message as messageOf } from "../../support/httpProvider.ts"
import { type Handler, serve } from "../../support/httpServer.ts"
import { recordingTracer } from "../../support/spans.ts"

const make = (options: Anthropic.Options) =>
  Effect.map(Layer.build(Anthropic.layer(options)), (context) => Context.get(context, LlmProvider))

// Everything here is real HTTP on the loopback with the official SDK, so most tests are `it.live`: what they wait for are
// events of sockets, never a sleep. Where a timeout is the subject, the clock is the TestClock and only the I/O is real.

const canary = "sk-ant-canary-0123456789"
const params: Params = {
  model: "claude-sonnet-5-5",
  max_tokens: 64_000,
  messages: [{ role: "user", content: "Hello" }]
}
const message = messageOf(10, 2)
const refused: Limits.Usage = { requests: 1, inputTokens: 0, outputTokens: 0, tokens: 0 }
const unanswered: Limits.Usage = { requests: 1, outputTokens: 0 }

/** A server on a free port of the loopback, and a provider that talks to it. */
const setup = Effect.fnUntraced(function* (handler: Handler, options?: Partial<Anthropic.Options>) {
  const bodies: Array<Record<string, unknown>> = []
  const arrived = yield* Deferred.make<void>()
  const closed = yield* Deferred.make<void>()
  const { requests, url: baseUrl } = yield* serve((request, response, body) => {
    bodies.push(JSON.parse(body))
    response.on("close", () => Deferred.doneUnsafe(closed, Exit.void))
    Deferred.doneUnsafe(arrived, Exit.void)
    handler(request, response, body)
  })
  const provider = yield* make({ apiKey: Redacted.make(canary), baseUrl, ...options })
  return { provider, requests, bodies, baseUrl, arrived, closed }
})

const json =
  (status: number, body: unknown, headers: Record<string, string> = {}): Handler =>
  (_request, response) => {
    response.writeHead(status, { "content-type": "application/json", "request-id": "req_1", ...headers })
    response.end(typeof body === "string" ? body : JSON.stringify(body))
  }

const apiError = (type: string, code?: string) => ({
  type: "error",
  error: {
    type,
    message: "Number of tokens has exceeded your rate limit",
    details: code ? { error_code: code } : null
  },
  request_id: "req_1"
})

const frame = (event: { readonly type: string }) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`
const start = frame({
  type: "message_start",
  message: { ...message, content: [], usage: { input_tokens: 10, cache_creation_input_tokens: 5, output_tokens: 1 } }
} as { type: string })
const block = frame({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } } as {
  type: string
})
const text = (text: string) =>
  frame({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } } as { type: string })
const end =
  frame({ type: "content_block_stop" }) +
  frame({ type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 20 } } as {
    type: string
  }) +
  frame({ type: "message_stop" })
const ping = frame({ type: "ping" })

/** Sends the parts and then does what `last` says: end properly, cut the socket, or leave it open. */
const sse =
  (parts: ReadonlyArray<string>, last: "end" | "cut" | "open" = "end"): Handler =>
  (_request, response) => {
    response.writeHead(200, {
      "content-type": "text/event-stream",
      "request-id": "req_1",
      "anthropic-ratelimit-requests-limit": "50",
      "anthropic-ratelimit-requests-remaining": "49"
    })
    response.write(parts.join(""), () => {
      if (last === "end") response.end()
      if (last === "cut") response.socket?.destroy()
    })
  }

/** One turn of the event loop: a fiber that was woken has gone back to sleep, and a socket is back in its pool. */
const turn = Effect.callback<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

const collect = (provider: LlmProvider["Service"]) =>
  Effect.scoped(
    Effect.flatMap(provider.stream(params), (reply) =>
      Stream.runFold(
        reply.value,
        () => 0,
        (count) => count + 1
      )
    )
  )

describe("Anthropic", () => {
  describe("create", () => {
    it.live("answers with the message, the limits and the request's name, in one request without a stream", () =>
      Effect.gen(function* () {
        const { bodies, provider, requests } = yield* setup(
          json(200, message, {
            "anthropic-ratelimit-input-tokens-limit": "2000000",
            "anthropic-ratelimit-input-tokens-remaining": "1999000"
          })
        )
        const reply = yield* provider.create(params)
        assert.strictEqual(reply.value.usage.output_tokens, 2)
        assert.deepStrictEqual(reply.signal?.dimensions, {
          inputTokens: { limit: 2_000_000, remaining: 1_999_000, roundedTo: 1_000 }
        })
        assert.strictEqual(reply.requestId, "req_1")
        // 64,000 output tokens are above the SDK's guard of 21,333 without a stream.
        assert.deepStrictEqual(bodies, [{ ...params, stream: false }])
        assert.strictEqual(requests[0]?.headers.authorization, `Bearer ${canary}`)
      })
    )

    interface Failure {
      readonly status: number
      readonly body: unknown
      readonly headers?: Record<string, string>
      readonly tag: LlmErrorReason["_tag"]
      readonly retryable: boolean
      readonly usage?: Limits.Usage
      readonly pushback?: LlmError["pushback"]
      readonly retryAfter?: number
      readonly code?: string
    }
    const afterSixteen = { "retry-after": "16" }
    const failures: ReadonlyArray<Failure> = [
      { status: 400, body: apiError("invalid_request_error"), tag: "InvalidRequest", retryable: false },
      { status: 401, body: apiError("authentication_error"), tag: "AccessDenied", retryable: false },
      { status: 402, body: apiError("billing_error"), tag: "SpendLimited", retryable: false, usage: nothing },
      {
        status: 402,
        body: apiError("billing_error", "linked_organization_billing_unavailable"),
        tag: "SpendLimited",
        retryable: false,
        usage: nothing,
        code: "linked_organization_billing_unavailable"
      },
      {
        status: 402,
        body: apiError("billing_error", "linked_organization_spend_limit_reached"),
        tag: "SpendLimited",
        retryable: false,
        usage: nothing
      },
      { status: 403, body: apiError("permission_error"), tag: "AccessDenied", retryable: false },
      { status: 404, body: apiError("not_found_error"), tag: "InvalidRequest", retryable: false },
      { status: 408, body: "", tag: "TimedOut", retryable: true, pushback: "overload", usage: unanswered },
      { status: 409, body: apiError("conflict_error"), tag: "InvalidRequest", retryable: true },
      { status: 413, body: apiError("request_too_large"), tag: "InvalidRequest", retryable: false },
      {
        status: 413,
        body: "<html><h1>413 Request Entity Too Large</h1></html>",
        headers: { "content-type": "text/html" },
        tag: "InvalidRequest",
        retryable: false
      },
      { status: 422, body: apiError("invalid_request_error"), tag: "InvalidRequest", retryable: false },
      {
        status: 429,
        body: apiError("rate_limit_error"),
        headers: afterSixteen,
        tag: "RateLimited",
        retryable: true,
        usage: nothing,
        pushback: "rateLimit",
        retryAfter: 16_000
      },
      {
        status: 429,
        body: "",
        tag: "RateLimited",
        retryable: true,
        usage: nothing,
        pushback: "rateLimit"
      },
      {
        status: 429,
        body: apiError("rate_limit_error", "a_code_of_tomorrow"),
        tag: "RateLimited",
        retryable: true,
        usage: nothing,
        pushback: "rateLimit"
      },
      {
        status: 429,
        body: apiError("rate_limit_error", "ramp_limit_exceeded"),
        headers: afterSixteen,
        tag: "RampLimited",
        retryable: true,
        usage: nothing,
        pushback: "ramp",
        retryAfter: 16_000
      },
      ...["enforced_spend_limit_reached", "contract_spend_limit_reached"].map((code): Failure => ({
        status: 429,
        body: apiError("rate_limit_error", code),
        tag: "SpendLimited",
        retryable: false,
        usage: nothing,
        code
      })),
      // A workspace's spend limit of Claude Code has no code: only the wait, of days, tells it from a rate limit.
      {
        status: 429,
        body: apiError("rate_limit_error"),
        headers: { "retry-after": "2592000" },
        tag: "SpendLimited",
        retryable: false,
        usage: nothing,
        retryAfter: 3_600_000
      },
      { status: 500, body: apiError("api_error"), tag: "ServerFailed", retryable: true, pushback: "overload" },
      { status: 501, body: "", tag: "InvalidRequest", retryable: false },
      { status: 502, body: "<html>Bad gateway</html>", tag: "ServerFailed", retryable: true, pushback: "overload" },
      { status: 503, body: "", tag: "Overloaded", retryable: true, pushback: "overload" },
      {
        status: 503,
        body: apiError("api_error", "cmek_context_unavailable"),
        tag: "ServerFailed",
        retryable: true,
        pushback: "overload"
      },
      {
        status: 503,
        body: apiError("api_error", "cmek_key_unreachable"),
        tag: "ServerFailed",
        retryable: true,
        pushback: "overload"
      },
      {
        status: 504,
        body: apiError("timeout_error"),
        tag: "TimedOut",
        retryable: true,
        pushback: "overload",
        usage: unanswered
      },
      {
        status: 529,
        body: apiError("overloaded_error"),
        headers: { "retry-after-ms": "1500" },
        tag: "Overloaded",
        retryable: true,
        pushback: "overload",
        retryAfter: 1_500
      },
      {
        status: 529,
        body: apiError("overloaded_error", "compaction_unavailable"),
        tag: "Overloaded",
        retryable: true,
        pushback: "overload",
        code: "compaction_unavailable"
      },
      // OpenAI's shapes, as gateways pass them on.
      {
        status: 429,
        body: { error: { message: "Slow down", type: "rate_limit_error", code: "slow_down" } },
        tag: "RampLimited",
        retryable: true,
        usage: nothing,
        pushback: "ramp"
      },
      ...[
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded"
      ].map((code): Failure => ({
        status: 429,
        body: { error: { message: "You exceeded your quota", type: "insufficient_quota", code } },
        tag: "SpendLimited",
        retryable: false,
        usage: nothing,
        code
      })),
      {
        status: 503,
        body: { error: { type: "service_unavailable_error", code: "server_is_overloaded" } },
        tag: "Overloaded",
        retryable: true,
        pushback: "overload"
      },
      // Scaleway's transient 429 looks like a quota, but only in words.
      {
        status: 429,
        body: { error: "INSUFFICIENT QUOTA" },
        tag: "RateLimited",
        retryable: true,
        usage: nothing,
        pushback: "rateLimit"
      },
      // Google's and Amazon's shapes.
      {
        status: 429,
        body: [{ error: { code: 429, message: "Quota exceeded", status: "RESOURCE_EXHAUSTED" } }],
        tag: "RateLimited",
        retryable: true,
        usage: nothing,
        pushback: "rateLimit",
        code: "RESOURCE_EXHAUSTED"
      },
      {
        status: 424,
        body: { message: "The model failed" },
        tag: "ServerFailed",
        retryable: true,
        pushback: "overload"
      },
      // Names that every object has must not be taken for entries of the tables.
      { status: 400, body: apiError("constructor", "__proto__"), tag: "InvalidRequest", retryable: false }
    ]
    const name = ({ body, headers, status, tag }: Failure) =>
      `maps ${status} ${typeof body === "string" ? body : JSON.stringify(body)} ${JSON.stringify(headers ?? {})} to ${tag}`

    for (const failure of failures) {
      it.live(name(failure), () =>
        Effect.gen(function* () {
          const { provider, requests } = yield* setup(json(failure.status, failure.body, failure.headers))
          const error = yield* Effect.flip(provider.create(params))
          assert.strictEqual(error.reason._tag, failure.tag)
          assert.strictEqual(error.isRetryable, failure.retryable)
          assert.deepStrictEqual(error.usage, failure.usage ?? refused)
          assert.strictEqual(error.pushback, failure.pushback)
          assert.strictEqual(error.retryAfter && Duration.toMillis(error.retryAfter), failure.retryAfter)
          if (failure.code !== undefined) assert.strictEqual(error.reason.code, failure.code)
          assert.strictEqual(error.status, failure.status)
          assert.strictEqual(error.requestId, "req_1")
          assert.notInclude(error.message, "<")
          assert.strictEqual(requests.length, 1, "one HTTP request")
        })
      )
    }

    it.live("reads the limits and the wait of a real 429", () =>
      Effect.gen(function* () {
        const { provider } = yield* setup(
          json(429, apiError("rate_limit_error"), {
            date: "Tue, 14 Oct 2025 15:14:45 GMT",
            "anthropic-ratelimit-input-tokens-limit": "200000",
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2025-10-14T15:15:48Z",
            "anthropic-ratelimit-tokens-limit": "280000",
            "anthropic-ratelimit-tokens-remaining": "80000",
            "retry-after": "16",
            "x-should-retry": "true"
          })
        )
        const error = yield* Effect.flip(provider.create(params))
        assert.deepStrictEqual(error.signal?.dimensions, {
          inputTokens: { limit: 200_000, remaining: 0, roundedTo: 1_000 }
        })
        assert.strictEqual(
          error.message,
          "rate limited by the provider (Number of tokens has exceeded your rate limit); retry after 16s [req_1]"
        )
      })
    )

    it.live("names the first of the next month as the end of the tier's spend limit", () =>
      Effect.gen(function* () {
        const { provider } = yield* setup(
          json(429, apiError("rate_limit_error", "enforced_spend_limit_reached"), {
            date: "Thu, 31 Dec 2026 23:59:59 GMT"
          })
        )
        const error = yield* Effect.flip(provider.create(params))
        assert.include(error.message, "resumes at 2027-01-01T00:00:00.000Z")
      })
    )

    it.live("fails with MalformedResponse for a body that is not a message, and counts the call as used", () =>
      Effect.gen(function* () {
        for (const handler of [
          json(200, "{ not json"),
          json(200, { hello: "world" }),
          json(200, "<html>Welcome</html>", { "content-type": "text/html" }),
          json(200, "")
        ]) {
          const { provider } = yield* setup(handler)
          const error = yield* Effect.flip(provider.create(params))
          assert.strictEqual(error.reason._tag, "MalformedResponse")
          assert.isFalse(error.isRetryable)
          assert.deepStrictEqual(error.usage, { requests: 1 })
        }
      })
    )

    it.live("aborts the request when it is interrupted", () =>
      Effect.gen(function* () {
        const { arrived, closed, provider } = yield* setup(() => {})
        const fiber = yield* Effect.forkChild(provider.create(params))
        yield* Deferred.await(arrived)
        yield* Fiber.interrupt(fiber)
        yield* Deferred.await(closed)
      })
    )

    it.effect("fails with TimedOut at the timeout, not a millisecond before, and aborts the request", () =>
      Effect.gen(function* () {
        const { arrived, closed, provider } = yield* setup(() => {}, { timeout: "2 minutes" })
        const fiber = yield* Effect.forkChild(Effect.flip(provider.create(params)))
        yield* Deferred.await(arrived)
        yield* TestClock.adjust(119_999)
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust(1)
        const error = yield* Fiber.join(fiber)
        assert.strictEqual(error.reason._tag, "TimedOut")
        assert.isTrue(error.isRetryable)
        assert.deepStrictEqual(error.usage, unanswered)
        yield* Deferred.await(closed)
      })
    )

    it.live("distinguishes a refused connection from one that was lost after sending", () =>
      Effect.gen(function* () {
        const { baseUrl } = yield* Effect.scoped(setup(() => {}))
        const provider = yield* make({ apiKey: Redacted.make(canary), baseUrl })
        const refusedError = yield* Effect.flip(provider.create(params))
        assert.deepInclude(refusedError.reason, { _tag: "ConnectionFailed", sent: false, code: "ECONNREFUSED" })
        assert.deepStrictEqual(refusedError.usage, nothing)
        assert.isTrue(refusedError.isRetryable)

        const lost = yield* setup((request) => request.socket.destroy())
        const lostError = yield* Effect.flip(lost.provider.create(params))
        assert.deepInclude(lostError.reason, { _tag: "ConnectionFailed", sent: true })
        assert.deepStrictEqual(lostError.usage, unanswered)
        assert.strictEqual(lost.requests.length, 1)
      })
    )

    it.live("counts a body that is cut as sent", () =>
      Effect.gen(function* () {
        const { provider } = yield* setup((_request, response) => {
          response.writeHead(200, { "content-type": "application/json", "content-length": "1000" })
          response.write('{"id":', () => response.socket?.destroy())
        })
        const error = yield* Effect.flip(provider.create(params))
        assert.deepInclude(error.reason, { _tag: "ConnectionFailed", sent: true })
      })
    )

    it.live("counts a call to an unknown host as not sent", () =>
      Effect.gen(function* () {
        const provider = yield* make({ apiKey: Redacted.make(canary), baseUrl: "http://nowhere.invalid" })
        const error = yield* Effect.flip(provider.create(params))
        assert.deepInclude(error.reason, { _tag: "ConnectionFailed", sent: false })
        assert.deepStrictEqual(error.usage, nothing)
      })
    )

    it.live("counts a request that cannot be made as invalid and not sent", () =>
      Effect.gen(function* () {
        const { provider, requests } = yield* setup(() => {})
        const circular: Record<string, unknown> = {}
        circular.self = circular
        const error = yield* Effect.flip(provider.create({ ...params, ...circular }))
        assert.strictEqual(error.reason._tag, "InvalidRequest")
        assert.deepStrictEqual(error.usage, nothing)
        assert.strictEqual(requests.length, 0)
      })
    )
  })

  describe("stream", () => {
    it.live("passes on the limits in the headers, and then every event", () =>
      Effect.gen(function* () {
        const { bodies, provider } = yield* setup(sse([start, ping, block, text("Hel"), text("lo"), end]))
        const types = yield* Effect.scoped(
          Effect.gen(function* () {
            const reply = yield* provider.stream(params)
            assert.strictEqual(reply.requestId, "req_1")
            assert.strictEqual(reply.signal?.dimensions.requests?.remaining, 49)
            return yield* Stream.runCollect(Stream.map(reply.value, (event) => event.type))
          })
        )
        assert.deepStrictEqual(types, [
          "message_start",
          "content_block_start",
          "content_block_delta",
          "content_block_delta",
          "content_block_stop",
          "message_delta",
          "message_stop"
        ])
        assert.deepStrictEqual(bodies, [{ ...params, stream: true }])
      })
    )

    it.live("passes on events of a type that is not known yet", () =>
      Effect.gen(function* () {
        const { provider } = yield* setup(sse([start, frame({ type: "of_tomorrow" }), end]))
        assert.strictEqual(yield* collect(provider), 5)
      })
    )

    it.live("fails before the stream as create does", () =>
      Effect.gen(function* () {
        const { provider, requests } = yield* setup(json(529, apiError("overloaded_error")))
        const error = yield* Effect.flip(collect(provider))
        assert.strictEqual(error.reason._tag, "Overloaded")
        assert.strictEqual(requests.length, 1)
      })
    )

    interface Broken {
      readonly name: string
      readonly handler: Handler
      readonly tag: LlmErrorReason["_tag"]
      readonly kind?: string
      readonly retryable: boolean
      readonly usage: Limits.Usage
      readonly pushback?: LlmError["pushback"]
      readonly text?: string
    }
    const errorEvent = (type: string, code?: string) => frame(apiError(type, code))
    const begun = [start, block, text("Hello ")]
    /** 1 token that `message_start` names, and 6 characters at 2.7 a token. */
    const begunUsage = { requests: 1, inputTokens: 15, outputTokens: 4 }
    const started = { requests: 1, inputTokens: 15, outputTokens: 1 }
    const broken: ReadonlyArray<Broken> = [
      {
        name: "an overload before any event",
        handler: sse([errorEvent("overloaded_error")]),
        tag: "Overloaded",
        retryable: true,
        usage: refused,
        pushback: "overload"
      },
      {
        name: "an overload before any content",
        handler: sse([start, errorEvent("overloaded_error")]),
        tag: "Overloaded",
        retryable: true,
        usage: started,
        pushback: "overload",
        text: ""
      },
      {
        name: "an overload after content",
        handler: sse([...begun, errorEvent("overloaded_error")]),
        tag: "Overloaded",
        retryable: false,
        usage: begunUsage,
        text: "Hello "
      },
      {
        name: "a rate limit",
        handler: sse([start, errorEvent("rate_limit_error")]),
        tag: "RateLimited",
        retryable: true,
        usage: started,
        pushback: "rateLimit"
      },
      {
        name: "a ramp limit",
        handler: sse([start, errorEvent("rate_limit_error", "ramp_limit_exceeded")]),
        tag: "RampLimited",
        retryable: true,
        usage: started,
        pushback: "ramp"
      },
      {
        name: "a failure of the provider",
        handler: sse([start, errorEvent("api_error")]),
        tag: "ServerFailed",
        retryable: true,
        pushback: "overload",
        usage: started
      },
      {
        name: "Bedrock's throttling",
        handler: sse([start, errorEvent("throttlingException")]),
        tag: "RateLimited",
        retryable: true,
        usage: started,
        pushback: "rateLimit"
      },
      {
        name: "an error of a type that is not known yet",
        handler: sse([start, errorEvent("of_tomorrow")]),
        tag: "ServerFailed",
        retryable: true,
        pushback: "overload",
        usage: started
      },
      {
        name: "an error that is no JSON",
        handler: sse([start, "event: error\ndata: upstream went away\n\n"]),
        tag: "ServerFailed",
        retryable: true,
        pushback: "overload",
        usage: started
      },
      {
        name: "a cut socket before any event",
        handler: sse([ping], "cut"),
        tag: "StreamInterrupted",
        kind: "cut",
        retryable: true,
        usage: unanswered,
        pushback: "overload"
      },
      {
        name: "a cut socket after content",
        handler: sse(begun, "cut"),
        tag: "StreamInterrupted",
        kind: "cut",
        retryable: false,
        usage: begunUsage,
        text: "Hello "
      },
      {
        name: "an end without message_stop",
        handler: sse(begun),
        tag: "StreamInterrupted",
        kind: "truncated",
        retryable: false,
        usage: begunUsage,
        text: "Hello "
      },
      {
        name: "an end after message_delta, when the output has been counted",
        handler: sse([...begun, end.slice(0, end.lastIndexOf("event:"))]),
        tag: "StreamInterrupted",
        kind: "truncated",
        retryable: false,
        usage: { requests: 1, inputTokens: 15, outputTokens: 20 }
      },
      {
        name: "nothing at all",
        handler: sse([]),
        tag: "StreamInterrupted",
        kind: "truncated",
        retryable: true,
        usage: unanswered,
        pushback: "overload"
      },
      {
        name: "an event that is no JSON",
        handler: sse([start, "event: content_block_delta\ndata: {\n\n"]),
        tag: "MalformedResponse",
        retryable: false,
        usage: started
      },
      {
        name: "an event without its parts",
        handler: sse([start, frame({ type: "content_block_delta" })]),
        tag: "MalformedResponse",
        retryable: false,
        usage: started
      },
      {
        name: "a page instead of a stream",
        handler: json(200, "<html>Welcome</html>", { "content-type": "text/html" }),
        tag: "MalformedResponse",
        retryable: false,
        usage: { requests: 1 }
      }
    ]
    for (const { handler, kind, name, pushback, retryable, tag, text, usage } of broken) {
      it.live(`fails on ${name} with ${tag}`, () =>
        Effect.gen(function* () {
          const { provider, requests } = yield* setup(handler)
          const error: LlmError = yield* Effect.flip(collect(provider))
          assert.strictEqual(error.reason._tag, tag)
          if (error.reason._tag === "StreamInterrupted") assert.strictEqual(error.reason.kind, kind)
          assert.strictEqual(error.isRetryable, retryable)
          assert.deepStrictEqual(error.usage, usage)
          assert.strictEqual(error.pushback, pushback)
          if (text !== undefined) assert.strictEqual(error.reason.received?.text, text)
          assert.strictEqual(error.requestId, "req_1")
          assert.strictEqual(requests.length, 1)
        })
      )
    }

    it.effect("fails as stalled at the idle timeout, which every event and ping starts anew", () =>
      Effect.gen(function* () {
        let send: (part: string) => void = () => {}
        const { closed, provider } = yield* setup(
          (request, response, body) => {
            sse([start], "open")(request, response, body)
            send = (part) => response.write(part)
          },
          { idleTimeout: "30 seconds" }
        )
        const first = yield* Deferred.make<void>()
        const second = yield* Deferred.make<void>()
        const fiber = yield* Effect.scoped(
          Effect.flatMap(provider.stream(params), (reply) =>
            Stream.runForEach(reply.value, (event) =>
              Deferred.succeed(event.type === "message_start" ? first : second, undefined)
            )
          )
        ).pipe(Effect.flip, Effect.forkChild)
        yield* Deferred.await(first)
        yield* turn
        yield* TestClock.adjust(29_999)
        assert.isUndefined(fiber.pollUnsafe())
        send(ping + block)
        yield* Deferred.await(second)
        yield* turn
        yield* TestClock.adjust(29_999)
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust(1)
        const error = yield* Fiber.join(fiber)
        assert.deepInclude(error.reason, { _tag: "StreamInterrupted", kind: "stalled" })
        yield* Deferred.await(closed)
      })
    )

    it.live("aborts the request when its consumer is interrupted", () =>
      Effect.gen(function* () {
        const { closed, provider } = yield* setup(sse([start, block], "open"))
        const seen = yield* Deferred.make<void>()
        const fiber = yield* Effect.scoped(
          Effect.flatMap(provider.stream(params), (reply) =>
            Stream.runForEach(reply.value, (event) =>
              event.type === "content_block_start" ? Deferred.succeed(seen, undefined) : Effect.void
            )
          )
        ).pipe(Effect.forkChild)
        yield* Deferred.await(seen)
        yield* Fiber.interrupt(fiber)
        yield* Deferred.await(closed)
      })
    )

    it.live("aborts the request when its consumer stops reading, while the scope is still open", () =>
      Effect.gen(function* () {
        const { closed, provider } = yield* setup(sse([start, block], "open"))
        const reply = yield* provider.stream(params)
        yield* Stream.runDrain(Stream.take(reply.value, 1))
        yield* Deferred.await(closed)
      })
    )

    it.live("aborts the request when its scope closes before a read", () =>
      Effect.gen(function* () {
        const { closed, provider } = yield* setup(sse([start], "open"))
        yield* Effect.scoped(provider.stream(params))
        yield* Deferred.await(closed)
      })
    )

    it.live("aborts the request when it is interrupted before the headers, though the scope is still open", () =>
      Effect.gen(function* () {
        const { arrived, closed, provider } = yield* setup(() => {})
        const fiber = yield* Effect.forkChild(provider.stream(params))
        yield* Deferred.await(arrived)
        yield* Fiber.interrupt(fiber)
        yield* Deferred.await(closed)
      })
    )

    it.live("reads the body to its end, so that the next call has the same connection", () =>
      Effect.gen(function* () {
        const responses: Array<Http.ServerResponse> = []
        const { provider, requests } = yield* setup((_request, response) => {
          responses.push(response)
          response.writeHead(200, { "content-type": "text/event-stream" })
          response.write(start + block + end)
        })
        const call = Effect.scoped(
          Effect.flatMap(provider.stream(params), (reply) =>
            Stream.runForEach(reply.value, (event) =>
              // The server ends the body only after the client has had its last event.
              Effect.sync(() => event.type === "message_stop" && setImmediate(() => responses.at(-1)?.end()))
            )
          )
        )
        yield* call
        yield* turn
        yield* call
        assert.strictEqual(requests[0]?.socket.remotePort, requests[1]?.socket.remotePort)
      })
    )

    it.effect("is complete with message_stop, even when the server leaves the connection open", () =>
      Effect.gen(function* () {
        const { closed, provider } = yield* setup(sse([start, block, end], "open"))
        const stopped = yield* Deferred.make<void>()
        const fiber = yield* Effect.scoped(
          Effect.flatMap(provider.stream(params), (reply) =>
            Stream.runForEach(reply.value, (event) =>
              event.type === "message_stop" ? Deferred.succeed(stopped, undefined) : Effect.void
            )
          )
        ).pipe(Effect.forkChild)
        yield* Deferred.await(stopped)
        yield* turn
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
        yield* Deferred.await(closed)
      })
    )

    it.live("reads no faster than its consumer", () =>
      Effect.gen(function* () {
        const many = Array.from({ length: 20_000 }, () => text("x".repeat(1_000)))
        let written = 0
        const { provider } = yield* setup((_request, response) => {
          response.writeHead(200, { "content-type": "text/event-stream" })
          const write = () => {
            while (written < many.length && response.write(many[written++]!));
          }
          response.on("drain", write)
          response.write(start + block)
          write()
        })
        const reply = yield* provider.stream(params)
        yield* Stream.runDrain(
          Stream.take(reply.value, 10).pipe(
            // What the buffers of two sockets hold, and not the 20 MB of the whole.
            Stream.tap(() => Effect.sync(() => assert.isBelow(written, 15_000)))
          )
        )
      })
    )
  })

  describe("countTokens", () => {
    it.live("returns the count", () =>
      Effect.gen(function* () {
        const { provider, requests } = yield* setup(json(200, { input_tokens: 42 }))
        const reply = yield* provider.countTokens({ model: params.model, messages: params.messages })
        assert.strictEqual(reply.value, 42)
        assert.strictEqual(requests[0]?.url, "/v1/messages/count_tokens")
      })
    )

    it.live("fails with MalformedResponse when there is none", () =>
      Effect.gen(function* () {
        const { provider } = yield* setup(json(200, { input_tokens: "many" }))
        const error = yield* Effect.flip(provider.countTokens({ model: params.model, messages: params.messages }))
        assert.strictEqual(error.reason._tag, "MalformedResponse")
      })
    )

    it.effect("fails with InvalidRequest on a client that cannot count", () =>
      Effect.gen(function* () {
        const { messages } = new Sdk({ apiKey: canary, baseURL: "http://127.0.0.1:9" })
        const client: Parameters<typeof Anthropic.fromClient>[0] = {
          messages: { create: messages.create.bind(messages) }
        }
        const provider = Anthropic.fromClient(client, { name: "aws.bedrock" })
        assert.strictEqual(provider.name, "aws.bedrock")
        const error = yield* Effect.flip(provider.countTokens({ model: params.model, messages: params.messages }))
        assert.strictEqual(error.reason._tag, "InvalidRequest")
        assert.deepStrictEqual(error.usage, nothing)
      })
    )
  })

  describe("fromClient", () => {
    it.live("makes one request, whatever the client's own retries are", () =>
      Effect.gen(function* () {
        const { baseUrl, requests } = yield* setup(json(500, apiError("api_error")))
        const provider = Anthropic.fromClient(new Sdk({ apiKey: canary, baseURL: baseUrl, maxRetries: 5 }))
        const error = yield* Effect.flip(provider.create(params))
        assert.strictEqual(error.reason._tag, "ServerFailed")
        assert.strictEqual(requests.length, 1)
      })
    )
  })

  describe("secrets", () => {
    const holds = (value: unknown) =>
      [
        String(value),
        JSON.stringify(value, (_, part: unknown) => (typeof part === "bigint" ? String(part) : part)),
        inspect(value, { depth: 20, showHidden: true })
      ].some((text) => text?.includes(canary))

    it.live("keeps the key out of errors, causes, spans and layers, even when the provider repeats it", () =>
      Effect.gen(function* () {
        const { baseUrl } = yield* setup((request, response, body) =>
          json(401, {
            type: "error",
            error: { type: "authentication_error", message: `Wrong key: ${request.headers.authorization}` }
          })(request, response, body)
        )
        const { spans, tracer } = recordingTracer()
        const layer = Anthropic.layer({ apiKey: Redacted.make(canary), baseUrl })
        const exit = yield* LlmProvider.pipe(
          Effect.flatMap((provider) => provider.create(params)),
          Effect.withSpan("call"),
          Effect.provide(layer),
          Effect.withTracer(tracer),
          Effect.exit
        )
        assert.isTrue(Exit.isFailure(exit))
        const error = Exit.isFailure(exit) ? exit.cause : undefined
        assert.isTrue(inspect(exit, { depth: 20 }).includes("<redacted>"), "the provider's words are kept")
        assert.strictEqual(spans.length, 1)
        for (const value of [exit, error, layer, spans[0], spans[0]?.status, spans[0]?.attributes]) {
          assert.isFalse(holds(value))
        }
      })
    )

    it.live("keeps the token of the user's own client out of errors", () =>
      Effect.gen(function* () {
        const { baseUrl } = yield* setup(json(401, { error: { message: "plain-token is not known" } }))
        const client = new Sdk({ apiKey: null, authToken: "plain-token", baseURL: baseUrl })
        const error = yield* Effect.flip(Anthropic.fromClient(client).create(params))
        assert.strictEqual(error.reason.detail, "<redacted> is not known")
      })
    )

    it.live("keeps passwords within a base URL out of errors", () =>
      Effect.gen(function* () {
        const provider = yield* make({
          apiKey: Redacted.make(canary),
          baseUrl: "http://user:password@127.0.0.1:9"
        })
        const error = yield* Effect.flip(provider.create(params))
        assert.notInclude(inspect(error, { depth: 20 }) + error.message, "password")
      })
    )
  })

  describe("layers", () => {
    const provide = (env: Record<string, unknown>) =>
      Effect.flatMap(LlmProvider, (provider) => provider.create(params)).pipe(
        Effect.provide(
          Anthropic.layerConfig().pipe(Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(env))))
        )
      )

    it.live("layerConfig reads the key and the base URL", () =>
      Effect.gen(function* () {
        const { baseUrl, requests } = yield* setup(json(200, message))
        yield* provide({ ANTHROPIC_API_KEY: canary, ANTHROPIC_BASE_URL: baseUrl })
        assert.strictEqual(requests[0]?.headers.authorization, `Bearer ${canary}`)
      })
    )

    it.effect("layerConfig fails with a ConfigError that says what to set without a key, or with a blank one", () =>
      Effect.gen(function* () {
        for (const env of [{}, { ANTHROPIC_API_KEY: "" }, { ANTHROPIC_API_KEY: "  " }]) {
          const error = yield* Effect.flip(provide(env))
          assert.strictEqual(error._tag, "ConfigError")
          assert.include(String(error), "ANTHROPIC_API_KEY is not set, or blank: set it to a key of the provider")
        }
      })
    )

    it("layer refuses an empty key, and one that is not redacted, without showing it", () => {
      const refused = "Anthropic.layer: apiKey: expected a key in Redacted.make, got something else (not shown)"
      assert.throws(() => make({ apiKey: Redacted.make(" ") }), RangeError, refused)
      assert.throws(() => make({ apiKey: "sk-ant-secret" as never }), RangeError, refused)
    })
  })
})
