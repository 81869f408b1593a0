/** The credentials in a request. They decide whose limits and whose caps it counts towards. */
import * as Lru from "../domain/input/lru.ts"
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

/** The locations of credentials, in the order in which the provider looks. */
const locations: Readonly<Record<"anthropic" | "azure" | "google" | "other", ReadonlyArray<Location>>> = {
  anthropic: ["x-api-key", "authorization", "api-key", "x-goog-api-key", inQuery],
  azure: ["api-key", "authorization", "x-api-key", "x-goog-api-key", inQuery],
  google: ["x-goog-api-key", inQuery, "authorization", "api-key", "x-api-key"],
  other: ["authorization", "api-key", "x-api-key", "x-goog-api-key", inQuery]
}

/** AWS signatures differ for each request; only the access key stays the same. */
const awsKey = /^AWS4-HMAC-SHA256 Credential=([^/,\s]+)/
const bedrock = /\/model\/[^/]+\/invoke(?:-with-response-stream)?$/
const azure = /\/openai\/deployments\//
/** Google's tokens change every hour; the paths of Vertex AI name the project. */
const vertexProject = /\/projects\/([^/]+)\/locations\/[^/]+\/(?:publishers|endpoints)\//

const locationsOf = (protocol: string, { hostname, pathname }: URL): ReadonlyArray<Location> => {
  if (protocol.startsWith("gemini")) return locations.google
  if (protocol === "anthropic-messages") return bedrock.test(pathname) ? locations.other : locations.anthropic
  return hostname.endsWith(".azure.com") || azure.test(pathname) ? locations.azure : locations.other
}

// -----------------------------------------------------------------------------
// Addresses
// -----------------------------------------------------------------------------

/** The parts of a URL that tell the account of a request. */
interface Address {
  readonly host: string
  /** The project that stands for the credentials; undefined if the request has its own. */
  readonly project: string | undefined
  readonly locations: ReadonlyArray<Location>
  /** The keys in the query. */
  readonly keys: ReadonlyArray<string>
}

const read = (protocol: string, url: string): Address => {
  const parsed = URL.parse(url)
  if (parsed === null) return { host: "", project: undefined, locations: [], keys: [] }
  const { host, pathname, search, searchParams } = parsed
  return {
    host,
    project: vertexProject.exec(pathname)?.[1],
    locations: locationsOf(protocol, parsed),
    keys: search === "" ? [] : searchParams.getAll("key")
  }
}

/** More addresses than a program calls, and the longest that is remembered: clients of a gateway can invent them. */
const maxRemembered = 1_000
const longestRemembered = 256

const remembered = new Map<string, Address>()

/** Reads a URL. Parsing one costs more than the rest of a request's account, so the results for URLs without keys are remembered. */
const addressOf = (protocol: string, url: string): Address => {
  const name = `${protocol} ${url}`
  const known = remembered.get(name)
  if (known !== undefined) return known
  const address = read(protocol, url)
  if (name.length <= longestRemembered && address.keys.length === 0) Lru.put(remembered, name, address, maxRemembered)
  return address
}

/** The host of a request with its port; empty if the URL is malformed. */
export const hostOf = ({ protocol, url }: Pick<Addressed, "protocol" | "url">): string => addressOf(protocol, url).host

// -----------------------------------------------------------------------------
// Credentials
// -----------------------------------------------------------------------------

/** A header that was sent twice has both values. */
const valuesOf = (location: Location, header: HeaderReader, { keys }: Address): ReadonlyArray<string> => {
  if (location === inQuery) return keys
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
  const address = addressOf(protocol, url)
  if (address.project !== undefined) return [address.project]
  const found: Array<string> = []
  for (const location of address.locations) {
    for (const value of valuesOf(location, header, address)) {
      const credential = value.trim()
      if (credential === "" || found.includes(credential)) continue
      if (found.length === maxCredentials) return [...found, "others"]
      found.push(credential)
    }
  }
  return found
}

/** The header in which the provider of a protocol looks for a credential first. */
export const credentialLocation = (protocol: string, url: string): string => {
  const parsed = URL.parse(url)
  const [first = "authorization"] = parsed === null ? [] : locationsOf(protocol, parsed)
  return first
}

// -----------------------------------------------------------------------------
// Replacement
// -----------------------------------------------------------------------------

/**
 * Headers that belong to a caller's credential: its key, its session, and the organisation or the project that pays. They are not
 * sent with another credential.
 */
export const ofCallers: ReadonlySet<string> = new Set([
  "authorization",
  "x-api-key",
  "api-key",
  "x-goog-api-key",
  "cookie",
  "openai-organization",
  "openai-project",
  "x-goog-user-project"
])

/** A header with a credential. */
export type CredentialHeader = readonly [name: string, value: string]

export const headerWith = (name: string, credential: string): CredentialHeader => [
  name,
  name === "authorization" ? `Bearer ${credential}` : credential
]

/** Reads the headers of a request in which another credential, or none, replaces the caller's. */
export const replacedIn =
  (header: HeaderReader, credential: CredentialHeader | undefined): HeaderReader =>
  (name) => {
    if (name === credential?.[0]) return credential[1]
    return ofCallers.has(name) ? undefined : header(name)
  }
