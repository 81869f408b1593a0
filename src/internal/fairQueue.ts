/**
 * A queue that is first come, first served within an agent, fair by weight between agents, and strict by priority.
 *
 * Start-time fair queueing (Goyal, Vin, Cheng 1996): a flow's head carries a start tag; the lowest is served next, and
 * serving moves the flow's tag on by cost over weight. A flow that becomes backlogged starts at the tag of the head that
 * is being waited for, so it can never overtake that head, and a stream of new agents cannot starve it. Everything is
 * O(log flows); removal from the middle of a flow is O(1).
 *
 * The structure is mutable, and single-threaded like its owner.
 */

/** What the queue needs to know of an entry. The fields marked "queue" belong to the queue. */
export interface Entry {
  readonly agent: string
  readonly priority: number
  /** Share of service relative to other agents, > 0. */
  readonly weight: number
  /** What serving it costs, in the queue's own unit. */
  readonly cost: number
  /** queue: where it stands, `undefined` when it does not. */
  flow: Flow<this> | undefined
  /** queue */
  previous: this | undefined
  /** queue */
  next: this | undefined
  /** queue: the flow's tag and turn when the entry was shifted out, to put it back where it was. */
  start: number
  turn: number
}

/** One agent's entries of one priority. */
export interface Flow<E> {
  readonly agent: string
  readonly level: Level<E>
  head: E | undefined
  tail: E | undefined
  size: number
  /** Sum of the costs of its entries over their weights. */
  backlog: number
  /** The start tag of the head; of the next entry to come when empty. */
  start: number
  /** Breaks ties between tags: who came first. */
  turn: number
  /** Place in the level's heap, -1 when empty. */
  place: number
}

/** All flows of one priority. */
interface Level<E> {
  readonly priority: number
  readonly flows: Map<string, Flow<E>>
  /** Binary heap of the backlogged flows by (start, turn). */
  readonly heap: Array<Flow<E>>
  /** The tag of the last that was served. */
  virtual: number
  /** At this number of flows the idle ones are swept; it doubles with what must stay, so a sweep costs O(1) a call. */
  sweepAt: number
}

const firstSweep = 1024

export class FairQueue<E extends Entry> {
  size = 0
  private turns = 0
  /** Highest priority first. */
  private readonly levels: Array<Level<E>> = []

  /** Adds an entry at its agent's end, or at its agent's front. */
  push(entry: E, front = false): void {
    const level = this.levelOf(entry.priority)
    let flow = level.flows.get(entry.agent)
    if (flow === undefined) {
      flow = {
        agent: entry.agent,
        level,
        head: undefined,
        tail: undefined,
        size: 0,
        backlog: 0,
        start: 0,
        turn: 0,
        place: -1
      }
      level.flows.set(entry.agent, flow)
    }
    if (flow.size === 0) {
      flow.start = Math.max(flow.start, level.heap[0]?.start ?? level.virtual)
      flow.turn = this.turns++
    }
    this.link(flow, entry, front)
  }

  /** The entry that is served next. */
  peek(): E | undefined {
    return this.levels.find((level) => level.heap.length > 0)?.heap[0]!.head
  }

  /** Removes and returns the entry that is served next. */
  shift(): E | undefined {
    const entry = this.peek()
    if (entry === undefined) return undefined
    const flow = entry.flow!
    entry.start = flow.start
    entry.turn = flow.turn
    flow.level.virtual = flow.start
    this.unlink(flow, entry)
    flow.start += entry.cost / entry.weight
    flow.turn = this.turns++
    if (flow.size > 0) siftDown(flow.level.heap, flow.place)
    this.tidy(flow.level)
    return entry
  }

  /**
   * Undoes the latest `shift` that has not been undone: the entry is served next again, unless a higher priority came.
   */
  putBack(entry: E): void {
    const level = this.levelOf(entry.priority)
    let flow = level.flows.get(entry.agent)
    if (flow === undefined) {
      this.push(entry, true)
      flow = level.flows.get(entry.agent)!
      flow.start = entry.start
      flow.turn = entry.turn
    } else {
      flow.start = entry.start
      flow.turn = entry.turn
      this.link(flow, entry, true)
    }
    siftUp(level.heap, flow.place)
  }

  /** Takes an entry out, wherever it stands. Returns whether it stood in the queue. */
  remove(entry: E): boolean {
    const flow = entry.flow
    if (flow === undefined) return false
    this.unlink(flow, entry)
    this.tidy(flow.level)
    return true
  }

  /**
   * Visits what is served before an entry that would come now: `visit(flow, part)` for each flow with the part of its
   * backlog (0 to 1) that precedes. An approximation by tags, O(flows).
   */
  ahead(
    entry: { readonly agent: string; readonly priority: number },
    visit: (flow: Flow<E>, part: number) => void
  ): void {
    for (const level of this.levels) {
      if (level.priority < entry.priority) return
      const own = level.priority === entry.priority ? level.flows.get(entry.agent) : undefined
      const virtual = level.heap[0]?.start ?? level.virtual
      const tag =
        level.priority > entry.priority ? Infinity : Math.max(virtual, (own?.start ?? 0) + (own?.backlog ?? 0))
      for (const flow of level.heap) {
        if (flow === own) visit(flow, 1)
        else if (flow.start <= tag) visit(flow, Math.min(1, (tag - flow.start + headCost(flow)) / flow.backlog))
      }
    }
  }

  /** The number of backlogged agents. */
  get agents(): number {
    let sum = 0
    for (const level of this.levels) sum += level.heap.length
    return sum
  }

  private levelOf(priority: number): Level<E> {
    let index = 0
    while (index < this.levels.length && this.levels[index]!.priority > priority) index++
    const found = this.levels[index]
    if (found?.priority === priority) return found
    const level: Level<E> = { priority, flows: new Map(), heap: [], virtual: 0, sweepAt: firstSweep }
    this.levels.splice(index, 0, level)
    return level
  }

  private link(flow: Flow<E>, entry: E, front: boolean): void {
    entry.flow = flow
    if (front) {
      entry.previous = undefined
      entry.next = flow.head
      if (flow.head !== undefined) flow.head.previous = entry
      else flow.tail = entry
      flow.head = entry
    } else {
      entry.next = undefined
      entry.previous = flow.tail
      if (flow.tail !== undefined) flow.tail.next = entry
      else flow.head = entry
      flow.tail = entry
    }
    flow.backlog += entry.cost / entry.weight
    this.size++
    if (flow.size++ === 0) {
      flow.place = flow.level.heap.push(flow) - 1
      siftUp(flow.level.heap, flow.place)
    }
  }

  private unlink(flow: Flow<E>, entry: E): void {
    if (entry.previous !== undefined) entry.previous.next = entry.next
    else flow.head = entry.next
    if (entry.next !== undefined) entry.next.previous = entry.previous
    else flow.tail = entry.previous
    entry.flow = entry.previous = entry.next = undefined
    this.size--
    if (--flow.size === 0) {
      flow.backlog = 0
      removeAt(flow.level.heap, flow.place)
      flow.place = -1
    } else {
      flow.backlog -= entry.cost / entry.weight
    }
  }

  /** When nothing of a priority waits, its history is over; idle flows that the others caught up with are forgotten. */
  private tidy(level: Level<E>): void {
    if (level.heap.length === 0) {
      level.flows.clear()
      level.virtual = 0
      if (this.levels.length > 1) this.levels.splice(this.levels.indexOf(level), 1)
    } else if (level.flows.size >= level.sweepAt) {
      for (const flow of level.flows.values()) {
        if (flow.size === 0 && flow.start <= level.heap[0]!.start) level.flows.delete(flow.agent)
      }
      level.sweepAt = Math.max(firstSweep, 2 * level.flows.size)
    }
  }
}

const headCost = <E extends Entry>(flow: Flow<E>): number => flow.head!.cost / flow.head!.weight

// -----------------------------------------------------------------------------
// Binary heap of flows
// -----------------------------------------------------------------------------

type Heap = Array<{ start: number; turn: number; place: number }>

const before = (a: Heap[number], b: Heap[number]): boolean =>
  a.start < b.start || (a.start === b.start && a.turn < b.turn)

const siftUp = (heap: Heap, from: number): void => {
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

const siftDown = (heap: Heap, from: number): void => {
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

const removeAt = (heap: Heap, place: number): void => {
  const last = heap.pop()!
  if (place === heap.length) return
  heap[place] = last
  last.place = place
  siftUp(heap, place)
  siftDown(heap, last.place)
}
