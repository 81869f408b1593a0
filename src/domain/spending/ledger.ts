/**
 * The spending under one cap, and the reservations of running calls. Pure, and changed in place. Amounts are whole billionths
 * of a dollar, so that sums are exact; times are milliseconds since the epoch.
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

/** A cap as a ledger counts it. */
export interface CapInUnits {
  readonly limit: number
  readonly period: Period
  /** Whether the most that a call can cost is reserved, or what it is expected to cost. */
  readonly reserve: "most" | "expected"
}

/** What was spent in one part of the period. */
interface SpentCell {
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
/** A window is counted in this many parts, so an amount counts up to a sixtieth of the window longer. */
const cellsInWindow = 60

const ever: Period = { _tag: "Ever" }

const lengthOf = (period: Period): number => {
  if (period._tag === "Ever") return Infinity
  return period._tag === "Day" ? dayMillis : period.millis
}

export class Ledger {
  /** Infinite without a cap. */
  limit: number
  private period: Period
  /** The amount that is reserved for running calls. */
  held = 0
  /** The amount that was ever spent. */
  total: number
  /** The amount that was spent in the period, as of the last look. */
  private counted = 0
  /** Ordered by their end. */
  private readonly cells: Array<SpentCell> = []

  constructor(cap: CapInUnits | undefined, kept?: Kept) {
    this.limit = cap?.limit ?? Infinity
    this.period = cap?.period ?? ever
    this.total = kept?.total ?? 0
    for (const { amount, ends } of kept?.cells ?? []) this.put(ends ?? Infinity, amount)
  }

  /** Changes the cap. Earlier amounts still count, for at most two of the new periods. */
  resize(cap: CapInUnits | undefined): void {
    this.limit = cap?.limit ?? Infinity
    this.period = cap?.period ?? ever
  }

  /** When an amount that is spent now no longer counts. */
  private endOf(now: number): number {
    const { period } = this
    if (period._tag === "Ever") return Infinity
    if (period._tag === "Day") return (Math.floor(now / dayMillis) + 1) * dayMillis
    const cell = Math.ceil(period.millis / cellsInWindow)
    return (Math.floor(now / cell) + 1) * cell + period.millis
  }

  /** The amount that was spent in the period. */
  spent(now: number): number {
    // After a clock was set back or the period was shortened, an amount counts for at most two periods.
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

  /** Adds to the last cell if that ends later, which happens after a clock was set back: the amount then counts longer. */
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
