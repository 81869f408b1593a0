import { assert, describe, it } from "@effect/vitest"
import { displayWidth } from "effect/cli/CliOutput"
import * as Schema from "effect/Schema"
import { clean, fit, hung, oneLine, safeJson, wrap } from "../../src/terminal/text.ts"

const unsafe = /[^\P{Cc}\n\t]|[\u061C\u200E\u200F\u2028-\u202E\u2066-\u2069]/u

describe("a text from outside", () => {
  it("loses only control characters and characters that change its direction", () => {
    assert.strictEqual(clean("a\u001b[2Jb\u009b31mc\u007f\u0000"), "a\uFFFD[2Jb\uFFFD31mc\uFFFD\uFFFD")
    assert.strictEqual(
      clean("user\u202Egnp.exe \u2066x\u2069 \u200F\u061C"),
      "user\uFFFDgnp.exe \uFFFDx\uFFFD \uFFFD\uFFFD"
    )
    assert.strictEqual(clean("line\r\nline\rover\tÄ 漢 👨‍👩‍👧 שלום"), "line\nline\uFFFDover\tÄ 漢 👨‍👩‍👧 שלום")
    assert.strictEqual(oneLine("a\nb\tc"), "a\uFFFDb\uFFFDc")
  })

  it("is escaped in JSON without changing its meaning", () => {
    const value = { "a\u001b": ["\u202E", "\u009b", "\u007f", "\n\t", "漢"] }
    assert.notMatch(safeJson(value, 2), unsafe)
    assert.deepStrictEqual(JSON.parse(safeJson(value, 2)), value)
  })

  it.prop("is safe whatever it is", { text: Schema.String }, ({ text }) => {
    assert.notMatch(clean(text), unsafe)
    assert.notMatch(safeJson(text), unsafe)
    assert.strictEqual(JSON.parse(safeJson(text)), text)
  })
})

describe("a line", () => {
  const words = "A bucket holds what may be used at once, and is refilled by the second."

  it("breaks between words, and keeps its indent", () => {
    for (const columns of [10, 20, 40]) {
      const lines = wrap(`  ${words}`, columns).split("\n")
      for (const line of lines) {
        assert.isAtMost(line.length, columns)
        assert.match(line, /^ {2}\S/)
      }
      assert.deepStrictEqual(
        lines.flatMap((line) => line.trim().split(" ")),
        words.split(" ")
      )
    }
  })

  it("keeps the columns of a table where it is not broken", () => {
    assert.strictEqual(
      wrap("limits  takes   binds\nStart   16.7 s  input tokens", 24),
      "limits  takes   binds\nStart   16.7 s  input\ntokens"
    )
  })

  it("continues below its beginning, or below the left margin where that leaves too little room", () => {
    assert.strictEqual(`name  ${hung("a b c d e f g h i j k", 6, 26)}`, "name  a b c d e f g h i j\n      k")
    assert.strictEqual(`name  ${hung("a b c d e f g h i j k", 6, 25)}`, "name  \n    a b c d e f g h i j k")
    const lines = hung(words, 30, 40).split("\n")
    for (const line of lines) assert.isAtMost(line.length, 40)
  })

  it("is not broken within a word, if there is room, or in a file", () => {
    assert.strictEqual(
      wrap("see https://example.com/a/long/address now", 10),
      "see\nhttps://example.com/a/long/address\nnow"
    )
    assert.strictEqual(wrap(words, 80), words)
    assert.strictEqual(wrap(words, Infinity), words)
  })

  it("is cut by its width on the terminal, not by its number of characters", () => {
    assert.strictEqual(fit("abcdef", 4), "abc…")
    assert.strictEqual(fit("abcd", 4), "abcd")
    for (const text of ["漢字漢字漢字", "👨‍👩‍👧👨‍👩‍👧👨‍👩‍👧", "e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301"]) {
      for (const columns of [1, 2, 3, 4, 5]) assert.isAtMost(displayWidth(fit(text, columns)), columns, text)
    }
  })
})
