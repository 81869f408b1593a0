/** Plays the order in which the entries of a level will be served, without changing anything. */
import { byTag, type CostlyCall, type Flow, type Group, type Level, type Tagged } from "./flows.ts"
import * as Heap from "./heap.ts"

/** An entry that would be pushed now: behind its agent's other entries, or before them. */
export interface Newcomer extends CostlyCall {
  readonly first: boolean
}

/** A call in the list of its agent. */
interface QueuedCall<E extends CostlyCall> extends CostlyCall {
  readonly flow: Flow<E> | undefined
  readonly next: E | undefined
}

/** State that the groups of a level share. */
interface Playing<E extends QueuedCall<E>> {
  /** The flow of the newcomer's agent. */
  readonly own: Flow<E> | undefined
  /** How many of the agents whose last entry is served push another one like it. */
  readonly returning: number
  /** How many are due to do so. */
  due: number
  /** The rank of the next service. */
  rank: number
}

/** How far a group's order has come in one flow. `flowAt` is the flow's place in the heap, and -1 once its first entry was visited. */
interface Cursor<E extends QueuedCall<E>> extends Heap.Item, Tagged {
  owed: number
  readonly inner: GroupOrder<E> | undefined
  /** An agent's next entry; undefined at the newcomer's turn. */
  entry: E | undefined
  flowAt: number
}

/** The order within a group, and within what is inside it. */
class GroupOrder<E extends QueuedCall<E>> {
  private readonly playing: Playing<E>
  private readonly group: Group<E>
  private readonly newcomer: Newcomer | undefined
  /** The flow of these that the newcomer belongs to. */
  private readonly own: Flow<E> | undefined
  private readonly keepsHead: boolean = false
  readonly cursors: Array<Cursor<E>> = []

  constructor(playing: Playing<E>, group: Group<E>, newcomer: Newcomer | undefined) {
    this.playing = playing
    this.group = group
    this.newcomer = newcomer
    this.own = newcomer && group.find(newcomer)
    if (newcomer !== undefined && (this.own === undefined || this.own.place < 0)) {
      const start = group.entering(this.own, newcomer)
      const isNext = group.isSmall(start, newcomer)
      this.keepsHead = isNext || group.keepsHead
      const rank = playing.rank++
      const turn = { isNext, start, rank, owed: 0, entry: undefined, inner: undefined }
      Heap.push(this.cursors, { ...turn, flowAt: -1, place: -1 }, byTag)
    }
    this.visit(0)
  }

  private visit(place: number): void {
    const { group, newcomer, own, playing } = this
    const flow = group.heap[place]
    if (flow === undefined) return
    const { head, inner, owed, rank, small, start } = flow
    // A newcomer that is the first of its agent replaces the agent's head.
    const isReplaced = flow === own && newcomer?.first === true
    const cursor: Cursor<E> = {
      isNext: flow.isNext || (this.keepsHead && place === 0),
      start,
      rank,
      owed,
      entry: isReplaced ? undefined : head,
      inner: inner && new GroupOrder(playing, inner, flow === own ? newcomer : undefined),
      flowAt: place,
      place: -1
    }
    if (isReplaced && small !== undefined && small.flow === playing.own) {
      // A small one may be replaced by a large one, so its turn may be after that of flows below it in the heap.
      cursor.isNext = false
      cursor.flowAt = -1
      this.visitBelow(place)
    }
    Heap.push(this.cursors, cursor, byTag)
  }

  private visitBelow(place: number): void {
    this.visit(2 * place + 1)
    this.visit(2 * place + 2)
  }

  /** The next entry; undefined at the newcomer's turn, or if none is left. */
  take(): E | undefined {
    const { cursors, group, playing } = this
    const next = cursors[0]
    const entry = next?.inner === undefined ? next?.entry : next.inner.take()
    if (next === undefined || entry === undefined) return undefined
    if (next.flowAt >= 0) this.visitBelow(next.flowAt)
    next.flowAt = -1
    if (this.goesOn(next, entry)) {
      group.passed(next, group.stepOf(entry))
      next.isNext = false
      next.rank = playing.rank++
      Heap.fix(cursors, next, byTag)
    } else Heap.remove(cursors, next, byTag)
    return entry
  }

  /** Whether a flow has another entry after one that is served. */
  private goesOn(cursor: Cursor<E>, entry: E): boolean {
    const { playing } = this
    if (cursor.inner !== undefined) return cursor.inner.cursors.length > 0
    if (entry.next !== undefined || entry.flow === playing.own) {
      cursor.entry = entry.next
      return true
    }
    playing.due += playing.returning
    if (playing.due < 1) return false
    playing.due--
    return true
  }
}

/** The entries of a level in the order of service, up to the newcomer's turn if there is one. */
export function* orderOf<E extends QueuedCall<E>>(
  level: Level<E>,
  newcomer: Newcomer | undefined,
  returning: number,
  rank: number
): Generator<E, undefined> {
  const own = newcomer && level.find(newcomer)
  const order = new GroupOrder({ own, returning, due: 0.5, rank }, level.callers, newcomer)
  for (let entry = order.take(); entry !== undefined; entry = order.take()) yield entry
  return undefined
}
