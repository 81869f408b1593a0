/**
 * What was admitted within a sliding window, by slices of time.
 *
 * Cells are a value, which copies of a cap share. An admission replaces the newest cell alone, and the sum of the others is
 * kept, so that neither it nor a decision looks at all of them.
 */

/** A window is remembered in this many cells: what leaves it leaves up to 1/60 late, never early. */
const cellsPerWindow = 60

/** What was admitted in the slice of time with this index. */
export interface Cell {
  readonly index: number
  readonly amount: number
}

export interface Cells {
  /** All but the newest, oldest first. */
  readonly older: ReadonlyArray<Cell>
  /** The sum of those. */
  readonly sum: number
  readonly newest: Cell | undefined
}

interface Span {
  readonly millis: number
}

export const none: Cells = { older: [], sum: 0, newest: undefined }

const sumOf = (cells: ReadonlyArray<Cell>): number => {
  let sum = 0
  for (const { amount } of cells) sum += amount
  return sum
}

/** Cells from a list, and the list of cells: oldest first. */
export const fromList = (cells: ReadonlyArray<Cell>): Cells => {
  const older = cells.slice(0, -1)
  return { older, sum: sumOf(older), newest: cells.at(-1) }
}
export const toList = ({ newest, older }: Cells): ReadonlyArray<Cell> =>
  newest === undefined ? older : [...older, newest]

export const total = ({ newest, sum }: Cells): number => sum + (newest?.amount ?? 0)

const millisOf = (window: Span): number => window.millis / cellsPerWindow

/** A cell counts until its youngest amount has left the window. */
const leavesAt = ({ index }: Cell, window: Span): number => (index + 1) * millisOf(window) + window.millis

/** When all of it has left the window; 0 if it has. */
export const end = ({ newest }: Cells, window: Span): number => (newest === undefined ? 0 : leavesAt(newest, window))

/** Adds an amount that left by a certain time. */
export const until = (leaves: number, amount: number, window: Span): Cells => ({
  ...none,
  newest: { index: Math.ceil((leaves - window.millis) / millisOf(window)) - 1, amount }
})

/** Removes what has left the window. */
export const advance = (cells: Cells, window: Span, now: number): Cells => {
  const { newest, older } = cells
  if (newest === undefined || leavesAt(older[0] ?? newest, window) > now) return cells
  if (leavesAt(newest, window) <= now) return none
  const left = older.filter((cell) => leavesAt(cell, window) > now)
  return { older: left, sum: sumOf(left), newest }
}

/** Adds what was admitted at a time. */
export const add = ({ newest, older, sum }: Cells, window: Span, at: number, amount: number): Cells => {
  const index = Math.floor(at / millisOf(window))
  if (newest === undefined) return { older, sum, newest: { index, amount } }
  if (newest.index === index) return { older, sum, newest: { index, amount: newest.amount + amount } }
  const sealed = [...older, newest]
  // Added up anew, so that errors of rounding do not.
  return { older: sealed, sum: sumOf(sealed), newest: { index, amount } }
}

/** Takes back some of what was admitted at a time. */
export const giveBack = (cells: Cells, window: Span, at: number, amount: number): Cells => {
  const { newest, older, sum } = cells
  const index = Math.floor(at / millisOf(window))
  if (newest?.index === index) return { older, sum, newest: { index, amount: Math.max(0, newest.amount - amount) } }
  const place = older.findLastIndex((cell) => cell.index === index)
  const found = older[place]
  if (found === undefined) return cells
  const left = Math.max(0, found.amount - amount)
  return { older: older.with(place, { index, amount: left }), sum: sum - found.amount + left, newest }
}

/** When so much of it has left the window; `Infinity` if it is less. */
export const leftAt = (cells: Cells, window: Span, amount: number): number => {
  let over = amount
  for (const cell of toList(cells)) {
    over -= cell.amount
    if (over <= 0) return leavesAt(cell, window)
  }
  return Infinity
}

/** Part of each cell. */
export const scale = (cells: Cells, part: number): Cells =>
  fromList(toList(cells).map(({ amount, index }) => ({ index, amount: amount * part })))
