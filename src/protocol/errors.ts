/**
 * Reads a failed response: maps the error object of any of the protocols to one of our reasons.
 *
 * The status, the error type and the error code decide, and never the text of the message, because its wording may change.
 * Sources of the codes and types:
 *
 * - https://platform.claude.com/docs/en/api/errors
 * - https://developers.openai.com/api/docs/guides/error-codes
 * - https://ai.google.dev/gemini-api/docs/troubleshooting
 * - https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ResponseStream.html
 */
import { isUsedUp, type Quota, quotaOf, signalOfQuota } from "./googleErrors.ts"
import { offersSlowLane, maxRetryAfterMillis, retryAfterMillis, signalOf, statedWaitMillis, timeOf } from "./headers.ts"
import { at, isRecord, parseJson, textOf } from "./json.ts"
import type { Failure, FailureContext, HeaderReader } from "./models.ts"
import { rejecting, type Reset, resetIn, resetTime } from "./windows.ts"

export type { Failure, FailureContext } from "./models.ts"

// -----------------------------------------------------------------------------
// Tables
// -----------------------------------------------------------------------------

/** Codes that are more exact than the status. A 429 with one of the spend codes lasts for days. */
const byCode: Readonly<Record<string, Failure["reason"]>> = {
  ramp_limit_exceeded: "RampLimited",
  slow_down: "RampLimited",
  enforced_spend_limit_reached: "SpendLimited",
  contract_spend_limit_reached: "SpendLimited",
  linked_organization_spend_limit_reached: "SpendLimited",
  insufficient_quota: "SpendLimited",
  credit_balance_exhausted: "SpendLimited",
  organization_spend_limit_exceeded: "SpendLimited",
  project_spend_limit_exceeded: "SpendLimited",
  organization_usage_limit_exceeded: "SpendLimited",
  // LiteLLM as an upstream: the key, its user or its team is over budget. It comes as a 400 or as a 429.
  budget_exceeded: "SpendLimited",
  // OpenAI's flex tier lacks capacity: this 429 says nothing about our limits.
  resource_unavailable: "TierFull",
  // The workspace's own encryption key: this 503 says nothing about load.
  cmek_context_unavailable: "ServerFailed",
  cmek_key_unreachable: "ServerFailed",
  // Bedrock: a 429 of a model that is still being loaded.
  ModelNotReadyException: "Overloaded"
}

const byStatus: Readonly<Record<number, Failure["reason"]>> = {
  401: "AccessDenied",
  402: "SpendLimited",
  403: "AccessDenied",
  408: "TimedOut",
  // Bedrock: the model failed while it worked on the request.
  424: "ServerFailed",
  429: "RateLimited",
  // Groq: the flex tier lacks capacity.
  498: "TierFull",
  501: "InvalidRequest",
  503: "Overloaded",
  504: "TimedOut",
  529: "Overloaded"
}

/** The codes of failed Responses that blame the request: https://developers.openai.com/api/reference/resources/responses. */
const ofRequests = [
  "context_length_exceeded",
  "invalid_prompt",
  "data_residency_mismatch",
  "bio_policy",
  "cyber_policy",
  "misalignment_policy_violation",
  "vector_store_timeout",
  "invalid_image",
  "invalid_image_format",
  "invalid_base64_image",
  "invalid_image_url",
  "invalid_image_mode",
  "image_too_large",
  "image_too_small",
  "image_parse_error",
  "image_content_policy_violation",
  "image_file_too_large",
  "image_file_not_found",
  "unsupported_image_media_type",
  "empty_image_file",
  "failed_to_download_image"
]

/** Reasons by type or code, for errors within a stream, which have no status. */
const byType: Readonly<Record<string, Failure["reason"]>> = {
  ...Object.fromEntries(ofRequests.map((code) => [code, "InvalidRequest"])),
  overloaded_error: "Overloaded",
  service_unavailable_error: "Overloaded",
  server_is_overloaded: "Overloaded",
  overloaded: "Overloaded",
  serviceUnavailableException: "Overloaded",
  UNAVAILABLE: "Overloaded",
  rate_limit_error: "RateLimited",
  // OpenAI's code. Groq sends it with a 413 for a request that is larger than the limit and never fits.
  rate_limit_exceeded: "RateLimited",
  // Codex: a window of the account is spent.
  usage_limit_reached: "RateLimited",
  throttlingException: "RateLimited",
  RESOURCE_EXHAUSTED: "RateLimited",
  api_error: "ServerFailed",
  server_error: "ServerFailed",
  internalServerException: "ServerFailed",
  modelStreamErrorException: "ServerFailed",
  INTERNAL: "ServerFailed",
  timeout_error: "TimedOut",
  modelTimeoutException: "TimedOut",
  DEADLINE_EXCEEDED: "TimedOut",
  invalid_request_error: "InvalidRequest",
  validationException: "InvalidRequest",
  INVALID_ARGUMENT: "InvalidRequest",
  FAILED_PRECONDITION: "InvalidRequest",
  authentication_error: "AccessDenied",
  UNAUTHENTICATED: "AccessDenied",
  permission_error: "AccessDenied",
  PERMISSION_DENIED: "AccessDenied",
  not_found_error: "InvalidRequest",
  NOT_FOUND: "InvalidRequest",
  request_too_large: "InvalidRequest",
  billing_error: "SpendLimited",
  conflict_error: "InvalidRequest"
}

const lookUp = (
  table: Readonly<Record<string, Failure["reason"]>>,
  { code, type }: ErrorObject
): Failure["reason"] | undefined => {
  // AWS writes types with a small letter in events, and with a capital in the names of its SDK's errors.
  const names = [code, type, type?.replace(/^./, (first) => first.toLowerCase())]
  const key = names.find((key) => key !== undefined && Object.hasOwn(table, key))
  return key === undefined ? undefined : table[key]
}

/** Whether a code or a type is one of the known names of providers. */
export const isKnown = (error: ErrorObject): boolean =>
  lookUp(byCode, error) !== undefined || lookUp(byType, error) !== undefined

const reasonOf = (
  status: number | undefined,
  error: ErrorObject,
  { isFinal = false }: FailureContext
): Failure["reason"] => {
  const coded = lookUp(byCode, error)
  if (coded !== undefined) return coded
  if (status === undefined) {
    const unknown = isFinal && error.code !== undefined ? "InvalidRequest" : "ServerFailed"
    return lookUp(byType, error) ?? unknown
  }
  // A quota of Google's that is used up until tomorrow comes with the status of a rate limit.
  if (status === 429 && isUsedUp(error.quota)) return "SpendLimited"
  const known = byStatus[status]
  if (known !== undefined) return known
  if (status >= 500) return "ServerFailed"
  // No model answers with a redirect.
  return status >= 300 ? "InvalidRequest" : "MalformedResponse"
}

// -----------------------------------------------------------------------------
// Error objects
// -----------------------------------------------------------------------------

/** The error object of a body in any protocol. */
export interface ErrorObject {
  readonly type?: string | undefined
  readonly code?: string | undefined
  readonly message?: string | undefined
  /** The status in the body of an error within a stream (Google, OpenRouter). */
  readonly status?: number | undefined
  readonly quota: Quota
  /** When a window that is spent begins again (Codex). */
  readonly reset?: Reset | undefined
}

const noQuota: Quota = { violations: [], retryDelayMillis: undefined }
const nothing: ErrorObject = { quota: noQuota }

/** Google and OpenRouter have the status as the code of an error. */
const statusOf = (code: unknown): number | undefined =>
  typeof code === "number" && code >= 400 && code < 600 ? code : undefined

/**
 * The error object of a body, which may be a text or parsed: `error` of Anthropic, OpenAI and Google (in a list in a stream), a
 * bare text, or Bedrock's bare message. Undefined if the body has no error.
 */
export const errorObjectOf = (body: unknown): ErrorObject | undefined => {
  const parsed = typeof body === "string" ? parseJson(body) : body
  const whole: unknown = Array.isArray(parsed) ? parsed[0] : parsed
  const error = at(whole, "error") ?? whole
  const type = textOf(at(error, "type"))
  const code = textOf(at(error, "details", "error_code")) ?? textOf(at(error, "code")) ?? textOf(at(error, "status"))
  const message = textOf(error) ?? textOf(at(error, "message"))
  if ((type ?? code ?? message) === undefined) return undefined
  const reset = (type ?? code) === "usage_limit_reached" ? resetIn(error) : undefined
  const status = statusOf(at(error, "code"))
  return { type, code, message, status, quota: isRecord(error) ? quotaOf(error) : noQuota, reset }
}

// -----------------------------------------------------------------------------
// Messages
// -----------------------------------------------------------------------------

const secrets = [/\bsk-[\w-]{6,}/g, /\bAIza[\w-]{30,}/g, /\bBearer\s+\S+/gi, /\/\/[^/\s@]+@/g]

const redact = (text: string, secret: string | undefined): string => {
  // A short secret, as tests have, would be replaced within ordinary words.
  let clean = secret !== undefined && secret.length >= 8 ? text.replaceAll(secret, "<redacted>") : text
  for (const pattern of secrets) clean = clean.replace(pattern, "<redacted>")
  return clean
}

const cut = (line: string, length: number): string => (line.length > length ? `${line.slice(0, length - 1)}…` : line)

/** The provider's message in one short line, without secrets. The HTML page of a proxy is left out. */
export const detailOf = (message: string | undefined, secret: string | undefined): string | undefined => {
  if (message === undefined || /^\s*</.test(message)) return undefined
  // Redacted before the lines are joined: otherwise a secret of two lines would not be found.
  const line = redact(message, secret)
    .replace(/[\s\p{Cc}]+/gu, " ")
    .trim()
  return line === "" ? undefined : cut(line, 300)
}

/** A name from the provider, such as a request id, shortened and without secrets. */
const givenNameOf = (name: string | null | undefined, secret: string | undefined): string | undefined =>
  name == null ? undefined : cut(redact(name.replace(/\p{Cc}/gu, ""), secret), 100)

/** The request id, from the header of Anthropic and Google, OpenAI, AWS, or Azure. */
export const requestIdOf = (header: HeaderReader, secret?: string | undefined): string | undefined =>
  givenNameOf(
    header("request-id") ?? header("x-request-id") ?? header("x-amzn-requestid") ?? header("apim-request-id"),
    secret
  )

// -----------------------------------------------------------------------------
// Failures
// -----------------------------------------------------------------------------

/** Anthropic resets the monthly limit of a tier at 00:00 UTC on the first: https://platform.claude.com/docs/en/api/rate-limits. */
const nextMonth = (now: number): number => {
  const date = new Date(now)
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1)
}

const resumesAt = (
  reason: Failure["reason"],
  error: ErrorObject,
  stated: number | undefined,
  now: number
): number | undefined => {
  if (reason !== "SpendLimited") return undefined
  if (error.code === "enforced_spend_limit_reached") return nextMonth(now)
  const wait = error.quota.retryDelayMillis ?? stated
  return wait === undefined ? undefined : now + wait
}

/** No rate limit asks for a longer wait: the longest window of a subscription, apart from the weekly one, lasts 5 hours. */
const maxRateLimitMillis = 6 * 3_600_000

/** A provider may report a spend limit with the type of a rate limit. Only its wait of days shows what it is. */
const byWait = (reason: Failure["reason"], stated = 0): Failure["reason"] =>
  reason === "RateLimited" && stated > maxRateLimitMillis ? "SpendLimited" : reason

const waitOf = (
  header: HeaderReader,
  { quota }: ErrorObject,
  untilReset: number | undefined,
  now: number
): number | undefined => {
  const delay = quota.retryDelayMillis ?? untilReset
  return (
    retryAfterMillis(header, now) ??
    (delay !== undefined && delay > 0 ? Math.min(delay, maxRetryAfterMillis) : undefined)
  )
}

/** A response with its error object, if there is one. */
export interface FailedResponse {
  /** Undefined for an error within a stream that began with success. */
  readonly status: number | undefined
  readonly header: HeaderReader
  readonly error: ErrorObject | undefined
  /** The text of the body, for a response without an error object. */
  readonly text?: string | undefined
}

/** Reads a failure from a response and its error object. */
export const failureOfError = (response: FailedResponse, context: FailureContext): Failure => {
  const { header } = response
  const { now, secret } = context
  const found = response.error ?? nothing
  // Bedrock's bare message has its type in a header, such as `ThrottlingException:http://internal.amazon.com/`.
  const error = { ...found, type: found.type ?? textOf(header("x-amzn-errortype")?.split(":")[0]) }
  const time = timeOf(header, now)
  const resetsAt = error.reset && resetTime(error.reset, time)
  const untilReset = resetsAt === undefined ? undefined : resetsAt - time
  const stated = statedWaitMillis(header, now) ?? untilReset
  // The caller answers the offer, so it must get it at once.
  const reason = offersSlowLane(header)
    ? "SpendLimited"
    : byWait(reasonOf(response.status ?? error.status, error, context), stated)
  return {
    reason,
    status: response.status ?? 200,
    requestId: requestIdOf(header, secret),
    code: givenNameOf(error.code ?? error.type, secret),
    detail: detailOf(response.error === undefined ? response.text : error.message, secret),
    retryAfterMillis: waitOf(header, error, untilReset, now),
    shouldRetry: header("x-should-retry") === "false" ? false : undefined,
    resumesAt: resumesAt(reason, error, stated, time),
    signal: rejecting(signalOf(header), resetsAt) ?? signalOfQuota(error.quota)
  }
}

/** Reads a failure from a response with an error status, or with an error within its stream. */
export const failureOf = (
  response: { readonly status: number; readonly header: HeaderReader; readonly body?: unknown },
  context: FailureContext
): Failure => {
  const { body, header, status } = response
  const text = typeof body === "string" ? body : undefined
  return failureOfError(
    { status: status >= 200 && status < 300 ? undefined : status, header, error: errorObjectOf(body), text },
    context
  )
}
