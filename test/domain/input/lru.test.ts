import { assert, describe, it } from "@effect/vitest"
import { put } from "../../../src/domain/input/lru.ts"

describe("lru", () => {
  it("never forgets an entry that is put as often as new ones come", () => {
    const map = new Map<string, number>()
    const forgotten: Array<number> = []
    for (let round = 0; round < 100; round++) {
      put(map, "in use", -round, 10, (value) => forgotten.push(value))
      put(map, `new ${round}`, round, 10, (value) => forgotten.push(value))
      assert.strictEqual(map.get("in use"), -round)
      assert.isAtMost(map.size, 10)
    }
    // The others are forgotten in the order in which they came.
    assert.deepStrictEqual(
      forgotten,
      Array.from({ length: 91 }, (_, round) => round)
    )
  })

  it("keeps the entry that was put last, even with room for one", () => {
    const map = new Map<string, number>()
    put(map, "one", 1, 1)
    put(map, "two", 2, 1)
    assert.deepStrictEqual([...map], [["two", 2]])
  })
})
