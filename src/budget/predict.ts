/**
 * When calls start, if all of them use what was estimated and nothing fails: the step of the pool is played ahead, on a copy
 * of the law and in the order of the queue.
 */
import * as Ahead from "../pacing/ahead.ts"
import type { FairQueue } from "../admission/fairQueue.ts"
import * as Law from "../pacing/law.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import type { Entry, Queueing } from "./entry.ts"

/** No more callers than this are played: those behind them wait at least as long. */
const maxPlayed = 1_000
/** So many callers are played one by one, and then groups of this part of all that went before. */
const oneByOne = 32
/** A wait that does not end within so many looks has no end: a limit is too small to ever hold the charge. */
const maxLooks = 256
const noPlace: Ahead.Wait = { by: "concurrency", millis: Infinity }

/** What is known of a pool. */
export interface Scene {
  readonly law: Law.Pacer
  readonly now: number
  /** The most calls in flight. */
  readonly most: number
  /** The calls of this process that are in flight. Others are those of other processes. */
  readonly running: Iterable<Pick<Entry, "ticket">>
}

/**
 * When the calls in flight end, in order. Those of which that is not known, because they take longer than usual or are those
 * of other processes, end evenly within the time of an answer.
 */
const endsOf = ({ law, now, running }: Scene): Array<number> => {
  const { answerMillis, inFlight } = law
  const ends: Array<number> = []
  for (const { ticket } of running) if (ticket!.at + answerMillis > now) ends.push(ticket!.at + answerMillis)
  const others = inFlight - ends.length
  for (let i = 0; i < others; i++) ends.push(now + ((i + 0.5) / others) * answerMillis)
  return ends.sort((a, b) => a - b)
}

/** A pool that is played ahead. */
class Play {
  readonly law: Law.Pacer
  private readonly maxInFlight: number
  private readonly answerMillis: number
  /** The ends of calls in order, and how many of them are over; undefined where nothing waits for them. */
  private readonly ends: Array<number> | undefined
  private over = 0
  at: number
  /** What was waited for last. */
  obstacle: Ahead.Obstacle | undefined = undefined

  constructor(scene: Scene) {
    const { law, most, now } = scene
    this.law = Ahead.copy(law)
    this.maxInFlight = most
    this.answerMillis = law.answerMillis
    this.at = now
    this.ends = Math.min(most, law.window.size) < Infinity ? endsOf(scene) : undefined
  }

  /** A call enters as soon as it may. False if a quota no longer holds it. */
  enter(charge: Amounts.Whole): boolean {
    for (let looks = 0; looks < maxLooks; looks++) {
      this.happen()
      const answer = Ahead.admit(this.law, this.maxInFlight, charge, this.at)
      if ("at" in answer) {
        this.ends?.push(this.at + this.answerMillis)
        return true
      }
      if (Ahead.exhaustedBy(answer) !== undefined) return false
      if (!this.wait(answer)) break
    }
    this.force(charge, 1)
    return true
  }

  /** Lets calls enter whatever the limits say, and charges them together. The next call waits until their debt is paid. */
  force(charge: Amounts.Whole, calls: number): void {
    const { inFlight } = this.law
    Law.take(this.law, charge, this.at)
    this.law.inFlight = inFlight
    for (let i = 0; i < calls; i++) {
      this.happen()
      while (this.law.inFlight >= this.maxInFlight && this.wait(noPlace)) this.happen()
      this.law.inFlight++
      this.ends?.push(this.at + this.answerMillis)
    }
  }

  /** The end of a call may make room, or the time comes. False if neither does. */
  private wait({ by, millis }: Ahead.Wait): boolean {
    const end = by === "concurrency" || by === "pause" ? this.nextEnd : Infinity
    const until = Math.min(this.at + millis, end)
    if (until === Infinity) return false
    this.obstacle = by
    this.at = until
    return true
  }

  private get nextEnd(): number {
    return this.ends?.[this.over] ?? Infinity
  }

  /** Ends the calls that are over by now. They used what was estimated, so nothing is given back. */
  private happen(): void {
    for (; this.nextEnd <= this.at; this.over++) this.law.inFlight--
  }
}

/** A caller that waits, and for how long still. */
export interface Expected {
  readonly waiter: Entry
  readonly expectedMillis: number
  readonly dimension: Limits.Dimension | undefined
}

export const dimensionOf = (obstacle: Ahead.Obstacle | undefined): Limits.Dimension | undefined =>
  obstacle === "concurrency" || obstacle === "pause" ? undefined : obstacle

/** The first callers in the order of service. */
export const first = (scene: Scene, queue: FairQueue<Entry>, count: number): ReadonlyArray<Expected> => {
  const play = new Play(scene)
  const found = new Map<Entry, Expected>()
  let played = 0
  for (const waiter of queue.inOrder(undefined, queue.returning)) {
    if (found.size === Math.min(count, queue.size) || played++ === maxPlayed) break
    play.obstacle = undefined
    play.enter(waiter.charge)
    if (found.has(waiter)) continue
    const dimension = dimensionOf(play.obstacle) ?? waiter.binding
    found.set(waiter, { waiter, expectedMillis: play.at - scene.now, dimension })
  }
  return [...found.values()]
}

/** How long a caller waits, and for what last. */
export interface Foreseen {
  readonly millis: number
  readonly obstacle: Ahead.Obstacle | undefined
  /** The law at its turn, where a quota no longer holds it then. */
  readonly exhausted: Law.Pacer | undefined
  /** Whether there are callers before it that were not played. */
  readonly isLowerBound: boolean
}

/** A caller that would come now. */
export const newcomer = (scene: Scene, queue: FairQueue<Entry>, charge: Amounts.Whole, how: Queueing): Foreseen => {
  const play = new Play(scene)
  let played = 0
  let group: Array<Entry> = []
  let isLowerBound = false
  for (const waiter of queue.inOrder(how, queue.returning)) {
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
  play.enter(head.charge)
  if (others.length === 0) return
  const sum = { ...Amounts.nothing }
  for (const { charge } of others) for (const each of Amounts.dimensions) sum[each] += charge[each]
  play.force(sum, others.length)
}
