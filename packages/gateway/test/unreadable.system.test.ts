import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Budget from "floodgate/Budget"
import * as Fetch from "floodgate/fetch"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import { createHash } from "node:crypto"
import type { Socket } from "node:net"
import { dial, requestOf } from "../../../test/support/gateway.ts"
import { rawAnswer, serveRaw } from "../../../test/support/rawServer.ts"
import { ask, chat, completion } from "./world.ts"

// What answers is not HTTP, or not all of it. These use raw connections, so they run on the real clock.

const head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"

/** The provider has begun to answer, so it has probably executed the call. */
const executed: Readonly<Record<string, string>> = {
  "headers above 64 KB": rawAnswer(completion, `x-large: ${"a".repeat(70_000)}\r\n`),
  "an unasked 100 Continue": `HTTP/1.1 100 Continue\r\n\r\n${rawAnswer(completion)}`,
  "an unasked upgrade": "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
  "an informational response before no HTTP": "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nSSH-2.0-OpenSSH_9.6\r\n",
  "a header without a colon": `${head}no header\r\n\r\n${completion}`,
  "a header with a NUL": `${head}x: a\0b\r\n\r\n${completion}`,
  "two lengths": `${head}content-length: 2\r\ncontent-length: 3\r\n\r\n${completion}`,
  "no size of a chunk": `${head}transfer-encoding: chunked\r\n\r\nsize\r\n${completion}\r\n0\r\n\r\n`
}

/** No provider has answered. */
const foreign: Readonly<Record<string, string>> = {
  "a banner of SSH": "SSH-2.0-OpenSSH_9.6\r\n",
  "a banner of SMTP": "220 mail.example.org ESMTP\r\n",
  "a TLS alert": "\x15\x03\x01\x00\x02\x02\x46",
  "frames of HTTP/2": "\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
  "no version of HTTP": "HTTP/9.7 200 OK\r\n\r\n",
  "a page with status 200": `HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 35\r\n\r\n<!doctype html><title>Hello</title>`,
  "a page with the type of JSON": `${head}content-length: 27\r\n\r\n<html><body>No</body></html`
}

const retry = Retry.make({ base: "5 millis", jitter: "none" })
const limits = { inputTokens: { total: 100_000 }, outputTokens: { total: 100_000 } }

/** A gateway, and a governed `fetch`, both in front of these upstreams. */
const world = Effect.fnUntraced(function* (upstreams: Readonly<Record<string, string>>, options: Gateway.Options = {}) {
  const context = yield* Layer.build(Governor.layer({ retry }).pipe(Layer.provideMerge(Budget.layer({ limits }))))
  const { url } = yield* Gateway.make({
    upstreams,
    drain: "20 millis",
    ...options
  }).pipe(Effect.provideContext(context))
  const { status } = Context.get(context, Budget.TokenBudget)
  const used = Effect.map(status, ({ pools }) =>
    Object.values(pools).reduce(
      (sum, { dimensions }) =>
        sum + (dimensions.outputTokens === undefined ? 0 : 100_000 - dimensions.outputTokens.level),
      0
    )
  )
  const fetch = yield* Effect.provideContext(Fetch.make(), context)
  return { url, used, fetch }
})

const caller = "fg-caller-0123456789"
const path = "/openai/v1/chat/completions"

describe("a call whose answer", () => {
  for (const stream of [false, true]) {
    const form = stream ? "a stream" : "a whole answer"
    it.live.each(Object.keys(executed))(`cannot be read is not sent again: %s, for ${form}`, (name) =>
      Effect.gen(function* () {
        const upstream = yield* serveRaw(({ socket }) => void socket.end(executed[name]!, "latin1"))
        const { url, used } = yield* world({ openai: upstream.url })
        const { headers, status, text } = yield* ask(`${url}${path}`, chat({ stream, max_tokens: 500 }))
        assert.strictEqual(upstream.requests.length, 1)
        assert.deepStrictEqual(
          [status, headers.get("x-should-retry"), headers.get("retry-after")],
          [400, "false", null]
        )
        const { error } = JSON.parse(text) as { readonly error: { readonly message: string; readonly type: string } }
        assert.include(error.message, "the provider has probably executed the call")
        assert.strictEqual(error.type, "server_error")
        // The provider may bill it.
        assert.strictEqual(yield* used, 500)
      })
    )

    it.live.each(Object.keys(foreign))(`is none of a provider has cost nothing: %s, for ${form}`, (name) =>
      Effect.gen(function* () {
        const upstream = yield* serveRaw(({ socket }) => void socket.end(foreign[name]!, "latin1"))
        const { url, used } = yield* world({ openai: upstream.url })
        const { headers, status, text } = yield* ask(`${url}${path}`, chat({ stream, max_tokens: 500 }))
        assert.strictEqual(upstream.requests.length, 1)
        assert.deepStrictEqual([status, headers.get("x-should-retry")], [502, "false"])
        const { error } = JSON.parse(text) as { readonly error: { readonly message: string } }
        assert.include(error.message, "what answered is not an API of a provider")
        assert.strictEqual(yield* used, 0)
      })
    )
  }

  it.live.each(Object.keys(foreign))(
    "is none of a provider goes to the next place, and its place is set aside: %s",
    (name) =>
      Effect.gen(function* () {
        const broken = yield* serveRaw(({ socket }) => void socket.end(foreign[name]!, "latin1"))
        const healthy = yield* serveRaw(({ socket }) => void socket.write(rawAnswer(completion)))
        const { url } = yield* world(
          { openai: broken.url, other: healthy.url },
          {
            places: { "gpt-6": [{ upstream: "openai" }, { upstream: "other" }] },
            keys: [{ name: "caller", sha256: createHash("sha256").update(caller).digest("hex") }],
            credentials: { openai: Redacted.make("sk-openai"), other: Redacted.make("sk-other") }
          }
        )
        for (let at = 0; at < 10; at++) {
          const { headers, status } = yield* ask(`${url}${path}`, chat({}, { authorization: `Bearer ${caller}` }))
          assert.deepStrictEqual([status, headers.get("x-floodgate-place")], [200, "other"])
        }
        assert.deepStrictEqual([broken.requests.length, healthy.requests.length], [1, 10])
      })
  )

  it.live("cannot come, because the place speaks no TLS, goes to the next place", () =>
    Effect.gen(function* () {
      const banner = "SSH-2.0-OpenSSH_9.6\r\n"
      const broken = yield* serveRaw(
        () => {},
        (socket) => void socket.end(banner)
      )
      const healthy = yield* serveRaw(({ socket }) => void socket.write(rawAnswer(completion)))
      const { url } = yield* world(
        { openai: broken.url.replace("http:", "https:"), other: healthy.url },
        {
          places: { "gpt-6": [{ upstream: "openai" }, { upstream: "other" }] },
          keys: [{ name: "caller", sha256: createHash("sha256").update(caller).digest("hex") }],
          credentials: { openai: Redacted.make("sk-openai"), other: Redacted.make("sk-other") }
        }
      )
      for (let at = 0; at < 10; at++) {
        const { headers, status } = yield* ask(`${url}${path}`, chat({}, { authorization: `Bearer ${caller}` }))
        assert.deepStrictEqual([status, headers.get("x-floodgate-place")], [200, "other"])
      }
      assert.isAtMost(broken.connections(), 3)
    })
  )

  // `fetch` does not tell that a response began with an informational one.
  const seen = Object.keys({ ...executed, ...foreign }).filter((name) => !name.startsWith("an informational"))
  it.live.each(seen)("is not sent again by the governed fetch either: %s", (name) =>
    Effect.gen(function* () {
      const bytes = { ...executed, ...foreign }[name]!
      const upstream = yield* serveRaw(({ socket }) => void socket.end(bytes, "latin1"))
      const { fetch } = yield* world({ openai: upstream.url })
      const response = yield* Effect.promise(() => fetch(`${upstream.url}/v1/chat/completions`, chat()))
      assert.strictEqual(upstream.requests.length, 1)
      const status = name in executed ? 400 : 502
      assert.deepStrictEqual([response.status, response.headers.get("x-should-retry")], [status, "false"])
      const why = name in executed ? "has probably executed the call" : "is not an API of a provider"
      assert.include(yield* Effect.promise(() => response.text()), why)
    })
  )

  for (const stream of [false, true]) {
    it.live(
      `comes late, and cannot be read, ends without a broken connection, which clients retry: stream ${stream}`,
      () =>
        Effect.gen(function* () {
          const late = (socket: Socket) =>
            void setTimeout(() => socket.end("HTTP/1.1 200 OK\r\nno header\r\n\r\n"), 200)
          const upstream = yield* serveRaw(({ socket }) => late(socket))
          const { url } = yield* world({ openai: upstream.url }, { silence: "20 millis", keepAlive: "10 millis" })
          const { status, text } = yield* ask(`${url}${path}`, chat({ stream }))
          assert.strictEqual(status, 200)
          assert.include(text, "the provider has probably executed the call")
          assert.include(text, '"code":"unreadable_answer"')
          if (!stream) assert.property(JSON.parse(text), "error")
          assert.strictEqual(upstream.requests.length, 1)
        })
    )
  }

  it.live("has headers of 60 KB is passed on", () =>
    Effect.gen(function* () {
      const large = "a".repeat(60_000)
      const upstream = yield* serveRaw(
        ({ socket }) => void socket.write(rawAnswer(completion, `x-large: ${large}\r\n`))
      )
      const { url } = yield* world({ openai: upstream.url })
      // `fetch` takes no headers of that size.
      const body = String(chat().body)
      const { read, response } = yield* dial(url, requestOf("POST", path, { connection: "close" }, body))
      read()
      const text = yield* Effect.promise(() => response)
      assert.match(text, /^HTTP\/1\.1 200 OK\r\n/)
      assert.include(text, `x-large: ${large}\r\n`)
      assert.isTrue(text.endsWith(completion))
    })
  )

  it.live("is not HTTP is told to the caller of a request that is passed on", () =>
    Effect.gen(function* () {
      const upstream = yield* serveRaw(({ socket }) => void socket.end("SSH-2.0-OpenSSH_9.6\r\n"))
      const { url } = yield* world({ openai: upstream.url })
      const { headers, status, text } = yield* ask(`${url}/openai/v1/models`)
      assert.deepStrictEqual([status, headers.get("x-should-retry")], [502, "false"])
      assert.include(text, "what answered is not an API of a provider")
      assert.strictEqual(upstream.requests.length, 1)
    })
  )
})
