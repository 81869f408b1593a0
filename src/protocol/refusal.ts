/**
 * Refusals of our own: the responses to requests that are not sent to the provider.
 *
 * Clients react differently to a refusal (measured in November 2026). LangChain fails at once on a 429 without `retry-after` or
 * with one above 60 s. The openai SDK ignores one above 60 s. Claude Code gives up at once on a long one and on `x-should-retry:
 * false`, and retries a 529 only three times within 4 s. So a refusal that may be retried is a 429, a 502 or a 503 with a `retry-after`
 * of 5 to 59 s, and one that may not, such as a 402, 404 or 413, has `x-should-retry: false`. Codex heeds no such header, and sends a call
 * five times again after a 402 or 403, but never after a 400, which Responses have instead of a 402. Claude Code sends one again after a 400 whose type is `invalid_request_error`.
 */
import type { Refusal } from "./models.ts"

export type { Refusal } from "./models.ts"

/** A whole response, which the client receives instead of the provider's: what `refuse` of a protocol returns. */
export interface RefusalResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

const statuses: Readonly<Record<Refusal["kind"], number>> = {
  rateLimited: 429,
  unavailable: 503,
  badGateway: 502,
  noProvider: 502,
  executed: 400,
  tooLarge: 413,
  spendLimited: 402,
  jobLimited: 400,
  notFound: 404,
  invalid: 400,
  timedOut: 408,
  unauthorized: 401,
  forbidden: 403,
  notImplemented: 501,
  upgradeRequired: 426
}

/** The HTTP status of a refusal. */
export const statusOf = ({ kind }: Refusal): number => statuses[kind]

const retried: ReadonlySet<Refusal["kind"]> = new Set(["rateLimited", "unavailable", "badGateway"])
const minSeconds = 5
const maxSeconds = 59

/** The `retry-after` of a refusal in whole seconds; undefined if a retry does not help. */
export const retryAfterSecondsOf = ({ kind, retryAfterSeconds = minSeconds }: Refusal): number | undefined => {
  if (!retried.has(kind)) return undefined
  const seconds = Number.isNaN(retryAfterSeconds) ? minSeconds : Math.ceil(retryAfterSeconds)
  return Math.min(maxSeconds, Math.max(minSeconds, seconds))
}

/** A whole response with a body in the provider's form. */
export const refusalResponse = (refusal: Refusal, body: unknown): RefusalResponse => {
  const seconds = retryAfterSecondsOf(refusal)
  return {
    status: statusOf(refusal),
    headers: {
      "content-type": "application/json",
      ...(seconds === undefined ? { "x-should-retry": "false" } : { "retry-after": String(seconds) })
    },
    body: JSON.stringify(body)
  }
}

/** One event of a stream. */
export const sseEvent = (name: string | undefined, data: unknown): string =>
  `${name === undefined ? "" : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`

/** A comment, which every reader of server-sent events skips. */
export const sseComment = ": keep-alive\n\n"

/** White space before a JSON body, which every parser skips. */
export const jsonWhitespace = " "
