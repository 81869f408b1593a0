/** The credentials in a request. They decide whose limits and whose caps it counts towards. */
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
type Location = "authorization" | "api-key" | "x-api-key" | "x-goog-api-key" | typeof inQuery

/** Where a credential may be, in the order in which the provider looks. */
const locations: Readonly<Record<"anthropic" | "azure" | "google" | "other", ReadonlyArray<Location>>> = {
  anthropic: ["x-api-key", "authorization", "api-key", "x-goog-api-key", inQuery],
  azure: ["api-key", "authorization", "x-api-key", "x-goog-api-key", inQuery],
  google: ["x-goog-api-key", inQuery, "authorization", "api-key", "x-api-key"],
  other: ["authorization", "api-key", "x-api-key", "x-goog-api-key", inQuery]
}

/** AWS signatures differ for each request; only the access key stays the same. */
const awsKey = /^AWS4-HMAC-SHA256 Credential=([^/,\s]+)/
const bedrock = /\/model\/[^/]+\/invoke$/
const azure = /\/openai\/deployments\//
/** Google's tokens change every hour; the paths of Vertex AI name the project. */
const vertexProject = /\/projects\/([^/]+)\/locations\/[^/]+\/(?:publishers|endpoints)\//

const locationsOf = (protocol: string, { hostname, pathname }: URL): ReadonlyArray<Location> => {
  if (protocol === "gemini") return locations.google
  if (protocol === "anthropic-messages") return bedrock.test(pathname) ? locations.other : locations.anthropic
  return hostname.endsWith(".azure.com") || azure.test(pathname) ? locations.azure : locations.other
}

/** A header that was sent twice has both values. */
const valuesOf = (location: Location, header: HeaderReader, { search, searchParams }: URL): ReadonlyArray<string> => {
  if (location === inQuery) return search === "" ? [] : searchParams.getAll("key")
  const value = header(location) ?? ""
  if (value === "") return []
  if (location !== "authorization") return value.split(",")
  return [awsKey.exec(value)?.[1] ?? value.replace(/^bearer\s+/i, "")]
}

/** A request has one or two credentials. Beyond this many, the rest count as one more. */
const maxCredentials = 8

/**
 * The credentials of a request, in the order in which its provider prefers them. Only the provider knows which of several it
 * accepts, so all are returned. The project stands for the tokens of Vertex AI, which change every hour, and the access key for
 * the signatures of AWS.
 */
export const credentialsOf = ({ header, protocol, url }: Addressed): ReadonlyArray<string> => {
  const parsed = URL.parse(url)
  if (parsed === null) return []
  const project = vertexProject.exec(parsed.pathname)?.[1]
  if (project !== undefined) return [project]
  const found: Array<string> = []
  for (const location of locationsOf(protocol, parsed)) {
    for (const value of valuesOf(location, header, parsed)) {
      const credential = value.trim()
      if (credential === "" || found.includes(credential)) continue
      if (found.length === maxCredentials) return [...found, "others"]
      found.push(credential)
    }
  }
  return found
}
