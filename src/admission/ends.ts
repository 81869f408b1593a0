/**
 * The order of virtual ends, for the jobs of a caller: the job goes first that would end first if jobs shared the service fairly.
 *
 * A job's end is its fair start plus what is left of it, by weight, and stays where it is while the job is served. A job of unknown size,
 * or one that has exceeded its size, is served fairly: each of its calls is a job by itself. Virtual time is that of a fluid fair queue
 * (Parekh, Gallager 1993): a job that was served ahead of its share counts in it, until the others have caught up.
 *
 * If all sizes are right, no job ends later than in that fluid queue plus one call: until virtual time reaches its end, service goes only
 * to jobs with earlier ends, and to others no more than the fluid queue gives them. A part of the service goes to the job with the lowest
 * fair start instead, if it is behind its fair share, so that one whose stated size is too large still advances. That keeps the bound.
 *
 * What waits as the head stays the head, however early the end of a job that comes.
 */
import { byTag, type CostlyCall, type FairPlace, type Flow, Group, type Tagged } from "./flows.ts"
import * as Heap from "./heap.ts"

/** The fair start of a flow. What `start`, the key of the order, is more than that is owed to it. */
const fairStart = <E extends CostlyCall>({ owed, start }: Flow<E>): number => start + owed

const byStart = <E extends CostlyCall>(one: FairPlace<E>, other: FairPlace<E>): boolean =>
  fairStart(one.flow) < fairStart(other.flow)

export class Ends<E extends CostlyCall> extends Group<E> {
  /** The part of the service that stays in fair order. */
  private readonly fairPart: number
  /** The jobs that wait, and those that do not wait and were served ahead of virtual time; by fair start. */
  private readonly waiting: Array<FairPlace<E>> = []
  private readonly ahead: Array<FairPlace<E>> = []
  private aheadWeight = 0
  /** The service that is due in fair order. */
  private due = 0

  constructor(parent: Flow<E>, fairPart: number) {
    super("job", parent.group.level, parent)
    this.fairPart = fairPart
  }

  override get caughtUp(): number {
    return this.startOf(undefined)
  }

  override isSmall(): boolean {
    return false
  }

  override get keepsHead(): boolean {
    return true
  }

  override entering(flow: Flow<E> | undefined, call: CostlyCall): number {
    const start = Math.max(flow === undefined ? -Infinity : fairStart(flow), this.startOf(undefined))
    return start + this.restOf(call)
  }

  /** The rest of a call's job, as an advance of its tag. */
  private restOf(call: CostlyCall): number {
    return Math.max(call.cost, call.left ?? 0) / this.weightOf(call)
  }

  override join(flow: Flow<E>, entry: E, rank: number): void {
    const place = (flow.fair ??= { flow, place: -1 })
    if (place.place >= 0) this.lag(place)
    const start = Math.max(fairStart(flow), this.startOf(undefined))
    flow.start = start + this.restOf(entry)
    flow.owed = start - flow.start
    flow.rank = rank
    flow.weight = this.weightOf(entry)
    flow.isNext = false
    this.keepHead()
    this.weight += flow.weight
    Heap.push(this.heap, flow, byTag)
    Heap.push(this.waiting, place, byStart)
  }

  /** Whoever is waited for as the head goes next. */
  private keepHead(): void {
    const head = this.heap[0]
    if (head !== undefined) head.isNext = true
  }

  override charge(flow: Flow<E>, entry: E): number {
    const moved = this.advance(entry.cost)
    if (this.waiting[0]!.flow === flow) this.due = Math.max(0, this.due - entry.cost)
    this.due += this.fairPart * entry.cost
    flow.isNext = false
    flow.owed += this.stepOf(entry)
    return moved
  }

  /** Advances virtual time by a service, and returns by how much. Jobs that it catches up with do not count any longer. */
  private advance(cost: number): number {
    const from = this.virtual
    for (let left = cost; left > 0;) {
      const weight = this.weight + this.aheadWeight
      const first = this.ahead[0]
      const need = first === undefined ? Infinity : Math.max(0, first.flow.start - this.startOf(undefined)) * weight
      this.virtual += Math.min(left, need) / weight
      left -= need
      if (left >= 0) this.lag(first!)
    }
    return this.virtual - from
  }

  private lag(place: FairPlace<E>): void {
    this.aheadWeight -= place.flow.weight
    Heap.remove(this.ahead, place, byStart)
    if (this.ahead.length === 0) this.aheadWeight = 0
  }

  override moved(flow: Flow<E>): void {
    if (flow.place >= 0) this.place(flow, Math.max(flow.start, fairStart(flow) + this.stepOf(flow.first!)))
    this.takeTurn()
  }

  /** Gives a job that waits another end. */
  private place(flow: Flow<E>, end: number): void {
    flow.owed += flow.start - end
    flow.start = end
    Heap.fix(this.heap, flow, byTag)
    Heap.fix(this.waiting, flow.fair!, byStart)
  }

  override passed(turn: Tagged & { owed: number }, step: number): void {
    turn.owed += step
    const late = turn.owed + step
    if (late <= 0) return
    turn.start += late
    turn.owed = -step
  }

  /** Lets the job go next that is behind in fair order, if that is due. */
  private takeTurn(): void {
    const flow = this.waiting[0]?.flow
    if (flow === undefined || this.heap[0]!.isNext) return
    const first = flow.first!
    if (this.due < first.cost) return
    this.due = first.cost
    if (fairStart(flow) > this.startOf(undefined)) return
    flow.isNext = true
    Heap.fix(this.heap, flow, byTag)
  }

  override correct(flow: Flow<E>, entry: E, part: number, moved: number): void {
    this.refunded += (1 - part) * moved
    // It is never served as if it had waited before virtual time.
    const start = fairStart(flow)
    const corrected = Math.max(start + (part - 1) * this.stepOf(entry), Math.min(start, this.startOf(undefined)))
    flow.owed += corrected - start
    this.keepHead()
    if (flow.place >= 0) this.place(flow, corrected + this.restOf(flow.first!))
    else this.rest(flow)
  }

  override leave(flow: Flow<E>): void {
    super.leave(flow)
    flow.isNext = false
    Heap.remove(this.waiting, flow.fair!, byStart)
    this.rest(flow)
  }

  /** Keeps the place of a job that does not wait, if it was served ahead of virtual time. */
  private rest(flow: Flow<E>): void {
    const place = flow.fair!
    if (place.place >= 0) this.lag(place)
    flow.start = fairStart(flow)
    flow.owed = 0
    if (flow.start <= this.startOf(undefined)) return
    this.aheadWeight += flow.weight
    Heap.push(this.ahead, place, byStart)
  }
}
