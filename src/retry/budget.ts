/**
 * The retry budget: what all callers may retry in sum.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import { check, notNegative, number, options as optionsOf } from "../input/checks.ts"

/**
 * The options of a {@link RetryBudget}. Both are counted over ten seconds, as in Finagle.
 *
 * @category options
 * @since 0.1.0
 */
type RetryBudgetOptions = {
  /**
   * The most retries per call. It is Finagle's value: at worst the provider sees a fifth more requests than there are
   * calls.
   *
   * @default 0.2
   */
  readonly ratio?: number | undefined
  /**
   * Retries per second that are allowed in addition, or a tenth of the calls in flight if that is more. Finagle's 10
   * suit thousands of requests a second. With `Infinity` nothing limits retries, for tests and programs with few calls.
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
  /** Counts a call: while it is in flight, it may be retried once in any case, and its end earns its share of a retry. */
  readonly track: <A, E, R>(call: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Takes a retry and returns how long to wait before making it; infinite if retries are not allowed. */
  readonly take: Effect.Effect<Duration.Duration>
  /** Gives back a retry that is not made. */
  readonly giveBack: Effect.Effect<void>
  /** How many retries could be made now without a wait; negative if some wait. */
  readonly balance: Effect.Effect<number>
}

/** What the retry budget counts; see {@link RetryBudgetOptions}. */
export interface Rule {
  /** Retries for each call. */
  readonly ratio: number
  readonly minPerSecond: number
}

/** The retries of this much time may be made at once. */
const savedMillis = 10_000

/**
 * Retries that were made, as a pure step: time and calls work them off. Time is an argument.
 *
 * The shares are those of Finagle's `RetryBudget` (https://finagle.github.io/blog/2016/02/08/retry-budgets/). That one
 * refuses retries, and this one delays them: retries that are spread over time are no storm, and a refused one is lost work.
 */
export class Tokens {
  private readonly rule: Rule
  /** Retries that were made and are not worked off yet. */
  private spent = 0
  private at: number
  /** Calls in flight. */
  open = 0

  constructor(rule: Rule, now: number) {
    this.rule = rule
    this.at = now
  }

  /** Works off what the time since the last event allows. Returns the retries that may be made at once. */
  private advance(now: number): number {
    // Calls that fail together may each be retried once.
    const most = Math.max((this.rule.minPerSecond * savedMillis) / 1_000, this.open)
    // A clock that was set back works nothing off.
    this.spent = Math.max(0, this.spent - (most / savedMillis) * Math.max(0, now - this.at))
    this.at = now
    return most
  }

  /** Retries that could be made now; negative if some wait. */
  balance(now: number): number {
    return this.advance(now) - this.spent
  }

  /** A call has begun. Where nothing is spent, there is nothing to work off. */
  begin(now: number): void {
    if (this.spent > 0) this.advance(now)
    this.open++
  }

  /** A call has ended, and earns its share of a retry. */
  end(now: number): void {
    if (this.spent > 0) this.advance(now)
    this.open--
    this.spent = Math.max(0, this.spent - this.rule.ratio)
  }

  /** Takes a retry, and returns after how many milliseconds it may be made; `Infinity` if there are none. */
  take(now: number): number {
    const most = this.advance(now)
    this.spent += 1
    const over = this.spent - most
    return over <= 0 ? 0 : over / (most / savedMillis)
  }

  /** A retry that was taken is not made. */
  giveBack(): void {
    this.spent = Math.max(0, this.spent - 1)
  }
}

const budgetOptions = optionsOf<RetryBudgetOptions>({
  ratio: notNegative,
  minPerSecond: number("a number >= 0", (value) => value >= 0)
})

const resolveBudget = ({ minPerSecond = 2, ratio = 0.2 }: RetryBudgetOptions): Rule => ({ ratio, minPerSecond })

/** A budget keeps to one clock: times of different clocks cannot be compared. */
const budgetOf = (rule: Rule, clock: Clock.Clock): RetryBudget => {
  if (rule.minPerSecond === Infinity) return unlimited
  const now = (): number => clock.currentTimeMillisUnsafe()
  const tokens = new Tokens(rule, now())
  return {
    track: (call) =>
      Effect.uninterruptibleMask((restore) => {
        tokens.begin(now())
        return Effect.onExitPrimitive(restore(call), () => {
          tokens.end(now())
          return undefined
        })
      }),
    take: Effect.sync(() => Duration.millis(tokens.take(now()))),
    giveBack: Effect.sync(() => tokens.giveBack()),
    balance: Effect.sync(() => tokens.balance(now()))
  }
}

/** Every retry may be made at once. */
const unlimited: RetryBudget = {
  track: identity,
  take: Effect.succeed(Duration.zero),
  giveBack: Effect.void,
  balance: Effect.succeed(Infinity)
}

/** One for each clock, so that tests do not exhaust each other's. */
const budgets = new WeakMap<Clock.Clock, RetryBudget>()

/** The retry budget of the process, as far as it has this clock. */
export const ofProcess = (clock: Clock.Clock): RetryBudget => {
  let budget = budgets.get(clock)
  if (budget === undefined) {
    budget = budgetOf(resolveBudget({}), clock)
    budgets.set(clock, budget)
  }
  return budget
}

/**
 * The retry budget that {@link withPolicy} takes from: retries are at most a fifth of all calls, plus 2 per second or a
 * tenth of the calls in flight.
 *
 * **Details**
 *
 * Without a layer there is one budget for the whole process, because the provider sees all its retries together. There
 * is one per `Clock`, so that tests under a `TestClock` start fresh. {@link layerBudget} gives a part of the program
 * its own, or none.
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
      track: (call) => Clock.clockWith((clock) => ofProcess(clock).track(call)),
      take: Clock.clockWith((clock) => ofProcess(clock).take),
      giveBack: Clock.clockWith((clock) => ofProcess(clock).giveBack),
      balance: Clock.clockWith((clock) => ofProcess(clock).balance)
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
 * Throws a `RangeError` when `ratio` is negative or not finite, or `minPerSecond` is negative.
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
 *   yield* Effect.replicateEffect(budget.track(Effect.void), 5)
 *   return yield* budget.balance
 * })
 *
 * await Effect.runPromise(Effect.provide(program, Retry.layerBudget({ minPerSecond: 1 }))) // => 10
 * ```
 *
 * **Example** (No limit)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const balance = Effect.flatMap(Retry.RetryBudget, (budget) => budget.balance)
 *
 * await Effect.runPromise(Effect.provide(balance, Retry.layerBudget({ minPerSecond: Infinity }))) // => Infinity
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBudget = (options: RetryBudgetOptions = {}): Layer.Layer<never> => {
  check("Retry.layerBudget", budgetOptions, options)
  const rule = resolveBudget(options)
  return Layer.effect(
    RetryBudget,
    Clock.clockWith((clock) => Effect.sync(() => budgetOf(rule, clock)))
  )
}
