/**
 * The limit that the user states: a bucket that nothing but the user changes. Headers and rejections never touch it.
 *
 * The level refills up to the rule's capacity and may be negative: that is debt, and it is never forgiven. Where the
 * limit is kept for any span of one window, cells remember what was admitted within the last one. A quota is a bucket
 * that never refills.
 *
 * Times are milliseconds, rates are per millisecond. A cap is changed in place; cells and highs are values that copies share.
 */
import type { Rule } from "../domain/rules.ts"
import * as Cells from "./cells.ts"

/** The level before something was taken. */
interface High {
  readonly at: number
  readonly level: number
}

export interface Cap {
  rule: Rule
  level: number
  at: number
  /** When it is full again, or was. */
  fullAt: number
  /** Empty where the rule has no window. */
  cells: Cells.Cells
  /** Oldest first, each higher than all that came later; empty where the rule is no bucket. */
  highs: ReadonlyArray<High>
}

export const make = (rule: Rule, now: number): Cap => ({
  rule,
  level: rule.capacity,
  at: now,
  fullAt: -Infinity,
  cells: Cells.none,
  highs: []
})

/** A copy, for events to change. */
export const copy = ({ at, cells, fullAt, highs, level, rule }: Cap): Cap => ({ rule, level, at, fullAt, cells, highs })

/** Brings a cap up to a time. */
export const advance = (cap: Cap, now: number): void => {
  if (now <= cap.at) return
  const { rule } = cap
  cap.level = Math.min(rule.capacity, cap.level + rule.rate * (now - cap.at))
  cap.at = now
  if (rule.window !== undefined) cap.cells = Cells.advance(cap.cells, rule.window, now)
}

/** Rounding of sums: a billionth of the capacity is no token. */
const rounding = 1e-9

/**
 * Milliseconds until a charge fits: 0 if it does, `Infinity` if a quota no longer holds it. A charge that is larger than the
 * burst goes when the bucket is full. A call that is admitted now may go out up to `lag` later than the next ones, so what is
 * refilled in that time is kept back; if the bucket cannot hold that, it must have been full for that long. The cap must be up
 * to date.
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
  const over = charge - max - max * rounding + Cells.total(cells)
  if (over <= 0) return refilled
  const leftAt = Cells.leftAt(cells, rule.window, over)
  return Math.max(refilled, leftAt === Infinity ? rule.window.millis : leftAt + lag - at)
}

/** Takes a charge, into debt where it is more than the level. */
export const take = (cap: Cap, charge: number): void => {
  if (isBucket(cap.rule)) note(cap)
  cap.level -= charge
  refills(cap)
  const { at, cells, rule } = cap
  if (rule.window !== undefined && charge > 0) cap.cells = Cells.add(cells, rule.window, at, charge)
}

/** Updates when the bucket is full again. If it is full, keeps the earliest time since which it has been. */
const refills = (cap: Cap): void => {
  const { at, fullAt, level, rule } = cap
  if (level >= rule.capacity) cap.fullAt = Math.min(fullAt, at)
  else cap.fullAt = at + (rule.capacity - level) / rule.rate
}

const isBucket = ({ quota, window }: Rule): boolean => !quota && window === undefined

/** How many levels are remembered. Only those that no later level reached matter, and they are few. */
const maxHighs = 16

/** Remembers how full the bucket was. If there are too many levels, the two closest become one: the higher level, the later time. */
const note = (cap: Cap): void => {
  const { at, highs, level } = cap
  let kept = highs.length
  while (kept > 0 && highs[kept - 1]!.level <= level) kept--
  const noted = highs.slice(0, kept)
  noted.push({ at, level })
  cap.highs = noted
  if (noted.length <= maxHighs) return
  const fall = (i: number) => noted[i]!.level - noted[i + 1]!.level
  let alike = 0
  for (let i = 1; i < maxHighs; i++) if (fall(i) < fall(alike)) alike = i
  noted.splice(alike, 2, { at: noted[alike + 1]!.at, level: noted[alike]!.level })
}

/**
 * Replaces a charge that was taken at a time by what was used. What is given back counts as if it had been in the bucket since
 * then: what the bucket could not have held is lost.
 */
export const settle = (cap: Cap, charge: number, used: number, takenAt: number): void => {
  if (used > charge) return take(cap, used - charge)
  const given = charge - used
  const { cells, highs, rule } = cap
  const since = highs.findLastIndex(({ at }) => at <= takenAt) + 1
  const high = Math.max(cap.level, highs[since]?.level ?? -Infinity)
  const room = Math.min(given, Math.max(0, rule.capacity - high))
  cap.level += room
  const kept = highs.findLastIndex(({ level }, i) => i < since && level > high + room) + 1
  if (room > 0 || kept < since) {
    const raised = highs.slice(since).map(({ at, level }) => ({ at, level: level + room }))
    cap.highs = [...highs.slice(0, kept), ...raised]
  }
  // What is given back makes it full no later.
  const { fullAt } = cap
  refills(cap)
  cap.fullAt = Math.min(fullAt, cap.fullAt)
  if (rule.window !== undefined && given > 0) cap.cells = Cells.giveBack(cells, rule.window, takenAt, given)
}

/** What is left at a time, when the bucket is full again, and what was admitted within the window until it has left. */
export const left = (
  cap: Cap,
  now: number
): { readonly level: number; readonly fullAt: number; readonly recent: number; readonly leaves: number } => {
  const current = copy(cap)
  advance(current, now)
  const { cells, level, rule } = current
  const missing = rule.capacity - level
  return {
    level,
    fullAt: missing > 0 ? now + missing / rule.rate : now,
    recent: Cells.total(cells),
    leaves: rule.window === undefined ? 0 : Cells.end(cells, rule.window)
  }
}

/** Sets what is left of a new cap, and what was admitted within its window. */
export const setLeft = (cap: Cap, level: number, recent: number, leaves: number): void => {
  const { at, rule } = cap
  cap.level = Math.min(rule.capacity, level)
  refills(cap)
  if (rule.window !== undefined && leaves > at) cap.cells = Cells.until(leaves, recent, rule.window)
}

/** Sets another rule. Debt stays, and so does what was used of a quota, because a quota never refills. */
export const setRule = (cap: Cap, rule: Rule): void => {
  const grown = rule.quota ? rule.capacity - cap.rule.capacity : 0
  cap.level = Math.min(rule.capacity, cap.level + grown)
  if (rule.window?.millis !== cap.rule.window?.millis) cap.cells = Cells.none
  if (!isBucket(rule)) cap.highs = []
  cap.rule = rule
  refills(cap)
}
