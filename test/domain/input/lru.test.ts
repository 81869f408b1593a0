import { assert, describe, it } from "@effect/vitest"
import { put, Registry, useOrMake } from "../../../src/domain/input/lru.ts"
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

describe("a registry", () => {
  const filled = (gone: Array<string> = []): Registry<number, string> => {
    const registry = new Registry<number, string>(
      (value) => value === "idle",
      (value) => void gone.push(value)
    )
    for (let n = 0; n < 6; n++) registry.set(n, n < 4 ? "used" : "idle")
    return registry
  }

  it("visits entries in their order, goes on where it stopped, and moves those in use to the end", () => {
    const gone: Array<string> = []
    const registry = filled(gone)
    registry.shed(5, 2)
    assert.deepStrictEqual([...registry.keys()], [2, 3, 4, 5, 0, 1])
    registry.shed(5)
    assert.deepStrictEqual([...registry.keys()], [5, 0, 1, 2, 3])
    registry.shed(5)
    assert.deepStrictEqual([gone, registry.size], [["idle"], 5])
  })

  it("makes what is looked up the most recently used, and nothing else", () => {
    const registry = filled()
    assert.strictEqual(registry.use(4), "idle")
    assert.strictEqual(registry.get(5), "idle")
    assert.isUndefined(registry.use(6))
    assert.deepStrictEqual([...registry.keys()], [0, 1, 2, 3, 5, 4])
  })

  it("makes what is missing, and forgets idle values for it as long as there are any", () => {
    const registry = filled()
    assert.strictEqual(
      useOrMake(registry, 0, 6, () => "made"),
      "used"
    )
    assert.strictEqual(
      useOrMake(registry, 6, 6, () => "used"),
      "used"
    )
    assert.deepStrictEqual([...registry.keys()], [5, 0, 1, 2, 3, 6])
    useOrMake(registry, 7, 6, () => "used")
    useOrMake(registry, 8, 6, () => "used")
    assert.deepStrictEqual([...registry.keys()].toSorted(), [0, 1, 2, 3, 6, 7, 8])
  })

  it("forgets a value that is idle and still the one of its key", () => {
    const gone: Array<string> = []
    const registry = filled(gone)
    registry.forget(0, "used")
    registry.forget(4, "another")
    registry.forget(6, "idle")
    assert.deepStrictEqual([gone, registry.size], [[], 6])
    registry.forget(4, "idle")
    registry.forget(4, "idle")
    assert.deepStrictEqual([gone, registry.size], [["idle"], 5])
  })

  // A full collection takes half a second in a process that has loaded everything.
  it("keeps nothing of entries that others have removed since it stopped", { tags: "full" }, async () => {
    const registry = new Registry<object, number>(() => true)
    registry.set({}, 0)
    const removed: Array<WeakRef<object>> = []
    const add = (n: number): void => {
      const key = {}
      removed.push(new WeakRef(key))
      registry.set(key, n)
      if (n > 1) registry.delete(registry.keys().next().value!)
    }
    add(1)
    // It stops within the map, which then has many tables.
    registry.shed(1, 1)
    for (let n = 2; n < 1_000; n++) add(n)
    await heapUsed()
    assert.isBelow(removed.filter((key) => key.deref() !== undefined).length, 10)
    registry.shed(0)
    assert.strictEqual(registry.size, 0)
  })
})
