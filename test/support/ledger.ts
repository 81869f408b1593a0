/**
 * What was given out of one limit, and whether that was more than it allows: plain sums over a history, which share no
 * code with the budget.
 */

/** What was taken of a limit at a time; negative where it was given back. */
export interface Movement {
  readonly at: number
  readonly amount: number
  /** The time of its admission, for what a settlement corrects; undefined for an admission. */
  readonly admittedAt: number | undefined
}

/** In the order in which they happened. */
export type Flow = ReadonlyArray<Movement>

export interface Bucket {
  readonly burst: number
  /** Refill per millisecond; 0 for a quota. */
  readonly rate: number
}

/** A bucket, and the most that any window of it may hold where the provider counts so. */
export interface Limit extends Bucket {
  readonly window: number | undefined
}

const slack = (amount: number): number => 1e-6 * Math.max(1, amount)

/**
 * Law 1 for a bucket: the first interval that ends with an admission in which more was taken, net of what was given back,
 * than burst + rate x interval. An admission that is larger than the burst may exceed it by the difference: that is the
 * debt that it declares. What settlements add counts, so that debt must have been paid before anybody else is admitted.
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
 * Law 1 for a window: the first span of a window's length in which more was taken than its limit. What a call gave back
 * counts for the time of its admission, what it used beyond its estimate for the time of its settlement.
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
 * What a limit holds that only the history has touched. A provider's bucket never held what a call did not use, so in a
 * bucket a refund counts from the admission on: as far as the bucket was full since, it is lost. A window is kept from what
 * was estimated, and so a refund counts there when it comes.
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

/** The flow with every refund at the time of the admission that it corrects. */
export const asUsed = (flow: Flow): Flow =>
  flow
    .map((movement) => (movement.amount < 0 ? { ...movement, at: movement.admittedAt ?? movement.at } : movement))
    .sort((a, b) => a.at - b.at)
