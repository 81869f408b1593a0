import { assert, describe, it } from "@effect/vitest"
import { makeFrameParser } from "../../src/protocol/amazonFrames.ts"
import { eventFrame, exceptionFrame, frame } from "../support/apis.ts"

const stream = Buffer.concat([
  eventFrame("messageStart", { role: "assistant" }),
  eventFrame("contentBlockDelta", { delta: { text: "✓".repeat(300) } }),
  eventFrame("metadata", { usage: { inputTokens: 1 } })
])
const names = ["messageStart", "contentBlockDelta", "metadata"]

/** The events in a stream that arrives in pieces of a size. */
const eventsIn = (bytes: Uint8Array, size: number) => {
  const parser = makeFrameParser()
  const events: Array<{ readonly name: string | undefined; readonly data: string }> = []
  for (let at = 0; at < bytes.length; at += size) {
    const chunk = bytes.subarray(at, at + size)
    for (const { data, end, name } of parser.feed(chunk)) {
      assert.isAtMost(end, chunk.length)
      events.push({ name, data })
    }
  }
  return { events, hasStopped: parser.hasStopped() }
}

describe("the parser of Amazon's frames", () => {
  it("finds the same events wherever the chunks are cut", () => {
    const whole = eventsIn(stream, stream.length)
    assert.deepStrictEqual(
      whole.events.map(({ name }) => name),
      names
    )
    assert.deepStrictEqual(JSON.parse(whole.events[1]!.data), { delta: { text: "✓".repeat(300) } })
    for (let size = 1; size < stream.length; size++) assert.deepStrictEqual(eventsIn(stream, size), whole, `${size}`)
  })

  it("says where an event ends in its chunk", () => {
    const first = eventFrame("messageStart", { role: "assistant" })
    const found = makeFrameParser().feed(stream)
    assert.strictEqual(found[0]!.end, first.length)
    assert.strictEqual(found.at(-1)!.end, stream.length)
  })

  it("names exceptions, and errors that no model has", () => {
    const parser = makeFrameParser()
    const error = frame({ ":message-type": "error", ":error-code": "InternalError", ":error-message": "Broken" }, "")
    const events = parser.feed(Buffer.concat([exceptionFrame("throttlingException", "Slow down"), error]))
    assert.deepStrictEqual(
      events.map(({ data, name }) => [name, JSON.parse(data)]),
      [
        ["throttlingException", { message: "Slow down" }],
        ["InternalError", { message: "Broken" }]
      ]
    )
  })

  it("stops at what is no frame, and finds nothing afterwards", () => {
    const huge = Buffer.alloc(12)
    huge.writeUInt32BE(2 ** 31, 0)
    const beyond = Buffer.from(stream)
    // The headers would be longer than the frame.
    beyond.writeUInt32BE(60_000, 4)
    const cutHeader = Buffer.from(stream)
    // The name of the first header would be longer than the headers.
    cutHeader[12] = 255
    for (const bytes of [Buffer.from("<html><body>Sorry</body></html>"), huge, beyond, cutHeader, Buffer.alloc(12)]) {
      const parser = makeFrameParser()
      assert.deepStrictEqual(parser.feed(bytes), [])
      assert.isTrue(parser.hasStopped())
      assert.deepStrictEqual(parser.feed(stream), [])
      assert.deepStrictEqual(parser.end(), [])
    }
    const small = makeFrameParser({ maxBytes: 100 })
    small.feed(stream)
    assert.isTrue(small.hasStopped())
  })

  it("takes an incomplete frame for none", () => {
    const parser = makeFrameParser()
    assert.lengthOf(parser.feed(stream.subarray(0, stream.length - 1)), 2)
    assert.deepStrictEqual(parser.end(), [])
    assert.isFalse(parser.hasStopped())
  })
})
