/**
 * Learning from what was seen: a moving average that knows how far it is off, and the quantiles of the last values.
 * Every call learns, so the last values are changed in place.
 */

/** A moving average, and the moving average of the distance from it. */
export interface Trend {
  readonly mean: number
  readonly deviation: number
}

/**
 * The weights of RFC 6298, which estimates round-trip times of TCP in the same way: an eighth for the mean, a quarter for
 * the deviation. The first deviation is an eighth of the value, which makes a margin of 25 %.
 */
const meanWeight = 1 / 8
const deviationWeight = 1 / 4
const firstDeviation = 1 / 8

/** For normal errors, two mean deviations leave out one value in twenty on each side. */
const deviations = 2

/** Follows a trend with one more value; `undefined` is a trend of nothing. */
export const follow = (trend: Trend | undefined, value: number): Trend =>
  trend === undefined
    ? { mean: value, deviation: value * firstDeviation }
    : {
        mean: trend.mean + (value - trend.mean) * meanWeight,
        deviation: trend.deviation + (Math.abs(value - trend.mean) - trend.deviation) * deviationWeight
      }

/** A bound that few values are above. */
export const high = (trend: Trend): number => trend.mean + deviations * trend.deviation

/** A bound that few values are below. */
export const low = (trend: Trend): number => trend.mean - deviations * trend.deviation

/** The last values, in the order in which they came and in ascending order, and their sum. */
export interface Recent {
  readonly values: Array<number>
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

/** The last of some values. */
export const recent = (values: ReadonlyArray<number>): Recent => {
  const last = values.slice(-size)
  return { values: last, sorted: last.toSorted((a, b) => a - b), sum: last.reduce((sum, value) => sum + value, 0) }
}

/** Adds a value; the oldest leaves when there are too many. */
export const push = (recent: Recent, value: number): void => {
  const { sorted, values } = recent
  const isFull = values.length === size
  // In the ascending order, the new value takes the place of the oldest, and moves to where it belongs.
  let place = isFull ? indexOf(sorted, values[0]!) : sorted.length
  if (isFull) recent.sum -= values.shift()!
  while (place > 0 && sorted[place - 1]! > value) sorted[place] = sorted[--place]!
  while (place + 1 < sorted.length && sorted[place + 1]! < value) sorted[place] = sorted[++place]!
  sorted[place] = value
  values.push(value)
  recent.sum += value
}

/**
 * What the next value is at most with probability `p`, if it comes as the others did; the largest, where there are too
 * few to say.
 *
 * The rank is ceil(p (n + 1)), not ceil(p n): the next value is equally likely to fall in each of the n + 1 gaps. This is
 * the quantile of split conformal prediction (Lei et al., 2018, https://arxiv.org/abs/1604.04173).
 */
export const quantile = ({ sorted }: Recent, p: number): number =>
  sorted[Math.min(sorted.length, Math.ceil(p * (sorted.length + 1))) - 1] ?? 0

/** The mean; 0 of nothing. */
export const mean = ({ sum, values }: Recent): number => (values.length === 0 ? 0 : sum / values.length)
