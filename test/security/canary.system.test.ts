import Sdk from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import * as Floodgate from "floodgate/anthropic"
import * as Budget from "floodgate/Budget"
import { ProviderServer } from "floodgate/testing/server"
import * as Events from "floodgate/Events"
import * as Fetch from "floodgate/fetch"
import * as Governor from "floodgate/Governor"
import * as LlmClient from "floodgate/LlmClient"
import * as Retry from "floodgate/Retry"
import * as Anthropic from "floodgate/providers/Anthropic"
import { inspect } from "node:util"
import { message as messageOf } from "../support/httpProvider.ts"
import { type Handler, serve } from "../support/httpServer.ts"
import { recordingTracer } from "../support/spans.ts"
import { some } from "../support/size.ts"

// Everything that takes a key gets this one, and the provider repeats it wherever it can. Then all output is searched for
// it. It has no prefix that a pattern could match.

const canary = "CaNaRy7Zq94xW2fKd81Ls0"
const apiKey = Redacted.make(canary)

const params = {
  model: "claude-sonnet-5",
  max_tokens: 100,
  messages: [{ role: "user" as const, content: "Hello" }]
}

const message = messageOf(10, 2)

// -----------------------------------------------------------------------------
// What came out
// -----------------------------------------------------------------------------

/** Everything that a program could print of a value: all reachable strings, hidden properties included. */
const printed = function* (value: unknown): Iterable<string> {
  yield String(value)
  const inJson = new Set<unknown>()
  yield (
    JSON.stringify(value, (_, part: unknown) => {
      if (typeof part === "bigint") return String(part)
      if (typeof part !== "object" || part === null) return part
      if (inJson.has(part)) return "[seen]"
      inJson.add(part)
      return part
    }) ?? ""
  )
  const seen = new Set<unknown>()
  const rest = [value]
  const push = (...parts: ReadonlyArray<unknown>): void => {
    for (const part of parts) {
      if (typeof part === "string") rest.push(part)
      else if (part === null || (typeof part !== "object" && typeof part !== "function") || seen.has(part)) continue
      else {
        seen.add(part)
        rest.push(part)
      }
    }
  }
  while (rest.length > 0) {
    const part = rest.pop()
    if (typeof part === "string") yield part
    else if (part instanceof Map) push(...part.keys(), ...part.values())
    else if (part instanceof Set) push(...part)
    else if (part instanceof ArrayBuffer || ArrayBuffer.isView(part))
      yield Buffer.from(part as ArrayBuffer).toString("latin1")
    else if (part instanceof Promise || part instanceof WeakMap) yield inspect(part, { depth: 3, showHidden: true })
    if (part === null || (typeof part !== "object" && typeof part !== "function")) continue
    for (const key of Reflect.ownKeys(part)) {
      yield String(key)
      push(Reflect.getOwnPropertyDescriptor(part, key)?.value)
    }
    if (part instanceof Error) push(String(part), part.stack)
  }
}

/** Records all spans and all log lines of an effect. */
const recorder = () => {
  const { spans, tracer } = recordingTracer()
  const lines: Array<unknown> = []
  const logger = Logger.make((options) => {
    lines.push(options.message, options.cause, Logger.formatJson.log(options), Logger.formatLogFmt.log(options))
  })
  const watch = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    effect.pipe(
      Effect.tapCause((cause) => Effect.logFatal("it failed", cause)),
      Effect.withSpan("the program"),
      Effect.withTracer(tracer),
      Effect.provide(Logger.layer([logger])),
      // Leaves out the metrics of other tests in this process.
      Effect.provideService(Metric.MetricRegistry, new Map()),
      Effect.provideService(References.MinimumLogLevel, "All"),
      Effect.provideService(References.UnhandledLogLevel, "Fatal")
    )
  return { spans, lines, watch }
}

const assertClean = (values: Record<string, unknown>): void => {
  for (const [name, value] of Object.entries(values)) {
    for (const text of printed(value)) assert.notInclude(text, canary, name)
  }
}

// -----------------------------------------------------------------------------
// What the provider does
// -----------------------------------------------------------------------------

const echo = (request: { readonly headers: Record<string, unknown> }) => String(request.headers["authorization"])
const bare = (request: { readonly headers: Record<string, unknown> }) => echo(request).replace(/^Bearer /, "")

/** Puts the key into the body, the error type, the code and the request's name. */
const failing =
  (status: number): Handler =>
  (request, response) => {
    response.writeHead(status, { "content-type": "application/json", "request-id": `req_${bare(request)}` })
    const key = bare(request)
    const error = { type: `type_${key}`, message: `You sent ${key}, ${echo(request)}`, details: { error_code: key } }
    response.end(JSON.stringify({ type: "error", error }))
  }

const text =
  (status: number, type: string): Handler =>
  (request, response) => {
    response.writeHead(status, { "content-type": type, "request-id": bare(request) })
    response.end(`You sent ${bare(request)} ${echo(request)}`)
  }

const frame = (event: string, data: unknown) => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`

const stream =
  (last: (key: string) => string | undefined): Handler =>
  (request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream", "request-id": bare(request) })
    response.write(frame("message_start", { type: "message_start", message: { ...message, content: [] } }))
    const end = last(bare(request))
    if (end !== undefined) response.end(end)
    else setImmediate(() => request.socket.destroy())
  }

const handlers: Record<string, Handler> = {
  ...Object.fromEntries(
    [400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 503, 529].map((status) => [status, failing(status)])
  ),
  "a page": text(502, "text/html"),
  "plain text": text(500, "text/plain"),
  "no JSON": text(200, "application/json"),
  "another shape": (request, response) => {
    response.writeHead(200, { "content-type": "application/json", "request-id": bare(request) })
    response.end(JSON.stringify({ key: bare(request) }))
  },
  "a cut connection": (request) => request.socket.destroy()
}

const streams: Record<string, Handler> = {
  ...handlers,
  "an error event": stream((key) => frame("error", { type: "error", error: { type: key, message: `Bearer ${key}` } })),
  "an event that is no JSON": stream((key) => `event: message_delta\ndata: ${key}\n\n`),
  "an error event that is no JSON": stream((key) => `event: error\ndata: ${key}\n\n`),
  "a truncated stream": stream(() => ""),
  "a cut stream": stream(() => undefined)
}

/** One attempt is enough to see an error. */
const once = Retry.make({ attempts: 1 })
const limits = { requests: { perMinute: 100_000 } }
const budget = Budget.layer({ limits })

const assertSpans = (spans: ReadonlyArray<Tracer.NativeSpan>): void => {
  assert.isAbove(spans.length, 1)
  assertClean({
    spans,
    attributes: spans.map((span) => [span.name, span.status, ...span.attributes]),
    events: spans.map((span) => span.events)
  })
}

/** Runs a call through a client, and searches everything that it leaves behind. */
const search = Effect.fnUntraced(function* <E>(
  how: "create" | "stream",
  live: Layer.Layer<LlmClient.LlmClient | Budget.TokenBudget, E>
) {
  const { lines, spans, watch } = recorder()
  const call = how === "create" ? LlmClient.create(params) : Stream.runDrain(LlmClient.stream(params))
  const program = Effect.gen(function* () {
    const client = yield* LlmClient.LlmClient
    const exit = yield* Effect.exit(Effect.withSpan(call, "the call"))
    yield* Effect.logTrace("it ended", exit)
    const status = yield* Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)
    const context = yield* Effect.context<LlmClient.LlmClient | Budget.TokenBudget>()
    const error = Exit.isFailure(exit) ? Exit.findErrorOption(exit) : undefined
    return { exit, error, status, context, client, learned: yield* client.learned, metrics: yield* Metric.snapshot }
  })
  const out = yield* watch(Effect.provide(program, live))
  assertClean({ ...out, live, lines })
  assertSpans(spans)
  assert.isAbove(lines.length, 0)
  return out.exit
})

const names = Object.keys(streams).flatMap((name) => [
  ...(name in handlers ? [["create", name] as const] : []),
  ["stream", name] as const
])

describe("a canary key", () => {
  it("is found wherever it hides", () => {
    const error = new Error("failed", { cause: { [Symbol("hidden")]: [new Map([[{}, new Set([canary])]])] } })
    const hidden = Object.defineProperty({}, "key", { value: { bytes: Buffer.from(canary) }, enumerable: false })
    const weak = { of: new WeakMap([[error, canary]]), later: Promise.resolve(canary), json: { toJSON: () => canary } }
    for (const value of [error, hidden, weak.of, weak.later, weak.json]) {
      assert.throws(() => assertClean({ value }), /CaNaRy/)
    }
  })

  it.live.each(some(names, 3))("is in nothing that a failed %s leaves when it meets %s", ([how, name]) =>
    Effect.gen(function* () {
      const server = yield* serve(streams[name]!)
      const client = LlmClient.layer({ apiKey, baseUrl: server.url, retry: once })
      const exit = yield* search(how, Layer.provideMerge(client, budget))
      assert.strictEqual(bare(server.requests[0]!), canary)
      assert.isTrue(Exit.isFailure(exit))
    })
  )

  it.live.each(["create", "stream"] as const)("is in nothing that a %s leaves when nothing listens", (how) =>
    Effect.gen(function* () {
      const { url } = yield* Effect.scoped(serve(() => {}))
      const client = LlmClient.layer({ apiKey, baseUrl: url, retry: once })
      assert.isTrue(Exit.isFailure(yield* search(how, Layer.provideMerge(client, budget))))
    })
  )

  it.live.each(["create", "stream"] as const)("is in nothing that a good %s leaves, at either end", (how) =>
    Effect.gen(function* () {
      const server = yield* ProviderServer.make({ latency: { baseMillis: 1 } })
      const env = ConfigProvider.fromUnknown({ ANTHROPIC_API_KEY: canary, ANTHROPIC_BASE_URL: server.url })
      const client = Layer.provide(LlmClient.layerConfig(), ConfigProvider.layer(env))
      const exit = yield* search(how, Layer.provideMerge(client, budget))
      assert.isTrue(Exit.isSuccess(exit), String(exit))
      assertClean({ server, log: yield* server.log, stats: yield* server.stats })
    })
  )

  it.live("is in no answer of the simulated provider", () =>
    Effect.gen(function* () {
      const server = yield* ProviderServer.make({ limits: { requests: { perMinute: 1, burst: 0.5 } } })
      const headers = { authorization: `Bearer ${canary}`, "x-api-key": canary }
      for (const [method, path, body] of [
        ["POST", "/v1/messages", JSON.stringify(params)],
        ["POST", "/v1/messages", JSON.stringify(params)],
        ["POST", "/v1/messages", "{"],
        ["POST", "/v1/messages/count_tokens", "[]"],
        ["GET", "/stats", undefined],
        ["GET", "/nowhere", undefined]
      ] as const) {
        const response = yield* Effect.promise(() =>
          fetch(`${server.url}${path}`, { method, headers, body: body ?? null })
        )
        assertClean({ path, headers: [...response.headers], body: yield* Effect.promise(() => response.text()) })
      }
    })
  )

  it.live("is in nothing of a client that somebody else made", () =>
    Effect.gen(function* () {
      const server = yield* serve(failing(401))
      const provider = Anthropic.fromClient(new Sdk({ apiKey: canary, baseURL: server.url }))
      const error = yield* Effect.flip(provider.create(params))
      assertClean({ error, reason: error.reason })
      assert.include(error.message, "<redacted>")
    })
  )

  const calls: ReadonlyArray<readonly [string, Handler]> = [
    [
      "succeeds",
      (request, response) => {
        request.resume()
        response.writeHead(200, { "content-type": "application/json" })
        response.end(JSON.stringify(message))
      }
    ],
    [
      "is rejected",
      (_, response) => {
        response.writeHead(429, { "content-type": "application/json" })
        response.end(JSON.stringify({ type: "error", error: { type: "rate_limit_error", message: "no" } }))
      }
    ],
    ["is cut off", (request) => request.socket.destroy()]
  ]
  it.live.each(calls)("is in nothing that the middleware adds when a call %s", ([, handler]) =>
    Effect.gen(function* () {
      const server = yield* serve(handler)
      const { lines, spans, watch } = recorder()
      const program = Effect.gen(function* () {
        const middleware = yield* Floodgate.make()
        const client = new Sdk({ apiKey: canary, baseURL: server.url, maxRetries: 0, middleware: [middleware] })
        const call = client.messages.create(params).then(
          (value) => value,
          (error: unknown) => error
        )
        return { result: yield* Effect.promise(() => call), middleware }
      })
      const governor = Layer.provideMerge(Governor.layer({ retry: once }), budget)
      const out = yield* watch(
        Effect.gen(function* () {
          const { middleware, result } = yield* program
          const status = yield* Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)
          yield* Effect.logTrace(result)
          return { middleware, result, status }
        }).pipe(Effect.provide(governor))
      )
      assert.strictEqual(bare(server.requests[0]!), canary)
      assertClean({ ...out, lines })
      assertSpans(spans)
    })
  )

  it.live.each(calls)("is in nothing that the governed fetch adds when a call %s", ([, handler]) =>
    Effect.gen(function* () {
      const server = yield* serve(handler)
      const { lines, spans, watch } = recorder()
      const events: Array<Events.Event> = []
      const program = Effect.gen(function* () {
        const fetch = yield* Fetch.make()
        const call = fetch(`${server.url}/v1/messages`, {
          method: "POST",
          headers: { authorization: `Bearer ${canary}` },
          body: JSON.stringify(params)
        }).then(
          async (response) => [...response.headers, await response.text()],
          (error: unknown) => error
        )
        const result = yield* Effect.promise(() => call)
        const status = yield* Effect.flatMap(Budget.TokenBudget, (budget) => budget.status)
        yield* Effect.logTrace(result)
        return { result, status }
      })
      const governor = Layer.provideMerge(Governor.layer({ retry: once }), budget).pipe(
        Layer.provide(Layer.succeed(Events.Observer, (event) => void events.push(event)))
      )
      const out = yield* watch(Effect.provide(program, governor))
      assert.strictEqual(bare(server.requests[0]!), canary)
      assertClean({ ...out, lines, events })
      assertSpans(spans)
    })
  )
})
