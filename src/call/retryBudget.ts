/**
 * The retry budget: what all callers may retry in sum.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { check, notNegative, number, options as optionsOf } from "../domain/input/checks.ts"

/**
 * The options of a retry budget. Both are counted over ten seconds, as in Finagle.
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

/** The retries of this much time may be made at once. */
const savedMillis = 10_000

/**
 * Retries that were made, as a pure step: time and calls work them off. Time is an argument.
 *
 * The shares are those of Finagle's `RetryBudget` (https://finagle.github.io/blog/2016/02/08/retry-budgets/). That one
 * refuses retries, and this one delays them: retries that are spread over time are no storm, and a refused one is lost work.
 */
export class RetryTokens {
  private readonly ratio: number
  private readonly floor: number
  /** Retries that were made and are not worked off yet. */
  private spent = 0
  private at: number
  /** Calls in flight. */
  open = 0

  constructor({ minPerSecond = 2, ratio = 0.2 }: RetryBudgetOptions, now: number) {
    this.ratio = ratio
    this.floor = (minPerSecond * savedMillis) / 1_000
    this.at = now
  }

  /** How many retries may be made at once. Calls that fail together may each be retried once. */
  private get most(): number {
    return Math.max(this.floor, this.open)
  }

  /** Works off what the time since the last event allows. */
  private advance(now: number): void {
    // A clock that was set back works nothing off.
    const passed = Math.max(0, now - this.at)
    this.spent = this.most === Infinity ? 0 : Math.max(0, this.spent - (this.most / savedMillis) * passed)
    this.at = now
  }

  /** Retries that could be made now; negative if some wait. */
  balance(now: number): number {
    this.advance(now)
    return this.most - this.spent
  }

  /** A call has begun. */
  begin(now: number): void {
    // While nothing is spent, no time is worked off.
    if (this.spent > 0) this.advance(now)
    this.open++
  }

  /** A call has ended, and earns its share of a retry. */
  end(now: number): void {
    if (this.spent > 0) this.advance(now)
    this.open--
    this.spent = Math.max(0, this.spent - this.ratio)
  }

  /** Takes a retry, and returns after how many milliseconds it may be made; `Infinity` if there are none. */
  take(now: number): number {
    this.advance(now)
    const over = ++this.spent - this.most
    return over <= 0 ? 0 : over / (this.most / savedMillis)
  }

  /** A retry that was taken is not made. */
  giveBack(): void {
    this.spent = Math.max(0, this.spent - 1)
  }
}

/** The retry budget of a part of the program; by default there is none but that of the process. */
export const RetryBudget: Context.Reference<RetryTokens | undefined> = Context.Reference<RetryTokens | undefined>(
  "floodgate/Retry/RetryBudget",
  { defaultValue: () => undefined }
)

/** One for each clock, so that tests do not exhaust each other's. */
const ofProcess = new WeakMap<Clock.Clock, RetryTokens>()

/** The retry budget of a caller, or that of the process, as far as it has this clock. */
export const tokensOf = (given: RetryTokens | undefined, clock: Clock.Clock): RetryTokens => {
  let tokens = given ?? ofProcess.get(clock)
  if (tokens === undefined) {
    tokens = new RetryTokens({}, clock.currentTimeMillisUnsafe())
    ofProcess.set(clock, tokens)
  }
  return tokens
}

/** Counts a call: its end earns a share of a retry. */
export const tracked = <A, E, R>(
  tokens: RetryTokens,
  clock: Clock.Clock,
  call: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) => {
    tokens.begin(clock.currentTimeMillisUnsafe())
    return Effect.onExitPrimitive(restore(call), () => {
      tokens.end(clock.currentTimeMillisUnsafe())
      return undefined
    })
  })

/**
 * How many retries the retry budget of the context lets go now without a delay; negative if some are delayed.
 *
 * **Details**
 *
 * `attempts` bounds one call. The retry budget bounds the retries of all callers together: at most a fifth of all calls,
 * plus 2 per second or a tenth of the calls in flight. When it is spent, retries are delayed; they do not fail. Retries
 * after rate limits and outages are not taken from it, because the token budget paces those.
 *
 * Without a layer there is one budget for the whole process, because the provider sees all its retries together. There
 * is one per `Clock`, so that tests under a `TestClock` start fresh. {@link layerBudget} gives a part of the program
 * its own, or none.
 *
 * Source of the shares: https://finagle.github.io/blog/2016/02/08/retry-budgets/
 *
 * **Example** (Before any retry)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * await Effect.runPromise(Retry.balance.pipe(Effect.provide(Retry.layerBudget({ minPerSecond: 1 })))) // => 10
 * ```
 *
 * @category getters
 * @since 0.4.0
 */
export const balance: Effect.Effect<number> = Effect.flatMap(RetryBudget, (given) =>
  Clock.clockWith((clock) => Effect.sync(() => tokensOf(given, clock).balance(clock.currentTimeMillisUnsafe())))
)

const budgetOptions = optionsOf<RetryBudgetOptions>({
  ratio: notNegative,
  minPerSecond: number("a number >= 0", (value) => value >= 0)
})

/**
 * A retry budget of its own for the part of the program that the layer is provided to.
 *
 * **Details**
 *
 * Provided to the layer of a governor or a client, it applies to all its calls whose callers have no retry budget of
 * their own. {@link balance} has what a retry budget is.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when `ratio` is negative or not finite, or `minPerSecond` is negative.
 *
 * **Example** (A retry is taken from it)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * let attempts = 0
 * const call = Effect.suspend(() => (++attempts < 2 ? Effect.fail({ isRetryable: true }) : Retry.balance))
 * const retried = Retry.withPolicy(call, Retry.make({ base: "1 millis" }))
 *
 * const balance = await Effect.runPromise(Effect.provide(retried, Retry.layerBudget({ minPerSecond: 1 })))
 * Math.round(balance) // => 9
 * ```
 *
 * **Example** (No limit)
 *
 * ```ts doctest
 * import * as Effect from "effect/Effect"
 * import * as Retry from "floodgate/Retry"
 *
 * const unlimited = Retry.layerBudget({ minPerSecond: Infinity })
 *
 * await Effect.runPromise(Effect.provide(Retry.balance, unlimited)) // => Infinity
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBudget = (options: RetryBudgetOptions = {}): Layer.Layer<never> => {
  check("Retry.layerBudget", budgetOptions, options)
  return Layer.effect(
    RetryBudget,
    Clock.clockWith((clock) => Effect.sync(() => new RetryTokens(options, clock.currentTimeMillisUnsafe())))
  )
}
