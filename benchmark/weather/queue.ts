/** A queue that serves agents in turn, and each agent's calls in order, retries first. */
export interface Queue<A> {
  readonly add: (agent: number, item: A, isRetry: boolean) => void
  /** The next call. It stays the same until it is taken, unless its agent has a retry. */
  readonly head: () => A | undefined
  readonly take: () => A | undefined
  readonly all: () => ReadonlyArray<A>
}

interface Fifo<A> {
  items: Array<A>
  first: number
}
const isEmpty = <A>(fifo: Fifo<A>) => fifo.first >= fifo.items.length
const shift = <A>(fifo: Fifo<A>): A => {
  const item = fifo.items[fifo.first++]!
  if (fifo.first > 1000 && 2 * fifo.first > fifo.items.length) {
    fifo.items = fifo.items.slice(fifo.first)
    fifo.first = 0
  }
  return item
}

export const make = <A>(agents: number): Queue<A> => {
  const fifo = (): Fifo<A> => ({ items: [], first: 0 })
  const lines = Array.from({ length: agents }, () => ({ retries: fifo(), calls: fifo() }))
  let size = 0
  let turn = 0

  /** The agent whose turn it is: the first from `turn` on with a call. */
  const current = () => {
    if (size === 0) return undefined
    while (isEmpty(lines[turn]!.retries) && isEmpty(lines[turn]!.calls)) turn = (turn + 1) % agents
    const line = lines[turn]!
    return isEmpty(line.retries) ? line.calls : line.retries
  }

  return {
    add: (agent, item, isRetry) => {
      const line = lines[agent]!
      const target = isRetry ? line.retries : line.calls
      target.items.push(item)
      size++
    },
    head: () => {
      const fifo = current()
      return fifo?.items[fifo.first]
    },
    take: () => {
      const fifo = current()
      if (fifo === undefined) return undefined
      size--
      turn = (turn + 1) % agents
      return shift(fifo)
    },
    all: () => lines.flatMap(({ calls, retries }) => [retries, calls].flatMap(({ first, items }) => items.slice(first)))
  }
}
