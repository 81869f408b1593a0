import { assert, describe, it } from "@effect/vitest"
import { readEvent } from "../../src/protocol/messages.ts"
import { emptyAnswer, receivedOf } from "../../src/protocol/protocol.ts"

describe("messages", () => {
  describe("readEvent", () => {
    const tag = (event: string | null, data: string) => readEvent({ event, data })._tag

    it("distinguishes events, errors, pings and malformed data", () => {
      assert.strictEqual(tag("message_stop", '{"type":"message_stop"}'), "Event")
      assert.strictEqual(tag(null, '{"type":"message_stop"}'), "Event")
      assert.strictEqual(tag("of_tomorrow", '{"type":"of_tomorrow"}'), "Event")
      assert.strictEqual(tag("content_block_delta", '{"type":"content_block_delta","delta":{"type":"new"}}'), "Event")
      assert.strictEqual(tag("error", '{"type":"error","error":{}}'), "Error")
      assert.strictEqual(tag(null, '{"type":"error","error":{}}'), "Error")
      assert.strictEqual(tag("error", "upstream went away"), "Error")
      assert.strictEqual(tag("ping", '{"type":"ping"}'), "Ignored")
      assert.strictEqual(tag(null, '{"type":"ping"}'), "Ignored")
      assert.strictEqual(tag("message_stop", ""), "Ignored")
      for (const data of ["{", "null", "[]", "1", '{"type":1}', '{"type":"content_block_delta"}']) {
        assert.strictEqual(tag("content_block_delta", data), "Malformed")
      }
      for (const type of ["text_delta", "thinking_delta", "input_json_delta"]) {
        assert.strictEqual(tag(null, `{"type":"content_block_delta","delta":{"type":"${type}"}}`), "Malformed")
      }
    })
  })

  describe("receivedOf", () => {
    it("counts cache writes as input, but not cache reads", () => {
      const counts = { inputTokens: 10, cacheCreationTokens: 5, cacheReadTokens: 1_000, outputTokens: 1 }
      assert.deepStrictEqual(receivedOf({ ...emptyAnswer, counts, started: true }, "Once"), {
        usage: { requests: 1, inputTokens: 15, outputTokens: 1 },
        text: "Once",
        started: true
      })
    })

    it("leaves out input that was never reported", () => {
      assert.deepStrictEqual(receivedOf(emptyAnswer, "").usage, { requests: 1, outputTokens: 0 })
    })
  })
})
