/**
 * Checks whether a history took more from a limit than it allows, by plain sums that share no code with the budget.
 */

/** An amount taken from a limit at a time; negative if it was given back. */
export interface Movement {
  readonly at: number
  readonly amount: number
  /** For a settlement, the time of the admission that it corrects. */
  readonly admittedAt: number | undefined
}

/** In the order in which they happened. */
export type Flow = ReadonlyArray<Movement>

export interface Bucket {
  readonly burst: number
  /** Refill per millisecond; 0 for a quota. */
  readonly rate: number
}

/** A bucket and, if the provider counts by window, the most that a window may hold. */
export interface Limit extends Bucket {
  readonly window: number | undefined
}

const slack = (amount: number): number => 1e-6 * Math.max(1, amount)

/**
 * Law 1 for a bucket: finds the first interval, ending with an admission, in which more was taken (less what was given back)
 * than burst + rate x interval. An admission larger than the burst may exceed it by the difference, its declared debt.
 * Settlements count, so a debt must have refilled before the next admission.
 */
export const overBucket = (flow: Flow, { burst, rate }: Bucket): string | undefined => {
  for (let last = 0; last < flow.length; last++) {
    const { admittedAt, amount, at } = flow[last]!
    if (admittedAt !== undefined) continue
    const declared = Math.max(0, amount - burst)
    let sum = 0
    for (let first = last; first >= 0; first--) {
      const from = flow[first]!
      sum += from.amount
      const allowed = burst + rate * (at - from.at) + declared
      if (sum > allowed + slack(allowed)) return `${sum} from ${from.at} to ${at} ms, where ${allowed} are allowed`
    }
  }
  return undefined
}

/**
 * Law 1 for a window: finds the first span of a window's length in which more was taken than the limit. A refund counts at
 * the time of its admission, use beyond the estimate at the time of its settlement.
 */
export const overWindow = (
  flow: Flow,
  { max, millis }: { readonly max: number; readonly millis: number }
): string | undefined => {
  for (let last = 0; last < flow.length; last++) {
    const { admittedAt, at } = flow[last]!
    if (admittedAt !== undefined) continue
    let sum = 0
    for (const { admittedAt, amount, at: when } of flow.slice(0, last + 1)) {
      const counts = amount < 0 ? (admittedAt ?? when) : when
      if (counts > at - millis) sum += amount
    }
    if (sum > max + slack(max)) return `${sum} within ${millis} ms until ${at} ms, where ${max} are allowed`
  }
  return undefined
}

/**
 * The level of a limit after a history. In a bucket a refund counts from its admission on, because the provider never took
 * that amount; as far as the bucket was full since, the refund is lost. In a window it counts when it comes.
 */
export const levelAt = (flow: Flow, { burst, rate, window }: Limit, now: number): number => {
  const moves = window === undefined ? asUsed(flow) : flow
  let level = burst
  let at = flow[0]?.at ?? now
  for (const movement of [...moves, { at: now, amount: 0 }]) {
    level = Math.min(burst, level + rate * (movement.at - at))
    level = Math.min(burst, level - movement.amount)
    at = movement.at
  }
  return level
}

/** The flow with each refund moved to the time of its admission. */
export const asUsed = (flow: Flow): Flow =>
  flow
    .map((movement) => (movement.amount < 0 ? { ...movement, at: movement.admittedAt ?? movement.at } : movement))
    .sort((a, b) => a.at - b.at)
