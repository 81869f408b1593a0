import { assert, describe, it } from "@effect/vitest"
import * as Heap from "../../src/admission/heap.ts"
import { mulberry } from "../support/random.ts"

interface Item extends Heap.Item {
  key: number
}

const before = (a: Item, b: Item): boolean => a.key < b.key

describe("heap", () => {
  it("has the first item in front, whatever was pushed, moved and removed", () => {
    for (let seed = 1; seed <= 50; seed++) {
      const random = mulberry(seed)
      const heap: Array<Item> = []
      const items = new Set<Item>()
      for (let i = 0; i < 300; i++) {
        const [any] = [...items].slice(Math.floor(random() * items.size))
        const dice = random()
        if (any === undefined || dice < 0.5) {
          const item = { key: Math.floor(random() * 50), place: -1 }
          items.add(item)
          Heap.push(heap, item, before)
        } else if (dice < 0.75) {
          any.key = Math.floor(random() * 50)
          Heap.fix(heap, any, before)
        } else {
          items.delete(any)
          Heap.remove(heap, any, before)
          assert.strictEqual(any.place, -1)
        }
        assert.strictEqual(heap[0]?.key, items.size === 0 ? undefined : Math.min(...[...items].map(({ key }) => key)))
        assert.isTrue(heap.every((item, place) => item.place === place))
      }
    }
  })
})
