/**
 * Refusals of our own: the responses to requests that are not sent to the provider.
 *
 * Clients react differently to a refusal (measured in November 2026). LangChain fails at once on a 429 without `retry-after` or
 * with one above 60 s. The openai SDK ignores one above 60 s. Claude Code gives up at once on a long one and on `x-should-retry:
 * false`, and retries a 529 only three times within 4 s. So a refusal that may be retried is a 429, a 502 or a 503 with a `retry-after`
 * of 5 to 59 s, and one that may not, such as a 402, 404 or 413, has `x-should-retry: false`.
 */

/**
 * A refusal of our own.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Refusal {
  /**
   * - `"rateLimited"` (429): the wait would be too long, or the queue is full; the client should retry
   * - `"unavailable"` (503): nothing is accepted now, for example during a shutdown; the client should retry
   * - `"badGateway"` (502): the provider cannot be reached; the client should retry
   * - `"noProvider"` (502): what answered is no provider, so a retry would meet the same again
   * - `"executed"` (400): the provider has probably executed the request, and its answer cannot be read. This is no 502, because some
   *   clients retry all of those, whatever `x-should-retry` says (AI SDK, LangChain), and the request would be executed again
   * - `"tooLarge"` (413): the request can never fit the limits
   * - `"spendLimited"` (402): a cap on money or tokens is used up; clients do not retry this status
   * - `"notFound"` (404): there is nothing at this path
   * - `"invalid"` (400): the request cannot be read, so its cost is unknown
   * - `"timedOut"` (408): the request arrived too slowly
   * - `"unauthorized"` (401): the caller has not authenticated
   * - `"forbidden"` (403): the caller may not send this
   * - `"notImplemented"` (501): no part of HTTP that is supported, such as a transfer coding
   * - `"upgradeRequired"` (426): the connection stays HTTP/1.1, and does not become a WebSocket
   */
  readonly kind: keyof typeof statuses
  /** When the client should retry, in seconds; rounded up, and limited to 5 to 59. @default 5 */
  readonly retryAfterSeconds?: number | undefined
  /** A message for people: what was refused, why, and what helps. */
  readonly message: string
}

/** A whole response, which the client receives instead of the provider's: what `refuse` of a protocol returns. */
export interface RefusalResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

const statuses = {
  rateLimited: 429,
  unavailable: 503,
  badGateway: 502,
  noProvider: 502,
  executed: 400,
  tooLarge: 413,
  spendLimited: 402,
  notFound: 404,
  invalid: 400,
  timedOut: 408,
  unauthorized: 401,
  forbidden: 403,
  notImplemented: 501,
  upgradeRequired: 426
} as const

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
