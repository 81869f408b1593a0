/**
 * The state of purses, and how calls reserve from them: from all of their purses at once, or from none. Changed in place; no clock
 * and no Effect.
 *
 * A call is refused if its reservation and what was already spent exceed a cap. It waits if only the reservations of running
 * calls are in the way, first come, first served. It waits for one purse at a time, so that calls that pay only from its other
 * purses go ahead. After it has missed its turn several times because another purse was full, all of its purses wait for it.
 */
import { type CapInUnits, type Kept, Ledger, perDollar } from "./ledger.ts"

/**
 * The status of a purse, in dollars.
 *
 * @category models
 * @since 0.2.0
 */
export interface Status {
  /** What was spent in the period of the cap. */
  readonly spent: number
  /** What was spent in all. */
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
  /** The purse that it waits for. */
  at: PurseState
  /** How many turns it has missed because another of its purses was full. */
  missed: number
  /** Set when its wait has ended. */
  outcome: Payment | CapRefusal | undefined
}

/** The ledger of a purse, and the calls that wait for it. */
export class PurseState {
  readonly name: string
  cap: CapInUnits | undefined
  readonly ledger: Ledger
  readonly waiting = new Set<Waiter>()
  /** A waiter that all others wait for, because it has missed too many turns. */
  favoured: Waiter | undefined = undefined
  /** The number of calls to models without a price. */
  unpriced = 0
  private readonly changed: (() => void) | undefined

  constructor(name: string, cap: CapInUnits | undefined, kept?: Kept, changed?: () => void) {
    this.name = name
    this.cap = cap
    this.ledger = new Ledger(cap, kept)
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
  amountOf({ expected, max }: Bill): number {
    return this.cap?.reserve === "most" ? max : expected
  }

  /** Changes the cap, and lets waiting calls go that fit now. */
  resize(cap: CapInUnits | undefined, now: number): void {
    this.cap = cap
    this.ledger.resize(cap)
    drain(this, now)
  }

  status(now: number): Status {
    const { cap, ledger, unpriced } = this
    const spent = ledger.spent(now)
    return {
      spent: spent / perDollar,
      total: ledger.total / perDollar,
      held: ledger.held / perDollar,
      left: cap === undefined ? undefined : Math.max(0, cap.limit - spent) / perDollar,
      until: ledger.nextEnd(now),
      unpriced
    }
  }

  notify(): void {
    this.changed?.()
  }
}

/** The state of a purse in its public form. */
export const internalsOf = (purse: { readonly internals: unknown }): PurseState => purse.internals as PurseState

/** What a call may cost, and the purses that pay. */
export interface Bill {
  readonly purses: ReadonlyArray<PurseState>
  /** Infinite if nothing limits the output of the call. */
  readonly max: number
  readonly expected: number
}

/** A cap is reached. */
export interface CapRefusal {
  readonly _tag: "CapRefusal"
  readonly purse: PurseState
  readonly asked: number
  readonly left: number
  /** When the call would fit; undefined if never. */
  readonly until: number | undefined
}

/** What a call has reserved. */
export class Payment {
  readonly _tag = "Payment"
  /** The amount that is reserved in each of the purses. */
  private readonly amounts: ReadonlyMap<PurseState, number>
  private isOpen = true

  constructor(bill: Bill) {
    this.amounts = new Map(bill.purses.map((purse) => [purse, purse.amountOf(bill)]))
    for (const [purse, amount] of this.amounts) purse.ledger.held += amount
  }

  /** Notifies the owners of its purses. They may read them at once, so all sums must be right before. */
  notify(): void {
    for (const purse of this.amounts.keys()) purse.notify()
  }

  /**
   * Replaces the reservation by the cost, or spends all of it if the cost is unknown. Only the first call has an effect.
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

/** What prevents a reservation: a cap that is reached, or a purse whose running calls must end first. */
const obstacle = (bill: Bill, now: number, self: Waiter | undefined): CapRefusal | PurseState | undefined => {
  for (const purse of bill.purses) {
    const { ledger } = purse
    const asked = purse.amountOf(bill)
    const spent = ledger.spent(now)
    if (spent + asked <= ledger.limit) continue
    const left = Math.max(0, ledger.limit - spent)
    return { _tag: "CapRefusal", purse, asked, left, until: ledger.fitsAt(asked, now) }
  }
  for (const purse of bill.purses) {
    const { ledger, next } = purse
    if (next !== undefined && next !== self) return purse
    if (ledger.spent(now) + ledger.held + purse.amountOf(bill) > ledger.limit) return purse
  }
  return undefined
}

/** Reserves at once, or returns the refusal or the purse to wait for. */
export const take = (bill: Bill, now: number): Payment | CapRefusal | PurseState => {
  const obstructed = obstacle(bill, now, undefined)
  if (obstructed !== undefined) return obstructed
  const payment = new Payment(bill)
  payment.notify()
  return payment
}

/** Waits for a purse. */
export const wait = (bill: Bill, at: PurseState, woken: () => void): Waiter => {
  const waiter: Waiter = { bill, woken, at, missed: 0, outcome: undefined }
  at.waiting.add(waiter)
  return waiter
}

/** Ends a wait: gives back what the waiter has reserved, or its place in the queue. */
export const leave = (waiter: Waiter, now: number): void => {
  if (waiter.outcome?._tag === "Payment") waiter.outcome.settle(0, now)
  else if (waiter.at.waiting.has(waiter)) for (const purse of remove(waiter)) drain(purse, now)
}

/** Removes a waiter from its purses, and returns those in which others may have waited for it. */
const remove = (waiter: Waiter): ReadonlySet<PurseState> => {
  const { at, bill } = waiter
  at.waiting.delete(waiter)
  const favouring = bill.purses.filter(({ favoured }) => favoured === waiter)
  for (const purse of favouring) purse.favoured = undefined
  return new Set([at, ...favouring])
}

/** The number of turns that a waiter misses before all of its purses wait for it. */
const maxMissed = 3

/** Lets a waiter wait for another purse. A purse favours one waiter at most, because two could keep each other waiting. */
const move = (waiter: Waiter, to: PurseState): void => {
  waiter.at.waiting.delete(waiter)
  to.waiting.add(waiter)
  waiter.at = to
  waiter.missed++
  const capped = waiter.bill.purses.filter(({ cap }) => cap !== undefined)
  if (waiter.missed < maxMissed || capped.some(({ favoured }) => favoured !== undefined)) return
  for (const purse of capped) purse.favoured = waiter
}

/** Serves the waiters of a purse in order, until one of them has to go on waiting for it. */
const drain = (purse: PurseState, now: number): void => {
  for (let waiter = purse.next; waiter !== undefined; waiter = purse.next) {
    const outcome = obstacle(waiter.bill, now, waiter) ?? new Payment(waiter.bill)
    if (outcome === purse || (outcome instanceof PurseState && waiter === purse.favoured)) return
    if (outcome instanceof PurseState) move(waiter, outcome)
    else {
      waiter.outcome = outcome
      const freed = remove(waiter)
      waiter.woken()
      if (outcome instanceof Payment) outcome.notify()
      for (const other of freed) if (other !== purse) drain(other, now)
    }
  }
}
