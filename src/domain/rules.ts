/**
 * Limits as a user writes them, and the rules that they are resolved to.
 */
import * as Input from "./input/checks.ts"
import { shown } from "./input/shown.ts"
import { type Dimension, dimensions, eachDimension, isCount, mapDimensions, type PerDimension } from "./amounts.ts"

// -----------------------------------------------------------------------------
// Limits
// -----------------------------------------------------------------------------

/** A provider's way to count a limit, see {@link Limit}. */
type WindowKind = NonNullable<Limit["window"]>

const windows: ReadonlyArray<WindowKind> = ["bucket", "sliding", "fixed"]

/**
 * A provider's way to count the limits of its dimensions; part of its `Accounting`.
 */
export type Counting = PerDimension<WindowKind>

/**
 * The limit of one dimension: exactly one of `perSecond`, `perMinute` and `total`, or a `share` alone.
 *
 * **Details**
 *
 * - `perMinute` without a `window` is read as the client's provider counts. A budget without a client keeps the limit
 *   safe for every provider: a burst of 5 % of the limit, the rest spread over the minute, and never more than the
 *   limit within any 60 s.
 * - `perMinute` with `window: "bucket"` may use a whole minute's worth as burst.
 * - `perSecond` is a bucket that refills at that rate; its burst is one second's worth unless given.
 * - `total` never refills: a cap on a whole job.
 * - The default burst of `requests` is 5 s worth until headers show more, because providers may enforce 60 a minute as
 *   one a second.
 *
 * A stated limit is a cap. A provider's headers can lower the rate in use but never raise it above the limit.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Limit {
  readonly perSecond?: number | undefined
  readonly perMinute?: number | undefined
  readonly total?: number | undefined
  /** The most that is granted at once, in the dimension's unit. */
  readonly burst?: number | undefined
  /**
   * How the provider counts.
   *
   * - `"bucket"`: replenished continuously, as Anthropic documents
   * - `"sliding"`: no span of one period may hold more than the limit
   * - `"fixed"`: a counter that is reset each period, as Azure OpenAI
   *
   * @default as the provider of the client counts, else safe with every provider
   */
  readonly window?: "bucket" | "sliding" | "fixed" | undefined
  /**
   * The part of the limit that this budget may use, above 0 and at most 1, if another program should get the rest. It
   * applies to the stated limit, or to the limit in the headers. Two programs cannot share a limit fairly without it.
   * Headers that show how much others use do not slow a stated share down; rejections do.
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
 * import * as Effect from "effect/Effect"
 * import * as Budget from "floodgate/Budget"
 * import type { Limits } from "floodgate/Limits"
 *
 * const incident: Limits = { tokens: { perSecond: 60_000, burst: 200_000 } }
 *
 * const capacity = Effect.gen(function* () {
 *   yield* Budget.consume(0)
 *   const budget = yield* Budget.TokenBudget
 *   return (yield* budget.status).pools.default!.dimensions.tokens!.capacity
 * })
 *
 * await Effect.runPromise(Effect.provide(capacity, Budget.layer({ limits: incident }))) // => 200_000
 * ```
 *
 * @stability stable
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
 * Limits per pool, for providers with separate limits for each class of models.
 *
 * @stability stable
 * @category models
 * @since 0.1.0
 */
export interface Pools {
  /** The limits of each pool by its name, which must not be the name of a model unless `poolOf` returns it. */
  readonly pools: Readonly<Record<string, Limits>>
  /** Which pool a model belongs to. @default the classes of Claude, by `Presets.poolOf`; another model is its own pool */
  readonly poolOf?: ((model: string) => string) | undefined
}

// -----------------------------------------------------------------------------
// Rules
// -----------------------------------------------------------------------------

/** A resolved {@link Limit}. Amounts are in the dimension's unit, times in milliseconds. */
export interface Rule {
  /** The highest level of the bucket: the burst. */
  readonly capacity: number
  /** Refill per millisecond; 0 for a quota. */
  readonly rate: number
  /** The largest estimate that can be admitted. Stored states have it by this name. */
  readonly most: number
  /** If the provider counts by windows: no span of `millis` may hold more than `max`. */
  readonly window: { readonly max: number; readonly millis: number } | undefined
  /** Whether the bucket never refills. */
  readonly quota: boolean
  /** The part of the limit that this budget may use; 1 if all of it. */
  readonly share: number
  /** The provider's own bucket, which is larger if a window or a share keeps something back. */
  readonly provider: { readonly rate: number; readonly burst: number }
}

/**
 * A rule per limited dimension.
 */
export type Rules = PerDimension<Rule>

const minute = 60_000
/** The burst of a limit that is kept in any 60 s: burst + rate x 60 s is the limit, and 5 % is large enough for most calls. */
const safeBurst = 0.05
/** Providers may enforce 60 requests a minute as one a second, so bursts are kept to the refill of this time. */
const requestBurstMillis = 5_000

// -----------------------------------------------------------------------------
// Checks
// -----------------------------------------------------------------------------

const amount = Input.number("a number above 0, up to 2^53", (value) => value > 0 && isCount(value))

const limitOptions = Input.options<Limit>({
  perSecond: amount,
  perMinute: amount,
  total: amount,
  burst: amount,
  window: Input.oneOf(...windows),
  share: Input.number("a number above 0, at most 1", (value) => value > 0 && value <= 1)
})

const isStated = ({ perMinute, perSecond, total }: Limit): boolean => (perMinute ?? perSecond ?? total) !== undefined

/** Whether a limit is only a `share` of what headers will name. */
const isShare = (limit: Limit): boolean => !isStated(limit) && limit.share !== undefined && limit.burst === undefined

/** Checks the options of a limit together, after each by itself. */
const together: Input.Check = (value) => {
  const limit = value as Limit
  const { burst, perMinute, perSecond, share = 1, total, window } = limit
  if (isShare(limit)) return undefined
  if ([perSecond, perMinute, total].filter((rate) => rate !== undefined).length !== 1) {
    return Input.problem(`expected exactly one of perSecond, perMinute and total, got ${shown(limit)}`)
  }
  const isBucket = (window ?? (perMinute === undefined ? "bucket" : undefined)) === "bucket"
  const max = (perSecond ?? perMinute ?? Infinity) * share
  if (total !== undefined || isBucket || burst === undefined || burst < max) return undefined
  return { place: ".burst", text: `expected less than the limit of ${max} that the window holds, got ${shown(burst)}` }
}

const limit = Input.all(limitOptions, together)

/** Checks the limits of a pool. */
export const check: Input.Check = eachDimension(limit)

// -----------------------------------------------------------------------------
// Resolving
// -----------------------------------------------------------------------------

const resolveLimit = (dimension: Dimension, limit: Limit, counting: WindowKind | undefined): Rule | undefined => {
  if (isShare(limit)) return undefined
  const { burst, perMinute, perSecond, share = 1, total } = limit
  if (total !== undefined) {
    const capacity = total * share
    const provider = { rate: 0, burst: capacity }
    return { capacity, rate: 0, most: capacity, window: undefined, quota: true, share, provider }
  }
  const millis = perSecond === undefined ? minute : 1_000
  const whole = perSecond ?? perMinute!
  const max = whole * share
  const window = limit.window ?? (perMinute === undefined ? "bucket" : counting)
  const smoothed = (max * requestBurstMillis) / minute
  if (window !== "bucket") {
    const capacity = burst ?? (dimension === "requests" ? smoothed : max * safeBurst)
    const provider = { rate: whole / millis, burst: capacity / share }
    return {
      capacity,
      rate: (max - capacity) / millis,
      most: max,
      window: { max, millis },
      quota: false,
      share,
      provider
    }
  }
  const rate = max / millis
  const capacity = burst ?? max
  const isSmoothed = dimension === "requests" && perMinute !== undefined
  const provider = { rate: whole / millis, burst: burst ?? (isSmoothed ? smoothed : max) / share }
  return { capacity, rate, most: Math.max(capacity, rate * minute), window: undefined, quota: false, share, provider }
}

/**
 * Resolves limits to rules. `counting` says how the provider counts limits without a `window`. A limit that is only a `share`
 * has no rule until headers name the provider's limit.
 */
export const resolve = (limits: Limits, counting: Counting = {}): Rules =>
  mapDimensions<Limit, Rule>(limits, (limit, dimension) => resolveLimit(dimension, limit, counting[dimension]))

/**
 * The shares that are stated without a limit.
 */
export const shares = (limits: Limits): PerDimension<number> =>
  mapDimensions<Limit, number>(limits, (limit) => (isStated(limit) ? undefined : limit.share))

/**
 * Whether two sets of rules are equal. A resolved set may have properties that are undefined, which a stored set lacks.
 */
export const sameRules = (self: Rules, that: Rules): boolean => JSON.stringify(self) === JSON.stringify(that)

/**
 * Whether any of the rules is a quota that never refills.
 */
export const hasQuota = (rules: Rules): boolean => dimensions.some((dimension) => rules[dimension]?.quota === true)
