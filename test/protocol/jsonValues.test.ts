import { assert, describe, it } from "@effect/vitest"
import { maxValues, mostValues, newName, ValueCounter } from "../../src/protocol/jsonValues.ts"
import { conversations, withImages } from "../support/conversations.ts"
import { mulberry } from "../support/random.ts"
import { sized } from "../support/size.ts"

const counted = (text: string, part = Infinity): number => {
  const bytes = Buffer.from(text)
  const counter = new ValueCounter(bytes, 4_711)
  while (counter.next(part)) {}
  return counter.values
}

/** The number of values below a value. An empty list or object counts twice, and each new name ten times more. */
const below = (value: unknown, names = new Set<string>()): number => {
  if (typeof value !== "object" || value === null) return 0
  const before = names.size
  if (!Array.isArray(value)) for (const name of Object.keys(value)) names.add(name)
  const items = Object.values(value)
  const own = Math.max(1, items.length) + newName * (names.size - before)
  return items.reduce<number>((sum, item) => sum + below(item, names), own)
}

const texts = ["", '"', "\\", '\\"', ",{[", "]}", "é", "漢字", "👍🏽", "\n\t", "a,b", "x".repeat(300), '"'.repeat(200)]

const random = (next: () => number, depth = 0): unknown => {
  const pick = Math.floor(next() * (depth < 5 ? 7 : 4))
  const text = () => texts[Math.floor(next() * texts.length)]! + texts[Math.floor(next() * texts.length)]!
  const many = Array.from({ length: Math.floor(next() * 6) })
  if (pick === 0) return text()
  if (pick === 1) return -1.5e-7
  if (pick === 2) return null
  if (pick === 3) return next() < 0.5
  if (pick < 6) return Object.fromEntries(many.map(() => [text(), random(next, depth + 1)]))
  return many.map(() => random(next, depth + 1))
}

describe("jsonValues", () => {
  it("counts the values that a parser finds, in any layout and in parts of any size", { tags: "full" }, () => {
    const next = mulberry(7)
    for (let round = 0; round < sized(100, 300); round++) {
      const value = random(next)
      for (const indent of [0, 2]) {
        const text = JSON.stringify(value, null, indent)
        assert.strictEqual(counted(text), below(value), text)
        assert.strictEqual(counted(text, 1 + Math.floor(next() * 40)), below(value), text)
        assert.isAtLeast(mostValues(Buffer.from(text)), below(value), text)
      }
    }
  })

  it("finds the end of a long text, however many escapes it has and wherever they are", () => {
    for (const plain of [0, 1, 63, 127, 128, 129, 383, 384, 5_000]) {
      for (const escape of ["", '\\"', "\\\\", "\\u005c"]) {
        const text = `["${("x".repeat(plain) + escape).repeat(3)}",1,2]`
        for (const part of [1, 7, 128, 1_000, Infinity]) assert.strictEqual(counted(text, part), 3, text)
      }
    }
  })

  it("counts new property names, but not strings that are values", () => {
    const names = Array.from({ length: 50_000 }, (_, index) => `name ${index}`)
    const isAbout = (text: string, count: number) =>
      assert.isTrue(Math.abs(counted(text) / count - 1) < 0.03, text.slice(0, 99))
    isAbout(JSON.stringify(names), 50_000)
    isAbout(JSON.stringify(Object.fromEntries(names.map((name) => [name, 0]))), 550_000)
    isAbout(JSON.stringify(names.map((name) => ({ [name]: 0 }))), 600_000)
    isAbout(
      JSON.stringify(
        names.map((name) => ({ name })),
        null,
        1
      ),
      100_000
    )
  })

  it("takes time in proportion to the bytes", { tags: "full" }, () => {
    // The quote is far behind many backslashes. A search that starts again at each of them would take an hour.
    const text = `["${`${"x".repeat(300)}\\n`.repeat(50_000)}",1]`
    assert.strictEqual(counted(text), 2)
  })

  for (const { body, protocol } of conversations(10_000)) {
    it(`allows 10,000 messages with tools: ${protocol}`, () => {
      assert.isBelow(counted(JSON.stringify(body)), maxValues)
    })
  }

  const megabytes = sized(10, 30)
  for (const { body, protocol } of withImages(megabytes * 1e6)) {
    it(`allows ${megabytes} MB of images: ${protocol}`, () => {
      const text = JSON.stringify(body)
      assert.isAbove(text.length, (megabytes - 0.1) * 1e6)
      assert.isBelow(counted(text), 200)
    })
  }
})
