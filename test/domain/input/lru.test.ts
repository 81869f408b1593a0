import { assert, describe, it } from "@effect/vitest"
import { put, Shedder } from "../../../src/domain/input/lru.ts"
import { heapUsed } from "../../support/heap.ts"

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

describe("a shedder", () => {
  it("visits entries in their order, goes on where it stopped, and moves those in use to the end", () => {
    const map = new Map(Array.from({ length: 6 }, (_, n) => [n, n < 4 ? "used" : "idle"]))
    const gone: Array<string> = []
    const shedder = new Shedder(
      map,
      (value) => value === "idle",
      (value) => void gone.push(value)
    )
    shedder.shed(5, 2)
    assert.deepStrictEqual([...map.keys()], [2, 3, 4, 5, 0, 1])
    shedder.shed(5)
    assert.deepStrictEqual([...map.keys()], [5, 0, 1, 2, 3])
    shedder.shed(5)
    assert.deepStrictEqual([gone, map.size], [["idle"], 5])
  })

  // A full collection takes half a second in a process that has loaded everything.
  it("keeps nothing of entries that others have removed since it stopped", { tags: "full" }, async () => {
    const map = new Map<object, number>([[{}, 0]])
    const shedder = new Shedder(map, () => true)
    const removed: Array<WeakRef<object>> = []
    const add = (n: number): void => {
      const key = {}
      removed.push(new WeakRef(key))
      map.set(key, n)
      if (n > 1) map.delete(map.keys().next().value!)
    }
    add(1)
    // It stops within the map, which then has many tables.
    shedder.shed(1, 1)
    for (let n = 2; n < 1_000; n++) add(n)
    await heapUsed()
    assert.isBelow(removed.filter((key) => key.deref() !== undefined).length, 10)
    shedder.shed(0)
    assert.strictEqual(map.size, 0)
  })
})
