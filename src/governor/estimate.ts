/**
 * What is reserved for a call: what the estimator expects, or all that a limit holds where the guess is larger than that.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Accounting from "../Accounting.ts"
import type * as Budget from "../Budget.ts"
import type * as Estimator from "../Estimator.ts"
import { mostPools } from "../budget/options.ts"
import * as Recency from "../input/recency.ts"
import type * as Limits from "../Limits.ts"
import * as Amounts from "../limits/amounts.ts"
import type { LlmError } from "../LlmError.ts"
import { bytesPerToken } from "../protocol/requestSize.ts"
import type { Call } from "./models.ts"

/** A call as the estimator takes it, and how much of it is text. */
export type Known = Estimator.Call & Pick<Call, "textBytes">

/** What was reserved of an estimate. */
export interface Reserved {
  readonly estimate: Limits.Estimate
  readonly reservation: Budget.Reservation
}

type Ask = (estimate: Limits.Estimate) => Effect.Effect<Budget.Reservation, Budget.BudgetError | LlmError, Scope.Scope>

/**
 * A guess may be larger than the limit although the call is not: output is not known before, and of input only the
 * length. Such a call reserves all that there is.
 */
export const reserve = (
  accounting: Accounting.Accounting,
  ask: Ask,
  call: Known,
  estimate: Limits.Estimate
): Effect.Effect<Reserved, Budget.BudgetError | LlmError, Scope.Scope> =>
  Effect.matchEffect(ask(estimate), {
    onSuccess: (reservation) => Effect.succeed({ estimate, reservation }),
    onFailure: (error) => {
      const { reason } = error
      return reason._tag === "EstimateTooLarge" && leastOf(accounting, call, estimate, reason.dimension) <= reason.limit
        ? reserve(accounting, ask, call, { ...estimate, [reason.dimension]: reason.limit })
        : Effect.fail(error)
    }
  })

/** By how much a guess of the input may be too high: 2.7 bytes a token are assumed at first, and more than 4 occur. */
const guessedTooHigh = 1.6

/**
 * The least that a call can take of a limit, however wrong the guesses in its estimate are. What was learned of prompts is
 * such a guess, too: of another call with a short body and a long document, for example. So are pictures, of any size, and
 * documents, whose data may be text or pictures of pages.
 */
const leastOf = (
  accounting: Accounting.Accounting,
  call: Known,
  { inputTokens = Infinity, outputTokens = 0 }: Limits.Estimate,
  dimension: Limits.Dimension
): number => {
  const least = accounting.estimate({
    inputTokens:
      call.inputTokens ?? Math.min(inputTokens, (call.textBytes ?? call.bytes) / bytesPerToken) / guessedTooHigh,
    cachedTokens: 0,
    outputTokens: outputTokens === call.maxTokens ? outputTokens : 0,
    maxTokens: call.maxTokens
  })
  return Amounts.whole(least)[dimension]
}

// -----------------------------------------------------------------------------
// Calls that run together
// -----------------------------------------------------------------------------

interface Flight {
  open: number
  usual: number
}

/** As slow as the estimator's own averages: the last ten admissions or so count. */
const weight = 1 / 8

/** How many calls of a pool usually run at the same time: a moving average over admissions. */
export interface Flights {
  readonly began: (pool: string) => void
  readonly ended: (pool: string) => void
  /** At least 1. */
  readonly usual: (pool: string) => number
}

export const makeFlights = (): Flights => {
  const pools = new Map<string, Flight>()
  return {
    began: (pool) => {
      const flight = pools.get(pool) ?? { open: 0, usual: 1 }
      flight.open++
      flight.usual += (flight.open - flight.usual) * weight
      Recency.put(pools, pool, flight, mostPools)
    },
    ended: (pool) => {
      const flight = pools.get(pool)
      if (flight !== undefined) flight.open--
    },
    usual: (pool) => pools.get(pool)?.usual ?? 1
  }
}
