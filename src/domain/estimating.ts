/**
 * The statistics of the estimator: moving averages with their deviation, and quantiles of the last values. The last values are
 * changed in place, because every call adds one. The last part has the synchronous forms of the library's own estimator.
 */

/** A moving average, and the moving average of the absolute deviation from it. */
export interface Trend {
  readonly mean: number
  readonly deviation: number
}

/**
 * The weights with which RFC 6298 estimates round-trip times of TCP: an eighth for the mean, a quarter for the deviation. The first
 * deviation is an eighth of the value, so the first margin is 25 %.
 */
const meanWeight = 1 / 8
const deviationWeight = 1 / 4
const firstDeviation = 1 / 8

/** If errors are normally distributed, one value in twenty is more than two mean deviations above, and one below. */
const deviations = 2

/** Adds a value to a trend; `undefined` is a trend without values. */
export const follow = (trend: Trend | undefined, value: number): Trend =>
  trend === undefined
    ? { mean: value, deviation: value * firstDeviation }
    : {
        mean: trend.mean + (value - trend.mean) * meanWeight,
        deviation: trend.deviation + (Math.abs(value - trend.mean) - trend.deviation) * deviationWeight
      }

/** An upper bound of most values. */
export const high = (trend: Trend): number => trend.mean + deviations * trend.deviation

/** A lower bound of most values. */
export const low = (trend: Trend): number => trend.mean - deviations * trend.deviation

/** The last values, and their sum. */
export interface Recent {
  /** In the order of arrival. */
  readonly values: Array<number>
  /** In ascending order. */
  readonly sorted: Array<number>
  sum: number
}

/** The number of values that are kept. */
export const size = 256

/** The first index whose value is not below `value`. */
const indexOf = (sorted: ReadonlyArray<number>, value: number): number => {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (sorted[middle]! < value) low = middle + 1
    else high = middle
  }
  return low
}

/** The last values of a list. */
export const recent = (values: ReadonlyArray<number>): Recent => {
  const last = values.slice(-size)
  return { values: last, sorted: last.toSorted((a, b) => a - b), sum: last.reduce((sum, value) => sum + value, 0) }
}

/** Adds a value, and removes the oldest if there are too many. */
export const push = (recent: Recent, value: number, max = size): void => {
  const { sorted, values } = recent
  const isFull = values.length === max
  // In ascending order, the new value first takes the place of the oldest, and then moves to its own.
  let place = isFull ? indexOf(sorted, values[0]!) : sorted.length
  if (isFull) recent.sum -= values.shift()!
  while (place > 0 && sorted[place - 1]! > value) sorted[place] = sorted[--place]!
  while (place + 1 < sorted.length && sorted[place + 1]! < value) sorted[place] = sorted[++place]!
  sorted[place] = value
  values.push(value)
  recent.sum += value
}

/**
 * The value that the next one does not exceed with probability `p`, or the largest value if there are too few.
 *
 * The rank is ceil(p (n + 1)), not ceil(p n), because the next value is equally likely to fall in each of the n + 1 gaps. This is
 * the quantile of split conformal prediction (Lei et al., 2018, https://arxiv.org/abs/1604.04173).
 */
export const quantile = ({ sorted }: Recent, p: number): number =>
  sorted[Math.min(sorted.length, Math.ceil(p * (sorted.length + 1))) - 1] ?? 0

/** The value in the middle; 0 without values. */
export const median = (recent: Recent): number => quantile(recent, 1 / 2)

/** The mean; 0 without values. */
export const mean = ({ sum, values }: Recent): number => (values.length === 0 ? 0 : sum / values.length)

/** The learned ratio of counted to measured amounts, such as tokens to bytes. What was learned last counts most. */
export interface Ratio {
  readonly counted: number
  readonly measured: number
}

/** The weight of the last value in a ratio whose values are of the same size: about the last 64 count. */
const ratioWeight = 1 / 64

/** Adds to a ratio. Large values count more, so the sum of what is expected of all is right. */
export const add = (ratio: Ratio | undefined, counted: number, measured: number): Ratio => ({
  counted: (ratio?.counted ?? 0) * (1 - ratioWeight) + counted,
  measured: (ratio?.measured ?? 0) * (1 - ratioWeight) + measured
})

// -----------------------------------------------------------------------------
// At once
// -----------------------------------------------------------------------------

/** The synchronous form of an estimator. One of the user's has none, because it may ask a provider. */
export interface Immediate<Call, Actual, Estimate> {
  /** Estimates a call, again if it has an estimate. */
  readonly estimate: (call: Call, before?: Estimate) => Estimate
  readonly learn: (call: Call, actual: Actual) => void
  /** Learns from a prompt that was counted. */
  readonly count: (call: Call, tokens: number) => void
  /** The tokens by which the estimate of a prompt may be wrong. */
  readonly uncertainty: (call: Call) => number
  /** How many answers it has learned from. */
  lessons: number
}
