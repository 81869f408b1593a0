/** The start of most tests of a budget: the budget, its only pool, and fibers that wait. */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import type * as Accounting from "floodgate/Accounting"
import * as Budget from "floodgate/Budget"
import * as Limits from "floodgate/Limits"
import { counting, first, type GovernedOptions } from "../../src/budget/models.ts"

/** A budget without a reserve, unless the options ask for one. */
export const make = (options: Budget.Options) => Budget.layer({ ...options })

/** Options for a call that goes before its agent's other calls, as a retry does. */
export const retryOf = (options: Budget.ReserveOptions, isRetry = true): GovernedOptions => ({
  ...options,
  [first]: isRetry
})

/** Options of a call whose provider counts limits in this way, as the governor passes it. */
export const countedBy = (
  accounting: Pick<Accounting.Accounting, "counting">,
  options: Budget.ReserveOptions = {}
): GovernedOptions => ({ ...options, [counting]: accounting.counting })

/** The verdict on a failed call. */
export type Verdict = Effect.Success<ReturnType<Budget.Reservation["fail"]>>

/** The usage of a call that costs nothing. */
export const nothing: Limits.Usage = { requests: 0, inputTokens: 0, outputTokens: 0, tokens: 0 }

const promised = {
  dimensions: Object.fromEntries(
    Limits.Dimension.literals.map((dimension) => [dimension, { limit: 1e12, remaining: 1e12 }])
  )
}

/**
 * A budget whose provider allows much more than the options, so that only the options delay calls. It lets one millisecond
 * pass, in which the provider's bucket fills.
 */
export const makeStated = (options: Budget.Options) =>
  Layer.effect(
    Budget.TokenBudget,
    Effect.tap(Budget.make(options), (budget) => Effect.andThen(budget.observe(promised), TestClock.adjust(1)))
  )

/** The status of the pool that calls without a model use. */
export const pool = Effect.flatMap(Budget.TokenBudget, (budget) =>
  Effect.map(budget.status, ({ pools }) => pools.default!)
)

/** Forks an effect and runs it until it waits. */
export const start = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.tap(Effect.forkChild(effect), () => Effect.yieldNow)

export const isDone = <A, E>(fiber: Fiber.Fiber<A, E>): boolean => fiber.pollUnsafe() !== undefined
