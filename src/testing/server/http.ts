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

const keyOf = ({ headers, url }: HttpServerRequest.HttpServerRequest): string | undefined =>
  [
    ...keyHeaders.map((name) => headers[name]?.trim()),
    /^bearer\s+(\S.*)$/i.exec(headers["authorization"] ?? "")?.[1]?.trim(),
    queryOf(url).get("key")
  ].find((key): key is string => key !== undefined && key !== null && key !== "")

/** The bounds on a request before its content. */
interface Bounds {
  readonly maxBytes: number
  readonly needsKey: boolean
  /** The keys that are accepted; undefined for any. */
  readonly keys: ReadonlyArray<string> | undefined
  /** The error for any other key. */
  readonly wrongKey: Request.ApiError
}

/** The body of a request as a JSON object. Fails if the request has no key that it needs, or the body is too large or not valid. */
export const readBody = Effect.fnUntraced(function* ({
  keys,
  maxBytes,
  needsKey,
  wrongKey
}: Bounds): Effect.fn.Return<Body, Request.ApiError, HttpServerRequest.HttpServerRequest> {
  const request = yield* HttpServerRequest.HttpServerRequest
  const key = keyOf(request)
  if (needsKey && key === undefined) return yield* Effect.fail(Request.unauthenticated)
  if (needsKey && keys !== undefined && !keys.includes(key!)) return yield* Effect.fail(wrongKey)
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
