/** Refusals: calls that failed with an error of this library, answered in the form of their provider. */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import { BudgetError, type Denied } from "../Budget.ts"
import { LlmError } from "../LlmError.ts"
import type { Refusal, RefusalResponse } from "../protocol/refusal.ts"
import type { HttpCall } from "./models.ts"

/** A wait in seconds. */
const seconds = (duration: Duration.Duration | undefined): number | undefined =>
  duration === undefined ? undefined : Duration.toSeconds(duration)

/**
 * Why something around the budget refused a call, by the tag of the cause; anything else is a cap in dollars or on a window. A cap of
 * a job is no 402, because Codex sends the first call of a refused agent again five times after that.
 */
const denials: Readonly<Record<string, Refusal["kind"]>> = {
  LedgerUnavailable: "unavailable",
  TreeUnavailable: "unavailable",
  TreeCapReached: "jobLimited",
  TreeSpent: "jobLimited"
}

const kindOfDenial = ({ cause }: Denied): Refusal["kind"] =>
  (Predicate.hasProperty(cause, "_tag") ? denials[String(cause._tag)] : undefined) ?? "spendLimited"

const ofBudget = ({ message, reason: given }: BudgetError): Refusal => {
  const reason = given._tag === "NoPlace" ? given.closest : given
  switch (reason._tag) {
    case "EstimateTooLarge":
    case "RejectedAsTooLarge":
      return { kind: "tooLarge", message }
    case "QuotaExhausted":
      return { kind: "spendLimited", message }
    case "Denied":
      return { kind: kindOfDenial(reason), message }
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
