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

const refusalOf = ({ message, reason: given }: BudgetError): Refusal => {
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

/**
 * The response to a call that failed with an error of this library, in the form of its provider; undefined for any other
 * error.
 */
export const refuse = ({ match: { protocol } }: HttpCall, error: unknown): RefusalResponse | undefined => {
  if (error instanceof BudgetError) return protocol.refuse(refusalOf(error))
  if (!(error instanceof LlmError)) return undefined
  const { message, reason } = error
  if (reason._tag === "DeadlineMissed") {
    return protocol.refuse({ kind: "rateLimited", retryAfterSeconds: seconds(reason.wait), message })
  }
  if (reason._tag === "MalformedResponse") {
    return protocol.refuse({ kind: reason.executed === false ? "noProvider" : "executed", message })
  }
  const retryAfterSeconds = seconds(error.retryAfter)
  const response = protocol.refuse({ kind: "unavailable", retryAfterSeconds, message })
  // A timeout was already retried. An open circuit closes again, so a retry helps.
  return reason._tag === "TimedOut" ? withHeader(response, "x-should-retry", "false") : response
}
