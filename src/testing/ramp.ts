/** A limit on growth: the last minute's tokens against those of the minute before. Changed in place. */
import type { Options } from "./models.ts"

const minute = 60_000

/** The tokens admitted in the last two minutes. */
export interface RampState {
  times: Array<number>
  amounts: Array<number>
}

/** Nothing admitted yet. */
export const make = (): RampState => ({ times: [], amounts: [] })

/** Counts an admitted call. */
export const add = (state: RampState, now: number, amount: number): void => {
  const stale = state.times.findIndex((time) => time + 2 * minute > now)
  if (stale !== 0) {
    const from = stale === -1 ? state.times.length : stale
    state.times = state.times.slice(from)
    state.amounts = state.amounts.slice(from)
  }
  const last = state.times.length - 1
  if (state.times[last] === now) {
    state.amounts[last]! += amount
  } else {
    state.times.push(now)
    state.amounts.push(amount)
  }
}

/** Milliseconds until a call fits if nothing else happens. With nothing admitted in the last minute, any call fits. */
export const waitMillis = (
  state: RampState,
  options: NonNullable<Options["ramp"]>,
  now: number,
  amount: number
): number => {
  const { growth = 1.5 } = options
  const { amounts, times } = state
  // The entries from `out` on are of the last minute, those from `old` to `out` of the minute before.
  let old = 0
  let out = 0
  let current = amounts.reduce((sum, value) => sum + value, 0)
  let previous = 0
  for (let at = now; ; at = times[out]! + minute) {
    for (; out < times.length && times[out]! + minute <= at; out++) {
      current -= amounts[out]!
      previous += amounts[out]!
    }
    for (; old < out && times[old]! + 2 * minute <= at; old++) previous -= amounts[old]!
    const fits = out === times.length || current + amount <= Math.max(options.fromPerMinute, growth * previous)
    // Room appears only when an entry leaves the last minute; after the last one, any call fits.
    if (fits) return Math.ceil(at - now)
  }
}
