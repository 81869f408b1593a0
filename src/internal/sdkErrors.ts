/**
 * Maps what an SDK throws, an answer with an error status, and the error events of streams to reasons. Pure: the time is
 * an argument.
 *
 * Errors are read by their structure, not by their class: SDKs put the same facts in places that are much alike, and the
 * Bedrock, Vertex and Foundry packages may bring a copy of their own. What decides is the status, the error type, the
 * error code and the names along the causes; the text of a message only for a `fetch` that says nothing else.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as LlmError from "../LlmError.ts"
import * as Headers from "../protocol/headers.ts"
import { parseJson } from "../protocol/json.ts"

/** What the mapping needs to know beside the error. */
export interface Context {
  /** Milliseconds since the epoch. */
  readonly now: number
  /** A secret that no error may hold. */
  readonly secret?: string | undefined
}

/** The reasons that an answer may have. */
type Tag = Exclude<LlmError.LlmErrorReason["_tag"], "ConnectionFailed" | "StreamInterrupted" | "CircuitOpen">

// -----------------------------------------------------------------------------
// Tables
// -----------------------------------------------------------------------------

/** Codes that name a cause more exactly than the status. A 429 with one of the spend codes lasts for days. */
const byCode: Readonly<Record<string, Tag>> = {
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
  // The workspace's own encryption key: a 503 that is no sign of load.
  cmek_context_unavailable: "ServerFailed",
  cmek_key_unreachable: "ServerFailed",
  // Bedrock: a 429 of a model that is still being loaded, and no word about our limits.
  ModelNotReadyException: "Overloaded"
}

const byStatus: Readonly<Record<number, Tag>> = {
  401: "Unauthenticated",
  402: "BillingFailed",
  403: "Forbidden",
  404: "NotFound",
  408: "TimedOut",
  409: "Conflict",
  413: "TooLarge",
  // Bedrock: the model failed while it worked on the request.
  424: "ServerFailed",
  429: "RateLimited",
  501: "InvalidRequest",
  503: "Overloaded",
  504: "TimedOut",
  529: "Overloaded"
}

/** Where there is no status, by type or code: errors within a stream, in Anthropic's spelling and in Bedrock's. */
const byType: Readonly<Record<string, Tag>> = {
  overloaded_error: "Overloaded",
  service_unavailable_error: "Overloaded",
  serviceUnavailableException: "Overloaded",
  rate_limit_error: "RateLimited",
  // OpenAI's code. Groq gives it, with a 413, to a request that is larger than the limit and never fits.
  rate_limit_exceeded: "RateLimited",
  throttlingException: "RateLimited",
  api_error: "ServerFailed",
  server_error: "ServerFailed",
  internalServerException: "ServerFailed",
  modelStreamErrorException: "ServerFailed",
  timeout_error: "TimedOut",
  modelTimeoutException: "TimedOut",
  invalid_request_error: "InvalidRequest",
  validationException: "InvalidRequest",
  authentication_error: "Unauthenticated",
  permission_error: "Forbidden",
  not_found_error: "NotFound",
  request_too_large: "TooLarge",
  billing_error: "BillingFailed",
  conflict_error: "Conflict"
}

const find = (table: Readonly<Record<string, Tag>>, { code, type }: Body): Tag | undefined => {
  // AWS writes its types small in events, and large in the names of what its SDK throws.
  const names = [code, type, type?.replace(/^./, (first) => first.toLowerCase())]
  const key = names.find((key) => key !== undefined && Object.hasOwn(table, key))
  return key === undefined ? undefined : table[key]
}

const tagOf = (status: number | undefined, body: Body): Tag => {
  const coded = find(byCode, body)
  if (coded !== undefined) return coded
  if (status === undefined) return find(byType, body) ?? "ServerFailed"
  const known = byStatus[status]
  if (known !== undefined) return known
  if (status >= 500) return "ServerFailed"
  return status >= 400 ? "InvalidRequest" : "MalformedResponse"
}

// -----------------------------------------------------------------------------
// Reading
// -----------------------------------------------------------------------------

interface Body {
  readonly type?: string | undefined
  readonly code?: string | undefined
  readonly message?: string | undefined
  /** Google's `RetryInfo`, such as `16s`. */
  readonly retryDelay?: string | undefined
}

const field = (value: unknown, name: string): unknown => (Predicate.hasProperty(value, name) ? value[name] : undefined)
const text = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? value : undefined)

/** The error object of a body: Anthropic's and OpenAI's `error`, Google's (in a list), a bare text, or Bedrock's bare message. */
const bodyOf = (body: unknown): Body => {
  const whole = Array.isArray(body) ? body[0] : body
  const error = field(whole, "error") ?? whole
  const details = field(error, "details")
  return {
    type: text(field(error, "type")),
    code: text(field(details, "error_code")) ?? text(field(error, "code")) ?? text(field(error, "status")),
    message: text(error) ?? text(field(error, "message")),
    retryDelay: Array.isArray(details) ? details.map((one) => text(field(one, "retryDelay"))).find(Boolean) : undefined
  }
}

/** An answer with an error, wherever an SDK puts its parts. */
interface Answer {
  readonly status: number | undefined
  readonly headers: Headers.HeaderReader
  /** What is said of the error; undefined where nothing is. */
  readonly body: Body | undefined
}

const answerOf = (error: unknown): Answer => {
  const places = [error, field(error, "response"), field(error, "$response")]
  const all = (...names: ReadonlyArray<string>) => places.flatMap((place) => names.map((name) => field(place, name)))
  const headers = all("headers", "responseHeaders").find((one) => typeof one === "object" && one !== null)
  return {
    status: [...all("status", "statusCode"), field(field(error, "$metadata"), "httpStatusCode")].find(
      (status) => typeof status === "number"
    ),
    headers: Headers.headerReader(headers ?? {}),
    body: firstSaid([
      ...all("error", "body", "responseBody", "data"),
      field(error, "message"),
      // What the AWS SDK throws has its type as its name, and nothing else where it comes from within a stream.
      field(error, "$fault") && { type: calledOf(error), message: field(error, "message") }
    ])
  }
}

/** The first of these values, or texts of JSON, that says something of an error. */
const firstSaid = (values: ReadonlyArray<unknown>): Body | undefined => {
  for (const value of values) {
    const body = bodyOf(typeof value === "string" ? parseJson(value) : value)
    if ((body.type ?? body.code ?? body.message) !== undefined) return body
  }
  return undefined
}

/**
 * Whether an error without a status speaks for the provider: it holds an event of a stream, which SDKs keep as `error`, or
 * a body with one of the names in the tables. A user's own errors, such as a schema's, have codes and types, too.
 */
const isProviders = (error: unknown, body: Body): boolean => {
  const event = firstSaid([field(error, "error")])
  return (event?.type ?? event?.code ?? find(byCode, body) ?? find(byType, body)) !== undefined
}

const secrets = [/\bsk-[\w-]{6,}/g, /\bBearer\s+\S+/gi, /\/\/[^/\s@]+@/g]

const redact = (line: string, secret: string | undefined): string => {
  // One that is short, such as a test's, is no secret, and part of many words.
  let clean = secret !== undefined && secret.length >= 8 ? line.replaceAll(secret, "<redacted>") : line
  for (const pattern of secrets) clean = clean.replace(pattern, "<redacted>")
  return clean
}

const cut = (line: string, most: number): string => (line.length > most ? `${line.slice(0, most - 1)}…` : line)

/** The provider's words in one short line, without secrets; markup of a proxy says nothing and is left out. */
const detailOf = (message: string | undefined, secret: string | undefined): string | undefined => {
  if (message === undefined || /^\s*</.test(message)) return undefined
  // As it came: a secret of two lines is not found where lines are joined.
  const line = redact(message, secret)
    .replace(/[\s\p{Cc}]+/gu, " ")
    .trim()
  return line === "" ? undefined : cut(line, 300)
}

/** A name that the provider gives, such as a request's: short, and without secrets, whoever it comes from. */
const nameOf = (name: string | null | undefined, secret: string | undefined): string | undefined =>
  name == null ? undefined : cut(redact(name.replace(/\p{Cc}/gu, ""), secret), 100)

/** The provider's name for the request, by the header of whoever answers: Anthropic and Google, OpenAI, AWS, Azure. */
export const requestIdOf = (get: Headers.HeaderReader, secret: string | undefined): string | undefined =>
  nameOf(get("request-id") ?? get("x-request-id") ?? get("x-amzn-requestid") ?? get("apim-request-id"), secret)

/** The error and its causes: `fetch failed` hides ECONNREFUSED one level down. */
const chainOf = (error: unknown): ReadonlyArray<unknown> => {
  const chain: Array<unknown> = []
  for (let cause = error; cause !== undefined && chain.length < 5; cause = field(cause, "cause")) chain.push(cause)
  return chain
}

/** The error codes along the chain of causes. */
const codesOf = (chain: ReadonlyArray<unknown>): ReadonlyArray<string> =>
  chain.map((cause) => text(field(cause, "code"))).filter((code) => code !== undefined)

/** What an error is called. Some SDKs leave `name` as it is and name only their classes. */
const calledOf = (error: unknown): string => {
  const name = text(field(error, "name")) ?? "Error"
  return name === "Error" ? (text(field(field(error, "constructor"), "name")) ?? name) : name
}

/**
 * Whether the SDK could not get the credentials for the request, which it has from other servers for AWS and Google: their
 * answer has a status, and what AWS throws is a provider error.
 */
const lacksCredentials = ([, ...causes]: ReadonlyArray<unknown>): boolean =>
  causes.some(
    (cause) =>
      typeof field(cause, "status") === "number" || text(field(cause, "name"))?.endsWith("ProviderError") === true
  )

/** What the first and the last of the chain say: the SDK's own words tell little. */
const wordsOf = (chain: ReadonlyArray<unknown>): string =>
  [...new Set([chain[0], chain.at(-1)].map((cause) => text(field(cause, "message"))))].join(" ").trim()

const unsent =
  /^(ECONNREFUSED|ConnectionRefused|FailedToOpenSocket|ENOTFOUND|EAI_\w+|EHOSTUNREACH|ENETUNREACH|ENETDOWN|EADDRNOTAVAIL|EADDRINUSE|EMFILE|ENOBUFS|EPROTO|UND_ERR_CONNECT_TIMEOUT|ERR_TLS_\w+|ERR_SSL_\w+|CERT_\w+|HOSTNAME_MISMATCH|UNABLE_TO_\w+|\w*SELF_SIGNED_CERT\w*)$/
const timeouts = /^(ETIMEDOUT|ESOCKETTIMEDOUT|ETIMEOUT|ERR_SOCKET_CONNECTION_TIMEOUT|UND_ERR_(HEADERS|BODY)_TIMEOUT)$/
const broken =
  /^(ECONN\w+|Connection\w+|EPIPE|ENETRESET|ENOTCONN|ESHUTDOWN|EHOSTDOWN|UND_ERR_\w+|ERR_NETWORK|ERR_BAD_RESPONSE|ERR_HTTP2_\w+|ERR_SOCKET_CLOSED|ERR_STREAM_(PREMATURE_CLOSE|DESTROYED)|HPE_\w+)$/
/** What Node and undici say of impossible arguments, such as an address that is not one. */
const impossible = /^(UND_)?ERR_INVALID_/

/** Whether a code is the network's: files, databases and assertions have codes, too. */
const isNetwork = (code: string): boolean =>
  !impossible.test(code) && [unsent, timeouts, broken].some((codes) => codes.test(code))

/** What `fetch` says where it gives no code: in browsers, Deno and React Native. Any other bug is a TypeError, too. */
const lost =
  /^(fetch failed|terminated|network error|Failed to fetch|Load failed|NetworkError when|Network request failed|error sending request)/i

/** What `fetch` says of an address that it does not even try, where the SDK reports a lost connection, too. */
const misaddressed = /^(bad port|unknown scheme|URL scheme must|Invalid URL)|URL that includes credentials/

/** Whether the request was on its way: an SDK has wrapped what broke it as an answer without a status, or it was `fetch`. */
const wasUnderWay = (error: unknown): boolean =>
  calledOf(error).endsWith("ConnectionError") ||
  ["status", "statusCode"].some((name) => Predicate.hasProperty(error, name) && error[name] === undefined) ||
  (calledOf(error) === "TypeError" && lost.test(text(field(error, "message")) ?? ""))

// -----------------------------------------------------------------------------
// Reasons
// -----------------------------------------------------------------------------

type Fields = Omit<NonNullable<ConstructorParameters<typeof LlmError.RateLimited>[0]>, "_tag">

const construct = (tag: Tag, fields: Fields, resumesAt: DateTime.Utc | undefined): LlmError.LlmErrorReason =>
  tag === "SpendLimited" ? new LlmError.SpendLimited({ ...fields, resumesAt }) : new LlmError[tag](fields)

/** A stream that ended too soon. */
export const interrupted = (
  kind: LlmError.StreamInterrupted["kind"],
  received: LlmError.Received,
  fields: Fields = {}
): LlmError.StreamInterrupted => new LlmError.StreamInterrupted({ ...fields, kind, received })

/** The tier's monthly limit starts anew at 00:00 UTC on the first. */
const nextMonth = (now: number): DateTime.Utc =>
  DateTime.add(DateTime.startOf(DateTime.makeUnsafe(now), "month"), { months: 1 })

/** The reason of an answer with an error status, whose body was read as a text. */
export const fromResponse = (
  { body, headers, status }: { readonly body: string | undefined; readonly headers: object; readonly status: number },
  context: Context
): LlmError.LlmErrorReason => fromStatus({ headers, body, message: body }, status, context)

const fromStatus = (error: unknown, status: number, context: Context): LlmError.LlmErrorReason => {
  const { body: said, headers: get } = answerOf(error)
  // Bedrock's bare message has its type in a header, such as `ThrottlingException:http://internal.amazon.com/`.
  const body: Body = { ...said, type: said?.type ?? text(get("x-amzn-errortype")?.split(":")[0]) }
  // Without a JSON body the SDK's message is the status and the text of the body.
  const message = said === undefined ? text(field(error, "message"))?.replace(/^\d{3} /, "") : said.message
  const waitOf = (get: Headers.HeaderReader) => Headers.retryAfterMillis(get, context.now)
  const retryAfter =
    waitOf(get) ?? waitOf((name) => (name === "retry-after" ? body.retryDelay?.replace(/s$/, "") : undefined))
  const fields: Fields = {
    status,
    requestId: requestIdOf(get, context.secret),
    code: nameOf(body.code ?? body.type, context.secret),
    detail: detailOf(message, context.secret),
    retryAfter: retryAfter === undefined ? undefined : Duration.millis(retryAfter),
    shouldRetry: get("x-should-retry") === "false" ? false : undefined,
    signal: Headers.signalOf(get, context.now)
  }
  const resumesAt =
    body.code === "enforced_spend_limit_reached" ? nextMonth(Headers.timeOf(get, context.now)) : undefined
  return construct(tagOf(status, body), fields, resumesAt)
}

/** The reason of a failed request: anything that an SDK or `fetch` throws or rejects with before a stream begins. */
export const fromThrown = (error: unknown, context: Context): LlmError.LlmErrorReason => {
  const { body, status } = answerOf(error)
  if (status !== undefined && status >= 400) return fromStatus(error, status, context)
  const chain = chainOf(error)
  const names = chain.map(calledOf)
  const codes = codesOf(chain)
  const code = codes.find(isNetwork) ?? codes[0]
  const detail = detailOf(text(field(error, "message")), context.secret)
  if (names.some((name) => /(Syntax|JSONParse)Error$/.test(name))) {
    return new LlmError.MalformedResponse({ status: 200, detail })
  }
  if (status === undefined && body !== undefined && isProviders(error, body)) {
    return fromBody(body, { requestId: undefined }, context)
  }
  if (code !== undefined && isNetwork(code)) {
    return codes.some((one) => timeouts.test(one))
      ? new LlmError.TimedOut({ code })
      : new LlmError.ConnectionFailed({ sent: !codes.some((one) => unsent.test(one)), code })
  }
  if (names.some((name) => name.endsWith("TimeoutError"))) return new LlmError.TimedOut({ code })
  if (names.some((name) => /(Abort|Aborted|Canceled)Error$/.test(name))) {
    return new LlmError.ConnectionFailed({ sent: true, detail })
  }
  if (misaddressed.test(text(field(chain.at(-1), "message")) ?? "")) {
    const words = detailOf(wordsOf(chain), context.secret)
    return new LlmError.InvalidRequest({ code, detail: `${words}; check the base URL` })
  }
  if ((code === undefined || !impossible.test(code)) && chain.some(wasUnderWay)) {
    return new LlmError.ConnectionFailed({
      sent: !lacksCredentials(chain),
      code,
      detail: detailOf(wordsOf(chain), context.secret)
    })
  }
  return status === undefined
    ? new LlmError.InvalidRequest({ code, detail })
    : new LlmError.MalformedResponse({ status, detail })
}

/** The reason of an `error` event within a stream. `received` is undefined when nothing came before it. */
export const fromEvent = (
  data: unknown,
  received: LlmError.Received | undefined,
  fields: { readonly requestId: string | undefined },
  context: Context
): LlmError.LlmErrorReason => fromBody(bodyOf(data), { ...fields, received }, context)

const fromBody = (body: Body, fields: Fields, context: Context): LlmError.LlmErrorReason =>
  construct(
    tagOf(undefined, body),
    {
      ...fields,
      status: 200,
      code: nameOf(body.code ?? body.type, context.secret),
      detail: detailOf(body.message, context.secret)
    },
    body.code === "enforced_spend_limit_reached" ? nextMonth(context.now) : undefined
  )

/** The reason of a stream whose body could not be read to its end. */
export const fromBroken = (
  error: unknown,
  received: LlmError.Received,
  fields: { readonly requestId: string | undefined },
  context: Context
): LlmError.LlmErrorReason =>
  interrupted("cut", received, {
    ...fields,
    status: 200,
    code: codesOf(chainOf(error))[0],
    detail: detailOf(text(field(error, "message")), context.secret)
  })
