/**
 * A queue that is first come, first served within an agent, fair by weight between agents, and strict by priority.
 *
 * Start-time fair queueing (Goyal, Vin, Cheng 1996) with the virtual time of WF2Q+ (Bennett, Zhang 1997): a flow's head
 * carries a start tag; the lowest is served next, and serving moves the flow's tag on by cost over weight. Virtual time
 * moves on with the service that the average flow gets. A new flow starts there, so that a stream of new agents starves
 * nobody, because their tags grow. No flow that comes starts before the head that is being waited for, so that it cannot
 * overtake that head. Pushing, shifting and removing cost O(log flows); removal from the middle of a flow is O(1).
 *
 * What an agent was served before is remembered while anybody waits, not only while it waits itself: agents that make
 * one call at a time share by cost, too. The owner says with `forget` when nobody had to wait, and with `correct` what a
 * service came to in the end.
 *
 * The structure is mutable, and single-threaded like its owner.
 */
import * as Heap from "./heap.ts"

/** What the queue needs to know of an entry. The fields marked "queue" belong to the queue. */
export interface Entry {
  readonly agent: string
  readonly priority: number
  /** Share of service relative to other agents, > 0. */
  readonly weight: number
  /** What serving it costs, in the queue's own unit, > 0. To be changed by `reprice` while it waits. */
  cost: number
  /** queue: where it stands, `undefined` when it does not. */
  flow: Flow<this> | undefined
  /** queue */
  previous: this | undefined
  /** queue */
  next: this | undefined
}

/** An entry's turn: where it stood when it was taken out and what its agent was charged, to undo or to correct that. */
export interface Turn<E> {
  readonly entry: E
  /** The flow's tag and rank, and what it was owed. */
  readonly start: number
  readonly rank: number
  readonly owed: number
  /** What the flow added to its level's weight. */
  readonly weight: number
  /** Virtual time, and by how much this moved it on. */
  readonly virtual: number
  readonly moved: number
}

/** One agent's entries of one priority. */
export interface Flow<E> extends Heap.Item {
  readonly agent: string
  readonly level: Level<E>
  head: E | undefined
  tail: E | undefined
  size: number
  /** Sum of the costs of its entries over their weights. */
  backlog: number
  /**
   * What it adds to its level's weight while it has entries: the weight of the first one that came when it was empty.
   */
  weight: number
  /** The start tag of the head; of the next entry to come when empty. */
  start: number
  /** Breaks ties between tags: who came first. */
  rank: number
  /** A correction of the tag that waits for the next service: negative where the agent was charged too much. */
  owed: number
}

/** All flows of one priority. */
interface Level<E> extends Heap.Item {
  readonly priority: number
  readonly flows: Map<string, Flow<E>>
  /** The backlogged flows by (start, turn). */
  readonly heap: Array<Flow<E>>
  /** The sum of the weights of the backlogged flows. */
  weight: number
  /** Virtual time as if every service had cost what was asked for. */
  virtual: number
  /** How much less they did: a flow that is not remembered starts at `virtual - refunded`. */
  refunded: number
  /** At this number of flows the idle ones are swept; it doubles with what must stay, so a sweep costs O(1) a call. */
  sweepAt: number
}

/** Weights are between this and its inverse: a wider range than any use needs, and sums of shares stay exact. */
export const leastWeight = 0.001

const firstSweep = 1024
/** Priorities that nobody waits in and whose history is kept; more are forgotten. */
const idleLevels = 64
/** Bounds a tag's growth, so that tiny weights leave the arithmetic finite. */
const largestStep = 1e12

/** Sums of the same steps differ by less. */
const rounding = 1e-6

const byTag = <E>(a: Flow<E>, b: Flow<E>): boolean => a.start < b.start || (a.start === b.start && a.rank < b.rank)
const byPriority = <E>(a: Level<E>, b: Level<E>): boolean => a.priority > b.priority

const stepOf = (entry: { readonly cost: number; readonly weight: number }): number =>
  Math.min(entry.cost / entry.weight, largestStep)

/** The tag of a flow after an entry was shifted out. */
const nextStart = <E extends Entry>({ entry, owed, start }: Turn<E>): number => start + stepOf(entry) + owed

export class FairQueue<E extends Entry> {
  size = 0
  private ranks = 0
  /** Turns of a lower rank were forgotten. */
  private since = 0
  private readonly levels = new Map<number, Level<E>>()
  /** The levels in which somebody waits, highest priority first. */
  private readonly backlogged: Array<Level<E>> = []

  /** Adds an entry at its agent's end, or at its agent's front. */
  push(entry: E, front = false): void {
    const level = this.levelOf(entry.priority)
    const flow = this.flowOf(level, entry.agent)
    if (flow.size === 0) {
      flow.start = Math.max(flow.start + flow.owed, level.heap[0]?.start ?? 0)
      flow.owed = 0
      flow.rank = this.ranks++
    }
    this.link(flow, entry, front)
  }

  /** The entry that is served next. */
  peek(): E | undefined {
    return this.backlogged[0]?.heap[0]!.head
  }

  /** Removes and returns the entry that is served next. */
  shift(): Turn<E> | undefined {
    const entry = this.peek()
    if (entry === undefined) return undefined
    const flow = entry.flow!
    const level = flow.level
    const moved = Math.min(entry.cost / Math.max(level.weight, flow.weight), largestStep)
    const { owed, rank, start, weight } = flow
    const turn = { entry, start, rank, owed, weight, virtual: level.virtual, moved }
    // What the average flow is served moves on by as much as this service shared among all; a flow that comes now is no
    // earlier than the one that is served.
    level.virtual = Math.max(level.virtual, flow.start + level.refunded) + moved
    flow.start = nextStart(turn)
    flow.owed = 0
    flow.rank = this.ranks++
    this.unlink(flow, entry)
    if (flow.size > 0) Heap.fix(level.heap, flow, byTag)
    return turn
  }

  /**
   * Undoes the latest `shift` that has not been undone: the entry is served next again, unless a higher priority came.
   */
  putBack(turn: Turn<E>): void {
    const { entry, owed, rank, start, virtual, weight } = turn
    const level = this.levelOf(entry.priority)
    const flow = this.flowOf(level, entry.agent)
    level.virtual = virtual
    // What its agent was meanwhile found to be owed stays owed.
    flow.owed += owed + Math.min(0, flow.start - nextStart(turn))
    flow.start = start
    flow.rank = rank
    this.link(flow, entry, true)
    level.weight += weight - flow.weight
    flow.weight = weight
    Heap.fix(level.heap, flow, byTag)
  }

  /**
   * An entry that was shifted out used only `part` of its cost in the end: 0 when it was not served after all, more
   * than 1 when too little was asked for it. Its agent's tag is corrected at once, but not so far that it would
   * overtake the head that is being waited for; the rest is corrected with the agent's next service. No agent is owed
   * more than one entry: an agent that failed many times does not get as many calls at once while everybody else waits.
   */
  correct({ entry, moved, rank }: Turn<E>, part: number): void {
    if (part === 1) return
    const level = this.levels.get(entry.priority)
    const flow = level?.flows.get(entry.agent)
    if (level === undefined || flow === undefined || rank < this.since) return
    level.refunded += (1 - part) * moved
    const owed = flow.owed + (part - 1) * stepOf(entry)
    const head = level.heap[0]
    const noEarlier = flow.size === 0 ? -Infinity : head!.start
    const start = flow === head ? flow.start : Math.max(noEarlier, flow.start + owed)
    flow.owed = Math.max(flow.start + owed - start, -stepOf(entry))
    if (start === flow.start) return
    flow.start = start
    flow.rank = this.ranks++
    if (flow.size > 0) Heap.fix(level.heap, flow, byTag)
  }

  /** What serving an entry costs has changed while it waits. */
  reprice(entry: E, cost: number): void {
    const before = stepOf(entry)
    entry.cost = cost
    entry.flow!.backlog += stepOf(entry) - before
  }

  /** Everybody who waits, in no order. What an entry costs may change meanwhile, not who waits. */
  *[Symbol.iterator](): Generator<E> {
    for (const { heap } of this.backlogged) {
      for (const { head } of heap) for (let entry = head; entry !== undefined; entry = entry.next) yield entry
    }
  }

  /** Takes an entry out, wherever it stands. */
  remove(entry: E): void {
    if (entry.flow !== undefined) this.unlink(entry.flow, entry)
  }

  /** Nobody had to wait: whatever agents were served before counts no more. Does nothing while anybody waits. */
  forget(): void {
    if (this.size > 0 || this.since === this.ranks) return
    this.since = this.ranks
    if (this.levels.size > 1) return this.levels.clear()
    // Mostly it is one: to begin it anew costs less than to make another.
    for (const level of this.levels.values()) {
      level.virtual = level.refunded = 0
      for (const agent of level.flows.keys()) level.flows.delete(agent)
    }
  }

  /**
   * Visits what is served before an entry that would come now: `visit(flow, upTo)` for each flow of which something is.
   * That is every entry with no more than `upTo` of the flow's backlog in front of it. An approximation by tags; looks at
   * no more than `most` flows and says which part of all backlogged flows that was.
   */
  ahead(
    entry: { readonly agent: string; readonly priority: number; readonly first: boolean },
    most: number,
    visit: (flow: Flow<E>, upTo: number) => void
  ): number {
    let visited = 0
    let all = 0
    for (const level of this.backlogged) {
      if (level.priority < entry.priority) continue
      all += level.heap.length
      const own = level.priority === entry.priority ? level.flows.get(entry.agent) : undefined
      const waits = own !== undefined && own.size > 0 ? own : undefined
      const start = Math.max(own?.start ?? level.virtual - level.refunded, level.heap[0]!.start)
      const tag = level.priority > entry.priority ? Infinity : start + (entry.first ? 0 : (own?.backlog ?? 0))
      for (const flow of level.heap) {
        if (visited >= most) break
        visited++
        // Of calls with the same tag those go first whose flow did before, and none of a flow that comes behind.
        const isBefore = waits !== undefined && byTag(flow, waits)
        if (entry.first && waits !== undefined ? !isBefore : flow.start > tag) continue
        visit(flow, (tag - flow.start) * (isBefore ? 1 + rounding : 1 - rounding))
      }
    }
    return all === 0 ? 1 : visited / all
  }

  private levelOf(priority: number): Level<E> {
    const found = this.levels.get(priority)
    if (found !== undefined) return found
    const level: Level<E> = {
      priority,
      flows: new Map(),
      heap: [],
      weight: 0,
      virtual: 0,
      refunded: 0,
      sweepAt: firstSweep,
      place: -1
    }
    this.levels.set(priority, level)
    return level
  }

  private flowOf(level: Level<E>, agent: string): Flow<E> {
    const found = level.flows.get(agent)
    if (found !== undefined) return found
    if (level.flows.size >= level.sweepAt) sweep(level)
    const flow: Flow<E> = {
      agent,
      level,
      head: undefined,
      tail: undefined,
      size: 0,
      backlog: 0,
      weight: 0,
      start: level.virtual - level.refunded,
      rank: 0,
      owed: 0,
      place: -1
    }
    level.flows.set(agent, flow)
    return flow
  }

  private link(flow: Flow<E>, entry: E, front: boolean): void {
    entry.flow = flow
    entry.previous = front ? undefined : flow.tail
    entry.next = front ? flow.head : undefined
    if (entry.previous !== undefined) entry.previous.next = entry
    else flow.head = entry
    if (entry.next !== undefined) entry.next.previous = entry
    else flow.tail = entry
    flow.backlog += stepOf(entry)
    this.size++
    if (flow.size++ > 0) return
    const level = flow.level
    flow.weight = entry.weight
    level.weight += entry.weight
    Heap.push(level.heap, flow, byTag)
    if (level.place < 0) Heap.push(this.backlogged, level, byPriority)
  }

  private unlink(flow: Flow<E>, entry: E): void {
    if (entry.previous !== undefined) entry.previous.next = entry.next
    else flow.head = entry.next
    if (entry.next !== undefined) entry.next.previous = entry.previous
    else flow.tail = entry.previous
    entry.flow = entry.previous = entry.next = undefined
    this.size--
    const level = flow.level
    if (--flow.size > 0) {
      flow.backlog -= stepOf(entry)
      return
    }
    flow.backlog = 0
    level.weight -= flow.weight
    Heap.remove(level.heap, flow, byTag)
    if (level.heap.length > 0) return
    level.weight = 0
    Heap.remove(this.backlogged, level, byPriority)
    if (this.levels.size > idleLevels) this.levels.delete(level.priority)
  }
}

/** Forgets the idle flows that everybody has caught up with. */
const sweep = <E extends Entry>(level: Level<E>): void => {
  const now = level.heap[0]?.start ?? level.virtual - level.refunded
  for (const flow of level.flows.values()) {
    if (flow.size === 0 && flow.start <= now) level.flows.delete(flow.agent)
  }
  level.sweepAt = Math.max(firstSweep, 2 * level.flows.size)
}
