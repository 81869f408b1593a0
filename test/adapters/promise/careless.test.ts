import { assert, describe, it } from "@effect/vitest"
import * as Accounting from "floodgate/Accounting"
import * as Floodgate from "floodgate/promise"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { call, withNext } from "./place.ts"

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

// Even if figures and accountings of users are invalid or throw, a call frees its slot.

const throws = (): never => {
  throw new Error("a bug of the user's")
}

describe("the only place is free again", () => {
  for (const [what, tokens] of [
    ["null", null],
    ["a text", "many"],
    ["odd figures", { inputTokens: "9", outputTokens: NaN, cacheReadTokens: -5 }],
    [
      "figures that throw",
      {
        inputTokens: 1,
        get outputTokens() {
          return throws()
        }
      }
    ]
  ] as const) {
    it(`after a lease that ends with ${what}`, async () => {
      const floodgate = Floodgate.create({ concurrency: 1 })
      const lease = await floodgate.limiter.acquire(call)
      lease.succeed(tokens as never)
      assert.strictEqual(await withNext(floodgate), 1)
    })

    it(`after a lease that fails with ${what}`, async () => {
      const floodgate = Floodgate.create({ concurrency: 1 })
      const lease = await floodgate.limiter.acquire(call)
      lease.fail(tokens)
      assert.strictEqual(await withNext(floodgate), 1)
    })

    it(`after a call that reports a usage of ${what}`, async () => {
      const floodgate = Floodgate.create({ concurrency: 1 })
      await floodgate.run(call, async ({ used }) => used(tokens as never)).catch(() => {})
      assert.strictEqual(await withNext(floodgate), 1)
    })
  }

  it("after a lease that was forgotten, once it was garbage collected", async () => {
    const floodgate = Floodgate.create({ concurrency: 1 })
    await (async () => void (await floodgate.limiter.acquire(call)))()
    const next = withNext(floodgate)
    const isOver = next.then(() => true)
    for (let done = false; !done;) {
      collect()
      done = await Promise.race([isOver, new Promise<boolean>((resolve) => setImmediate(() => resolve(false)))])
    }
    assert.strictEqual(await next, 1)
  })

  it("after a stream whose accounting throws", async () => {
    const events = [
      '{"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}]}',
      '{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
      "[DONE]"
    ]
    const text = events.map((data) => `data: ${data}\n\n`).join("")
    const answers = async () => new Response(text, { headers: { "content-type": "text/event-stream" } })
    const floodgate = Floodgate.create({
      concurrency: 1,
      fetch: answers,
      account: () => "",
      accounting: { ...Accounting.openai, usage: throws }
    })
    const body = JSON.stringify({ ...call, stream: true, messages: [{ role: "user", content: "Hello" }] })
    const response = await floodgate.fetch("https://api.openai.com/v1/chat/completions", { method: "POST", body })
    assert.strictEqual(await response.text(), text)
    assert.strictEqual(await withNext(floodgate), 1)
  })

  it("after a stream of the AI SDK with an invalid usage", async () => {
    const floodgate = Floodgate.create({ concurrency: 1 })
    const parts = [
      { type: "text-delta", delta: "Hi" },
      {
        type: "finish",
        finishReason: "stop",
        get usage() {
          return throws()
        }
      }
    ]
    const model = {
      provider: "my",
      modelId: "my-model",
      doStream: async () => ({ stream: ReadableStream.from(parts) })
    }
    const { stream } = await floodgate.aiSdk.wrapStream({ model, params: { prompt: [] } })
    for await (const _ of stream as unknown as AsyncIterable<unknown>) break
    assert.strictEqual(await withNext(floodgate), 1)
  })
})
