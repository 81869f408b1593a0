/** A bounded memory that several owners share. */
import { assert, describe, it } from "@effect/vitest"
import { FairShares, type SharedThing } from "../../src/call/fairShares.ts"

const hour = 3_600_000

/** A memory for ten things of size 1, and the owners of those that it forgot, in order. */
const memory = () => {
  const forgotten: Array<string> = []
  const shares = new FairShares<SharedThing>(10, ({ owner }) => void forgotten.push(owner))
  const add = (owner: string, count = 1, now = 0) => {
    for (let n = 0; n < count; n++) shares.keep({ owner, size: 0, usedAt: now }, 1, now)
  }
  return { add, forgotten, shares }
}

describe("a memory of several owners", () => {
  it("forgets things of who holds the most", () => {
    const { add, forgotten } = memory()
    add("a", 2)
    add("b", 8)
    add("c", 4)
    assert.deepStrictEqual(forgotten, ["b", "b", "b", "b"])
  })

  it("takes turns between owners that hold about as much", () => {
    const { add, forgotten } = memory()
    for (const owner of ["a", "b", "c"]) add(owner, 3)
    add("d", 3)
    add("e", 1)
    assert.deepStrictEqual(forgotten, ["a", "b", "c"])
  })

  it("forgets what nobody has used for an hour before that", () => {
    const { add, forgotten } = memory()
    add("a", 1)
    add("b", 9, 1)
    add("c", 1, hour - 1)
    assert.deepStrictEqual(forgotten, ["b"])
    add("c", 1, hour)
    assert.deepStrictEqual(forgotten, ["b", "a"])
  })

  it("keeps the newest thing, however large", () => {
    const { add, forgotten, shares } = memory()
    add("a", 3)
    shares.keep({ owner: "b", size: 0, usedAt: 0 }, 20, 0)
    assert.deepStrictEqual(forgotten, ["a", "a", "a"])
    assert.strictEqual(shares.size, 20)
  })
})
