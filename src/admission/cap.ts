/**
 * A cap: one limit that the user states. It is a bucket that headers and rejections never change.
 *
 * The level refills up to the rule's capacity. A negative level is debt, which only refilling pays. If the rule has a window,
 * cells remember what was admitted within the last one, so that no span of that length exceeds the limit. A quota is a bucket
 * that never refills.
 *
 * Times are milliseconds, rates are per millisecond. A cap is changed in place; cells and highs are values that copies share.
 */
import type { Rule } from "../domain/rules.ts"
import * as Cells from "./cells.ts"

/** The level right before a charge was taken. */
interface High {
  readonly at: number
  readonly level: number
}

export interface Cap {
  rule: Rule
  level: number
  at: number
  /** When the bucket will be full, or since when it has been. */
  fullAt: number
  /** Empty where the rule has no window. */
  cells: Cells.Cells
  /** Oldest first, each higher than all later ones; empty for quotas and windows. */
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

/** A copy, for events to change: onto a cap that nobody needs any longer, if there is one. */
export const copy = (cap: Cap, onto = make(cap.rule, 0)): Cap => {
  onto.rule = cap.rule
  onto.level = cap.level
  onto.at = cap.at
  onto.fullAt = cap.fullAt
  onto.cells = cap.cells
  onto.highs = cap.highs
  return onto
}

/** Brings a cap up to a time. */
export const advance = (cap: Cap, now: number): void => {
  if (now <= cap.at) return
  const { rule } = cap
  cap.level = Math.min(rule.capacity, cap.level + rule.rate * (now - cap.at))
  cap.at = now
  if (rule.window !== undefined) cap.cells = Cells.advance(cap.cells, rule.window, now)
}

/** Sums of fractions are not exact, so differences below a billionth of the capacity are ignored. */
const rounding = 1e-9

/** If a bucket holds little more than what refills during a lag, calls take this part of it in that time, and the rest at once. */
const lagPart = 0.75

/** How many times its charge a call takes, so that what calls take during a lag is at most their part of the bucket. */
const timesTaken = ({ capacity, rate }: Rule, lag: number): number => Math.max(1, (rate * lag) / (lagPart * capacity))

/** The level that a charge needs: beyond the capacity, it needs a bucket that has been full for the lag. */
const neededFor = (rule: Rule, charge: number, lag: number): number => {
  const { capacity, rate } = rule
  const times = timesTaken(rule, lag)
  const room = capacity * (1 - lagPart) - charge
  return times > 1 && room >= -capacity * rounding ? capacity - times * room : charge + rate * lag
}

/**
 * Milliseconds until a charge fits: 0 if it fits now, `Infinity` if a quota has too little left. A charge that is larger than
 * the bucket fits when the bucket is full. The cap must be up to date.
 *
 * A call may be sent up to `lag` later than calls that are admitted after it, so the refill of that time is kept back. If the
 * bucket is too small for that, small calls refill it more slowly, and a large one waits until it has been full for that long.
 */
export const wait = ({ at, cells, fullAt, level, rule }: Cap, charge: number, lag = 0): number => {
  if (charge === 0) return 0
  const { capacity } = rule
  const slack = capacity * rounding
  if (rule.quota) return charge - level <= slack ? 0 : Infinity
  const needed = lag > 0 ? neededFor(rule, charge, lag) : charge
  let missing = Math.min(needed, capacity) - level
  if (needed > capacity + slack) missing = Math.max(missing, rule.rate * (fullAt + lag - at))
  // Half of the slack less, so that a wait that ends on a whole millisecond is not rounded up to the next one.
  const refilled = missing <= slack ? 0 : (missing - slack / 2) / rule.rate
  if (rule.window === undefined) return refilled
  const { max } = rule.window
  const over = charge - max - max * rounding + Cells.total(cells)
  if (over <= 0) return refilled
  const leftAt = Cells.leftAt(cells, rule.window, over)
  return Math.max(refilled, leftAt === Infinity ? rule.window.millis : leftAt + lag - at)
}

/** Takes a charge. What exceeds the level becomes debt. */
export const take = (cap: Cap, charge: number, lag = 0): void => {
  const { at, cells, rule } = cap
  if (isBucket(rule)) note(cap)
  cap.level -= lag > 0 ? charge * timesTaken(rule, lag) : charge
  refills(cap)
  if (rule.window !== undefined && charge > 0) cap.cells = Cells.add(cells, rule.window, at, charge)
}

/** Updates `fullAt`, which keeps the earliest time since which a full bucket has been full. */
const refills = (cap: Cap): void => {
  const { at, fullAt, level, rule } = cap
  if (level >= rule.capacity) cap.fullAt = Math.min(fullAt, at)
  else cap.fullAt = at + (rule.capacity - level) / rule.rate
}

const isBucket = ({ quota, window }: Rule): boolean => !quota && window === undefined

/** The number of levels that are remembered. Only levels that no later one has reached matter, and those are few. */
const maxHighs = 16

/** Remembers the level. If there are too many, the two that differ least become one, with the higher level and the later time. */
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

/** Adds to the level what was in the bucket since a time, but for what would have overflowed since then. */
const giveBack = (cap: Cap, given: number, takenAt: number): void => {
  const { highs, rule } = cap
  let since = highs.length
  while (since > 0 && highs[since - 1]!.at > takenAt) since--
  const high = Math.max(cap.level, highs[since]?.level ?? -Infinity)
  const room = Math.min(given, Math.max(0, rule.capacity - high))
  cap.level += room
  let kept = since
  while (kept > 0 && highs[kept - 1]!.level <= high + room) kept--
  if (kept === since && (room === 0 || since === highs.length)) return
  const raised = highs.slice(since).map(({ at, level }) => ({ at, level: level + room }))
  cap.highs = [...highs.slice(0, kept), ...raised]
}

/**
 * Replaces a charge by the actual usage. A refund counts as if it had been in the bucket since `takenAt`, so the part that
 * would have overflowed since then is lost.
 */
export const settle = (cap: Cap, charge: number, used: number, takenAt: number): void => {
  if (used > charge) return take(cap, used - charge)
  const given = charge - used
  giveBack(cap, given, takenAt)
  // A refund never delays the time at which the bucket is full.
  const { fullAt } = cap
  refills(cap)
  cap.fullAt = Math.min(fullAt, cap.fullAt)
  const { cells, rule } = cap
  if (rule.window !== undefined && given > 0) cap.cells = Cells.giveBack(cells, rule.window, takenAt, given)
}

/** The level at a time, when the bucket is full again, what counts in the window, and when all of that has left it. */
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

/** Sets the level of a new cap, and what counts in its window until `leaves`. */
export const setLeft = (cap: Cap, level: number, recent: number, leaves: number): void => {
  const { at, rule } = cap
  cap.level = Math.min(rule.capacity, level)
  refills(cap)
  if (rule.window !== undefined && leaves > at) cap.cells = Cells.until(leaves, recent, rule.window)
}

/** Sets another rule. Debt stays. What was used of a quota stays used, because a quota never refills. */
export const setRule = (cap: Cap, rule: Rule): void => {
  const grown = rule.quota ? rule.capacity - cap.rule.capacity : 0
  cap.level = Math.min(rule.capacity, cap.level + grown)
  if (rule.window?.millis !== cap.rule.window?.millis) cap.cells = Cells.none
  if (!isBucket(rule)) cap.highs = []
  cap.rule = rule
  refills(cap)
}
