import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { folder, start } from "../support/command.ts"
import { dial, requestOf } from "../../../../test/support/gateway.ts"
import { serve } from "../../../../test/support/httpServer.ts"

// A deploy ends a gateway while its clients are still reading.

const bytes = 6e6
const completion = JSON.stringify({
  model: "gpt-6",
  choices: [{ index: 0, message: { role: "assistant", content: "x".repeat(bytes) }, finish_reason: "stop" }],
  usage: { prompt_tokens: 9, completion_tokens: 9 }
})
const request = requestOf("POST", "/v1/chat/completions", { authorization: "Bearer k" }, '{"messages":[]}')

describe("a gateway that gets SIGTERM", () => {
  it.live("ends when 20 clients, which read slowly, have 6 MB each", () =>
    Effect.gen(function* () {
      const provider = yield* serve(
        (_, response) => void response.writeHead(200, { "content-type": "application/json" }).end(completion)
      )
      const { inside } = yield* folder
      const gateway = start(inside, ["--port", "0", "--upstream", `openai=${provider.url}`])
      yield* Effect.addFinalizer(() => Effect.sync(() => gateway.child.kill("SIGKILL")))
      const until = (holds: () => boolean) =>
        Effect.repeat(Effect.sync(holds), { until: (isSo) => isSo, schedule: Schedule.spaced("20 millis") })
      yield* until(() => gateway.output().includes("listening on"))
      const url = /http:\S+/.exec(gateway.output())![0]
      const clients = yield* Effect.forEach(Array.from({ length: 20 }), () => dial(url, request))
      // The provider is done, so the missing bytes are in the gateway and in its clients' sockets.
      yield* until(() => provider.requests.length === 20 && provider.open() === 0)
      yield* Effect.sleep("500 millis")
      gateway.child.kill("SIGTERM")
      yield* until(() => gateway.output().includes("Closing"))
      assert.isNull(gateway.child.exitCode)
      // Each reads for a moment, and then rests.
      for (const { read, socket } of clients) {
        read()
        socket.on("data", () => {
          socket.pause()
          setTimeout(() => socket.resume(), 1)
        })
      }
      for (const { response } of clients) {
        const text = yield* Effect.promise(() => response)
        assert.isTrue(text.endsWith(completion), `${text.length} bytes`)
      }
      const { code, stderr } = yield* Effect.promise(() => gateway.ended)
      assert.strictEqual(code, 143, stderr)
    })
  )
})
