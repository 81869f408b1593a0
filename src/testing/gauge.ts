/**
 * The simulated provider's count of one dimension: a token bucket, an exact sliding window, a fixed window, or a quota.
 *
 * This arithmetic is independent of the library's own buckets on purpose; otherwise it could not find their mistakes. Time is an
 * argument, in milliseconds since the provider started. A gauge is changed in place.
 */
import type * as Limits from "../Limits.ts"

const minute = 60_000
/** Levels are sums of rounded products, so differences smaller than this count as equal. */
const epsilon = 1e-6

/**
 * One dimension's count.
 *
 * **Details**
 *
 * A bucket and a quota hold a `level` (what is left, below zero in debt). A window holds `used`, with the entries that
 * make it up in `times` and `amounts` from `head` on when it slides.
 */
export interface Gauge {
  readonly kind: "bucket" | "sliding" | "fixed" | "quota"
  /** The amount that a full bucket or quota holds, or that a window allows. */
  readonly capacity: number
  /** Refill per millisecond. */
  readonly rate: number
  readonly periodMillis: number
  /** The limit as the provider states it: per minute, or in total for a quota. */
  readonly stated: number
  level: number
  used: number
  windowEnd: number
  times: Array<number>
  amounts: Array<number>
  head: number
}

/**
 * Makes a gauge as a provider reads a limit: continuously replenished by default, with a whole period's worth as burst.
 */
export const make = (limit: Limits.Limit): Gauge => {
  const max = limit.perSecond ?? limit.perMinute ?? limit.total!
  const periodMillis = limit.perSecond === undefined ? minute : 1_000
  const kind = limit.total === undefined ? (limit.window ?? "bucket") : "quota"
  const capacity = kind === "bucket" ? (limit.burst ?? max) : max
  return {
    kind,
    capacity,
    rate: kind === "quota" ? 0 : max / periodMillis,
    periodMillis,
    stated: kind === "quota" ? max : (max * minute) / periodMillis,
    level: capacity,
    used: 0,
    windowEnd: periodMillis,
    times: [],
    amounts: [],
    head: 0
  }
}

const expire = (gauge: Gauge, now: number): void => {
  while (gauge.head < gauge.times.length && gauge.times[gauge.head]! + gauge.periodMillis <= now) {
    gauge.used -= gauge.amounts[gauge.head]!
    gauge.head++
  }
  if (gauge.head === gauge.times.length) {
    gauge.times = []
    gauge.amounts = []
    gauge.head = 0
    gauge.used = 0
  } else if (gauge.head > 1_024 && gauge.head * 2 > gauge.times.length) {
    gauge.times = gauge.times.slice(gauge.head)
    gauge.amounts = gauge.amounts.slice(gauge.head)
    gauge.head = 0
  }
}

const append = (gauge: Gauge, now: number, amount: number): void => {
  if (amount === 0) return
  gauge.used += amount
  if (gauge.kind !== "sliding") return
  const last = gauge.times.length - 1
  if (last >= gauge.head && gauge.times[last] === now) {
    gauge.amounts[last]! += amount
  } else {
    gauge.times.push(now)
    gauge.amounts.push(amount)
  }
}

/**
 * Advances a gauge from `from` to `to`, with the output that was produced and the amount that a neighbour requested in between.
 *
 * **Details**
 *
 * Output counts at any level. A neighbour is under the same limit, so it gets only what is left.
 */
export const flow = (gauge: Gauge, from: number, to: number, produced: number, neighbour: number): void => {
  switch (gauge.kind) {
    case "bucket":
    case "quota": {
      const alone = gauge.level + gauge.rate * (to - from) - produced
      gauge.level = Math.min(gauge.capacity, alone > 0 ? Math.max(0, alone - neighbour) : alone)
      return
    }
    case "sliding": {
      expire(gauge, to)
      append(gauge, to, produced + Math.min(neighbour, Math.max(0, gauge.capacity - gauge.used)))
      return
    }
    case "fixed": {
      if (to >= gauge.windowEnd) {
        gauge.windowEnd = (Math.floor(to / gauge.periodMillis) + 1) * gauge.periodMillis
        gauge.used = 0
      } else {
        append(gauge, to, produced + Math.min(neighbour, Math.max(0, gauge.capacity - gauge.used)))
      }
    }
  }
}

/** The level as the provider counts it; below zero in debt. */
export const left = (gauge: Gauge): number =>
  gauge.kind === "bucket" || gauge.kind === "quota" ? gauge.level : gauge.capacity - gauge.used

/**
 * The level that a call of `amount` needs. A call that is larger than the burst, but not than a minute's worth, needs a full bucket if
 * `debt` allows it. Infinity if the call can never fit.
 */
const needed = (gauge: Gauge, amount: number, debt: boolean): number => {
  if (amount <= gauge.capacity) return amount
  return debt && gauge.kind === "bucket" && amount <= gauge.stated ? gauge.capacity : Infinity
}

/** Milliseconds until entries of at least `excess` have left a sliding window. */
const slideMillis = (gauge: Gauge, now: number, excess: number): number => {
  let freed = 0
  for (let index = gauge.head; index < gauge.times.length; index++) {
    freed += gauge.amounts[index]!
    if (freed + epsilon >= excess) return Math.ceil(gauge.times[index]! + gauge.periodMillis - now)
  }
  return gauge.periodMillis
}

/**
 * Whole milliseconds until a call of `amount` fits if nothing else happens: 0 if it fits now, infinity if it never does. The answer is
 * exact: one millisecond earlier the call does not fit.
 */
export const waitMillis = (gauge: Gauge, now: number, amount: number, debt: boolean): number => {
  const need = needed(gauge, amount, debt)
  const missing = need - left(gauge)
  if (missing <= epsilon) return 0
  if (need === Infinity || gauge.kind === "quota") return Infinity
  switch (gauge.kind) {
    case "bucket":
      return Math.ceil((missing - epsilon) / gauge.rate)
    case "sliding":
      return slideMillis(gauge, now, missing)
    case "fixed":
      return Math.ceil(gauge.windowEnd - now)
  }
}

/** Milliseconds until anything at all is left: the wait of a call whose amount is counted only later. */
export const positiveMillis = (gauge: Gauge, now: number): number => {
  const level = left(gauge)
  if (level > epsilon) return 0
  switch (gauge.kind) {
    case "quota":
      return Infinity
    case "bucket":
      return Math.floor((epsilon - level) / gauge.rate) + 1
    case "sliding":
      return slideMillis(gauge, now, 3 * epsilon - level)
    case "fixed":
      return Math.ceil(gauge.windowEnd - now)
  }
}

/** Counts an admitted call. */
export const take = (gauge: Gauge, now: number, amount: number): void => {
  if (gauge.kind === "bucket" || gauge.kind === "quota") gauge.level -= amount
  else append(gauge, now, amount)
}

/** Counts a rejected call. It empties a bucket at most, and never puts it into debt. */
export const penalise = (gauge: Gauge, now: number, amount: number): void => {
  if (gauge.kind === "bucket" || gauge.kind === "quota") {
    gauge.level -= Math.min(amount, Math.max(0, gauge.level))
  } else append(gauge, now, amount)
}

/** Milliseconds until nothing of the limit is used. */
export const fullMillis = (gauge: Gauge, now: number): number => {
  switch (gauge.kind) {
    case "quota":
      return 0
    case "bucket":
      return gauge.level >= gauge.capacity ? 0 : Math.ceil((gauge.capacity - gauge.level) / gauge.rate)
    case "sliding":
      return gauge.times.length === 0 ? 0 : Math.ceil(gauge.times[gauge.times.length - 1]! + gauge.periodMillis - now)
    case "fixed":
      return gauge.used === 0 ? 0 : Math.ceil(gauge.windowEnd - now)
  }
}
