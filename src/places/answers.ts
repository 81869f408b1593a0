/**
 * How long the answers of a place take: a base and a time for each output token, by a straight line through the last answers. Pure.
 */

/** Moving averages over the answers of a place. Times are in milliseconds. */
export interface AnswerTimes {
  readonly count: number
  /** The mean output tokens and the mean time. */
  readonly tokens: number
  readonly millis: number
  /** The variance of the tokens, and their covariance with the times. */
  readonly variance: number
  readonly covariance: number
  /** The mean absolute error of what was expected when calls were sent. */
  readonly error: number
}

/** The weight of the last answer: about the last ten count. */
const weight = 1 / 8
/** An error is learned sooner than a mean, as RFC 6298 does for round-trip times. The first error is an eighth of the time. */
const errorWeight = 1 / 4
const firstError = 1 / 8
/** An answer takes longer than expected by this many mean errors once in about fifty times. */
const errors = 3

/** The times after another answer. It was expected to have so many tokens. */
export const follow = (
  times: AnswerTimes | undefined,
  tokens: number,
  millis: number,
  expectedTokens = tokens
): AnswerTimes => {
  if (times === undefined) return { count: 1, tokens, millis, variance: 0, covariance: 0, error: millis * firstError }
  const count = times.count + 1
  const w = Math.max(weight, 1 / count)
  const byTokens = tokens - times.tokens
  const byMillis = millis - times.millis
  const error = Math.abs(millis - expected(times, expectedTokens))
  return {
    count,
    tokens: times.tokens + w * byTokens,
    millis: times.millis + w * byMillis,
    variance: (1 - w) * (times.variance + w * byTokens * byTokens),
    covariance: (1 - w) * (times.covariance + w * byTokens * byMillis),
    error: times.error + (error - times.error) * errorWeight
  }
}

/** How long an answer of so many tokens takes. Neither the base nor the time for a token is below zero. */
export const expected = ({ covariance, millis, tokens, variance }: AnswerTimes, output: number): number => {
  const slope = variance > 0 ? Math.min(Math.max(0, covariance / variance), tokens > 0 ? millis / tokens : 0) : 0
  return Math.max(0, millis + slope * (output - tokens))
}

/** By how much an answer may take longer than is expected. */
export const margin = ({ error }: AnswerTimes): number => errors * error

/** The assumption until an answer has come from any place. */
const usualAnswer = 10_000

/** An answer is late after this part of its expected time. If nothing else is known, it then takes as long again. */
const late = 1.5
const asLongAgain = 2
/** A single late answer says little about the others. */
const maxLate = 3
/** The number of late answers beyond which more say nothing new. */
const maxCounted = 16

/**
 * How many times longer answers take now than was learned, by the ages of calls without an answer, from the oldest on: each counts as
 * the answer that it is expected to become. `usual` says how long each was expected to take.
 */
export const slowdown = <C>(sent: Iterable<C>, ageOf: (call: C) => number, usual: (call: C) => number): number => {
  let times = 1
  let counted = 0
  for (const call of sent) {
    const part = ageOf(call) / Math.max(1, usual(call))
    if (part <= late || counted++ === maxCounted) break
    times += (Math.min(maxLate, asLongAgain * part) - times) * weight
  }
  return times
}

/**
 * How long answers take where none has come since the first call was sent, `age` ago. A place that nobody has tried counts as the `best`
 * of the others usually is, if there is one that has answered.
 */
export const guess = (age: number, best: number | undefined): number =>
  best === undefined ? Math.max(usualAnswer, age) : Math.max(best, asLongAgain * age)

/** Whether a call that has taken so long without an answer has taken longer than an answer. */
export const isLate = (times: AnswerTimes, millis: number, output: number): boolean =>
  millis > late * expected(times, output)
