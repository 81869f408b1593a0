/**
 * The retry budget: what all callers may retry in sum.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { invalid, onlyKnown } from "../internal/invalid.ts"
import * as Step from "../internal/retryBudget.ts"

/**
 * The options of a {@link RetryBudget}. Both are counted over ten seconds, as in Finagle.
 *
 * @category options
 * @since 0.1.0
 */
export interface RetryBudgetOptions {
  /**
   * The most retries per call. Finagle's value: in the worst case the provider sees a fifth more than there are calls.
   *
   * @default 0.2
   */
  readonly ratio?: number | undefined
  /**
   * Retries per second that are allowed besides, however few calls there are. Finagle's 10 suit thousands of requests a
   * second; with 2, up to 25 agents that are rejected together may each try again.
   *
   * @default 2
   */
  readonly minPerSecond?: number | undefined
}

/**
 * A limit on retries in sum, shared by all who hold it.
 *
 * @category models
 * @since 0.1.0
 */
export interface RetryBudget {
  /** Counts a call, which earns its share of a retry. */
  readonly deposit: Effect.Effect<void>
  /** Takes one retry, and says whether it was there to take. */
  readonly withdraw: Effect.Effect<boolean>
  /** How many retries could be taken now; a fraction is not one yet. */
  readonly balance: Effect.Effect<number>
}

const resolveBudget = (options: RetryBudgetOptions): Step.Rule => {
  onlyKnown("Retry.makeBudget", options, { ratio: true, minPerSecond: true })
  const { minPerSecond = 2, ratio = 0.2 } = options
  if (!(ratio >= 0 && ratio < Infinity)) invalid("Retry.ratio", "a finite number >= 0", ratio)
  if (!(minPerSecond >= 0 && minPerSecond < Infinity))
    invalid("Retry.minPerSecond", "a finite number >= 0", minPerSecond)
  return { ratio, minPerSecond }
}

const budgetOf = (rule: Step.Rule): RetryBudget => {
  let state = Step.empty
  const apply = (event: Step.Event): Effect.Effect<boolean> =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      const decision = Step.step(rule, state, now, event)
      state = decision.state
      return decision.allowed
    })
  return {
    deposit: Effect.asVoid(apply("call")),
    withdraw: apply("retry"),
    balance: Effect.map(Clock.currentTimeMillis, (now) => Step.balance(rule, state, now))
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
 * The retry budget that {@link withPolicy} takes from: retries are at most a fifth of all calls, plus 2 per second,
 * over the last ten seconds.
 *
 * **Details**
 *
 * Without a layer there is one budget for the whole process, because the provider sees one storm, whichever parts of
 * the program take part in it. There is one per `Clock`, so that tests under a `TestClock` start afresh. {@link
 * layerBudget} gives a part of the program its own, {@link layerBudgetUnlimited} takes the limit away.
 *
 * A call counts when its first attempt ends: while it waits in a queue it earns nothing, and if it is interrupted there, or
 * a client's budget refuses it, it never does. A retry that is interrupted in its wait stays counted.
 *
 * A call that finds the budget exhausted gets the original error at once. Nobody waits for it: retries that wait are
 * still retries.
 *
 * Source: https://finagle.github.io/blog/2016/02/08/retry-budgets/
 *
 * **Example** (Reading the balance)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const program = Effect.gen(function* () {
 *   const budget = yield* Retry.RetryBudget
 *   yield* budget.withdraw
 *   return yield* budget.balance
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
      deposit: ofProcess((budget) => budget.deposit),
      withdraw: ofProcess((budget) => budget.withdraw),
      balance: ofProcess((budget) => budget.balance)
    })
  }
)

/**
 * Makes a retry budget, which begins with the floor of ten seconds.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when `ratio` or `minPerSecond` is negative or not finite.
 *
 * **Example** (Five calls earn a retry)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const program = Effect.gen(function* () {
 *   const budget = yield* Retry.makeBudget({ minPerSecond: 0 })
 *   yield* Effect.replicateEffect(budget.deposit, 5)
 *   return [yield* budget.withdraw, yield* budget.withdraw]
 * })
 *
 * await Effect.runPromise(program) // => [true, false]
 * ```
 *
 * @see {@link layerBudget} for providing it
 * @category constructors
 * @since 0.1.0
 */
export const makeBudget = (options: RetryBudgetOptions = {}): Effect.Effect<RetryBudget> => {
  const rule = resolveBudget(options)
  return Effect.sync(() => budgetOf(rule))
}

/**
 * A retry budget of its own for the part of the program that the layer is provided to.
 *
 * **Details**
 *
 * Provided to the layer of a governor or a client, it is for all calls of that one whose callers have none of their own.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` as {@link makeBudget} does.
 *
 * **Example** (No retries beyond a tenth of the calls)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const call = Effect.fail({ isRetryable: true })
 * const strict = Retry.layerBudget({ ratio: 0.1, minPerSecond: 0 })
 * const program = call.pipe(Retry.withPolicy(Retry.defaultPolicy), Effect.flip, Effect.provide(strict))
 *
 * Retry.stoppedBy(await Effect.runPromise(program)) // => "retryBudget"
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBudget = (options: RetryBudgetOptions = {}): Layer.Layer<never> =>
  Layer.effect(RetryBudget, makeBudget(options))

/**
 * No limit on retries in sum. For tests, and for programs that make so few calls that a storm cannot be.
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
  deposit: Effect.void,
  withdraw: Effect.succeed(true),
  balance: Effect.succeed(Infinity)
})
