import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import * as Layer from "effect/Layer"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import type { Engine } from "floodgate/internal"
import { subscribe, unsubscribe } from "node:diagnostics_channel"
import type { IncomingMessage, ServerResponse } from "node:http"
import * as Net from "node:net"
import { PassThrough } from "node:stream"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { gzipSync } from "node:zlib"
import { type BodyMemory, isQuick, RequestBody, makeMemory, readLarge } from "../src/bodies.ts"
import * as Transport from "../src/transport.ts"
import { maxValues } from "../../../src/protocol/jsonValues.ts"
import { until } from "../../../test/support/gateway.ts"
import { isFull, sized, some } from "../../../test/support/size.ts"
import { conversations } from "../../../test/support/conversations.ts"
import { message } from "../../../test/support/httpProvider.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"

// What bodies cost. `bodies.soak.ts` has the sizes that harm a process. These use real HTTP, so they run on the real clock.

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

/** The bytes in use by objects and buffers. A collection frees some in the background, so they show a little later. */
const inUse = Effect.gen(function* () {
  let least = Infinity
  for (let round = 0; round < sized(2, 4); round++) {
    yield* Effect.sleep("20 millis")
    collect()
    const { arrayBuffers, heapUsed } = process.memoryUsage()
    least = Math.min(least, heapUsed + arrayBuffers)
  }
  return least
})

const world = Effect.fnUntraced(function* (
  answer: Handler,
  budget: Budget.Options = {},
  options: Gateway.Options = {}
) {
  const upstream = yield* serve(answer)
  const context = yield* Layer.build(Governor.layer().pipe(Layer.provideMerge(Budget.layer(budget))))
  const upstreams = { anthropic: upstream.url, openai: upstream.url, gemini: upstream.url }
  const { url } = yield* Gateway.make({ upstreams, drain: "20 millis", ...options }).pipe(
    Effect.provideContext(context)
  )
  const { status } = Context.get(context, Budget.TokenBudget)
  const queued = Effect.map(status, ({ pools }) => Object.values(pools).reduce((sum, pool) => sum + pool.queued, 0))
  const left = Effect.map(status, ({ pools }) =>
    Math.min(...Object.values(pools).map(({ dimensions }) => dimensions["outputTokens"]?.level ?? Infinity))
  )
  const open = Effect.promise(async () =>
    Number(/^floodgate_gateway_open (\d+)/m.exec(await (await fetch(`${url}/metrics`)).text())?.[1])
  )
  return { url, upstream, queued, left, open }
})

/** Sends bytes without keeping them. */
const send = (url: string, path: string, body: Buffer) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { hostname, port } = new URL(url)
      const socket = Net.connect(Number(port), hostname).on("error", () => {})
      socket.write(
        `POST ${path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: any\r\ncontent-length: ${body.length}\r\n\r\n`
      )
      socket.write(body)
    }),
    () => Effect.void
  )

const post = (url: string, path: string, body: string | Buffer<ArrayBuffer>) =>
  Effect.promise(async (signal) => {
    const headers = { "x-api-key": "any", "content-type": "application/json" }
    const response = await fetch(url + path, { method: "POST", headers, body, signal })
    return { status: response.status, headers: response.headers, text: await response.text() }
  })

const reply = JSON.stringify(message(9, 1, "claude-sonnet-5"))
const answers: Handler = (_, response) =>
  void response.writeHead(200, { "content-type": "application/json" }).end(reply)

const paths = {
  "anthropic-messages": "/v1/messages",
  "openai-chat": "/v1/chat/completions",
  "openai-responses": "/v1/responses",
  gemini: "/v1beta/models/gemini-3-pro:generateContent"
} as const

describe("bodies of a gateway", () => {
  for (const { body, path, protocol } of some(conversations(2_000), 4)) {
    it.live(`holds no more of a waiting call than its body: ${protocol}`, () =>
      Effect.gen(function* () {
        const here = yield* world(() => {}, { concurrency: 1 })
        const bytes = Buffer.from(JSON.stringify({ ...body, stream: true }))
        // The first one never arrives completely, and some more make the runtime compile the code.
        const some = 12
        for (let call = 0; call <= some; call++) yield* send(here.url, path, bytes)
        yield* until(here.queued, (count) => count === some)
        const before = yield* inUse
        const calls = 12
        for (let call = 0; call < calls; call++) yield* send(here.url, path, bytes)
        yield* until(here.queued, (count) => count === some + calls)
        assert.isBelow(((yield* inUse) - before) / calls, bytes.length + 64 * 1_024)
      })
    )
  }

  it("parses a body at once only if that cannot take long", () => {
    const quick = (body: unknown) => isQuick(Buffer.from(JSON.stringify(body)))
    const turns = (count: number) =>
      Array.from({ length: count }, (_, turn) => ({ role: "user", content: `Turn ${turn}: ${"x".repeat(300)}` }))
    assert.isTrue(quick({ messages: turns(600) }), "a conversation of 200 KB")
    assert.isTrue(quick({ messages: [{ role: "user", content: "\n".repeat(100_000) }] }), "a text with escapes")
    assert.isFalse(quick({ messages: turns(900) }), "a conversation of 300 KB")
    assert.isFalse(quick(Array.from({ length: 30_000 }, () => ({}))), "empty objects in 90 KB")
    assert.isFalse(quick(Object.fromEntries(Array.from({ length: 5_000 }, (_, name) => [name, 0]))), "names in 40 KB")
  })

  it.effect("refuses a body that grows by less than 1 % in ten seconds, and waits for one that grows faster", () =>
    Effect.gen(function* () {
      for (const [each, reads] of [
        [999, "slow"],
        [1_200, undefined]
      ] as const) {
        const memory = yield* makeMemory
        const body = new RequestBody(memory, 1e9, 1e9)
        const request = Object.assign(new PassThrough({ highWaterMark: 1e9 }), { headers: {} })
        let read: unknown
        body.read(request as unknown as IncomingMessage, (given) => (read = given))
        request.emit("data", Buffer.alloc(100_000))
        for (let second = 0; second < 20; second++) {
          request.emit("data", Buffer.alloc(each / 10))
          yield* TestClock.adjust("1 second")
        }
        assert.strictEqual(read, reads)
        assert.strictEqual(memory.arriving.size, reads === undefined ? 1 : 0)
      }
    }).pipe(Effect.scoped)
  )

  it.live("needs no more memory for a body that arrives byte by byte", () =>
    Effect.gen(function* () {
      const memory = yield* makeMemory
      const body = new RequestBody(memory, 1e9, 1e9)
      const request = Object.assign(new PassThrough({ highWaterMark: 1e9 }), { headers: {} })
      let read: unknown
      body.read(request as unknown as IncomingMessage, (bytes) => (read = bytes))
      const before = yield* inUse
      const sent = sized(50_000, 200_000)
      for (let count = 0; count < sent; count++) request.emit("data", Buffer.from([count % 251]))
      assert.isBelow((yield* inUse) - before, 5 * sent)
      request.emit("end")
      assert.deepStrictEqual(read, Buffer.from(Array.from({ length: sent }, (_, count) => count % 251)))
    })
  )

  it.effect("frees the chunks of a body that it has copied, and no memory that others use", () =>
    Effect.gen(function* () {
      const read = (memory: BodyMemory, chunks: ReadonlyArray<Buffer>) => {
        const request = Object.assign(new PassThrough({ highWaterMark: 1e9 }), { headers: {} })
        let whole: unknown
        new RequestBody(memory, 1e9, 1e9).read(request as unknown as IncomingMessage, (bytes) => (whole = bytes))
        for (const chunk of chunks) request.emit("data", chunk)
        request.emit("end")
        return Buffer.from(whole as Buffer)
      }
      const memory = yield* makeMemory
      const chunks = [70_000, 70_000, 900, 9_000].map((length, index) => Buffer.alloc(length, index))
      const expected = Buffer.concat(chunks)
      assert.isTrue(read(memory, chunks).equals(expected))
      assert.deepStrictEqual(
        chunks.map(({ length }) => length),
        [0, 0, 0, 0]
      )
      const shared = Buffer.alloc(150_000, 5)
      const parts = [shared.subarray(0, 70_000), shared.subarray(70_000)]
      assert.isTrue(read(memory, parts).equals(shared))
      assert.isTrue(read(memory, [shared]).equals(shared))
    }).pipe(Effect.scoped)
  )

  for (const [protocol, path] of Object.entries(paths)) {
    it.live(`refuses a body with too many values in the form of its provider: ${protocol}`, () =>
      Effect.gen(function* () {
        const here = yield* world(answers)
        const body = `{"messages":[${"{},".repeat(500_000)}{}]}`
        const { headers, status, text } = yield* post(here.url, path, body)
        assert.deepStrictEqual([status, headers.get("x-should-retry")], [413, "false"])
        const { error } = JSON.parse(text) as { readonly error: { readonly message: string } }
        assert.include(error.message, `1000013 JSON values, and the gateway reads at most ${maxValues}`)
        assert.strictEqual(here.upstream.requests.length, 0)
      })
    )
  }

  for (const { body, path, protocol } of some(conversations(10_000), 4)) {
    it.live(`accepts 10,000 messages with tools unchanged: ${protocol}`, () =>
      Effect.gen(function* () {
        const bodies: Array<string> = []
        const here = yield* world((request, response, body) => {
          bodies.push(body)
          answers(request, response, body)
        })
        const text = JSON.stringify(body)
        const { status } = yield* post(here.url, path, text)
        assert.strictEqual(status, 200)
        assert.isTrue(bodies[0] === text)
      })
    )
  }

  for (const size of [1_000, 3e6]) {
    it.live(`requests the usage of a stream, and sends everything else unchanged: ${size} bytes`, () =>
      Effect.gen(function* () {
        const got: Array<{ readonly body: string; readonly length: string | undefined }> = []
        const here = yield* world((request, response, body) => {
          got.push({ body, length: request.headers["content-length"] })
          response.writeHead(got.length === 1 ? 503 : 200, { "content-type": "text/event-stream", "retry-after": "0" })
          response.end('data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        })
        const rest = `"stream": true, "seed": 9007199254740993, "messages": [{"content": "é👍🏽 ${"x".repeat(size)}"}]}`
        assert.strictEqual((yield* post(here.url, paths["openai-chat"], ` {"model": "gpt-6", ${rest}`)).status, 200)
        // The second one is the retry of the first.
        for (const { body, length } of got) {
          assert.isTrue(body === ` {"stream_options":{"include_usage":true},"model": "gpt-6", ${rest}`)
          assert.strictEqual(length, String(Buffer.byteLength(body)))
        }
        assert.strictEqual(got.length, 2)
      })
    )
  }

  for (const [size, isAsked] of [
    [1_000, true],
    [5e6, false]
  ] as const) {
    it.live(`requests the usage within options that the body has, unless it is long: ${size} bytes`, () =>
      Effect.gen(function* () {
        const got: Array<string> = []
        const here = yield* world((_, response, body) => {
          got.push(body)
          response.writeHead(200, { "content-type": "text/event-stream" })
          response.end('data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        })
        const bodyWith = (options: object) =>
          JSON.stringify({ model: "gpt-6", stream: true, stream_options: options, text: "x".repeat(size) })
        yield* post(here.url, paths["openai-chat"], bodyWith({ a: 1 }))
        assert.isTrue(got[0] === bodyWith(isAsked ? { a: 1, include_usage: true } : { a: 1 }))
      })
    )
  }

  it.live("holds the body of a running call once, even if it requests the usage", () =>
    Effect.gen(function* () {
      const here = yield* world(() => {})
      const bytes = Buffer.from(
        JSON.stringify({ model: "gpt-6", stream: true, messages: [{ content: "x".repeat(2e6) }] })
      )
      const running = (count: number) =>
        until(
          Effect.sync(() => here.upstream.requests.length),
          (length) => length === count
        )
      yield* send(here.url, paths["openai-chat"], bytes)
      yield* running(1)
      const before = yield* inUse
      for (let call = 0; call < 6; call++) yield* send(here.url, paths["openai-chat"], bytes)
      yield* running(7)
      // The provider of this test also keeps a body.
      assert.isBelow(((yield* inUse) - before) / 6, 2.5 * bytes.length)
    })
  )

  const padded = (bytes: number) => reply.replace("{", `{"padding":"${"x".repeat(bytes)}",`)
  const many = reply.replace("{", `{"padding":[${"{},".repeat(300_000)}{}],`)
  const whole =
    (text: string): Handler =>
    (_, response) =>
      void response.writeHead(200, { "content-type": "application/json", "content-length": text.length }).end(text)
  const hello = (more: object = {}) =>
    JSON.stringify({
      model: "claude-sonnet-5",
      max_tokens: 1_000,
      messages: [{ role: "user", content: "Hello" }],
      ...more
    })

  for (const { charged, name, options, text } of [
    // The second answer can use the room of the first.
    { name: "fits", text: () => padded(1e6), options: { maxHeldBytes: 1_200_000 }, charged: false },
    { name: "is larger than any answer", text: () => padded(34e6), options: {}, charged: true },
    { name: "has too many values", text: () => many, options: {}, charged: true },
    { name: "has no room", text: () => padded(1e6), options: { maxHeldBytes: 100_000 }, charged: true },
    { name: "needs little room", text: () => padded(60_000), options: { maxHeldBytes: 1_000 }, charged: false }
  ].filter(({ name }) => isFull || !name.includes("larger"))) {
    it.live(`passes a whole answer on that ${name}, and ${charged ? "keeps its estimate" : "settles it"}`, () =>
      Effect.gen(function* () {
        const answered = text()
        const limits = { outputTokens: { total: 10_000 } }
        const here = yield* world(whole(answered), { limits }, options)
        for (let call = 0; call < 2; call++) {
          const got = yield* post(here.url, paths["anthropic-messages"], hello())
          assert.strictEqual(got.status, 200)
          assert.strictEqual(got.headers.get("content-length"), String(answered.length))
          assert.isTrue(got.text === answered)
        }
        yield* until(here.left, (left) => left === (charged ? 8_000 : 9_998))
        yield* until(here.open, (open) => open === 0)
      })
    )
  }

  it.live("passes on a whole answer that is too large to be read, after the response has begun early", () =>
    Effect.gen(function* () {
      const answered = padded(34e6)
      let isHeld = false
      const here = yield* world(
        (request, response, body) => {
          setTimeout(() => {
            isHeld = true
            whole(answered)(request, response, body)
          }, 300)
        },
        {},
        { silence: "10 millis", keepAlive: "10 millis" }
      )
      const got = yield* post(here.url, paths["anthropic-messages"], hello())
      assert.isTrue(isHeld)
      assert.isTrue(got.text.startsWith("  ") && got.text.trimStart() === answered)
    })
  )

  it.live("writes what it held of a whole answer only as fast as the client reads", () =>
    Effect.gen(function* () {
      const here = yield* world(whole(padded(30e6)), {}, { maxHeldBytes: 24e6 })
      const port = Number(new URL(here.url).port)
      let written: ServerResponse | undefined
      const started = (message: unknown): void => {
        const { response, socket } = message as { readonly response: ServerResponse; readonly socket: Net.Socket }
        if (socket.localPort === port) written ??= response
      }
      subscribe("http.server.request.start", started)
      yield* Effect.addFinalizer(() => Effect.sync(() => unsubscribe("http.server.request.start", started)))
      yield* send(here.url, paths["anthropic-messages"], Buffer.from(hello()))
      yield* until(
        Effect.sync(() => written?.headersSent),
        (isSent) => isSent === true
      )
      assert.isBelow(written!.writableLength, 1e6)
    })
  )

  it.live("never reads two large bodies in the same turn of the event loop, accepted or not", () =>
    Effect.gen(function* () {
      const memory = yield* makeMemory
      let turn = 0
      const turns: Array<number> = []
      const count = (): void => {
        turn++
        if (turns.length < 20) setImmediate(count)
      }
      count()
      const done = () => void turns.push(turn)
      const bodies = [
        `[${"{},".repeat(maxValues)}{}]`,
        JSON.stringify({ text: "x".repeat(5e6) }),
        '{"a":[1,2]}',
        "no JSON"
      ]
      yield* Effect.forEach(
        Array.from({ length: 20 }, (_, index) => Buffer.from(bodies[index % bodies.length]!)),
        (bytes) => readLarge(memory, bytes, done, done),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(turns).size, 20)
    })
  )

  it.live("goes on reading other bodies when a caller leaves while its own is read", () =>
    Effect.gen(function* () {
      const memory = yield* makeMemory
      const bytes = Buffer.from(JSON.stringify({ text: "x".repeat(20e6) }))
      const read = readLarge(
        memory,
        bytes,
        () => {},
        () => {}
      )
      for (const millis of [0, 1, 2, 4]) {
        yield* Effect.all([Effect.timeoutOption(read, millis), Effect.timeoutOption(read, millis)], {
          concurrency: "unbounded"
        })
      }
      yield* read
    })
  )
})

// -----------------------------------------------------------------------------
// Bodies from an upstream
// -----------------------------------------------------------------------------

/** The connection that is made next, as the transport has it. */
const connected = Effect.gen(function* () {
  const made: { socket?: Net.Socket } = {}
  const seen = (message: unknown): void => void (made.socket = (message as { readonly socket: Net.Socket }).socket)
  subscribe("undici:client:connected", seen)
  yield* Effect.addFinalizer(() => Effect.sync(() => unsubscribe("undici:client:connected", seen)))
  return made
})

const arrived = (value: () => number | undefined, least: number): Effect.Effect<unknown> =>
  until(Effect.sync(value), (now = 0) => now >= least)

const transportTo = (url: string) =>
  Transport.make({ name: "some", origin: new URL(url).origin, base: "" }, Duration.seconds(10))

const request = { method: "POST", path: "/", headers: [], body: "{}" }

describe("a body that was paused", () => {
  it.live("gives all of itself before its end, though the connection has buffered the rest and the end", () =>
    Effect.gen(function* () {
      const connection = yield* connected
      let response!: ServerResponse
      const upstream = yield* serve((_, answer) => void (response = answer).writeHead(200).write("first"))
      const transport = yield* transportTo(upstream.url)
      let bytes = 0
      let end: { readonly after: number } | undefined
      let resume!: () => void
      transport.dispatch(request, {
        began: ({ body }) => {
          resume = () => body!.resume()
          body!.to({
            data: ({ length }) => {
              if (bytes === 0) body!.pause()
              bytes += length
            },
            end: () => void (end = { after: bytes }),
            broke: (thrown) => assert.fail(String(thrown))
          })
        },
        failed: (thrown) => assert.fail(String(thrown))
      })
      yield* arrived(() => bytes, 1)
      const received = () => connection.socket?.bytesRead
      const before = received()!
      // The first chunk is still parsed. The others stay in the buffer of the connection, which takes no more than 64 KiB at once.
      response.write(Buffer.alloc(1_000))
      yield* arrived(received, before + 1_000)
      response.write(Buffer.alloc(30_000))
      yield* arrived(() => connection.socket?.readableLength, 30_000)
      response.end(Buffer.alloc(50_000))
      yield* arrived(() => connection.socket?.readableLength, 80_000)
      resume()
      yield* arrived(() => end?.after, 1)
      yield* arrived(() => bytes, "first".length + 81_000)
      assert.deepStrictEqual(end, { after: bytes })
    })
  )
})

it.live("a body that its reader pauses with its first chunk is not read on by the connection", () =>
  Effect.gen(function* () {
    const connection = yield* connected
    const upstream = yield* serve((_, answer) => void answer.writeHead(200).end(Buffer.alloc(64e6)))
    const transport = yield* transportTo(upstream.url)
    const turns = Effect.promise(async () => {
      for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate)
    })
    const body = yield* Effect.callback<Engine.BodyFlow>((resume) => {
      transport.dispatch(request, {
        began: ({ body }) => resume(Effect.succeed(body!)),
        failed: (thrown) => assert.fail(String(thrown))
      })
    })
    const received = () => connection.socket!.bytesRead
    // Nobody takes what arrives, so the connection stops when its buffers are full.
    yield* arrived(received, 64 * 1_024)
    for (let before = -1; before !== received(); yield* turns) before = received()
    const before = received()
    let bytes = 0
    body.to({
      data: ({ length }) => {
        bytes += length
        body.pause()
      },
      end: () => assert.fail("it is not over"),
      broke: () => {}
    })
    yield* turns
    assert.isAbove(bytes, 64 * 1_024)
    assert.strictEqual(received(), before)
    connection.socket!.destroy()
  }).pipe(Effect.scoped)
)

it.live("a compressed body that ends before the response does ends the request", () =>
  Effect.gen(function* () {
    let isClosed = false
    const upstream = yield* serve((_, response) => {
      response.on("close", () => (isClosed = true)).writeHead(200, { "content-encoding": "gzip" })
      // Zeros after the end are padding, and the response is left open.
      response.write(Buffer.concat([gzipSync("whole"), Buffer.alloc(20)]))
    })
    const transport = yield* transportTo(upstream.url)
    let text = ""
    let isOver = false
    transport.dispatch(request, {
      began: ({ body }) =>
        body!.to({
          data: (chunk) => (text += Buffer.from(chunk).toString()),
          end: () => (isOver = true),
          broke: (thrown) => assert.fail(String(thrown))
        }),
      failed: (thrown) => assert.fail(String(thrown))
    })
    yield* until(
      Effect.sync(() => isOver && isClosed),
      (hasEnded) => hasEnded
    )
    assert.strictEqual(text, "whole")
  })
)
