import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { documentShare, imageBytes, requestSize, utf8Length } from "../../src/internal/requestSize.ts"

const requestBytes = (params: Parameters<typeof requestSize>[0]): number => requestSize(params).bytes

const utf8 = (text: string): number => new TextEncoder().encode(text).length

describe("requestSize", () => {
  it("counts bytes of UTF-8, of one to four a character", () => {
    for (const text of ["", "plain", "é", "漢字", "👍🏽", "a é 漢 👍", "\u07ff\u0800\uffff"]) {
      assert.strictEqual(utf8Length(text), utf8(text), text)
    }
  })

  it.prop("counts whatever characters there are", { text: Schema.String }, ({ text }) => {
    assert.strictEqual(utf8Length(text.toWellFormed()), utf8(text.toWellFormed()))
  })

  it("takes a picture for what it costs, and of a PDF what its text is, whatever their data", () => {
    const image = { type: "image", source: { type: "base64", media_type: "image/png", data: "x".repeat(100_000) } }
    const document = { type: "document", source: { type: "base64", data: "x".repeat(1_000) } }
    const of = (...content: ReadonlyArray<object>) => requestBytes({ messages: [{ role: "user", content }] })
    assert.strictEqual(of(image) - of(), imageBytes)
    assert.strictEqual(of(image, image) - of(image), imageBytes)
    const { textBytes } = requestSize({ messages: [{ role: "user", content: [image, document] }] })
    assert.strictEqual(textBytes - of(), "document".length)
    assert.strictEqual(of(document) - of(), "document".length + 1_000 * documentShare)
    // Data that is no text is none: nothing is known of it but its type.
    assert.strictEqual(of({ type: "base64", data: 5 }) - of(), "base64".length)
  })

  it("counts tools as the schemas that the model sees, and cache marks not at all", () => {
    const messages = [{ role: "user", content: "Hello" }]
    const tools = [{ name: "find", input_schema: { type: "object" } }]
    assert.strictEqual(requestBytes({ messages, tools }) - requestBytes({ messages }), utf8(JSON.stringify(tools)))
    // Regression: the schema of the answer's format was reserved as nothing.
    const format = { type: "json_schema", schema: { type: "object", properties: { answer: { type: "number" } } } }
    const formatted = requestBytes({ messages, output_config: { format } })
    assert.strictEqual(formatted - requestBytes({ messages }), utf8(JSON.stringify(format)))
    assert.strictEqual(requestBytes({ messages, output_config: {} }), requestBytes({ messages }))
    const marked = [{ role: "user", content: [{ type: "text", text: "Hello", cache_control: { type: "ephemeral" } }] }]
    const plain = [{ role: "user", content: [{ type: "text", text: "Hello" }] }]
    assert.strictEqual(requestBytes({ messages: marked }), requestBytes({ messages: plain }))
  })
})
