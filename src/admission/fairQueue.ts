/**
 * A queue that is strict by priority, fair by weight between callers, then between the jobs of a caller, then between the agents of a
 * job, and first come, first served within an agent. An agent without a job is one by itself.
 *
 * Each of the three is start-time fair queueing, as `flows.ts` has it. What a caller, a job or an agent was served is remembered while
 * anybody waits, so that those who make one call at a time also share by cost. Pushing, serving and removing cost O(log flows). The queue
 * is changed in place.
 */
import { Ends } from "./ends.ts"
import { type CallOwner, type CostlyCall, type Flow, Group, type GroupOf, Level } from "./flows.ts"
import * as Heap from "./heap.ts"
import { type Newcomer, orderOf } from "./serviceOrder.ts"

export type { CallOwner } from "./flows.ts"
export type { Newcomer } from "./serviceOrder.ts"

/** A call that can stand in a queue. The fields from `flow` on belong to the queue. */
export class Queued implements CostlyCall {
  readonly agent: string
  readonly job: string | undefined
  readonly caller: string | undefined
  readonly callerWeight: number
  readonly priority: number
  readonly weight: number
  readonly jobWeight: number
  /** The cost of serving it, above 0 while it waits, in the same unit for all entries. */
  cost: number
  /** The flow of its agent, in which it stands; undefined if it does not wait. */
  flow: Flow<this> | undefined = undefined
  previous: this | undefined = undefined
  next: this | undefined = undefined
  /** The rank of its flow when it was served, -1 until then. */
  rank = -1
  /** The advance of virtual time when it was served: of its agent's group first, and of its caller's last. */
  moved: ReadonlyArray<number> = []
  /** The weight of the queue when it was served. */
  among = 0

  constructor({ agent, caller, callerWeight = 1, job, jobWeight = 1, priority, weight }: CallOwner, cost: number) {
    this.agent = agent
    this.job = job
    this.caller = caller
    this.callerWeight = callerWeight
    this.priority = priority
    this.weight = weight
    this.jobWeight = jobWeight
    this.cost = cost
  }

  get left(): number | undefined {
    return undefined
  }

  /** The weight of a queue in which it waits alone. */
  get alone(): number {
    if (this.caller !== undefined) return this.callerWeight
    return this.job === undefined ? this.weight : this.jobWeight
  }
}

/** The weight of one agent in the average of those that come back. */
const returnWeight = 1 / 64
/** Levels without entries are kept up to this number of levels. */
const idleLevels = 64

const byPriority = <E extends Queued>(a: Level<E>, b: Level<E>): boolean => a.priority > b.priority

export class FairQueue<E extends Queued> {
  size = 0
  /** The weight of all who wait: of callers, and of the jobs of calls without a caller. */
  weight = 0
  /** The fraction of agents that push another entry after their last one was served, while others wait. */
  returning = 0
  private ranks = 0
  /** Services at a lower rank are forgotten. */
  private since = 0
  private readonly levels = new Map<number, Level<E>>()
  /** The levels with entries, highest priority first. */
  private readonly backlogged: Array<Level<E>> = []
  private readonly groupOf: GroupOf

  /** With a `fairPart`, the jobs of a caller go in the order of their virtual ends, and this part of the service in fair order. */
  constructor(fairPart?: number) {
    this.groupOf = (by, parent) =>
      by === "job" && fairPart !== undefined ? new Ends(parent, fairPart) : new Group(by, parent.group.level, parent)
  }

  /** Adds an entry behind its agent's other entries, or before them. */
  push(entry: E, front = false): void {
    const level = this.levelOf(entry.priority)
    const line = level.flowOf(entry)
    if (line.isServed) this.returning += returnWeight
    line.isServed = false
    entry.flow = line
    entry.previous = front ? undefined : line.tail
    entry.next = front ? line.head : undefined
    if (entry.previous !== undefined) entry.previous.next = entry
    else line.head = entry
    if (entry.next !== undefined) entry.next.previous = entry
    else line.tail = entry
    this.size++
    for (let flow: Flow<E> | undefined = line; flow !== undefined; flow = flow.group.parent) {
      if (flow.place >= 0) flow.group.review(flow)
      else {
        flow.group.join(flow, entry, this.ranks++)
        if (flow.isWeighed) this.weight += flow.weight
      }
    }
    if (level.place < 0) Heap.push(this.backlogged, level, byPriority)
  }

  /** The entry that is served next. */
  peek(): E | undefined {
    return this.backlogged[0]?.callers.heap[0]!.first
  }

  /** Removes an entry that is served, and charges its agent, its job and its caller. */
  serve(entry: E): void {
    const line = entry.flow!
    const moved: Array<number> = []
    entry.rank = line.rank
    entry.moved = moved
    entry.among = this.weight
    for (let flow: Flow<E> | undefined = line; flow !== undefined; flow = flow.group.parent)
      moved.push(flow.group.charge(flow, entry, this.ranks++))
    this.unlink(line, entry)
    for (let flow: Flow<E> | undefined = line; flow !== undefined; flow = flow.group.parent) flow.group.moved(flow)
    if (line.head !== undefined) return
    line.isServed = true
    this.returning *= 1 - returnWeight
  }

  /**
   * An entry that was served has used only `part` of its cost: 0 if it used nothing after all, more than 1 if its cost was
   * estimated too low. The tags of its agent, job and caller are corrected at once, but not so far that one would overtake the head that
   * is being waited for; its next service corrects the rest. Each is owed at most one call, so one that failed many times does not get as
   * many calls at once while everybody else waits. Nothing is corrected for an entry that was not served by this queue, or before the
   * queue forgot.
   */
  correct(entry: E, part: number): void {
    if (part === 1 || entry.rank < this.since) return
    let flow = this.levels.get(entry.priority)?.callers.find(entry)
    for (let i = entry.moved.length - 1; flow !== undefined; i--) {
      flow.group.correct(flow, entry, part, entry.moved[i]!, this.ranks++)
      flow = flow.inner?.find(entry)
    }
  }

  /** Removes an entry, if it waits. */
  remove(entry: E): void {
    if (entry.flow !== undefined) this.unlink(entry.flow, entry)
  }

  /** Updates the cost of every entry. */
  reprice(cost: (entry: E) => number): void {
    const inFlow = ({ head, inner }: Flow<E>): void => {
      inner?.heap.forEach(inFlow)
      for (let entry = head; entry !== undefined; entry = entry.next) entry.cost = cost(entry)
    }
    for (const { callers } of this.backlogged) callers.heap.forEach(inFlow)
  }

  /** Forgets who was served, unless anybody waits. */
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
      yield* orderOf(level, joins, returning, this.ranks)
      if (joins !== undefined) return undefined
    }
    return undefined
  }

  /** The part of the service that a call's job gets, beside those of its priority that wait. */
  shareOf(call: CallOwner): number {
    let share = 1
    let group: Group<E> | undefined = this.levels.get(call.priority)?.callers
    while (group !== undefined && group.by !== "agent") {
      const flow = group.find(call)
      const weight = group.weightOf(call)
      share *= weight / (group.weight + (flow !== undefined && flow.place >= 0 ? 0 : weight))
      group = flow?.inner
    }
    return share
  }

  private levelOf(priority: number): Level<E> {
    const found = this.levels.get(priority)
    if (found !== undefined) return found
    const level = new Level<E>(priority, this.groupOf)
    this.levels.set(priority, level)
    return level
  }

  private unlink(line: Flow<E>, entry: E): void {
    if (entry.previous !== undefined) entry.previous.next = entry.next
    else line.head = entry.next
    if (entry.next !== undefined) entry.next.previous = entry.previous
    else line.tail = entry.previous
    entry.flow = entry.previous = entry.next = undefined
    this.size--
    for (let flow: Flow<E> | undefined = line; flow !== undefined; flow = flow.group.parent) {
      if (flow.first !== undefined) flow.group.review(flow)
      else {
        flow.group.leave(flow)
        if (flow.isWeighed) this.weight -= flow.weight
      }
    }
    // Adding and subtracting fractions is not exact.
    if (this.size === 0) this.weight = 0
    const { level } = line.group
    if (level.callers.heap.length > 0) return
    Heap.remove(this.backlogged, level, byPriority)
    if (this.levels.size > idleLevels) this.levels.delete(level.priority)
  }
}
