/**
 * How the provider server speaks HTTP: bodies, errors and events, whatever is behind them.
 */
import type { RawMessageStreamEvent } from "@anthropic-ai/sdk/resources/messages/messages"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Headers from "../headers.ts"
import * as Request from "./request.ts"

const encoder = new TextEncoder()

/** An event as it is sent; the first content is followed by a ping, as Anthropic does. */
export const sse = (event: RawMessageStreamEvent): Uint8Array => {
  const ping = event.type === "content_block_start" ? `event: ping\ndata: {"type":"ping"}\n\n` : ""
  return encoder.encode(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n${ping}`)
}

/** Ends the connection of the request without another byte. */
export const destroy = Effect.map(HttpServerRequest.HttpServerRequest, (request) => {
  NodeHttpServerRequest.toServerResponse(request).destroy()
})

/** An error as Anthropic answers it. */
export const failure = (
  error: Request.ApiError & { readonly errorCode?: string | undefined },
  requestId: string,
  more: Record<string, string> = {}
): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe(Headers.errorBody(error, requestId), {
    status: error.status,
    headers: { ...more, "request-id": requestId }
  })

const hasKey = ({ headers }: HttpServerRequest.HttpServerRequest): boolean =>
  (headers["x-api-key"] ?? "").trim() !== "" || /^bearer\s+\S/i.test(headers["authorization"] ?? "")

/** The body of a request that has a key, as JSON; or the error that answers any other. */
export const readBody = Effect.fnUntraced(function* (
  problemOf: (body: unknown) => string | undefined,
  maxBytes: number
): Effect.fn.Return<unknown, Request.ApiError, HttpServerRequest.HttpServerRequest> {
  const request = yield* HttpServerRequest.HttpServerRequest
  if (!hasKey(request)) return yield* Effect.fail(Request.unauthenticated)
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) return yield* Effect.fail(Request.tooLarge(maxBytes))
  const text = yield* request.text.pipe(
    Effect.provideService(HttpServerRequest.MaxBodySize, ByteSize.bytes(maxBytes)),
    Effect.mapError(({ reason }) =>
      reason._tag === "RequestParseError" && reason.reason === "BodyTooLarge"
        ? Request.tooLarge(maxBytes)
        : Request.invalid("The body could not be read")
    )
  )
  const body = yield* Effect.try({
    try: (): unknown => JSON.parse(text),
    catch: () => Request.invalid("The body is not valid JSON")
  })
  const problem = problemOf(body)
  return problem === undefined ? body : yield* Effect.fail(Request.invalid(problem))
})
