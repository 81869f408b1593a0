/**
 * One dimension's bucket: pure arithmetic over immutable values. Times are milliseconds of a monotonic clock.
 *
 * The level refills lazily from elapsed time up to the rule's capacity, is fractional, and may be negative: that is
 * debt. Where the provider counts by windows, compact cells remember what was admitted within the last one.
 */
import type { Rule } from "../Limits.ts"

/** What was admitted in one slice of the window: slice `index` covers `[index, index + 1)` slices of time. */
interface Cell {
  readonly index: number
  readonly amount: number
}

export interface Bucket {
  readonly rule: Rule
  /** The rule's rate times the pool's pace. */
  readonly rate: number
  readonly level: number
  readonly at: number
  /** The part of the level that is kept back, see {@link needed}. */
  readonly reserve: number
  /** Oldest first; empty where the rule has no window. */
  readonly cells: ReadonlyArray<Cell>
}

/** A window is remembered in this many cells: what leaves it leaves up to 1/60 late, never early. */
export const cellsPerWindow = 60

/** Guards comparisons against rounding: a billionth of the capacity is no token. */
const tolerance = 1e-9
const slack = (bucket: Bucket): number => bucket.rule.capacity * tolerance

const noCells: ReadonlyArray<Cell> = []

export const make = (
  rule: Rule,
  now: number,
  options: { readonly pace: number; readonly headroom: number }
): Bucket => ({
  rule,
  rate: rule.rate * options.pace,
  level: rule.capacity,
  at: now,
  reserve: rule.quota ? 0 : rule.capacity * options.headroom,
  cells: noCells
})

const levelAt = ({ at, level, rate, rule }: Bucket, now: number): number =>
  level >= rule.capacity || now <= at ? level : Math.min(rule.capacity, level + rate * (now - at))

/** The bucket as of `now`. A clock that stands or steps back refills nothing. */
export const refill = (bucket: Bucket, now: number): Bucket =>
  now <= bucket.at ? bucket : { ...bucket, level: levelAt(bucket, now), at: now, cells: expire(bucket, now) }

const cellMillis = (window: { readonly millis: number }): number => window.millis / cellsPerWindow

/** A cell counts until its youngest amount has left the window. */
const leavesAt = (cell: Cell, window: { readonly millis: number }): number =>
  (cell.index + 1) * cellMillis(window) + window.millis

const expire = (bucket: Bucket, now: number): ReadonlyArray<Cell> => {
  const window = bucket.rule.window
  if (window === undefined || bucket.cells.length === 0) return bucket.cells
  let gone = 0
  while (gone < bucket.cells.length && leavesAt(bucket.cells[gone]!, window) <= now) gone++
  return gone === 0 ? bucket.cells : bucket.cells.slice(gone)
}

const addToWindow = (bucket: Bucket, at: number, amount: number): ReadonlyArray<Cell> => {
  const window = bucket.rule.window
  if (window === undefined || amount === 0) return bucket.cells
  const index = Math.floor(at / cellMillis(window))
  const position = bucket.cells.findLastIndex((cell) => cell.index <= index)
  const found = position >= 0 ? bucket.cells[position]! : undefined
  const cells = bucket.cells.slice()
  if (found?.index === index) cells[position] = { index, amount: Math.max(0, found.amount + amount) }
  else if (amount > 0) cells.splice(position + 1, 0, { index, amount })
  return cells
}

/**
 * The level at which `amount` is admitted: the amount itself above a small reserve, because two clocks and a network
 * never agree to the token. More than the bucket can hold is let in when it is full, and the bucket pays it back.
 */
export const needed = (bucket: Bucket, amount: number): number =>
  bucket.rule.quota ? amount : Math.min(amount + bucket.reserve, bucket.rule.capacity)

/**
 * Milliseconds until `amount` can be taken: 0 when it can be now, `Infinity` when a quota no longer holds it. The
 * bucket must be as of `now`.
 */
export const waitFor = (bucket: Bucket, amount: number, now: number): number => {
  if (amount === 0) return 0
  return Math.max(refillWait(bucket, needed(bucket, amount)), windowWait(bucket, amount, now))
}

/** Milliseconds until so much has been refilled. */
const refillWait = (bucket: Bucket, need: number): number =>
  // Aimed half a slack lower, so that a wait that ends on a whole millisecond is not rounded up to the next.
  bucket.level >= need - slack(bucket) ? 0 : (need - slack(bucket) / 2 - bucket.level) / bucket.rate

/** Milliseconds until the window holds `amount` more; a whole window where it never does at once. */
const windowWait = (bucket: Bucket, amount: number, now: number): number => {
  const window = bucket.rule.window
  if (window === undefined) return 0
  let over = 0
  for (const cell of bucket.cells) over += cell.amount
  over = over + amount - window.max * (1 + tolerance)
  if (over <= 0) return 0
  for (const cell of bucket.cells) {
    over -= cell.amount
    if (over <= 0) return Math.max(0, leavesAt(cell, window) - now)
  }
  return window.millis
}

/** Takes `amount` at `now`, into debt where it is more than the level. */
export const take = (bucket: Bucket, amount: number, now: number): Bucket =>
  amount === 0 ? bucket : { ...bucket, level: bucket.level - amount, cells: addToWindow(bucket, now, amount) }

/** Refills and takes in one step if it fits now: the common case without an object in between. */
export const takeIfFits = (bucket: Bucket, amount: number, now: number): Bucket | undefined => {
  const { rule } = bucket
  if (rule.window !== undefined) {
    const refilled = refill(bucket, now)
    return waitFor(refilled, amount, now) === 0 ? take(refilled, amount, now) : undefined
  }
  const level = levelAt(bucket, now)
  if (amount > 0 && level < needed(bucket, amount) - slack(bucket)) return undefined
  return { ...bucket, level: level - amount, at: Math.max(now, bucket.at) }
}

/** Gives back `amount` of what was taken at `takenAt`; never lifts the level above the capacity. */
export const give = (bucket: Bucket, amount: number, takenAt: number): Bucket =>
  amount === 0
    ? bucket
    : {
        ...bucket,
        level: Math.max(bucket.level, Math.min(bucket.rule.capacity, bucket.level + amount)),
        cells: addToWindow(bucket, takenAt, -amount)
      }

/** Takes `amount` of what was taken at `takenAt` out of the window's memory; the level stays. */
export const forget = (bucket: Bucket, amount: number, takenAt: number): Bucket =>
  amount === 0 || bucket.rule.window === undefined
    ? bucket
    : { ...bucket, cells: addToWindow(bucket, takenAt, -amount) }

/** Sets the level; the window's memory stays. */
export const withLevel = (bucket: Bucket, level: number): Bucket =>
  level === bucket.level ? bucket : { ...bucket, level: Math.min(level, bucket.rule.capacity) }

/**
 * Changes the rule or the pace from `bucket.at` on; the time before was refilled at the old rate. Of a quota stays what was
 * used of it, because nothing would ever fill up to a larger one.
 */
export const withRule = (bucket: Bucket, rule: Rule, pace: number): Bucket => ({
  ...bucket,
  rule,
  rate: rule.rate * pace,
  level: Math.min(rule.capacity, bucket.level + (rule.quota ? rule.capacity - bucket.rule.capacity : 0)),
  reserve: bucket.rule.capacity === 0 ? 0 : (bucket.reserve / bucket.rule.capacity) * rule.capacity,
  cells: rule.window !== undefined && rule.window.millis === bucket.rule.window?.millis ? bucket.cells : noCells
})
