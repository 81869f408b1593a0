/** What `npm run judge` says of the figures of two commits. */
import { assert, describe, it } from "@effect/vitest"
import { compare, type Cost, recorded, sentences } from "../../benchmark/judge/verdict.ts"

const equal = compare([{ instructions: 1, bytes: 1 }], [{ instructions: 1, bytes: 1 }], "bytes")

/** Turns that take these multiples of what the other commit takes. */
const turnsOf = (...ratios: ReadonlyArray<number>) => {
  const ours: Array<Cost> = ratios.map((ratio) => ({ instructions: 1_000 * ratio, bytes: 500 * ratio }))
  const theirs = ratios.map(() => ({ instructions: 1_000, bytes: 500 }))
  return { ours, theirs }
}

const verdictOf = (what: keyof Cost, ...ratios: ReadonlyArray<number>) => {
  const { ours, theirs } = turnsOf(...ratios)
  return compare(ours, theirs, what).verdict
}

describe("the judge of hot paths", () => {
  it("notices what is worse by more than two equal commits differ by", () => {
    assert.strictEqual(verdictOf("instructions", 1.019, 1.019, 1.019), "same")
    assert.strictEqual(verdictOf("instructions", 1.021, 1.021, 1.021), "worse")
    assert.strictEqual(verdictOf("bytes", 1.014, 1.014, 1.014), "same")
    assert.strictEqual(verdictOf("bytes", 1.016, 1.016, 1.016), "worse")
    assert.strictEqual(verdictOf("instructions", 0.5, 0.5, 0.5), "same")
  })

  it("notices nothing that is within the spread of the turns", () => {
    assert.strictEqual(verdictOf("instructions", 1, 1.02, 1.04, 1.06, 1.08), "worse")
    assert.strictEqual(verdictOf("instructions", 0.95, 1, 1.04, 1.08, 1.13), "same")
  })

  it("says that it cannot judge where turns differ by more than it must notice", () => {
    assert.strictEqual(verdictOf("bytes", 0.9, 0.96, 1.02, 1.05, 1.1), "same")
    assert.strictEqual(verdictOf("bytes", 0.8, 0.94, 1.02, 1.05, 1.2), "unclear")
    assert.strictEqual(verdictOf("bytes", 1.3, 1.4, 1.5, 1.6, 1.7), "worse")
  })

  it("names the path, what it takes more, and the commit", () => {
    const worse = turnsOf(1.05, 1.05, 1.05, 1.05, 1.05)
    const unclear = turnsOf(0.8, 0.94, 1.02, 1.06, 1.2)
    const instructions = compare(worse.ours, worse.theirs, "instructions")
    const bytes = compare(unclear.ours, unclear.theirs, "bytes")
    assert.deepStrictEqual(sentences("create", "abc1234", { instructions, bytes }), {
      word: "worse",
      worse: ["create executes 5.0 % more: worse than the last, abc1234, by more than its spread of 0.0 %"],
      unclear: [
        "cannot judge: what create allocates differs by 6.0 % between turns, more than the 5.0 % that must be noticed: --only create --turns 30"
      ]
    })
    assert.deepStrictEqual(sentences("create", "abc1234", { instructions: equal, bytes: equal }), {
      word: "",
      worse: [],
      unclear: []
    })
    assert.strictEqual(sentences("create", "abc1234", { instructions: equal, bytes }).word, "unclear")
  })

  it("judges bytes alone where nothing counts instructions", () => {
    const uncounted = compare([{ instructions: NaN, bytes: 1 }], [{ instructions: NaN, bytes: 1 }], "instructions")
    assert.strictEqual(uncounted.verdict, "same")
  })

  it("reads the commits of the file of figures, the latest first", () => {
    const line = (commit: string) => JSON.stringify({ commit, against: "0", node: "24", figures: {} })
    assert.deepStrictEqual(recorded(`${line("a")}\n${line("b")}\n`), ["b", "a"])
    assert.deepStrictEqual(recorded(""), [])
  })
})
