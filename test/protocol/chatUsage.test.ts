import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { protocols } from "floodgate/protocol"
import OpenAI from "openai"
import { makeSseFilter, makeSseParser, type SseEvent } from "../../src/protocol/sse.ts"
import { mulberry } from "../support/random.ts"
import { chatStream, chatStreamFiltered, chatStreamPlain } from "./fixtures.ts"
import { bytesOf, piecesOf, randomPieces, singly } from "./reading.ts"

const { openaiChat } = protocols

const { inject, isExtra } = openaiChat.usageRequest!

const asked = { stream_options: { include_usage: true } }

const filtered = (pieces: ReadonlyArray<Uint8Array>): string => {
  const parser = makeSseParser()
  const filter = makeSseFilter(isExtra)
  const passed = pieces.flatMap((piece) => filter.push(piece, parser.feed(piece)))
  return Buffer.concat([...passed, ...filter.end()]).toString()
}

describe("chatUsage", () => {
  describe("inject", () => {
    it("adds the option and keeps every other byte", () => {
      const body = '  {"model": "gpt-6", "seed": 9007199254740993, "temperature": 1.0}\n'
      assert.strictEqual(
        inject(body),
        '  {"stream_options":{"include_usage":true},"model": "gpt-6", "seed": 9007199254740993, "temperature": 1.0}\n'
      )
      assert.strictEqual(inject("{}"), '{"stream_options":{"include_usage":true}}')
      assert.strictEqual(inject("{ }"), '{"stream_options":{"include_usage":true} }')
    })

    it.each([
      ['{"a":"stream_options","stream_options":null,"b":1e5}', '{"a":"stream_options","stream_options":#,"b":1e5}'],
      ['{"stream_options" : null , "b":[1]}', '{"stream_options" : # , "b":[1]}'],
      ['{"b":{"stream_options":{}},"stream_options":{}}', '{"b":{"stream_options":{}},"stream_options":#}'],
      ['{"b":"\\"}","stream_options":{"include_usage":false}}', '{"b":"\\"}","stream_options":#}'],
      [
        '{"stream_options":{"include_usage":false},"stream_options":{}}',
        '{"stream_options":{"include_usage":false},"stream_options":#}'
      ],
      ['{"stream\\u005foptions":{}, "b":true}', '{"stream\\u005foptions":#, "b":true}']
    ])("replaces the option where it stands: %s", (body, expected) => {
      assert.strictEqual(inject(body), expected.replace("#", '{"include_usage":true}'))
    })

    it("keeps the other options of the stream", () => {
      assert.strictEqual(
        inject('{"stream_options":{"include_obfuscation": false}}'),
        '{"stream_options":{"include_obfuscation":false,"include_usage":true}}'
      )
    })

    it("returns a body that is not a JSON object unchanged", () => {
      for (const body of ["", "null", "[]", '"{}"', "{", "not json", '{"a":1} x'])
        assert.strictEqual(inject(body), body)
    })

    const scalar = Schema.Union([Schema.String, Schema.Finite, Schema.Null, Schema.Boolean])
    const value = Schema.Union([scalar, Schema.Array(scalar), Schema.Record(Schema.String, scalar)])
    const key = Schema.Union([Schema.String, Schema.Literals(["stream_options", "messages", "{", '"', "\\"])])
    it.prop(
      "changes only the option, in any object",
      { body: Schema.Record(key, value), indent: Schema.Literals([0, 1, 2]) },
      ({ body, indent }) => {
        const text = JSON.stringify(body, null, indent)
        const sent = JSON.parse(text) as Record<string, unknown>
        const options = sent["stream_options"]
        const before = typeof options === "object" && options !== null && !Array.isArray(options) ? options : {}
        assert.deepStrictEqual(JSON.parse(inject(text)), {
          ...sent,
          stream_options: { ...before, include_usage: true }
        })
        // A second request for usage changes nothing.
        assert.deepStrictEqual(JSON.parse(inject(inject(text))), JSON.parse(inject(text)))
      },
      { tags: "full", arbitrary: { runs: 1_000 } }
    )
  })

  describe("isExtra", () => {
    const event = (data: unknown): SseEvent => ({ name: undefined, data: JSON.stringify(data), end: 0 })

    it("recognises only the additional chunk, by its usage and its lack of choices", () => {
      const usage = { prompt_tokens: 1 }
      assert.isTrue(isExtra(event({ choices: [], usage })))
      assert.isTrue(isExtra({ name: undefined, data: '{"usage":{},\n "choices" : [ ]}' }))
      for (const other of [
        // Azure's first chunk.
        { choices: [], prompt_filter_results: [{}] },
        { choices: [], usage: null },
        { choices: [{}], usage },
        { usage },
        { error: { message: '"choices":[]' }, usage },
        { choices: [{ delta: { content: '{"choices":[],"usage":{}}' } }], usage }
      ]) {
        assert.isFalse(isExtra(event(other)), JSON.stringify(other))
      }
      for (const data of ["[DONE]", "", '{"choices":[]', '"choices":[]']) {
        assert.isFalse(isExtra({ name: undefined, data }))
      }
    })
  })

  describe("the filter of a stream", () => {
    it("removes the additional chunk and keeps every other byte, wherever the stream is split", () => {
      const bytes = bytesOf(chatStream)
      assert.notStrictEqual(chatStream, chatStreamFiltered)
      assert.strictEqual(filtered([bytes]), chatStreamFiltered)
      assert.strictEqual(filtered(singly(bytes)), chatStreamFiltered)
      for (let cut = 0; cut <= bytes.length; cut++) {
        assert.strictEqual(filtered(piecesOf(bytes, [cut])), chatStreamFiltered, `cut at ${cut}`)
      }
    })

    it("keeps every byte of a stream without it, of any line ends and comments, broken off anywhere", () => {
      const random = mulberry(7)
      for (const newline of ["\n", "\r\n", "\r"]) {
        const bytes = bytesOf(`: OPENROUTER PROCESSING\n\n${chatStreamPlain}`.replaceAll("\n", newline))
        for (let round = 0; round < 200; round++) {
          const part = bytes.subarray(0, Math.floor(random() * (bytes.length + 1)))
          assert.strictEqual(filtered(randomPieces(part, random)), new TextDecoder().decode(part))
        }
      }
    })

    it("keeps every byte of any garbage", () => {
      const random = mulberry(11)
      for (let round = 0; round < 300; round++) {
        const bytes = Uint8Array.from(
          { length: Math.floor(random() * 500) },
          () => [10, 13, 58, 100][Math.floor(random() * 8)] ?? Math.floor(random() * 256)
        )
        const parser = makeSseParser()
        const filter = makeSseFilter(isExtra)
        const passed = randomPieces(bytes, random).flatMap((piece) => filter.push(piece, parser.feed(piece)))
        assert.deepStrictEqual(Uint8Array.from(Buffer.concat([...passed, ...filter.end()])), bytes)
      }
    })

    it("gives the openai SDK the chunks that it gets without the option", async () => {
      const bodies: Array<string> = []
      const client = (governed: boolean) =>
        new OpenAI({
          apiKey: "any",
          maxRetries: 0,
          fetch: (_, init) => {
            const body = governed ? inject(String(init?.body)) : String(init?.body)
            bodies.push(body)
            const asks = (JSON.parse(body) as Partial<typeof asked>).stream_options?.include_usage === true
            const stream = asks ? chatStream : chatStreamPlain
            const text = governed ? filtered(singly(bytesOf(stream))) : stream
            return Promise.resolve(new Response(text, { headers: { "content-type": "text/event-stream" } }))
          }
        })
      const chunks = async (governed: boolean) => {
        const stream = await client(governed).chat.completions.create({ model: "gpt-6", messages: [], stream: true })
        const all: Array<object> = []
        for await (const { usage, ...chunk } of stream) {
          assert.isTrue(usage === undefined || usage === null)
          all.push(chunk)
        }
        return all
      }
      assert.deepStrictEqual(await chunks(true), await chunks(false))
      assert.deepInclude(JSON.parse(bodies[0]!), asked)
      assert.notProperty(JSON.parse(bodies[1]!), "stream_options")
    })
  })
})
