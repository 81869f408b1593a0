/** Refusals: calls that failed with an error of this library, answered in the form of their provider. */
import * as Duration from "effect/Duration"
import { BudgetError } from "../Budget.ts"
import { LlmError } from "../LlmError.ts"
import type { Refusal, RefusalResponse } from "../protocol/refusal.ts"
import { LedgerUnavailable } from "../Spending.ts"
import type { HttpCall } from "./models.ts"

/** A wait in seconds. */
const seconds = (duration: Duration.Duration | undefined): number | undefined =>
  duration === undefined ? undefined : Duration.toSeconds(duration)

const ofBudget = ({ message, reason: given }: BudgetError): Refusal => {
  const reason = given._tag === "NoPlace" ? given.closest : given
  switch (reason._tag) {
    case "EstimateTooLarge":
    case "RejectedAsTooLarge":
      return { kind: "tooLarge", message }
    case "QuotaExhausted":
      return { kind: "spendLimited", message }
    case "Denied":
      return { kind: reason.cause instanceof LedgerUnavailable ? "unavailable" : "spendLimited", message }
    case "StoreUnavailable":
    case "TooManyPools":
    case "PlaceClosed":
      return { kind: "unavailable", message }
    case "QueueFull":
      return { kind: "rateLimited", message }
    case "WaitTooLong":
      return { kind: "rateLimited", retryAfterSeconds: seconds(reason.wait), message }
  }
}

const withHeader = (response: RefusalResponse, name: string, value: string): RefusalResponse => ({
  ...response,
  headers: { ...response.headers, [name]: value }
})

const refusalOf = (error: BudgetError | LlmError): Refusal => {
  if (error instanceof BudgetError) return ofBudget(error)
  const { message, reason } = error
  switch (reason._tag) {
    case "DeadlineMissed":
      return { kind: "rateLimited", retryAfterSeconds: seconds(reason.wait), message }
    case "MalformedResponse":
      return { kind: reason.executed === false ? "noProvider" : "executed", message }
    default:
      return { kind: "unavailable", retryAfterSeconds: seconds(error.retryAfter), message }
  }
}

/** The reason for refusing a call, and the response that says so in the form of its provider. */
export interface RefusedCall {
  readonly refusal: Refusal
  readonly response: RefusalResponse
}

/** Refuses a call that failed with an error of this library; undefined for any other error. */
export const refuse = ({ match: { protocol } }: HttpCall, error: unknown): RefusedCall | undefined => {
  if (!(error instanceof BudgetError || error instanceof LlmError)) return undefined
  const refusal = refusalOf(error)
  const response = protocol.refuse(refusal)
  // A timeout was already retried. An open circuit closes again, so a retry helps.
  const isFinal = error.reason._tag === "TimedOut"
  return { refusal, response: isFinal ? withHeader(response, "x-should-retry", "false") : response }
}
