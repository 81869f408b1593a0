/** The OpenAPI document of the gateway's own endpoints (https://spec.openapis.org/oas/v3.1.1), made from their table. Pure. */
import * as Schema from "effect/Schema"
import { failure } from "./endpointSchemas.ts"

/**
 * The callers who may use an endpoint. Supervisors have no token, so everybody may ask for the health. `"page"` is open without the
 * token, because
 * it has no data, and the page itself asks for it. The list of requests has a token of its own, so that who may read it need not be
 * able to call. Who changes a cap needs the admin token besides.
 */
export type Access = "everybody" | "page" | "token" | "requests" | "admin"

/** A body by its media type; a body without a schema is text. */
type EndpointContent = Readonly<Record<string, Schema.Top | undefined>>

/** An answer, as the document describes it. */
interface DocumentedAnswer {
  readonly description: string
  readonly content?: EndpointContent | undefined
}

/** An endpoint, as the document describes it. */
export interface DocumentedEndpoint {
  readonly id: string
  readonly method: "GET" | "POST"
  readonly path: `/${string}`
  readonly access: Access
  readonly summary: string
  readonly description?: string | undefined
  /** The parameters of the query, all of which may be left out, with their schemas. */
  readonly parameters?: Readonly<Record<string, Schema.Top>> | undefined
  readonly body?: Schema.Top | undefined
  readonly answers: Readonly<Record<number, DocumentedAnswer>>
}

const jsonOf = (schema: Schema.Top): object => Schema.toJsonSchemaDocument(schema as Schema.Codec<unknown>).schema

const contentOf = (content: EndpointContent): object =>
  Object.fromEntries(
    Object.entries(content).map(([type, schema]) => [
      type,
      { schema: schema === undefined ? { type: "string" } : jsonOf(schema) }
    ])
  )

const answerOf = ({ content, description }: DocumentedAnswer): object => ({
  description,
  ...(content !== undefined && { content: contentOf(content) })
})

const schemes = {
  token: {
    type: "apiKey",
    in: "header",
    name: "x-floodgate-token",
    description: "The token of the gateway, which may also stand in front of the path: /token/TOKEN/floodgate/status"
  },
  bearer: { type: "http", scheme: "bearer", description: "The same token, as Prometheus sends it" },
  requests: {
    type: "apiKey",
    in: "header",
    name: "x-floodgate-requests",
    description: "The token for the list of requests (setting requestsToken)"
  },
  admin: {
    type: "apiKey",
    in: "header",
    name: "x-floodgate-admin",
    description: "The token of operators (setting adminToken)"
  }
} as const

/** The alternatives of credentials, of which a request needs one. Without a token, the gateway asks for none. */
const securityOf = (access: Access, hasToken: boolean): ReadonlyArray<Partial<Record<keyof typeof schemes, []>>> => {
  if (access === "requests") return [{ requests: [] }]
  const own = access === "admin" ? { admin: [] as [] } : {}
  if (access === "token" || access === "admin") {
    if (hasToken)
      return [
        { token: [], ...own },
        { bearer: [], ...own }
      ]
    return access === "admin" ? [own] : []
  }
  return []
}

const failed = { "application/json": failure }
const inWords = { "text/plain": undefined }

/** The answers to a request that may not use an endpoint. */
const denials: Readonly<Record<Access, DocumentedEndpoint["answers"]>> = {
  everybody: {},
  page: { 403: { description: "The gateway has no token, and the request may come from a website", content: inWords } },
  token: {
    401: { description: "The token is missing or wrong", content: inWords },
    403: { description: "The gateway has no token, and the request may come from a website", content: inWords }
  },
  requests: {
    401: { description: "The token for the list is missing or wrong", content: failed },
    403: {
      description: "The gateway has no token for the list; or the request may come from a website",
      content: { ...failed, ...inWords }
    }
  },
  admin: {
    401: { description: "A token is missing or wrong", content: { ...failed, ...inWords } },
    403: {
      description: "The gateway has no admin token; or the request may come from a website",
      content: { ...failed, ...inWords }
    }
  }
}

const operationOf = (endpoint: DocumentedEndpoint, hasToken: boolean): object => {
  const { access, answers, body, description, id, parameters = {}, summary } = endpoint
  return {
    operationId: id,
    summary,
    ...(description !== undefined && { description }),
    security: securityOf(access, hasToken),
    parameters: Object.entries(parameters).map(([name, schema]) => ({ name, in: "query", schema: jsonOf(schema) })),
    ...(body !== undefined && { requestBody: { required: true, content: contentOf({ "application/json": body }) } }),
    responses: Object.fromEntries(
      Object.entries({ ...denials[access], ...answers }).map(([status, answer]) => [status, answerOf(answer)])
    )
  }
}

/** Makes the document. `hasToken` says whether the gateway has a token. */
export const documentOf = (
  endpoints: ReadonlyArray<DocumentedEndpoint>,
  version: string,
  hasToken: boolean
): object => {
  const paths: Record<string, Record<string, object>> = {}
  for (const endpoint of endpoints) {
    const operations = (paths[endpoint.path] ??= {})
    operations[endpoint.method.toLowerCase()] = operationOf(endpoint, hasToken)
  }
  return {
    openapi: "3.1.1",
    info: {
      title: "Floodgate gateway",
      version,
      description:
        "The gateway's own endpoints. All other paths are those of the providers, to which the gateway passes requests on."
    },
    servers: [{ url: "/" }],
    paths,
    components: { securitySchemes: schemes }
  }
}
