/**
 * A binary heap whose items know their place, so that any of them can be moved or removed in O(log n).
 */

export interface Item {
  /** Place in the heap, -1 when it is in none. */
  place: number
}

type Before<A> = (a: A, b: A) => boolean

export const push = <A extends Item>(heap: Array<A>, item: A, before: Before<A>): void => {
  item.place = heap.push(item) - 1
  siftUp(heap, item.place, before)
}

/** Restores the order after the item's key has changed. */
export const fix = <A extends Item>(heap: Array<A>, item: A, before: Before<A>): void => {
  siftUp(heap, item.place, before)
  siftDown(heap, item.place, before)
}

export const remove = <A extends Item>(heap: Array<A>, item: A, before: Before<A>): void => {
  const { place } = item
  const last = heap.pop()!
  item.place = -1
  if (last === item) return
  heap[place] = last
  last.place = place
  fix(heap, last, before)
}

const siftUp = <A extends Item>(heap: Array<A>, from: number, before: Before<A>): void => {
  const item = heap[from]!
  let place = from
  while (place > 0) {
    const parent = (place - 1) >> 1
    if (!before(item, heap[parent]!)) break
    heap[place] = heap[parent]!
    heap[place]!.place = place
    place = parent
  }
  heap[place] = item
  item.place = place
}

const siftDown = <A extends Item>(heap: Array<A>, from: number, before: Before<A>): void => {
  const item = heap[from]!
  let place = from
  for (;;) {
    let child = 2 * place + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++
    if (!before(heap[child]!, item)) break
    heap[place] = heap[child]!
    heap[place]!.place = place
    place = child
  }
  heap[place] = item
  item.place = place
}
