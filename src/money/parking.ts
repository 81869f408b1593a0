/**
 * Parks calls until a reset. A parked call holds nothing, stands in no line and has no timer of its own. When its time comes, calls go on
 * in the order in which they were parked, a few at a time, so that their pool paces them and its queue stays short.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { constVoid } from "effect/Function"
import * as Heap from "../admission/heap.ts"
import type { CallOwner } from "../admission/fairQueue.ts"
import type { Wake } from "../line/waker.ts"

/**
 * A call that is parked until a reset, without what it sends.
 *
 * @stability unstable
 * @category models
 * @since 0.5.0
 */
export interface ParkedCall {
  /** It identifies the call for `Governor.unpark`. */
  readonly id: string
  readonly agent: string
  readonly job: string | undefined
  readonly model: string
  /** The account of its window, a hash; undefined if it has none. */
  readonly account: string | undefined
  /** Since when and until when, in milliseconds since the epoch. */
  readonly since: number
  readonly until: number
  /** Why it is parked. */
  readonly message: string
}

/** The windows of an account, which one call tries now and then while they are spent. */
interface Tried {
  readonly triesAt: number
}

/** Why and until when a call is parked. */
interface ParkedFor<E extends Error> {
  readonly error: E
  readonly until: number
  /** The spent windows that it may try; undefined if it is parked for something else. */
  readonly tries: Tried | undefined
  /** Whether it only waits for its turn, behind calls that were parked. */
  readonly isDue: boolean
  /** Whether it may go on earlier without anybody telling. */
  readonly isReviewed: boolean
}

/** Calls a function after so many milliseconds. Returns a function that prevents it. */
export type AfterMillis = (millis: number, run: () => void) => () => void

/** Makes an {@link AfterMillis} that sleeps in fibers. */
export const afterBy =
  (fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>): AfterMillis =>
  (millis, run) => {
    const fiber = fork(Effect.andThen(Effect.sleep(millis), Effect.sync(run)))
    return () => fiber.interruptUnsafe()
  }

/** More calls are refused as if they did not park. */
const maxParked = 100_000
/** So many calls go on at a time, until their pools have admitted them. */
const maxGoing = 100
/** The shortest time, in milliseconds: clocks differ, so a reset may be a moment later than it seems. */
const minMillis = 1_000
/** The clock is read this often, because it goes on while the machine sleeps. */
const maxMillis = 60_000

const before = (one: ParkingPlace, other: ParkingPlace): boolean =>
  one.owner.priority === other.owner.priority ? one.order < other.order : one.owner.priority > other.owner.priority

/** The place of a call from the first time on that it is parked, so that it keeps its turn if that happens again. */
export class ParkingPlace implements Heap.Item {
  place = -1
  state: "parked" | "due" | "going" | "gone" = "gone"
  parkedFor!: ParkedFor<Error>
  resume!: (isCancelled: boolean) => void
  since = 0
  /** When it is its turn at the latest. */
  at = 0
  readonly order: number
  readonly owner: CallOwner
  readonly model: string
  readonly account: string | undefined
  private readonly parking: Parking

  constructor(parking: Parking, order: number, owner: CallOwner, model: string, account: string | undefined) {
    this.parking = parking
    this.order = order
    this.owner = owner
    this.model = model
    this.account = account
  }

  /** Waits for its turn after a time, or until more room is found in the windows. Fails with the error if it is cancelled. */
  park<E extends Error>(parkedFor: ParkedFor<E>): Effect.Effect<void, E> {
    return Effect.callback((resume) => {
      this.parkedFor = parkedFor
      this.resume = (isCancelled) => resume(isCancelled ? Effect.fail(parkedFor.error) : Effect.void)
      this.parking.enter(this)
      return Effect.sync(() => this.leave())
    })
  }

  /** Lets the next one go on, because this one was admitted or has ended. */
  leave(): void {
    if (this.state !== "gone") this.parking.leave(this)
  }
}

export class Parking {
  private readonly now: () => number
  private readonly after: AfterMillis
  private readonly wake: Wake
  private readonly all = new Map<number, ParkingPlace>()
  /** Those whose time has come, a heap. */
  private readonly due: Array<ParkingPlace> = []
  private going = 0
  private orders = 0
  private turnAt = Infinity
  private stop: () => void = constVoid

  constructor(now: () => number, after: AfterMillis, wake: Wake) {
    this.now = now
    this.after = after
    this.wake = wake
  }

  get isFull(): boolean {
    return this.all.size >= maxParked
  }

  /** Whether a call is parked that these windows may let go on. */
  waitsFor(windows: Tried): boolean {
    for (const { parkedFor } of this.all.values()) if (parkedFor.tries === windows) return true
    return false
  }

  /** Whether calls that were parked before wait for their turns. Later ones stay behind them. */
  get hasDue(): boolean {
    return this.due.length > 0
  }

  place(owner: CallOwner, model: string, account: string | undefined): ParkingPlace {
    return new ParkingPlace(this, ++this.orders, owner, model, account)
  }

  enter(place: ParkingPlace): void {
    place.leave()
    const now = this.now()
    const { isDue, isReviewed, tries, until } = place.parkedFor
    place.state = "parked"
    place.since ||= now
    // An operator may raise a cap, or reset what was spent of it.
    const at = isReviewed ? Math.min(until, now + maxMillis) : until
    place.at = Math.max(at, now + minMillis)
    this.all.set(place.order, place)
    if (isDue) {
      this.rouse(place)
      return this.next()
    }
    this.turnWithin(Math.min(place.at, Math.max(tries?.triesAt ?? Infinity, now + minMillis)) - now)
  }

  leave(place: ParkingPlace): void {
    const wasGoing = place.state === "going"
    place.state = "gone"
    this.all.delete(place.order)
    if (place.place >= 0) Heap.remove(this.due, place, before)
    if (wasGoing) {
      this.going--
      this.next()
    }
    if (this.all.size === 0) {
      this.stop()
      this.turnAt = Infinity
    }
  }

  /** Lets all go on that are parked for these windows, because they have more room. */
  opened(windows: Tried): void {
    for (const place of this.all.values()) if (place.parkedFor.tries === windows) this.rouse(place)
    this.next()
  }

  /** Ends a call with the reason why it was parked. Returns false if it is not parked. */
  cancel(id: string): boolean {
    const place = this.all.get(Number(id))
    if (place === undefined || place.state === "going") return false
    place.leave()
    this.wake(() => place.resume(true))
    return true
  }

  get status(): ReadonlyArray<ParkedCall> {
    return Array.from(this.all.values())
      .filter(({ state }) => state !== "going")
      .sort((one, other) => (before(one, other) ? -1 : 1))
      .map(({ account, model, order, owner, parkedFor, since }) => ({
        id: String(order),
        agent: owner.agent,
        job: owner.job,
        model,
        account,
        since,
        until: parkedFor.until,
        message: parkedFor.error.message
      }))
  }

  private rouse(place: ParkingPlace): void {
    if (place.state !== "parked") return
    place.state = "due"
    Heap.push(this.due, place, before)
  }

  private next(): void {
    while (this.going < maxGoing && this.due.length > 0) {
      const place = this.due[0]!
      Heap.remove(this.due, place, before)
      place.state = "going"
      this.going++
      this.wake(() => place.resume(false))
    }
  }

  private turnWithin(millis: number): void {
    const now = this.now()
    const at = now + Math.min(millis, maxMillis)
    if (at >= this.turnAt) return
    this.stop()
    this.turnAt = at
    this.stop = this.after(at - now, this.turn)
  }

  private readonly turn = (): void => {
    this.turnAt = Infinity
    this.stop = constVoid
    const now = this.now()
    /** The first of each account that may try its windows. */
    const trying = new Map<Tried, ParkingPlace>()
    let nextAt = Infinity
    for (const place of this.all.values()) {
      if (place.state !== "parked") continue
      const { tries } = place.parkedFor
      if (place.at <= now) {
        this.rouse(place)
        continue
      }
      nextAt = Math.min(nextAt, place.at)
      if (tries === undefined) continue
      if (tries.triesAt > now) nextAt = Math.min(nextAt, tries.triesAt)
      else {
        const first = trying.get(tries)
        if (first === undefined || before(place, first)) trying.set(tries, place)
      }
    }
    for (const place of trying.values()) this.rouse(place)
    this.next()
    // If the first one has left before it tried, another does.
    if (trying.size > 0) nextAt = now
    if (nextAt < Infinity) this.turnWithin(Math.max(minMillis, nextAt - now))
  }
}
