import { assert, describe, it } from "@effect/vitest"
import * as Words from "floodgate/internal/words"

type Texts = ReadonlyArray<readonly [value: number, text: string]>

/** What a formatter makes of each value. */
const shown = (texts: Texts, format: (value: number) => string): Texts => texts.map(([value]) => [value, format(value)])

describe("amounts in words", () => {
  it("have three digits at a glance, and a unit for thousands", () => {
    const expected: Texts = [
      [0, "0"],
      [-0.001, "-0.001"],
      [1.5, "1.5"],
      [999, "999"],
      [999.6, "1K"],
      [12_345, "12.3K"],
      [999_960, "1M"],
      [-1_234_567, "-1.23M"],
      [2e9, "2B"],
      [Infinity, "\u221e"]
    ]
    assert.deepStrictEqual(shown(expected, Words.compact), expected)
  })

  it("compare seconds with one decimal place", () => {
    const expected: Texts = [
      [0, "0.0 s"],
      [3_135, "3135.0 s"]
    ]
    assert.deepStrictEqual(shown(expected, Words.seconds), expected)
  })

  it("state measured times in the unit that a reader needs", () => {
    const expected: Texts = [
      [0.04, "0.0 s"],
      [119.94, "119.9 s"],
      [119.96, "2.0 min"],
      [7_199, "120.0 min"],
      [7_200, "2.0 h"]
    ]
    assert.deepStrictEqual(shown(expected, Words.span), expected)
  })

  it("state expected times no more exactly than they are known", () => {
    const expected: Texts = [
      [0.04, "0 s"],
      [9.94, "9.9 s"],
      [9.95, "10 s"],
      [119.4, "119 s"],
      [150, "2.5 min"],
      [720, "12 min"],
      [5_400, "90 min"],
      [9_000, "2.5 h"]
    ]
    assert.deepStrictEqual(shown(expected, Words.about), expected)
  })

  it("state parts in percent, without a zero after the point", () => {
    const expected: Texts = [
      [0, "0 %"],
      [0.8, "80 %"],
      [0.123_4, "12.3 %"]
    ]
    assert.deepStrictEqual(shown(expected, Words.percent), expected)
  })

  it("state dollars to the cent, and less than 10 cents with two digits", () => {
    const expected: Texts = [
      [0, "$0.00"],
      [0.001_234, "$0.0012"],
      [1_234.5, "$1,234.50"]
    ]
    assert.deepStrictEqual(shown(expected, Words.dollars), expected)
  })
})
