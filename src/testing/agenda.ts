/** Values by the time at which they are due: a binary heap, in order of insertion for equal times. */

interface AgendaItem<A> {
  readonly at: number
  readonly order: number
  readonly value: A
}

/** The items as a mutable heap. */
export interface Agenda<A> {
  readonly items: Array<AgendaItem<A>>
  added: number
}

/** An empty agenda. */
export const make = <A>(): Agenda<A> => ({ items: [], added: 0 })

const before = <A>(a: AgendaItem<A>, b: AgendaItem<A>): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

const swap = <A>(items: Array<AgendaItem<A>>, i: number, j: number): void => {
  const item = items[i]!
  items[i] = items[j]!
  items[j] = item
}

/** Adds a value that is due at a time in milliseconds. */
export const add = <A>(self: Agenda<A>, at: number, value: A): void => {
  const { items } = self
  items.push({ at, order: self.added++, value })
  for (let index = items.length - 1; index > 0;) {
    const parent = (index - 1) >> 1
    if (!before(items[index]!, items[parent]!)) return
    swap(items, index, parent)
    index = parent
  }
}

/** The time of the next value; infinity when there is none. */
export const nextAt = <A>(self: Agenda<A>): number => self.items[0]?.at ?? Infinity

/** Takes the next value if it is due at `now`. */
export const takeDue = <A>(self: Agenda<A>, now: number): A | undefined => {
  const { items } = self
  if (items.length === 0 || items[0]!.at > now) return undefined
  const { value } = items[0]!
  const last = items.pop()!
  if (items.length > 0) {
    items[0] = last
    for (let index = 0; ;) {
      let soonest = index
      const left = 2 * index + 1
      if (left < items.length && before(items[left]!, items[soonest]!)) soonest = left
      if (left + 1 < items.length && before(items[left + 1]!, items[soonest]!)) soonest = left + 1
      if (soonest === index) break
      swap(items, index, soonest)
      index = soonest
    }
  }
  return value
}
