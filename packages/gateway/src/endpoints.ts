/**
 * The gateway's own endpoints, each once: where it is, who may use it, and how it answers. The router and the OpenAPI document are made
 * from this table.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import * as Effect from "effect/Effect"
import * as Record from "effect/Record"
import * as Schema from "effect/Schema"
import { AdviceFigures, Refusing } from "floodgate/internal"
import type { AuthResult } from "./auth.ts"
import * as Changes from "./changes.ts"
import { version } from "./command/version.ts"
import * as Schemas from "./endpointSchemas.ts"
import type { Generation } from "./generation.ts"
import * as Metrics from "./metrics.ts"
import { documentOf, type DocumentedEndpoint } from "./openapi.ts"
import type { KeyAdditions } from "./keyAdditions.ts"
import type * as Page from "./page.ts"
import { maxRequests } from "./requests.ts"
import * as Response from "./response.ts"
import { isSecret } from "./secrets.ts"

/** The parts that answer. */
export interface EndpointParts {
  readonly isClosing: () => boolean
  readonly keys: KeyAdditions
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

export interface Endpoint extends DocumentedEndpoint {
  readonly answer: (asked: EndpointRequest) => Effect.Effect<void>
}

const requests = ({ parts }: Generation, query: string, response: ServerResponse): Effect.Effect<void> => {
  const found = parts.requests?.find(new URLSearchParams(query)) ?? []
  return typeof found === "string"
    ? Response.failed(response, 400, found)
    : Response.json(response, 200, { at: parts.now(), requests: found } satisfies typeof Schemas.requests.Type)
}

/** The parameters of questions about advice and forecasts; see `Agents.advise`. */
const figures = {
  ...Record.fromIterableWith(AdviceFigures.texts, (name) => [name, Schema.String]),
  ...Record.fromIterableWith(AdviceFigures.numbers, (name) => [name, Schema.Finite])
}
const pattern = Schema.String.annotate({ description: "* stands for any characters" })
const limit = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: maxRequests }))

const text = (description: string, type = "text/plain") => ({ description, content: { [type]: undefined } })
const json = (description: string, schema: Schema.Top) => ({ description, content: { "application/json": schema } })
const wrong = json("What is wrong with the request", Schemas.failure)

/** The answers to a change. */
const changed = (now: string, schema: Schema.Top, missing: string) => ({
  200: json(now, schema),
  400: wrong,
  404: json(missing, Schemas.failure),
  413: json("The body is too long", Schemas.failure)
})

const endpoints: ReadonlyArray<Endpoint> = [
  {
    id: "health",
    method: "GET",
    path: "/healthz",
    access: "everybody",
    summary: "Whether the gateway runs",
    answers: { 200: text("It runs") },
    answer: ({ response }) => Response.own(response, 200, "ok\n")
  },
  {
    id: "readiness",
    method: "GET",
    path: "/readyz",
    access: "everybody",
    summary: "Whether the gateway accepts requests",
    answers: { 200: text("It accepts requests"), 503: text("It is closing") },
    answer: ({ parts, response }) =>
      parts.isClosing() ? Response.own(response, 503, "closing\n") : Response.own(response, 200, "ready\n")
  },
  {
    id: "metrics",
    method: "GET",
    path: "/metrics",
    access: "token",
    summary: "Metrics for Prometheus",
    answers: { 200: text("In the text format of Prometheus") },
    answer: ({ parts, response }) =>
      Effect.flatMap(parts.metrics, (text) => Response.own(response, 200, text, Metrics.contentType))
  },
  {
    id: "toPage",
    method: "GET",
    path: "/floodgate",
    access: "page",
    summary: "Leads to the page",
    answers: { 302: { description: "To the page" } },
    answer: ({ response }) => Response.whole(response, 302, { location: "floodgate/" }, "")
  },
  {
    id: "page",
    method: "GET",
    path: "/floodgate/",
    access: "page",
    summary: "The live page",
    answers: { 200: text("A page for browsers", "text/html") },
    answer: ({ parts, response }) => parts.page.file("markup", response)
  },
  {
    id: "pageStyle",
    method: "GET",
    path: "/floodgate/page.css",
    access: "page",
    summary: "The style of the page",
    answers: { 200: text("A style sheet", "text/css") },
    answer: ({ parts, response }) => parts.page.file("style", response)
  },
  {
    id: "pageScript",
    method: "GET",
    path: "/floodgate/page.js",
    access: "page",
    summary: "The script of the page",
    answers: { 200: text("A module", "text/javascript") },
    answer: ({ parts, response }) => parts.page.file("script", response)
  },
  {
    id: "openapi",
    method: "GET",
    path: "/floodgate/openapi.json",
    access: "page",
    summary: "This document",
    answers: { 200: json("An OpenAPI document", Schema.Record(Schema.String, Schema.Unknown)) },
    answer: ({ generation, response }) =>
      Response.json(response, 200, documentOf(endpoints, version, generation.checked.token !== undefined))
  },
  {
    id: "status",
    method: "GET",
    path: "/floodgate/status",
    access: "token",
    summary: "The state of the gateway: limits, caps, keys, agents and what happened lately",
    answers: { 200: json("The state now", Schemas.status) },
    answer: ({ parts, response }) => parts.page.status(response)
  },
  {
    id: "events",
    method: "GET",
    path: "/floodgate/events",
    access: "token",
    summary: "The state of the gateway, every second",
    answers: {
      200: text("A stream of events. The data of each is the JSON of /floodgate/status", "text/event-stream"),
      503: text("Too many browsers show the page already")
    },
    answer: ({ parts, response }) => parts.page.watch(response)
  },
  {
    id: "advice",
    method: "GET",
    path: "/floodgate/advice",
    access: "token",
    summary: "How many agents to start now",
    parameters: figures,
    answers: {
      200: json("Advice", Schemas.advice),
      400: wrong,
      404: json("There is no such pool", Schemas.failure),
      503: json("The store that gateways share does not answer", Schemas.failure)
    },
    answer: ({ parts, query, response }) => parts.page.question("advice", query, response)
  },
  {
    id: "forecast",
    method: "GET",
    path: "/floodgate/forecast",
    access: "token",
    summary: "When agents end if all of them start now",
    parameters: figures,
    answers: {
      200: json("A forecast", Schemas.forecast),
      400: wrong,
      404: json("There is no such pool", Schemas.failure),
      503: json("The store that gateways share does not answer", Schemas.failure)
    },
    answer: ({ parts, query, response }) => parts.page.question("forecast", query, response)
  },
  {
    id: "requests",
    method: "GET",
    path: "/floodgate/requests",
    access: "requests",
    summary: "The last requests that have ended, the newest first",
    parameters: { caller: pattern, agent: pattern, model: pattern, outcome: Schemas.outcome, limit },
    answers: { 200: json("The requests", Schemas.requests), 400: wrong },
    answer: ({ generation, query, response }) => requests(generation, query, response)
  },
  {
    id: "tickets",
    method: "GET",
    path: "/floodgate/tickets",
    access: "token",
    summary: "The calls with tickets for a reset: those that wait, were sent, or have an unknown outcome",
    answers: { 200: json("The tickets", Schemas.tickets) },
    answer: ({ generation, response }) =>
      Response.json(response, 200, {
        at: generation.parts.now(),
        tickets: generation.parts.tickets.list
      } satisfies typeof Schemas.tickets.Type)
  },
  {
    id: "cancelTicket",
    method: "POST",
    path: "/floodgate/tickets",
    access: "admin",
    summary: "Cancels a ticket, or all tickets of a key",
    body: Schemas.ticketChange,
    answers: changed("The cancelled tickets", Schemas.cancelledTickets, "No such ticket waits"),
    answer: ({ generation, request, response }) => Changes.ofTicket(generation.parts.tickets, request, response)
  },
  {
    id: "changeCap",
    method: "POST",
    path: "/floodgate/caps",
    access: "admin",
    summary: "Raises a cap for now, or resets what was spent of it",
    body: Schemas.capChange,
    answers: changed("The cap now", Schemas.changedCap, "No cap, or more than one, has this name"),
    answer: ({ generation, request, response }) => Changes.ofCap(generation.parts.purses, request, response)
  },
  {
    id: "changeJob",
    method: "POST",
    path: "/floodgate/jobs",
    access: "admin",
    summary: "Stops a job, or lets it go on",
    body: Schemas.jobChange,
    answers: changed("The job now", Schemas.changedJob, "There is no such job"),
    answer: ({ generation, request, response }) => Changes.ofJob(generation.parts.trees, request, response)
  },
  {
    id: "changeKeys",
    method: "POST",
    path: "/floodgate/keys",
    access: "admin",
    summary: "Adds a key, which the answer shows this once, or removes those that were added with a name",
    body: Schemas.keyChange,
    answers: changed("The new key", Schemas.changedKey, "No key with this name was added"),
    answer: ({ parts, request, response }) => Changes.ofKey(parts.keys, request, response)
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
export const refuse = (response: ServerResponse, refusal: Refusing.Refusal): Effect.Effect<void> =>
  Response.own(response, Refusing.statusOf(refusal), `${refusal.message}\n`)

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
    off: "Caps, jobs and keys can be changed once the gateway has an admin token (option adminToken)",
    wrong: "The admin token is missing or wrong: add the header x-floodgate-admin"
  }
} as const

/** The answer that denies a request an endpoint; undefined if the request may use it. */
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
