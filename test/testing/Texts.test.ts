import { assert, describe, it } from "@effect/vitest"
import { Texts } from "floodgate/internal/testing"

const kinds: ReadonlyArray<Texts.TextKind> = ["prose", "code", "json", "cjk"]
const tokenizers: ReadonlyArray<Texts.Tokenizer> = ["claude", "published", "o200k"]

const request = (text: string) => ({
  model: "claude-sonnet-5",
  messages: [{ role: "user" as const, content: text }]
})

describe("Texts", () => {
  describe("write", () => {
    it("writes text of each kind, as long as asked", () => {
      for (const kind of kinds) {
        for (const length of [0, 1, 500, 3_000, 500_000]) assert.strictEqual(Texts.write(kind, length).length, length)
        for (const length of [500, 3_000, 500_000]) assert.strictEqual(Texts.kindOf(Texts.write(kind, length)), kind)
      }
    })
  })

  describe("kindOf", () => {
    it("recognizes documents of the kinds", () => {
      assert.strictEqual(Texts.kindOf("The queue is fair, and nobody waits for ever (see below)."), "prose")
      assert.strictEqual(Texts.kindOf("const f = (a: number) => { return [a + 1, g(a)]; };"), "code")
      assert.strictEqual(
        Texts.kindOf(
          JSON.stringify({
            rows: [
              { id: 1, name: "Ada" },
              { id: 2, name: "Max" }
            ]
          })
        ),
        "json"
      )
      assert.strictEqual(Texts.kindOf("モデルは一度に多くの文書を読むことができます。"), "cjk")
      assert.strictEqual(Texts.kindOf(""), "prose")
    })
  })

  describe("tokenizer", () => {
    it("counts as measured in the median, and spreads as measured", () => {
      for (const name of tokenizers) {
        const tokens = Texts.tokenizer(name)
        for (const kind of kinds) {
          const perToken = Array.from({ length: 201 }, (_, n) => {
            const text = Texts.write(kind, 2_000 + n)
            return text.length / tokens(request(text))
          }).toSorted((a, b) => a - b)
          const median = Texts.charactersPerToken(kind, name)
          assert.closeTo(perToken[100]! / median, 1, 0.05, `${name} ${kind}`)
          // Both spreads of a kind, of which a tenth of all texts lies beyond 1.28 on each side.
          assert.isBelow(perToken[20]!, 0.9 * median, `${name} ${kind}`)
          assert.isAbove(perToken[180]!, 1.1 * median, `${name} ${kind}`)
        }
      }
    })

    it("counts a text alike each time, and the parts of a request together", () => {
      const tokens = Texts.tokenizer("o200k")
      const [one, other] = [Texts.write("prose", 1_000), Texts.write("json", 4_000)]
      assert.strictEqual(tokens(request(one)), tokens(request(one)))
      const both = tokens({ ...request(one), system: other })
      assert.closeTo(both, tokens(request(one)) + tokens(request(other)), 1)
    })
  })
})
