/**
 * A queue that is first come, first served within an agent, fair by weight between agents, and strict by priority.
 *
 * Start-time fair queueing (Goyal, Vin, Cheng 1996) with the virtual time of WF2Q+ (Bennett, Zhang 1997): a flow's head
 * carries a start tag, the lowest is served next, and serving advances the flow's tag by cost over weight. Virtual time
 * advances with the service that the average flow gets. A new flow starts at virtual time, which grows with every call, so
 * a stream of new agents starves nobody. No flow starts before the head that is being waited for, so none overtakes it.
 *
 * One exception: a small call of an agent that did not wait goes right behind the head, not behind the large calls of everybody
 * else, if in fair order it would end before the head does. All of them together cost at most a tenth of the head, so large calls
 * wait at most a tenth longer for them, however many agents make small ones.
 *
 * What an agent was served is remembered while any agent waits, so that agents which make one call at a time also share by
 * cost. Pushing, serving and removing cost O(log flows). The queue is changed in place.
 */
import * as Heap from "./heap.ts"

/** A call that can stand in a queue. The fields from `flow` on belong to the queue. */
export class Queued {
  readonly agent: string
  readonly priority: number
  /** Share of service relative to other agents, > 0. */
  readonly weight: number
  /** The cost of serving it, above 0 while it waits, in the same unit for all entries. */
  cost: number
  /** Where it stands; undefined if it does not wait. */
  flow: Flow<this> | undefined = undefined
  previous: this | undefined = undefined
  next: this | undefined = undefined
  /** The rank of its flow when it was served, -1 until then. */
  rank = -1
  /** The advance of virtual time when it was served. */
  moved = 0
  /** The weight of all agents that waited when it was served. */
  among = 0

  constructor({ agent, priority, weight }: Pick<Queued, "agent" | "priority" | "weight">, cost: number) {
    this.agent = agent
    this.priority = priority
    this.weight = weight
    this.cost = cost
  }
}

/** One agent's entries of one priority. */
export class Flow<E> implements Heap.Item {
  readonly agent: string
  readonly level: Level<E>
  head: E | undefined = undefined
  tail: E | undefined = undefined
  size = 0
  /** Its part of its level's weight: the weight of the entry that was pushed when it was empty. */
  weight = 0
  /** The start tag of its head, or of the next entry if it is empty. */
  start: number
  /** The order of arrival, which breaks ties between tags. */
  rank = 0
  /** Whether its head goes before others, whatever their tags: it is small, or it is what small ones go behind. */
  isNext = false
  /** Whether its head is such a small one. */
  isSmall = false
  /** A correction of the tag, made at the next service; negative if the agent was charged too much. */
  owed = 0
  /** Whether its last entry was served, and none was pushed since. */
  isServed = false
  place = -1

  constructor(agent: string, level: Level<E>) {
    this.agent = agent
    this.level = level
    this.start = level.startOf(undefined)
  }
}

/** All flows of one priority. */
class Level<E> implements Heap.Item {
  readonly priority: number
  readonly flows = new Map<string, Flow<E>>()
  /** The flows that are not empty: those that are next, and then by (start, rank). */
  readonly heap: Array<Flow<E>> = []
  /** The sum of their weights. */
  weight = 0
  /** Virtual time, as if every service had used its whole cost. */
  virtual = 0
  /** How much less they used. */
  refunded = 0
  /** The last entry that was not small: its cost, and its end as a tag. */
  servedCost = 0
  servedEnd = 0
  /** The cost of all small ones since then. */
  smallCost = 0
  /** Empty flows are swept at this number of flows: twice those that had to stay, so that sweeping costs O(1) per call. */
  private sweepAt = firstSweep
  place = -1

  constructor(priority: number) {
    this.priority = priority
  }

  /** The start tag of an agent that does not wait: virtual time, if the agent is new. */
  startOf(flow: Flow<E> | undefined): number {
    return flow === undefined ? this.virtual - this.refunded : flow.start + flow.owed
  }

  flowOf(agent: string): Flow<E> {
    const found = this.flows.get(agent)
    if (found !== undefined) return found
    if (this.flows.size >= this.sweepAt) this.sweep()
    const flow = new Flow(agent, this)
    this.flows.set(agent, flow)
    return flow
  }

  /** Forgets the empty flows that all others have caught up with. */
  private sweep(): void {
    const now = this.heap[0]?.start ?? this.startOf(undefined)
    for (const flow of this.flows.values()) {
      if (flow.size === 0 && flow.start <= now) this.flows.delete(flow.agent)
    }
    this.sweepAt = Math.max(firstSweep, 2 * this.flows.size)
  }
}

/** The weight of one agent in the average of those that come back. */
const returnWeight = 1 / 64
/** The minimum number of flows to sweep. */
const firstSweep = 1024
/**
 * A small entry costs at most this part of the one that it goes behind. At a tenth, the later calls of an agent (14,000 tokens) go
 * before the first calls of others (150,000), which then end the job: 42 s instead of 38.
 */
const smallPart = 1 / 25
/** The cost of all small entries that go behind the same one, as a part of it. */
const smallShare = 1 / 10
/** Levels without entries are kept up to this number of levels. */
const idleLevels = 64
/** Bounds the growth of tags, so that tiny weights cannot make them infinite. */
const maxStep = 1e12

/** An entry that would be pushed now: behind its agent's other entries, or before them. */
export interface Newcomer {
  readonly agent: string
  readonly priority: number
  readonly first: boolean
  readonly weight: number
  readonly cost: number
}

/** How far `inOrder` has come in one flow. `flowAt` is the flow's place in the heap, and -1 once its head was visited. */
interface Cursor<E> extends Heap.Item, Tagged {
  owed: number
  /** Undefined at the newcomer's turn. */
  entry: E | undefined
  flowAt: number
}

interface Tagged {
  isNext: boolean
  start: number
  rank: number
}

const byTag = (a: Tagged, b: Tagged): boolean => {
  if (a.isNext !== b.isNext) return a.isNext
  return a.start < b.start || (a.start === b.start && a.rank < b.rank)
}
const byPriority = <E>(a: Level<E>, b: Level<E>): boolean => a.priority > b.priority

const stepOf = (entry: { readonly cost: number; readonly weight: number }): number =>
  Math.min(entry.cost / entry.weight, maxStep)

export class FairQueue<E extends Queued> {
  size = 0
  /** The weight of all agents that wait. */
  weight = 0
  /** The fraction of agents that push another entry after their last one was served, while others wait. */
  returning = 0
  private ranks = 0
  /** Services at a lower rank are forgotten. */
  private since = 0
  private readonly levels = new Map<number, Level<E>>()
  /** The levels with entries, highest priority first. */
  private readonly backlogged: Array<Level<E>> = []

  /** Adds an entry behind its agent's other entries, or before them. */
  push(entry: E, front = false): void {
    const level = this.levelOf(entry.priority)
    const flow = level.flowOf(entry.agent)
    if (flow.size === 0) {
      if (flow.isServed) this.returning += returnWeight
      flow.isServed = false
      flow.start = Math.max(flow.start + flow.owed, level.heap[0]?.start ?? 0)
      flow.owed = 0
      flow.rank = this.ranks++
      flow.isNext = flow.isSmall = isSmall(level, flow.start, entry)
      if (flow.isSmall) {
        level.heap[0]!.isNext = true
        level.smallCost += entry.cost
      }
    }
    this.link(flow, entry, front)
  }

  /** The entry that is served next. */
  peek(): E | undefined {
    return this.backlogged[0]?.heap[0]!.head
  }

  /** Removes an entry that is served, and charges its agent. */
  serve(entry: E): void {
    const flow = entry.flow!
    const level = flow.level
    entry.rank = flow.rank
    // A small one moves no virtual time: its tag is above those of others that still wait.
    entry.moved = flow.isSmall ? 0 : Math.min(entry.cost / Math.max(level.weight, flow.weight), maxStep)
    entry.among = this.weight
    const step = stepOf(entry)
    const start = flow.start + level.refunded
    // A flow that is added now must not start earlier than the one that is served, nor later than that one's next entry: agents that come
    // back do not count in the weight meanwhile, so virtual time would run away from their tags, and new agents would starve.
    if (!flow.isSmall) {
      level.virtual = Math.min(Math.max(level.virtual, start) + entry.moved, start + step)
      level.servedCost = entry.cost
      level.servedEnd = flow.start + step
      level.smallCost = 0
    }
    flow.isNext = flow.isSmall = false
    flow.start += step + flow.owed
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
    if (part === 1 || entry.rank < this.since) return
    const level = this.levels.get(entry.priority)
    const flow = level?.flows.get(entry.agent)
    if (level === undefined || flow === undefined) return
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

  /** Removes an entry, if it waits. */
  remove(entry: E): void {
    if (entry.flow !== undefined) this.unlink(entry.flow, entry)
  }

  /** Updates the cost of every entry. */
  reprice(cost: (entry: E) => number): void {
    for (const { heap } of this.backlogged) {
      for (const { head } of heap) {
        for (let entry = head; entry !== undefined; entry = entry.next) entry.cost = cost(entry)
      }
    }
  }

  /** Forgets what agents were served, unless anybody waits. */
  forget(): void {
    if (this.size > 0 || this.since === this.ranks) return
    this.since = this.ranks
    this.levels.clear()
  }

  /**
   * The entries in the order in which they will be served, or only those that will be served before a newcomer. It assumes that
   * `returning` of the agents whose last entry is served push another one like it, and yields that entry again for them.
   * Nothing is changed. The queue must not change during the iteration.
   */
  *inOrder(newcomer?: Newcomer, returning = 0): Generator<E, undefined> {
    for (const level of [...this.backlogged].sort((a, b) => b.priority - a.priority)) {
      if (newcomer !== undefined && level.priority < newcomer.priority) return undefined
      const joins = newcomer?.priority === level.priority ? newcomer : undefined
      if (yield* this.inLevel(level, joins, returning)) return undefined
    }
    return undefined
  }

  /** The entries of one level. Returns whether it is the newcomer's turn. */
  private *inLevel(level: Level<E>, newcomer: Newcomer | undefined, returning: number): Generator<E, boolean> {
    const own = newcomer === undefined ? undefined : level.flows.get(newcomer.agent)
    const cursors: Array<Cursor<E>> = []
    let ranks = this.ranks
    let comes = 0.5
    let isAnySmall = false
    const visit = (place: number): void => {
      const flow = level.heap[place]
      if (flow === undefined) return
      const { head, owed, rank, start } = flow
      // A newcomer that is the first of its agent replaces the agent's head.
      const isReplaced = flow === own && newcomer?.first === true
      const entry = isReplaced ? undefined : head
      const isNext = flow.isNext || (isAnySmall && place === 0)
      const cursor = { isNext, start, rank, owed, entry, flowAt: place, place: -1 }
      if (isReplaced && flow.isSmall) {
        // A small one may be replaced by a large one, so its turn may be after that of flows below it in the heap.
        cursor.isNext = false
        cursor.flowAt = -1
        visit(2 * place + 1)
        visit(2 * place + 2)
      }
      Heap.push(cursors, cursor, byTag)
    }
    if (newcomer !== undefined && isIdle(own)) {
      const start = Math.max(level.startOf(own), level.heap[0]!.start)
      isAnySmall = isSmall(level, start, newcomer)
      const turn = { isNext: isAnySmall, start, rank: ranks++, owed: 0, entry: undefined, flowAt: -1, place: -1 }
      Heap.push(cursors, turn, byTag)
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
        next.isNext = false
        next.rank = ranks++
        Heap.fix(cursors, next, byTag)
      }
    }
    return false
  }

  private levelOf(priority: number): Level<E> {
    const found = this.levels.get(priority)
    if (found !== undefined) return found
    const level = new Level<E>(priority)
    this.levels.set(priority, level)
    return level
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
    if (flow.size++ > 0) {
      if (front) this.reorder(flow)
      return
    }
    const { level } = flow
    flow.weight = entry.weight
    level.weight += entry.weight
    this.weight += entry.weight
    Heap.push(level.heap, flow, byTag)
    if (level.place < 0) Heap.push(this.backlogged, level, byPriority)
  }

  /** The head is another entry now, which need not be small, too. */
  private reorder(flow: Flow<E>): void {
    if (!flow.isSmall) return
    flow.isNext = flow.isSmall = false
    Heap.fix(flow.level.heap, flow, byTag)
  }

  private unlink(flow: Flow<E>, entry: E): void {
    if (entry.previous !== undefined) entry.previous.next = entry.next
    else flow.head = entry.next
    if (entry.next !== undefined) entry.next.previous = entry.previous
    else flow.tail = entry.previous
    const isHead = entry.previous === undefined
    entry.flow = entry.previous = entry.next = undefined
    this.size--
    if (--flow.size > 0) {
      if (isHead) this.reorder(flow)
      return
    }
    const { level } = flow
    level.weight -= flow.weight
    // Adding and subtracting fractions is not exact.
    this.weight = this.size === 0 ? 0 : this.weight - flow.weight
    Heap.remove(level.heap, flow, byTag)
    if (level.heap.length > 0) return
    Heap.remove(this.backlogged, level, byPriority)
    if (this.levels.size > idleLevels) this.levels.delete(level.priority)
  }
}

/** Whether an entry with this start tag, of an agent that does not wait, goes right behind the head. */
const isSmall = <E extends Queued>(level: Level<E>, start: number, entry: Pick<Queued, "cost" | "weight">): boolean => {
  const head = level.heap[0]
  if (head === undefined) return false
  const { cost, end } = head.isSmall
    ? { cost: level.servedCost, end: level.servedEnd }
    : { cost: head.head!.cost, end: head.start + stepOf(head.head!) }
  if (entry.cost > smallPart * cost || level.smallCost + entry.cost > smallShare * cost) return false
  // Tags are sums, and must not decide by how they were rounded.
  return start + stepOf(entry) * (1 + 1e-9) < end
}

const isIdle = (flow: { readonly size: number } | undefined): boolean => flow === undefined || flow.size === 0
