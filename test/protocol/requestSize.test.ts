import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { type Protocol, protocols } from "floodgate/protocol"
import { documentShare, imageBytes, jsonBytes, mediaShare, utf8Length } from "../../src/protocol/requestSize.ts"

const { anthropic, gemini, openaiChat, openaiResponses } = protocols

const utf8 = (text: string): number => new TextEncoder().encode(text).length

const describeBody = (protocol: Protocol, path: string, body: object) => {
  const route = protocol.match("POST", path)
  const description = route && protocol.describe(body, route)
  return description ?? assert.fail("no description")
}

interface Messages {
  readonly messages: ReadonlyArray<object>
  readonly [name: string]: unknown
}

const sizeOf = (body: Messages) => describeBody(anthropic, "/v1/messages", body)
const bytesOf = (body: Messages): number => sizeOf(body).bytes
const contentBytes = (...content: ReadonlyArray<object>) => bytesOf({ messages: [{ role: "user", content }] })

describe("requestSize", () => {
  it("counts bytes of UTF-8, of one to four a character", () => {
    for (const text of ["", "plain", "é", "漢字", "👍🏽", "a é 漢 👍", "\u07ff\u0800\uffff"]) {
      assert.strictEqual(utf8Length(text), utf8(text), text)
    }
  })

  it.prop("counts any characters, in short texts and in long ones", { text: Schema.String }, ({ text }) => {
    const formed = text.toWellFormed()
    for (const times of [1, 50, 5_000]) {
      assert.strictEqual(utf8Length(formed.repeat(times)), times * utf8(formed))
    }
  })

  it("never splits a character of a long text", () => {
    for (const shift of ["", "x", "xx", "é"]) {
      const text = shift + "👍🏽".repeat(20_000)
      assert.strictEqual(utf8Length(text), utf8(text))
    }
  })

  it("counts a picture by a constant and a PDF by its text, whatever their data", () => {
    const image = { type: "image", source: { type: "base64", media_type: "image/png", data: "x".repeat(100_000) } }
    const document = { type: "document", source: { type: "base64", data: "x".repeat(1_000) } }
    assert.strictEqual(contentBytes(image) - contentBytes(), "image".length + imageBytes)
    assert.strictEqual(contentBytes(image, image) - contentBytes(image), "image".length + imageBytes)
    const { textBytes } = sizeOf({ messages: [{ role: "user", content: [image, document] }] })
    assert.strictEqual(textBytes - contentBytes(), "imagedocumentbase64".length)
    assert.strictEqual(contentBytes(document) - contentBytes(), "documentbase64".length + 1_000 * documentShare)
    // Data that is not a string does not count: only its type is known.
    assert.strictEqual(contentBytes({ type: "base64", data: 5 }) - contentBytes(), "base64".length)
  })

  it("counts tools as the schemas that the model sees, without cache marks", () => {
    const messages = [{ role: "user", content: "Hello" }]
    const tools = [{ name: "find", input_schema: { type: "object" } }]
    assert.strictEqual(bytesOf({ messages, tools }) - bytesOf({ messages }), utf8(JSON.stringify(tools)))
    // Regression: the schema of the answer's format was reserved as nothing.
    const format = { type: "json_schema", schema: { type: "object", properties: { answer: { type: "number" } } } }
    for (const formatted of [{ output_config: { format } }, { output_format: format }]) {
      assert.strictEqual(bytesOf({ messages, ...formatted }) - bytesOf({ messages }), utf8(JSON.stringify(format)))
    }
    assert.strictEqual(bytesOf({ messages, output_config: {} }), bytesOf({ messages }))
    const marked = [{ role: "user", content: [{ type: "text", text: "Hello", cache_control: { type: "ephemeral" } }] }]
    const plain = [{ role: "user", content: [{ type: "text", text: "Hello" }] }]
    assert.strictEqual(bytesOf({ messages: marked }), bytesOf({ messages: plain }))
  })

  describe("of files in every protocol", () => {
    const data = "x".repeat(10_000)
    const chat = (part: object) =>
      describeBody(openaiChat, "/v1/chat/completions", { messages: [{ role: "user", content: [part] }] })
    const responses = (part: object) =>
      describeBody(openaiResponses, "/v1/responses", { input: [{ role: "user", content: [part] }] })
    const google = (part: object) =>
      describeBody(gemini, "/v1beta/models/m:generateContent", { contents: [{ parts: [part] }] })
    const url = `data:image/png;base64,${data}`

    it.each([
      ["Chat's images", chat({ type: "image_url", image_url: { url } }), imageBytes],
      ["Chat's files", chat({ type: "file", file: { filename: "a", file_data: data } }), 10_000 * documentShare],
      ["Chat's recordings", chat({ type: "input_audio", input_audio: { data, format: "mp3" } }), 10_000 * mediaShare],
      ["the images of Responses", responses({ type: "input_image", image_url: url, detail: "auto" }), imageBytes],
      ["screenshots", responses({ type: "computer_screenshot", image_url: url }), imageBytes],
      ["the files of Responses", responses({ type: "input_file", file_data: data }), 10_000 * documentShare],
      ["Gemini's images", google({ inlineData: { mimeType: "image/png", data } }), imageBytes],
      ["Gemini's documents", google({ inlineData: { mimeType: "application/pdf", data } }), 10_000 * documentShare],
      ["Gemini's films", google({ inline_data: { mime_type: "video/mp4", data } }), 10_000 * mediaShare]
    ])("counts %s", (_, { bytes, stored, textBytes }, expected) => {
      assert.strictEqual(bytes - textBytes, expected)
      assert.isBelow(textBytes, 50)
      assert.isFalse(stored)
    })

    it.each([
      [
        "a document by its address",
        sizeOf({ messages: [{ content: [{ source: { type: "url", url: "https://x" } }] }] })
      ],
      ["an uploaded file", sizeOf({ messages: [{ content: [{ source: { type: "file", file_id: "file_1" } }] }] })],
      ["a file of Chat's", chat({ type: "file", file: { file_id: "file_1" } })],
      ["an item of an earlier answer", responses({ type: "item_reference", id: "msg_1" })],
      ["a file of Google's", google({ fileData: { mimeType: "video/mp4", fileUri: "gs://a/b" } })]
    ])("notices %s, which the body does not contain", (_, { stored }) => {
      assert.isTrue(stored)
    })

    it("does not take the input of a tool for a file because it has a format", () => {
      const input = { format: "csv", data: "x".repeat(1_000) }
      assert.isAbove(contentBytes({ type: "tool_use", name: "save", input }), 1_000)
    })
  })

  // Regression: the caller's own data counted as a picture or as nothing, and 3 MB were sent under a cap of $0.50.
  describe("of values that only look like content", () => {
    const data = "x".repeat(100_000)
    const lookalikes = [
      { type: "image", prompt: data },
      { type: "image", source: { data } },
      { type: "base64", data },
      { cache_control: data },
      { inlineData: { mimeType: "image/png", data } },
      { nested: [{ file_data: data }] }
    ]
    const anthropicTool = (input: unknown) => contentBytes({ type: "tool_use", id: "t", name: "draw", input })
    const chatTool = (value: unknown) =>
      describeBody(openaiChat, "/v1/chat/completions", {
        messages: [{ role: "assistant", tool_calls: [{ function: { name: "draw", arguments: value } }] }]
      }).textBytes
    const responsesTool = (value: unknown) =>
      describeBody(openaiResponses, "/v1/responses", { input: [{ type: "function_call", arguments: value }] }).textBytes
    const variable = (value: object) =>
      describeBody(openaiResponses, "/v1/responses", {
        prompt: { id: "p", variables: { cache_control: JSON.stringify(value) } }
      }).textBytes
    const google = (part: object) =>
      describeBody(gemini, "/v1beta/models/m:generateContent", { contents: [{ parts: [part] }] }).textBytes
    const called = (args: unknown) => google({ functionCall: { name: "draw", args } })
    const answered = (response: unknown) => google({ functionResponse: { name: "draw", response } })

    it.each([
      ["the input of Anthropic's tools", anthropicTool],
      ["the arguments of Chat's tools", chatTool],
      ["the arguments of Responses' tools", responsesTool],
      ["the variables of a prompt", variable],
      ["the arguments of Gemini's functions", called],
      ["the answers of Gemini's functions", answered]
    ])("counts %s in full", (_, bytesOf) => {
      for (const value of lookalikes) assert.isAtLeast(bytesOf(value), utf8(JSON.stringify(value)))
    })

    it("counts the text around a picture", () => {
      assert.isAtLeast(contentBytes({ type: "image", source: {}, text: data }), data.length)
      assert.isAtLeast(bytesOf({ messages: [{ role: "user", type: "image", content: data }] }), data.length)
    })
  })

  const scalar = Schema.Union([Schema.String, Schema.Finite, Schema.Null, Schema.Boolean])
  const flat = Schema.Union([scalar, Schema.Array(scalar), Schema.Record(Schema.String, scalar)])
  it.prop(
    "computes the length of a value as JSON without serialising it",
    { value: Schema.Union([flat, Schema.Array(flat), Schema.Record(Schema.String, flat)]) },
    ({ value }) => {
      assert.strictEqual(jsonBytes(value), utf8(JSON.stringify(value)))
    },
    { arbitrary: { runs: 1_000 } }
  )

  it("computes the length of a long text as JSON, whatever it escapes and wherever", () => {
    const special = [
      '"',
      "\\",
      "\n",
      "\u0000",
      "\u001f",
      " ",
      "\u007f",
      "é",
      "漢",
      "👍",
      "\ud83d",
      "\udc4d",
      "\ud83d\udc4d\udc4d"
    ]
    for (const length of [63, 64, 65, 66, 67, 16_384, 40_000]) {
      for (const one of special) {
        for (const text of [one.padEnd(length, "x"), one.padStart(length, "x"), `${"x".repeat(length)}${one}${one}"`]) {
          assert.strictEqual(jsonBytes(text), utf8(JSON.stringify(text)), `${length} ${JSON.stringify(one)}`)
        }
      }
    }
  })

  it("survives content that is nested deeper than any stack", () => {
    const deep = JSON.parse(`${"[".repeat(50_000)}${"]".repeat(50_000)}`) as Array<object>
    // Regression: values nested more than 200 levels deep counted as nothing.
    assert.isAtLeast(bytesOf({ messages: deep }), 99_000)
    assert.isAtLeast(bytesOf({ messages: [], tools: deep }), 100_000)
  })

  it("refuses an object that contains itself, and takes one that occurs often", { tags: "full" }, () => {
    // Regression: it took all the memory, because its size has no end.
    const once: Record<string, unknown> = { type: "text", text: "x" }
    once["self"] = once
    const often: Record<string, unknown> = {}
    often["items"] = [often, often]
    for (const itself of [once, often, { type: "tool_use", id: "toolu_1", name: "read", input: often }]) {
      assert.throws(() => contentBytes(itself), /an object that contains itself/)
    }
    const shared = { a: 1 }
    const many = Array.from({ length: 1_100_000 }, () => shared)
    assert.strictEqual(jsonBytes(many), utf8(JSON.stringify(many)))
  })
})
