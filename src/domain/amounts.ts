/**
 * Amounts in the dimensions that are limited: estimates, usages and charges. Plain values and arithmetic.
 */
import * as Schema from "effect/Schema"
import { type Check, invalid, options } from "./input/checks.ts"

/**
 * Bytes of English text per token when nothing has been learned yet: about 2.7 since Claude 4.7. `src/Estimator.ts` has
 * the sources.
 */
export const bytesPerToken = 2.7

// -----------------------------------------------------------------------------
// Dimensions and amounts
// -----------------------------------------------------------------------------

/** The dimensions in the order in which they are reported. */
export const dimensions = ["requests", "inputTokens", "outputTokens", "tokens"] as const

/**
 * A quantity that is limited: `requests`, `inputTokens`, `outputTokens`, or `tokens` (input and output together). Its `literals` are all
 * dimensions, in the order in which they are reported.
 *
 * **Example** (All dimensions)
 *
 * ```ts doctest
 * import * as Limits from "floodgate/Limits"
 *
 * Limits.Dimension.literals // => ["requests", "inputTokens", "outputTokens", "tokens"]
 * ```
 *
 * @stability stable
 * @category schemas
 * @since 0.1.0
 */
export const Dimension = Schema.Literals(dimensions)

/**
 * A quantity that providers limit.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export type Dimension = (typeof dimensions)[number]

/**
 * The expected usage of a call. `requests` is 1 unless given, `tokens` is input plus output unless given. If `tokens` and
 * one part are given, the other part is the rest; `tokens` alone count as input, which is the cautious reading.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Estimate {
  readonly requests?: number | undefined
  readonly inputTokens?: number | undefined
  readonly outputTokens?: number | undefined
  readonly tokens?: number | undefined
}

/**
 * The actual usage of a call. A dimension that is left out keeps its estimate.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Usage extends Estimate {}

/**
 * The tokens that a call used, by the names of Anthropic's `usage`.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Actual {
  /** The part of the prompt that was neither read from the cache nor written to it. */
  readonly inputTokens: number
  /** The part that was written to the cache. @default 0 */
  readonly cacheCreationTokens?: number | undefined
  /** The part of those that the cache keeps for longer (an hour at Anthropic), which costs more. @default 0 */
  readonly cacheCreationLongTokens?: number | undefined
  /** The part that was read from it. @default 0 */
  readonly cacheReadTokens?: number | undefined
  readonly outputTokens: number
}

/**
 * A value for each of several dimensions. Public types spell it out, so that users need no name for it.
 */
export type PerDimension<A> = { readonly [D in Dimension]?: A }

/**
 * An amount for every dimension that a pool limits.
 */
export type Charge = PerDimension<number>

/**
 * An amount for each of the four dimensions.
 */
export type Whole = { readonly [D in Dimension]: number }

/**
 * The usage of a call that was rejected or never sent.
 */
export const nothing: Whole = { requests: 0, inputTokens: 0, outputTokens: 0, tokens: 0 }

// -----------------------------------------------------------------------------
// Arithmetic
// -----------------------------------------------------------------------------

/** The sum of two amounts, or their difference. */
export const plus = (a: Whole, b: Whole, sign: 1 | -1 = 1): Whole => ({
  requests: a.requests + sign * b.requests,
  inputTokens: a.inputTokens + sign * b.inputTokens,
  outputTokens: a.outputTokens + sign * b.outputTokens,
  tokens: a.tokens + sign * b.tokens
})

/** The largest limit, level and charge. */
export const maxAmount = 1e12

/** An agent's weight is between this and its inverse. The range is wider than any use needs, and sums of shares stay exact. */
export const minWeight = 0.001

/** Whether a value can be a limit, a level or a charge. */
export const isAmount = (value: unknown): value is number =>
  typeof value === "number" && value >= 0 && value <= maxAmount

/** Whether a value counts something. Sums of other numbers might not be finite, and sums of strings are strings. */
export const isCount = (value: number | undefined): value is number =>
  typeof value === "number" && value >= 0 && value <= Number.MAX_SAFE_INTEGER

const isCountOrLeftOut = (value: number | undefined): boolean => value === undefined || isCount(value)

/**
 * The value of a dimension. In loops over all dimensions, named properties are several times as fast as a computed one.
 */
export const get = <A extends { readonly [D in Dimension]?: unknown }>(self: A, dimension: Dimension): A[Dimension] => {
  switch (dimension) {
    case "requests":
      return self.requests
    case "inputTokens":
      return self.inputTokens
    case "outputTokens":
      return self.outputTokens
    case "tokens":
      return self.tokens
  }
}

/** Checks an object with a value for some of the dimensions. */
export const eachDimension = (value: Check): Check =>
  options<PerDimension<unknown>>({ requests: value, inputTokens: value, outputTokens: value, tokens: value })

/**
 * Maps the value of each dimension.
 */
export const mapDimensions = <A, B>(
  self: { readonly [D in Dimension]?: A | undefined },
  f: (value: A, dimension: Dimension) => B | undefined
): PerDimension<B> => {
  const result: { [D in Dimension]?: B } = {}
  for (const dimension of dimensions) {
    const value = self[dimension]
    const mapped = value === undefined ? undefined : f(value, dimension)
    if (mapped !== undefined) result[dimension] = mapped
  }
  return result
}

/**
 * Completes amounts by what is known without them. `tokens` are input and output together, so the whole and one part give the
 * other part. If only the whole is given, each part keeps what was known, but no more than the whole, and any excess counts as
 * input. A value that is not a count comes from a broken response and is ignored.
 */
const read = (amounts: Estimate, known: Whole): Whole => {
  const tokens = isCount(amounts.tokens) ? amounts.tokens : undefined
  const input = isCount(amounts.inputTokens) ? amounts.inputTokens : undefined
  const output = isCount(amounts.outputTokens) ? amounts.outputTokens : undefined
  const inputTokens = input ?? inputOf(tokens, output, known)
  const outputTokens = output ?? outputOf(tokens, input, known)
  return {
    requests: isCount(amounts.requests) ? amounts.requests : known.requests,
    inputTokens,
    outputTokens,
    tokens: tokens ?? (input === undefined && output === undefined ? known.tokens : inputTokens + outputTokens)
  }
}

const inputOf = (tokens: number | undefined, output: number | undefined, known: Whole): number => {
  if (tokens === undefined) return known.inputTokens
  if (output !== undefined) return Math.max(0, tokens - output)
  return Math.min(tokens, Math.max(known.inputTokens, tokens - known.outputTokens))
}

const outputOf = (tokens: number | undefined, input: number | undefined, known: Whole): number => {
  if (tokens === undefined) return known.outputTokens
  return input === undefined ? Math.min(tokens, known.outputTokens) : Math.max(0, tokens - input)
}

/** The values that complete an estimate. */
const oneRequest: Whole = { requests: 1, inputTokens: 0, outputTokens: 0, tokens: 0 }

/**
 * The amounts of an estimate in all dimensions: `requests` is 1 unless given, `tokens` is input plus output unless given. From
 * `tokens` and one part follows the other part; `tokens` alone count as input, which is the cautious reading.
 */
export const whole = (estimate: Estimate): Whole => read(estimate, oneRequest)

/**
 * The {@link whole} of a caller's estimate.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when an amount is negative or above 2^53.
 */
export const wholeOf = (estimate: Estimate, operation = "Budget.reserve"): Whole => {
  const { inputTokens, outputTokens, requests, tokens } = estimate
  const areCounts = isCountOrLeftOut(requests) && isCountOrLeftOut(inputTokens) && isCountOrLeftOut(outputTokens)
  if (areCounts && isCountOrLeftOut(tokens)) return read(estimate, oneRequest)
  const dimension = dimensions.find((each) => !isCountOrLeftOut(estimate[each]))!
  return invalid(`${operation}: ${dimension}`, "a number from 0 up to 2^53", estimate[dimension])
}

/**
 * The charge of an estimate in the limited dimensions.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when an amount is negative or above 2^53.
 */
export const charge = (estimate: Estimate, limited: PerDimension<unknown>): Charge => part(wholeOf(estimate), limited)

/** The amounts in the dimensions of `of`. */
const part = (all: Whole, of: PerDimension<unknown>): Charge => {
  // Written out, because every reservation comes through here.
  const result: { [D in Dimension]?: number } = {}
  if (of.requests !== undefined) result.requests = all.requests
  if (of.inputTokens !== undefined) result.inputTokens = all.inputTokens
  if (of.outputTokens !== undefined) result.outputTokens = all.outputTokens
  if (of.tokens !== undefined) result.tokens = all.tokens
  return result
}

/**
 * The usage of a call that was charged `held` for its estimate. A part that is missing in the usage keeps its estimate.
 *
 * **Details**
 *
 * `tokens` of the estimate may be the provider's own count and not the sum of the parts, so they are replaced only if the usage
 * has `tokens` or both parts. A value that is negative or above 2^53 comes from a broken response and is ignored.
 */
export const used = (held: Charge, usage: Usage, estimate: Estimate = held): Charge =>
  part(wholeUsed(read(estimate, oneRequest), usage, estimate), held)

/** {@link used} of a call that was charged the {@link whole} of its estimate. */
export const wholeUsed = (charge: Whole, usage: Usage, { tokens }: Estimate): Whole => {
  const all = read(usage, charge)
  if (tokens === undefined) return all
  const isWhole = isCount(usage.tokens) || (isCount(usage.inputTokens) && isCount(usage.outputTokens))
  return isWhole ? all : { ...all, tokens }
}

/** The tokens of a prompt that were not read from a cache. */
export const uncachedTokens = (actual: Actual): number => actual.inputTokens + (actual.cacheCreationTokens ?? 0)

/** All tokens of a prompt, whether or not a cache was used. */
export const promptTokens = ({ cacheCreationTokens, cacheReadTokens, inputTokens }: Actual): number =>
  inputTokens + (cacheCreationTokens ?? 0) + (cacheReadTokens ?? 0)

// -----------------------------------------------------------------------------
// Charges under limits
// -----------------------------------------------------------------------------

/** The largest charge that each limit admits. Stored states have it by this name. */
type Most = PerDimension<{ readonly most: number; readonly quota?: boolean }>

/**
 * The dominant share of a charge: the largest part that it takes of the most that a limit admits. Agents are served fairly by it.
 *
 * **Details**
 *
 * This is dominant resource fairness: a call that is large in any one dimension counts as large.
 */
export const dominantShare = (charge: Charge, limits: Most): number =>
  // Written out, because every waiting call comes through here.
  Math.max(
    share(charge.requests, limits.requests),
    share(charge.inputTokens, limits.inputTokens),
    share(charge.outputTokens, limits.outputTokens),
    share(charge.tokens, limits.tokens)
  )

const share = (value: number | undefined, limit: Most[Dimension]): number =>
  value === undefined || limit === undefined ? 0 : value / limit.most

/**
 * The first dimension in which a charge can never be admitted, if there is one.
 */
export const neverFits = (charge: Charge, limits: Most): Misfit | undefined => {
  for (const dimension of dimensions) {
    const limit = get(limits, dimension)?.most
    const asked = limit === undefined ? undefined : get(charge, dimension)
    if (asked !== undefined && asked > limit!) return { dimension, asked, limit: limit! }
  }
  return undefined
}

/** An estimate within the limits, and its charge. */
export interface Fitted {
  readonly estimate: Estimate
  readonly charge: Whole
  /** The limit that the call certainly exceeds, so that it can never be admitted. */
  readonly misfit: Misfit | undefined
}

/**
 * Computes what a call is charged even if its estimate is wrong. `mayBeCached` says whether a prompt counts as read from the cache, if it
 * may be.
 */
export type Certain = (mayBeCached: boolean) => Estimate

/**
 * Fits an estimate into limits. `certain` is what the call is charged at least; by default all of the estimate. What may be too high counts
 * as a whole limit. A quota never refills, so nobody could pay for what exceeds it: there a prompt counts as if it were not cached.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when an amount is negative or above 2^53.
 */
export const fitted = (limits: Most, estimate: Estimate, certain: Certain | undefined, operation?: string): Fitted => {
  const charge = wholeOf(estimate, operation)
  const misfit = neverFits(charge, limits)
  if (misfit === undefined || certain === undefined) return { estimate, charge, misfit }
  const reduced = within(estimate, charge, limits)
  const exceeded = neverFits(whole(certain(true)), limits) ?? neverFits(whole(certain(false)), quotasOf(limits))
  return { estimate: reduced, charge: whole(reduced), misfit: exceeded }
}

const quotasOf = (limits: Most): Most => mapDimensions(limits, (limit) => (limit.quota === true ? limit : undefined))

/** An estimate of which no dimension is larger than what its limit admits. */
const within = (estimate: Estimate, charge: Charge, limits: Most): Estimate => {
  const reduced: { [D in Dimension]?: number } = {}
  for (const dimension of dimensions) {
    const limit = get(limits, dimension)?.most ?? Infinity
    if ((get(charge, dimension) ?? 0) > limit) reduced[dimension] = limit
  }
  return { ...estimate, ...reduced }
}

/**
 * A charge that is larger than what a limit admits.
 */
export interface Misfit {
  readonly dimension: Dimension
  readonly asked: number
  readonly limit: number
}
