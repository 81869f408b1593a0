/**
 * Purses, and how calls take from them: from all of theirs at once, or from none. Changed in place; no clock and no Effect.
 *
 * A call that would pass a cap with what was spent is refused. One that would pass it only with what calls that run may still
 * spend waits for them, first come, first served.
 */
import { type Kept, Ledger, perDollar, type Period } from "./ledger.ts"

/** How a cap is kept. */
export interface Keeping {
  readonly limit: number
  readonly period: Period
  /** Whether calls count with the most that they can cost, or with what is expected of them. */
  readonly reserve: "most" | "expected"
}

/**
 * What a purse spent, in dollars.
 *
 * @category models
 * @since 0.2.0
 */
export interface Status {
  /** In the period of the cap. */
  readonly spent: number
  /** In all. */
  readonly total: number
  /** What calls that run may still spend. */
  readonly held: number
  /** What is left of the cap, `held` included; undefined without one. */
  readonly left: number | undefined
  /** When the period ends, or the first part of its window, in milliseconds since the epoch; undefined where never. */
  readonly until: number | undefined
  /** Calls of models without a price: they are in none of these sums. */
  readonly unpriced: number
}

/** A call that waits. */
export interface Waiter {
  readonly bill: Bill
  readonly woken: () => void
  /** The purse that it waits for. */
  at: Purse
  /** What came of it. */
  outcome: Payment | Refused | undefined
}

const ever: Period = { _tag: "Ever" }

export class Purse {
  readonly name: string
  keeping: Keeping | undefined
  readonly ledger: Ledger
  readonly waiting = new Set<Waiter>()
  /** Calls whose model has no price. */
  unpriced = 0
  private readonly changed: (() => void) | undefined

  constructor(name: string, keeping: Keeping | undefined, kept?: Kept, changed?: () => void) {
    this.name = name
    this.keeping = keeping
    this.ledger = new Ledger(keeping?.limit ?? Infinity, keeping?.period ?? ever, kept)
    this.changed = changed
  }

  /** What a call counts here while it runs. */
  amountOf({ expected, most }: Bill): number {
    return this.keeping?.reserve === "most" ? (most ?? expected) : expected
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

  tell(): void {
    this.changed?.()
  }
}

/** The implementation of each public purse. */
export const behind = new WeakMap<object, Purse>()

/** What was spent of a purse that users have, in dollars. */
export const totalOf = (purse: object): number => (behind.get(purse)?.ledger.total ?? 0) / perDollar

/** What a call may cost, and who pays. */
export interface Bill {
  readonly purses: ReadonlyArray<Purse>
  /** Undefined where nothing limits it. */
  readonly most: number | undefined
  readonly expected: number
}

/** A cap is reached. */
export interface Refused {
  readonly _tag: "Refused"
  readonly purse: Purse
  readonly asked: number
  readonly left: number
  /** When the call would fit; undefined where never. */
  readonly until: number | undefined
}

/** What was taken for a call. */
export class Payment {
  readonly _tag = "Payment"
  private readonly bill: Bill
  /** What each of the purses holds for it. */
  private readonly amounts: ReadonlyArray<number>
  private isOpen = true

  constructor(bill: Bill) {
    this.bill = bill
    this.amounts = bill.purses.map((purse) => purse.amountOf(bill))
    for (const [index, purse] of bill.purses.entries()) {
      purse.ledger.held += this.amounts[index]!
      purse.tell()
    }
  }

  /** What it is expected to cost. */
  get expected(): number {
    return this.bill.expected
  }

  /** Replaces what is held by what was spent. The first wins. */
  settle(spent: number, now: number): void {
    if (!this.isOpen) return
    this.isOpen = false
    for (const [index, purse] of this.bill.purses.entries()) {
      purse.ledger.held -= this.amounts[index]!
      purse.ledger.spend(spent, now)
      purse.tell()
    }
    for (const purse of this.bill.purses) drain(purse, now)
  }
}

/** What keeps a call from being paid: a cap, or a purse whose calls must end first. */
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
    const { ledger, waiting } = purse
    const [head] = waiting
    if (head !== undefined && head !== self) return purse
    if (ledger.spent(now) + ledger.held + purse.amountOf(bill) > ledger.limit) return purse
  }
  return undefined
}

/** Takes at once, or says why not: a cap, or a purse to wait for. */
export const take = (bill: Bill, now: number, self?: Waiter): Payment | Refused | Purse =>
  obstacle(bill, now, self) ?? new Payment(bill)

/** Waits for a purse. */
export const wait = (bill: Bill, at: Purse, woken: () => void): Waiter => {
  const waiter: Waiter = { bill, woken, at, outcome: undefined }
  at.waiting.add(waiter)
  return waiter
}

/** Gives up: what it has, or its place. */
export const leave = (waiter: Waiter, now: number): void => {
  if (waiter.outcome?._tag === "Payment") waiter.outcome.settle(0, now)
  else if (waiter.at.waiting.delete(waiter)) drain(waiter.at, now)
}

/** Lets those go on that wait for a purse, as far as they can. */
const drain = (purse: Purse, now: number): void => {
  for (const waiter of purse.waiting) {
    const outcome = take(waiter.bill, now, waiter)
    if (outcome === purse) return
    purse.waiting.delete(waiter)
    if (outcome instanceof Purse) {
      waiter.at = outcome
      outcome.waiting.add(waiter)
    } else {
      waiter.outcome = outcome
      waiter.woken()
    }
  }
}
