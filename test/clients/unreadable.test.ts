import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { gatewayTo } from "../support/gateway.ts"
import { serveRaw } from "../support/rawServer.ts"
import { clients } from "./clients.ts"

// A provider that executes a call, and answers it with what nobody can read. No client may have it executed again.

describe("a call that was executed, and whose answer cannot be read", () => {
  for (const client of clients.filter(({ name }) => !name.includes("middleware"))) {
    it.live(`is sent once by ${client.name}`, () =>
      Effect.gen(function* () {
        const upstream = yield* serveRaw(({ socket }) => void socket.end("HTTP/1.1 200 OK\r\nno header\r\n\r\n"))
        const { url } = yield* gatewayTo(upstream.url)
        const ask = client.make({ url, floodgate: undefined })
        const error = yield* Effect.flip(
          Effect.tryPromise({ try: () => ask("Hello", "agent"), catch: (thrown) => thrown })
        )
        assert.match(String(error), /./)
        assert.strictEqual(upstream.requests.length, 1)
      })
    )
  }
})
