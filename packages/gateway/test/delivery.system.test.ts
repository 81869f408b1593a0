import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import type * as Gateway from "@floodgate/gateway"
import type { ServerResponse } from "node:http"
import { Writable } from "node:stream"
import * as Response from "../src/response.ts"
import { sleepingBy } from "../../../test/support/clock.ts"
import { dial, gatewayTo, requestOf, until } from "../../../test/support/gateway.ts"
import { type Handler, serve } from "../../../test/support/httpServer.ts"
import { some } from "../../../test/support/size.ts"

// A request ends when its client has the answer. Answers here are larger than the buffers of the sockets on the way.

const large = "x".repeat(8e6)
const completion = JSON.stringify({
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: large }, finish_reason: "stop" }],
  usage: { prompt_tokens: 9, completion_tokens: 9 }
})
const chunks = Array.from({ length: 8 }, () => `data: {"choices":[{"delta":{"content":"${"y".repeat(1e6)}"}}]}\n\n`)
const stream = `${chunks.join("")}data: [DONE]\n\n`

const call = (more: object = {}) =>
  requestOf("POST", "/v1/chat/completions", { authorization: "Bearer k" }, JSON.stringify({ messages: [], ...more }))

/** Some of the answers begin before their outcome is known. */
const early = { silence: "100 millis", keepAlive: "50 millis" } as const

const json =
  (body: string, afterMillis = 0): Handler =>
  (_, response) => {
    const answer = () => response.writeHead(200, { "content-type": "application/json" }).end(body)
    setTimeout(answer, afterMillis)
  }

/** `isRead` is whether the gateway reads all of it before its client does. */
const ways: ReadonlyArray<
  readonly [what: string, request: string, answer: Handler, expected: string, isRead: boolean]
> = [
  ["a whole answer", call(), json(completion), completion, true],
  ["a whole answer that began early", call(), json(completion, 300), completion, true],
  [
    "a stream",
    call({ stream: true }),
    (_, response) => void response.writeHead(200, { "content-type": "text/event-stream" }).end(stream),
    stream,
    false
  ],
  ["an answer that is passed on", requestOf("GET", "/v1/models"), json(completion), completion, false]
]

/** The body of a response, without the frame of its chunks. */
const bodyOf = (response: string): string => {
  const end = response.indexOf("\r\n\r\n")
  const body = response.slice(end + 4)
  if (!/^transfer-encoding: chunked/im.test(response.slice(0, end))) return body
  let whole = ""
  for (let at = 0; ;) {
    const start = body.indexOf("\r\n", at) + 2
    const size = Number.parseInt(body.slice(at, start), 16)
    if (!(size > 0)) return whole
    whole += body.slice(start, start + size)
    at = start + size + 2
  }
}

describe("an answer", () => {
  for (const [what, request, handler, expected, isRead] of ways) {
    it.live(`ends once its client has received it, even while the gateway closes: ${what}`, () =>
      Effect.gen(function* () {
        const upstream = yield* serve(handler)
        const here = yield* gatewayTo(upstream.url, { ...early, drain: "60 seconds" })
        const clients = yield* Effect.forEach([1, 2], () => dial(here.url, request))
        yield* until(
          Effect.sync(() => upstream.requests.length),
          (count) => count === 2
        )
        if (isRead) yield* until(here.inFlight, (count) => count === 0)
        assert.strictEqual(yield* here.open, 2)
        const closing = yield* Effect.forkChild(here.close)
        yield* until(
          Effect.promise(async () => (await fetch(`${here.url}/readyz`)).status),
          (status) => status === 503
        )
        for (const { read } of clients) read()
        for (const { response } of clients) {
          const body = bodyOf(yield* Effect.promise(() => response))
          assert.isTrue(body.endsWith(expected), `${body.length} of ${expected.length}`)
        }
        yield* Fiber.join(closing)
      })
    )
  }

  for (const [what, request, handler] of some(ways, 2)) {
    it.live(`is dropped if its client reads nothing for a minute: ${what}`, () =>
      Effect.gen(function* () {
        const minute = yield* Deferred.make<void>()
        const clock = yield* Clock.Clock
        let ahead = 0n
        // Only this test knows when a minute is over. Each one that is waited for moves the time.
        const own: Clock.Clock = {
          ...sleepingBy(clock, (duration) => {
            const millis = Duration.toMillis(duration)
            if (millis <= 59_000 || millis > 60_000) return clock.sleep(duration)
            return Effect.map(Deferred.await(minute), () => void (ahead += 60_000_000_000n))
          }),
          monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + ahead
        }
        const upstream = yield* serve(handler)
        const here = yield* Effect.provideService(gatewayTo(upstream.url, early), Clock.Clock, own)
        const clients = yield* Effect.forEach([1, 2], () => dial(here.url, request))
        yield* until(here.open, (open) => open === 2)
        yield* until(
          Effect.sync(() => upstream.requests.length),
          (count) => count === 2
        )
        yield* Effect.sleep("100 millis")
        assert.strictEqual(yield* here.open, 2)
        yield* Deferred.succeed(minute, undefined)
        yield* until(here.open, (open) => open === 0)
        for (const { read, response } of clients) {
          read()
          assert.isBelow((yield* Effect.promise(() => response)).length, large.length)
        }
      })
    )
  }

  it.live("reaches its client, and not only the network, before the gateway closes", () =>
    Effect.gen(function* () {
      const upstream = yield* serve(json("{}"))
      const here = yield* gatewayTo(upstream.url, { drain: "60 seconds" })
      const { arrived, read, socket } = yield* dial(here.url, requestOf("GET", "/v1/models"), { allowHalfOpen: true })
      let ended = false
      socket.on("end", () => (ended = true))
      read()
      yield* until(Effect.sync(arrived), (text) => text.includes("{}"))
      const closing = yield* Effect.forkChild(here.close)
      yield* until(
        Effect.sync(() => ended),
        (isEnded) => isEnded
      )
      yield* Effect.sleep("100 millis")
      assert.isUndefined(closing.pollUnsafe())
      socket.end()
      yield* Fiber.join(closing)
    })
  )

  it.effect("is not cut off for a client that reads slowly", () =>
    Effect.gen(function* () {
      let next = () => {}
      let read = 0
      const write = (chunk: Uint8Array, _: unknown, done: () => void): void => {
        read += chunk.length
        next = done
      }
      const client = Object.assign(new Writable({ write }), { req: { complete: true } })
      const answering = yield* Effect.forkChild(Response.end(client as never as ServerResponse, large))
      for (let pieces = 0; read < large.length; pieces++) {
        yield* TestClock.adjust("59 seconds")
        next()
        yield* Effect.promise(() => new Promise(setImmediate))
        assert.isBelow(pieces, 100)
      }
      next()
      yield* Fiber.join(answering)
      assert.isFalse(client.destroyed)
    })
  )

  const token = "0123456789abcdef"
  const refusals: ReadonlyArray<readonly [what: string, status: number, options: Gateway.Options, path: string]> = [
    ["a body that is too large", 413, { maxBodyBytes: 1e6 }, "/v1/chat/completions"],
    ["a body for which there is no room", 503, { maxHeldBytes: 1e6 }, "/v1/chat/completions"],
    ["a request without the token", 401, { token }, "/v1/chat/completions"],
    ["a request for nobody", 404, {}, "/unheard/of"],
    // The upstream's own.
    ["a request that is passed on", 413, {}, "/v1/files"]
  ]
  for (const [what, status, options, path] of some(refusals, 2)) {
    for (const chunked of [false, true]) {
      it.live(
        `refuses a client that sends everything before it reads: ${what}, ${chunked ? "in chunks" : "by its length"}`,
        () =>
          Effect.gen(function* () {
            const refuses: Handler = (_, response) => void response.writeHead(413).end("{}")
            const upstream = yield* serve(refuses, { hasty: true })
            const here = yield* gatewayTo(upstream.url, options)
            const frame = chunked
              ? ([{ "transfer-encoding": "chunked" }, `${large.length.toString(16)}\r\n`, "\r\n0\r\n\r\n"] as const)
              : ([{ "content-length": String(large.length) }, "", ""] as const)
            const { read, response, socket } = yield* dial(here.url, requestOf("POST", path, frame[0]) + frame[1])
            yield* Effect.promise(() => new Promise((sent) => socket.write(large + frame[2], sent)))
            read()
            socket.end()
            assert.strictEqual(Number((yield* Effect.promise(() => response)).slice(9, 12)), status)
            assert.strictEqual(yield* here.open, 0)
          })
      )
    }
  }
})
