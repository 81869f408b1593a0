/**
 * The limit that the user states: a bucket that nothing but the user changes. Headers and rejections never touch it.
 *
 * The level refills up to the rule's capacity and may be negative: that is debt, and it is never forgiven. Where the
 * limit is kept for any span of one window, cells remember what was admitted within the last one. A quota is a bucket
 * that never refills.
 *
 * Times are milliseconds, rates are per millisecond. A cap is mutable and has one owner.
 */
import type { Rule } from "../limits/rules.ts"

/** A window is remembered in this many cells: what leaves it leaves up to 1/60 late, never early. */
const cellsPerWindow = 60
/** Levels that are remembered: those that nothing came near later, which are few. */
const mostHighs = 16
/** Rounding of sums: a billionth of the capacity is no token. */
const rounding = 1e-9

/** What was admitted in the slice of time with this index. */
interface Cell {
  readonly index: number
  amount: number
}

/** The level before something was taken. */
interface High {
  readonly at: number
  level: number
}

export interface Cap {
  rule: Rule
  level: number
  at: number
  /** When it is full again, or was. */
  fullAt: number
  /** Oldest first; empty where the rule has no window. */
  cells: Array<Cell>
  /** Oldest first, each higher than all that came later; empty where the rule is no bucket. */
  highs: Array<High>
}

export const make = (rule: Rule, now: number): Cap => ({
  rule,
  level: rule.capacity,
  at: now,
  fullAt: -Infinity,
  cells: [],
  highs: []
})

/** A copy: what happens to one changes nothing in the other. */
export const copy = (cap: Cap): Cap => ({
  ...cap,
  cells: cap.cells.map((cell) => ({ ...cell })),
  highs: cap.highs.map((high) => ({ ...high }))
})

const cellMillis = (window: { readonly millis: number }): number => window.millis / cellsPerWindow

/** A cell counts until its youngest amount has left the window. */
const leavesAt = (cell: Cell, window: { readonly millis: number }): number =>
  (cell.index + 1) * cellMillis(window) + window.millis

/** Brings a cap up to a time. */
export const advance = (cap: Cap, now: number): void => {
  if (now <= cap.at) return
  const { cells, rule } = cap
  cap.level = Math.min(rule.capacity, cap.level + rule.rate * (now - cap.at))
  cap.at = now
  while (cells.length > 0 && leavesAt(cells[0]!, rule.window!) <= now) cells.shift()
}

const remember = (cap: Cap, at: number, amount: number): void => {
  const { cells, rule } = cap
  if (rule.window === undefined) return
  const index = Math.floor(at / cellMillis(rule.window))
  const found = cells.findLast((cell) => cell.index === index)
  if (found !== undefined) found.amount = Math.max(0, found.amount + amount)
  else if (amount > 0) cells.push({ index, amount })
}

/**
 * Milliseconds until a charge fits: 0 when it does, `Infinity` when a quota no longer holds it. One that is larger than
 * the burst goes when the bucket is full. Calls that are admitted now may go out `lag` later, and others at once: what is
 * refilled meanwhile is kept back; where the bucket does not hold that, it has to have been full for so long. The cap must be
 * up to date.
 */
export const wait = ({ at, cells, fullAt, level, rule }: Cap, charge: number, lag = 0): number => {
  if (charge === 0) return 0
  const slack = rule.capacity * rounding
  if (rule.quota) return charge - level <= slack ? 0 : Infinity
  const needed = charge + rule.rate * lag
  let missing = Math.min(needed, rule.capacity) - level
  if (needed > rule.capacity) missing = Math.max(missing, rule.rate * (fullAt + lag - at))
  // Aimed half the slack lower, so that a wait that ends on a whole millisecond is not rounded up to the next.
  const refilled = missing <= slack ? 0 : (missing - slack / 2) / rule.rate
  if (rule.window === undefined) return refilled
  const { max } = rule.window
  let over = charge - max - max * rounding
  for (const cell of cells) over += cell.amount
  if (over <= 0) return refilled
  for (const cell of cells) {
    over -= cell.amount
    if (over <= 0) return Math.max(refilled, leavesAt(cell, rule.window) + lag - at)
  }
  return Math.max(refilled, rule.window.millis)
}

/** Takes a charge, into debt where it is more than the level. */
export const take = (cap: Cap, charge: number): void => {
  if (isBucket(cap.rule)) note(cap)
  cap.level -= charge
  refills(cap)
  remember(cap, cap.at, charge)
}

/** The level may have changed. A bucket that was full before and still is has been so since then. */
const refills = (cap: Cap): void => {
  const { at, fullAt, level, rule } = cap
  if (level >= rule.capacity) cap.fullAt = Math.min(fullAt, at)
  else cap.fullAt = at + (rule.capacity - level) / rule.rate
}

const isBucket = ({ quota, window }: Rule): boolean => !quota && window === undefined

/** Remembers how full the bucket was. Of too many, the two that are most alike become one, as high and as young as either. */
const note = (cap: Cap): void => {
  const { highs, level } = cap
  while (highs.length > 0 && highs.at(-1)!.level <= level) highs.pop()
  highs.push({ at: cap.at, level })
  if (highs.length <= mostHighs) return
  const fall = (i: number) => highs[i]!.level - highs[i + 1]!.level
  let least = 0
  for (let i = 1; i < mostHighs; i++) if (fall(i) < fall(least)) least = i
  highs.splice(least, 2, { at: highs[least + 1]!.at, level: highs[least]!.level })
}

/**
 * Replaces a charge that was taken at a time by what was used. What is given back counts as if it had been there since: as
 * far as the bucket would have been full with it, it is lost.
 */
export const settle = (cap: Cap, charge: number, used: number, takenAt: number): void => {
  if (used > charge) return take(cap, used - charge)
  const given = charge - used
  const { highs, rule } = cap
  const since = highs.filter(({ at }) => at > takenAt)
  const high = Math.max(cap.level, since[0]?.level ?? -Infinity)
  const room = Math.min(given, Math.max(0, rule.capacity - high))
  cap.level += room
  for (const each of since) each.level += room
  cap.highs = highs.filter(({ at, level }) => at > takenAt || level > high + room)
  // What is given back makes it full no later.
  const { fullAt } = cap
  refills(cap)
  cap.fullAt = Math.min(fullAt, cap.fullAt)
  remember(cap, takenAt, -given)
}

/** What is left at a time, when the bucket is full again, and what was admitted within the window until it has left. */
export const left = (
  cap: Cap,
  now: number
): { readonly level: number; readonly fullAt: number; readonly recent: number; readonly leaves: number } => {
  const current = copy(cap)
  advance(current, now)
  const { cells, level, rule } = current
  const last = cells.at(-1)
  const missing = rule.capacity - level
  return {
    level,
    fullAt: missing > 0 ? now + missing / rule.rate : now,
    recent: cells.reduce((sum, { amount }) => sum + amount, 0),
    leaves: last === undefined ? 0 : leavesAt(last, rule.window!)
  }
}

/** Sets what is left of a new cap, and what was admitted within its window. */
export const setLeft = (cap: Cap, level: number, recent: number, leaves: number): void => {
  const { at, rule } = cap
  cap.level = Math.min(rule.capacity, level)
  refills(cap)
  if (rule.window === undefined || leaves <= at) return
  cap.cells.push({ index: Math.ceil((leaves - rule.window.millis) / cellMillis(rule.window)) - 1, amount: recent })
}

/** Another rule. Debt stays, and so does what was used of a quota, because nothing would ever refill it. */
export const setRule = (cap: Cap, rule: Rule): void => {
  const grown = rule.quota ? rule.capacity - cap.rule.capacity : 0
  cap.level = Math.min(rule.capacity, cap.level + grown)
  if (rule.window?.millis !== cap.rule.window?.millis) cap.cells = []
  if (!isBucket(rule)) cap.highs = []
  cap.rule = rule
  refills(cap)
}
