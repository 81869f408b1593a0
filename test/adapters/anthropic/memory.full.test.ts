import Sdk from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Anthropic from "floodgate/providers/Anthropic"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

/** Collects garbage until nothing more is released. Finalizers run between the turns. */
const settle = Effect.promise(async () => {
  for (let turn = 0; turn < 5; turn++) {
    collect()
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
})

const events = ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
const body = events.map((type) => `event: ${type}\ndata: ${JSON.stringify({ type })}\n\n`).join("")
const params = { model: "claude-sonnet-5", max_tokens: 10, messages: [{ role: "user" as const, content: "x" }] }

// Regression: the SDK keeps a request in memory until its own iterator ends, which ours does not use, so every stream stayed.
describe("a stream that is over", () => {
  it.live.each(["read", "left", "never read"] as const)("is let go of when it was %s", (how) =>
    Effect.gen(function* () {
      const bodies: Array<WeakRef<object>> = []
      const fetch = async () => {
        const response = new Response(body, { headers: { "content-type": "text/event-stream" } })
        bodies.push(new WeakRef(response.body!))
        return response
      }
      const provider = Anthropic.fromClient(new Sdk({ apiKey: "key", baseURL: "http://127.0.0.1:9", fetch }))
      const call = Effect.gen(function* () {
        const { value } = yield* provider.stream(params)
        if (how === "read") yield* Stream.runDrain(value)
        if (how === "left") yield* Stream.runHead(value)
      }).pipe(Effect.scoped)
      yield* Effect.repeat(call, { times: 19 })
      yield* settle
      const alive = bodies.filter((body) => body.deref() !== undefined).length
      assert.strictEqual(bodies.length, 20)
      // The last one may still be on the stack.
      assert.isAtMost(alive, 1)
    })
  )
})
