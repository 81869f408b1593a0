/** The HTTP of the provider server: keys, bodies and broken connections. */
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Validity from "../validity.ts"
import type { Body } from "./dialects/dialect.ts"
import * as Request from "./request.ts"

/** Ends the connection of the request without another byte. */
export const destroy = Effect.map(HttpServerRequest.HttpServerRequest, (request) => {
  NodeHttpServerRequest.toServerResponse(request).destroy()
})

/** Breaks the connection of the request. */
export const broken = Effect.andThen(destroy, Effect.never)

/** The query of a URL that may be relative. */
export const queryOf = (url: string): URLSearchParams => new URLSearchParams(url.split("?", 2)[1] ?? "")

/** The headers that hold a key: Anthropic's, Azure's and Google's. */
const keyHeaders = ["x-api-key", "api-key", "x-goog-api-key"]

const hasKey = ({ headers, url }: HttpServerRequest.HttpServerRequest): boolean =>
  keyHeaders.some((name) => (headers[name] ?? "").trim() !== "") ||
  /^bearer\s+\S/i.test(headers["authorization"] ?? "") ||
  (queryOf(url).get("key") ?? "") !== ""

/** The body of a request as a JSON object. Fails if the request has no key but needs one, or the body is too large or not valid. */
export const readBody = Effect.fnUntraced(function* (
  maxBytes: number,
  needsKey: boolean
): Effect.fn.Return<Body, Request.ApiError, HttpServerRequest.HttpServerRequest> {
  const request = yield* HttpServerRequest.HttpServerRequest
  if (needsKey && !hasKey(request)) return yield* Effect.fail(Request.unauthenticated)
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
  const problem = Validity.formProblem(body)
  // The check above makes sure that it is an object.
  return problem === undefined ? (body as Body) : yield* Effect.fail(Request.invalid(problem))
})
