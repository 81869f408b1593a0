import Anthropic, {
  APIConnectionError,
  APIConnectionTimeoutError,
  APIError,
  APIUserAbortError,
  InternalServerError,
  OverloadedError,
  RateLimitError
} from "@anthropic-ai/sdk"
import { assert, describe, it, vi } from "@effect/vitest"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Floodgate from "floodgate/anthropic"
import * as Budget from "floodgate/Budget"
import { ProviderServer } from "floodgate/testing/server"
import * as Governor from "floodgate/Governor"
import { LlmError } from "floodgate/LlmError"
import * as Retry from "floodgate/Retry"
import type * as Http from "node:http"
import { Readable } from "node:stream"
import type { ReadableStream as NodeReadableStream } from "node:stream/web"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { serve } from "../../support/httpServer.ts"
import { create, type Installation, type Options } from "../../support/installation.ts"
import { rejection } from "../../support/rejection.ts"
import { unused } from "../../support/ways.ts"

// Real HTTP with the official SDK, so these run on the real clock. Waits are for conditions, never for times.

setFlagsFromString("--expose-gc")
const collect = Effect.sync(runInNewContext("gc") as () => void)

const fast = { baseMillis: 5, perInputTokenMillis: 0, perOutputTokenMillis: 0 }
const slow = { ...fast, baseMillis: 3_600_000 }
const quick = Retry.make({ base: "5 millis", jitter: "none" })
const once = Retry.make({ attempts: 1 })

const params = (characters = 40, agent?: string) => ({
  model: "claude-sonnet-5",
  max_tokens: 100,
  ...(agent !== undefined && { metadata: { user_id: agent } }),
  messages: [{ role: "user" as const, content: "x".repeat(characters) }]
})

interface World {
  readonly url: string
  readonly client: Anthropic
  readonly floodgate: Installation
  readonly pool: Effect.Effect<Budget.PoolStatus>
}

const install = Effect.fnUntraced(function* (
  url: string,
  options: Options = {},
  sdk: { readonly maxRetries?: number; readonly timeout?: number; readonly fetch?: typeof fetch } = {}
): Effect.fn.Return<World, never, Scope.Scope> {
  const floodgate = yield* Effect.acquireRelease(
    Effect.sync(() => create({ retry: quick, limits: { requests: { total: 1_000 } }, ...options })),
    (floodgate) => Effect.promise(floodgate.dispose)
  )
  return {
    url,
    floodgate,
    client: new Anthropic({ baseURL: url, apiKey: "any", middleware: [floodgate.middleware], ...sdk }),
    pool: Effect.map(Effect.promise(floodgate.status), ({ pools }) => pools["default"] ?? unused)
  }
})

const simulated = (server: ProviderServer.Options, options?: Options) =>
  Effect.gen(function* () {
    const provider = yield* ProviderServer.make({ latency: fast, outputTokens: 20, ...server })
    return { provider, ...(yield* install(provider.url, options)) }
  })

/** A server with given answers that counts its requests. */
const scripted = Effect.fnUntraced(function* (
  handler: (response: Http.ServerResponse, count: number) => void
): Effect.fn.Return<{ readonly url: string; readonly count: () => number }, never, Scope.Scope> {
  const { requests, url } = yield* serve((_, response) => handler(response, requests.length))
  return { url, count: () => requests.length }
})

/** Waits until a condition holds; the test's own timeout is the limit. */
const until = <A>(effect: Effect.Effect<A>, holds: (a: A) => boolean) =>
  Effect.repeat(effect, { until: holds, schedule: Schedule.spaced("2 millis") })

const idle = (pool: Effect.Effect<Budget.PoolStatus>) =>
  until(pool, ({ inFlight, queued }) => inFlight === 0 && queued === 0)

const level = (pool: Effect.Effect<Budget.PoolStatus>, dimension: "inputTokens" | "outputTokens") =>
  Effect.map(pool, (pool) => pool.dimensions[dimension]!.level)

/** Lets promises and fibers run until they wait for something outside of the process. */
const turns = Effect.promise(async () => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
})

const pass = (time: Duration.Input) => Effect.andThen(TestClock.adjust(time), turns)

const governed = Governor.layer({ retry: Retry.make({ base: "5 millis", jitter: "none", attempts: 2 }) }).pipe(
  Layer.provideMerge(Budget.layer({ limits: { requests: { total: 1_000 } } }))
)

/** A call on the test's clock, with answers that the test writes piece by piece. */
const byHand = Effect.fnUntraced(function* (
  status: number,
  options: Parameters<typeof Floodgate.make>[0] = {},
  maxRetries = 0
) {
  const bodies: Array<ReadableStreamDefaultController<Uint8Array>> = []
  const signals: Array<AbortSignal | null | undefined> = []
  const fetch: typeof globalThis.fetch = (_, init) => {
    signals.push(init?.signal)
    const body = new ReadableStream<Uint8Array>({ start: (body) => void bodies.push(body) })
    return Promise.resolve(new Response(body, { status, headers: { "content-type": "application/json" } }))
  }
  const middleware = yield* Floodgate.make(options)
  const client = new Anthropic({ apiKey: "any", maxRetries, middleware: [middleware], fetch })
  const call = Effect.promise(() => client.messages.create(params()).catch((error: unknown) => error))
  const answer = yield* Effect.forkChild(call, { startImmediately: true })
  yield* turns
  return {
    answer,
    signals,
    write: (text: string) =>
      Effect.andThen(
        Effect.sync(() => bodies.at(-1)!.enqueue(new TextEncoder().encode(text))),
        turns
      ),
    end: Effect.sync(() => bodies.at(-1)!.close())
  }
})

/** Limits that never refill, so that levels show what was settled. */
const ledger: Options = {
  limits: { requests: { total: 1_000 }, inputTokens: { total: 100_000 }, outputTokens: { total: 100_000 } }
}

const frame = (type: string, more: object = {}) => `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`
const started = frame("message_start", {
  message: {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "claude-sonnet-5",
    content: [],
    usage: { input_tokens: 10, output_tokens: 1 }
  }
})
const content =
  frame("content_block_start", { index: 0, content_block: { type: "text", text: "" } }) +
  frame("content_block_delta", { index: 0, delta: { type: "text_delta", text: "x".repeat(27) } })
const ended =
  frame("content_block_stop", { index: 0 }) +
  frame("message_delta", { delta: { stop_reason: "end_turn" }, usage: { output_tokens: 7 } }) +
  frame("message_stop")
const overloaded = frame("error", { error: { type: "overloaded_error", message: "Overloaded" } })

const events = (response: Http.ServerResponse, body: string, last: "end" | "cut" | "open" = "end") => {
  response.writeHead(200, { "content-type": "text/event-stream", "request-id": "req_1" })
  response.write(body, () => {
    if (last === "end") response.end()
    if (last === "cut") response.socket?.destroy()
  })
}

/** A `fetch` like `node-fetch`, whose bodies are Node's streams. */
const nodeFetch: typeof fetch = async (...request) => {
  const response = await fetch(...request)
  return response.body === null
    ? response
    : Object.defineProperty(response, "body", { value: Readable.fromWeb(response.body as NodeReadableStream) })
}

describe("floodgate/anthropic", () => {
  describe("twelve agents against a limit that binds", () => {
    it.live("get no 429 through the middleware", () =>
      Effect.gen(function* () {
        const agents = Array.from({ length: 12 }, (_, agent) => `agent ${agent}`)
        // 6,000 tokens a second; the provider's time runs 20 times faster.
        const limits = { inputTokens: { perSecond: 6_000, burst: 60_000 } }
        const server = { limits, timeScale: 20, latency: { baseMillis: 500 }, outputTokens: 20 }
        const provider = yield* ProviderServer.make(server)
        const { client } = yield* install(provider.url, {
          limits: { inputTokens: { perSecond: 6_000 * 20, burst: 60_000 } }
        })
        // Two calls of 15,000 tokens each: six times what the provider takes at once.
        yield* Effect.forEach(
          agents,
          (agent) =>
            Effect.promise(async () => {
              for (let call = 0; call < 2; call++) await client.messages.create(params(60_000, agent))
            }),
          { concurrency: "unbounded" }
        )
        assert.strictEqual((yield* provider.stats).completed, 24)
      })
    )
  })

  describe("create", () => {
    it.live("returns what it learned of calls as plain data, and accepts it again", () =>
      Effect.gen(function* () {
        const { client, floodgate, provider } = yield* simulated({})
        yield* Effect.promise(() => client.messages.create(params()))
        const learned = yield* Effect.promise(floodgate.learned)
        assert.deepStrictEqual(learned.profiles[0]?.outputs, [20])
        const text = JSON.stringify(learned)
        const next = yield* install(provider.url, { learned: JSON.parse(text) })
        assert.strictEqual(JSON.stringify(yield* Effect.promise(next.floodgate.learned)), text)
      })
    )

    it.live("fails waiting and later calls when it is disposed", () =>
      Effect.gen(function* () {
        const { client, floodgate, pool, provider } = yield* simulated({ latency: slow }, { concurrency: 1 })
        const running = rejection(() => client.messages.create(params()))
        const waiting = rejection(() => client.messages.create(params()))
        const errors = yield* Effect.all(
          [
            running,
            waiting,
            Effect.andThen(
              Effect.andThen(
                until(pool, ({ queued }) => queued === 1),
                until(provider.stats, ({ inFlight }) => inFlight === 1)
              ),
              Effect.promise(floodgate.dispose)
            )
          ],
          { concurrency: "unbounded" }
        )
        const later = yield* rejection(() => client.messages.create(params()))
        for (const error of [errors[0], errors[1], later]) assert.match(String(error), /was closed/)
        yield* until(provider.stats, ({ aborted }) => aborted === 1)
      })
    )
  })

  describe("a whole answer", () => {
    it.live("settles to its usage and keeps what the SDK gives: data, response and request id", () =>
      Effect.gen(function* () {
        const { client, pool } = yield* simulated({}, ledger)
        const { data, request_id, response } = yield* Effect.promise(() =>
          client.messages.create(params(4_000)).withResponse()
        )
        assert.deepStrictEqual([data.usage.input_tokens, data.usage.output_tokens], [1_000, 20])
        assert.strictEqual(response.status, 200)
        assert.match(request_id!, /^req_sim/)
        const status = yield* idle(pool)
        assert.strictEqual(status.dimensions.inputTokens!.level, 99_000)
        assert.strictEqual(status.dimensions.outputTokens!.level, 99_980)
      })
    )

    it.live("governs beta messages too, and passes other calls on", () =>
      Effect.gen(function* () {
        const { client, pool } = yield* simulated({}, ledger)
        yield* Effect.promise(() => client.beta.messages.create({ ...params(4_000), betas: ["context-1m-2025-08-07"] }))
        yield* Effect.promise(() =>
          client.messages.countTokens({ model: "claude-sonnet-5", messages: params().messages })
        )
        const status = yield* idle(pool)
        assert.strictEqual(status.dimensions.requests!.level, 999)
        assert.strictEqual(status.dimensions.inputTokens!.level, 99_000)
      })
    )

    it.live("is retried on 529 by the governor, not by the SDK", () =>
      Effect.gen(function* () {
        const { client, provider } = yield* simulated({ faults: [{ kind: "529", calls: [1] }] })
        yield* Effect.promise(() => client.messages.create(params(), { maxRetries: 0 }))
        assert.strictEqual((yield* provider.stats).requests, 2)
      })
    )

    it.live("has new headers for each attempt, which another middleware may change", () =>
      Effect.gen(function* () {
        const { requests, url } = yield* serve((_, response) => {
          response.writeHead(requests.length < 3 ? 500 : 200, { "content-type": "application/json" })
          response.end(JSON.stringify({ id: "msg_1", type: "message" }))
        })
        const { floodgate } = yield* install(url)
        const client = new Anthropic({
          baseURL: url,
          apiKey: "any",
          middleware: [
            floodgate.middleware,
            (request, next) => {
              request.headers.append("x-team", "docs")
              return next(request)
            }
          ]
        })
        yield* Effect.promise(() => client.messages.create(params()))
        assert.deepStrictEqual(
          requests.map(({ headers }) => headers["x-team"]),
          ["docs", "docs", "docs"]
        )
      })
    )

    it.live("gives up with the SDK's own error, and the SDK does not start again", () =>
      Effect.gen(function* () {
        const { client, provider } = yield* simulated({ faults: [{ kind: "529" }] }, { retry: once })
        const error = yield* rejection(() => client.messages.create(params()))
        assert.instanceOf(error, OverloadedError)
        assert.strictEqual(error.type, "overloaded_error")
        assert.match(error.requestID!, /^req_sim/)
        assert.strictEqual((yield* provider.stats).requests, 1)
      })
    )

    it.live("does not repeat a connection that was given up, whatever the SDK's maxRetries", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response) => response.socket?.destroy())
        const { client } = yield* install(url, { retry: once })
        const error = yield* rejection(() => client.messages.create(params(), { maxRetries: 1 }))
        assert.instanceOf(error, APIConnectionError)
        assert.strictEqual(count(), 1)
      })
    )

    it.live("retries an answer whose body breaks off", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response, count) => {
          response.writeHead(200, { "content-type": "application/json", "content-length": "100" })
          if (count === 1) response.write('{"id":', () => response.socket?.destroy())
          else response.end(JSON.stringify({ id: "msg_1", type: "message" }).padEnd(100))
        })
        const { client } = yield* install(url)
        const message = yield* Effect.promise(() => client.messages.create(params()))
        assert.strictEqual(message.id, "msg_1")
        assert.strictEqual(count(), 2)
      })
    )

    it.effect("that stops half-way is retried after 10 minutes, and refunded if it stops again", () =>
      Effect.gen(function* () {
        const { answer, signals, write } = yield* byHand(200, { idleTimeout: "1 second" })
        yield* write('{"id":')
        yield* pass("599999 millis")
        assert.strictEqual(signals[0]?.aborted, false)
        yield* pass("1 millis")
        assert.strictEqual(signals[0]?.aborted, true)
        yield* pass("5 millis")
        assert.strictEqual(signals.length, 2)
        yield* TestClock.adjust("10 minutes")
        assert.instanceOf(yield* Fiber.join(answer), APIConnectionTimeoutError)
        const { pools } = yield* Budget.TokenBudget.use(({ status }) => status)
        assert.strictEqual(pools["default"]!.inFlight, 0)
      }).pipe(Effect.provide(governed))
    )

    it.effect.each([
      [200, "9 minutes"],
      [400, "499 millis"]
    ] as const)("with status %d may take long, as long as something comes", ([status, silence]) =>
      Effect.gen(function* () {
        const { answer, end, signals, write } = yield* byHand(status, { idleTimeout: "500 millis" })
        for (let silences = 0; silences < 4; silences++) {
          yield* TestClock.adjust(silence)
          yield* write(" ")
        }
        yield* write(JSON.stringify({ id: "msg_1", type: "message", error: { message: "In the end" } }))
        yield* end
        const got = yield* Fiber.join(answer)
        if (status === 200) assert.deepInclude(got, { id: "msg_1" })
        else assert.match(String(got), /In the end/)
        assert.strictEqual(signals.length, 1)
      }).pipe(Effect.provide(governed))
    )

    it.live("with an error whose body stops half-way is the error without its text", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response) => {
          response.writeHead(400, { "content-type": "application/json" })
          response.write('{"error":')
        })
        const { client, pool } = yield* install(url, { ...ledger, idleTimeout: "100 millis" })
        const error = yield* rejection(() => client.messages.create(params()))
        assert.deepInclude(error, { status: 400 })
        assert.strictEqual(count(), 1)
        yield* idle(pool)
      })
    )

    it.live("with an error whose body drips for ever is the error without its text", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response) => {
          response.writeHead(400, { "content-type": "application/json" })
          const timer = setInterval(() => response.write(" "), 20)
          response.on("close", () => clearInterval(timer))
        })
        const { client, pool } = yield* install(url, { ...ledger, idleTimeout: "200 millis" })
        const error = yield* rejection(() => client.messages.create(params()))
        assert.deepInclude(error, { status: 400 })
        assert.strictEqual(count(), 1)
        yield* idle(pool)
      })
    )

    it.live("whose body another middleware has read fails in the SDK, or is the error without its text", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response, count) => {
          response.writeHead(count === 2 ? 400 : 200, { "content-type": "application/json" })
          response.end('{"error":{"type":"invalid_request_error"}}')
        })
        const { floodgate, pool } = yield* install(url, ledger)
        const client = new Anthropic({
          baseURL: url,
          apiKey: "any",
          middleware: [
            floodgate.middleware,
            async (request, next) => {
              const response = await next(request)
              await response.text()
              return response
            }
          ]
        })
        assert.match(
          String(yield* rejection(() => client.messages.create(params()))),
          /AnthropicError: middleware consumed the response body/
        )
        assert.deepInclude(yield* rejection(() => client.messages.create(params())), { status: 400 })
        const streamed = yield* rejection(() => client.messages.create({ ...params(), stream: true }))
        assert.match(String(streamed), /AnthropicError: middleware consumed/)
        assert.strictEqual(count(), 3)
        yield* idle(pool)
      })
    )

    // Regression: an odd usage was lost to a TypeError, and null counted as no tokens, "10" as 100.
    it.live.each([
      ["null", 100],
      ["5", 100],
      ['{"output_tokens":5}', 5],
      ['{"input_tokens":null,"output_tokens":5}', 5],
      ['{"input_tokens":"0","output_tokens":5}', 5],
      ['{"input_tokens":-1,"output_tokens":5}', 5],
      ['{"input_tokens":1e300,"output_tokens":5}', 5],
      ['{"input_tokens":10,"output_tokens":null}', 100],
      ['{"input_tokens":10,"output_tokens":1e300}', 100]
    ] as const)("keeps the estimate of what its usage does not count: %s", ([usage, output]) =>
      Effect.gen(function* () {
        const { url } = yield* scripted((response) => {
          response.writeHead(200, { "content-type": "application/json" })
          response.end(`{"id":"msg_1","type":"message","usage":${usage}}`)
        })
        const { client, pool } = yield* install(url, ledger)
        assert.deepInclude(yield* Effect.promise(() => client.messages.create(params())), { id: "msg_1" })
        yield* idle(pool)
        assert.strictEqual(yield* level(pool, "inputTokens"), 100_000 - 17)
        assert.strictEqual(yield* level(pool, "outputTokens"), 100_000 - output)
      })
    )

    it.live("by a fetch with Node's streams is read and settled, however large it is", () =>
      Effect.gen(function* () {
        const usage = { input_tokens: 1_000, output_tokens: 20 }
        const content = [{ type: "text" as const, text: "x".repeat(200_000), citations: null }]
        const { url } = yield* scripted((response, count) => {
          response.writeHead(count === 1 ? 200 : 400, { "content-type": "application/json" })
          response.end(
            JSON.stringify({ id: "msg_1", type: "message", usage, content, error: { message: "In the end" } })
          )
        })
        const { client, pool } = yield* install(url, ledger, { fetch: nodeFetch })
        assert.deepInclude(yield* Effect.promise(() => client.messages.create(params())), { content })
        assert.match(String(yield* rejection(() => client.messages.create(params()))), /In the end/)
        yield* idle(pool)
        assert.strictEqual(yield* level(pool, "inputTokens"), 99_000)
      })
    )

    it.live.each([304, 999])("with the odd status %d is the SDK's own error, as without the middleware", (status) =>
      Effect.gen(function* () {
        const { url } = yield* scripted((response) => response.writeHead(status).end())
        const { client, pool } = yield* install(url, { ...ledger, retry: Retry.make({ attempts: 1 }) })
        const error = yield* rejection(() => client.messages.create(params()))
        assert.instanceOf(error, APIError)
        assert.strictEqual(error.status, status)
        yield* idle(pool)
      })
    )

    it.live.each([undefined, nodeFetch])("with status 204 has no content", (fetch) =>
      Effect.gen(function* () {
        const { url } = yield* scripted((response) => response.writeHead(204).end())
        const { client, pool } = yield* install(url, ledger, fetch && { fetch })
        assert.isNull(yield* Effect.promise(() => client.messages.create(params())))
        yield* idle(pool)
      })
    )

    it.live("does not retry if the provider says that it does not help", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response) =>
          response.writeHead(500, { "x-should-retry": "false" }).end()
        )
        const { client } = yield* install(url)
        assert.instanceOf(yield* rejection(() => client.messages.create(params())), InternalServerError)
        assert.strictEqual(count(), 1)
      })
    )

    it.live("does not retry spend limits, although they come as 429", () =>
      Effect.gen(function* () {
        const { client, provider } = yield* simulated({
          faults: [{ kind: "429", errorCode: "enforced_spend_limit_reached" }]
        })
        const error = yield* rejection(() => client.messages.create(params()))
        assert.instanceOf(error, RateLimitError)
        assert.strictEqual((yield* provider.stats).requests, 1)
      })
    )

    it.live("does not retry errors of fetch that are not network failures", () =>
      Effect.gen(function* () {
        let asked = 0
        const fetch = () => Promise.reject(new Error(`refused ${++asked}`))
        const { client } = yield* install("http://provider.test", {}, { fetch, maxRetries: 1 })
        const error = yield* rejection(() => client.messages.create(params()))
        assert.instanceOf(error, APIConnectionError)
        assert.strictEqual(asked, 1)
      })
    )

    it.live("reports a retry that the budget refuses as its own error, although a timeout was before it", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response) =>
          response.writeHead(504).end('{"error":{"type":"timeout_error","message":"Timed out"}}')
        )
        const { client } = yield* install(url, { limits: { requests: { total: 2 } } }, { maxRetries: 1 })
        const error = yield* rejection(() => client.messages.create(params()))
        assert.instanceOf(error, Budget.BudgetError)
        assert.match(error.message, /has 0 left: .* \(a retry, after: .*Timed out/)
        assert.match(String(error), /has 0 left: .* \(a retry, after: .*Timed-out/)
        assert.strictEqual(count(), 2)
      })
    )

    it.live("throws the budget's own error for a refusal", () =>
      Effect.gen(function* () {
        const { client, provider } = yield* simulated({}, { limits: { inputTokens: { total: 100 } } })
        const error = yield* rejection(() => client.messages.create(params(40_000)))
        assert.instanceOf(error, Budget.BudgetError)
        assert.strictEqual((yield* provider.stats).requests, 0)
      })
    )
  })

  describe("counting prompts", () => {
    /** Two prompts that are estimated at 40,000 tokens each, and fit together only as the provider counts them. */
    const two = (options: Options) =>
      Effect.gen(function* () {
        const { client, provider } = yield* simulated(
          { charsPerToken: 4, latency: { ...fast, baseMillis: 300 } },
          { limits: { inputTokens: { perSecond: 1_000, burst: 70_000 } }, ...options }
        )
        const ask = Effect.exit(Effect.promise(() => client.messages.create(params(108_000))))
        const exits = yield* Effect.all([ask, ask], { concurrency: "unbounded" })
        const { completed, countTokens } = yield* provider.stats
        assert.isTrue(exits.every((exit) => exit._tag === "Success"))
        return { completed, countTokens }
      })

    it.live("counts a large prompt that waits, through the same client", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* two({}), { completed: 2, countTokens: 1 })
        assert.deepStrictEqual(yield* two({ countPrompts: false }), { completed: 2, countTokens: 0 })
      })
    )

    it.live("does not send a prompt twice to a provider that cannot count", () =>
      Effect.gen(function* () {
        const paths: Array<string> = []
        const { client } = yield* install(
          "http://localhost",
          { limits: { inputTokens: { perSecond: 40_000, burst: 41_000 } } },
          {
            fetch: (url) => {
              const { pathname } = new URL(String(url))
              paths.push(pathname)
              const answer = {
                type: "message",
                role: "assistant",
                content: [],
                usage: { input_tokens: 1, output_tokens: 1 }
              }
              return Promise.resolve(
                pathname.endsWith("/count_tokens") ? new Response("{}", { status: 404 }) : Response.json(answer)
              )
            }
          }
        )
        const ask = Effect.promise(() => client.messages.create(params(108_000)))
        yield* Effect.all([ask, ask, ask], { concurrency: "unbounded" })
        assert.isAtMost(paths.filter((path) => path === "/v1/messages/count_tokens").length, 2)
        assert.strictEqual(paths.filter((path) => path === "/v1/messages").length, 3)
      })
    )
  })

  describe("aborting", () => {
    it.live("in the queue frees the place at once, and sends nothing", () =>
      Effect.gen(function* () {
        const { client, pool, provider } = yield* simulated({ latency: slow }, { concurrency: 1 })
        const running = new AbortController()
        const waiting = new AbortController()
        const errors = Effect.all(
          [running, waiting].map(({ signal }) => rejection(() => client.messages.create(params(), { signal }))),
          { concurrency: "unbounded" }
        )
        const steps = Effect.gen(function* () {
          yield* until(pool, ({ inFlight, queued }) => inFlight === 1 && queued === 1)
          waiting.abort()
          yield* until(pool, ({ queued }) => queued === 0)
          yield* until(provider.stats, ({ inFlight }) => inFlight === 1)
          running.abort()
          yield* idle(pool)
          const stats = yield* until(provider.stats, ({ aborted }) => aborted === 1)
          assert.strictEqual(stats.requests, 1)
        })
        const [[first, second]] = yield* Effect.all([errors, steps], { concurrency: "unbounded" })
        assert.instanceOf(first, APIUserAbortError)
        assert.instanceOf(second, APIUserAbortError)
      })
    )

    it.live("does not count the queue towards the SDK's timeout", () =>
      Effect.gen(function* () {
        const { client, pool, provider } = yield* simulated({ latency: slow }, { concurrency: 1 })
        // The SDK's timer is known by its length: a call that waits in the queue has none.
        const timeout = 123_456_789
        const timers = yield* Effect.acquireRelease(
          Effect.sync(() => vi.spyOn(globalThis, "setTimeout")),
          (spy) => Effect.sync(() => spy.mockRestore())
        )
        const armed = () => timers.mock.calls.filter(([, millis]) => millis === timeout).length
        const stop = new AbortController()
        const calls = Array.from({ length: 3 }, () =>
          client.messages.create(params(), { timeout, signal: stop.signal }).catch((error: unknown) => error)
        )
        yield* until(pool, ({ queued }) => queued === 2)
        yield* until(provider.stats, ({ inFlight }) => inFlight === 1)
        assert.strictEqual(armed(), 1)
        stop.abort()
        yield* Effect.promise(() => Promise.all(calls))
      })
    )

    it.effect("by the governor's timeout retries the call", () =>
      Effect.gen(function* () {
        const { answer, end, signals, write } = yield* byHand(200, { callOptions: { timeout: "1 second" } })
        yield* pass("999 millis")
        assert.strictEqual(signals[0]?.aborted, false)
        yield* pass("1 millis")
        assert.strictEqual(signals[0]?.aborted, true)
        yield* pass("5 millis")
        yield* write(JSON.stringify({ id: "msg_1", type: "message" }))
        yield* end
        assert.deepInclude(yield* Fiber.join(answer), { id: "msg_1" })
        assert.strictEqual(signals.length, 2)
      }).pipe(Effect.provide(governed))
    )

    it.effect("by the governor's last timeout fails with its own error, which the SDK does not retry", () =>
      Effect.gen(function* () {
        const { answer, signals } = yield* byHand(200, { callOptions: { timeout: "1 second", retry: once } }, 1)
        yield* pass("1 second")
        const error = yield* Fiber.join(answer)
        assert.instanceOf(error, LlmError)
        assert.strictEqual(error.reason._tag, "TimedOut")
        assert.match(String(error), /raise the time-out/)
        assert.strictEqual(signals.length, 1)
      }).pipe(Effect.provide(governed))
    )
  })

  describe("a stream", () => {
    it.live("settles to its usage when it ends", () =>
      Effect.gen(function* () {
        const { client, pool } = yield* simulated({}, ledger)
        const message = yield* Effect.promise(() => client.messages.stream(params(4_000)).finalMessage())
        assert.strictEqual(message.usage.output_tokens, 20)
        const status = yield* idle(pool)
        assert.strictEqual(status.dimensions.inputTokens!.level, 99_000)
        assert.strictEqual(status.dimensions.outputTokens!.level, 99_980)
      })
    )

    it.live("gives the response as the provider does, with its address", () =>
      Effect.gen(function* () {
        const { client, url } = yield* simulated({})
        const response = yield* Effect.promise(() => client.messages.create({ ...params(), stream: true }).asResponse())
        assert.deepInclude(response, { status: 200, url: `${url}/v1/messages` })
        yield* Effect.promise(() => response.text())
      })
    )

    it.live("holds its reservation while it runs, and settles to what was observed when the consumer breaks off", () =>
      Effect.gen(function* () {
        const { url } = yield* scripted((response) => events(response, started + content, "open"))
        const { client, pool } = yield* install(url, ledger)
        yield* Effect.promise(async () => {
          for await (const event of await client.messages.create({ ...params(), stream: true })) {
            assert.strictEqual((await Effect.runPromise(pool)).inFlight, 1)
            if (event.type === "content_block_delta") break
          }
        })
        yield* idle(pool)
        assert.strictEqual(yield* level(pool, "inputTokens"), 99_990)
        assert.strictEqual(yield* level(pool, "outputTokens"), 100_000 - 11)
      })
    )

    it.live("settles when it is aborted before anybody reads it", () =>
      Effect.gen(function* () {
        const { url } = yield* scripted((response) => events(response, started + content, "open"))
        const { client, pool } = yield* install(url, ledger)
        const stream = yield* Effect.promise(() => client.messages.create({ ...params(), stream: true }))
        assert.strictEqual((yield* pool).inFlight, 1)
        stream.controller.abort()
        yield* idle(pool)
        assert.strictEqual(yield* level(pool, "outputTokens"), 100_000 - 11)
      })
    )

    it.live("by a fetch with Node's streams has all its events, and settles to its usage", () =>
      Effect.gen(function* () {
        const { url } = yield* scripted((response) => events(response, started + content + ended))
        const { client, pool } = yield* install(url, ledger, { fetch: nodeFetch })
        const message = yield* Effect.promise(() => client.messages.stream(params()).finalMessage())
        assert.strictEqual(message.usage.output_tokens, 7)
        yield* idle(pool)
        assert.strictEqual(yield* level(pool, "outputTokens"), 100_000 - 7)
      })
    )

    it.live("by a fetch with Node's streams may not fall silent either", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response, count) =>
          count === 1 ? events(response, started, "open") : events(response, started + content + ended)
        )
        const { client, pool } = yield* install(url, { ...ledger, idleTimeout: "200 millis" }, { fetch: nodeFetch })
        const message = yield* Effect.promise(() => client.messages.stream(params()).finalMessage())
        assert.strictEqual(message.usage.output_tokens, 7)
        assert.isAtLeast(count(), 2)
        yield* idle(pool)
      })
    )

    it.live("that is aborted at its message_stop has succeeded", () =>
      Effect.gen(function* () {
        // Regression: it counted as interrupted, so nothing was learned and a paused pool never regained its rate.
        const { url } = yield* scripted((response) => events(response, started + content + ended, "open"))
        const { client, floodgate, pool } = yield* install(url, ledger)
        yield* Effect.promise(async () => {
          const stream = await client.messages.create({ ...params(), stream: true })
          for await (const event of stream) if (event.type === "message_stop") stream.controller.abort()
        })
        yield* idle(pool)
        const { profiles } = yield* Effect.promise(floodgate.learned)
        assert.deepStrictEqual(profiles[0]?.outputs, [7])
      })
    )

    it.live("that is whole and dropped unread has succeeded", () =>
      Effect.gen(function* () {
        const { url } = yield* scripted((response) => events(response, started + content + ended, "open"))
        const { client, floodgate, pool } = yield* install(url, ledger)
        yield* Effect.promise(async () => void (await client.messages.create({ ...params(), stream: true })))
        yield* until(Effect.andThen(collect, pool), ({ inFlight }) => inFlight === 0)
        const { profiles } = yield* Effect.promise(floodgate.learned)
        assert.deepStrictEqual(profiles[0]?.outputs, [7])
      })
    )

    it.live("settles when it is dropped before anybody reads it, and the request ends", () =>
      Effect.gen(function* () {
        let open = 0
        const { url } = yield* scripted((response) => {
          open++
          response.on("close", () => open--)
          events(response, started + content, "open")
        })
        const { client, pool } = yield* install(url, ledger)
        yield* Effect.promise(async () => void (await client.messages.create({ ...params(), stream: true })))
        yield* until(Effect.andThen(collect, pool), ({ inFlight }) => inFlight === 0 && open === 0)
        assert.strictEqual(yield* level(pool, "outputTokens"), 100_000 - 11)
      })
    )

    it.live("that had waited in the queue is settled when it is dropped unread, too", () =>
      Effect.gen(function* () {
        const { url } = yield* scripted((response) => events(response, started + content, "open"))
        const { client, pool } = yield* install(url, { ...ledger, concurrency: 1 })
        const first = yield* Effect.promise(() => client.messages.create({ ...params(), stream: true }))
        const second = client.messages.create({ ...params(), stream: true }).then(() => undefined)
        yield* until(pool, ({ queued }) => queued === 1)
        first.controller.abort()
        yield* Effect.promise(() => second)
        yield* until(Effect.andThen(collect, pool), ({ inFlight }) => inFlight === 0)
      })
    )

    it.live("keeps no request in memory while it streams", () =>
      Effect.gen(function* () {
        const { url } = yield* scripted((response) => events(response, started + content, "open"))
        const { client, pool } = yield* install(url, ledger)
        const [stream, request] = yield* Effect.promise(async () => {
          const request = params()
          return [await client.messages.create({ ...request, stream: true }), new WeakRef(request.messages)] as const
        })
        yield* until(collect, () => request.deref() === undefined)
        assert.strictEqual((yield* pool).inFlight, 1)
        stream.controller.abort()
      })
    )

    it.live("leaves nothing in memory when it was read", () =>
      Effect.gen(function* () {
        const { url } = yield* scripted((response) => events(response, started + content + ended))
        const { client } = yield* install(url, { ...ledger, concurrency: 1 })
        const bodies = yield* Effect.promise(() =>
          Promise.all(
            Array.from({ length: 3 }, async () => {
              const { data, response } = await client.messages.create({ ...params(), stream: true }).withResponse()
              for await (const _ of data);
              return new WeakRef(response.body!)
            })
          )
        )
        yield* until(collect, () => bodies.every((body) => body.deref() === undefined))
      })
    )

    it.live("is retried while it has no content: an error event, a cut, an early end", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response, count) => {
          if (count === 1) return events(response, started + overloaded)
          if (count === 2) return events(response, started, "cut")
          if (count === 3) return events(response, started)
          events(response, started + content + ended)
        })
        const { client, pool } = yield* install(url, ledger)
        const message = yield* Effect.promise(() => client.messages.stream(params()).finalMessage())
        assert.strictEqual(message.usage.output_tokens, 7)
        assert.strictEqual(count(), 4)
        yield* idle(pool)
        assert.strictEqual(yield* level(pool, "outputTokens"), 100_000 - 7 - 3)
      })
    )

    it.live("gives up with the SDK's error for the stream's error event", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response) => events(response, started + overloaded))
        const { client } = yield* install(url, { retry: once })
        const error = yield* rejection(() => client.messages.stream(params()).finalMessage())
        assert.instanceOf(error, APIError)
        assert.strictEqual(error.type, "overloaded_error")
        assert.strictEqual(count(), 1)
      })
    )

    it.live("is not retried once it has content: a cut reaches the consumer, and settles to what was observed", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response) => events(response, started + content, "cut"))
        const { client, pool } = yield* install(url, ledger)
        const seen: Array<string> = []
        const error = yield* rejection(async () => {
          for await (const event of await client.messages.create({ ...params(), stream: true })) seen.push(event.type)
        })
        assert.match(String(error), /terminated/)
        assert.deepStrictEqual(seen, ["message_start", "content_block_start", "content_block_delta"])
        assert.strictEqual(count(), 1)
        yield* idle(pool)
        assert.strictEqual(yield* level(pool, "outputTokens"), 100_000 - 11)
      })
    )

    it.live("that falls silent before its content is retried", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response, count) =>
          count === 1 ? events(response, started, "open") : events(response, started + content + ended)
        )
        const { client, pool } = yield* install(url, { ...ledger, idleTimeout: "200 millis" })
        const message = yield* Effect.promise(() => client.messages.stream(params()).finalMessage())
        assert.strictEqual(message.usage.output_tokens, 7)
        assert.isAtLeast(count(), 2)
        yield* idle(pool)
      })
    )

    it.live("that falls silent after its content ends with the SDK's timeout, and gives its reservation back", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response) => events(response, started + content, "open"))
        const { client, pool } = yield* install(url, { ...ledger, idleTimeout: "200 millis" })
        const seen: Array<string> = []
        const error = yield* rejection(async () => {
          for await (const event of await client.messages.create({ ...params(), stream: true })) seen.push(event.type)
        })
        assert.instanceOf(error, APIConnectionTimeoutError)
        assert.match(String(error), /silent for 200ms/)
        assert.deepStrictEqual(seen, ["message_start", "content_block_start", "content_block_delta"])
        assert.strictEqual(count(), 1)
        yield* idle(pool)
        assert.strictEqual(yield* level(pool, "outputTokens"), 100_000 - 11)
      })
    )

    it.live("that is whole succeeds, although the connection stays open and silent", () =>
      Effect.gen(function* () {
        const { url } = yield* scripted((response) => events(response, started + content + ended, "open"))
        const { client, pool } = yield* install(url, { ...ledger, idleTimeout: "200 millis" })
        const message = yield* Effect.promise(() => client.messages.stream(params()).finalMessage())
        assert.strictEqual(message.stop_reason, "end_turn")
        yield* idle(pool)
        assert.strictEqual(yield* level(pool, "outputTokens"), 100_000 - 7)
      })
    )

    it.live("without a body fails in the SDK, and is not retried", () =>
      Effect.gen(function* () {
        const { count, url } = yield* scripted((response) => response.writeHead(204).end())
        const { client, pool } = yield* install(url, ledger)
        const error = yield* rejection(() => client.messages.stream(params()).finalMessage())
        assert.match(String(error), /AnthropicError/)
        assert.strictEqual(count(), 1)
        yield* idle(pool)
      })
    )

    it.live.each(["Hello", "<html></html>"])(
      "fails on a body without events, without a retry, because the SDK would take it for an answer: %s",
      (body) =>
        Effect.gen(function* () {
          const { count, url } = yield* scripted((response) => response.end(body))
          const { client, pool } = yield* install(url)
          const thrown = yield* Effect.promise(async () => {
            const events: Array<unknown> = []
            try {
              for await (const event of await client.messages.create({ ...params(), stream: true })) events.push(event)
            } catch (error) {
              return error
            }
            return events
          })
          if (body === "Hello") {
            assert.instanceOf(thrown, APIConnectionError)
            assert.include(String(thrown), "not an event stream")
          } else {
            assert.instanceOf(thrown, LlmError)
            assert.include(String(thrown), "not an API of a provider")
          }
          assert.strictEqual(count(), 1)
          yield* idle(pool)
        })
    )
  })
})
