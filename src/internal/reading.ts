/**
 * What `remaining` in a response says about one dimension.
 *
 * What it means is not documented: what was left right after the call was admitted, or what is left now, as its answer is
 * sent. While a call runs others are sent and the bucket refills, so the two differ by more than a burst. Each reading
 * predicts what the provider says if it sees what we see. The one that was clearly closer lately is believed; as long as
 * neither is, a level is lowered only as far as both ask for.
 */
import type { DimensionSignal } from "../Limits.ts"

/** How far each reading was off lately: moving averages, as parts of the capacity. */
export interface Doubt {
  readonly taken: number
  readonly now: number
}

/** The local view of the dimension. */
export interface View {
  readonly level: number
  readonly capacity: number
  /** What was left right after the call was taken, corrections since then included; `undefined` where unknown. */
  readonly left: number | undefined
  /** What open calls have reserved and the provider counts only as it comes. */
  readonly uncounted: number
}

export interface Reading {
  /** The level that the provider's figure vouches for. */
  readonly least: number
  /** The level to go down to, where the provider has less than we think. */
  readonly lowered: number | undefined
  /** By how much the provider has more than we think, however it is read; 0 where it has not. */
  readonly more: number
  readonly doubt: Doubt
}

export const noDoubt: Doubt = { taken: 0, now: 0 }

/** About the last ten responses count. */
const memory = 0.9
/** A reading is believed when it is off by less than this part of what the other is off. */
const clearly = 0.5

export const read = (said: DimensionSignal, view: View, doubt: Doubt): Reading | undefined => {
  const { remaining, roundedTo = 1 } = said
  if (remaining === undefined || !(remaining >= 0 && remaining < Infinity)) return undefined
  // An exact figure may have lost a fraction; a rounded one was rounded to the nearest step.
  const above = roundedTo > 1 ? roundedTo / 2 : 1
  const below = roundedTo > 1 ? roundedTo / 2 : 0
  const least = Math.max(0, remaining - below) - view.uncounted
  const most = remaining + above - view.uncounted
  const width = most - least
  const whenNow = view.level - most
  const whenTaken = view.left === undefined ? whenNow : view.left - most
  // A figure above the most that our own level can be does not show which reading is right.
  const tells = view.left !== undefined && most < view.capacity
  const next = tells
    ? {
        taken: average(doubt.taken, distance(whenTaken, width) / view.capacity),
        now: average(doubt.now, distance(whenNow, width) / view.capacity)
      }
    : doubt
  let over = Math.min(whenNow, whenTaken)
  if (next.now < clearly * next.taken) over = whenNow
  else if (next.taken < clearly * next.now) over = whenTaken
  return {
    least,
    lowered: over > 0 ? view.level - over - width : undefined,
    more: Math.max(0, Math.min(-whenNow, -whenTaken) - width),
    doubt: next
  }
}

/** How far a figure that may lie `width` below is from what was expected. */
const distance = (over: number, width: number): number => (over > 0 ? over : Math.max(0, -width - over))

const average = (before: number, value: number): number => memory * before + (1 - memory) * Math.min(1, value)
