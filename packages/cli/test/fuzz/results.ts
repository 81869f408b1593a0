import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { lineOf, type Result } from "../../src/commands/run/results.ts"
import { parse } from "../support/atOnce.ts"
import { type Effort, options } from "../../../../test/fuzz/kept.ts"

const share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const key = Schema.Literals(["a", "b", "c", "__proto__", "constructor", ""])
const results = Schema.Array(Schema.Tuple([key, Schema.String]))
const junk = Schema.Union([
  Schema.String,
  Schema.Literals(["null", "[]", "{", '{"key":"a"}', '{"__proto__":{"polluted":true}}', "\u0000", "\ufeff", "1e999"])
])

const resultOf = ([key, text]: readonly [string, string]): Result => ({
  agent: "__proto__",
  step: "read",
  key,
  model: "m",
  usage: { inputTokens: 1, outputTokens: 2 },
  stop: null,
  text
})

const latest = (results: ReadonlyArray<Result>): ReadonlyArray<Result> => [
  ...new Map(results.map((result) => [result.key, result])).values()
]

const sorted = (results: Iterable<Result>): ReadonlyArray<Result> =>
  [...results].sort((a, b) => Number(a.key > b.key) - Number(a.key < b.key))

export const resumeFiles = (effort: Effort): void => {
  describe("resume files", () => {
    it.prop(
      "that are torn anywhere lose at most the last line, and go on from there",
      { results, at: share, more: Schema.String },
      ({ at, more, results }) => {
        const lines = results.map(resultOf).map(lineOf)
        const whole = lines.join("")
        const torn = whole.slice(0, Math.floor(at * whole.length))
        const kept = torn.split("\n").length - 1
        const before = parse(torn)
        // A line without its end may be whole all the same.
        const last = parse(`${torn}\n`)
        assert.deepStrictEqual(before.results, last.results)
        const expected = [
          latest(results.slice(0, kept).map(resultOf)),
          latest(results.slice(0, kept + 1).map(resultOf))
        ]
        assert.include(
          expected.map((list) => JSON.stringify(sorted(list))),
          JSON.stringify(sorted(before.results.values()))
        )
        const next = resultOf(["next", more])
        const after = parse(torn + (before.torn ? "\n" : "") + lineOf(next))
        assert.deepStrictEqual(after.results.get("next"), next)
        assert.strictEqual(after.results.size, before.results.size + 1)
      },
      options(effort, 4)
    )

    it.prop(
      "with lines of anything between keep every result, and no name of the prototype is more than a name",
      { results, junk: Schema.Array(junk) },
      ({ junk, results }) => {
        const text = results.flatMap((result, index) => [`${junk[index] ?? ""}\n`, lineOf(resultOf(result))]).join("")
        const parsed = parse(text + junk.join("\n"))
        assert.deepStrictEqual(sorted(parsed.results.values()), sorted(latest(results.map(resultOf))))
        assert.notProperty({}, "polluted")
      },
      options(effort, 4)
    )

    it("torn at any byte, even within a character, keep everything before it", () => {
      const whole = [resultOf(["a", "é漢👍"]), resultOf(["b", "\u2028 and \r\n"])]
      const bytes = new TextEncoder().encode(whole.map(lineOf).join(""))
      const first = new TextEncoder().encode(lineOf(whole[0]!)).length
      for (let end = 0; end <= bytes.length; end++) {
        const { results, torn } = parse(new TextDecoder().decode(bytes.subarray(0, end)))
        // A line is whole without its end, too.
        assert.strictEqual(results.size, (end >= first - 1 ? 1 : 0) + (end >= bytes.length - 1 ? 1 : 0), `${end}`)
        assert.strictEqual(torn, end !== 0 && end !== first && end !== bytes.length, `${end}`)
      }
    })

    it("saved by an editor with other line ends are read, and a line behind a byte order mark is requested again", () => {
      const lines = [resultOf(["a", "1"]), resultOf(["b", "2"])].map(lineOf).join("")
      assert.deepStrictEqual(parse(lines.replaceAll("\n", "\r\n")).results, parse(lines).results)
      const marked = parse(`\ufeff${lines}`)
      assert.deepStrictEqual([[...marked.results.keys()], marked.unreadable], [["b"], 1])
    })

    it("with a line of ten megabytes are read", () => {
      const long = resultOf(["long", "x".repeat(10_000_000)])
      const { results, unreadable } = parse(`${"[".repeat(10_000_000)}\n${lineOf(long)}${lineOf(resultOf(["a", "1"]))}`)
      assert.deepStrictEqual([[...results.keys()], unreadable], [["long", "a"], 1])
      assert.strictEqual(results.get("long")!.text.length, 10_000_000)
    })
  })
}
