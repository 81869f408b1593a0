/**
 * Finds the upstream of a request, and its path there. A caller can never choose the host.
 */
import { type Protocol, protocols } from "floodgate/protocol"
import { baseUrl, type ProviderHeaders, Lru, Matching } from "floodgate/internal"

/** A provider to which requests are passed on. */
export interface Upstream {
  readonly name: string
  readonly origin: string
  /** The prefix of every path, without a slash at the end. */
  readonly base: string
}

export type Upstreams = ReadonlyMap<string, Upstream>

/** A request whose upstream is known. */
export interface Routed {
  readonly upstream: Upstream
  /** The path at the upstream, with the query. */
  readonly path: string
  readonly url: string
  /** The protocol of the client, if the path shows it. */
  readonly protocol: Protocol | undefined
  /** The protocol and route if a model answers the request; undefined for any other request. */
  readonly call: Matching.Match | undefined
}

/** A request that no upstream of this gateway serves. */
export interface NoRoute extends Pick<Routed, "protocol"> {
  readonly message: string
}

/** The upstream at an address; undefined unless that is an HTTP URL with only a host and a path. */
export const upstreamOf = (name: string, address: string): Upstream | undefined => {
  const url = baseUrl(address)
  return url && { name, origin: url.origin, base: url.pathname.replace(/\/+$/, "") }
}

/** The name of the upstream for each provider's name in a protocol. */
const names: Readonly<Record<string, string>> = {
  anthropic: "anthropic",
  openai: "openai",
  "gcp.gemini": "gemini",
  "aws.bedrock": "bedrock",
  mistral_ai: "mistral",
  cohere: "cohere",
  ollama: "ollama",
  "llama.cpp": "llama-cpp"
}
const known: ReadonlySet<string> = new Set(Object.values(names))

/** The first segments of providers' paths. Any other segment in front of a path is the name of an upstream. */
export const ownSegment =
  /^(?:v\d[a-z\d]*|api|messages|complete|chat|completions?|infill|responses|conversations|interactions|fim|ocr|embeddings|moderations|images|audio|files|uploads?|batches|models?|tunedModels|cachedContents|deployments|projects|publishers)$/

interface NamedMatch extends Matching.Match {
  readonly name: string
}

/** The name of the upstream that serves a match. Claude on Bedrock has Anthropic's format, and Bedrock's paths. */
const nameFor = (upstreams: Upstreams, { protocol: { provider }, route: { path } }: Matching.Match): string =>
  path.startsWith("/model/") && upstreams.has("bedrock") ? "bedrock" : (names[provider] ?? provider)

const found = (upstreams: Upstreams, method: string, path: string): ReadonlyArray<NamedMatch> =>
  Matching.matches(Object.values(protocols), method, path).map((found) => ({
    ...found,
    name: nameFor(upstreams, found)
  }))

const has = (header: ProviderHeaders.HeaderReader, name: string): boolean => (header(name) ?? "") !== ""

/** Whether a request has its key where only Anthropic looks: some are written by hand, without the version. */
const hasAnthropicsKey = (header: ProviderHeaders.HeaderReader): boolean =>
  has(header, "x-api-key") && !has(header, "authorization")

/** Providers share paths such as `/v1/models`; there the headers and the query tell which client sent the request. */
const nameOf = (
  upstreams: Upstreams,
  all: ReadonlyArray<NamedMatch>,
  path: string,
  header: ProviderHeaders.HeaderReader,
  search: string
): string | undefined => {
  const call = all.find(({ route }) => route.operation !== "passThrough")
  // The conversations of OpenAI, which no model answers, have the paths of Mistral's.
  if (call !== undefined) return (all.find(({ name }) => name !== call.name && upstreams.has(name)) ?? call).name
  const isShared = all.some(({ name }) => name === "anthropic")
  if (has(header, "anthropic-version") || (isShared && hasAnthropicsKey(header))) return "anthropic"
  if (has(header, "x-goog-api-key") || /[?&]key=/.test(search)) return "gemini"
  // Anthropic's clients always send their version.
  const others = all.filter(({ name }) => name !== "anthropic")
  const first = others[0] ?? all[0]
  // Claude Code sends requests to `/api/` before its first call.
  return first?.name ?? (path.startsWith("/api/") ? "anthropic" : undefined)
}

/** The longest name that an answer repeats. */
const longestName = 64

const lost = (upstreams: Upstreams, name: string | undefined, protocol?: Protocol): NoRoute => {
  const known = [...upstreams.keys()]
  const what =
    name === undefined
      ? `No upstream serves this path: put a name in front of it, as in /${known[0]}/`
      : `No upstream named "${name.slice(0, longestName)}"`
  return { message: `${what}; this gateway has ${known.join(", ")}`, protocol }
}

/** Splits the name of an upstream from the path that follows it, if the path begins with a name. */
const splitName = (
  upstreams: Upstreams,
  path: string
): { readonly name: string | undefined; readonly rest: string } => {
  const [, first = "", rest = "/"] = /^\/+([^/]+)(\/.*)?$/.exec(path) ?? []
  const hasName = upstreams.has(first) || (first !== "" && !ownSegment.test(first))
  return hasName ? { name: first, rest } : { name: undefined, rest: path }
}

/** The provider that a gateway with one upstream has, if it is one of the known ones. */
const onlyProvider = (upstreams: Upstreams): string | undefined => {
  const [first = ""] = upstreams.keys()
  return upstreams.size === 1 && known.has(first) ? first : undefined
}

/** A target as the path and the query that are passed on. A server never sees a fragment. */
const separate = (target: string): { readonly path: string; readonly search: string } => {
  const [whole = ""] = target.split("#", 1)
  const query = whole.indexOf("?")
  return query < 0 ? { path: whole, search: "" } : { path: whole.slice(0, query), search: whole.slice(query) }
}

/** Segments that a server resolves before it looks at a path. Browsers and SDKs resolve them before they send it. */
const hasDots = (path: string): boolean => /\\|\/(?:\.|%2e){1,2}(?:\/|$)/i.test(path)

/**
 * The path at an upstream, with the bytes that the caller has sent. Only the version changes: it may be missing, or doubled, or both at
 * the end of the address and at the start of the path. A path that is not as its provider has it, apart from slashes, is sent as it was
 * recognised.
 */
const pathAt = ({ base }: Upstream, known: Matching.Match | undefined, given: string): string => {
  if (known === undefined) return base + given
  const served = known.route.path
  const read = Matching.pathOf(given) ?? given
  const path = served.endsWith(read)
    ? base + served.slice(0, served.length - read.length) + Matching.withOneVersion(given)
    : base + served
  return base === "" ? path : Matching.withOneVersion(path)
}

/**
 * The destination of a request. `/name/...` goes to the upstream of that name. A path without a name goes to the upstream of the
 * provider that has such paths, and to no other, because the caller sends that provider's key.
 */
const find = (
  upstreams: Upstreams,
  method: string,
  target: string,
  header: ProviderHeaders.HeaderReader
): Omit<Routed, "call"> | NoRoute => {
  const parsed = target.startsWith("/") ? URL.parse(`http://localhost${target}`) : null
  if (parsed === null) return lost(upstreams, undefined)
  const sent = separate(target)
  const { search } = sent
  const { name: given, rest } = splitName(upstreams, hasDots(sent.path) ? parsed.pathname : sent.path)
  const path = Matching.pathOf(rest) ?? rest
  const all = found(upstreams, method, path)
  const provider = nameOf(upstreams, all, path, header, search) ?? onlyProvider(upstreams)
  const name = given ?? provider
  const upstream = upstreams.get(name ?? "")
  if (upstream === undefined) return lost(upstreams, name, all.find((each) => each.name === provider)?.protocol)
  const match = all.find(({ name }) => name === upstream.name) ?? all[0]
  const joined = pathAt(upstream, match, rest) + search
  return { upstream, path: joined, url: `${upstream.origin}${joined}`, protocol: match?.protocol }
}

/** Finds the route of a request by its method, its target and its headers. */
export type Router = (method: string, target: string, header: ProviderHeaders.HeaderReader) => Routed | NoRoute

/** The headers that tell which client sent a request. */
const clientHeaders = ["anthropic-version", "x-goog-api-key", "x-api-key", "authorization"]

/** More paths than clients use. */
const maxKnown = 1_000
const longestKnown = 256

/** Makes a router that remembers routes, so that URLs are parsed once. URLs with keys are not remembered. */
export const makeRouter = (
  upstreams: Upstreams,
  callOf: (method: string, path: string) => Matching.Match | undefined
): Router => {
  const remembered = new Map<string, Routed | NoRoute>()
  const routeOf: Router = (method, target, header) => {
    const found = find(upstreams, method, target, header)
    return "upstream" in found ? { ...found, call: callOf(method, found.path) } : found
  }
  return (method, target, header) => {
    if (target.length > longestKnown || /[?&]key=/.test(target)) return routeOf(method, target, header)
    const client = clientHeaders.reduce((sent, name) => `${sent}${has(header, name) ? 1 : 0}`, "")
    const key = `${client} ${method} ${target}`
    const route = remembered.get(key) ?? routeOf(method, target, header)
    Lru.put(remembered, key, route, maxKnown)
    return route
  }
}
