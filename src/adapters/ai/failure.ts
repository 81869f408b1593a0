/** Converts the errors of `effect/ai` for the governor, and those of the governor for `effect/ai`. Pure. */
import * as AiError from "effect/ai/AiError"
import type { BudgetError } from "../../Budget.ts"
import type { FailureReport } from "../../call/models.ts"
import * as SdkErrors from "../../protocol/sdkErrors.ts"
import {
  InvalidRequest,
  LlmError,
  type LlmErrorReason,
  MalformedResponse,
  RateLimited,
  ServerFailed,
  SpendLimited,
  AccessDenied
} from "../../LlmError.ts"

// -----------------------------------------------------------------------------
// From effect/ai
// -----------------------------------------------------------------------------

const failed = (reason: LlmErrorReason): FailureReport => new LlmError({ reason })

/** Reads status, code and headers if the provider's adapter kept them, because they say more than the reason. */
const fromHttp = (reason: AiError.AiErrorReason, now: number): FailureReport | undefined => {
  if (!("http" in reason) || reason.http?.response === undefined) return undefined
  const { body, response } = reason.http
  const { headers, status } = response
  if (status < 400) return undefined
  return failed(SdkErrors.fromResponse({ status, headers, body }, { now }))
}

/** Reads a lost connection as an SDK's connection error with the same cause. */
const fromNetwork = ({ cause, description, isRetryable }: AiError.NetworkError, now: number): LlmErrorReason =>
  isRetryable
    ? SdkErrors.fromThrown({ name: "APIConnectionError", message: description, cause }, { now })
    : new InvalidRequest({})

const fromReason = (error: AiError.AiError, now: number): FailureReport => {
  const { reason } = error
  switch (reason._tag) {
    case "RateLimitError":
      return failed(new RateLimited({ status: 429, retryAfter: error.retryAfter }))
    case "QuotaExhaustedError":
      return failed(new SpendLimited({ status: 429 }))
    case "NetworkError":
      return failed(fromNetwork(reason, now))
    case "InternalProviderError":
      return failed(new ServerFailed({ status: 500 }))
    case "AuthenticationError":
      return failed(new AccessDenied({ status: 401 }))
    case "InvalidRequestError":
    case "UnsupportedSchemaError":
    case "ToolkitRequiredError":
      return failed(new InvalidRequest({ status: 400 }))
    case "InvalidOutputError":
    case "StructuredOutputError": {
      const { completionTokens, promptTokens } = reason.usage ?? {}
      return { isRetryable: false, usage: { requests: 1, inputTokens: promptTokens, outputTokens: completionTokens } }
    }
    default:
      return failed(new MalformedResponse({}))
  }
}

/**
 * Classifies a failed round trip. An answer that cannot be decoded has been paid for, so it is not requested again although its
 * error is retryable.
 */
export const failureOf = (error: unknown, now: number): FailureReport => {
  if (!AiError.isAiError(error)) return { isRetryable: false }
  return fromHttp(error.reason, now) ?? fromReason(error, now)
}

/** The reason of an error part of a stream, which holds the provider's error event or the content of that event. */
export const reasonOfPart = (value: unknown, now: number): LlmErrorReason => {
  const data = typeof value === "object" && value !== null && "error" in value ? value : { error: value }
  return SdkErrors.fromEvent(data, undefined, { requestId: undefined }, { now })
}

// -----------------------------------------------------------------------------
// To effect/ai
// -----------------------------------------------------------------------------

const reasonOf = (error: BudgetError | LlmError): AiError.AiErrorReason => {
  const { message, reason } = error
  const metadata = { floodgate: { reason: reason._tag, message } }
  switch (reason._tag) {
    case "EstimateTooLarge":
    case "RejectedAsTooLarge":
      return new AiError.InvalidRequestError({ description: message, metadata })
    case "QuotaExhausted":
    case "Denied":
      return new AiError.QuotaExhaustedError({ metadata })
    case "WaitTooLong":
      return new AiError.RateLimitError({ retryAfter: reason.wait, metadata })
    case "DeadlineMissed":
      return new AiError.UnknownError({ description: message, metadata })
    case "QueueFull":
    case "TooManyPools":
      return new AiError.RateLimitError({ metadata })
    default:
      return new AiError.InternalProviderError({ description: message, metadata })
  }
}

/** Converts refusals of the budget, timeouts and open circuits. `metadata.floodgate` has the original reason. */
export const toAiError = (method: string, error: BudgetError | LlmError): AiError.AiError =>
  AiError.make({ module: "Floodgate", method, reason: reasonOf(error) })
