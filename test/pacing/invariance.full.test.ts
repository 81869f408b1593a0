/** The law depends neither on the time at which it began nor on the unit of tokens. */
import { assert, describe, it } from "@effect/vitest"
import { plain, play, type Variant } from "../support/events.ts"

/** The first difference of two histories. */
const differs = (one: ReadonlyArray<number | string>, other: ReadonlyArray<number | string>): string | undefined => {
  for (let i = 0; i < Math.max(one.length, other.length); i++) {
    const [a, b] = [one[i], other[i]]
    const isClose = typeof a === "number" && typeof b === "number" && Math.abs(a - b) <= 1e-6 * (1 + Math.abs(a))
    if (a !== b && !isClose) return `${b} and not ${a} at ${i}`
  }
  return undefined
}

const variants: ReadonlyArray<readonly [string, Variant]> = [
  ["when it began", { ...plain, from: 2 ** 24 }],
  ["the unit of tokens", { ...plain, unit: 1_024 }]
]

describe("the law does not depend on", () => {
  for (const [name, variant] of variants) {
    it(`${name}`, () => {
      for (let seed = 1; seed <= 200; seed++) {
        assert.isUndefined(differs(play(seed, plain), play(seed, variant)), `seed ${seed}`)
      }
    })
  }
})
