/**
 * The retry budget: what all callers may retry in sum.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { invalid } from "../input/arguments.ts"
import * as Tokens from "./tokens.ts"

/**
 * The options of a {@link RetryBudget}. Both are counted over ten seconds, as in Finagle.
 *
 * @category options
 * @since 0.1.0
 */
export interface RetryBudgetOptions {
  /**
   * The most retries per call. It is Finagle's value: at worst the provider sees a fifth more requests than there are
   * calls.
   *
   * @default 0.2
   */
  readonly ratio?: number | undefined
  /**
   * Retries per second that are allowed in addition, or a tenth of the calls in flight if that is more. Finagle's 10
   * suit thousands of requests a second.
   *
   * @default 2
   */
  readonly minPerSecond?: number | undefined
}

/**
 * A limit on the retries of all callers that share it.
 *
 * @category models
 * @since 0.1.0
 */
export interface RetryBudget {
  /** A call begins. While it is in flight, it may be retried once in any case. */
  readonly begin: Effect.Effect<void>
  /** A call has ended and earns its share of a retry. */
  readonly end: Effect.Effect<void>
  /** Takes a retry and returns how long to wait before making it; infinite if retries are not allowed. */
  readonly take: Effect.Effect<Duration.Duration>
  /** Gives back a retry that is not made. */
  readonly giveBack: Effect.Effect<void>
  /** How many retries could be made now without a wait; negative if some wait. */
  readonly balance: Effect.Effect<number>
}

const resolveBudget = (options: RetryBudgetOptions): Tokens.Rule => {
  const { minPerSecond = 2, ratio = 0.2 } = options
  if (!(ratio >= 0 && ratio < Infinity)) invalid("Retry.ratio", "a finite number >= 0", ratio)
  if (!(minPerSecond >= 0 && minPerSecond < Infinity))
    invalid("Retry.minPerSecond", "a finite number >= 0", minPerSecond)
  return { ratio, minPerSecond }
}

const budgetOf = (rule: Tokens.Rule): RetryBudget => {
  const tokens = Tokens.make(0)
  const now = Clock.clockWith((clock) => Effect.succeed(clock.currentTimeMillisUnsafe()))
  return {
    begin: Effect.map(now, (now) => Tokens.begin(rule, tokens, now)),
    end: Effect.map(now, (now) => Tokens.end(rule, tokens, now)),
    take: Effect.map(now, (now) => Duration.millis(Tokens.take(rule, tokens, now))),
    giveBack: Effect.sync(() => Tokens.giveBack(tokens)),
    balance: Effect.map(now, (now) => Tokens.balance(rule, tokens, now))
  }
}

/** Times of different clocks cannot be compared, and tests must not exhaust each other's budget: one for each. */
const budgets = new WeakMap<Clock.Clock, RetryBudget>()

const ofProcess = <A>(use: (budget: RetryBudget) => Effect.Effect<A>): Effect.Effect<A> =>
  Clock.clockWith((clock) => {
    let budget = budgets.get(clock)
    if (budget === undefined) {
      budget = budgetOf(resolveBudget({}))
      budgets.set(clock, budget)
    }
    return use(budget)
  })

/**
 * The retry budget that {@link withPolicy} takes from: retries are at most a fifth of all calls, plus 2 per second or a
 * tenth of the calls in flight.
 *
 * **Details**
 *
 * Without a layer there is one budget for the whole process, because the provider sees all its retries together. There
 * is one per `Clock`, so that tests under a `TestClock` start fresh. {@link layerBudget} gives a part of the program
 * its own, and {@link layerBudgetUnlimited} removes the limit.
 *
 * When it is spent, retries wait for a token; they do not fail. Retries after rate limits and outages are not taken
 * from it, because the token budget paces those.
 *
 * Source of the shares: https://finagle.github.io/blog/2016/02/08/retry-budgets/
 *
 * **Example** (Reading the balance)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const program = Effect.gen(function* () {
 *   const budget = yield* Retry.RetryBudget
 *   yield* budget.take
 *   return Math.floor(yield* budget.balance)
 * })
 *
 * await Effect.runPromise(Effect.provide(program, Retry.layerBudget({ minPerSecond: 1 }))) // => 9
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export const RetryBudget: Context.Reference<RetryBudget> = Context.Reference<RetryBudget>(
  "floodgate/Retry/RetryBudget",
  {
    defaultValue: () => ({
      begin: ofProcess((budget) => budget.begin),
      end: ofProcess((budget) => budget.end),
      take: ofProcess((budget) => budget.take),
      giveBack: ofProcess((budget) => budget.giveBack),
      balance: ofProcess((budget) => budget.balance)
    })
  }
)

/**
 * A retry budget of its own for the part of the program that the layer is provided to.
 *
 * **Details**
 *
 * Provided to the layer of a governor or a client, it applies to all its calls whose callers have no retry budget of
 * their own.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when `ratio` or `minPerSecond` is negative or not finite.
 *
 * **Example** (Five calls earn a retry)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const program = Effect.gen(function* () {
 *   const budget = yield* Retry.RetryBudget
 *   yield* budget.take
 *   yield* Effect.replicateEffect(Effect.andThen(budget.begin, budget.end), 5)
 *   return yield* budget.balance
 * })
 *
 * await Effect.runPromise(Effect.provide(program, Retry.layerBudget({ minPerSecond: 1 }))) // => 10
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBudget = (options: RetryBudgetOptions = {}): Layer.Layer<never> => {
  const rule = resolveBudget(options)
  return Layer.effect(
    RetryBudget,
    Effect.sync(() => budgetOf(rule))
  )
}

/**
 * Removes the limit on the retries of all callers. Use it in tests, and in programs with few calls.
 *
 * **Example** (Reading its balance)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const balance = Effect.flatMap(Retry.RetryBudget, (budget) => budget.balance)
 *
 * await Effect.runPromise(Effect.provide(balance, Retry.layerBudgetUnlimited)) // => Infinity
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBudgetUnlimited: Layer.Layer<never> = Layer.succeed(RetryBudget, {
  begin: Effect.void,
  end: Effect.void,
  take: Effect.succeed(Duration.zero),
  giveBack: Effect.void,
  balance: Effect.succeed(Infinity)
})
