/**
 * Start-time fair queueing (Goyal, Vin, Cheng 1996) with the virtual time of WF2Q+ (Bennett, Zhang 1997), for one group of flows: the
 * callers of a priority, the jobs of a caller, or the agents of a job.
 *
 * A flow carries the start tag of its first entry, the lowest is served next, and serving advances the tag by cost over weight. Virtual
 * time advances with the service that the average flow gets. A new flow starts at virtual time, which grows with every call, so a stream
 * of new flows starves nobody. No flow starts before the head that is being waited for, so none overtakes it.
 *
 * One exception: a small call of a flow that did not wait goes right behind the head, not behind the large calls of everybody else, if in
 * fair order it would end before the head does. In each group, all of them together cost at most a tenth of the head, so large calls wait
 * at most a tenth longer for them, however many flows make small ones.
 */
import * as Heap from "./heap.ts"

/** Whose a call is, and what its share is. */
export interface CallOwner {
  /** First come, first served within an agent. */
  readonly agent: string
  /** The job of its agent, among those of its caller. @default each agent is a job */
  readonly job?: string | undefined
  /** @default all calls that name none have one caller */
  readonly caller?: string | undefined
  /** The share of its caller relative to other callers, > 0. @default 1 */
  readonly callerWeight?: number | undefined
  /** Higher goes first. */
  readonly priority: number
  /** The share of its agent relative to other agents of its job, > 0. Without a job, relative to other jobs of its caller. */
  readonly weight: number
  /** The share of its job relative to other jobs of its caller, > 0. @default 1 */
  readonly jobWeight?: number | undefined
  /** The tokens that its whole job will use. @default not known */
  readonly jobSize?: number | undefined
}

/** A call with the cost of serving it. */
export interface CostlyCall extends CallOwner {
  readonly cost: number
  /** The cost of the rest of its job, with itself. Only the order of ends reads it. @default not known */
  readonly left?: number | undefined
}

/** A small call costs at most this part of the one that it goes behind. At a tenth, the later calls of an agent (14,000 tokens) go
 * before the first calls of others (150,000), which then end the job: 42 s instead of 38.
 */
const smallPart = 1 / 25
/** The cost of all small calls that go behind the same one, as a part of it. */
const smallShare = 1 / 10
/** Bounds the growth of tags, so that tiny weights cannot make them infinite. */
const maxStep = 1e12
/** The minimum number of flows to sweep. */
const firstSweep = 1024

/** The place of a flow in its group's order. */
export interface Tagged {
  isNext: boolean
  start: number
  rank: number
}

export const byTag = (a: Tagged, b: Tagged): boolean => {
  if (a.isNext !== b.isNext) return a.isNext
  return a.start < b.start || (a.start === b.start && a.rank < b.rank)
}

/** The calls of one priority that an agent, a job or a caller has in the queue: an agent's in a list, the others' as a group of flows. */
export class Flow<E extends CostlyCall> implements Heap.Item, Tagged {
  readonly name: string | undefined
  readonly group: Group<E>
  /** Whose calls it has: the agents of a job, or the jobs of a caller; undefined for an agent. */
  readonly inner: Group<E> | undefined
  /** An agent's first and last call. */
  head: E | undefined = undefined
  tail: E | undefined = undefined
  /** Its part of its group's weight: that of the entry that was pushed when it was empty. */
  weight = 0
  /** The start tag of its first entry, or of the next one if it is empty. */
  start: number
  /** The order of arrival, which breaks ties between tags. */
  rank = 0
  /** Whether it goes before others, whatever their tags: its first entry is small, or small ones go behind it. */
  isNext = false
  /** Its first entry, if that is such a small one. */
  small: E | undefined = undefined
  /** A correction of the tag, made at the next service; negative if it was charged too much. */
  owed = 0
  /** Of an agent: whether its last entry was served, and none was pushed since. */
  isServed = false
  /** Its place in the heap of its group, -1 if nobody waits in it. */
  place = -1
  /** Its place in fair order, if its group has another one. */
  fair: FairPlace<E> | undefined = undefined

  constructor(name: string | undefined, group: Group<E>, inner: Grouping | undefined) {
    this.name = name
    this.group = group
    this.inner = inner === undefined ? undefined : group.level.groupOf(inner, this)
    this.start = group.startOf(undefined)
  }

  /** The entry that it is served with next. */
  get first(): E | undefined {
    if (this.inner === undefined) return this.head
    return this.inner.heap[0]?.first
  }
  /** Whether its weight is a part of the queue's: a caller's, and without a caller's name a job's. */
  get isWeighed(): boolean {
    const { parent } = this.group
    return parent === undefined ? this.name !== undefined : this.group.by === "job" && parent.name === undefined
  }
}

/** A job's place in fair order: among those that wait, or among those that do not and were served ahead of virtual time. */
export interface FairPlace<E extends CostlyCall> extends Heap.Item {
  readonly flow: Flow<E>
}

/** Makes a group inside a flow. */
export type GroupOf = <E extends CostlyCall>(by: Grouping, parent: Flow<E>) => Group<E>

/** A group's flows are callers, jobs or agents. */
export type Grouping = "caller" | "job" | "agent"

/** Flows that share service by weight. `start` of a flow is the key of their order. */
export class Group<E extends CostlyCall> {
  readonly by: Grouping
  readonly level: Level<E>
  /** The flow that these are in; undefined for callers. */
  readonly parent: Flow<E> | undefined
  /** Callers, and jobs that have a name. */
  private readonly named = new Map<string | undefined, Flow<E>>()
  /** Agents, of a job or without one. */
  private readonly agents = new Map<string, Flow<E>>()
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

  constructor(by: Grouping, level: Level<E>, parent: Flow<E> | undefined) {
    this.by = by
    this.level = level
    this.parent = parent
  }

  // ---------------------------------------------------------------------------
  // Its flows
  // ---------------------------------------------------------------------------

  /** The flow that a call belongs to. */
  find(call: CallOwner): Flow<E> | undefined {
    if (this.by === "caller") return this.named.get(call.caller)
    return this.isNamed(call) ? this.named.get(call.job) : this.agents.get(call.agent)
  }

  add(call: CallOwner): Flow<E> {
    const made = this.isNamed(call)
      ? new Flow<E>(call[this.by], this, this.by === "caller" ? "job" : "agent")
      : new Flow<E>(call.agent, this, undefined)
    if (made.inner === undefined) this.agents.set(call.agent, made)
    else this.named.set(made.name, made)
    return made
  }

  private isNamed({ job }: CallOwner): boolean {
    return this.by === "caller" || (this.by === "job" && job !== undefined)
  }

  /** The start tag of a flow that is empty: virtual time, if it is new. */
  startOf(flow: Flow<E> | undefined): number {
    return flow === undefined ? this.virtual - this.refunded : flow.start + flow.owed
  }

  /** The tag up to which flows that are empty need not be remembered. */
  get caughtUp(): number {
    return this.heap[0]?.start ?? this.startOf(undefined)
  }

  /**
   * Forgets the empty flows that all others have caught up with. Returns how many flows are left, with those inside. The caller of calls
   * that name none stays, and does not count.
   */
  sweep(): number {
    const now = this.caughtUp
    let left = 0
    for (const flows of [this.agents, this.named]) {
      for (const [name, flow] of flows) {
        if (name !== undefined && flow.place < 0 && flow.start <= now) (flows as Map<unknown, unknown>).delete(name)
        else left += (name === undefined ? 0 : 1) + (flow.inner?.sweep() ?? 0)
      }
    }
    return left
  }

  // ---------------------------------------------------------------------------
  // Service
  // ---------------------------------------------------------------------------

  /** The weight that a call gives its flow. */
  weightOf(call: CallOwner): number {
    if (this.by === "caller") return call.callerWeight ?? 1
    return this.isNamed(call) ? (call.jobWeight ?? 1) : call.weight
  }

  /** The advance of a flow's tag when a call is served. */
  stepOf(call: CostlyCall): number {
    return Math.min(call.cost / this.weightOf(call), maxStep)
  }

  /** The start tag of a flow that is empty, or new, and gets this call. */
  entering(flow: Flow<E> | undefined, _call: CostlyCall): number {
    return Math.max(this.startOf(flow), this.heap[0]?.start ?? 0)
  }

  /** A flow gets its first entry. */
  join(flow: Flow<E>, entry: E, rank: number): void {
    const head = this.heap[0]
    flow.start = this.entering(flow, entry)
    flow.owed = 0
    flow.rank = rank
    flow.weight = this.weightOf(entry)
    flow.isNext = this.isSmall(flow.start, entry)
    flow.small = undefined
    if (flow.isNext) {
      flow.small = entry
      head!.isNext = true
      this.smallCost += entry.cost
    }
    this.weight += flow.weight
    Heap.push(this.heap, flow, byTag)
  }

  /** Whether the head stays the head, whoever comes. Otherwise tags say so. */
  get keepsHead(): boolean {
    return false
  }

  /** Whether an entry with this start tag, of a flow that is empty, goes right behind the head. */
  isSmall(start: number, entry: CostlyCall): boolean {
    const head = this.heap[0]
    if (head === undefined) return false
    const cost = head.small === undefined ? head.first!.cost : this.servedCost
    if (entry.cost > smallPart * cost || this.smallCost + entry.cost > smallShare * cost) return false
    const end = head.small === undefined ? head.start + this.stepOf(head.first!) : this.servedEnd
    // Tags are sums, and must not decide by how they were rounded.
    return start + this.stepOf(entry) * (1 + 1e-9) < end
  }

  /** Charges a flow for an entry that is served. Returns by how much that advances virtual time. The heap must be told by {@link moved}. */
  charge(flow: Flow<E>, entry: E, rank: number): number {
    const step = this.stepOf(entry)
    const isSmall = flow.small !== undefined
    // A small one moves no virtual time: its tag is above those of others that still wait.
    const moved = isSmall ? 0 : Math.min(entry.cost / Math.max(this.weight, flow.weight), maxStep)
    // A flow that is added now must not start earlier than the one that is served, nor later than that one's next entry: flows that come
    // back do not count in the weight meanwhile, so virtual time would run away from their tags, and new flows would starve.
    if (!isSmall) {
      const start = flow.start + this.refunded
      this.virtual = Math.min(Math.max(this.virtual, start) + moved, start + step)
      this.servedCost = entry.cost
      this.servedEnd = flow.start + step
      this.smallCost = 0
    }
    flow.isNext = false
    flow.small = undefined
    this.passed(flow, step)
    flow.rank = rank
    return moved
  }

  /** Advances a tag by a service. */
  passed(turn: Tagged & { owed: number }, step: number): void {
    turn.start += step + turn.owed
    turn.owed = 0
  }

  /** Corrects the charge for an entry, which advanced virtual time by `moved`, and has used only `part` of its cost. */
  correct(flow: Flow<E>, entry: E, part: number, moved: number, rank: number): void {
    const step = this.stepOf(entry)
    this.refunded += (1 - part) * moved
    const owed = flow.owed + (part - 1) * step
    const head = this.heap[0]
    const earliest = flow.place < 0 ? -Infinity : head!.start
    const start = flow === head ? flow.start : Math.max(earliest, flow.start + owed)
    flow.owed = Math.max(flow.start + owed - start, -step)
    if (start === flow.start) return
    flow.start = start
    flow.rank = rank
    this.moved(flow)
  }

  /** The first entry of a flow may be another one now, which need not be small, too. */
  review(flow: Flow<E>): void {
    if (flow.small === undefined || flow.small === flow.first) return
    flow.isNext = false
    flow.small = undefined
    this.moved(flow)
  }

  /** Restores the order after a flow's tag has changed. */
  moved(flow: Flow<E>): void {
    if (flow.place >= 0) Heap.fix(this.heap, flow, byTag)
  }

  /** The last entry of a flow has left. */
  leave(flow: Flow<E>): void {
    this.weight -= flow.weight
    Heap.remove(this.heap, flow, byTag)
  }
}

/** All calls of one priority, and whose they are. */
export class Level<E extends CostlyCall> implements Heap.Item {
  readonly priority: number
  readonly callers: Group<E>
  /** Flows that are remembered. They are swept at `sweepAt`: twice those that had to stay, so that sweeping costs O(1) per call. */
  private remembered = 0
  private sweepAt = firstSweep
  place = -1
  /** The flows in a caller or a job. */
  readonly groupOf: GroupOf

  constructor(priority: number, groupOf: GroupOf) {
    this.priority = priority
    this.groupOf = groupOf
    this.callers = new Group<E>("caller", this, undefined)
  }

  /** The flow of an agent. */
  find(call: CallOwner): Flow<E> | undefined {
    let flow = this.callers.find(call)
    while (flow?.inner !== undefined) flow = flow.inner.find(call)
    return flow
  }

  /** The flow of an agent, which is made if there is none. */
  flowOf(call: CallOwner): Flow<E> {
    const found = this.find(call)
    if (found !== undefined) return found
    // Before anything is made, because a caller or a job that is empty may be swept.
    if (this.remembered >= this.sweepAt) {
      this.remembered = this.callers.sweep()
      this.sweepAt = Math.max(firstSweep, 2 * this.remembered)
    }
    for (let group = this.callers; ;) {
      let flow = group.find(call)
      if (flow === undefined) {
        flow = group.add(call)
        if (flow.name !== undefined) this.remembered++
      }
      if (flow.inner === undefined) return flow
      group = flow.inner
    }
  }
}
