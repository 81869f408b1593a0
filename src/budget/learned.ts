/** The provider's limits as a budget has learned them, as plain data. */
import * as Schema from "effect/Schema"
import type * as Memory from "../pacing/memory.ts"
import { maxAmount } from "../domain/amounts.ts"
import * as Amounts from "../domain/amounts.ts"

const Amount = /* @__PURE__ */ (() => Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: maxAmount })))()

const Dimension = /* @__PURE__ */ (() =>
  Schema.Struct({
    /** The provider's limit, if headers named it. */
    perMinute: Schema.optionalKey(Amount.check(Schema.isGreaterThan(0))),
    /** The size of the full bucket as headers have shown it, if they have. */
    burst: Schema.optionalKey(Amount),
    /** Our measured share of the rate, if it is less than the limit. */
    sharePerMinute: Schema.optionalKey(Amount.check(Schema.isGreaterThan(0))),
    /** The amount that was left in the bucket; below 0 if more was used than it held. */
    level: Schema.Finite.check(Schema.isBetween({ minimum: -maxAmount, maximum: maxAmount })),
    /** The mean usage of a call. */
    mean: Amount
  }))()

const Pool = /* @__PURE__ */ (() =>
  Schema.Struct({
    pool: Schema.String,
    requests: Schema.optionalKey(Dimension),
    inputTokens: Schema.optionalKey(Dimension),
    outputTokens: Schema.optionalKey(Dimension),
    tokens: Schema.optionalKey(Dimension),
    /** The limit of calls in flight, if the provider was found to have one. */
    concurrency: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1e6 })))
  }))()

/** At most this many pools are kept. */
export const maxPools = 1_000

/**
 * Everything that a budget has learned of limits, from headers and from rejections. Its encoded form is plain JSON.
 *
 * **Example** (Keeping it between runs)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Schema from "effect/Schema"
 * import * as Budget from "floodgate/Budget"
 *
 * const Json = Schema.fromJsonString(Budget.Learned)
 *
 * const program = Effect.gen(function* () {
 *   const budget = yield* Budget.make()
 *   yield* budget.observe({ pool: "opus", dimensions: { inputTokens: { limit: 400_000, remaining: 400_000 } } })
 *   const text = yield* Schema.encodeEffect(Json)(yield* budget.learned)
 *   const learned = yield* Schema.decodeEffect(Json)(text)
 *   const restored = yield* Budget.make({ learned })
 *   return yield* restored.learned
 * })
 *
 * const { pools } = await Effect.runPromise(Effect.scoped(program))
 *
 * pools[0]!.inputTokens!.perMinute // => 400_000
 * ```
 *
 * @stability stable
 * @category schemas
 * @since 0.2.0
 */
export const Learned = /* @__PURE__ */ (() =>
  Schema.Struct({
    /** Milliseconds since the epoch. Buckets have refilled since then. */
    at: Schema.Finite,
    pools: Schema.Array(Pool).check(Schema.isMaxLength(maxPools))
  }))()

/**
 * Everything that a budget has learned of limits.
 *
 * @stability stable
 * @category models
 * @since 0.2.0
 */
export type Learned = typeof Learned.Type

type LearnedPool = Learned["pools"][number]

const minute = 60_000
const within = (value: number): number => Math.max(-maxAmount, Math.min(maxAmount, value))

/** A pool's memory as data. */
export const entryOf = (pool: string, { dimensions, window }: Memory.LearnedLimits): LearnedPool => ({
  pool,
  ...Amounts.mapDimensions<Memory.Remembered, typeof Dimension.Type>(
    dimensions,
    ({ burst, level, limit, mean, rate }) => ({
      ...(limit === undefined ? {} : { perMinute: within(limit * minute) }),
      ...(burst === undefined ? {} : { burst: within(burst) }),
      ...(rate === undefined ? {} : { sharePerMinute: within(rate * minute) }),
      level: within(level),
      mean: within(mean)
    })
  ),
  ...(window === undefined ? {} : { concurrency: Math.ceil(window) })
})

/** A pool's memory from data. */
export const memoryOf = ({ concurrency, pool: _, ...dimensions }: LearnedPool): Memory.LearnedLimits => ({
  dimensions: Amounts.mapDimensions<typeof Dimension.Type, Memory.Remembered>(
    dimensions,
    ({ burst, level, mean, perMinute, sharePerMinute }) => ({
      limit: perMinute === undefined ? undefined : perMinute / minute,
      burst,
      rate: sharePerMinute === undefined ? undefined : sharePerMinute / minute,
      level,
      mean
    })
  ),
  window: concurrency
})
