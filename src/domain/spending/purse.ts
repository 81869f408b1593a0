/**
 * Purses, and how calls reserve from them: from all of their purses at once, or from none. Changed in place; no clock and no
 * Effect.
 *
 * A call that would exceed a cap beside what was spent is refused. One that would exceed it only beside the reservations of running
 * calls waits for them, first come, first served. It waits for one purse at a time, so that it does not keep the others from
 * calls that fit. If it has had its turn in several of them in vain, all of them wait for it.
 */
import { type Kept, Ledger, perDollar, type Period } from "./ledger.ts"

/** The internal form of a cap. */
export interface Keeping {
  readonly limit: number
  readonly period: Period
  /** Whether the most that a call can cost is reserved, or what it is expected to cost. */
  readonly reserve: "most" | "expected"
}

/**
 * The status of a purse, in dollars.
 *
 * @category models
 * @since 0.2.0
 */
export interface Status {
  /** In the period of the cap. */
  readonly spent: number
  /** In all. */
  readonly total: number
  /** What is reserved for running calls. */
  readonly held: number
  /** What is left of the cap, `held` included; undefined without a cap. */
  readonly left: number | undefined
  /** When the period ends, or the first part of its window, in milliseconds since the epoch; undefined if never. */
  readonly until: number | undefined
  /** The number of calls to models without a price, which are in none of these sums. */
  readonly unpriced: number
}

/** A call that waits. */
export interface Waiter {
  readonly bill: Bill
  readonly woken: () => void
  /** The purse that it waits for, and how often it had its turn in one while another was full. */
  at: Purse
  missed: number
  /** The result of its wait. */
  outcome: Payment | Refused | undefined
}

const ever: Period = { _tag: "Ever" }

export class Purse {
  readonly name: string
  keeping: Keeping | undefined
  readonly ledger: Ledger
  readonly waiting = new Set<Waiter>()
  /** A waiter that all others wait for, because it has missed too many turns. */
  favoured: Waiter | undefined = undefined
  /** The number of calls to models without a price. */
  unpriced = 0
  private readonly changed: (() => void) | undefined

  constructor(name: string, keeping: Keeping | undefined, kept?: Kept, changed?: () => void) {
    this.name = name
    this.keeping = keeping
    this.ledger = new Ledger(keeping?.limit ?? Infinity, keeping?.period ?? ever, kept)
    this.changed = changed
  }

  /** What was spent in all, in dollars. */
  get total(): number {
    return this.ledger.total / perDollar
  }

  /** The waiter whose turn it is. */
  get next(): Waiter | undefined {
    return this.favoured ?? this.waiting.values().next().value
  }

  /** The amount that is reserved for a call. */
  amountOf({ expected, most }: Bill): number {
    return this.keeping?.reserve === "most" ? most : expected
  }

  /** Keeps another cap from now on. What was spent before counts as long as it would have, for two of its periods at most. */
  resize(keeping: Keeping | undefined, now: number): void {
    this.keeping = keeping
    this.ledger.limit = keeping?.limit ?? Infinity
    this.ledger.period = keeping?.period ?? ever
    drain(this, now)
  }

  status(now: number): Status {
    const { keeping, ledger, unpriced } = this
    const spent = ledger.spent(now)
    return {
      spent: spent / perDollar,
      total: ledger.total / perDollar,
      held: ledger.held / perDollar,
      left: keeping === undefined ? undefined : Math.max(0, keeping.limit - spent) / perDollar,
      until: ledger.nextEnd(now),
      unpriced
    }
  }

  notify(): void {
    this.changed?.()
  }
}

/** What a governor charges of a public purse. */
export const internalsOf = (purse: { readonly internals: unknown }): Purse => purse.internals as Purse

/** The costs of a call, and the purses that pay. */
export interface Bill {
  readonly purses: ReadonlyArray<Purse>
  /** Infinite if nothing limits it. */
  readonly most: number
  readonly expected: number
}

/** A cap is reached. */
export interface Refused {
  readonly _tag: "Refused"
  readonly purse: Purse
  readonly asked: number
  readonly left: number
  /** When the call would fit; undefined if never. */
  readonly until: number | undefined
}

/** The reservation for a call. */
export class Payment {
  readonly _tag = "Payment"
  /** The amount that is reserved in each of the purses. */
  private readonly amounts: ReadonlyMap<Purse, number>
  private isOpen = true

  constructor(bill: Bill) {
    this.amounts = new Map(bill.purses.map((purse) => [purse, purse.amountOf(bill)]))
    for (const [purse, amount] of this.amounts) purse.ledger.held += amount
  }

  /** Tells the owners of its purses, who may come back to them: all sums must be right by now. */
  notify(): void {
    for (const purse of this.amounts.keys()) purse.notify()
  }

  /**
   * Replaces the reservation by what was spent; undefined if that is unknown, so that all of it may be. Only the first call has an
   * effect.
   */
  settle(spent: number | undefined, now: number): void {
    if (!this.isOpen) return
    this.isOpen = false
    for (const [purse, amount] of this.amounts) {
      purse.ledger.held -= amount
      purse.ledger.spend(spent ?? amount, now)
    }
    this.notify()
    for (const purse of this.amounts.keys()) drain(purse, now)
  }
}

/** What prevents a reservation: a cap, or a purse whose running calls must end first. */
const obstacle = (bill: Bill, now: number, self: Waiter | undefined): Refused | Purse | undefined => {
  for (const purse of bill.purses) {
    const { ledger } = purse
    const asked = purse.amountOf(bill)
    const spent = ledger.spent(now)
    if (spent + asked <= ledger.limit) continue
    const left = Math.max(0, ledger.limit - spent)
    return { _tag: "Refused", purse, asked, left, until: ledger.fitsAt(asked, now) }
  }
  for (const purse of bill.purses) {
    const { ledger, next } = purse
    if (next !== undefined && next !== self) return purse
    if (ledger.spent(now) + ledger.held + purse.amountOf(bill) > ledger.limit) return purse
  }
  return undefined
}

/** Reserves at once, or returns the cap that refuses the call or the purse to wait for. */
export const take = (bill: Bill, now: number): Payment | Refused | Purse => {
  const obstructed = obstacle(bill, now, undefined)
  if (obstructed !== undefined) return obstructed
  const payment = new Payment(bill)
  payment.notify()
  return payment
}

/** Waits for a purse. */
export const wait = (bill: Bill, at: Purse, woken: () => void): Waiter => {
  const waiter: Waiter = { bill, woken, at, missed: 0, outcome: undefined }
  at.waiting.add(waiter)
  return waiter
}

/** Releases what a waiter has reserved, or its place in the queue. */
export const leave = (waiter: Waiter, now: number): void => {
  if (waiter.outcome?._tag === "Payment") waiter.outcome.settle(0, now)
  else if (waiter.at.waiting.has(waiter)) for (const purse of remove(waiter)) drain(purse, now)
}

/** Removes a waiter. Returns the purses in which others may have waited for it. */
const remove = (waiter: Waiter): ReadonlySet<Purse> => {
  const { at, bill } = waiter
  at.waiting.delete(waiter)
  const kept = bill.purses.filter(({ favoured }) => favoured === waiter)
  for (const purse of kept) purse.favoured = undefined
  return new Set([at, ...kept])
}

/** The number of turns that a waiter misses before all of its purses wait for it. */
const mostMissed = 3

/** Lets a waiter wait for another purse. Only one waiter may keep a purse from others, or two could keep each other waiting. */
const move = (waiter: Waiter, to: Purse): void => {
  waiter.at.waiting.delete(waiter)
  to.waiting.add(waiter)
  waiter.at = to
  waiter.missed++
  const capped = waiter.bill.purses.filter(({ keeping }) => keeping !== undefined)
  if (waiter.missed < mostMissed || capped.some(({ favoured }) => favoured !== undefined)) return
  for (const purse of capped) purse.favoured = waiter
}

/** Serves the waiters of a purse, as far as possible. */
const drain = (purse: Purse, now: number): void => {
  for (let waiter = purse.next; waiter !== undefined; waiter = purse.next) {
    const outcome = obstacle(waiter.bill, now, waiter) ?? new Payment(waiter.bill)
    if (outcome === purse || (outcome instanceof Purse && waiter === purse.favoured)) return
    if (outcome instanceof Purse) move(waiter, outcome)
    else {
      waiter.outcome = outcome
      const freed = remove(waiter)
      waiter.woken()
      if (outcome instanceof Payment) outcome.notify()
      for (const other of freed) if (other !== purse) drain(other, now)
    }
  }
}
