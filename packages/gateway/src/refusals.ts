/** Answers of the gateway in place of a provider, and their reasons. */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type { ServerResponse } from "node:http"
import { type Protocol, protocols } from "floodgate/protocol"
import { type Engine, JsonValues, type Refusing } from "floodgate/internal"
import * as Signals from "floodgate/Signals"
import type * as Bodies from "./bodies.ts"
import * as Response from "./response.ts"
import type { UpstreamResponse } from "./transport.ts"

const { anthropic } = protocols

// -----------------------------------------------------------------------------
// Reasons
// -----------------------------------------------------------------------------

/** The refusals of a body that was not read. */
export const unread: Readonly<Record<Bodies.Unread, Refusing.Refusal>> = {
  tooLarge: {
    kind: "tooLarge",
    message: "The body is larger than the gateway accepts (option maxBodyBytes): send less at once"
  },
  slow: {
    kind: "timedOut",
    message: "The body arrived too slowly, almost nothing in 10 seconds: use a faster connection"
  },
  full: {
    kind: "unavailable",
    message: "The gateway has no memory left for request bodies (option maxHeldBytes): try again in a moment"
  }
}

const why = "the gateway must be able to read it"
export const encoded: Refusing.Refusal = {
  kind: "invalid",
  message: `Send the body of a call without content-encoding: ${why}`
}
export const notJson: Refusing.Refusal = {
  kind: "invalid",
  message: `Send the body of a call as a JSON object in UTF-8: ${why}`
}
export const tooManyValues = (values: number): Refusing.Refusal => ({
  kind: "tooLarge",
  message: `The body has ${values} JSON values, and the gateway reads at most ${JsonValues.maxValues}: send fewer messages`
})

/** Explains why no answer of the provider can be passed on. The message contains no part of the request. */
export const unreachable = (thrown: unknown, now: number): Refusing.Refusal => {
  const { reason } = Signals.fromError(thrown, now)
  if (reason._tag === "MalformedResponse") {
    return { kind: reason.executed === false ? "noProvider" : "executed", message: reason.message }
  }
  const { code, message } = (thrown ?? {}) as { readonly code?: unknown; readonly message?: unknown }
  const why = [code, message].find((text) => typeof text === "string" && text !== "") ?? "the connection gave no reason"
  return {
    kind: "badGateway",
    message: `No answer from the provider (${why}): check that the gateway can reach the address of its upstream`
  }
}

const kinds: Readonly<Record<number, Refusing.Refusal["kind"]>> = {
  401: "unauthorized",
  402: "spendLimited",
  403: "forbidden",
  404: "notFound",
  408: "unavailable",
  409: "unavailable",
  413: "tooLarge",
  429: "rateLimited",
  502: "badGateway"
}

/** The kind of refusal that corresponds to a status of the provider. */
const kindOf = (status: number): Refusing.Refusal["kind"] =>
  kinds[status] ?? (status >= 400 && status < 500 ? "invalid" : "unavailable")

/** The number of bytes of a provider's error that are quoted. */
const maxQuoted = 1_000
const decoder = new TextDecoder()

/** The provider's answer as the error that ends a stream which has already begun. */
export const answeredBy = ({ status }: UpstreamResponse, body: Uint8Array): Refusing.Refusal => ({
  kind: kindOf(status),
  message: `The provider answered with status ${status}: ${decoder.decode(body.subarray(0, maxQuoted))}`
})

// -----------------------------------------------------------------------------
// Responses
// -----------------------------------------------------------------------------

/** A refusal on a route without a known protocol has Anthropic's form, which any client can read. */
export const refusalFor = (refusal: Refusing.Refusal, protocol: Protocol = anthropic): Refusing.RefusalResponse =>
  protocol.refuse(refusal)

const withoutRetry = (refusal: Refusing.RefusalResponse): Refusing.RefusalResponse => ({
  ...refusal,
  headers: { ...refusal.headers, "x-should-retry": "false" }
})

/** Answers with a refusal of the gateway. */
export const refuse = (
  response: ServerResponse,
  { body, headers, status }: Refusing.RefusalResponse
): Effect.Effect<void> => Response.whole(response, status, headers, body)

/** The refusal of a call whose provider could not be reached. The governor has already retried it. */
export const lost = ({ match: { protocol } }: Engine.HttpCall, error: unknown, now: number): Engine.RefusedCall => {
  const refusal = unreachable(error, now)
  return { refusal, response: withoutRetry(protocol.refuse(refusal)) }
}

/**
 * Answers a request on which the gateway itself failed, for example because a callback threw. A retry would not help. An id leads from
 * the answer to the line of the log with the cause.
 */
export const failed = Effect.fnUntraced(function* (response: ServerResponse, why: unknown): Effect.fn.Return<void> {
  const id = (yield* Random.nextIntBetween(0, 2 ** 32)).toString(16).padStart(8, "0")
  yield* Effect.logError(`A request failed in the gateway (${id})`, why)
  if (response.headersSent) return
  const message = `The gateway failed to handle this request: search its log for ${id}, which stands beside the cause`
  yield* refuse(response, withoutRetry(refusalFor({ kind: "unavailable", message })))
})
