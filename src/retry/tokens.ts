/**
 * What all callers may retry in sum, as a pure step: retries that were spent are worked off by time and by calls. Time is
 * an argument.
 *
 * The shares are those of Finagle's `RetryBudget` (https://finagle.github.io/blog/2016/02/08/retry-budgets/). Where that one
 * refuses, this one lets wait: retries that are spread over time are no storm, and refused ones are lost work.
 */

export interface Rule {
  /** Retries for each call. */
  readonly ratio: number
  readonly minPerSecond: number
}

export interface Tokens {
  /** Retries that were made and are not worked off yet. */
  spent: number
  at: number
  /** Calls in flight. */
  open: number
}

/** The retries of this much time may be made at once. */
const savedMillis = 10_000

export const make = (now: number): Tokens => ({ spent: 0, at: now, open: 0 })

/** Retries that may be made at once: calls that fail together may each try once more. */
const most = ({ minPerSecond }: Rule, { open }: Tokens): number => Math.max((minPerSecond * savedMillis) / 1_000, open)

/** Retries per millisecond that there are in any case. */
const rate = (rule: Rule, tokens: Tokens): number => most(rule, tokens) / savedMillis

const advance = (rule: Rule, tokens: Tokens, now: number): void => {
  // A clock that was set back works nothing off.
  tokens.spent = Math.max(0, tokens.spent - rate(rule, tokens) * Math.max(0, now - tokens.at))
  tokens.at = now
}

/** Retries that could be made now; negative where some wait. */
export const balance = (rule: Rule, tokens: Tokens, now: number): number => {
  advance(rule, tokens, now)
  return most(rule, tokens) - tokens.spent
}

/** A call has begun. */
export const begin = (rule: Rule, tokens: Tokens, now: number): void => {
  advance(rule, tokens, now)
  tokens.open++
}

/** A call has ended, and earns its part of a retry. */
export const end = (rule: Rule, tokens: Tokens, now: number): void => {
  advance(rule, tokens, now)
  tokens.open--
  tokens.spent = Math.max(0, tokens.spent - rule.ratio)
}

/** Takes a retry, and returns after how many milliseconds it may be made; `Infinity` where there are none. */
export const take = (rule: Rule, tokens: Tokens, now: number): number => {
  advance(rule, tokens, now)
  tokens.spent += 1
  const over = tokens.spent - most(rule, tokens)
  return over <= 0 ? 0 : over / rate(rule, tokens)
}

/** A retry that was taken is not made. */
export const giveBack = (tokens: Tokens): void => {
  tokens.spent = Math.max(0, tokens.spent - 1)
}
