/**
 * What is limited, by how much, and what a call takes of it: plain values and arithmetic.
 *
 * A provider limits several **dimensions** at once (requests, input tokens, output tokens, or both kinds of tokens
 * together). A {@link Limit} says how much of one dimension it grants and how it counts; {@link resolve} turns that into
 * the {@link Rule} that a bucket runs by. Estimates and usages are {@link Amounts} over the same dimensions.
 *
 * Nothing here reads a clock or does I/O.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { invalid } from "./input/arguments.ts"

// -----------------------------------------------------------------------------
// Dimensions and amounts
// -----------------------------------------------------------------------------

/**
 * The dimensions in the order in which they are reported.
 *
 * @category models
 * @since 0.1.0
 */
export const dimensions = ["requests", "inputTokens", "outputTokens", "tokens"] as const

/**
 * A schema for {@link Dimension}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Dimension = Schema.Literals(dimensions)

/**
 * What is limited: `requests`, `inputTokens`, `outputTokens`, or `tokens` (input and output together).
 *
 * @category models
 * @since 0.1.0
 */
export type Dimension = (typeof dimensions)[number]

/**
 * An amount per dimension; a dimension that is absent is derived where it can be (see {@link charge}).
 *
 * @category models
 * @since 0.1.0
 */
export interface Amounts {
  readonly requests?: number | undefined
  readonly inputTokens?: number | undefined
  readonly outputTokens?: number | undefined
  readonly tokens?: number | undefined
}

/**
 * What a call is expected to use. `requests` is 1 unless it says otherwise.
 *
 * @category models
 * @since 0.1.0
 */
export interface Estimate extends Amounts {}

/**
 * What a call really used. A dimension that is absent keeps its estimate.
 *
 * @category models
 * @since 0.1.0
 */
export interface Usage extends Amounts {}

/**
 * Something for each of several dimensions.
 *
 * @category models
 * @since 0.1.0
 */
export type PerDimension<A> = { readonly [D in Dimension]?: A }

/**
 * An amount for every dimension that a pool limits.
 *
 * @category models
 * @since 0.1.0
 */
export type Charge = PerDimension<number>

/**
 * An amount for each of the four dimensions.
 *
 * @category models
 * @since 0.1.0
 */
export type Whole = { readonly [D in Dimension]: number }

/**
 * The usage of a call that used nothing: it was rejected, or never sent.
 *
 * @category models
 * @since 0.1.0
 */
export const nothing: Whole = { requests: 0, inputTokens: 0, outputTokens: 0, tokens: 0 }

// -----------------------------------------------------------------------------
// Limits
// -----------------------------------------------------------------------------

/**
 * How a provider counts a limit.
 *
 * - `"bucket"`: replenished continuously, as Anthropic documents
 * - `"sliding"`: no span of one period may hold more than the limit
 * - `"fixed"`: a counter that is reset each period, as Azure OpenAI
 *
 * @category models
 * @since 0.1.0
 */
export type Window = (typeof windows)[number]

const windows = ["bucket", "sliding", "fixed"] as const

/**
 * How a provider counts the limits of its dimensions. An `Accounting` says it for its provider.
 *
 * @category models
 * @since 0.2.0
 */
export type Counting = PerDimension<Window>

/**
 * The limit of one dimension: exactly one of `perSecond`, `perMinute` and `total`, or a `share` alone.
 *
 * **Details**
 *
 * - `perMinute` without a `window` is read as the provider counts that the client knows. A budget without a client keeps
 *   it safe against every kind of provider: a burst of 5 % of the limit, the rest spread over the minute, and never more
 *   than the limit within any 60 s.
 * - `perMinute` with `window: "bucket"` may use a whole minute's worth as burst.
 * - `perSecond` is a bucket that refills at that rate; its burst is one second's worth unless given.
 * - `total` never refills: a cap on a whole job.
 * - The default burst of `requests` is 5 s worth, because providers may enforce 60 a minute as one a second.
 *
 * What is stated here is a cap: what a provider's headers say can lower the rate in use, and never raises it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Limit {
  readonly perSecond?: number | undefined
  readonly perMinute?: number | undefined
  readonly total?: number | undefined
  /** The most that is granted at once, in the dimension's unit. */
  readonly burst?: number | undefined
  readonly window?: Window | undefined
  /**
   * The part that this budget may use, above 0 and at most 1, where another program should get the rest: of the stated
   * limit, else of the limit that headers name. Two programs cannot share a limit fairly without it.
   *
   * @default 1
   */
  readonly share?: number | undefined
}

/**
 * The limits of one pool. A dimension that is absent is not limited.
 *
 * **Example** (the limits of the incident report)
 *
 * ```ts doctest
 * import * as Limits from "floodgate/Limits"
 *
 * const rules = Limits.resolve({ tokens: { perSecond: 60_000, burst: 200_000 } })
 *
 * rules.tokens?.capacity // => 200_000
 * rules.tokens?.rate // => 60
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface Limits {
  readonly requests?: Limit | undefined
  readonly inputTokens?: Limit | undefined
  readonly outputTokens?: Limit | undefined
  readonly tokens?: Limit | undefined
}

/**
 * Limits per pool, for providers that give each class of models its own.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pools {
  /** By the name of the pool, which is no model's unless `poolOf` gives it. */
  readonly pools: Readonly<Record<string, Limits>>
  /** Which pool a model belongs to. @default the classes of Claude, by `Presets.poolOf`; another model is its own pool */
  readonly poolOf?: ((model: string) => string) | undefined
}

/**
 * What a bucket runs by: a resolved {@link Limit}. Amounts are in the dimension's unit, times in milliseconds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rule {
  /** The highest level: the burst. */
  readonly capacity: number
  /** Refill per millisecond; 0 for a quota. */
  readonly rate: number
  /** The largest estimate that can ever be admitted. */
  readonly most: number
  /** Where the provider counts by windows: no span of `millis` may hold more than `max`. */
  readonly window: { readonly max: number; readonly millis: number } | undefined
  /** Whether it never refills. */
  readonly quota: boolean
  /** The provider's own bucket, of which a window or a share keeps something back. */
  readonly provider: { readonly rate: number; readonly burst: number }
}

/**
 * A rule per limited dimension.
 *
 * @category models
 * @since 0.1.0
 */
export type Rules = PerDimension<Rule>

const minute = 60_000
/** DESIGN: burst + rate x 60 s stays within the limit, and 5 % is large enough not to bind. */
const safeBurst = 0.05
/** Providers may enforce 60 a minute as one a second: bursts of requests are kept to 5 s worth. */
const requestBurstMillis = 5_000

/** A number that counts something. Sums of others would not be finite, and those of texts are texts. */
const isCount = (value: number): boolean => Number.isFinite(value) && value >= 0 && value <= Number.MAX_SAFE_INTEGER

const positive = (option: string, value: number | undefined): number | undefined => {
  if (value !== undefined && !(value > 0 && isCount(value))) {
    invalid(`Limits.${option}`, "a number above 0, up to 2^53", typeof value === "string" ? `"${value}"` : value)
  }
  return value
}

const resolveLimit = (dimension: Dimension, limit: Limit, counting: Window | undefined): Rule | undefined => {
  const perSecond = positive(`${dimension}.perSecond`, limit.perSecond)
  const perMinute = positive(`${dimension}.perMinute`, limit.perMinute)
  const total = positive(`${dimension}.total`, limit.total)
  const burst = positive(`${dimension}.burst`, limit.burst)
  const share = positive(`${dimension}.share`, limit.share) ?? 1
  if (share > 1) invalid(`Limits.${dimension}.share`, "a number above 0, at most 1", share)
  const stated = [perSecond, perMinute, total].filter((value) => value !== undefined).length
  if (stated === 0 && limit.share !== undefined && burst === undefined) return undefined
  if (stated !== 1)
    invalid(`Limits.${dimension}`, "exactly one of perSecond, perMinute and total", JSON.stringify(limit))
  if (total !== undefined) {
    const capacity = total * share
    const provider = { rate: 0, burst: capacity }
    return { capacity, rate: 0, most: capacity, window: undefined, quota: true, provider }
  }
  if (limit.window !== undefined && !windows.includes(limit.window)) {
    invalid(`Limits.${dimension}.window`, `one of ${windows.join(", ")}`, limit.window)
  }
  const millis = perSecond === undefined ? minute : 1_000
  const whole = perSecond ?? perMinute!
  const max = whole * share
  const window = limit.window ?? (perMinute === undefined ? "bucket" : counting)
  const smoothed = (max * requestBurstMillis) / minute
  if (window !== "bucket") {
    const capacity = burst ?? (dimension === "requests" ? smoothed : max * safeBurst)
    if (capacity >= max) {
      invalid(`Limits.${dimension}.burst`, `less than the limit of ${max} that the window holds`, burst)
    }
    const provider = { rate: whole / millis, burst: capacity / share }
    return { capacity, rate: (max - capacity) / millis, most: max, window: { max, millis }, quota: false, provider }
  }
  const rate = max / millis
  const capacity = burst ?? (dimension === "requests" && perMinute !== undefined ? smoothed : max)
  const provider = { rate: whole / millis, burst: burst ?? capacity / share }
  return { capacity, rate, most: Math.max(capacity, rate * minute), window: undefined, quota: false, provider }
}

/**
 * Turns limits into the rules that buckets run by. `counting` is how the provider counts where a limit does not say it; a
 * limit that is a `share` alone has no rule until the provider names its limit.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` that names the option when a limit is not a number above zero, up to 2^53, when a dimension has
 * none or several of `perSecond`, `perMinute` and `total`, or when the burst fills a whole window.
 *
 * **Example** (a bare limit is safe against every kind of provider)
 *
 * ```ts doctest
 * import * as Limits from "floodgate/Limits"
 *
 * const { inputTokens } = Limits.resolve({ inputTokens: { perMinute: 400_000 } })
 *
 * inputTokens!.capacity + inputTokens!.rate * 60_000 // => 400_000
 * inputTokens!.window // => { max: 400_000, millis: 60_000 }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const resolve = (limits: Limits, counting: Counting = {}): Rules => {
  return mapDimensions<Limit, Rule>(limits, (limit, dimension) => resolveLimit(dimension, limit, counting[dimension]))
}

/**
 * The parts of limits that are stated without their limits.
 *
 * @category constructors
 * @since 0.2.0
 */
export const shares = (limits: Limits): PerDimension<number> =>
  mapDimensions<Limit, number>(limits, ({ perMinute, perSecond, share, total }) =>
    (perMinute ?? perSecond ?? total) === undefined ? share : undefined
  )

// -----------------------------------------------------------------------------
// Arithmetic
// -----------------------------------------------------------------------------

/**
 * What becomes of something for each of several dimensions, one after the other.
 *
 * @category combinators
 * @since 0.1.0
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

/** A value that is no count is ignored: it comes from a broken response. */
const said = (value: number | undefined): number | undefined =>
  value !== undefined && isCount(value) ? value : undefined

/**
 * Reads amounts that say only a part, over what is known without them. `tokens` are input and output together, so one part
 * and the whole give the other part. The whole alone bounds both: each keeps what was known, none is more than the whole,
 * and what is more than was known is input.
 */
const read = (amounts: Amounts, known: Whole): Whole => {
  const tokens = said(amounts.tokens)
  const input = said(amounts.inputTokens)
  const output = said(amounts.outputTokens)
  const inputTokens = input ?? inputOf(tokens, output, known)
  const outputTokens = output ?? outputOf(tokens, input, known)
  return {
    requests: said(amounts.requests) ?? known.requests,
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

/** A call of which nothing is said is one request. */
const unsaid: Whole = { requests: 1, inputTokens: 0, outputTokens: 0, tokens: 0 }

/**
 * All that an estimate says: `requests` is 1 unless given, `tokens` is input plus output unless given. Of `tokens` and one
 * part the rest is the other part; `tokens` alone are input, the cautious reading.
 *
 * **Example** (what is not output is input)
 *
 * ```ts doctest
 * import * as Limits from "floodgate/Limits"
 *
 * const { inputTokens, outputTokens } = Limits.whole({ tokens: 1_000, outputTokens: 300 })
 *
 * inputTokens // => 700
 * outputTokens // => 300
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const whole = (estimate: Estimate): Whole => read(estimate, unsaid)

/**
 * The {@link whole} of an estimate that a caller gives.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when an amount is negative or above 2^53.
 *
 * @category combinators
 * @since 0.2.0
 */
export const wholeOf = (estimate: Estimate): Whole => {
  checkAmount("requests", estimate.requests)
  checkAmount("inputTokens", estimate.inputTokens)
  checkAmount("outputTokens", estimate.outputTokens)
  checkAmount("tokens", estimate.tokens)
  return whole(estimate)
}

/**
 * What an estimate takes of each limited dimension: its part of the {@link whole}.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when an amount is negative or above 2^53.
 *
 * **Example** (what is not limited is not charged)
 *
 * ```ts doctest
 * import * as Limits from "floodgate/Limits"
 *
 * const rules = Limits.resolve({ requests: { perMinute: 50 }, tokens: { perMinute: 40_000 } })
 *
 * Limits.charge({ inputTokens: 1_000, outputTokens: 200 }, rules) // => { requests: 1, tokens: 1_200 }
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const charge = (estimate: Estimate, rules: Rules): Charge => part(wholeOf(estimate), rules)

const checkAmount = (dimension: Dimension, value: number | undefined): void => {
  if (value !== undefined && !isCount(value)) {
    invalid(`Estimate.${dimension}`, "a number from 0 up to 2^53", value)
  }
}

/** The amounts of those dimensions that something is said of. */
const part = (all: Whole, of: PerDimension<unknown>): Charge => {
  // Written out: every reservation comes through here.
  const result: { [D in Dimension]?: number } = {}
  if (of.requests !== undefined) result.requests = all.requests
  if (of.inputTokens !== undefined) result.inputTokens = all.inputTokens
  if (of.outputTokens !== undefined) result.outputTokens = all.outputTokens
  if (of.tokens !== undefined) result.tokens = all.tokens
  return result
}

/**
 * What a call that was charged `held` for its estimate really used. What the usage does not say keeps its estimate, part
 * by part: of a call that was estimated by its input alone, a usage that says the input says all.
 *
 * **Details**
 *
 * `tokens` that the estimate named may be the provider's own count and not the sum of the parts: they follow a usage that
 * says them or both parts. A value that is negative or above 2^53 comes from a broken response and is ignored.
 *
 * **Example** (a usage that says only the output)
 *
 * ```ts doctest
 * import * as Limits from "floodgate/Limits"
 *
 * const held = { requests: 1, inputTokens: 1_000, outputTokens: 500 }
 *
 * Limits.used(held, { outputTokens: 80 }) // => { requests: 1, inputTokens: 1_000, outputTokens: 80 }
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const used = (held: Charge, usage: Usage, estimate: Estimate = held): Charge => {
  const all = read(usage, whole(estimate))
  const isPart = said(usage.inputTokens) === undefined || said(usage.outputTokens) === undefined
  const { tokens } = said(usage.tokens) === undefined && isPart ? estimate : all
  return part(tokens === undefined ? all : { ...all, tokens }, held)
}

/**
 * The dominant share: the largest part of a limit's burst or minute that a charge takes. Agents are served fairly by it.
 *
 * **Details**
 *
 * Dominant resource fairness over the limits: a call that is large in any one dimension counts as large.
 *
 * @category combinators
 * @since 0.1.0
 */
export const dominantShare = (charge: Charge, rules: Rules): number =>
  // Written out: every waiter comes through here.
  Math.max(
    share(charge.requests, rules.requests),
    share(charge.inputTokens, rules.inputTokens),
    share(charge.outputTokens, rules.outputTokens),
    share(charge.tokens, rules.tokens)
  )

const share = (value: number | undefined, rule: Rule | undefined): number =>
  value === undefined || rule === undefined ? 0 : value / rule.most

/**
 * The first dimension in which a charge is more than can ever be admitted, if there is one.
 *
 * @category combinators
 * @since 0.1.0
 */
export const neverFits = (charge: Charge, rules: Rules): Misfit | undefined =>
  // Written out: every reservation comes through here.
  misfit("requests", charge.requests, rules.requests) ??
  misfit("inputTokens", charge.inputTokens, rules.inputTokens) ??
  misfit("outputTokens", charge.outputTokens, rules.outputTokens) ??
  misfit("tokens", charge.tokens, rules.tokens)

/**
 * A charge that is more than a limit ever admits.
 *
 * @category models
 * @since 0.1.0
 */
export interface Misfit {
  readonly dimension: Dimension
  readonly asked: number
  readonly limit: number
}

const misfit = (dimension: Dimension, asked: number | undefined, rule: Rule | undefined): Misfit | undefined =>
  asked !== undefined && rule !== undefined && asked > rule.most ? { dimension, asked, limit: rule.most } : undefined

/**
 * Whether two sets of rules say the same.
 *
 * @category guards
 * @since 0.1.0
 */
export const sameRules = (self: Rules, that: Rules): boolean =>
  dimensions.every((dimension) => {
    const a = self[dimension]
    const b = that[dimension]
    return a === undefined || b === undefined
      ? a === b
      : a.capacity === b.capacity &&
          a.rate === b.rate &&
          a.quota === b.quota &&
          a.window?.max === b.window?.max &&
          a.window?.millis === b.window?.millis
  })

/**
 * Whether any of the rules is a quota that never refills.
 *
 * @category guards
 * @since 0.1.0
 */
export const hasQuota = (rules: Rules): boolean => dimensions.some((dimension) => rules[dimension]?.quota === true)

// -----------------------------------------------------------------------------
// Signals
// -----------------------------------------------------------------------------

/**
 * What a response says about one dimension.
 *
 * @category models
 * @since 0.1.0
 */
export interface DimensionSignal {
  /** The limit per minute. */
  readonly limit?: number | undefined
  /** What the provider has left, as it counts. */
  readonly remaining?: number | undefined
  /** The step that `remaining` is rounded to (Anthropic rounds tokens to the nearest thousand); 1 when exact. */
  readonly roundedTo?: number | undefined
  /** Milliseconds until the dimension is full again. */
  readonly resetMillis?: number | undefined
  /**
   * How the provider counts, where its documentation says so: a limit that was not configured is learned as this.
   *
   * @default unknown: a learned limit is kept safe against every kind
   */
  readonly window?: Window | undefined
}

/**
 * What a response says about the limits. Providers' adapters make it from headers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Signal {
  readonly dimensions: PerDimension<DimensionSignal>
  /** The provider's own time of the response (the `date` header), milliseconds since the epoch. */
  readonly date?: number | undefined
}
