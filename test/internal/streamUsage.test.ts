import type { RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { messageActual, observedActual } from "../../src/internal/messages.ts"
import * as StreamUsage from "../../src/internal/streamUsage.ts"

const fold = (...events: ReadonlyArray<object>) =>
  events.reduce<StreamUsage.Observed>(
    (observed, event) => StreamUsage.step(observed, event as RawMessageStreamEvent),
    StreamUsage.empty
  )
const start = (usage: object) => ({ type: "message_start", message: { usage } })
const delta = (delta: object) => ({ type: "content_block_delta", delta })
const total = (usage: object) => ({ type: "message_delta", usage })

describe("streamUsage", () => {
  it("counts cache writes as input, and cache reads not", () => {
    const observed = fold(
      start({ input_tokens: 10, cache_creation_input_tokens: 5, cache_read_input_tokens: 1_000, output_tokens: 1 })
    )
    assert.strictEqual(observed.cacheRead, 1_000)
    assert.deepStrictEqual(StreamUsage.usage(observed), { requests: 1, inputTokens: 15, outputTokens: 1 })
  })

  it("overwrites by each message_delta, and never adds: counts are cumulative and input may grow", () => {
    const observed = fold(
      start({ input_tokens: 2_679, output_tokens: 1 }),
      total({ input_tokens: 10_682, output_tokens: 100 }),
      total({ input_tokens: null, output_tokens: 150 })
    )
    assert.deepStrictEqual(StreamUsage.usage(observed), { requests: 1, inputTokens: 10_682, outputTokens: 150 })
  })

  it("estimates output that was not counted, of text, thinking and tool input, and forgets it when it is", () => {
    const parts = [
      delta({ type: "text_delta", text: "x".repeat(27) }),
      delta({ type: "thinking_delta", thinking: "x".repeat(27) }),
      delta({ type: "input_json_delta", partial_json: "x".repeat(27) }),
      delta({ type: "signature_delta", signature: "x".repeat(1_000) })
    ]
    const open = fold(start({ input_tokens: 10, output_tokens: 1 }), ...parts)
    assert.strictEqual(StreamUsage.usage(open).outputTokens, 31)
    assert.strictEqual(open.text.length, 27)
    const counted = StreamUsage.step(open, total({ output_tokens: 25 }) as RawMessageStreamEvent)
    assert.strictEqual(StreamUsage.usage(counted).outputTokens, 25)
  })

  it("keeps its own estimate of the output where the provider's last word does not count it", () => {
    // Regression: the placeholder of message_start was all that a gateway's stream without usage had put out.
    const open = fold(
      start({ input_tokens: 10, output_tokens: 1 }),
      delta({ type: "text_delta", text: "x".repeat(27) })
    )
    for (const usage of [undefined, null, {}, { output_tokens: null }]) {
      const last = StreamUsage.step(open, { type: "message_delta", usage } as never)
      assert.strictEqual(StreamUsage.usage(last).outputTokens, 11)
    }
    assert.strictEqual(StreamUsage.usage(StreamUsage.step(open, total({ output_tokens: 0 }) as never)).outputTokens, 10)
  })

  it("counts the provider's summaries of the context, which its own counts leave out, once", () => {
    // Regression: a call of 203,000 tokens was settled to 23,000.
    const summary = {
      type: "compaction",
      input_tokens: 180_000,
      cache_creation_input_tokens: 2_000,
      cache_read_input_tokens: 300,
      output_tokens: 3_500
    }
    const usage = {
      input_tokens: 23_000,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
      output_tokens: 1_000,
      iterations: [summary, { type: "message", input_tokens: 23_000, output_tokens: 1_000 }, null]
    }
    const all = { inputTokens: 203_000, cacheCreationTokens: 2_000, cacheReadTokens: 300, outputTokens: 4_500 }
    assert.deepStrictEqual(messageActual(usage as never), all)
    const stream = fold(start({ ...usage, output_tokens: 1 }), total(usage), total(usage))
    assert.deepStrictEqual(observedActual(stream), all)
    assert.deepStrictEqual(StreamUsage.usage(stream), { requests: 1, inputTokens: 205_000, outputTokens: 4_500 })
  })

  it("leaves out input that was never named", () => {
    assert.deepStrictEqual(StreamUsage.usage(StreamUsage.empty), { requests: 1, outputTokens: 0 })
  })

  it("has started with the first content, and is complete with message_stop alone", () => {
    const marks = (...events: ReadonlyArray<object>) => [fold(...events).started, fold(...events).complete]
    assert.deepStrictEqual(marks(start({ input_tokens: 1 })), [false, false])
    assert.deepStrictEqual(marks(start({ input_tokens: 1 }), { type: "content_block_start" }), [true, false])
    assert.deepStrictEqual(marks(total({ output_tokens: 1 }), { type: "message_stop" }), [false, true])
  })

  it("ignores counts that are none", () => {
    const observed = fold(start({ input_tokens: 10 }), total({ input_tokens: -1, output_tokens: "many" }))
    assert.deepStrictEqual(StreamUsage.usage(observed), { requests: 1, inputTokens: 10, outputTokens: 0 })
  })

  describe("read", () => {
    const tag = (event: string | null, data: string) => StreamUsage.read(StreamUsage.empty, { event, data })._tag

    it("tells events, errors, pings and nonsense apart", () => {
      assert.strictEqual(tag("message_stop", '{"type":"message_stop"}'), "Event")
      assert.strictEqual(tag(null, '{"type":"message_stop"}'), "Event")
      assert.strictEqual(tag("of_tomorrow", '{"type":"of_tomorrow"}'), "Event")
      assert.strictEqual(tag("error", '{"type":"error","error":{}}'), "Error")
      assert.strictEqual(tag(null, '{"type":"error","error":{}}'), "Error")
      assert.strictEqual(tag("error", "upstream went away"), "Error")
      assert.strictEqual(tag("ping", '{"type":"ping"}'), "Ignored")
      assert.strictEqual(tag(null, '{"type":"ping"}'), "Ignored")
      assert.strictEqual(tag("message_stop", ""), "Ignored")
      for (const data of ["{", "null", "[]", "1", '{"type":1}', '{"type":"content_block_delta"}']) {
        assert.strictEqual(tag("content_block_delta", data), "Malformed")
      }
    })

    const json = Schema.Union([Schema.String, Schema.Null, Schema.Finite, Schema.Record(Schema.String, Schema.String)])
    const type = Schema.Literals(["message_start", "content_block_delta", "message_delta", "message_stop", "other"])
    it.prop(
      "never throws, and the usage stays finite",
      { events: Schema.Array(Schema.Struct({ type, message: json, delta: json, usage: json })) },
      ({ events }) => {
        let observed = StreamUsage.empty
        for (const event of events) {
          const step = StreamUsage.read(observed, { event: event.type, data: JSON.stringify(event) })
          if (step._tag === "Event") observed = step.observed
        }
        const usage = StreamUsage.usage(observed)
        assert.isTrue(Number.isFinite(usage.inputTokens ?? 0) && Number.isFinite(usage.outputTokens))
      },
      { arbitrary: { runs: 500 } }
    )
  })
})
