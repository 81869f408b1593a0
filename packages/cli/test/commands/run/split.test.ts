import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { describe as describeChunk, textOf } from "../../../src/commands/run/split.ts"
import { split } from "../../support/atOnce.ts"

const document = (path: string, lines: number) => ({
  path,
  text: Array.from({ length: lines }, (_, n) => `${path} line ${n + 1}\n`).join("")
})

const whole = (texts: ReadonlyArray<{ readonly text: string }>) => texts.map(({ text }) => text).join("")

describe("split", () => {
  it("gives every agent about the same number of bytes", () => {
    const chunks = split([document("a.md", 1_000), document("b.md", 30), document("c.md", 400)], 12)
    assert.strictEqual(chunks.length, 12)
    const sizes = chunks.map(({ bytes }) => bytes)
    assert.isAtMost(Math.max(...sizes) - Math.min(...sizes), 40)
  })

  it("states the file and the lines of each piece", () => {
    const [first, second] = split([document("a.md", 3), document("b.md", 3)], 2)
    assert.deepStrictEqual(
      [...first!.pieces, ...second!.pieces].map(({ from, path, to }) => [path, from, to]),
      [
        ["a.md", 1, 3],
        ["b.md", 1, 3]
      ]
    )
    assert.include(textOf(first!), `<document path="a.md" lines="1-3">`)
    assert.strictEqual(describeChunk(first!), "1 file, 0.0 KB")
  })

  it("makes fewer chunks than agents if there are fewer lines, and no empty chunk", () => {
    const chunks = split([{ path: "a", text: "one\ntwo" }], 12)
    assert.deepStrictEqual(
      chunks.map(({ pieces }) => pieces[0]!.text),
      ["one\n", "two"]
    )
  })

  it("makes the requested number of chunks if there are enough lines, however unequal", () => {
    // Regression: a long line took the share of several agents, which were left out silently.
    for (const lines of [
      [1, 1, 1, 3_000],
      [3_000, 1, 1, 1],
      [1, 3_000, 1, 1, 1, 1],
      [900, 900, 1, 1, 1]
    ]) {
      const text = lines.map((length) => `${"x".repeat(length - 1)}\n`).join("")
      for (let count = 1; count <= lines.length; count++) assert.lengthOf(split([{ path: "a", text }], count), count)
    }
  })

  it("splits a file of one long line, but never a character", () => {
    const text = "😀".repeat(10_000)
    const chunks = split([{ path: "a", text }], 4)
    assert.strictEqual(chunks.length, 4)
    assert.strictEqual(whole(chunks.flatMap(({ pieces }) => pieces)), text)
    for (const { pieces } of chunks) assert.notMatch(pieces[0]!.text, /^[\uDC00-\uDFFF]|[\uD800-\uDBFF]$/)
  })

  it.prop(
    "loses nothing and repeats nothing",
    { texts: Schema.Array(Schema.String), count: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 20 })) },
    ({ count, texts }) => {
      const documents = texts.map((text, n) => ({ path: `${n}`, text }))
      const chunks = split(documents, count)
      const lines = split(documents, 1e9).length
      assert.lengthOf(chunks, Math.min(count, lines))
      assert.strictEqual(whole(chunks.flatMap(({ pieces }) => pieces)), whole(documents))
      assert.isTrue(chunks.every(({ bytes }) => bytes > 0))
    }
  )
})
