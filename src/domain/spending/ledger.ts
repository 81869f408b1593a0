/**
 * What was spent of one cap, and what is reserved for running calls. Pure, and changed in place. Amounts are whole billionths of
 * a dollar, so that sums are exact; times are milliseconds since the epoch.
 */

/** The number of units in a dollar. */
export const perDollar = 1e9

/** The period of a cap. */
export type Period =
  | { readonly _tag: "Ever" }
  /** From midnight to midnight, UTC. */
  | { readonly _tag: "Day" }
  /** Any period of this length. */
  | { readonly _tag: "Window"; readonly millis: number }

/** What was spent in one part of the period. */
interface Cell {
  /** When it no longer counts. */
  ends: number
  amount: number
}

/**
 * The state of a purse, to be stored when its process ends. Amounts are in billionths of a dollar.
 *
 * @category models
 * @since 0.2.0
 */
export interface Kept {
  readonly total: number
  /** `ends` is when an amount no longer counts; null for an amount that always counts. */
  readonly cells: ReadonlyArray<{ readonly ends: number | null; readonly amount: number }>
}

const dayMillis = 86_400_000
/** An amount counts for the window, and up to a sixtieth of it longer. */
const cellsInWindow = 60

const lengthOf = (period: Period): number => {
  if (period._tag === "Ever") return Infinity
  return period._tag === "Day" ? dayMillis : period.millis
}

export class Ledger {
  limit: number
  period: Period
  /** What is reserved for running calls. */
  held = 0
  /** All that was spent, in any period. */
  total = 0
  private counted = 0
  private readonly cells: Array<Cell> = []

  constructor(limit: number, period: Period, kept?: Kept) {
    this.limit = limit
    this.period = period
    this.total = kept?.total ?? 0
    for (const { amount, ends } of kept?.cells ?? []) this.put(ends ?? Infinity, amount)
  }

  /** When an amount that is spent now no longer counts. */
  endOf(now: number): number {
    const { period } = this
    if (period._tag === "Ever") return Infinity
    if (period._tag === "Day") return (Math.floor(now / dayMillis) + 1) * dayMillis
    const cell = Math.ceil(period.millis / cellsInWindow)
    return (Math.floor(now / cell) + 1) * cell + period.millis
  }

  /** What was spent in the period. */
  spent(now: number): number {
    // However far the clock was set back, or how long the period was before, it counts for two periods at most.
    const latest = this.endOf(now) + lengthOf(this.period)
    for (let last = this.cells.length; last > 0 && this.cells[last - 1]!.ends > latest; last--) {
      this.cells[last - 1]!.ends = latest
    }
    while (this.cells.length > 0 && this.cells[0]!.ends <= now) this.counted -= this.cells.shift()!.amount
    return this.counted
  }

  spend(amount: number, now: number): void {
    this.spent(now)
    this.total += amount
    if (amount > 0) this.put(this.endOf(now), amount)
  }

  /** A clock that was set back makes what is spent count longer, not shorter. */
  private put(ends: number, amount: number): void {
    this.counted += amount
    const last = this.cells.at(-1)
    if (last !== undefined && last.ends >= ends) last.amount += amount
    else this.cells.push({ ends, amount })
  }

  /** When the next amount no longer counts; undefined if never. */
  nextEnd(now: number): number | undefined {
    if (this.period._tag === "Ever") return undefined
    if (this.period._tag === "Day") return this.endOf(now)
    this.spent(now)
    return this.cells[0]?.ends
  }

  /** When this amount fits if nothing else is spent until then; undefined if never. */
  fitsAt(amount: number, now: number): number | undefined {
    let spent = this.spent(now)
    if (spent + amount <= this.limit) return now
    for (const { amount: freed, ends } of this.cells) {
      spent -= freed
      if (spent + amount <= this.limit) return ends === Infinity ? undefined : ends
    }
    return undefined
  }

  get kept(): Kept {
    return {
      total: this.total,
      cells: this.cells.map(({ amount, ends }) => ({ ends: ends < Infinity ? ends : null, amount }))
    }
  }
}
