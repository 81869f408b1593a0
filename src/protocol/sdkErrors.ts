/**
 * Maps the errors of SDKs, responses with an error status, and error events of streams to reasons. Pure: the time is an argument.
 * `protocol/errors.ts` knows what a response means; this file knows where SDKs keep its parts, and how connections fail.
 *
 * Errors are read by their structure, not by their class: SDKs store the same facts in similar places, and the Bedrock, Vertex
 * and Foundry packages may contain a copy of the SDK. The text of a message decides only for a `fetch` without any other
 * information.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as Reasons from "./errorReasons.ts"
import {
  detailOf,
  type ErrorObject,
  errorObjectOf,
  type Failure,
  type FailureContext,
  failureOf,
  failureOfError,
  isKnown
} from "./errors.ts"
import { type HeaderReader, headerReader } from "./headers.ts"

// -----------------------------------------------------------------------------
// Reading
// -----------------------------------------------------------------------------

const field = (value: unknown, name: string): unknown => (Predicate.hasProperty(value, name) ? value[name] : undefined)
const text = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? value : undefined)

/** A response with an error. */
interface ErrorResponse {
  readonly status: number | undefined
  readonly header: HeaderReader
  /** Undefined if the response has no error object. */
  readonly error: ErrorObject | undefined
}

const errorResponseOf = (error: unknown): ErrorResponse => {
  const places = [error, field(error, "response"), field(error, "$response")]
  const all = (...names: ReadonlyArray<string>) => places.flatMap((place) => names.map((name) => field(place, name)))
  const headers = all("headers", "responseHeaders").find((one) => typeof one === "object" && one !== null)
  return {
    status: [...all("status", "statusCode"), field(field(error, "$metadata"), "httpStatusCode")].find(
      (status) => typeof status === "number"
    ),
    header: headerReader(headers ?? {}),
    error: firstErrorObject([
      ...all("error", "body", "responseBody", "data"),
      field(error, "message"),
      // Errors of the AWS SDK have their type as their name, and nothing else if they come from a stream.
      field(error, "$fault") && { type: calledOf(error), message: field(error, "message") }
    ])
  }
}

/** The error object of the first of these values that has one. A value may be a text of JSON. */
const firstErrorObject = (values: ReadonlyArray<unknown>): ErrorObject | undefined => {
  for (const value of values) {
    const error = errorObjectOf(value)
    if (error !== undefined) return error
  }
  return undefined
}

/**
 * Whether an error without a status comes from the provider: it contains an event of a stream, which SDKs keep as `error`, or a
 * body with one of the known names. Errors of the user's code, such as those of a schema, also have codes and types.
 */
const isProviders = (thrown: unknown, error: ErrorObject): boolean => {
  const event = errorObjectOf(field(thrown, "error"))
  return (event?.type ?? event?.code) !== undefined || isKnown(error)
}

/** The context of what a client threw. */
interface ThrownContext extends FailureContext {
  /** The address of the request, whose origin is told. @default what the causes tell */
  readonly address?: string | undefined
}

/** The part of an address that has no key. A URL calls it "null" for an unknown scheme, such as localhost: without http. */
const originOf = ({ address = "" }: ThrownContext): string | undefined => {
  const origin = URL.parse(address)?.origin
  return origin === "null" ? undefined : origin
}

/** The error and its causes: `fetch failed` hides ECONNREFUSED one level down. */
const chainOf = (error: unknown): ReadonlyArray<unknown> => {
  const chain: Array<unknown> = []
  for (let cause = error; cause !== undefined && chain.length < 5; cause = field(cause, "cause")) chain.push(cause)
  return chain
}

/** The error codes along the chain of causes. */
const codesOf = (chain: ReadonlyArray<unknown>): ReadonlyArray<string> =>
  chain.map((cause) => text(field(cause, "code"))).filter((code) => code !== undefined)

/** The name of an error. Some SDKs do not set `name`, so the name of the class is used. */
const calledOf = (error: unknown): string => {
  const name = text(field(error, "name")) ?? "Error"
  return name === "Error" ? (text(field(field(error, "constructor"), "name")) ?? name) : name
}

/**
 * Whether the SDK could not get credentials for the request. For AWS and Google it gets them from other servers: their response
 * has a status, and the error of AWS is a `ProviderError`.
 */
const lacksCredentials = ([, ...causes]: ReadonlyArray<unknown>): boolean =>
  causes.some(
    (cause) =>
      typeof field(cause, "status") === "number" || text(field(cause, "name"))?.endsWith("ProviderError") === true
  )

/** The messages of the first and the last error of the chain, because the SDK's own is not informative. */
const wordsOf = (chain: ReadonlyArray<unknown>): string =>
  [...new Set([chain[0], chain.at(-1)].map((cause) => text(field(cause, "message"))))].join(" ").trim()

const unsent =
  /^(ECONNREFUSED|ConnectionRefused|FailedToOpenSocket|ENOTFOUND|EAI_\w+|EHOSTUNREACH|ENETUNREACH|ENETDOWN|EADDRNOTAVAIL|EADDRINUSE|EMFILE|ENOBUFS|EPROTO|UND_ERR_CONNECT_TIMEOUT|ERR_TLS_\w+|ERR_SSL_\w+|CERT_\w+|HOSTNAME_MISMATCH|UNABLE_TO_\w+|\w*SELF_SIGNED_CERT\w*)$/
const timeouts = /^(ETIMEDOUT|ESOCKETTIMEDOUT|ETIMEOUT|ERR_SOCKET_CONNECTION_TIMEOUT|UND_ERR_(HEADERS|BODY)_TIMEOUT)$/
const broken =
  /^(ECONN\w+|Connection\w+|EPIPE|ENETRESET|ENOTCONN|ESHUTDOWN|EHOSTDOWN|UND_ERR_\w+|ERR_NETWORK|ERR_BAD_RESPONSE|ERR_HTTP2_\w+|ERR_SOCKET_CLOSED|ERR_STREAM_(PREMATURE_CLOSE|DESTROYED)|HPE_\w+)$/
/** The codes of Node's parser, and the words of undici's, which has no code, for bytes that are no status line of HTTP. */
const noHttp =
  /^HPE_INVALID_(?:CONSTANT|VERSION|STATUS)$|HTTP\/1\.1 protocol \((?:Expected HTTP|Invalid HTTP version|Invalid status code|Response overflow)/
/**
 * The same for a response that breaks the protocol after its status line. `HPE_INVALID_EOF_STATE` is not among them, which is a
 * connection that was cut. undici takes an unasked `100 Continue` for a bad response.
 */
const unreadable =
  /^HPE_(?!INVALID_EOF_STATE$)\w+$|^UND_ERR_(?:HEADERS_OVERFLOW|RES_CONTENT_LENGTH_MISMATCH)$|HTTP\/1\.1 protocol \(|^bad (?:response|upgrade)$/

/**
 * Detects an answer that cannot be read: `executed` if it was a response of HTTP, so that the provider has probably executed the call.
 * Undefined for any other error.
 */
const unreadableOf = (chain: ReadonlyArray<unknown>): { readonly executed: boolean } | undefined => {
  const signs = chain.flatMap((cause) => [text(field(cause, "code")), text(field(cause, "message"))])
  const shows = (pattern: RegExp): boolean => signs.some((sign) => sign !== undefined && pattern.test(sign))
  if (!shows(unreadable)) return undefined
  return { executed: !shows(noHttp) }
}

/** The codes of Node and undici for invalid arguments, such as an invalid address. */
const impossible = /^(UND_)?ERR_INVALID_/

/** Whether a code is a network error. Errors of files, databases and assertions also have codes. */
const isNetwork = (code: string): boolean =>
  !impossible.test(code) && [unsent, timeouts, broken].some((codes) => codes.test(code))

/** The messages of `fetch` without a code, in browsers, Deno and React Native. Other `TypeError`s are bugs. */
const lost =
  /^(fetch failed|terminated|network error|Failed to fetch|Load failed|NetworkError when|Network request failed|error sending request)/i

/** The messages of `fetch` for an address that it does not try, which the SDK reports as a lost connection. */
const misaddressed = /^(bad port|unknown scheme|URL scheme must|Invalid URL)|URL that includes credentials/

/** `fetch` says "bad port" for a port that it blocks, such as 1, 25 and 6000, because other protocols use it. */
const blockedPort = "the runtime never connects to this port, which fetch blocks"

/** Node's code for an address that is none. `fetch` gives none of those that it does not try, such as http://127.0.0.1:6000. */
export const invalidUrl = "ERR_INVALID_URL"

/** Whether the request was under way: an SDK has wrapped the error as a response without a status, or `fetch` has failed. */
const wasUnderWay = (error: unknown): boolean =>
  calledOf(error).endsWith("ConnectionError") ||
  ["status", "statusCode"].some((name) => Predicate.hasProperty(error, name) && error[name] === undefined) ||
  (calledOf(error) === "TypeError" && lost.test(text(field(error, "message")) ?? ""))

// -----------------------------------------------------------------------------
// Reasons
// -----------------------------------------------------------------------------

type ReasonFields = Omit<NonNullable<ConstructorParameters<typeof Reasons.RateLimited>[0]>, "_tag">

/** The reason of a stream that ended early. */
export const interrupted = (
  kind: Reasons.StreamInterrupted["kind"],
  received: NonNullable<Reasons.LlmErrorReason["received"]>,
  fields: ReasonFields = {}
): Reasons.StreamInterrupted => new Reasons.StreamInterrupted({ ...fields, kind, received })

/** Converts a failure that a protocol has read to a reason. */
export const reasonOf = (failure: Failure, more: ReasonFields = {}): Reasons.LlmErrorReason => {
  const { code, detail, reason, requestId, resumesAt, retryAfterMillis, shouldRetry, signal, status } = failure
  const fields: ReasonFields = {
    status,
    requestId,
    code,
    detail,
    retryAfter: retryAfterMillis === undefined ? undefined : Duration.millis(retryAfterMillis),
    shouldRetry,
    signal,
    ...more
  }
  return reason === "SpendLimited"
    ? new Reasons.SpendLimited({
        ...fields,
        resumesAt: resumesAt === undefined ? undefined : DateTime.makeUnsafe(resumesAt)
      })
    : new Reasons[reason](fields)
}

/** The reason of a response with an error status and a text as its body. */
export const fromResponse = (
  { body, headers, status }: { readonly body: string | undefined; readonly headers: object; readonly status: number },
  context: FailureContext
): Reasons.LlmErrorReason => reasonOf(failureOf({ status, header: headerReader(headers), body }, context))

/** The reason of a failed request: any error of an SDK or of `fetch` before a stream begins. */
export const fromThrown = (thrown: unknown, context: ThrownContext): Reasons.LlmErrorReason => {
  const { error, header, status } = errorResponseOf(thrown)
  const message = text(field(thrown, "message"))
  if (status !== undefined && status >= 400) {
    // Without a JSON body, the SDK's message consists of the status and the text of the body.
    return reasonOf(failureOfError({ status, header, error, text: message?.replace(/^\d{3} /, "") }, context))
  }
  const chain = chainOf(thrown)
  if (chain.some((cause) => /(Syntax|JSONParse)Error$/.test(calledOf(cause)))) {
    return new Reasons.MalformedResponse({ status: 200, detail: detailOf(message, context.secret) })
  }
  if (status === undefined && error !== undefined && isProviders(thrown, error)) {
    return reasonOf(failureOfError({ status, header, error }, context))
  }
  return fromConnection(chain, status, context)
}

/** The reason of a network error, from its code and all codes along the chain of causes. */
const fromNetwork = (
  code: string,
  codes: ReadonlyArray<string>,
  address: string | undefined
): Reasons.LlmErrorReason => {
  if (codes.some((one) => timeouts.test(one))) return new Reasons.TimedOut({ code })
  const sent = !codes.some((one) => unsent.test(one))
  return new Reasons.ConnectionFailed({ sent, code, detail: sent ? undefined : address })
}

/** The address that could not be reached, as Node tells it; undefined if no cause of the chain does. */
const addressIn = (chain: ReadonlyArray<unknown>): string | undefined => {
  for (const cause of chain) {
    const host = text(field(cause, "hostname")) ?? text(field(cause, "address"))
    const port = field(cause, "port")
    if (host !== undefined) return typeof port === "number" ? `${host}:${port}` : host
  }
  return undefined
}

/** The reason of a failed connection, from the codes and names along the chain of causes. */
const fromConnection = (
  chain: ReadonlyArray<unknown>,
  status: number | undefined,
  context: ThrownContext
): Reasons.LlmErrorReason => {
  const names = chain.map(calledOf)
  const codes = codesOf(chain)
  const code = codes.find(isNetwork) ?? codes[0]
  const detail = detailOf(text(field(chain[0], "message")), context.secret)
  const unreadable = unreadableOf(chain)
  if (unreadable !== undefined) {
    return new Reasons.MalformedResponse({ ...unreadable, code, detail: detailOf(wordsOf(chain), context.secret) })
  }
  if (code !== undefined && isNetwork(code)) return fromNetwork(code, codes, originOf(context) ?? addressIn(chain))
  if (names.some((name) => name.endsWith("TimeoutError"))) return new Reasons.TimedOut({ code })
  if (names.some((name) => /(Abort|Aborted|Canceled)Error$/.test(name))) {
    return new Reasons.ConnectionFailed({ sent: true, detail })
  }
  const says = text(field(chain.at(-1), "message")) ?? ""
  if (misaddressed.test(says)) {
    const origin = originOf(context)
    const where = origin === undefined ? "" : `: ${origin}`
    const words = says === "bad port" ? blockedPort : detailOf(wordsOf(chain), context.secret)
    return new Reasons.InvalidRequest({ code: code ?? invalidUrl, detail: `${words}${where}; check the base URL` })
  }
  if ((code === undefined || !impossible.test(code)) && chain.some(wasUnderWay)) {
    return new Reasons.ConnectionFailed({
      sent: !lacksCredentials(chain),
      code,
      detail: detailOf(wordsOf(chain), context.secret)
    })
  }
  return status === undefined
    ? new Reasons.InvalidRequest({ code, detail })
    : new Reasons.MalformedResponse({ status, detail })
}

const noHeaders: HeaderReader = () => undefined

/** The reason of an `error` event within a stream. `received` is undefined if nothing arrived before it. */
export const fromEvent = (
  data: unknown,
  received: NonNullable<Reasons.LlmErrorReason["received"]> | undefined,
  fields: { readonly requestId: string | undefined },
  context: FailureContext
): Reasons.LlmErrorReason =>
  reasonOf(failureOf({ status: 200, header: noHeaders, body: data }, context), { ...fields, received })

/** The reason of a stream whose body could not be read to its end. */
export const fromBroken = (
  error: unknown,
  received: NonNullable<Reasons.LlmErrorReason["received"]>,
  fields: { readonly requestId: string | undefined },
  context: FailureContext
): Reasons.LlmErrorReason => {
  const chain = chainOf(error)
  const more = {
    ...fields,
    status: 200,
    code: codesOf(chain)[0],
    detail: detailOf(text(field(error, "message")), context.secret)
  }
  return !received.started && unreadableOf(chain) !== undefined
    ? new Reasons.MalformedResponse({ ...more, executed: true })
    : interrupted("cut", received, more)
}
