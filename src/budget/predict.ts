/**
 * When calls start, if all of them use what was estimated and nothing fails: the step of the pool is played ahead, on a copy
 * of the law and in the order of the queue.
 */
import type { FairQueue } from "../admission/fairQueue.ts"
import * as Law from "../admission/law.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import type { Entry, Queueing } from "./entry.ts"

/** No more callers than this are played: those behind them wait at least as long. */
const maxPlayed = 1_000
/** So many callers are played one by one, and then groups of this part of all that went before. */
const oneByOne = 32
/** A wait that does not end within so many looks has no end: a limit is too small to ever hold the charge. */
const maxLooks = 64
const noPlace: Law.Blocked = { millis: Infinity, dimension: undefined }

/** What a call may wait for: a limit, a place among the calls in flight, or the end of a pause. */
export type Obstacle = Limits.Dimension | "concurrency" | "pause"

/** What is known of a pool. */
export interface Scene {
  readonly law: Law.Pool
  readonly now: number
  /** The most calls in flight. */
  readonly most: number
  /** The calls of this process that are in flight. Others are those of other processes. */
  readonly running: Iterable<Pick<Entry, "ticket">>
}

/** A call ends; that of another process has no ticket here. */
interface End {
  readonly at: number
  readonly ticket: Law.Ticket | undefined
}

/**
 * When the calls in flight end. Those of which that is not known, because they take longer than usual or are those of other
 * processes, end evenly within the time of an answer.
 */
const endsOf = ({ law, now, running }: Scene): Array<End> => {
  const { answerMillis, inFlight } = law
  const ends: Array<End> = []
  const late: Array<Law.Ticket> = []
  for (const { ticket } of running) {
    const at = ticket!.at + answerMillis
    if (at > now) ends.push({ at, ticket })
    else late.push(ticket!)
  }
  const others = Math.max(late.length, inFlight - ends.length)
  for (let i = 0; i < others; i++) ends.push({ at: now + ((i + 0.5) / others) * answerMillis, ticket: late[i] })
  return ends.sort((a, b) => a.at - b.at)
}

/** A pool that is played ahead. */
class Play {
  readonly law: Law.Pool
  private readonly most: number
  private readonly answerMillis: number
  /** The ends of calls in order, and how many of them are over; undefined where nothing waits for them. */
  private readonly ends: Array<End> | undefined
  private over = 0
  at: number
  /** What was waited for last. */
  obstacle: Obstacle | undefined = undefined

  constructor(scene: Scene) {
    const { law, most, now } = scene
    this.law = Law.copy(law)
    this.most = most
    this.answerMillis = law.answerMillis
    this.at = now
    const isBounded = Math.min(most, law.window.size) < Infinity || law.gate.misses > 1
    this.ends = isBounded ? endsOf(scene) : undefined
  }

  /** A call enters as soon as it may, and `calls` in all with it, which take `sum`. False if a quota no longer holds it. */
  enter(charge: Amounts.Whole, sum = charge, calls = 1): boolean {
    for (let i = 1; i < calls; i++) {
      this.awaitPlace()
      this.law.inFlight++
      this.ends?.push({ at: this.at + this.answerMillis, ticket: undefined })
    }
    for (let looks = 0; looks < maxLooks; looks++) {
      this.awaitPlace()
      const blocked = Law.decide(this.law, charge, this.at)
      if (blocked === undefined) break
      if (blocked.millis === Infinity && blocked.dimension !== undefined) return false
      this.wait(blocked, this.law.inFlight >= this.law.window.size ? "concurrency" : "pause")
    }
    const ticket = Law.take(this.law, sum, this.at)
    this.ends?.push({ at: this.at + this.answerMillis, ticket })
    return true
  }

  private awaitPlace(): void {
    this.happen()
    while (this.law.inFlight >= this.most && this.nextEnd < Infinity) this.wait(noPlace, "concurrency")
  }

  private get nextEnd(): number {
    return this.ends?.[this.over]?.at ?? Infinity
  }

  /** As the pool does, it looks again after whole milliseconds, and when a call ends that may make room. */
  private wait({ dimension, millis }: Law.Blocked, by: Obstacle): void {
    const until = Math.min(this.at + Math.ceil(millis), dimension === undefined ? this.nextEnd : Infinity)
    if (until === Infinity) return
    this.obstacle = dimension ?? by
    this.at = until
    this.happen()
  }

  /** Ends the calls that are over by now. */
  private happen(): void {
    for (; this.nextEnd <= this.at; this.over++) {
      const { at, ticket } = this.ends![this.over]!
      if (ticket === undefined) this.law.inFlight--
      else {
        Law.accept(this.law, ticket)
        Law.settle(this.law, ticket, ticket.charge, at)
      }
    }
  }
}

/** A caller that waits, and for how long still. */
export interface Expected {
  readonly waiter: Entry
  readonly expectedMillis: number
  readonly dimension: Limits.Dimension | undefined
}

export const dimensionOf = (obstacle: Obstacle | undefined): Limits.Dimension | undefined =>
  obstacle === "concurrency" || obstacle === "pause" ? undefined : obstacle

/** The first callers in the order of service. */
export const first = (scene: Scene, waiters: Iterable<Entry>, count: number): ReadonlyArray<Expected> => {
  const play = new Play(scene)
  const found: Array<Expected> = []
  for (const waiter of waiters) {
    if (found.length === Math.min(count, maxPlayed)) break
    play.obstacle = undefined
    play.enter(waiter.charge)
    const dimension = dimensionOf(play.obstacle) ?? waiter.binding
    found.push({ waiter, expectedMillis: play.at - scene.now, dimension })
  }
  return found
}

/** How long a caller waits, and for what last. */
export interface Foreseen {
  readonly millis: number
  readonly obstacle: Obstacle | undefined
  /** The law at its turn, where a quota no longer holds it then. */
  readonly exhausted: Law.Pool | undefined
  /** Whether there are callers before it that were not played. */
  readonly isLowerBound: boolean
}

/** A caller that would come now. */
export const newcomer = (scene: Scene, queue: FairQueue<Entry>, charge: Amounts.Whole, how: Queueing): Foreseen => {
  const play = new Play(scene)
  let played = 0
  let group: Array<Entry> = []
  let isLowerBound = false
  for (const waiter of queue.inOrder(how)) {
    isLowerBound = played === maxPlayed
    if (isLowerBound) break
    played++
    group.push(waiter)
    if (group.length < played / oneByOne) continue
    enter(play, group)
    group = []
  }
  enter(play, group)
  const exhausted = play.enter(charge) ? undefined : play.law
  return { millis: play.at - scene.now, obstacle: play.obstacle, exhausted, isLowerBound }
}

/** Callers enter with the first of them. */
const enter = (play: Play, [head, ...others]: ReadonlyArray<Entry>): void => {
  if (head === undefined) return
  if (others.length === 0) return void play.enter(head.charge)
  const sum = { ...head.charge }
  for (const { charge } of others) for (const each of Amounts.dimensions) sum[each] += charge[each]
  play.enter(head.charge, sum, others.length + 1)
}
