import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { ServerResponse } from "node:http"
import { gatewayTo, until } from "../../../test/support/gateway.ts"
import { serve } from "../../../test/support/httpServer.ts"

/** So long that nothing else closes a connection in this test. */
const kept = { keepAliveTimeout: 600_000 }

describe("a gateway with new options", () => {
  const ask = (url: string) => Effect.promise(async () => (await fetch(`${url}/v1/models`)).text())

  it.live("releases what the old options needed: at once if no request is open", () =>
    Effect.gen(function* () {
      const upstream = yield* serve((_, response) => void response.end("old"), kept)
      const other = yield* serve((_, response) => void response.end("new"))
      const here = yield* gatewayTo(upstream.url)
      assert.strictEqual(yield* ask(here.url), "old")
      const { socket } = upstream.requests[0]!
      assert.isFalse(socket.destroyed)
      yield* here.reload({ upstreams: { openai: other.url } })
      yield* until(
        Effect.sync(() => socket.destroyed),
        (isClosed) => isClosed
      )
      assert.strictEqual(yield* ask(here.url), "new")
      assert.isFalse(other.requests[0]!.socket.destroyed)
    })
  )

  it.live("releases what the old options needed: when their last request has ended", () =>
    Effect.gen(function* () {
      const pending: Array<ServerResponse> = []
      const upstream = yield* serve((_, response) => void pending.push(response), kept)
      const other = yield* serve((_, response) => void response.end("new"))
      const here = yield* gatewayTo(upstream.url)
      const asked = yield* Effect.forEach([1, 2], () => Effect.forkChild(ask(here.url)))
      yield* until(
        Effect.sync(() => pending.length),
        (count) => count === 2
      )
      yield* here.reload({ upstreams: { openai: other.url } })
      assert.strictEqual(yield* ask(here.url), "new")
      for (const [index, response] of pending.entries()) {
        assert.isFalse(upstream.requests.some(({ socket }) => socket.destroyed))
        response.end(`old ${index}`)
        if (index === 0) yield* until(here.open, (open) => open === 1)
      }
      const texts = yield* Effect.forEach(asked, (fiber) => Fiber.join(fiber))
      assert.deepStrictEqual(texts.toSorted(), ["old 0", "old 1"])
      yield* until(
        Effect.sync(() => upstream.requests.every(({ socket }) => socket.destroyed)),
        (isClosed) => isClosed
      )
    })
  )
})
