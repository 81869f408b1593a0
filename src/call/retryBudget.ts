/**
 * The retry budget: how many retries all callers may make together.
 *
 * @stability stable
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { check, notNegative, number, options as optionsOf } from "../domain/input/checks.ts"

/**
 * The options of a retry budget. Both rates are counted over ten seconds, as in Finagle.
 *
 * @category options
 * @since 0.1.0
 */
type RetryBudgetOptions = {
  /**
   * The maximum number of retries per call. With Finagle's value, the provider gets at most a fifth more requests than there
   * are calls.
   *
   * @default 0.2
   */
  readonly ratio?: number | undefined
  /**
   * Retries per second that are allowed in addition, or a tenth of the calls in flight if that is more. Finagle's default of 10
   * suits thousands of requests a second. `Infinity` removes the limit, for tests and programs with few calls.
   *
   * @default 2
   */
  readonly minPerSecond?: number | undefined
}

/** The retries that this period allows may all be made at once. */
const savedMillis = 10_000

/**
 * The state of a retry budget. Pure: time is an argument.
 *
 * The rates are those of Finagle's `RetryBudget` (https://finagle.github.io/blog/2016/02/08/retry-budgets/). Finagle refuses
 * retries beyond them. This budget delays them instead: spreading retries protects the provider as well, and loses no work.
 */
export class RetryTokens {
  private readonly ratio: number
  private readonly floor: number
  /** Retries that were made. Time and calls reduce it. */
  private spent = 0
  private at: number
  /** The number of calls in flight. */
  open = 0

  constructor({ minPerSecond = 2, ratio = 0.2 }: RetryBudgetOptions, now: number) {
    this.ratio = ratio
    this.floor = (minPerSecond * savedMillis) / 1_000
    this.at = now
  }

  /** How many retries may be made at once. It is at least one for each call in flight, because calls can fail together. */
  private get max(): number {
    return Math.max(this.floor, this.open)
  }

  /** Replenishes the budget for the time since the last event. */
  private advance(now: number): void {
    // The clock may have been set back.
    const passed = Math.max(0, now - this.at)
    this.spent = this.max === Infinity ? 0 : Math.max(0, this.spent - (this.max / savedMillis) * passed)
    this.at = now
  }

  /** How many retries could be made now; negative if some are delayed. */
  balance(now: number): number {
    this.advance(now)
    return this.max - this.spent
  }

  /** Counts the start of a call. */
  begin(now: number): void {
    // Nothing to replenish while nothing is spent.
    if (this.spent > 0) this.advance(now)
    this.open++
  }

  /** Counts the end of a call, which replenishes its part of a retry. */
  end(now: number): void {
    if (this.spent > 0) this.advance(now)
    this.open--
    this.spent = Math.max(0, this.spent - this.ratio)
  }

  /** Takes a retry, and returns its delay in milliseconds; `Infinity` if the budget allows no retries. */
  take(now: number): number {
    this.advance(now)
    const over = ++this.spent - this.max
    return over <= 0 ? 0 : over / (this.max / savedMillis)
  }

  /** Returns a retry that was taken and not made. */
  giveBack(): void {
    this.spent = Math.max(0, this.spent - 1)
  }
}

/** The retry budget of a part of the program. Without one, that of the process is used. */
export const RetryBudget: Context.Reference<RetryTokens | undefined> = Context.Reference<RetryTokens | undefined>(
  "floodgate/Retry/RetryBudget",
  { defaultValue: () => undefined }
)

/** One for each clock, so that tests under a `TestClock` do not share one. */
const ofProcess = new WeakMap<Clock.Clock, RetryTokens>()

/** The given retry budget, or that of the process for this clock. */
export const tokensOf = (given: RetryTokens | undefined, clock: Clock.Clock): RetryTokens => {
  let tokens = given ?? ofProcess.get(clock)
  if (tokens === undefined) {
    tokens = new RetryTokens({}, clock.currentTimeMillisUnsafe())
    ofProcess.set(clock, tokens)
  }
  return tokens
}

/** Counts a call in the retry budget. */
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

const budgetOptions = optionsOf<RetryBudgetOptions>({
  ratio: notNegative,
  minPerSecond: number("a number >= 0", (value) => value >= 0)
})

/**
 * A retry budget for the part of the program to which the layer is provided.
 *
 * **Details**
 *
 * `attempts` limits one call. The retry budget limits the retries of all callers together: a fifth of all calls, plus 2 per
 * second or a tenth of the calls in flight. When it is spent, retries are delayed; they do not fail. Retries after rate limits and
 * outages do not count, because the token budget paces them.
 *
 * Without a layer there is one budget for the whole process, because the provider gets the retries of all its parts. Each `Clock`
 * has one of its own, so that tests under a `TestClock` start fresh.
 *
 * The rates are those of Finagle: https://finagle.github.io/blog/2016/02/08/retry-budgets/
 *
 * Provided to the layer of a governor or a client, it applies to all calls whose callers have no retry budget of their own.
 *
 * **Gotchas**
 *
 * Throws a `RangeError` when `ratio` is negative or not finite, or `minPerSecond` is negative.
 *
 * **Example** (When it is spent, retries are delayed)
 *
 * ```ts doctest
 * import * as Duration from "effect/Duration"
 * import * as Effect from "effect/Effect"
 * import * as Schedule from "effect/Schedule"
 * import * as Retry from "floodgate/Retry"
 * import { Simulation } from "floodgate/testing"
 *
 * const delays: Array<number> = []
 * const call = Retry.withPolicy(
 *   Effect.fail({ isRetryable: true }),
 *   Retry.make({ backoff: Schedule.forever, attempts: 13 }),
 *   { onRetry: ({ delayed }) => Effect.sync(() => delays.push(Duration.toMillis(delayed))) }
 * )
 *
 * await Effect.runPromise(Simulation.run(Effect.exit(Effect.provide(call, Retry.layerBudget({ minPerSecond: 1 })))))
 * delays // => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1_000, 1_000]
 * ```
 *
 * **Example** (No limit)
 *
 * ```ts
 * import * as Retry from "floodgate/Retry"
 *
 * const unlimited = Retry.layerBudget({ minPerSecond: Infinity })
 * ```
 *
 * @stability stable
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
