import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Budget from "floodgate/Budget"
import * as Gateway from "@floodgate/gateway"
import * as Governor from "floodgate/Governor"
import type * as Http from "node:http"
import * as Net from "node:net"
import { until } from "../../../test/support/gateway.ts"
import { event } from "../../../test/support/httpProvider.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"
import { sized } from "../../../test/support/size.ts"

// Failures of some calls must leave nothing behind and not affect others. These use real HTTP, so they run on the real clock.

const begun = event("message_start", { message: { id: "m", usage: { input_tokens: 100, output_tokens: 1 } } })
const block = event("content_block_start", { index: 0, content_block: { type: "text", text: "" } })
const ended = event("message_delta", { delta: { stop_reason: "end_turn" }, usage: { output_tokens: 9 } })
const whole = [begun, block, ended, event("message_stop")].join("")

const bodyOf = (text = "Hello"): string =>
  JSON.stringify({
    model: "claude-sonnet-5",
    max_tokens: 9,
    stream: true,
    messages: [{ role: "user", content: text }]
  })

const streaming = (response: Http.ServerResponse): Http.ServerResponse =>
  response.writeHead(200, { "content-type": "text/event-stream" })

const world = Effect.fnUntraced(function* (answer: Handler, options: Gateway.Options = {}) {
  const upstream = yield* serve(answer)
  const context = yield* Layer.build(Governor.layer().pipe(Layer.provideMerge(Budget.layer({ concurrency: 1_000 }))))
  const { url } = yield* Gateway.make({ upstreams: { anthropic: upstream.url }, drain: "20 millis", ...options }).pipe(
    Effect.provideContext(context)
  )
  const { status } = Context.get(context, Budget.TokenBudget)
  const inFlight = Effect.map(status, ({ pools }) => Object.values(pools).reduce((sum, pool) => sum + pool.inFlight, 0))
  const queued = Effect.map(status, ({ pools }) => Object.values(pools).reduce((sum, pool) => sum + pool.queued, 0))
  const open = Effect.promise(async () =>
    Number(/^floodgate_gateway_open (\d+)/m.exec(await (await fetch(`${url}/metrics`)).text())?.[1])
  )
  return { url, upstream, inFlight, queued, open }
})

/** Waits until all calls have left nothing behind. */
const nothingLeft = ({ inFlight, open, queued }: Effect.Success<ReturnType<typeof world>>) =>
  Effect.all([
    until(inFlight, (count) => count === 0),
    until(queued, (count) => count === 0),
    until(open, (n) => n === 0)
  ])

/** The text of an answer; fails if the connection breaks. */
const ask = (url: string, text?: string): Effect.Effect<string, unknown> =>
  Effect.tryPromise({
    try: async (signal) => (await fetch(`${url}/v1/messages`, { method: "POST", body: bodyOf(text), signal })).text(),
    catch: (thrown) => thrown
  })

/** A client that writes what it is given and reads nothing. */
const mute = (url: string, ...pieces: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket>((resume) => {
      const { hostname, port } = new URL(url)
      const socket = Net.connect(Number(port), hostname)
      socket.on("error", () => {})
      socket.once("connect", () => {
        socket.pause()
        for (const piece of pieces) socket.write(piece)
        resume(Effect.succeed(socket))
      })
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

const head = (length: number): string =>
  `POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`

describe("the gateway under stress", () => {
  it.live(`breaks off only the ${sized(50, 200)} streams whose provider dies`, () =>
    Effect.gen(function* () {
      const doomed = new Set<Net.Socket>()
      const here = yield* world((request, response, body) => {
        if (!body.includes("doomed")) return void streaming(response).end(whole)
        doomed.add(request.socket)
        streaming(response).write(begun + block)
      })
      // The limits in the first answer let the others start together.
      yield* ask(here.url)
      const calls = yield* Effect.forkChild(
        Effect.forEach(
          Array.from({ length: sized(50, 200) }),
          () =>
            Effect.promise(async () => {
              const response = await fetch(`${here.url}/v1/messages`, { method: "POST", body: bodyOf("doomed") })
              return response.text().then(
                () => "ended",
                () => "broken"
              )
            }),
          { concurrency: "unbounded" }
        )
      )
      yield* until(
        Effect.sync(() => doomed.size),
        (count) => count === sized(50, 200)
      )
      for (const socket of doomed) socket.destroy()
      const ends = yield* Fiber.join(calls)
      assert.deepStrictEqual([...new Set(ends)], ["broken"])
      yield* nothingLeft(here)
      assert.strictEqual(yield* ask(here.url), whole)
    })
  )

  it.live("buffers little of an answer that its client does not read, and serves the others", () =>
    Effect.gen(function* () {
      let written = 0
      let isOver = false
      const piece = event("content_block_delta", { index: 0, delta: { type: "text_delta", text: "x".repeat(60_000) } })
      const here = yield* world((_, response, body) => {
        if (!body.includes("mute")) return void streaming(response).end(whole)
        streaming(response).write(begun + block)
        response.on("close", () => (isOver = true))
        const more = (): void => {
          while (!response.destroyed && written < 200e6) {
            written += piece.length
            if (!response.write(piece)) return void response.once("drain", more)
          }
        }
        more()
      })
      const body = bodyOf("mute")
      const socket = yield* mute(here.url, head(body.length), body)
      let before = -1
      yield* Effect.repeat(
        Effect.sync(() => {
          const isStill = written > 0 && written === before
          before = written
          return isStill
        }),
        { until: (isStill) => isStill, schedule: Schedule.spaced("200 millis") }
      )
      // No more than the sockets on both sides buffer.
      assert.isBelow(written, 40e6)
      assert.strictEqual(yield* ask(here.url), whole)
      socket.destroy()
      yield* until(
        Effect.sync(() => isOver),
        (over) => over
      )
      yield* nothingLeft(here)
    })
  )

  it.live("refuses a body of 100 MB, announced or not, and keeps nothing of it", () =>
    Effect.gen(function* () {
      const here = yield* world((_, response) => void streaming(response).end(whole))
      const announced = yield* mute(here.url, head(100e6), "x".repeat(1e6))
      const answer = yield* Effect.callback<string>((resume) => {
        announced.resume()
        announced.once("data", (data) => resume(Effect.succeed(String(data))))
      })
      assert.match(answer, /^HTTP\/1\.1 413 /)
      const statuses = yield* Effect.forEach(
        sized([1], [1, 2, 3]),
        () =>
          Effect.promise(async () => {
            const piece = new Uint8Array(1e6)
            let sent = 0
            const body = new ReadableStream<Uint8Array>({
              pull: (controller) => {
                if (sent >= 100e6) return controller.close()
                sent += piece.length
                controller.enqueue(piece)
              }
            })
            // The connection is closed before all of it is sent, and some clients see only that.
            const init = { method: "POST", body, duplex: "half" } as RequestInit
            return fetch(`${here.url}/v1/messages`, init).then(
              ({ status }) => status,
              () => 413
            )
          }),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        statuses,
        statuses.map(() => 413)
      )
      assert.strictEqual(here.upstream.requests.length, 0)
      yield* nothingLeft(here)
      assert.strictEqual(yield* ask(here.url), whole)
    })
  )

  it.live(`serves the others while ${sized(60, 300)} clients dawdle with their headers and bodies`, () =>
    Effect.gen(function* () {
      const here = yield* world((_, response) => void streaming(response).end(whole))
      const slow = yield* Effect.forEach(
        Array.from({ length: sized(60, 300) }),
        (_, index) => (index % 2 === 0 ? mute(here.url, "POST /v1/messages HT") : mute(here.url, head(5_000), '{"mo')),
        { concurrency: 50 }
      )
      for (let call = 0; call < 20; call++) assert.strictEqual(yield* ask(here.url), whole)
      for (const socket of slow) socket.destroy()
      yield* nothingLeft(here)
    })
  )

  it.live("leaves nothing of calls whose clients hang up at any moment", () =>
    Effect.gen(function* () {
      const here = yield* world((_, response) => {
        streaming(response).write(begun)
        setImmediate(() => response.end(block + ended + event("message_stop")))
      })
      yield* ask(here.url)
      yield* Effect.forEach(
        Array.from({ length: 200 }),
        (_, index) =>
          Effect.gen(function* () {
            const call = yield* Effect.forkChild(Effect.exit(ask(here.url)))
            yield* Effect.sleep(index % 40)
            yield* Fiber.interrupt(call)
          }),
        { concurrency: 50 }
      )
      yield* nothingLeft(here)
      yield* until(Effect.sync(here.upstream.open), (open) => open === 0)
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(ask(here.url))))
    })
  )
})
