import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { dial, gatewayTo } from "../../../test/support/gateway.ts"
import { rawAnswer, serveRaw } from "../../../test/support/rawServer.ts"
import { completion as original } from "./world.ts"

// What a request and its answer look like on the other side. These use raw connections, so they run on the real clock.

/** Each of its characters is a byte. */
const completion = original.replace("✓", "!")

/** A request as bytes; the connection closes after its answer. */
const raw = (line: string, headers: ReadonlyArray<string> = [], body = ""): string =>
  [`${line} HTTP/1.1`, "host: localhost", "connection: close", ...headers, "", body].join("\r\n")

/** Sends bytes, and returns the bytes that come back, as Latin-1. */
const exchange = Effect.fnUntraced(function* (url: string, text: string) {
  const { response, socket } = yield* dial(url, text)
  const chunks: Array<Buffer> = []
  socket.on("data", (chunk) => chunks.push(chunk))
  yield* Effect.promise(() => response)
  return Buffer.concat(chunks).toString("latin1")
})

const world = Effect.fnUntraced(function* (answer: string = rawAnswer(completion), prefix = "") {
  const upstream = yield* serveRaw(({ socket }) => void socket.write(answer, "latin1"))
  const { url } = yield* gatewayTo(`${upstream.url}${prefix}`)
  return { upstream, url, port: new URL(url).port }
})

const targetOf = (request: string | undefined): string | undefined => request?.split(" ", 2)[1]
const statusOf = (response: string): number => Number(response.split(" ", 2)[1])

describe("a request", () => {
  it.live.each([
    "/v1/vector_stores/",
    "/v1//files//file-1/content",
    "/v1/files/file-1/",
    "/v1/files/o'brien",
    "/v1/files/a%2Fb",
    "/v1/files?",
    "/v1/files?after=o'brien&x=%27",
    "/v1/files?q=a//b/&q=",
    "/v1/models/ft:gpt-6:org::id",
    "/v1/files/a;b=c/d",
    "/v1/files/~!$&'()*+,;=:@",
    "/v2/unknown//path/?'",
    "/v1/responses/resp_1/"
  ])("keeps the bytes of its target: %s", (target) =>
    Effect.gen(function* () {
      const { upstream, url } = yield* world()
      yield* exchange(url, raw(`GET /openai${target}`))
      assert.strictEqual(targetOf(upstream.requests[0]), target)
    })
  )

  it.live.each(["/v1/chat/completions", "/v1/chat/completions/", "/v1//chat/completions?a='"])(
    "that a model answers keeps them as well: %s",
    (target) =>
      Effect.gen(function* () {
        const { upstream, url } = yield* world()
        const body = JSON.stringify({ model: "gpt-6", messages: [] })
        const headers = ["content-type: application/json", `content-length: ${body.length}`]
        const answer = yield* exchange(url, raw(`POST /openai${target}`, headers, body))
        assert.strictEqual(statusOf(answer), 200)
        assert.strictEqual(targetOf(upstream.requests[0]), target)
        assert.isTrue(upstream.requests[0]!.endsWith(body))
      })
  )

  it.live("behind a prefix keeps them, too", () =>
    Effect.gen(function* () {
      const { upstream, url } = yield* world(undefined, "/proxy/v1")
      yield* exchange(url, raw("GET /openai/v1/vector_stores/?"))
      yield* exchange(url, raw("GET /openai/vector_stores/"))
      assert.deepStrictEqual(upstream.requests.map(targetOf), ["/proxy/v1/vector_stores/?", "/proxy/v1/vector_stores/"])
    })
  )

  // Its server would resolve them, so they are resolved before the request is judged.
  it.live("has no segments of dots", () =>
    Effect.gen(function* () {
      const { upstream, url } = yield* world()
      yield* exchange(url, raw("GET /openai/v1/models/../files/%2e%2e/batches"))
      assert.strictEqual(targetOf(upstream.requests[0]), "/v1/batches")
    })
  )

  it.live("may have a target in absolute form, whose name counts instead of the host", () =>
    Effect.gen(function* () {
      const { port, upstream, url } = yield* world()
      const own = yield* exchange(url, raw(`GET http://127.0.0.1:${port}/openai/v1/files?a=1`))
      assert.strictEqual(statusOf(own), 200)
      assert.strictEqual(targetOf(upstream.requests[0]), "/v1/files?a=1")
      assert.strictEqual(statusOf(yield* exchange(url, raw(`GET HTTP://localhost:${port}?a`))), 404)
      assert.strictEqual(statusOf(yield* exchange(url, raw(`GET http://127.0.0.1:${port}/healthz`))), 200)
      // A gateway without a token answers for its own names only.
      const foreign = yield* exchange(url, raw("GET http://example.org/openai/v1/files"))
      assert.strictEqual(statusOf(foreign), 403)
      assert.include(foreign, "example.org")
      assert.strictEqual(upstream.requests.length, 1)
    })
  )

  it.live.each([
    ["has two hosts", 400, raw("GET /openai/v1/files", ["host: example.org"])],
    ["has the same host twice", 400, raw("GET /openai/v1/files", ["Host: localhost"])],
    [
      "is compressed on the way",
      501,
      raw("POST /openai/v1/files", ["transfer-encoding: gzip, chunked"], "2\r\n{}\r\n0\r\n\r\n")
    ],
    [
      "has an unknown coding",
      501,
      raw("POST /openai/v1/files", ["transfer-encoding: magic, chunked"], "2\r\n{}\r\n0\r\n\r\n")
    ],
    ["is a TRACE", 501, raw("TRACE /openai/v1/files")]
  ] as const)("is refused in its provider's form if it %s", ([, status, text]) =>
    Effect.gen(function* () {
      const { upstream, url } = yield* world()
      const answer = yield* exchange(url, text)
      assert.strictEqual(statusOf(answer), status)
      assert.match(answer, /^x-should-retry: false\r$/m)
      const { error } = JSON.parse(answer.slice(answer.indexOf("\r\n\r\n") + 4)) as { readonly error: object }
      assert.containsAllKeys(error, ["message", "type", "param", "code"])
      assert.strictEqual(upstream.requests.length, 0)
    })
  )

  it.live("of a browser to the root is sent to the page", () =>
    Effect.gen(function* () {
      const { url } = yield* world()
      const html = ["accept: text/html,application/xhtml+xml"]
      const answer = yield* exchange(url, raw("GET /", html))
      assert.strictEqual(statusOf(answer), 302)
      assert.match(answer, /^location: \/floodgate\/\r$/m)
      assert.strictEqual(statusOf(yield* exchange(url, raw("GET /"))), 404)
      // A website learns nothing.
      const foreign = yield* exchange(url, raw("GET http://example.org/", html))
      assert.strictEqual(statusOf(foreign), 403)
    })
  )

  it.live("to an upstream that is not there gets a 502 in its provider's form, which may be retried", () =>
    Effect.gen(function* () {
      const { url } = yield* gatewayTo("http://127.0.0.1:1")
      const openai = yield* exchange(url, raw("GET /openai/v1/files"))
      assert.strictEqual(statusOf(openai), 502)
      assert.match(openai, /^retry-after: 5\r$/m)
      assert.include(openai, '"code":"bad_gateway"')
      const gemini = yield* exchange(url, raw("GET /gemini/v1beta/models"))
      assert.strictEqual(statusOf(gemini), 502)
      assert.include(gemini, '"status":"UNAVAILABLE"')
      const anthropic = yield* exchange(url, raw("GET /anthropic/v1/models"))
      assert.include(anthropic, '"type":"api_error"')
    })
  )
})

describe("an answer", () => {
  /** The bytes of a text in UTF-8, as Latin-1 shows them. */
  const bytes = (text: string): string => Buffer.from(text).toString("latin1")
  const file = `attachment; filename="${bytes("żółć 報告.txt")}"`
  const download = `HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-disposition: ${file}\r\n\r\nhello`

  it.live("keeps the name of a file in UTF-8", () =>
    Effect.gen(function* () {
      const { url } = yield* world(download)
      const answer = yield* exchange(url, raw("GET /openai/v1/files/file-1/content"))
      assert.strictEqual(statusOf(answer), 200)
      assert.include(answer, `content-disposition: ${file}\r\n`)
      assert.isTrue(answer.endsWith("\r\n\r\nhello"))
    })
  )

  it.live.each([
    ["/v1/audio/speech", { model: "tts-1", input: "Hi", voice: "alloy" }],
    ["/v1/chat/completions", { model: "gpt-6", messages: [] }]
  ] as const)("of a call keeps it, too: %s", ([path, body]) =>
    Effect.gen(function* () {
      const { url } = yield* world(rawAnswer(completion, `content-disposition: ${file}\r\n`))
      const text = JSON.stringify(body)
      const headers = ["content-type: application/json", `content-length: ${text.length}`]
      const answer = yield* exchange(url, raw(`POST /openai${path}`, headers, text))
      assert.strictEqual(statusOf(answer), 200)
      assert.include(answer, `content-disposition: ${file}\r\n`)
      assert.isTrue(answer.endsWith(completion))
    })
  )

  it.live.each([
    ["Fine", "Fine"],
    ["", ""],
    [bytes("Żółć"), bytes("Żółć")]
  ])("keeps its reason phrase: %j", ([phrase, expected]) =>
    Effect.gen(function* () {
      const { url } = yield* world(`HTTP/1.1 200 ${phrase}\r\ncontent-length: 0\r\n\r\n`)
      const answer = yield* exchange(url, raw("GET /openai/v1/files"))
      assert.strictEqual(answer.split("\r\n", 1)[0], `HTTP/1.1 200 ${expected}`)
      const post = rawAnswer(completion).replace("200 OK", `200 ${phrase}`)
      const { url: other } = yield* world(post)
      const text = JSON.stringify({ model: "gpt-6", messages: [] })
      const called = yield* exchange(
        other,
        raw("POST /openai/v1/chat/completions", [`content-length: ${text.length}`], text)
      )
      assert.strictEqual(called.split("\r\n", 1)[0], `HTTP/1.1 200 ${expected}`)
    })
  )
})
