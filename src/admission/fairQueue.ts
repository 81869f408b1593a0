/**
 * A queue that is first come, first served within an agent, fair by weight between agents, and strict by priority.
 *
 * Start-time fair queueing (Goyal, Vin, Cheng 1996) with the virtual time of WF2Q+ (Bennett, Zhang 1997): a flow's head
 * carries a start tag, the lowest is served next, and serving moves the flow's tag on by cost over weight. Virtual time
 * moves on with the service that the average flow gets. A new flow starts there: its tag grows with every call, so a
 * stream of new agents starves nobody. No flow starts before the head that is being waited for, so none overtakes it.
 *
 * An agent's service is remembered while anybody waits, not only while it waits itself: agents that make one call at a
 * time share by cost, too. Pushing, shifting and removing cost O(log flows).
 *
 * The structure is mutable and has one owner.
 */
import * as Heap from "./heap.ts"

/** What the queue needs to know of a call. The fields marked "queue" belong to the queue; {@link unqueued} has their first values. */
export interface Queued {
  readonly agent: string
  readonly priority: number
  /** Share of service relative to other agents, > 0. */
  readonly weight: number
  /** What serving it costs, in any one unit, > 0. */
  cost: number
  /** queue: where it stands, `undefined` when it does not. */
  flow: Flow<this> | undefined
  /** queue */
  previous: this | undefined
  /** queue */
  next: this | undefined
  /** queue: the rank of its flow when it was served, -1 until then. */
  rank: number
  /** queue: by how much serving it moved virtual time on. */
  moved: number
  /** queue: the weight of all agents that waited when it was served. */
  among: number
}

/** The queue's fields of a call that has not stood in a queue. */
export const unqueued = { flow: undefined, previous: undefined, next: undefined, rank: -1, moved: 0, among: 0 } as const

/** One agent's entries of one priority. */
export interface Flow<E> extends Heap.Item {
  readonly agent: string
  readonly level: Level<E>
  head: E | undefined
  tail: E | undefined
  size: number
  /** What it adds to its level's weight: the weight of the first entry that came when it was empty. */
  weight: number
  /** The start tag of the head; of the next entry to come when empty. */
  start: number
  /** Breaks ties between tags: the order of arrival. */
  rank: number
  /** A correction of the tag that waits for the next service: negative where the agent was charged too much. */
  owed: number
  /** Whether the last of its entries was served, and none has come since. */
  isServed: boolean
}

/** All flows of one priority. */
interface Level<E> extends Heap.Item {
  readonly priority: number
  readonly flows: Map<string, Flow<E>>
  /** The backlogged flows by (start, rank). */
  readonly heap: Array<Flow<E>>
  /** The sum of the weights of the backlogged flows. */
  weight: number
  /** Virtual time as if every service had cost what was asked for. */
  virtual: number
  /** How much less they did: a new flow starts at `virtual - refunded`. */
  refunded: number
  /** At this number of flows the idle ones are swept; it doubles with what must stay, so a sweep costs O(1) a call. */
  sweepAt: number
}

/** Agents over which it is averaged how many come back. */
const returnWeight = 1 / 64
const firstSweep = 1024
/** Empty priorities whose history is kept; more are forgotten. */
const idleLevels = 64
/** Bounds a tag's growth, so that tiny weights leave the arithmetic finite. */
const maxStep = 1e12

/** An entry that would come now, among its agent's own as the last or the first. */
export interface Newcomer {
  readonly agent: string
  readonly priority: number
  readonly first: boolean
}

/** How far a look ahead has come in one flow; `flowAt` is the flow's place in the heap until its head was seen. */
interface Cursor<E> extends Heap.Item, Tagged {
  start: number
  rank: number
  owed: number
  /** Undefined where it is a newcomer's turn. */
  entry: E | undefined
  flowAt: number
}

interface Tagged {
  readonly start: number
  readonly rank: number
}

const byTag = (a: Tagged, b: Tagged): boolean => a.start < b.start || (a.start === b.start && a.rank < b.rank)
const byPriority = <E>(a: Level<E>, b: Level<E>): boolean => a.priority > b.priority

const stepOf = (entry: { readonly cost: number; readonly weight: number }): number =>
  Math.min(entry.cost / entry.weight, maxStep)

/** Where an agent that does not wait would start; a new one does at virtual time. */
const startOf = <E>(level: Level<E>, flow: Flow<E> | undefined): number =>
  flow === undefined ? level.virtual - level.refunded : flow.start + flow.owed

export class FairQueue<E extends Queued> {
  size = 0
  /** The weight of all agents that wait. */
  weight = 0
  /** The part of the agents that come back after the last of their entries was served, while others wait. */
  returning = 0
  private ranks = 0
  /** Services of a lower rank are forgotten. */
  private since = 0
  private readonly levels = new Map<number, Level<E>>()
  /** The levels with entries, highest priority first. */
  private readonly backlogged: Array<Level<E>> = []

  /** Adds an entry at its agent's end, or at its agent's front. */
  push(entry: E, front = false): void {
    const level = this.levelOf(entry.priority)
    const flow = this.flowOf(level, entry.agent)
    if (flow.size === 0) {
      if (flow.isServed) this.returning += returnWeight
      flow.isServed = false
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

  /** Serves the entry that `peek` gives. */
  shift(): E | undefined {
    const entry = this.peek()
    if (entry !== undefined) this.serve(entry)
    return entry
  }

  /** Removes an entry that is served, and charges its agent. */
  serve(entry: E): void {
    const flow = entry.flow!
    const level = flow.level
    entry.rank = flow.rank
    entry.moved = Math.min(entry.cost / Math.max(level.weight, flow.weight), maxStep)
    entry.among = this.weight
    // No flow that comes now may start earlier than the one that is served.
    level.virtual = Math.max(level.virtual, flow.start + level.refunded) + entry.moved
    flow.start += stepOf(entry) + flow.owed
    flow.owed = 0
    flow.rank = this.ranks++
    this.unlink(flow, entry)
    if (flow.size > 0) Heap.fix(level.heap, flow, byTag)
    else {
      flow.isServed = true
      this.returning *= 1 - returnWeight
    }
  }

  /**
   * An entry that was served has used only `part` of its cost: 0 if it used nothing after all, more than 1 if its cost was
   * estimated too low. The agent's tag is corrected at once, but not so far that the agent would overtake the head that is
   * being waited for; its next service corrects the rest. An agent is owed at most one call, so one that failed many times
   * does not get as many calls at once while everybody else waits. Nothing is corrected for an entry that was not served by
   * this queue, or before the queue forgot.
   */
  correct(entry: E, part: number): void {
    const level = this.levels.get(entry.priority)
    const flow = level?.flows.get(entry.agent)
    if (part === 1 || level === undefined || flow === undefined || entry.rank < this.since) return
    const step = stepOf(entry)
    level.refunded += (1 - part) * entry.moved
    const owed = flow.owed + (part - 1) * step
    const head = level.heap[0]
    const earliest = flow.size === 0 ? -Infinity : head!.start
    const start = flow === head ? flow.start : Math.max(earliest, flow.start + owed)
    flow.owed = Math.max(flow.start + owed - start, -step)
    if (start === flow.start) return
    flow.start = start
    flow.rank = this.ranks++
    if (flow.size > 0) Heap.fix(level.heap, flow, byTag)
  }

  /** Removes an entry, wherever it stands. */
  remove(entry: E): void {
    if (entry.flow !== undefined) this.unlink(entry.flow, entry)
  }

  /** Sets anew what each entry costs. */
  reprice(cost: (entry: E) => number): void {
    for (const { heap } of this.backlogged) {
      for (const { head } of heap) {
        for (let entry = head; entry !== undefined; entry = entry.next) entry.cost = cost(entry)
      }
    }
  }

  /** Nobody had to wait: what agents were served before counts no more. Does nothing while anybody waits. */
  forget(): void {
    if (this.size > 0 || this.since === this.ranks) return
    this.since = this.ranks
    this.levels.clear()
  }

  /**
   * The entries in the order of service: all of them, or those that go before a newcomer. Nobody else comes, but for a part
   * of the agents whose last entry was served: they come back at once with another one like it, so that it is given once more.
   * Changes nothing; the queue must not change meanwhile.
   */
  *inOrder(newcomer?: Newcomer, returning = 0): Generator<E, undefined> {
    for (const level of [...this.backlogged].sort((a, b) => b.priority - a.priority)) {
      if (newcomer !== undefined && level.priority < newcomer.priority) return undefined
      const joins = newcomer?.priority === level.priority ? newcomer : undefined
      if (yield* this.inLevel(level, joins, returning)) return undefined
    }
    return undefined
  }

  /** Those of one level. Returns whether it is a newcomer's turn. */
  private *inLevel(level: Level<E>, newcomer: Newcomer | undefined, returning: number): Generator<E, boolean> {
    const own = newcomer === undefined ? undefined : level.flows.get(newcomer.agent)
    const cursors: Array<Cursor<E>> = []
    let ranks = this.ranks
    let comes = 0.5
    const visit = (place: number): void => {
      const flow = level.heap[place]
      if (flow === undefined) return
      const { head, owed, rank, start } = flow
      // A newcomer that goes first among its agent's own is in the place of their head.
      const entry = flow === own && newcomer?.first === true ? undefined : head
      Heap.push(cursors, { start, rank, owed, entry, flowAt: place, place: -1 }, byTag)
    }
    if (newcomer !== undefined && isIdle(own)) {
      const start = Math.max(startOf(level, own), level.heap[0]!.start)
      Heap.push(cursors, { start, rank: ranks++, owed: 0, entry: undefined, flowAt: -1, place: -1 }, byTag)
    }
    visit(0)
    for (let next = cursors[0]; next !== undefined; next = cursors[0]) {
      const { entry, flowAt } = next
      if (entry === undefined) return true
      yield entry
      if (flowAt >= 0) {
        visit(2 * flowAt + 1)
        visit(2 * flowAt + 2)
        next.flowAt = -1
      }
      const isLast = entry.next === undefined && entry.flow !== own
      if (isLast) comes += returning
      if (isLast && comes < 1) Heap.remove(cursors, next, byTag)
      else {
        if (isLast) comes--
        else next.entry = entry.next
        next.start += stepOf(entry) + next.owed
        next.owed = 0
        next.rank = ranks++
        Heap.fix(cursors, next, byTag)
      }
    }
    return false
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
      weight: 0,
      start: startOf(level, undefined),
      rank: 0,
      owed: 0,
      isServed: false,
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
    this.size++
    if (flow.size++ > 0) return
    const { level } = flow
    flow.weight = entry.weight
    level.weight += entry.weight
    this.weight += entry.weight
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
    if (--flow.size > 0) return
    const { level } = flow
    level.weight -= flow.weight
    // Sums of numbers that come and go are not exact.
    this.weight = this.size === 0 ? 0 : this.weight - flow.weight
    Heap.remove(level.heap, flow, byTag)
    if (level.heap.length > 0) return
    Heap.remove(this.backlogged, level, byPriority)
    if (this.levels.size > idleLevels) this.levels.delete(level.priority)
  }
}

const isIdle = (flow: { readonly size: number } | undefined): boolean => flow === undefined || flow.size === 0

/** Forgets the idle flows that everybody has caught up with. */
const sweep = <E extends Queued>(level: Level<E>): void => {
  const now = level.heap[0]?.start ?? level.virtual - level.refunded
  for (const flow of level.flows.values()) {
    if (flow.size === 0 && flow.start <= now) level.flows.delete(flow.agent)
  }
  level.sweepAt = Math.max(firstSweep, 2 * level.flows.size)
}
