/**
 * Spending under a cap in dollars, as immutable values. Amounts are whole billionths of a dollar, so that sums are exact;
 * times are milliseconds since the epoch.
 */

import * as Months from "./months.ts"

/** The number of units in a dollar. */
export const perDollar = 1e9

/** The unit in which a ledger counts. */
export type Unit = "dollars" | "tokens" | "calls"

/** How many whole amounts of a ledger are one of its unit. */
export const perUnit: Readonly<Record<Unit, number>> = { dollars: perDollar, tokens: 1, calls: 1 }

/** The period of a cap. */
export type Period =
  | { readonly _tag: "Ever" }
  /** From midnight to midnight, UTC. */
  | { readonly _tag: "Day" }
  /** From a day of the month to the same day of the next. */
  | ({ readonly _tag: "Month" } & Months.Month)
  /** Any period of this length. */
  | { readonly _tag: "Window"; readonly millis: number }

/** A cap as a ledger counts it. The limit of a ledger without a cap is infinite. */
export interface CapInUnits {
  readonly limit: number
  readonly period: Period
  /** Whether the most that a call can cost is reserved, or what it is expected to cost. */
  readonly reserve: "most" | "expected"
}

/** The terms by which spending is counted without a cap. */
export const uncapped: CapInUnits = { limit: Infinity, period: { _tag: "Ever" }, reserve: "expected" }

/**
 * The state of a purse, to store when its process ends. Amounts are in billionths of a dollar.
 *
 * @stability stable
 * @category models
 * @since 0.2.0
 */
export interface Kept {
  readonly total: number
  /** `ends` is when an amount no longer counts; null for an amount that always counts. */
  readonly cells: ReadonlyArray<{ readonly ends: number | null; readonly amount: number }>
}

/** The total that was ever spent, and the parts that may still count, ordered by their end. */
export type Account = Kept

/** The amount spent in one part of the period. */
type SpentCell = Kept["cells"][number]

export const nothing: Account = { total: 0, cells: [] }

const dayMillis = 86_400_000
/** A month has 31 days at most, and an hour more where clocks are put back. */
const longestMonth = 32 * dayMillis
/** A window is counted in this many parts, so an amount counts up to a sixtieth of the window longer. */
const cellsInWindow = 60

const lengthOf = (period: Period): number => {
  if (period._tag === "Ever") return Infinity
  if (period._tag === "Month") return longestMonth
  return period._tag === "Day" ? dayMillis : period.millis
}

/** The time when an amount that is spent now no longer counts. */
const endOf = (period: Period, now: number): number => {
  if (period._tag === "Ever") return Infinity
  if (period._tag === "Day") return (Math.floor(now / dayMillis) + 1) * dayMillis
  if (period._tag === "Month") return Months.endOf(period, now)
  const cell = Math.ceil(period.millis / cellsInWindow)
  return (Math.floor(now / cell) + 1) * cell + period.millis
}

/**
 * The latest time until which any amount counts. After a clock was set back or the period was shortened, an amount counts for at
 * most two periods.
 */
const latestEnd = (period: Period, now: number): number => endOf(period, now) + lengthOf(period)

const timeOf = ({ ends }: SpentCell): number => ends ?? Infinity

/** The amount that was spent in the period. */
export const spent = ({ cells }: Account, now: number): number => {
  let sum = 0
  for (const cell of cells) if (timeOf(cell) > now) sum += cell.amount
  return sum
}

/** Adds an amount that no longer counts from `ends` on. If a later part exists, it is added there, and counts longer. */
const put = (cells: ReadonlyArray<SpentCell>, ends: number, amount: number): ReadonlyArray<SpentCell> => {
  const last = cells.at(-1)
  if (last === undefined || timeOf(last) < ends) return [...cells, { ends: ends < Infinity ? ends : null, amount }]
  return cells.with(cells.length - 1, { ends: last.ends, amount: last.amount + amount })
}

/** Drops the parts that no longer count. */
export const tidy = (account: Account, period: Period, now: number): Account => {
  const latest = latestEnd(period, now)
  if (account.cells.every((cell) => timeOf(cell) > now && timeOf(cell) <= latest)) return account
  const cells = account.cells
    .filter((cell) => timeOf(cell) > now)
    .map((cell) => (timeOf(cell) <= latest ? cell : { ends: latest, amount: cell.amount }))
  return { total: account.total, cells }
}

/** Spends an amount, or gives back a negative one. */
export const spend = (account: Account, amount: number, period: Period, now: number): Account => {
  const total = account.total + amount
  const { cells } = tidy(account, period, now)
  if (amount > 0) return { total, cells: put(cells, endOf(period, now), amount) }
  return { total, cells: amount === 0 ? cells : takeBack(cells, -amount) }
}

/** Gives an amount back to the latest parts. Parts that have ended meanwhile no longer count. */
const takeBack = (cells: ReadonlyArray<SpentCell>, amount: number): ReadonlyArray<SpentCell> => {
  const left: Array<SpentCell> = []
  for (const cell of cells.toReversed()) {
    const part = Math.min(cell.amount, amount)
    amount -= part
    if (cell.amount > part) left.unshift({ ends: cell.ends, amount: cell.amount - part })
  }
  return left
}

/** The sum of two accounts. */
export const plus = (one: Account, other: Account): Account => ({
  total: one.total + other.total,
  cells: combined(one.cells, other.cells, (a, b) => a + b)
})

/** Two versions of one account, of which each may lack something. */
export const max = (one: Account, other: Account): Account => ({
  total: Math.max(one.total, other.total),
  cells: combined(one.cells, other.cells, Math.max)
})

const combined = (
  cells: ReadonlyArray<SpentCell>,
  others: ReadonlyArray<SpentCell>,
  combine: (amount: number, other: number) => number
): ReadonlyArray<SpentCell> => {
  if (cells.length === 0 || others.length === 0) return cells.length === 0 ? others : cells
  const amounts = new Map(cells.map(({ amount, ends }) => [ends, amount]))
  for (const { amount, ends } of others) amounts.set(ends, combine(amounts.get(ends) ?? 0, amount))
  return Array.from(amounts, ([ends, amount]) => ({ ends, amount })).sort((a, b) => timeOf(a) - timeOf(b))
}

/** The time when the next amount no longer counts; undefined if never. */
export const nextEnd = (account: Account, period: Period, now: number): number | undefined => {
  if (period._tag === "Ever") return undefined
  if (period._tag === "Day" || period._tag === "Month") return endOf(period, now)
  const [next] = tidy(account, period, now).cells
  return next && timeOf(next)
}

/** The time when this amount fits if nothing else is spent until then; undefined if never. */
export const fitsAt = (
  account: Account,
  amount: number,
  { limit, period }: CapInUnits,
  now: number
): number | undefined => {
  let sum = spent(account, now)
  if (sum + amount <= limit) return now
  for (const cell of tidy(account, period, now).cells) {
    sum -= cell.amount
    if (sum + amount <= limit) return cell.ends ?? undefined
  }
  return undefined
}
