import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import * as Retry from "floodgate/Retry"
import * as Net from "node:net"
import { pipeline, Readable } from "node:stream"
import { createGzip } from "node:zlib"
import { type Handler, serve } from "../../../test/support/httpServer.ts"

// Malicious providers, callers and callbacks. These use real HTTP, so they run on the real clock.

const completion = JSON.stringify({
  id: "c1",
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: "Hi" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 900, completion_tokens: 30 }
})

const quick = Retry.make({ base: "5 millis", jitter: "none", attempts: 2 })

const gatewayTo = Effect.fnUntraced(function* (upstream: string, options: Gateway.Options = {}) {
  const context = yield* Layer.build(
    Governor.layer({ retry: quick as never }).pipe(Layer.provideMerge(Budget.layer({ concurrency: 2 })))
  )
  const { url } = yield* Gateway.make({ upstreams: { openai: upstream }, drain: "20 millis", ...options }).pipe(
    Effect.provideContext(context)
  )
  const { status } = Context.get(context, Budget.TokenBudget)
  const inFlight = Effect.map(status, ({ pools }) => Object.values(pools).reduce((sum, pool) => sum + pool.inFlight, 0))
  return { url, inFlight }
})

const world = Effect.fnUntraced(function* (answer: Handler, options: Gateway.Options = {}) {
  const upstream = yield* serve(answer)
  return { upstream, ...(yield* gatewayTo(upstream.url, options)) }
})

const init = (headers: Record<string, string>, more: object): RequestInit => ({
  method: "POST",
  headers: { authorization: "Bearer one", ...headers },
  body: JSON.stringify({ model: "gpt-6", messages: [{ role: "user", content: "Hello" }], ...more })
})

const ask = (url: string, headers: Record<string, string> = {}, more: object = {}) =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(`${url}/v1/chat/completions`, { ...init(headers, more), signal })
      return { status: response.status, headers: response.headers, text: await response.text() }
    },
    catch: (thrown) => thrown
  })

const idle = ({ inFlight }: { readonly inFlight: Effect.Effect<number> }) =>
  Effect.repeat(inFlight, { until: (count) => count === 0, schedule: Schedule.spaced("5 millis") })

/** A provider that writes arbitrary bytes to the socket. */
const raw = (answer: Buffer) =>
  Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer(
        (socket) => void socket.on("error", () => {}).on("data", () => socket.end(answer))
      )
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  ).pipe(Effect.map((server) => `http://127.0.0.1:${(server.address() as Net.AddressInfo).port}`))

const answers: Handler = (_, response) =>
  void response.writeHead(200, { "content-type": "application/json" }).end(completion)

describe("a gateway", () => {
  it.live("passes on headers that are not ASCII", () =>
    Effect.gen(function* () {
      const head = ["HTTP/1.1 200 OK", "x-who: Zoë → 漢", "content-type: application/json", "connection: close", "", ""]
      const here = yield* gatewayTo(yield* raw(Buffer.from(head.join("\r\n") + completion)))
      const { headers, status, text } = yield* ask(here.url)
      assert.deepStrictEqual([status, text], [200, completion])
      assert.strictEqual(Buffer.from(headers.get("x-who")!, "latin1").toString(), "Zoë → 漢")
      yield* idle(here)
    })
  )

  for (const status of [200, 400]) {
    it.live(`unpacks no more of a body than an answer can have: ${status}`, () =>
      Effect.gen(function* () {
        const megabyte = Buffer.alloc(1e6, " ")
        let megabytes = 0
        const blocks = function* () {
          for (; megabytes < 2_000; megabytes++) yield megabyte
        }
        const here = yield* world((_, response) => {
          response.writeHead(status, { "content-type": "application/json", "content-encoding": "gzip" })
          pipeline(Readable.from(blocks()), createGzip(), response, () => {})
        })
        const first = Effect.promise(async (signal) => {
          const response = await fetch(`${here.url}/v1/chat/completions`, { ...init({}, {}), signal })
          if (status === 200) await response.body?.cancel()
          return response.status
        })
        assert.strictEqual(yield* first, status)
        // The sockets buffer it compressed.
        assert.isBelow(megabytes, 1_000)
        yield* idle(here)
      })
    )
  }

  it.live("holds back only the beginning of a stream, up to a bound", () =>
    Effect.gen(function* () {
      const comment = `: ${"x".repeat(60_000)}\n\n`
      let written = 0
      const here = yield* world((_, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" })
        const more = (): void => {
          while (!response.destroyed && written < 1e9) {
            written += comment.length
            if (!response.write(comment)) return void response.once("drain", more)
          }
          response.end()
        }
        more()
      })
      const began = Effect.promise(async (signal) => {
        const response = await fetch(`${here.url}/v1/chat/completions`, { ...init({}, { stream: true }), signal })
        const reader = response.body!.getReader()
        await reader.read()
        const before = written
        await reader.cancel()
        return before
      })
      assert.isBelow(yield* began, 500e6)
      yield* idle(here)
    })
  )

  it.live("passes on a long stream without content that has finally failed, and waits once for its client", () =>
    Effect.gen(function* () {
      const warnings: Array<Error> = []
      const warned = (warning: Error) => void warnings.push(warning)
      yield* Effect.acquireRelease(
        Effect.sync(() => process.on("warning", warned)),
        () => Effect.sync(() => process.off("warning", warned))
      )
      const text =
        `: ${"x".repeat(60_000)}\n\n`.repeat(40) + 'data: {"error":{"type":"server_error","message":"no"}}\n\n'
      const here = yield* world((_, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" }).end(text)
      })
      const got = yield* ask(here.url, {}, { stream: true, stream_options: { include_usage: true } })
      assert.isTrue(got.text === text)
      assert.strictEqual(got.headers.get("x-should-retry"), "false")
      yield* idle(here)
      assert.deepStrictEqual(warnings, [])
    })
  )

  const events = [
    '{"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}]}',
    '{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
    '{"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}',
    "[DONE]"
  ]
  const stream = events.map((data) => `data: ${data}\n\n`).join("")

  for (const [what, answer, more, expected] of [
    ["an answer", answers, {}, completion],
    [
      "a stream",
      (_, response) => void response.writeHead(200, { "content-type": "text/event-stream" }).end(stream),
      { stream: true, stream_options: { include_usage: true } },
      stream
    ]
  ] satisfies ReadonlyArray<readonly [string, Handler, object, string]>) {
    it.live(`releases ${what} even if the recorder throws, now or later`, () =>
      Effect.gen(function* () {
        const full = new Error("the disk is full")
        const throws = () => {
          throw full
        }
        // An unhandled rejection ends the process, and with it the run of these tests.
        for (const record of [throws, () => Promise.reject(full)]) {
          const here = yield* world(answer, { record })
          const { status, text } = yield* ask(here.url, {}, more)
          assert.deepStrictEqual([status, text], [200, expected])
          yield* idle(here)
        }
      })
    )
  }

  it.live("matches rules in linear time, whatever a caller calls itself", () =>
    Effect.gen(function* () {
      const rules = [{ headers: { "x-team": "*a*a*b" }, weight: 2 }, { key: "*a*a*b" }]
      const here = yield* world(answers, { rules })
      const name = "a".repeat(5_000)
      // Searching for a pattern from every position of the name would take minutes.
      const { status } = yield* ask(here.url, { "x-team": name, authorization: `Bearer ${name}` })
      assert.strictEqual(status, 200)
    })
  )

  it.live("refuses bodies that do not arrive, so that they keep nobody out", () =>
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      let ahead = 0n
      const own: Clock.Clock = {
        ...clock,
        sleep: (duration) => clock.sleep(duration),
        monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + ahead,
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
        currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe()
      }
      const here = yield* Effect.provideService(world(answers, { maxHeldBytes: 3_000 }), Clock.Clock, own)
      const [, port] = /:(\d+)$/.exec(here.url)!
      const begin = (path: string, length: number, sent: string) => {
        const got = { text: "", isOver: false }
        const socket = Net.connect(Number(port), "127.0.0.1").on("error", () => {})
        socket.on("data", (data) => (got.text += data.toString())).on("close", () => (got.isOver = true))
        socket.write(`POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: ${length}\r\n\r\n${sent}`)
        return Effect.acquireRelease(Effect.succeed({ socket, got }), () => Effect.sync(() => socket.destroy()))
      }
      const body = init({}, {}).body as string
      const slow = yield* begin("/v1/chat/completions", body.length + 1_000, body.slice(0, 20))
      const silent = yield* Effect.forEach([1, 2], () => begin("/v1/chat/completions", 1_500, " ".repeat(1_400)))
      yield* Effect.repeat(ask(here.url, {}, { pad: "x".repeat(200) }), {
        until: ({ status }) => status === 503,
        schedule: Schedule.spaced("20 millis")
      })
      const growing = Effect.sync(() => {
        ahead += 11_000_000_000n
        slow.socket.write(" ".repeat(20))
        return silent.every(({ got }) => got.isOver)
      })
      yield* Effect.repeat(growing, { until: (isOver) => isOver, schedule: Schedule.spaced("400 millis") })
      for (const { got } of silent) {
        assert.match(got.text, /^HTTP\/1\.1 408 /)
        assert.include(got.text, '"code":"request_timeout"')
      }
      assert.strictEqual((yield* ask(here.url, {}, { pad: "x".repeat(200) })).status, 200)
      assert.deepStrictEqual(slow.got, { text: "", isOver: false })
    })
  )

  it.live("answers the requests of a connection one by one, and closes one that sends far too many", () =>
    Effect.gen(function* () {
      let open = 0
      let max = 0
      const here = yield* world((request, response) => {
        max = Math.max(max, ++open)
        setTimeout(() => {
          open--
          response.end(request.url)
        }, 5)
      })
      const [, port] = /:(\d+)$/.exec(here.url)!
      const send = (count: number) =>
        Effect.callback<string>((resume) => {
          let text = ""
          const socket = Net.connect(Number(port), "127.0.0.1").on("error", () => {})
          socket.on("data", (data) => {
            text += data.toString()
            if (text.includes(`/v1/models/${count - 1}`)) socket.end()
          })
          socket.on("close", () => resume(Effect.succeed(text)))
          const requests = Array.from(
            { length: count },
            (_, at) => `GET /v1/models/${at} HTTP/1.1\r\nhost: localhost\r\n\r\n`
          )
          socket.write(requests.join(""))
          return Effect.sync(() => socket.destroy())
        })
      const paths = (yield* send(9)).match(/\/v1\/models\/\d/g)
      assert.deepStrictEqual(
        paths,
        Array.from({ length: 9 }, (_, at) => `/v1/models/${at}`)
      )
      assert.strictEqual(max, 1)
      assert.strictEqual(yield* send(1_000), "")
      assert.isAtMost(max, 2)
      assert.isAtMost(here.upstream.requests.length, 10)
      assert.strictEqual((yield* ask(here.url)).status, 200)
    })
  )
})
