import Anthropic, {
  APIConnectionError,
  APIError,
  AuthenticationError,
  InternalServerError,
  NotFoundError,
  OverloadedError,
  RateLimitError
} from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { ProviderServer } from "floodgate/testing/server"
import { rejection } from "../../support/rejection.ts"
import { request as httpRequest } from "node:http"
import { connect } from "node:net"

// Real HTTP, so these run on the real clock. Waits are for conditions, never for times.

const clientOf = (url: string, options: { readonly maxRetries?: number } = {}) =>
  new Anthropic({ baseURL: url, apiKey: "any", maxRetries: 0, ...options })

const params = (characters: number) => ({
  model: "claude-sonnet-5",
  max_tokens: 1_000,
  metadata: { user_id: "agent-1" },
  messages: [{ role: "user" as const, content: "x".repeat(characters) }]
})

const withServer = <A, E>(
  options: ProviderServer.Options,
  f: (server: ProviderServer.ProviderServer["Service"], client: Anthropic) => Effect.Effect<A, E, Scope.Scope>
) => Effect.scoped(Effect.flatMap(ProviderServer.make(options), (server) => f(server, clientOf(server.url))))

const apiError = (promise: () => PromiseLike<unknown>) =>
  Effect.map(rejection(promise), (error) => {
    if (!(error instanceof APIError)) throw error
    return error
  })

/** Waits until a condition holds; the test's own timeout is the limit. */
const until = <A, E>(effect: Effect.Effect<A, E>, holds: (a: A) => boolean) =>
  Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("5 millis") })

const fast = { baseMillis: 5, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
const slow = { ...fast, baseMillis: 3_600_000 }

describe("ProviderServer", () => {
  describe("messages", () => {
    it.live("answers the official SDK, with Anthropic's headers", () =>
      withServer(
        {
          latency: fast,
          outputTokens: 20,
          reply: () => "An answer.",
          limits: {
            requests: { perMinute: 1_000 },
            inputTokens: { perMinute: 2_000_000 },
            outputTokens: { perMinute: 400_000 }
          }
        },
        (server, client) =>
          Effect.gen(function* () {
            const { data, request_id, response } = yield* Effect.promise(() =>
              client.messages.create(params(400_000)).withResponse()
            )
            assert.strictEqual(JSON.stringify(data.content), `[{"type":"text","text":"An answer."}]`)
            assert.deepStrictEqual([data.usage.input_tokens, data.usage.output_tokens], [100_000, 20])
            assert.strictEqual(request_id, "req_sim_00000001")
            assert.strictEqual(response.headers.get("anthropic-ratelimit-input-tokens-limit"), "2000000")
            // It refills 1,000 every 30 ms, and is rounded to thousands.
            const remaining = Number(response.headers.get("anthropic-ratelimit-input-tokens-remaining"))
            assert.isAtLeast(remaining, 1_900_000)
            assert.isAtMost(remaining, 1_990_000)
            assert.strictEqual(remaining % 1_000, 0)
            assert.match(
              response.headers.get("anthropic-ratelimit-input-tokens-reset")!,
              /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/
            )
            const [entry] = yield* server.log
            assert.deepStrictEqual([entry!.agent, entry!.inputTokens], ["agent-1", 100_000])
          })
      )
    )

    it.live("rejects with 429, the limit's name, retry-after and the figures", () =>
      withServer({ latency: fast, limits: { inputTokens: { perSecond: 10, burst: 2_000 } } }, (_, client) =>
        Effect.gen(function* () {
          yield* Effect.promise(() => client.messages.create(params(8_000)))
          const error = yield* apiError(() => client.messages.create(params(4_000)))
          assert.instanceOf(error, RateLimitError)
          assert.deepStrictEqual([error.status, error.type, error.errorCode], [429, "rate_limit_error", null])
          assert.match(error.message, /rate limit of 600 input tokens per minute/)
          // 1,000 tokens at 10 a second, less what refilled since.
          const wait = Number(error.headers?.get("retry-after"))
          assert.isTrue(Number.isInteger(wait) && wait > 90 && wait <= 100, `${wait}`)
          assert.isNull(error.headers?.get("retry-after-ms"))
          assert.strictEqual(error.headers?.get("anthropic-ratelimit-input-tokens-remaining"), "0")
          const reset = Date.parse(error.headers!.get("anthropic-ratelimit-input-tokens-reset")!)
          assert.closeTo(reset - Date.parse(error.headers!.get("date")!), 200_000, 10_000)
          assert.match(error.requestID!, /^req_sim_/)
        })
      )
    )

    it.live("is obeyed by the SDK's own retries", () =>
      withServer(
        { latency: fast, limits: { inputTokens: { perSecond: 1_000, burst: 1_000 } }, timeScale: 2 },
        (server) =>
          Effect.gen(function* () {
            const client = clientOf(server.url, { maxRetries: 1 })
            yield* Effect.promise(() => client.messages.create(params(4_000)))
            yield* Effect.promise(() => client.messages.create(params(4_000)))
            const stats = yield* server.stats
            assert.deepStrictEqual([stats.accepted, stats.rejected], [2, 1])
          })
      )
    )

    it.live("sends waits in the client's time if its own time runs faster", () =>
      withServer(
        { latency: fast, limits: { inputTokens: { perMinute: 600, burst: 2_000 } }, timeScale: 100 },
        (_, client) =>
          Effect.gen(function* () {
            yield* Effect.promise(() => client.messages.create(params(8_000)))
            const error = yield* apiError(() => client.messages.create(params(2_000)))
            const seconds = Number(error.headers?.get("retry-after"))
            assert.isAtMost(seconds, 0.5)
            assert.strictEqual(Number(error.headers?.get("retry-after-ms")), Math.round(seconds * 1_000))
            assert.strictEqual(error.headers?.get("anthropic-ratelimit-input-tokens-limit"), "60000")
          })
      )
    )

    it.live("maps faults to errors that the SDK distinguishes", () =>
      withServer(
        {
          latency: fast,
          faults: [
            { kind: "529", calls: [1] },
            { kind: "500", calls: [2] },
            { kind: "timeout", calls: [3], afterMillis: 10 },
            { kind: "429", calls: [4], errorCode: "ramp_limit_exceeded", retryAfterMillis: 1_500 },
            { kind: "429", calls: [5], errorCode: "enforced_spend_limit_reached" },
            { kind: "refused", calls: [6] },
            { kind: "cut", calls: [7] },
            { kind: "401", calls: [9] },
            { kind: "404", calls: [10] }
          ]
        },
        (server, client) =>
          Effect.gen(function* () {
            const next = () => client.messages.create(params(40))
            assert.instanceOf(yield* apiError(next), OverloadedError)
            assert.strictEqual((yield* apiError(next)).type, "api_error")
            assert.deepStrictEqual((yield* apiError(next)).status, 504)
            const ramp = yield* apiError(next)
            assert.strictEqual(ramp.errorCode, "ramp_limit_exceeded")
            assert.strictEqual(ramp.headers?.get("retry-after"), "2")
            const spend = yield* apiError(next)
            assert.strictEqual(spend.errorCode, "enforced_spend_limit_reached")
            assert.isNull(spend.headers?.get("retry-after"))
            assert.instanceOf(yield* apiError(next), APIConnectionError)
            assert.instanceOf(yield* apiError(next), APIConnectionError)
            yield* Effect.promise(next)
            assert.instanceOf(yield* apiError(next), AuthenticationError)
            assert.instanceOf(yield* apiError(next), NotFoundError)
            const stats = yield* server.stats
            assert.deepStrictEqual([stats.completed, stats.failed, stats.rejected, stats.broken], [1, 5, 2, 2])
          })
      )
    )
  })

  describe("streams", () => {
    it.live("come event by event, with headers first and the usage last", () =>
      withServer(
        {
          latency: { ...fast, perOutputTokenMillis: 1 },
          outputTokens: 50,
          reply: () => "one two three ".repeat(20),
          limits: { inputTokens: { perMinute: 100_000 } }
        },
        (server, client) =>
          Effect.gen(function* () {
            const stream = client.messages.stream(params(4_000))
            const { response } = yield* Effect.promise(() => stream.withResponse())
            assert.strictEqual(response.headers.get("anthropic-ratelimit-input-tokens-remaining"), "99000")
            const message = yield* Effect.promise(() => stream.finalMessage())
            assert.deepStrictEqual([message.usage.input_tokens, message.usage.output_tokens], [1_000, 50])
            assert.strictEqual(message.stop_reason, "end_turn")
            const [block] = message.content
            assert.strictEqual(block?.type === "text" && block.text, "one two three ".repeat(20).slice(0, 200))
            assert.strictEqual((yield* until(server.stats, ({ inFlight }) => inFlight === 0)).completed, 1)
          })
      )
    )

    it.live("break in the middle, or end like a complete one, as configured", () =>
      withServer(
        {
          // What a socket has not delivered when it breaks is lost: a busy machine hears something long before.
          latency: { ...fast, perOutputTokenMillis: 10 },
          outputTokens: 100,
          reply: () => "abcdefghij".repeat(40),
          faults: [
            { kind: "cut", calls: [1] },
            { kind: "truncated", calls: [2] }
          ]
        },
        (server, client) =>
          Effect.gen(function* () {
            const read = async () => {
              const types: Array<string> = []
              let error: unknown
              try {
                for await (const event of await client.messages.create({ ...params(40), stream: true })) {
                  types.push(event.type)
                }
              } catch (cause) {
                error = cause
              }
              return { error, types }
            }
            const cut = yield* Effect.promise(read)
            assert.instanceOf(cut.error, Error)
            assert.include(cut.types, "content_block_delta")
            const truncated = yield* Effect.promise(read)
            assert.isUndefined(truncated.error)
            assert.include(truncated.types, "content_block_delta")
            assert.notInclude(truncated.types, "message_stop")
            assert.strictEqual((yield* until(server.stats, ({ inFlight }) => inFlight === 0)).broken, 2)
          })
      )
    )
  })

  describe("a server with slots and a queue", () => {
    const options = { latency: slow, concurrency: 1, queue: 1 }

    for (const [busyStatus, error] of [
      [429, RateLimitError],
      [503, InternalServerError]
    ] as const) {
      it.live(`answers ${busyStatus} if both are full`, () =>
        withServer({ ...options, busyStatus }, (server, client) =>
          Effect.gen(function* () {
            yield* Effect.forEach([1, 2], () => Effect.forkScoped(apiError(() => client.messages.create(params(40)))))
            yield* until(server.stats, ({ queued }) => queued === 1)
            assert.instanceOf(yield* apiError(() => client.messages.create(params(40))), error)
            const chat = yield* Effect.promise(() =>
              fetch(`${server.url}/v1/chat/completions`, {
                method: "POST",
                headers: { authorization: "Bearer any" },
                body: JSON.stringify({ model: "deepseek-chat", messages: [{ role: "user", content: "Hello" }] })
              })
            )
            assert.strictEqual(chat.status, busyStatus)
            const { inFlight, rejected } = yield* server.stats
            assert.deepStrictEqual([inFlight, rejected], [1, 2])
          })
        )
      )
    }

    for (const stream of [false, true]) {
      it.live(
        `starts a queued call that ${stream ? "streams" : "does not stream"} when another client disconnects`,
        () =>
          withServer({ ...options, latency: { ...fast, perInputTokenMillis: 1_000 } }, (server, client) =>
            Effect.gen(function* () {
              const controller = new AbortController()
              const first = apiError(() => client.messages.create(params(40_000), { signal: controller.signal }))
              yield* Effect.forkScoped(Effect.exit(first))
              yield* until(server.stats, ({ inFlight }) => inFlight === 1)
              const second = client.messages.create({ ...params(4), stream }).then(async (answer) => {
                if (Symbol.asyncIterator in answer) for await (const _ of answer) continue
              })
              yield* until(server.stats, ({ queued }) => queued === 1)
              controller.abort()
              yield* Effect.promise(() => second)
              const { aborted, completed, peakInFlight } = yield* until(server.stats, ({ inFlight }) => inFlight === 0)
              assert.deepStrictEqual([aborted, completed, peakInFlight], [1, 1, 1])
            })
          )
      )
    }
  })

  describe("disconnects", () => {
    for (const stream of [false, true]) {
      it.live(`abort a call that ${stream ? "streams" : "waits"}, and free its place`, () =>
        withServer(
          {
            latency: stream ? { ...fast, perOutputTokenMillis: 1_000 } : slow,
            outputTokens: 1_000,
            reply: () => "abcdefghij".repeat(400),
            concurrency: 1
          },
          (server, client) =>
            Effect.gen(function* () {
              const controller = new AbortController()
              const call = client.messages
                .create({ ...params(40), stream }, { signal: controller.signal })
                .then(async (answer) => {
                  if (Symbol.asyncIterator in answer) for await (const _ of answer) continue
                })
                .catch((error: unknown) => error)
              yield* until(server.stats, ({ inFlight }) => inFlight === 1)
              assert.strictEqual((yield* apiError(() => client.messages.create(params(40)))).status, 429)
              controller.abort()
              yield* Effect.promise(() => call)
              const stats = yield* until(server.stats, ({ inFlight }) => inFlight === 0)
              assert.deepStrictEqual([stats.aborted, stats.completed], [1, 0])
            })
        )
      )
    }

    it.live("of all callers happen as soon as the server stops", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const server = yield* Scope.provide(ProviderServer.make({ latency: slow }), scope)
        const call = clientOf(server.url)
          .messages.create(params(40))
          .then(
            () => "answered",
            () => "failed"
          )
        yield* until(server.stats, ({ inFlight }) => inFlight === 1)
        yield* Scope.close(scope, yield* Effect.exit(Effect.void))
        assert.strictEqual(yield* Effect.promise(() => call), "failed")
        assert.strictEqual((yield* server.stats).aborted, 1)
      })
    )
  })

  describe("the rest", () => {
    it.live("closes with its scope also the connections on which nothing was ever sent", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const { url } = yield* Scope.provide(ProviderServer.make({ latency: fast }), scope)
        const socket = connect(Number(new URL(url).port), "127.0.0.1")
        const closed = new Promise((resolve) => socket.once("close", resolve).resume())
        yield* Effect.promise(() => new Promise((resolve) => socket.once("connect", resolve)))
        // A connection is accepted in its order, so the server has this one, too, when it has answered a later one.
        yield* Effect.promise(() => fetch(`${url}/healthz`).then((response) => response.text()))
        yield* Scope.close(scope, yield* Effect.exit(Effect.void))
        yield* Effect.promise(() => closed)
      })
    )

    it.live("counts tokens outside of all limits", () =>
      withServer({ limits: { requests: { perMinute: 1 } }, charsPerToken: 2 }, (server, client) =>
        Effect.gen(function* () {
          const count = () => client.messages.countTokens({ model: "m", messages: params(100).messages })
          assert.deepStrictEqual(yield* Effect.promise(count), { input_tokens: 50 })
          assert.strictEqual((yield* Effect.promise(count)).input_tokens, 50)
          assert.strictEqual((yield* server.stats).countTokens, 2)
        })
      )
    )

    it.live("describes an invalid request in Anthropic's form", () =>
      withServer({}, (server) =>
        Effect.gen(function* () {
          const ask = (path: string, body: string | undefined, key = "any") =>
            Effect.promise(async () => {
              const response = await fetch(server.url + path, {
                method: body === undefined ? "GET" : "POST",
                headers: key === "" ? {} : { "x-api-key": key },
                ...(body === undefined ? {} : { body })
              })
              const { error, request_id } = (await response.json()) as {
                error: { type: string; message: string; details: unknown }
                request_id: string
              }
              assert.strictEqual(response.headers.get("request-id"), request_id)
              assert.isNull(error.details)
              return [response.status, error.type, error.message]
            })
          const messages = [{ role: "user", content: "Hello" }]
          const json = (body: unknown) => ask("/v1/messages", JSON.stringify(body))
          assert.deepStrictEqual((yield* ask("/v1/messages", "{}", "")).slice(0, 2), [401, "authentication_error"])
          assert.deepStrictEqual(yield* ask("/v1/messages", "{"), [
            400,
            "invalid_request_error",
            "The body is not valid JSON"
          ])
          for (const [body, message] of [
            [[], "expected a JSON object"],
            [{ messages, max_tokens: 1 }, "model: Field required"],
            [{ model: "m", max_tokens: 1 }, "messages: Field required"],
            [{ model: "m", max_tokens: 1, messages: [] }, "messages: at least one message is required"],
            [{ model: "m", messages }, "max_tokens: expected an integer above 0"],
            [{ model: "m", max_tokens: 1, messages: [null] }, "messages.0.role: Field required"],
            [
              { model: "m", max_tokens: 1, messages: [{ role: "bogus", content: "Hello" }] },
              "messages.0.role: expected one of user, assistant, system"
            ],
            [
              { model: "m", max_tokens: 1, messages, system: null },
              "system: expected a string or a list of content blocks"
            ],
            [
              {
                model: "m",
                max_tokens: 1,
                messages: [{ role: "user", content: [{ type: "document", source: { type: "text" } }] }]
              },
              "messages.0.content.0.source.data: expected a string"
            ],
            [
              {
                model: "m",
                max_tokens: 1,
                messages: [{ role: "user", content: [{ type: "document", source: { type: "base64" } }] }]
              },
              "messages.0.content.0.source.data: expected a string"
            ],
            [
              {
                model: "m",
                max_tokens: 1,
                messages: [{ role: "user", content: [{ type: "document", source: { type: "content" } }] }]
              },
              "messages.0.content.0.source.content: expected a string or a list of content blocks"
            ],
            [
              { model: "m", max_tokens: 1, messages: [{ role: "user", content: [{ type: "text" }] }] },
              "messages.0.content.0.text: Field required"
            ]
          ] as const) {
            assert.deepStrictEqual(yield* json(body), [400, "invalid_request_error", message])
          }
          for (const [open, close] of [
            [`{"type":"tool_result","content":[`, `]}`],
            [`{"type":"tool_use","input":{"a":`, `}}`]
          ] as const) {
            const content = `${open.repeat(50_000)}0${close.repeat(50_000)}`
            const body = `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[${content}]}]}`
            assert.deepStrictEqual(yield* ask("/v1/messages", body), [
              400,
              "invalid_request_error",
              "expected at most 500 levels of nesting"
            ])
          }
          assert.deepStrictEqual(yield* ask("/v1/nothing", undefined), [
            404,
            "not_found_error",
            "GET /v1/nothing is not served here"
          ])
        })
      )
    )

    it.live("refuses other keys and models in the words of each provider", () =>
      withServer({ keys: ["right"], models: (model) => model === "known", latency: fast }, (server) =>
        Effect.gen(function* () {
          const ask = (path: string, key: string, model: string) =>
            Effect.promise(async () => {
              const gemini = { contents: [{ role: "user", parts: [{ text: "Hello" }] }] }
              const others = { model, max_tokens: 1, messages: [{ role: "user", content: "Hello" }] }
              const response = await fetch(`${server.url}${path.replace("MODEL", model)}`, {
                method: "POST",
                headers: { authorization: `Bearer ${key}` },
                body: JSON.stringify(path.includes("MODEL") ? gemini : others)
              })
              const { error } = (await response.json()) as { readonly error?: { readonly message: string } }
              return [response.status, error?.message]
            })
          for (const [path, wrongKey, wrongModel] of [
            ["/v1/messages", [401, "invalid x-api-key"], [404, "model: other"]],
            [
              "/v1/chat/completions",
              [
                401,
                "Incorrect API key provided. You can find your API key at https://platform.openai.com/account/api-keys."
              ],
              [404, "The model `other` does not exist or you do not have access to it."]
            ],
            [
              "/v1beta/models/MODEL:generateContent",
              [400, "API key not valid. Please pass a valid API key."],
              [404, "models/other is not found for API version v1beta, or is not supported for generateContent."]
            ]
          ] as const) {
            assert.deepStrictEqual(yield* ask(path, "wrong", "known"), [...wrongKey])
            assert.deepStrictEqual(yield* ask(path, "right", "other"), [...wrongModel])
            assert.deepStrictEqual(yield* ask(path, "right", "known"), [200, undefined])
          }
          assert.strictEqual((yield* server.stats).requests, 3)
        })
      )
    )

    it.live("refuses bodies above its limit, with or without a content-length", () =>
      withServer({ maxBodyBytes: 10_000, latency: fast }, (server, client) =>
        Effect.gen(function* () {
          yield* Effect.promise(() => client.messages.create(params(9_000)))
          const error = yield* apiError(() => client.messages.create(params(10_000)))
          assert.deepStrictEqual([error.status, error.type], [413, "request_too_large"])
          const chunked = yield* Effect.promise(
            () =>
              new Promise<number | undefined>((resolve, reject) => {
                const request = httpRequest(
                  `${server.url}/v1/messages`,
                  { method: "POST", headers: { "x-api-key": "any", "transfer-encoding": "chunked" } },
                  (response) => {
                    response.resume()
                    resolve(response.statusCode)
                  }
                )
                request.on("error", reject)
                for (let n = 0; n < 20; n++) request.write("x".repeat(1_000))
                request.end()
              })
          )
          assert.strictEqual(chunked, 413)
        })
      )
    )

    it.live("shows its health and its counters", () =>
      withServer({ latency: fast, timeScale: 2 }, (server, client) =>
        Effect.gen(function* () {
          yield* Effect.promise(() => client.messages.create(params(40)))
          const get = (path: string) =>
            Effect.promise(() => fetch(server.url + path).then((response) => response.json() as Promise<object>))
          assert.deepStrictEqual(yield* get("/healthz"), { status: "ok" })
          assert.deepInclude(yield* get("/stats"), {
            accepted: 1,
            rejected: 0,
            aborted: 0,
            peakInFlight: 1,
            timeScale: 2
          })
        })
      )
    )
  })
})
