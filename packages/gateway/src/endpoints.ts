/**
 * The gateway's own endpoints, each once: where it is, who may use it, and how it answers. The router and the OpenAPI document are made
 * from this table.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import * as Effect from "effect/Effect"
import type { Refusal } from "floodgate/protocol"
import { statusOf } from "floodgate/internal"
import type { AuthResult } from "./auth.ts"
import * as Caps from "./caps.ts"
import type { Generation } from "./generation.ts"
import * as Metrics from "./metrics.ts"
import type * as Page from "./page.ts"
import * as Response from "./response.ts"
import { isSecret } from "./secrets.ts"

/**
 * Who may use an endpoint. Supervisors have no token, so everybody may ask for the health. `"page"` is open without the token, because
 * it has no data, and the page itself asks for it. The list of requests has a token of its own, so that who may read it need not be
 * able to call. Who changes a cap needs the admin token besides.
 */
export type Access = "everybody" | "page" | "token" | "requests" | "admin"

/** The parts that answer. */
export interface EndpointParts {
  readonly isClosing: () => boolean
  readonly page: ReturnType<typeof Page.make>
  readonly metrics: Effect.Effect<string>
}

/** A request for an endpoint. */
export interface EndpointRequest {
  readonly parts: EndpointParts
  readonly generation: Generation
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly query: string
}

export interface Endpoint {
  readonly method: "GET" | "POST"
  readonly path: `/${string}`
  readonly access: Access
  readonly answer: (asked: EndpointRequest) => Effect.Effect<void>
}

const requests = ({ parts }: Generation, query: string, response: ServerResponse): Effect.Effect<void> => {
  const found = parts.requests?.find(new URLSearchParams(query)) ?? []
  return typeof found === "string"
    ? Response.failed(response, 400, found)
    : Response.json(response, 200, { at: parts.now(), requests: found })
}

const endpoints: ReadonlyArray<Endpoint> = [
  {
    method: "GET",
    path: "/healthz",
    access: "everybody",
    answer: ({ response }) => Response.own(response, 200, "ok\n")
  },
  {
    method: "GET",
    path: "/readyz",
    access: "everybody",
    answer: ({ parts, response }) =>
      parts.isClosing() ? Response.own(response, 503, "closing\n") : Response.own(response, 200, "ready\n")
  },
  {
    method: "GET",
    path: "/metrics",
    access: "token",
    answer: ({ parts, response }) =>
      Effect.flatMap(parts.metrics, (text) => Response.own(response, 200, text, Metrics.contentType))
  },
  {
    method: "GET",
    path: "/floodgate",
    access: "page",
    answer: ({ response }) => Response.whole(response, 302, { location: "floodgate/" }, "")
  },
  {
    method: "GET",
    path: "/floodgate/",
    access: "page",
    answer: ({ parts, response }) => parts.page.file("markup", response)
  },
  {
    method: "GET",
    path: "/floodgate/page.css",
    access: "page",
    answer: ({ parts, response }) => parts.page.file("style", response)
  },
  {
    method: "GET",
    path: "/floodgate/page.js",
    access: "page",
    answer: ({ parts, response }) => parts.page.file("script", response)
  },
  {
    method: "GET",
    path: "/floodgate/status",
    access: "token",
    answer: ({ parts, response }) => parts.page.status(response)
  },
  {
    method: "GET",
    path: "/floodgate/events",
    access: "token",
    answer: ({ parts, response }) => parts.page.watch(response)
  },
  {
    method: "GET",
    path: "/floodgate/advice",
    access: "token",
    answer: ({ parts, query, response }) => parts.page.question("advice", query, response)
  },
  {
    method: "GET",
    path: "/floodgate/forecast",
    access: "token",
    answer: ({ parts, query, response }) => parts.page.question("forecast", query, response)
  },
  {
    method: "GET",
    path: "/floodgate/requests",
    access: "requests",
    answer: ({ generation, query, response }) => requests(generation, query, response)
  },
  {
    method: "POST",
    path: "/floodgate/caps",
    access: "admin",
    answer: ({ generation, request, response }) => Caps.change(generation.parts.purses, request, response)
  }
]

const byRoute: ReadonlyMap<string, Endpoint> = new Map(
  endpoints.map((endpoint) => [`${endpoint.method} ${endpoint.path}`, endpoint])
)

/** The endpoint for a request. */
export const endpointOf = (method: string | undefined, path: string): Endpoint | undefined =>
  byRoute.get(`${method} ${path}`)

/** The endpoint that answers everybody, whatever the method and however the request is broken otherwise. */
export const healthOf = (path: string | undefined): Endpoint | undefined => {
  const found = endpointOf("GET", path ?? "")
  return found?.access === "everybody" ? found : undefined
}

/** Answers a request for something of the gateway's own that it may not have, in plain text for people. */
export const refuse = (response: ServerResponse, refusal: Refusal): Effect.Effect<void> =>
  Response.own(response, statusOf(refusal), `${refusal.message}\n`)

/** A secret of its own that an endpoint requires. */
const secrets = {
  requests: {
    header: "x-floodgate-requests",
    setting: "requestsToken",
    off: "The last requests are not remembered: start the gateway with a token for them in FLOODGATE_GATEWAY_REQUESTS_TOKEN (setting requestsToken)",
    wrong: "The token for the list of requests is missing or wrong: add the header x-floodgate-requests"
  },
  admin: {
    header: "x-floodgate-admin",
    setting: "adminToken",
    off: "Caps can be changed once the gateway has an admin token (option adminToken)",
    wrong: "The admin token is missing or wrong: add the header x-floodgate-admin"
  }
} as const

/** Why a request may not use an endpoint, as the answer that says so; undefined if it may. */
export const denial = (
  { access }: Endpoint,
  { refusal }: AuthResult,
  { generation, request, response }: EndpointRequest
): Effect.Effect<void> | undefined => {
  const isWithoutToken = access === "page" || access === "requests"
  if (refusal !== undefined && !(isWithoutToken && refusal.kind === "unauthorized")) return refuse(response, refusal)
  if (access !== "requests" && access !== "admin") return undefined
  const { header, off, setting, wrong } = secrets[access]
  const { [setting]: secret } = generation.checked
  if (secret === undefined) return Response.failed(response, 403, off)
  return isSecret(secret)(request.headers[header]) ? undefined : Response.failed(response, 401, wrong)
}
