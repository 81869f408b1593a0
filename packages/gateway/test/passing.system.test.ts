import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Net from "node:net"
import { gatewayTo } from "../../../test/support/gateway.ts"

// Requests that are passed on, to an upstream that closes connections just when it gets a request.

interface Closing {
  readonly url: string
  /** The request lines, by connection. */
  readonly got: ReadonlyArray<ReadonlyArray<string>>
}

/** An upstream that answers a number of requests on a connection, and closes it at the next one. */
const closingAfter = Effect.fnUntraced(function* (answers: number) {
  const got: Array<Array<string>> = []
  const server = yield* Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer((socket) => {
        const lines: Array<string> = []
        got.push(lines)
        socket
          .on("error", () => {})
          .on("data", (data) => {
            lines.push(/^\S+ \S+/.exec(data.toString())![0])
            if (lines.length > answers) socket.destroy()
            else socket.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
          })
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )
  return { got, url: `http://127.0.0.1:${(server.address() as Net.AddressInfo).port}` } satisfies Closing
})

const ask = (url: string, method: string, body: string | null = null) =>
  Effect.promise(async () => {
    const response = await fetch(`${url}/openai/v1/models`, { method, body })
    await response.text()
    return response.status
  })

describe("a request that is passed on", () => {
  for (const method of ["GET", "HEAD"]) {
    it.live(`is sent again if the upstream has closed an idle connection: ${method}`, () =>
      Effect.gen(function* () {
        const upstream = yield* closingAfter(1)
        const here = yield* gatewayTo(upstream.url)
        assert.deepStrictEqual([yield* ask(here.url, "GET"), yield* ask(here.url, method)], [200, 200])
        const line = `${method} /v1/models`
        assert.deepStrictEqual(upstream.got, [["GET /v1/models", line], [line]])
      })
    )
  }

  it.live("is not sent a third time", () =>
    Effect.gen(function* () {
      const upstream = yield* closingAfter(0)
      const here = yield* gatewayTo(upstream.url)
      assert.strictEqual(yield* ask(here.url, "GET"), 502)
      assert.strictEqual(upstream.got.length, 2)
    })
  )

  for (const [method, body] of [
    ["POST", "{}"],
    ["POST", null],
    ["DELETE", null]
  ] as const) {
    it.live(`is sent only once if it may change something: ${method}, ${body ?? "without a body"}`, () =>
      Effect.gen(function* () {
        const upstream = yield* closingAfter(0)
        const here = yield* gatewayTo(upstream.url)
        assert.strictEqual(yield* ask(here.url, method, body), 502)
        assert.strictEqual(upstream.got.length, 1)
      })
    )
  }
})
