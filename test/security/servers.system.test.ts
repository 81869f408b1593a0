import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { ProviderServer } from "floodgate/testing/server"
import * as Net from "node:net"
import * as Os from "node:os"

describe("servers", () => {
  const outside = Object.values(Os.networkInterfaces())
    .flatMap((list) => list ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal)?.address

  it.live("listen on loopback unless a host is given", () =>
    Effect.gen(function* () {
      const server = yield* ProviderServer.make()
      const { hostname, port } = new URL(server.url)
      assert.strictEqual(hostname, "127.0.0.1")
      if (outside === undefined) return
      const reached = yield* Effect.callback<boolean>((resume) => {
        const socket = Net.connect({ host: outside, port: Number(port) })
        socket.on("connect", () => resume(Effect.succeed(true)))
        socket.on("error", () => resume(Effect.succeed(false)))
        return Effect.sync(() => socket.destroy())
      })
      assert.isFalse(reached)
    })
  )

  it.live("refuse a body that is too large, with or without a content-length", () =>
    Effect.gen(function* () {
      const server = yield* ProviderServer.make({ maxBodyBytes: 1_000 })
      const headers = { authorization: "Bearer key" }
      const post = (body: string | ReadableStream<Uint8Array>) =>
        Effect.promise(() =>
          fetch(`${server.url}/v1/messages`, { method: "POST", headers, body, duplex: "half" } as RequestInit)
        )
      const said = yield* post("x".repeat(2_000))
      assert.strictEqual(said.status, 413)
      const chunk = new TextEncoder().encode("x".repeat(600))
      const streamed = yield* post(
        new ReadableStream({
          start: (controller) => {
            for (let n = 0; n < 4; n++) controller.enqueue(chunk)
            controller.close()
          }
        })
      )
      assert.strictEqual(streamed.status, 413)
    })
  )

  it.live("treat names of Object.prototype as data", () =>
    Effect.gen(function* () {
      const server = yield* ProviderServer.make({ latency: { baseMillis: 1 } })
      const post = (body: string) =>
        Effect.promise(() =>
          fetch(`${server.url}/v1/messages`, { method: "POST", headers: { authorization: "Bearer key" }, body })
        )
      const good = `"max_tokens":5,"messages":[{"role":"user","content":"x"}]`
      const answered = yield* post(
        `{"model":"__proto__",${good},"metadata":{"user_id":"__proto__"},"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}`
      )
      assert.strictEqual(answered.status, 200)
      yield* post(`{"__proto__":{"model":"m","max_tokens":5}}`)
      assert.notProperty({}, "polluted")
      const [entry] = yield* server.log
      assert.strictEqual(entry!.agent, "__proto__")
    })
  )
})
