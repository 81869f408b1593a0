import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Net from "node:net"
import { gzipSync } from "node:zlib"
import { until } from "../../../test/support/gateway.ts"
import { serve } from "../../../test/support/httpServer.ts"
import { answers, ask, asksUsage, chat, completion, events, idle, json, ledger, world } from "./world.ts"

// These use real HTTP, so they run on the real clock. They wait for conditions.

describe("the page", () => {
  it.live("is live in twenty browsers at once, and in others when those have gone", () =>
    Effect.gen(function* () {
      const { url } = yield* world(() => {})
      const watch = (end: AbortController) =>
        Effect.promise(async () => (await fetch(`${url}/floodgate/events`, { signal: end.signal })).status)
      for (let round = 0; round < 3; round++) {
        const ends = Array.from({ length: 20 }, () => new AbortController())
        for (const end of ends) {
          // The gateway hears a moment later that the browsers of the last round have gone.
          assert.strictEqual(yield* until(watch(end), (status) => status === 200), 200)
        }
        const late = new AbortController()
        assert.strictEqual(yield* watch(late), 503)
        for (const end of [...ends, late]) end.abort()
      }
    })
  )
})

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

    it.live.each(["unknown", "constructor", "__proto__"])("passes on an answer with the content coding %s", (coding) =>
      Effect.gen(function* () {
        const here = yield* world((_, response) => json(response, 200, completion, { "content-encoding": coding }))
        const got = yield* ask(`${here.url}/v1/chat/completions`, chat())
        assert.strictEqual(got.text, completion)
        assert.strictEqual(got.headers.get("content-encoding"), coding)
        yield* idle(here)
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
