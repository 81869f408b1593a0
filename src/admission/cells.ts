/**
 * The amounts admitted within a sliding window, by slices of time.
 *
 * Cells are a value, which copies of a cap share. An admission replaces only the newest slice, and the sum of the others is
 * stored, so neither an admission nor a decision adds up all of them.
 */

/** Slices of a window. An amount counts for up to a sixtieth of the window too long, and never too short. */
const slicesPerWindow = 60

/** The amount admitted in a slice of time. */
export interface Slice {
  readonly index: number
  readonly amount: number
}

export interface Cells {
  /** All but the newest, oldest first. */
  readonly older: ReadonlyArray<Slice>
  /** Their sum. */
  readonly sum: number
  readonly newest: Slice | undefined
}

interface Span {
  readonly millis: number
}

export const none: Cells = { older: [], sum: 0, newest: undefined }

const sumOf = (slices: ReadonlyArray<Slice>): number => {
  let sum = 0
  for (const { amount } of slices) sum += amount
  return sum
}

/** Cells from slices, oldest first. */
export const fromList = (slices: ReadonlyArray<Slice>): Cells => {
  const older = slices.slice(0, -1)
  return { older, sum: sumOf(older), newest: slices.at(-1) }
}

/** All slices, oldest first. */
export const toList = ({ newest, older }: Cells): ReadonlyArray<Slice> =>
  newest === undefined ? older : [...older, newest]

export const total = ({ newest, sum }: Cells): number => sum + (newest?.amount ?? 0)

const millisOf = (window: Span): number => window.millis / slicesPerWindow

/** A slice counts until the latest amount that it may contain has left the window. */
const leavesAt = ({ index }: Slice, window: Span): number => (index + 1) * millisOf(window) + window.millis

/** The time when everything has left the window; 0 if nothing is in it. */
export const end = ({ newest }: Cells, window: Span): number => (newest === undefined ? 0 : leavesAt(newest, window))

/** One amount, which leaves the window at a given time. */
export const until = (leaves: number, amount: number, window: Span): Cells => ({
  ...none,
  newest: { index: Math.ceil((leaves - window.millis) / millisOf(window)) - 1, amount }
})

/** Removes what has left the window. */
export const advance = (cells: Cells, window: Span, now: number): Cells => {
  const { newest, older } = cells
  if (newest === undefined || leavesAt(older[0] ?? newest, window) > now) return cells
  if (leavesAt(newest, window) <= now) return none
  const left = older.filter((slice) => leavesAt(slice, window) > now)
  return { older: left, sum: sumOf(left), newest }
}

/** Adds what was admitted at a time. */
export const add = ({ newest, older, sum }: Cells, window: Span, at: number, amount: number): Cells => {
  const index = Math.floor(at / millisOf(window))
  if (newest === undefined) return { older, sum, newest: { index, amount } }
  if (newest.index === index) return { older, sum, newest: { index, amount: newest.amount + amount } }
  const sealed = [...older, newest]
  // Summed again, so that rounding errors do not accumulate.
  return { older: sealed, sum: sumOf(sealed), newest: { index, amount } }
}

/** Takes back some of what was admitted at a time. */
export const giveBack = (cells: Cells, window: Span, at: number, amount: number): Cells => {
  const { newest, older, sum } = cells
  const index = Math.floor(at / millisOf(window))
  if (newest?.index === index) return { older, sum, newest: { index, amount: Math.max(0, newest.amount - amount) } }
  const place = older.findLastIndex((slice) => slice.index === index)
  const found = older[place]
  if (found === undefined) return cells
  const left = Math.max(0, found.amount - amount)
  return { older: older.with(place, { index, amount: left }), sum: sum - found.amount + left, newest }
}

/** The time when this amount has left the window; `Infinity` if less is in it. */
export const leftAt = (cells: Cells, window: Span, amount: number): number => {
  let over = amount
  for (const slice of toList(cells)) {
    over -= slice.amount
    if (over <= 0) return leavesAt(slice, window)
  }
  return Infinity
}

/** The given part of each amount. */
export const scale = (cells: Cells, part: number): Cells =>
  fromList(toList(cells).map(({ amount, index }) => ({ index, amount: amount * part })))
