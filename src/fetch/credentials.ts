/** The credentials that a request sends to its provider. They tell whose limits and whose caps it counts towards. */
import type { HeaderReader } from "../protocol/headers.ts"

/** The parts of a request that hold its credentials. */
export interface Addressed {
  readonly url: string
  /** The protocol by its name. */
  readonly protocol: string
  readonly header: HeaderReader
}

/** The parameter of the query that holds a key of Google's. */
const inQuery = "?key"
const all = ["authorization", "api-key", "x-api-key", "x-goog-api-key", inQuery] as const
type Place = (typeof all)[number]

/** AWS signs each request anew; only the access key stays the same. */
const awsKey = /^AWS4-HMAC-SHA256 Credential=([^/,\s]+)/
const bedrock = /\/model\/[^/]+\/invoke$/
const azure = /\/openai\/deployments\//
/** Google's tokens change every hour; the paths of Vertex AI name the project. */
const vertexProject = /\/projects\/([^/]+)\/locations\/[^/]+\/(?:publishers|endpoints)\//

/** Where the provider looks first. */
const firstOf = (protocol: string, { hostname, pathname }: URL): ReadonlyArray<Place> => {
  if (protocol === "gemini") return ["x-goog-api-key", inQuery]
  if (protocol === "anthropic-messages") return bedrock.test(pathname) ? [] : ["x-api-key"]
  return hostname.endsWith(".azure.com") || azure.test(pathname) ? ["api-key"] : []
}

/** A header that was sent twice has both values. */
const valuesOf = (place: Place, header: HeaderReader, { search, searchParams }: URL): ReadonlyArray<string> => {
  if (place === inQuery) return search === "" ? [] : searchParams.getAll("key")
  const value = header(place) ?? ""
  if (place !== "authorization") return value.split(",")
  return [awsKey.exec(value)?.[1] ?? value.replace(/^bearer\s+/i, "")]
}

/** A request has one or two. Requests with more than this many count as those of one caller. */
const most = 8

/**
 * The credentials of a request, the one that its provider uses first. They are more than one if the request has several: only
 * the provider knows which of them it takes. At Vertex AI it is the project, and for AWS the access key.
 */
export const credentialsOf = ({ header, protocol, url }: Addressed): ReadonlyArray<string> => {
  const parsed = URL.parse(url)
  if (parsed === null) return []
  const project = vertexProject.exec(parsed.pathname)?.[1]
  if (project !== undefined) return [project]
  const places = new Set([...firstOf(protocol, parsed), ...all])
  const found = [...places].flatMap((place) => valuesOf(place, header, parsed)).map((value) => value.trim())
  const given = [...new Set(found.filter((value) => value !== ""))]
  return given.length > most ? ["many"] : given
}
