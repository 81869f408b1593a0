import Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import OpenAI, { APIConnectionError, APIError } from "openai"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Governor from "floodgate/Governor"
import { LlmError } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import * as Signals from "floodgate/Signals"
import { type Handler, serve } from "./support/httpServer.ts"

const messages = [{ role: "user" as const, content: "Hello" }]

/** Clients and the errors that they throw. */
const clients = {
  openai: (baseURL: string, timeout: number, signal: AbortSignal | undefined) =>
    new OpenAI({ apiKey: "any", baseURL, maxRetries: 0, timeout }).chat.completions.create(
      { model: "gpt-6", messages },
      { signal }
    ),
  anthropic: (baseURL: string, timeout: number, signal: AbortSignal | undefined) =>
    new Anthropic({ apiKey: "any", baseURL, maxRetries: 0, timeout }).messages.create(
      { model: "claude-sonnet-5", max_tokens: 10, messages },
      { signal: signal ?? null }
    ),
  fetch: async (url: string, timeout: number, signal: AbortSignal | undefined) => {
    const response = await fetch(url, { method: "POST", body: "{}", signal: signal ?? AbortSignal.timeout(timeout) })
    if (!response.ok) throw response
    return response.json()
  }
}

const silent: Handler = () => {}
const resets: Handler = (request) => request.socket.destroy()
const breaks: Handler = (request, response) => {
  response.writeHead(200, { "content-type": "application/json", "content-length": 500 })
  response.write('{"id":', () => request.socket.destroy())
}
const answers =
  (status: number, body: string, headers: Record<string, string> = {}): Handler =>
  (_, response) => {
    response.writeHead(status, { "content-type": "application/json", ...headers })
    response.end(body)
  }

/** What happens, the reason, whether another attempt is made, and what is left of 1,000 tokens of input and output each. */
const kept = "input kept, output given back"
const nothing = "nothing taken"
const cases = [
  ["silence", silent, "TimedOut", true, kept],
  ["a reset", resets, "ConnectionFailed", true, kept],
  ["an answer that breaks off", breaks, "ConnectionFailed", true, kept],
  ["a refused connection", undefined, "ConnectionFailed", true, nothing],
  ["an abort by the user", "abort", "ConnectionFailed", true, kept],
  ["a timeout of the user's signal", "timeout", "timeout", true, kept],
  ["a limit", answers(429, "{}", { "retry-after": "16" }), "RateLimited", true, nothing],
  ["a failure", answers(500, "{}"), "ServerFailed", true, nothing],
  ["no JSON", answers(200, "{no"), "MalformedResponse", false, "all kept"]
] as const

describe("Signals", () => {
  it("reads a Headers object, whatever the case of its names", () => {
    const headers = new Headers({ "Anthropic-Ratelimit-Input-Tokens-Remaining": "5000" })
    assert.strictEqual(Signals.fromHeaders(headers)?.dimensions.inputTokens?.remaining, 5_000)
  })

  it("reads a record, and joins a header that came several times", () => {
    const headers = { ratelimit: ['"a";r=50;t=30', '"b";r=3;t=1'], "ratelimit-policy": undefined }
    assert.strictEqual(Signals.fromHeaders(headers)?.dimensions.requests?.remaining, 50)
  })

  it("does not look up the prototype of a record", () => {
    assert.isUndefined(Signals.fromHeaders(Object.create({ "x-ratelimit-remaining-tokens": "1" })))
  })

  it("reads a record that has a header named get", () => {
    const error = { status: 429, headers: { get: "x", "retry-after-ms": "1500" } }
    assert.deepStrictEqual(Signals.fromError(error, 0).retryAfter, Duration.millis(1_500))
  })

  it("measures a date from the response's own clock", () => {
    const headers = { date: "Tue, 24 Nov 2026 10:00:00 GMT", "retry-after": "Tue, 24 Nov 2026 10:00:20 GMT" }
    assert.deepStrictEqual(Signals.fromError({ status: 429, headers }, 0).retryAfter, Duration.seconds(20))
  })

  describe("fromError", () => {
    it("reads errors that openai throws", () => {
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

    it("recognises a connection that was never made", () => {
      const cause = Object.assign(new Error("connect"), { code: "ECONNREFUSED" })
      const error = Signals.fromError(new APIConnectionError({ cause }), 0)
      assert.deepStrictEqual(
        [error.reason._tag, error.isRetryable, error.usage.requests],
        ["ConnectionFailed", true, 0]
      )
    })

    it("reads the error event of a stream that openai throws", () => {
      const event = { type: "server_error", code: "rate_limit_exceeded", message: "Slow down" }
      const error = Signals.fromError(new APIError(undefined, event, "Slow down", new Headers()), 0)
      assert.deepInclude(error.reason, { _tag: "RateLimited", detail: "Slow down" })
    })

    it.effect("reads what Effect.tryPromise wrapped", () =>
      Effect.gen(function* () {
        const limited = APIError.generate(429, { error: { code: "rate_limit_exceeded" } }, undefined, new Headers())
        const wrapped = yield* Effect.flip(Effect.tryPromise(() => Promise.reject(limited)))
        assert.strictEqual(Signals.fromError(wrapped, 0).pushback, "rateLimit")
      })
    )

    it("does not blame the provider for a bug in the code around the call", () => {
      const bug = Signals.fromError(new TypeError("Cannot read properties of undefined (reading 'text')"), 0)
      assert.deepStrictEqual([bug.reason._tag, bug.isRetryable], ["InvalidRequest", false])
      assert.match(bug.message, /^the call failed before the provider answered \(Cannot read .*the code around it/)
    })
  })

  describe.each(Object.entries(clients))("what %s throws, under a governor", (_, call) => {
    it.live.each(cases)("at %s", ([, happens, tag, retryable, settled]) =>
      Effect.gen(function* () {
        const server = yield* serve(typeof happens === "function" ? happens : silent)
        if (happens === undefined) yield* server.close
        const controller = new AbortController()
        const signal = happens === "abort" ? controller.signal : undefined
        const attempt = Effect.tryPromise({
          try: () => {
            const answer = call(
              server.url,
              happens === silent ? 50 : 60_000,
              happens === "timeout" ? AbortSignal.timeout(50) : signal
            )
            if (happens === "abort") setTimeout(() => controller.abort(), 20)
            return answer
          },
          catch: (thrown) => Signals.fromError(thrown, 0)
        })
        const governor = yield* Governor.Governor
        const budget = yield* Budget.TokenBudget
        const request = { model: "any", bytes: 100, inputTokens: 100, maxTokens: 100 }
        const error = yield* Effect.flip(governor.run(request, () => Effect.map(attempt, (value) => ({ value }))))
        assert.instanceOf(error, LlmError)
        // The SDK shows that the signal aborted, but not why.
        const either = tag === "timeout" ? ["TimedOut", "ConnectionFailed"] : [tag]
        assert.include(either, (error as LlmError).reason._tag)
        assert.strictEqual((error as LlmError).isRetryable, retryable)
        const { inputTokens, outputTokens } = (yield* budget.status).pools["default"]!.dimensions
        assert.deepStrictEqual(
          [inputTokens!.level, outputTokens!.level],
          { [kept]: [900, 1_000], [nothing]: [1_000, 1_000], "all kept": [900, 900] }[settled]
        )
      }).pipe(
        Effect.provide(
          Governor.layer({ retry: Retry.make({ attempts: 1 }) }).pipe(
            Layer.provideMerge(
              Budget.layer({ limits: { inputTokens: { total: 1_000 }, outputTokens: { total: 1_000 } } })
            )
          )
        )
      )
    )
  })
})
