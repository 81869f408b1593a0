import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { dial, gatewayTo, requestOf, until } from "../../../test/support/gateway.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"

// Who may call, and requests for other protocols. These use real HTTP, so they run on the real clock.

const answers: Handler = (_, response) =>
  void response.writeHead(200, { "content-type": "application/json" }).end(
    JSON.stringify({
      model: "gpt-6",
      choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
      usage: { prompt_tokens: 9, completion_tokens: 3 }
    })
  )

const body = JSON.stringify({ model: "m", max_tokens: 9, messages: [] })
const chat = "/v1/chat/completions"
const token = "0123456789abcdef"

interface Got {
  readonly status: number
  readonly text: string
}

/** Sends a request with exactly these headers; `connection: close` ends it. */
const send = (url: string, method: string, path: string, headers: Record<string, string>) =>
  Effect.gen(function* () {
    const request = requestOf(method, path, { ...headers, connection: "close" }, method === "POST" ? body : "")
    const { read, response } = yield* dial(url, request)
    read()
    const text = yield* Effect.promise(() => response)
    return { status: Number(text.slice(9, 12)), text } satisfies Got
  }).pipe(Effect.scoped)

describe("a gateway without a token", () => {
  const requests: ReadonlyArray<readonly [method: string, path: string]> = [
    ["POST", chat],
    ["POST", "/v1/messages"],
    ["GET", "/v1/models"],
    ["GET", "/floodgate/"],
    ["GET", "/floodgate/status"],
    ["GET", "/metrics"],
    ["GET", "/unheard/of"]
  ]
  const foreign: ReadonlyArray<readonly [headers: Record<string, string>, says: string]> = [
    // A website whose name resolves to this machine, so that its pages have the same origin as the gateway.
    [{ host: "evil.test", origin: "http://evil.test", "content-type": "text/plain" }, "evil.test"],
    [{ host: "evil.test:8788" }, "evil.test"],
    [{ host: "localhost.evil.test" }, "localhost.evil.test"],
    [{ host: "127.0.0.1.evil.test" }, "127.0.0.1.evil.test"],
    [{ host: "evil-host.docker.internal" }, "evil-host.docker.internal"],
    // A page of a website that knows the address.
    [{ host: "127.0.0.1:8788", origin: "https://evil.test" }, "evil.test"],
    [{ host: "localhost", origin: "http://93.184.216.34" }, "93.184.216.34"],
    [{ host: "localhost", origin: "null" }, "token"],
    [{ host: "" }, "a request without a host: set a token"]
  ]

  it.live("refuses websites, and says how to let one in", () =>
    Effect.gen(function* () {
      const upstream = yield* serve(answers)
      const here = yield* gatewayTo(upstream.url)
      for (const [headers, says] of foreign) {
        for (const [method, path] of requests) {
          const { status, text } = yield* send(here.url, method, path, headers)
          const what = `${method} ${path} ${JSON.stringify(headers)}: ${text}`
          assert.strictEqual(status, 403, what)
          assert.include(text, says)
          assert.match(
            text,
            /Without a token.*: set a token(?:, or add [\w.-]+ to the setting hosts \(--host-name [\w.-]+\))?["\n]/,
            what
          )
        }
      }
      assert.strictEqual(upstream.requests.length, 0)
      const { text } = yield* send(here.url, "POST", "/v1/messages", { host: "evil.test" })
      assert.include(text, '{"type":"error","error":{"type":"permission_error"')
    })
  )

  it.live("answers local programs and their pages", () =>
    Effect.gen(function* () {
      const here = yield* gatewayTo((yield* serve(answers)).url, { hosts: ["Gateway.internal", "chat.test"] })
      const at = { host: "127.0.0.1:8788" }
      const local: ReadonlyArray<Record<string, string>> = [
        at,
        { host: "localhost" },
        { host: "LOCALHOST:1" },
        { host: "[::1]:8788" },
        { host: "app.localhost:8788" },
        // Containers reach their host by these names, or by an address.
        { host: "host.docker.internal:8788" },
        { host: "host.containers.internal:8788" },
        { host: "172.17.0.1:8788" },
        { ...at, origin: "http://localhost:3000" },
        { ...at, origin: "tauri://localhost" },
        { host: "172.17.0.1:8788", origin: "http://172.17.0.1:8788" },
        // Names in the option hosts.
        { host: "gateway.internal:80" },
        { ...at, origin: "https://chat.test" }
      ]
      for (const headers of local) {
        for (const [method, path, expected = 200] of [
          ["POST", chat],
          ["GET", "/v1/models"],
          ["GET", "/floodgate/status"],
          ["GET", "/unheard/of", 404]
        ] as const) {
          const { status, text } = yield* send(here.url, method, path, headers)
          assert.strictEqual(status, expected, `${path} ${JSON.stringify(headers)}: ${text}`)
        }
      }
    })
  )

  it.live("tells anyone whether it runs", () =>
    Effect.gen(function* () {
      const here = yield* gatewayTo((yield* serve(answers)).url)
      for (const path of ["/healthz", "/readyz"]) {
        assert.strictEqual((yield* send(here.url, "GET", path, { host: "10-0-0-7.pod.test" })).status, 200)
      }
    })
  )
})

describe("a gateway with a token", () => {
  it.live("answers every caller that has it, under any name and from any page", () =>
    Effect.gen(function* () {
      const here = yield* gatewayTo((yield* serve(answers)).url, { token })
      const headers = { host: "gateway", origin: "https://chat.test" }
      assert.strictEqual((yield* send(here.url, "POST", `/token/${token}${chat}`, headers)).status, 200)
      const { status, text } = yield* send(here.url, "POST", chat, headers)
      assert.strictEqual(status, 401)
      assert.include(text, '"type":"authentication_error"')
      assert.include(text, "x-floodgate-token")
      // Prometheus sends it like this. To a provider's path, that header belongs to the provider.
      const authorization = { authorization: `Bearer ${token}` }
      assert.strictEqual((yield* send(here.url, "GET", "/metrics", authorization)).status, 200)
      assert.strictEqual((yield* send(here.url, "GET", "/metrics", { authorization: `Bearer ${token}x` })).status, 401)
      assert.strictEqual((yield* send(here.url, "POST", chat, authorization)).status, 401)
    })
  )

  it.live("shows a page that asks for it, and tells programs where to put it", () =>
    Effect.gen(function* () {
      const here = yield* gatewayTo((yield* serve(answers)).url, { token })
      const got = (path: string, headers = {}) => send(here.url, "GET", path, { host: "gateway", ...headers })
      for (const [path, contentType] of [
        ["/floodgate/", "text/html"],
        ["/floodgate/page.js", "text/javascript"],
        ["/floodgate/page.css", "text/css"]
      ] as const) {
        const { status, text } = yield* got(path)
        assert.strictEqual(status, 200)
        assert.include(text, `content-type: ${contentType}`)
      }
      assert.match((yield* got("/floodgate/")).text, /<form id="auth"[^]*<label for="token">/)
      assert.match((yield* got("/floodgate")).text, /^HTTP\/1\.1 302 [^]*location: floodgate\/\r/)
      for (const path of ["/floodgate/status", "/floodgate/events", "/floodgate/elsewhere", "/metrics"]) {
        for (const headers of [{}, { "x-floodgate-token": "another" }]) {
          const { status, text } = yield* got(path, headers)
          assert.strictEqual(status, 401, path)
          assert.match(text, /add the header x-floodgate-token.*open \/floodgate\//)
        }
      }
      assert.strictEqual((yield* got("/floodgate/status", { "x-floodgate-token": token })).status, 200)
    })
  )
})

describe("a client that requests another protocol on its connection", () => {
  const websocket = {
    connection: "Upgrade",
    upgrade: "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="
  }

  it.live.each([
    ["/v1/responses", '"code":"upgrade_required"'],
    ["/openai/v1/responses", '"code":"upgrade_required"'],
    ["/v1/messages", '"type":"invalid_request_error"'],
    ["/v1beta/models/gemini-3:generateContent", '"code":426']
  ])("gets 426 in the form of its provider, and no open connection: %s", ([path, form]) =>
    Effect.gen(function* () {
      const upstream = yield* serve(answers)
      const here = yield* gatewayTo(upstream.url)
      const { read, response } = yield* dial(here.url, requestOf("GET", path!, websocket))
      read()
      const text = yield* Effect.promise(() => response)
      assert.match(text, /^HTTP\/1\.1 426 /)
      assert.match(text, /^upgrade: HTTP\/1\.1\r$/im)
      assert.match(text, /^x-should-retry: false\r$/im)
      assert.include(text, form!)
      assert.strictEqual(upstream.requests.length, 0)
      assert.strictEqual(yield* until(here.open, (open) => open === 0), 0)
    })
  )

  it.live("gets a 401 without the token", () =>
    Effect.gen(function* () {
      const here = yield* gatewayTo((yield* serve(answers)).url, { token })
      const { arrived, read } = yield* dial(here.url, requestOf("GET", "/v1/responses", websocket))
      read()
      yield* until(Effect.sync(arrived), (text) => text.startsWith("HTTP/1.1 401 "))
    })
  )

  // Java's HTTP client offers h2c with each request. RFC 9110, section 7.8: a server may ignore it.
  it.live.each(["h2c", "TLS/1.0"])("is answered in HTTP/1.1 where it only offers another protocol: %s", (upgrade) =>
    Effect.gen(function* () {
      const upstream = yield* serve(answers)
      const here = yield* gatewayTo(upstream.url)
      const offer = {
        connection: "Upgrade, HTTP2-Settings, close",
        upgrade,
        "http2-settings": "AAEAAEAAAAIAAAAA"
      }
      const { read, response } = yield* dial(here.url, requestOf("POST", chat, offer, body))
      read()
      assert.match(yield* Effect.promise(() => response), /^HTTP\/1\.1 200 [^]*"content":"Hi"/)
      const { headers } = upstream.requests[0]!
      assert.isUndefined(headers.upgrade)
      assert.isUndefined(headers["http2-settings"])
    })
  )
})
