import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import type * as Http from "node:http"
import * as Net from "node:net"
import { gzipSync } from "node:zlib"
import { geminiList } from "../../../test/protocol/fixtures.ts"
import { until } from "../../../test/support/gateway.ts"
import { type Handler, serve, type TestServer } from "../../../test/support/httpServer.ts"

// These use real HTTP, so they run on the real clock. They wait for conditions, or for times of the gateway that are cut short.

const quick = Retry.make({ base: "5 millis", jitter: "none", attempts: 2 })

/** Limits that never refill, so that levels show what was settled. */
const ledger: Budget.Options = {
  limits: { requests: { total: 1_000 }, inputTokens: { total: 100_000 }, outputTokens: { total: 100_000 } }
}

interface World {
  readonly url: string
  readonly upstream: TestServer
  readonly bodies: ReadonlyArray<string>
  readonly pool: Effect.Effect<Budget.PoolStatus>
  /** Begins to close the gateway. */
  readonly close: Effect.Effect<void>
}

const world = Effect.fnUntraced(function* (
  answer: Handler,
  { budget = ledger, ...options }: Gateway.Options & { readonly budget?: Budget.Options } = {}
): Effect.fn.Return<World, Gateway.CannotListen, Scope.Scope> {
  const bodies: Array<string> = []
  const upstream = yield* serve((request, response, body) => {
    bodies.push(body)
    answer(request, response, body)
  })
  const context = yield* Layer.build(
    Governor.layer({ retry: quick as never }).pipe(Layer.provideMerge(Budget.layer(budget)))
  )
  const scope = yield* Scope.make()
  const gateway = yield* Gateway.make({
    upstreams: { anthropic: upstream.url, openai: upstream.url, gemini: upstream.url },
    drain: "20 millis",
    ...options
  }).pipe(Effect.provideContext(context), Scope.provide(scope))
  const close = Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => close)
  const { status } = Context.get(context, Budget.TokenBudget)
  const pool = Effect.map(
    status,
    ({ pools }) => Object.entries(pools).find(([name]) => name !== "default")?.[1] ?? pools["default"]!
  )
  return { url: gateway.url, upstream, bodies, pool, close }
})

/** Waits until everything has been released; the timeout of the test is the limit. */
const idle = ({ pool }: World) => until(pool, ({ inFlight, queued }) => inFlight === 0 && queued === 0)

interface Got {
  readonly status: number
  readonly headers: Headers
  readonly text: string
}

const ask = (url: string, init: RequestInit = {}): Effect.Effect<Got, unknown> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, { signal, ...init })
      return { status: response.status, headers: response.headers, text: await response.text() }
    },
    catch: (thrown) => thrown
  })

const chat = (more: object = {}, headers: Record<string, string> = {}): RequestInit => ({
  method: "POST",
  headers: { authorization: "Bearer sk-one-two-three", "content-type": "application/json", ...headers },
  body: JSON.stringify({ model: "gpt-6", messages: [{ role: "user", content: "Hello" }], ...more })
})

const completion = JSON.stringify({
  id: "c1",
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi, ✓" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 900, completion_tokens: 30 }
})

const json = (response: Http.ServerResponse, status: number, body: string, headers: Record<string, string> = {}) =>
  void response.writeHead(status, { "content-type": "application/json", ...headers }).end(body)

const answers: Handler = (_, response) => json(response, 200, completion, { "x-request-id": "r1" })

const event = (data: object): string => `data: ${JSON.stringify(data)}\n\n`
const events = [
  event({ id: "c1", choices: [{ index: 0, delta: { content: "Hi" } }] }),
  event({ id: "c1", choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }),
  event({ id: "c1", choices: [], usage: { prompt_tokens: 900, completion_tokens: 30 } }),
  "data: [DONE]\n\n"
]
const asksUsage = { stream: true, stream_options: { include_usage: true } }

describe("@floodgate/gateway", () => {
  describe("requests and answers", () => {
    it.live("sends a stream again as its client wrote it if the provider rejects the request for usage", () =>
      Effect.gen(function* () {
        const rejection = '{"error":{"message":"stream_options: Extra inputs are not permitted"}}'
        const here = yield* world((_, response, body) => {
          if (body.includes("stream_options")) return json(response, 422, rejection)
          response.writeHead(200, { "content-type": "text/event-stream" }).end(events[0]! + events[1]! + events[3]!)
        })
        const init = chat({ stream: true })
        for (const _ of [1, 2]) {
          const got = yield* ask(`${here.url}/v1/chat/completions`, init)
          assert.strictEqual(got.text, events[0]! + events[1]! + events[3]!)
        }
        assert.deepStrictEqual(here.bodies.slice(1), [init.body, init.body])
        yield* idle(here)
      })
    )

    it.live("settles a call to its usage, and changes no byte in either direction", () =>
      Effect.gen(function* () {
        const here = yield* world(answers)
        const body = '{ "model":"gpt-6",  "messages": [ {"role":"user","content":"H\\u00e9llo ✓"} ] }'
        const got = yield* ask(`${here.url}/v1/chat/completions?x=1`, {
          ...chat({}, { "x-floodgate-agent": "a7" }),
          body
        })
        assert.strictEqual(got.status, 200)
        assert.strictEqual(got.text, completion)
        assert.strictEqual(got.headers.get("x-request-id"), "r1")
        assert.deepStrictEqual(here.bodies, [body])
        const [sent] = here.upstream.requests
        assert.strictEqual(sent!.url, "/v1/chat/completions?x=1")
        assert.strictEqual(sent!.headers.authorization, "Bearer sk-one-two-three")
        assert.strictEqual(`http://${sent!.headers.host}`, here.upstream.url)
        assert.isUndefined(sent!.headers["x-floodgate-agent"])
        const pool = yield* idle(here)
        assert.strictEqual(pool.dimensions.inputTokens!.level, 99_100)
      })
    )

    it.live("passes a stream on as it arrives", () =>
      Effect.gen(function* () {
        let more = () => {}
        const here = yield* world((_, response) => {
          response.writeHead(200, { "content-type": "text/event-stream" }).write(events[0])
          more = () => void response.end(events.slice(1).join(""))
        })
        const response = yield* Effect.promise(() => fetch(`${here.url}/v1/chat/completions`, chat(asksUsage)))
        const reader = response.body!.getReader()
        const first = yield* Effect.promise(() => reader.read())
        assert.strictEqual(new TextDecoder().decode(first.value), events[0])
        more()
        let rest = ""
        for (;;) {
          const { done, value } = yield* Effect.promise(() => reader.read())
          if (done) break
          rest += new TextDecoder().decode(value)
        }
        assert.strictEqual(rest, events.slice(1).join(""))
        assert.strictEqual((yield* idle(here)).dimensions.inputTokens!.level, 99_100)
      })
    )

    it.live("reads an answer that is compressed without being asked", () =>
      Effect.gen(function* () {
        const here = yield* world((_, response) =>
          response
            .writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" })
            .end(gzipSync(completion))
        )
        const got = yield* ask(`${here.url}/v1/chat/completions`, chat())
        assert.strictEqual(here.upstream.requests[0]!.headers["accept-encoding"], "identity")
        assert.strictEqual(got.text, completion)
        assert.isNull(got.headers.get("content-encoding"))
        assert.strictEqual((yield* idle(here)).dimensions.inputTokens!.level, 99_100)
      })
    )

    it.live("passes on everything that is not a call, without queueing it", () =>
      Effect.gen(function* () {
        const here = yield* world((request, response, body) => json(response, 207, `${request.method} ${body}`), {
          budget: { limits: { requests: { total: 1 } }, concurrency: 1 }
        })
        for (const [method, path, body] of [
          ["POST", "/v1/images/edits", "{}"],
          ["POST", "/v1/messages/count_tokens", '{"a":1}'],
          ["GET", "/v1/models", undefined],
          ["POST", "/anthropic/model/amazon.nova/invoke", '{"inputText":"Hello"}'],
          ["DELETE", "/openai/unheard/of", undefined]
        ] as const) {
          const got = yield* ask(here.url + path, { method, ...(body === undefined ? {} : { body }) })
          assert.deepStrictEqual([got.status, got.text], [207, `${method} ${body ?? ""}`])
        }
        assert.strictEqual((yield* ask(`${here.url}/unheard/of`)).status, 404)
      })
    )

    it.live("answers 404 in the form of the path's provider if that has no upstream, and sends nothing", () =>
      Effect.gen(function* () {
        const other = yield* serve(answers)
        const here = yield* world(answers, { upstreams: { openai: other.url } })
        const claude = yield* ask(`${here.url}/v1/messages`, chat({}, { "x-api-key": "sk-a-secret" }))
        assert.deepStrictEqual([claude.status, claude.headers.get("x-should-retry")], [404, "false"])
        assert.deepInclude(JSON.parse(claude.text), {
          error: { type: "not_found_error", message: 'No upstream named "anthropic"; this gateway has openai' }
        })
        const groq = yield* ask(`${here.url}/groq/v1/chat/completions`, chat())
        assert.strictEqual(groq.status, 404)
        assert.deepInclude(JSON.parse(groq.text).error, {
          code: "not_found",
          message: 'No upstream named "groq"; this gateway has openai'
        })
        assert.strictEqual((yield* ask(`${here.url}/v1/chat/completions`, chat())).status, 200)
        assert.strictEqual(other.requests.length, 1)
      })
    )

    it.live("retries errors that may pass, and returns the last one unchanged", () =>
      Effect.gen(function* () {
        const error = '{"error":{"message":"no","type":"invalid_request_error"}}'
        let count = 0
        const here = yield* world((_, response) => {
          if (++count === 1) return json(response, 503, "{}")
          json(response, 400, error, { "x-mine": "1" })
        })
        const got = yield* ask(`${here.url}/v1/chat/completions`, chat())
        assert.deepStrictEqual([got.status, got.text, got.headers.get("x-mine")], [400, error, "1"])
        assert.strictEqual(got.headers.get("x-should-retry"), "false")
        assert.strictEqual(count, 2)
      })
    )
  })

  describe("clients that hang up", () => {
    it.live("leaves the queue, and sends nothing", () =>
      Effect.gen(function* () {
        const here = yield* world(() => {}, { budget: { ...ledger, concurrency: 1 } })
        const hangUp = new AbortController()
        const call = (signal?: AbortSignal) =>
          Effect.forkChild(ask(`${here.url}/v1/chat/completions`, { ...chat(), signal: signal ?? null }))
        yield* call()
        yield* until(here.pool, ({ inFlight }) => inFlight === 1)
        yield* call(hangUp.signal)
        yield* until(here.pool, ({ queued }) => queued === 1)
        hangUp.abort()
        yield* until(here.pool, ({ queued }) => queued === 0)
        assert.strictEqual(here.bodies.length, 1)
      })
    )

    it.live("aborts the call at the provider, before and during its answer", () =>
      Effect.gen(function* () {
        const here = yield* world((_, response, body) => {
          if (body.includes('"stream"')) {
            response.writeHead(200, { "content-type": "text/event-stream" }).write(events[0])
          }
        })
        for (const more of [{}, asksUsage]) {
          const hangUp = new AbortController()
          yield* Effect.forkChild(ask(`${here.url}/v1/chat/completions`, { ...chat(more), signal: hangUp.signal }))
          yield* until(Effect.sync(here.upstream.open), (open) => open === 1)
          hangUp.abort()
          yield* until(Effect.sync(here.upstream.open), (open) => open === 0)
          yield* idle(here)
        }
      })
    )
  })

  describe("holding", () => {
    const held = { silence: "30 millis", keepAlive: "10 millis" } as const

    it.live("keeps a call that is not streamed alive with white space", () =>
      Effect.gen(function* () {
        const here = yield* world((_, response) => setTimeout(() => json(response, 200, completion), 500), held)
        const got = yield* ask(`${here.url}/v1/chat/completions`, chat())
        assert.strictEqual(got.status, 200)
        assert.strictEqual(got.headers.get("content-type"), "application/json")
        assert.match(got.text, /^ {2,}\{/)
        assert.strictEqual(got.text.trimStart(), completion)
      })
    )

    it.live("adds nothing to a file, and leaves it the provider's type, however long it takes", () =>
      Effect.gen(function* () {
        const file = "\u0001 no JSON"
        const here = yield* world((_, response) => {
          setTimeout(() => response.writeHead(200, { "content-type": "audio/mpeg" }).end(file), 300)
        }, held)
        const got = yield* ask(`${here.url}/v1/audio/speech`, chat({ model: "tts-1", input: "Hello" }))
        assert.deepStrictEqual([got.status, got.headers.get("content-type"), got.text], [200, "audio/mpeg", file])
        yield* idle(here)
      })
    )

    it.live.each(["text/event-stream", "Text/Event-Stream", "text/plain"])("keeps a stream of type %s alive", (type) =>
      Effect.gen(function* () {
        const here = yield* world((_, response) => {
          const later = () => response.writeHead(200, { "content-type": type }).end(events.join(""))
          setTimeout(later, 150)
        }, held)
        const got = yield* ask(`${here.url}/v1/chat/completions`, chat(asksUsage))
        assert.strictEqual(got.headers.get("content-type"), "text/event-stream")
        assert.match(got.text, /^(?:: keep-alive\n\n){2,}data/)
        assert.isTrue(got.text.endsWith(events.join("")))
      })
    )

    it.live("keeps a stream that is a JSON list alive with white space", () =>
      Effect.gen(function* () {
        const list = JSON.stringify(geminiList, undefined, 2)
        const here = yield* world((_, response) => setTimeout(() => json(response, 200, list), 500), held)
        const call = { method: "POST", headers: { "x-goog-api-key": "k" }, body: '{"contents":[]}' }
        const got = yield* ask(`${here.url}/v1beta/models/gemini-3:streamGenerateContent`, call)
        assert.strictEqual(got.headers.get("content-type"), "application/json")
        assert.match(got.text, /^ {2,}\[/)
        assert.strictEqual(got.text.trimStart(), list)
        yield* idle(here)
      })
    )

    it.live("breaks the connection if an early answer that is not a stream fails", () =>
      Effect.gen(function* () {
        const here = yield* world((_, response) => setTimeout(() => json(response, 400, '{"error":{}}'), 300), held)
        const exit = yield* Effect.exit(ask(`${here.url}/v1/chat/completions`, chat()))
        assert.isTrue(Exit.isFailure(exit))
      })
    )

    it.live("ends an early stream that fails with an error in the provider's form", () =>
      Effect.gen(function* () {
        const here = yield* world((_, response) => setTimeout(() => json(response, 400, '{"error":{}}'), 300), held)
        const got = yield* ask(`${here.url}/v1/messages`, {
          ...chat({ stream: true, max_tokens: 9 }),
          headers: { "x-api-key": "k", "anthropic-version": "2023-06-01" }
        })
        assert.strictEqual(got.status, 200)
        assert.match(got.text, /^(?:event: ping\ndata: \{"type":"ping"\}\n\n)+event: error\ndata: .*status 400/)
      })
    )

    it.live("refuses a call that would wait too long at once, so that the client comes back", () =>
      Effect.gen(function* () {
        const limits = { requests: { perMinute: 1 } }
        const here = yield* world(answers, { budget: { limits }, maxHold: "5 seconds" })
        const first = yield* ask(`${here.url}/v1/chat/completions`, chat())
        const second = yield* ask(`${here.url}/v1/chat/completions`, chat())
        assert.deepStrictEqual([first.status, second.status], [200, 429])
        const seconds = Number(second.headers.get("retry-after"))
        assert.isTrue(seconds >= 5 && seconds <= 59, String(seconds))
        assert.isNull(second.headers.get("x-should-retry"))
        assert.strictEqual(here.bodies.length, 1)
      })
    )
  })

  describe("bounds", () => {
    it.live("refuses bodies that are too large, or for which there is no room", () =>
      Effect.gen(function* () {
        const large = "x".repeat(5_000)
        const small = yield* world(answers, { maxBodyBytes: 1_000 })
        assert.strictEqual((yield* ask(`${small.url}/v1/chat/completions`, chat({ large }))).status, 413)
        const chunked = new ReadableStream({
          start: (controller) => {
            for (let count = 0; count < 5; count++) controller.enqueue(new TextEncoder().encode("x".repeat(1_000)))
            controller.close()
          }
        })
        const sent = { ...chat(), body: chunked, duplex: "half" } as RequestInit
        assert.strictEqual((yield* ask(`${small.url}/v1/chat/completions`, sent)).status, 413)

        const full = yield* world(() => {}, { maxHeldBytes: 6_000 })
        yield* Effect.forkChild(ask(`${full.url}/v1/chat/completions`, chat({ large })))
        yield* until(full.pool, ({ inFlight }) => inFlight === 1)
        const refused = yield* ask(`${full.url}/v1/chat/completions`, chat({ large }))
        assert.deepStrictEqual([refused.status, refused.headers.get("retry-after")], [503, "5"])
      })
    )

    it.live("refuses callers without the token, which may be in a header or in front of the path", () =>
      Effect.gen(function* () {
        const token = "0123456789abcdef"
        const here = yield* world(answers, { token })
        const status = (path: string, headers: Record<string, string> = {}) =>
          Effect.map(ask(`${here.url}${path}`, chat({}, headers)), ({ status }) => status)
        assert.strictEqual(yield* status("/v1/chat/completions"), 401)
        assert.strictEqual(yield* status(`/token/${token}x/v1/chat/completions`), 401)
        assert.strictEqual(yield* status(`/token/${token}/v1/chat/completions`), 200)
        assert.strictEqual(yield* status("/v1/chat/completions", { "x-floodgate-token": token }), 200)
        assert.strictEqual((yield* ask(`${here.url}/metrics`)).status, 401)
        assert.strictEqual((yield* ask(`${here.url}/healthz`)).status, 200)
        assert.isUndefined(here.upstream.requests[1]!.headers["x-floodgate-token"])
        assert.strictEqual(here.upstream.requests[0]!.url, "/v1/chat/completions")
      })
    )

    it.live("shows figures only to local callers", () =>
      Effect.gen(function* () {
        const here = yield* world(answers)
        const raw = (host: string) =>
          Effect.callback<string>((resume) => {
            const socket = Net.connect(Number(new URL(here.url).port), "127.0.0.1", () =>
              socket.write(`GET /metrics HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`)
            )
            let text = ""
            socket.on("data", (chunk) => (text += String(chunk))).on("close", () => resume(Effect.succeed(text)))
          })
        assert.match(yield* raw("evil.test"), /^HTTP\/1.1 403/)
        assert.match(yield* raw("localhost:1"), /^HTTP\/1.1 200[^]*floodgate_gateway_open 0/)
      })
    )
  })

  it.live("shows and logs who calls and what happens, and nothing of keys or content", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => void lines.push(JSON.stringify(message)))
      const here = yield* world(answers).pipe(
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "Debug")
      )
      const name = "a7 <script>"
      const headers = { "x-floodgate-agent": name }
      yield* ask(`${here.url}/v1/chat/completions`, chat({ secret: "a secret prompt" }, headers))
      const page = yield* ask(`${here.url}/floodgate/`)
      assert.strictEqual(page.status, 200)
      assert.match(page.headers.get("content-security-policy")!, /^default-src 'none'/)
      assert.notMatch(page.text, /https?:/)
      for (const file of ["page.js", "page.css"]) {
        assert.strictEqual((yield* ask(`${here.url}/floodgate/${file}`)).status, 200)
      }
      const events = yield* Effect.promise(() => fetch(`${here.url}/floodgate/events`))
      const reader = events.body!.getReader()
      const { value } = yield* Effect.promise(() => reader.read())
      yield* Effect.promise(() => reader.cancel())
      const text = new TextDecoder().decode(value)
      const { agents, pools } = JSON.parse(text.replace(/^data: /, "")) as {
        readonly agents: ReadonlyArray<{ readonly name: string; readonly calls: number; readonly inputTokens: number }>
        readonly pools: ReadonlyArray<{ readonly name: string }>
      }
      assert.deepStrictEqual(
        agents.map(({ calls, inputTokens, name }) => [name, calls, inputTokens]),
        [[name, 1, 900]]
      )
      assert.strictEqual(pools.length, 1)
      const metrics = yield* ask(`${here.url}/metrics`)
      assert.match(metrics.text, /floodgate_gateway_requests\{[^}]*outcome="answered"[^}]*\} [1-9]/)
      assert.strictEqual(lines.length, 1)
      assert.match(lines[0]!, /"model":"gpt-6".*"outcome":"answered","status":200/)
      for (const said of [text, metrics.text, ...lines]) {
        assert.notMatch(said, /sk-one|secret prompt|Hi, /)
      }
    })
  )

  it.live("shows pools that are in use, and not those that are only in the configuration", () =>
    Effect.gen(function* () {
      const limits = { pools: { "gpt-6": { requests: { total: 10 } }, "gpt-6-mini": { requests: { total: 10 } } } }
      const here = yield* world(answers, { budget: { limits } })
      const shown = Effect.gen(function* () {
        const { text } = yield* ask(`${here.url}/floodgate/status`)
        const { pools } = JSON.parse(text) as { readonly pools: ReadonlyArray<{ readonly name: string }> }
        return pools.map(({ name }) => name)
      })
      assert.deepStrictEqual(yield* shown, [])
      yield* ask(`${here.url}/v1/chat/completions`, chat())
      const [first = "", ...others] = yield* shown
      assert.match(first, /^127\.0\.0\.1:\d+\/[\da-f]+\/gpt-6$/)
      assert.deepStrictEqual(others, [])
    })
  )

  it.live("refuses a call whose wait has become too long, while its response can still be a refusal", () =>
    Effect.gen(function* () {
      const pending: Array<() => void> = []
      let isClosed = false
      const here = yield* world(
        (_, response) => {
          const reject = () => json(response, 429, "{}", { "retry-after": "600" })
          if (isClosed) reject()
          else pending.push(reject)
        },
        { budget: { ...ledger, concurrency: 1 }, silence: "1 second", keepAlive: "1 second" }
      )
      const first = yield* Effect.forkChild(ask(`${here.url}/v1/chat/completions`, chat()))
      yield* until(
        Effect.sync(() => pending.length),
        (count) => count === 1
      )
      const others = yield* Effect.forEach([1, 2], (count) =>
        Effect.tap(Effect.forkChild(ask(`${here.url}/v1/chat/completions`, chat({ stream: true }))), () =>
          until(here.pool, ({ queued }) => queued === count)
        )
      )
      // The provider closes unexpectedly, and the next request may already have been sent.
      isClosed = true
      pending[0]!()
      const refused = yield* Fiber.join(others[1]!)
      assert.strictEqual(refused.status, 429)
      assert.isAtLeast(Number(refused.headers.get("retry-after")), 5)
      assert.isAtMost(Number(refused.headers.get("retry-after")), 59)
      assert.strictEqual((yield* Fiber.join(first)).status, 429)
      yield* idle(here)
    })
  )

  it.live("closes when its calls have ended, and answers new ones with 503 until then", () =>
    Effect.gen(function* () {
      let more = () => {}
      const here = yield* world((_, response) => (more = () => json(response, 200, completion)), {
        drain: "10 seconds"
      })
      const running = yield* Effect.forkChild(ask(`${here.url}/v1/chat/completions`, chat()))
      yield* until(Effect.sync(here.upstream.open), (open) => open === 1)
      const closing = yield* Effect.forkChild(here.close)
      yield* until(Effect.orDie(ask(`${here.url}/readyz`)), ({ status }) => status === 503)
      const refused = yield* ask(`${here.url}/v1/chat/completions`, chat())
      assert.deepStrictEqual([refused.status, refused.headers.get("retry-after")], [503, "5"])
      more()
      assert.strictEqual((yield* Fiber.join(running)).text, completion)
      yield* Fiber.join(closing)
      assert.isTrue(Exit.isFailure(yield* Effect.exit(ask(`${here.url}/healthz`))))
    })
  )
})
