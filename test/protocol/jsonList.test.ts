import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { protocols } from "floodgate/protocol"
import { makeJsonListParser } from "../../src/protocol/jsonList.ts"
import { emptyAnswer, usageOf } from "../../src/protocol/protocol.ts"
import { geminiList } from "./fixtures.ts"
import { bytesOf, piecesOf, randomPieces, singly } from "./reading.ts"
import { mulberry } from "../support/random.ts"

const { gemini } = protocols

const dataOf = (pieces: ReadonlyArray<Uint8Array>, options?: { readonly maxBytes?: number }): ReadonlyArray<string> => {
  const parser = makeJsonListParser(options)
  return [...pieces.flatMap((piece) => parser.feed(piece)), ...parser.end()].map(({ data }) => data)
}
const read = (text: string): ReadonlyArray<string> => dataOf([bytesOf(text)])

describe("a JSON list as a stream", () => {
  it("is read object by object, as soon as each is whole", () => {
    const parser = makeJsonListParser()
    const feed = (text: string) => parser.feed(bytesOf(text)).map(({ data, end }) => [data, end])
    assert.deepStrictEqual(feed(`[{"a": 1}`), [[`{"a": 1}`, 9]])
    assert.deepStrictEqual(feed(`\r\n,\r\n{"b": [{`), [])
    assert.deepStrictEqual(feed(`}]},{"c":2},{`), [
      [`{"b": [{}]}`, 3],
      [`{"c":2}`, 11]
    ])
    assert.deepStrictEqual(feed(`}]`), [["{}", 1]])
  })

  it("does not take what is in a text for its structure", () => {
    const objects = [{ a: `}],{"` }, { b: "\\" }, { c: `\\"}` }, { d: "Grüße \u{1F44B} [" }].map((one) =>
      JSON.stringify(one)
    )
    assert.deepStrictEqual(read(`[${objects.join(",")}]`), objects)
  })

  it("may be a single object, or empty", () => {
    assert.deepStrictEqual(read(`{"error":{}}`), [`{"error":{}}`])
    for (const text of ["", "[]", "null", `"{}"`, "]]}}", `[{"a":`]) assert.deepStrictEqual(read(text), [])
  })

  it("ends with an object that is too long", () => {
    for (const pieces of [[bytesOf(`[{"a":"12345"},{}]`)], singly(bytesOf(`[{"a":"12345"},{}]`))]) {
      const parser = makeJsonListParser({ maxBytes: 8 })
      assert.deepStrictEqual(
        pieces.flatMap((piece) => parser.feed(piece)),
        []
      )
      assert.isTrue(parser.hasStopped())
    }
    assert.deepStrictEqual(dataOf([bytesOf(`[{"a":1},{"b":2}]`)], { maxBytes: 7 }), [`{"a":1}`, `{"b":2}`])
  })

  it("has the same answer, wherever it is cut", () => {
    const text = JSON.stringify(geminiList, undefined, 2)
    const answerOf = (pieces: ReadonlyArray<Uint8Array>) =>
      dataOf(pieces).reduce((answer, data) => gemini.observe(answer, { name: undefined, data }), emptyAnswer)
    const expected = answerOf([bytesOf(text)])
    assert.isTrue(expected.complete)
    assert.deepStrictEqual(usageOf(expected), usageOf(gemini.answer(geminiList)))
    const bytes = bytesOf(text)
    for (let cut = 0; cut <= bytes.length; cut++) assert.deepStrictEqual(answerOf(piecesOf(bytes, [cut])), expected)
    const random = mulberry(5)
    for (let round = 0; round < 50; round++) assert.deepStrictEqual(answerOf(randomPieces(bytes, random)), expected)
  })

  it.prop(
    "finds every object that a parser of JSON finds",
    { objects: Schema.Array(Schema.Record(Schema.String, Schema.Json)), indent: Schema.Literals([0, 2]) },
    ({ indent, objects }) => {
      const text = JSON.stringify(objects, undefined, indent)
      const found = dataOf(singly(bytesOf(text))).map((data) => JSON.parse(data) as unknown)
      assert.deepStrictEqual(found, JSON.parse(text))
    }
  )

  it.prop("never throws, whatever comes", { bytes: Schema.Uint8Array }, ({ bytes }) => {
    assert.isArray(dataOf(singly(bytes)))
  })
})
