/**
 * Verdicts: which of two explanations a failed call speaks for.
 *
 * A one-sided CUSUM (Page 1954), which is Wald's sequential test restarted at 0: a failure adds log(q/p), a success
 * between two failures takes log((1-p)/(1-q)) away, where p is the rate of failures that come at random and q the rate
 * that would be worth a reaction. An alarm is raised when the score passes the logarithm of the number of calls in
 * which one false alarm may occur.
 *
 * The test does not wait for successes. Verdicts come in the order of the calls, so at a failure every call that was sent
 * earlier and has not failed counts as accepted. So an answer that takes a minute delays no verdict, and no timer is needed.
 */

/** The random rate of rejections, at least and at first. */
export const minRandom = 0.001
/** The random rate of overloads, at least and at first. */
export const minOverload = 0.01

/**
 * What a failure says. `"isolated"` concerns its own call. `"exhausted"` (the bucket was empty), `"ramp"` (usage grows too
 * fast) and `"outage"` (the provider does not work) concern every caller, and do not count as failures of the call.
 * `"impossible"`: the call is larger than the provider's limit.
 */
export type Verdict = "isolated" | "exhausted" | "ramp" | "outage" | "impossible"

export interface Test {
  /** The evidence for a reaction. */
  readonly score: number
  /** Acceptances that were left over, for failures that arrive out of order. */
  readonly surplus: number
  /** The number of the latest call that failed. */
  readonly seen: number
}

export const makeTest = (): Test => ({ score: 0, surplus: 0, seen: 0 })

/** The random rate of failures, the rate that is worth a reaction, and how many calls are still without a verdict. */
export interface Scale {
  readonly p: number
  readonly q: number
  readonly pending: number
}

/**
 * The test after the call with this number failed, with `accepted` calls since the last failure, and whether the failure is
 * the first since the score was 0.
 *
 * A failure that arrives out of order uses up acceptances that were left over, as many as there are calls without a
 * verdict. Without this, 25 random rejections of one burst that arrive in the same millisecond look like a streak.
 */
export const failed = (
  test: Test,
  number: number,
  accepted: number,
  { p, pending, q }: Scale
): Test & { readonly isFirst: boolean } => {
  const each = Math.log((1 - p) / (1 - q))
  const cost = Math.log(q / p)
  if (number > test.seen) {
    const credit = accepted * each
    const surplus = Math.min(pending * each, test.surplus + Math.max(0, credit - test.score))
    const score = Math.max(0, test.score - credit)
    return { score: score + cost, surplus, seen: number, isFirst: score === 0 }
  }
  const spent = Math.min(cost, test.surplus)
  const surplus = test.surplus - spent
  return { score: test.score + (cost - spent), surplus, seen: test.seen, isFirst: test.score === 0 }
}

/** The score at which less than one false alarm is expected in so many calls. */
export const thresholdFor = (calls: number): number => Math.log(Math.max(3, calls))

/** Calls over which the random rate is averaged: it learns 5 % in a minute at 150 calls a minute. */
const learnedOver = 150
/** The random rate at most: if more than one call in ten fails, something is wrong. */
const maxRandom = 0.1

/** The random rate after `calls` more calls, of which at most the last one failed. */
export const learn = (p: number, calls: number, hasFailed: boolean, min: number): number =>
  Math.min(maxRandom, Math.max(min, p * (1 - 1 / learnedOver) ** calls + (hasFailed ? 1 / learnedOver : 0)))
