/** Absurd states in a store: see `absurd.ts`. `absurd.soak.ts` tries every number with every value. */
import { assert, describe, it } from "@effect/vitest"
import * as Text from "../../src/sharing/text.ts"
import { isFull } from "../support/size.ts"
import * as Absurd from "./absurd.ts"

/** Regressions: each of these stopped every process, even after the key was deleted. */
const found: ReadonlyArray<readonly [string, string]> = [
  ["time", "1e300"],
  ["law.gate.until", "1e13"],
  ["law.caps.tokens.level", "-1e13"],
  ["law.caps.requests.at", "-1e999"],
  ["law.meters.1.phase", "1e17"],
  ["law.window.size", "-1e13"]
]
const foundInOwner = [
  ["seq", "1e13"],
  ["at", "-1e13"]
] as const

/** The place of a number of the first process. */
const owner = (name: string): Absurd.Path =>
  Absurd.paths.find((path) => path[0] === "owners" && path.at(-1) === name && path.length === 3)!

const isRefused = (text: string): boolean => {
  try {
    Text.decode(text)
    return false
  } catch (error) {
    assert.instanceOf(error, Text.Damaged, String(error))
    return true
  }
}

/** In `npm test` the places of a state take turns with the values, and in `npm run test:full` each has all. */
const turn = (values: ReadonlyArray<string>, index: number): ReadonlyArray<string> =>
  isFull ? values : [values[index % values.length]!]

describe("an absurd state", () => {
  it("stops processes only while it is stored", { tags: "full" }, () => {
    const poisons = [
      ...found.map(([path, by]) => [path.split("."), by] as const),
      ...foundInOwner.map(([name, by]) => [owner(name), by] as const),
      ...Absurd.poisons.filter((_, index) => index % 101 === 0)
    ]
    assert.deepStrictEqual(Absurd.outcome(poisons), [])
  })

  it("is rejected if a number is infinite, or too large to be exact", () => {
    assert.isAbove(Absurd.paths.length, 200)
    for (const [index, path] of Absurd.paths.entries()) {
      for (const by of turn(["1e999", "-1e999", "1e300", "-1e300", "1e17", "-1e17"], index)) {
        const isPriority = path.at(-1) === "priority"
        assert.strictEqual(isRefused(Absurd.withAt(Absurd.text, path, by)), !isPriority, `${path.join(".")} = ${by}`)
      }
    }
  })

  it("is rejected if any part of it has another form", () => {
    for (const [index, path] of Absurd.paths.entries()) {
      for (const by of turn(['"1"', "[]", "{}", "true"], index)) {
        assert.isTrue(isRefused(Absurd.withAt(Absurd.text, path, by)), `${path.join(".")} = ${by}`)
      }
    }
  })

  it("is accepted as a process writes it", () => {
    assert.isFalse(isRefused(Absurd.text))
  })
})
