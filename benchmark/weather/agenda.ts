/** A priority queue of events by time; simultaneous events keep the order in which they were added. */
export interface Agenda<A> {
  readonly add: (at: number, value: A) => void
  /** The time of the next event; Infinity if there is none. */
  readonly next: () => number
  readonly take: () => A | undefined
}

interface Entry<A> {
  readonly at: number
  readonly order: number
  readonly value: A
}

const isBefore = <A>(one: Entry<A>, other: Entry<A>) =>
  one.at < other.at || (one.at === other.at && one.order < other.order)

/** A binary heap. */
export const make = <A>(): Agenda<A> => {
  const heap: Array<Entry<A>> = []
  let added = 0

  const add = (at: number, value: A) => {
    const entry = { at, order: added++, value }
    let i = heap.length
    heap.push(entry)
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!isBefore(entry, heap[parent]!)) break
      heap[i] = heap[parent]!
      i = parent
    }
    heap[i] = entry
  }

  const take = (): A | undefined => {
    const first = heap[0]
    const last = heap.pop()
    if (first === undefined || last === undefined || heap.length === 0) return first?.value
    let i = 0
    while (true) {
      let child = 2 * i + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
      if (!isBefore(heap[child]!, last)) break
      heap[i] = heap[child]!
      i = child
    }
    heap[i] = last
    return first.value
  }

  return { add, take, next: () => heap[0]?.at ?? Infinity }
}
