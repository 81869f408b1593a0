/**
 * Verdicts: which of two explanations the failures of calls are evidence for.
 *
 * A one-sided CUSUM (Page 1954), which is Wald's sequential test restarted at 0. A failure adds log(q/p) to the score, and a
 * success subtracts log((1-p)/(1-q)), where p is the rate of random failures and q the rate that is worth a reaction. The
 * alarm is at the logarithm of the number of calls in which one false alarm is accepted.
 *
 * The test does not wait for successes. Verdicts come in the order of the calls, so when a call fails, all calls that were
 * sent before it and have not failed count as accepted. An answer that takes a minute delays no verdict, and no timer is needed.
 */

/** The lowest rate of random rejections, which is also the first. */
export const minRandom = 0.001
/** The lowest rate of random overloads, which is also the first. */
export const minOverload = 0.01

/** The meaning of a failure for the limits; `fail` of a `Reservation` explains each. */
export type Verdict = "isolated" | "exhausted" | "ramp" | "outage" | "impossible"

export interface Test {
  /** The evidence for a reaction. */
  readonly score: number
  /** Acceptances that are left over for failures that arrive out of order. */
  readonly surplus: number
  /** The number of the latest call that failed. */
  readonly seen: number
}

export const makeTest = (): Test => ({ score: 0, surplus: 0, seen: 0 })

/** The rate of random failures, the rate that is worth a reaction, and the number of calls without a verdict. */
export interface Scale {
  readonly p: number
  readonly q: number
  readonly pending: number
}

/**
 * The test after a call with this number failed, and whether that is the first failure since the score was 0. `accepted` calls
 * were accepted since the last failure.
 *
 * A failure that arrives out of order uses up acceptances that were left over, at most as many as there are calls without a
 * verdict. Without this, 25 random rejections of one burst that arrive in the same millisecond would look like a streak.
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

/** The score at which less than one false alarm is expected in a number of calls. */
export const thresholdFor = (calls: number): number => Math.log(Math.max(3, calls))

/** The number of calls in the average of the random rate: 5 % are learned in a minute of 150 calls. */
const learnedOver = 150
/** The highest random rate: if more than one call in ten fails, it is not by chance. */
const maxRandom = 0.1

/** The random rate after `calls` more calls. If `hasFailed`, the last of them failed. */
export const learn = (p: number, calls: number, hasFailed: boolean, min: number): number =>
  Math.min(maxRandom, Math.max(min, p * (1 - 1 / learnedOver) ** calls + (hasFailed ? 1 / learnedOver : 0)))
