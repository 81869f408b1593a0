/**
 * The long windows of a subscription, such as 5 hours and 7 days, as pure steps. A provider tells which fraction of a window is spent
 * and when the window ends, but not how large it is. The size is learned from how the costs of calls move the fraction.
 *
 * `spent` is what all calls of the account have cost here so far. A response tells the fraction at about the time when its call was
 * admitted, so it is compared with what was spent then.
 */
import type { WindowSignal } from "../signal.ts"

/** A window as far as it is known. Costs are in billionths of a dollar. */
export interface LongWindow {
  /** The fraction that was spent when `mark` had been spent here. */
  readonly base: number
  readonly mark: number
  /** When it ends, in milliseconds since the epoch; `Infinity` if it has ended and nothing was heard of the next one. */
  readonly resetsAt: number
  /** Whether the provider rejects calls until then. */
  readonly isRejected: boolean
  /** The cost of a whole window; undefined until the fraction has moved. */
  readonly size: number | undefined
  /** Where the measurement of the size began. */
  readonly from: { readonly used: number; readonly spent: number }
}

/** The fraction is rounded down to steps of this size. */
const step = 0.01
/** A movement of one step measures nothing, and only one of several steps replaces a size that is known already. */
const firstMove = 1.5 * step
const goodMove = 4.5 * step
/** A new size replaces a known one only if the cost is this many times what is in doubt. */
const goodCost = 3
/** Ends that differ by less than this are the same, because providers round them. */
const minute = 60_000

/** A window at its first response. Its size is that of the one before. */
export const begun = (signal: WindowSignal, spent: number, size: number | undefined): LongWindow => ({
  base: signal.used,
  mark: spent,
  resetsAt: signal.resetsAt,
  isRejected: signal.isRejected === true,
  size,
  from: { used: signal.used, spent }
})

/** The state of a window at a time: after its end it is unused. */
export const at = (window: LongWindow, spent: number, now: number): LongWindow =>
  now < window.resetsAt ? window : begun({ used: 0, resetsAt: Infinity }, spent, window.size)

/** The fraction that is spent. */
export const usedAt = ({ base, mark, size }: LongWindow, spent: number): number =>
  size === undefined ? base : base + Math.max(0, spent - mark) / size

/**
 * Learns what a response says. `spent` is what had been spent when its call was admitted, and `doubt` what other calls may have
 * added until the provider made the response.
 */
export const observe = (
  known: LongWindow | undefined,
  signal: WindowSignal,
  spent: number,
  doubt: number,
  now: number
): LongWindow => {
  if (known === undefined) return begun(signal, spent, undefined)
  // A response that is late tells of a window that has ended.
  if (signal.resetsAt <= now) return known
  if (Math.abs(signal.resetsAt - known.resetsAt) > minute) return begun(signal, spent, known.size)
  const { base, from, mark, size } = known
  const isRejected = signal.isRejected === true
  const told = signal.used
  // An earlier call was answered later.
  if (spent < mark) return { ...known, isRejected, base: Math.max(base, told) }
  const used = size === undefined ? told : Math.min(Math.max(usedAt(known, spent), told), told + step)
  const next = { ...known, base: used, mark: spent, isRejected }
  // The provider has given some of it back, so the measurement begins anew.
  if (told < from.used) return { ...next, from: { used: told, spent } }
  const moved = told - from.used
  const cost = spent - from.spent
  const isMeasured =
    size === undefined ? moved > firstMove && cost > doubt : moved > goodMove && cost > goodCost * doubt
  return isMeasured ? { ...next, size: cost / moved } : next
}
