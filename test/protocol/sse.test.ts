import { assert, describe, it } from "@effect/vitest"
import { makeFrameParser } from "../../src/protocol/amazonFrames.ts"
import * as Schema from "effect/Schema"
import { makeSseFilter, makeSseParser } from "../../src/protocol/sse.ts"
import { mulberry } from "../support/random.ts"
import { bytesOf, eventsOf, piecesOf, randomPieces, singly } from "./reading.ts"
import { eventFrame, exceptionFrame, frame } from "../support/apis.ts"

const read = (text: string) => eventsOf([bytesOf(text)])
const event = (data: string, name?: string) => ({ name, data })

/** The reference: reads the whole stream at once, by the wording of the standard. */
const reference = (text: string) => {
  const events: Array<{ name: string | undefined; data: string }> = []
  let name: string | undefined
  let data: Array<string> = []
  const lines = text.replace(/^\ufeff/, "").split(/\r\n|\r|\n/)
  // What follows the last line end is an incomplete line.
  for (const line of lines.slice(0, -1)) {
    const [, field, value = ""] = /^([^:]*)(?:: ?([^]*))?$/.exec(line) ?? []
    if (line === "") {
      events.push({ name, data: data.join("\n") })
      name = undefined
      data = []
    } else if (field === "data") data.push(value)
    else if (field === "event") name = value
  }
  return events
}

describe("sse", () => {
  describe("makeSseParser", () => {
    it("reads names and data, with and without a space after the colon", () => {
      assert.deepStrictEqual(read("event: ping\ndata: {}\n\ndata:x\n\ndata:  y\n\n"), [
        event("{}", "ping"),
        event("x"),
        event(" y")
      ])
    })

    it("joins the lines of one event by line feeds, and knows fields without a value", () => {
      assert.deepStrictEqual(read("data: a\ndata\ndata: b\n\n"), [event("a\n\nb")])
      assert.deepStrictEqual(read("event\ndata: a\n\n"), [event("a", "")])
    })

    it("reports comments and other fields as blocks without data", () => {
      assert.deepStrictEqual(read(": keep-alive\n\nid: 5\nretry: 10\ndatabase: no\ndata: x\n\n"), [
        event(""),
        event("x")
      ])
    })

    it.each(["\n", "\r", "\r\n"])("ends lines with %j", (newline) => {
      const text = "event: a\ndata: 1\ndata: 2\n\n: c\n\ndata: 3\n\n".replaceAll("\n", newline)
      assert.deepStrictEqual(read(text), [event("1\n2", "a"), event(""), event("3")])
    })

    it("skips the byte order mark at the start, and nowhere else", () => {
      assert.deepStrictEqual(read("\ufeffdata: 1\n\ndata: \ufeff2\n\n\ufeffdata: 3\n\n"), [
        event("1"),
        event("\ufeff2"),
        event("")
      ])
    })

    it("returns the event that the end of the stream cuts off, once", () => {
      const parser = makeSseParser()
      assert.deepStrictEqual(parser.feed(bytesOf("data: 1\n\ndata: 2")).length, 1)
      assert.deepStrictEqual(parser.end(), [{ ...event("2"), end: 0 }])
      assert.deepStrictEqual(parser.end(), [])
    })

    it("reports where each block ends in its chunk", () => {
      const parser = makeSseParser()
      const ends = (text: string) => parser.feed(bytesOf(text)).map(({ end }) => end)
      assert.deepStrictEqual(ends("data: 1\n\ndata: 2\r\n\r\nda"), [9, 20])
      assert.deepStrictEqual(ends("ta: 3\n"), [])
      assert.deepStrictEqual(ends("\r"), [1])
      assert.deepStrictEqual(ends("\n"), [])
      assert.deepStrictEqual(ends(": c\r\rx"), [5])
    })

    const text = '\ufeffevent: é漢👍🏽\r\ndata: 1\rdata: 2\n\r\n: c\r\rdata: {"a":"\u0000"}\n\nid: 1\ndata: end'

    it("gives the same events wherever the bytes are split", () => {
      const bytes = bytesOf(text)
      const expected = eventsOf([bytes])
      assert.isAbove(expected.length, 3)
      assert.deepStrictEqual(eventsOf(singly(bytes)), expected)
      for (let cut = 0; cut <= bytes.length; cut++) {
        assert.deepStrictEqual(eventsOf(piecesOf(bytes, [cut])), expected, `cut at ${cut}`)
      }
    })

    const piece = Schema.Union([
      Schema.String,
      Schema.Literals(["\n", "\r", "\r\n", "\n\n", "data", "event", ":", ": ", "data: ", "\ufeff", "é", "👍🏽", "[DONE]"])
    ])

    it.prop(
      "follows the standard on any text, in any pieces",
      { pieces: Schema.Array(piece), seed: Schema.Int },
      ({ pieces, seed }) => {
        const text = pieces.join("").toWellFormed()
        const parser = makeSseParser()
        const events = randomPieces(bytesOf(text), mulberry(seed)).flatMap((piece) => parser.feed(piece))
        assert.deepStrictEqual(
          events.map(({ data, name }) => ({ name, data })),
          reference(text)
        )
      },
      { arbitrary: { runs: 2_000 } }
    )

    it("reads bytes that are not UTF-8 in the same way, however they arrive", () => {
      const next = mulberry(31)
      const some = [0xff, 0xe2, 0x80, 0xc3, 0xa9, 0xf0, 0x9f, 0x61, 0x20]
      const line = () => Array.from({ length: 6 }, () => some[Math.floor(next() * some.length)]!)
      for (let round = 0; round < 500; round++) {
        const bytes = [0, 1, 2].flatMap(() => [...bytesOf("data: "), ...line(), 0x0a, ...(next() < 0.5 ? [0x0a] : [])])
        const all = new Uint8Array([...bytes, 0x0a])
        assert.deepStrictEqual(eventsOf([all]), eventsOf(singly(all)))
      }
    })

    it("stops at a line that is too long, however it arrives", () => {
      const line = `data: ${"x".repeat(20)}\n\n`
      for (const pieces of [[bytesOf(line)], singly(bytesOf(line)), [bytesOf("data: "), bytesOf(line.slice(6))]]) {
        const exact = makeSseParser({ maxBytes: 26 })
        assert.strictEqual(pieces.flatMap((piece) => exact.feed(piece)).length, 1)
        assert.isFalse(exact.hasStopped())
        const parser = makeSseParser({ maxBytes: 25 })
        const events = [bytesOf("data: 1\n\n"), ...pieces, bytesOf("data: 2\n\n")].flatMap((piece) =>
          parser.feed(piece)
        )
        assert.deepStrictEqual(
          events.map(({ data }) => data),
          ["1"]
        )
        assert.isTrue(parser.hasStopped())
        assert.deepStrictEqual(parser.end(), [])
      }
    })

    it("stops at an event that is too long in all its lines", () => {
      const parser = makeSseParser({ maxBytes: 100 })
      assert.deepStrictEqual(parser.feed(bytesOf(`data: ${"x".repeat(40)}\n`.repeat(3))), [])
      assert.isTrue(parser.hasStopped())
    })

    it("keeps a bounded part of an endless line", () => {
      const parser = makeSseParser({ maxBytes: 1_000 })
      const endless = bytesOf("x".repeat(100))
      for (let i = 0; i < 1_000 && !parser.hasStopped(); i++) {
        assert.isAtMost(i, 10)
        parser.feed(endless)
      }
      assert.isTrue(parser.hasStopped())
    })

    it("reads a long line that arrives byte by byte in linear time", () => {
      const parser = makeSseParser()
      const bytes = bytesOf(`data: ${"x".repeat(200_000)}\n\n`)
      assert.strictEqual(singly(bytes).flatMap((piece) => parser.feed(piece))[0]?.data.length, 200_000)
    })
  })

  describe("makeSseFilter", () => {
    /** The bytes that were passed on, and the maximum that was held back at any time. */
    const filter = (pieces: ReadonlyArray<Uint8Array>, maxHeldBytes?: number) => {
      const parser = makeSseParser()
      const filter = makeSseFilter(({ data }) => data === "drop", maxHeldBytes === undefined ? {} : { maxHeldBytes })
      const passed: Array<Uint8Array> = []
      let fed = 0
      let held = 0
      for (const piece of pieces) {
        fed += piece.length
        passed.push(...filter.push(piece, parser.feed(piece)))
        held = Math.max(held, fed - passed.reduce((sum, { length }) => sum + length, 0))
      }
      passed.push(...filter.end())
      return { text: new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(passed)), held, passed }
    }

    it.each(["\n", "\r\n", "\r"])("drops whole events and no other byte, wherever it is split, with %j", (newline) => {
      const kept = (text: string) => text.replaceAll("\n", newline)
      const drop = kept("event: x\ndata: drop\n\n")
      const parts = [
        "\ufeff: first\n\ndata: 1\ndata: é👍🏽\n\n",
        "id: 4\ndata: 3\n\n\n: c\n\n",
        "data: [DONE]\n\n: open"
      ].map(kept)
      const bytes = bytesOf(drop + parts[0] + drop + drop + parts[1] + drop + parts[2])
      const expected = parts.join("")
      assert.strictEqual(filter([bytes]).text, expected)
      assert.strictEqual(filter(singly(bytes)).text, expected)
      for (let cut = 0; cut <= bytes.length; cut++) {
        assert.strictEqual(filter(piecesOf(bytes, [cut])).text, expected, `cut at ${cut}`)
      }
    })

    it("passes on views of the chunks and copies nothing", () => {
      const chunk = bytesOf("data: 1\n\ndata: drop\n\ndata: 2\n\n")
      const { passed } = filter([chunk])
      assert.deepStrictEqual(
        passed.map(({ byteOffset, length }) => [byteOffset, length]),
        [
          [0, 9],
          [21, 9]
        ]
      )
      for (const view of passed) assert.strictEqual(view.buffer, chunk.buffer)
    })

    it("holds back no more than its bound, and then passes the event on", () => {
      const long = bytesOf(`data: ${"x".repeat(1_000)}\n\ndata: drop\n\ndata: 1\n\n`)
      const { held, text } = filter(singly(long), 100)
      assert.strictEqual(text, `data: ${"x".repeat(1_000)}\n\ndata: 1\n\n`)
      assert.isAtMost(held, 100 + "data: drop\n\n".length)
    })

    it("never drops an event of which a part was passed on", () => {
      const bytes = bytesOf(`: ${"c".repeat(200)}\ndata: drop\n\ndata: drop\n\ndata: 1\n\n`)
      assert.strictEqual(filter(singly(bytes), 100).text, `: ${"c".repeat(200)}\ndata: drop\n\ndata: 1\n\n`)
    })

    it("passes everything on when the parser has failed", () => {
      const parser = makeSseParser({ maxBytes: 10 })
      const filter = makeSseFilter(() => true, { maxHeldBytes: 20 })
      const bytes = bytesOf(`data: ${"x".repeat(50)}\n\ndata: 1\n\n`)
      const passed = singly(bytes).flatMap((piece) => filter.push(piece, parser.feed(piece)))
      assert.strictEqual(Buffer.concat([...passed, ...filter.end()]).length, bytes.length)
    })
  })
})

const frames = Buffer.concat([
  eventFrame("messageStart", { role: "assistant" }),
  eventFrame("contentBlockDelta", { delta: { text: "✓".repeat(300) } }),
  eventFrame("metadata", { usage: { inputTokens: 1 } })
])
const frameNames = ["messageStart", "contentBlockDelta", "metadata"]

/** The events in a stream that arrives in pieces of a size. */
const frameEventsIn = (bytes: Uint8Array, size: number) => {
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
    const whole = frameEventsIn(frames, frames.length)
    assert.deepStrictEqual(
      whole.events.map(({ name }) => name),
      frameNames
    )
    assert.deepStrictEqual(JSON.parse(whole.events[1]!.data), { delta: { text: "✓".repeat(300) } })
    for (let size = 1; size < frames.length; size++)
      assert.deepStrictEqual(frameEventsIn(frames, size), whole, `${size}`)
  })

  it("says where an event ends in its chunk", () => {
    const first = eventFrame("messageStart", { role: "assistant" })
    const found = makeFrameParser().feed(frames)
    assert.strictEqual(found[0]!.end, first.length)
    assert.strictEqual(found.at(-1)!.end, frames.length)
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
    const beyond = Buffer.from(frames)
    // The headers would be longer than the frame.
    beyond.writeUInt32BE(60_000, 4)
    const cutHeader = Buffer.from(frames)
    // The name of the first header would be longer than the headers.
    cutHeader[12] = 255
    for (const bytes of [Buffer.from("<html><body>Sorry</body></html>"), huge, beyond, cutHeader, Buffer.alloc(12)]) {
      const parser = makeFrameParser()
      assert.deepStrictEqual(parser.feed(bytes), [])
      assert.isTrue(parser.hasStopped())
      assert.deepStrictEqual(parser.feed(frames), [])
      assert.deepStrictEqual(parser.end(), [])
    }
    const small = makeFrameParser({ maxBytes: 100 })
    small.feed(frames)
    assert.isTrue(small.hasStopped())
  })

  it("takes an incomplete frame for none", () => {
    const parser = makeFrameParser()
    assert.lengthOf(parser.feed(frames.subarray(0, frames.length - 1)), 2)
    assert.deepStrictEqual(parser.end(), [])
    assert.isFalse(parser.hasStopped())
  })
})
