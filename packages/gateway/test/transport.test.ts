import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { subscribe, unsubscribe } from "node:diagnostics_channel"
import type { ServerResponse } from "node:http"
import type { Socket } from "node:net"
import { gzipSync } from "node:zlib"
import { until } from "../../../test/support/gateway.ts"
import { serve } from "../../../test/support/httpServer.ts"
import * as Transport from "../src/transport.ts"

// These use real HTTP, so they run on the real clock.

/** The connection that is made next, as the transport has it. */
const connected = Effect.gen(function* () {
  const made: { socket?: Socket } = {}
  const seen = (message: unknown): void => void (made.socket = (message as { readonly socket: Socket }).socket)
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
